// A model of a provider's token bucket and of callers, on virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use longshore_throttle::governor::{Answer, Core, Permission, Permit};
use longshore_types::Instant;

/// What is simulated.
#[derive(Clone, Debug)]
struct Scene {
    name: &'static str,
    size: f64,
    rate: f64,
    /// From one moment (in seconds) on, the rate is another one.
    change: Option<(f64, f64)>,
    callers: usize,
    /// How long an answer takes, in seconds.
    latency: f64,
    /// The part of the rate that others take, at random moments.
    others: f64,
    /// What is before this, in seconds, is learning.
    from: f64,
    until: f64,
}

/// What came of it after learning.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "each user needs another part of it")]
struct Figures {
    /// Calls that the bucket could have let through.
    possible: f64,
    passed: f64,
    refused: f64,
    core: Core,
    end: Instant,
}

impl Figures {
    fn achieved(&self) -> f64 {
        self.passed / self.possible
    }

    fn refused_part(&self) -> f64 {
        self.refused / (self.passed + self.refused)
    }
}

/// The bucket, and those who also take from it.
struct Bucket {
    tokens: f64,
    at: f64,
    random: u64,
    next_other: f64,
}

impl Bucket {
    fn advance(&mut self, scene: &Scene, now: f64) {
        while self.next_other <= now {
            let at = self.next_other;
            self.refill(scene, at);
            if scene.others > 0.0 && self.tokens >= 1.0 {
                self.tokens -= 1.0;
            }
            self.next_other += self.pause(scene, at);
        }
        self.refill(scene, now);
    }

    fn refill(&mut self, scene: &Scene, now: f64) {
        self.tokens = (self.tokens + rate(scene, self.at) * (now - self.at)).min(scene.size);
        self.at = now;
    }

    /// Exponentially distributed.
    fn pause(&mut self, scene: &Scene, now: f64) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let evenly = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        let mean = 1.0 / (scene.others * rate(scene, now)).max(1e-6);
        -(1.0 - evenly).ln() * mean
    }

    fn take(&mut self) -> bool {
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

fn rate(scene: &Scene, now: f64) -> f64 {
    match scene.change {
        Some((at, rate)) if now >= at => rate,
        _ => scene.rate,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ask(usize),
    Answer(usize),
}

/// Callers that always have a next call.
fn simulate(scene: &Scene) -> Figures {
    let mut core = Core::new();
    let mut bucket = Bucket { tokens: scene.size, at: 0.0, random: 0x1234_5678_9abc_def1, next_other: 0.0 };
    let nanos = |seconds: f64| (seconds * 1e9) as u64;
    let mut events: BinaryHeap<Reverse<(u64, Event)>> =
        (0..scene.callers).map(|caller| Reverse((caller as u64, Event::Ask(caller)))).collect();
    let mut under_way: Vec<Option<(Permit, Answer)>> = vec![None; scene.callers];
    let (mut passed, mut refused) = (0.0, 0.0);
    while let Some(Reverse((at, event))) = events.pop() {
        let (now, clock) = (at as f64 / 1e9, Instant::from_nanos(at));
        if now > scene.until {
            break;
        }
        match event {
            Event::Ask(caller) => match core.handle_request(1, clock) {
                Permission::At(then) => {
                    events.push(Reverse((then.as_nanos(), Event::Ask(caller))));
                }
                Permission::Go(permit) => {
                    bucket.advance(scene, now);
                    let there = bucket.take();
                    if now >= scene.from {
                        *(if there { &mut passed } else { &mut refused }) += 1.0;
                    }
                    let answer = if there { Answer::passed(1) } else { Answer::refused(1) };
                    under_way[caller] = Some((permit, answer));
                    events.push(Reverse((at + nanos(scene.latency), Event::Answer(caller))));
                }
            },
            Event::Answer(caller) => {
                if let Some((permit, answer)) = under_way[caller].take() {
                    core.handle_answer(permit, answer, clock);
                }
                events.push(Reverse((at, Event::Ask(caller))));
            }
        }
    }
    let possible = rate(scene, scene.until) * (1.0 - scene.others) * (scene.until - scene.from);
    Figures { possible, passed, refused, core, end: Instant::ZERO + Duration::from_secs_f64(scene.until) }
}

fn scene(name: &'static str, size: f64, rate: f64) -> Scene {
    Scene { name, size, rate, change: None, callers: 1, latency: 0.0, others: 0.0, from: 1800.0, until: 14_400.0 }
}

/// Everything that the figures are given for.
fn scenes() -> Vec<Scene> {
    let many = |scene: Scene| Scene { callers: 20, latency: 0.3, ..scene };
    let shared = |scene: Scene| Scene { others: 0.3, callers: 4, latency: 0.1, ..scene };
    let change = |scene: Scene, to| Scene { change: Some((3600.0, to)), from: 7200.0, ..scene };
    vec![
        scene("1,000 + 2/s", 1000.0, 2.0),
        scene("100 + 20/s", 100.0, 20.0),
        scene("10 + 0.5/s", 10.0, 0.5),
        scene("5 + 10/s", 5.0, 10.0),
        many(scene("1,000 + 2/s, 20 callers", 1000.0, 2.0)),
        many(scene("100 + 20/s, 20 callers", 100.0, 20.0)),
        many(scene("10 + 0.5/s, 20 callers", 10.0, 0.5)),
        many(scene("5 + 10/s, 20 callers", 5.0, 10.0)),
        shared(scene("1,000 + 2/s, others take 30 %", 1000.0, 2.0)),
        shared(scene("100 + 20/s, others take 30 %", 100.0, 20.0)),
        shared(scene("10 + 0.5/s, others take 30 %", 10.0, 0.5)),
        shared(scene("5 + 10/s, others take 30 %", 5.0, 10.0)),
        change(scene("1,000 + 2/s, then 6/s", 1000.0, 2.0), 6.0),
        change(scene("1,000 + 2/s, then 0.5/s", 1000.0, 2.0), 0.5),
        change(many(scene("100 + 20/s, then 40/s", 100.0, 20.0)), 40.0),
        change(many(scene("100 + 20/s, then 5/s", 100.0, 20.0)), 5.0),
    ]
}
