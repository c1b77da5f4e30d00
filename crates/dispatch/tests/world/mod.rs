//! A small world for a dispatcher: a cloud, machines with runners, and a controller, all on one
//! virtual clock, with everything that can be late, lost or cut short drawn from a seed.
//!
//! What it knows of containers it knows by itself: the witness watches processes start and end on
//! the machines and does not ask the dispatcher.

pub(crate) mod cloud;
pub(crate) mod controller;
pub(crate) mod machine;
pub(crate) mod random;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use longshore_dispatch::{Config, Core, Effect, QueueAction, QueueReply, RequestId};
use longshore_pool::{EffectAction, EffectId, Outcome};
use longshore_types::{ContainerUuid, Instant};

use cloud::Cloud;
use controller::Controller;
use random::Random;

/// What can go wrong, each as a chance in a million.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A reply is lost, after the request was carried out.
    pub(crate) reply_lost: u64,
    /// A request is lost, and so is the reply.
    pub(crate) request_lost: u64,
    /// The dispatcher is killed at a step.
    pub(crate) crash: u64,
    /// An instance vanishes at a step.
    pub(crate) instance_lost: u64,
    /// A supervisor is killed at a step.
    pub(crate) supervisor_lost: u64,
}

/// Something that will happen.
#[derive(Debug)]
enum Pending {
    /// A request of the dispatcher is carried out; `reply` is whether it will hear of it.
    Act {
        life: u32,
        effect: Effect,
        reply: bool,
    },
    /// The dispatcher hears what came of an effect of its pool.
    Outcome {
        life: u32,
        id: EffectId,
        outcome: Outcome,
    },
    /// The dispatcher hears from the controller.
    Reply {
        life: u32,
        id: RequestId,
        reply: QueueReply,
    },
}

/// The world and the dispatcher in it.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) cloud: Cloud,
    pub(crate) controller: Controller,
    pub(crate) core: Core,
    pub(crate) crashes: u32,
    config: Config,
    /// Which of the dispatcher's processes is alive; what is meant for an earlier one is lost.
    life: u32,
    pending: BTreeMap<(Instant, u64), Pending>,
    sequence: u64,
    /// Long polls that wait for a change: of machines, and of the controller.
    waiting: Vec<(Instant, u32, Effect)>,
    pub(crate) effects: u64,
    /// The last things that the dispatcher told, for failures.
    story: VecDeque<String>,
}

const LONGEST_STORY: usize = 2000;

fn seconds(now: Instant) -> f64 {
    now.since(Instant::ZERO).as_secs_f64()
}

impl World {
    pub(crate) fn new(config: Config, faults: Faults, seed: u64, controller: Controller) -> Self {
        let mut random = Random::new(seed);
        let now = Instant::ZERO;
        Self {
            now,
            core: Core::new(config.clone(), random.seed(), now),
            random,
            faults,
            cloud: Cloud::default(),
            controller,
            crashes: 0,
            config,
            life: 0,
            pending: BTreeMap::new(),
            sequence: 0,
            waiting: Vec::new(),
            effects: 0,
            story: VecDeque::new(),
        }
    }

    /// Goes on until `done`, or fails with what is wrong after `limit`.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let end = self.now + limit;
        while !done(self) {
            self.step()?;
            if self.now > end {
                return Err(format!("not done after {limit:?}: {}", self.describe()));
            }
        }
        Ok(())
    }

    /// One thing happens.
    fn step(&mut self) -> Result<(), String> {
        self.misfortune();
        self.take_effects();
        self.wake_long_polls();
        let next_event = self.pending.keys().next().map(|(at, _)| *at);
        let next_timer = self
            .core
            .poll_timeout()
            .map(|deadline| deadline.at.max(self.now));
        let next_poll = self.waiting.iter().map(|(at, ..)| *at).min();
        let next_machine = self.cloud.next_change();
        let next = [next_event, next_timer, next_poll, next_machine]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next else {
            return Err(format!("asleep: {}", self.describe()));
        };
        self.now = self.now.max(next);
        self.cloud.advance(self.now);
        if next_timer.is_some_and(|at| at <= self.now) {
            self.core.handle_timeout(self.now);
        }
        if next_event.is_some_and(|at| at <= self.now)
            && let Some((_, pending)) = self.pending.pop_first()
        {
            self.happen(pending)?;
        }
        self.core.check_invariants()
    }

    fn happen(&mut self, pending: Pending) -> Result<(), String> {
        match pending {
            Pending::Act {
                life,
                effect,
                reply,
            } => self.act(life, effect, reply)?,
            Pending::Outcome { life, id, outcome } if life == self.life => {
                self.core.handle_pool_outcome(id, outcome, self.now);
            }
            Pending::Reply { life, id, reply } if life == self.life => {
                self.core.handle_reply(id, reply, self.now);
            }
            Pending::Outcome { .. } | Pending::Reply { .. } => {}
        }
        Ok(())
    }

    fn take_effects(&mut self) {
        while let Some(notice) = self.core.poll_notice() {
            if self.story.len() == LONGEST_STORY {
                self.story.pop_front();
            }
            self.story
                .push_back(format!("{:>10.3} {notice:?}", seconds(self.now)));
        }
        while let Some(effect) = self.core.poll_effect() {
            self.effects += 1;
            let life = self.life;
            if self.random.chance(self.faults.request_lost) {
                self.time_out(life, &effect);
                continue;
            }
            let reply = !self.random.chance(self.faults.reply_lost);
            if !reply {
                self.time_out(life, &effect);
            }
            let delay = self.random.delay();
            self.schedule(
                delay,
                Pending::Act {
                    life,
                    effect,
                    reply,
                },
            );
        }
    }

    /// The dispatcher's shell gives an effect up when its time is over.
    fn time_out(&mut self, life: u32, effect: &Effect) {
        match effect {
            Effect::Pool(effect) => {
                let outcome = machine::unknown_outcome(&effect.action);
                let pending = Pending::Outcome {
                    life,
                    id: effect.id,
                    outcome,
                };
                self.schedule(effect.timeout, pending);
            }
            Effect::Queue(request) => {
                let reply = controller::unknown_reply(&request.action);
                let pending = Pending::Reply {
                    life,
                    id: request.id,
                    reply,
                };
                self.schedule(request.timeout, pending);
            }
        }
    }

    fn act(&mut self, life: u32, effect: Effect, reply: bool) -> Result<(), String> {
        match &effect {
            Effect::Pool(pool) => {
                if let EffectAction::Report(host, options) = &pool.action
                    && !options.wait.is_zero()
                    && self.cloud.is_unchanged(host, options)
                {
                    if reply {
                        self.waiting.push((self.now + options.wait, life, effect));
                    }
                    return Ok(());
                }
                let outcome = self
                    .cloud
                    .perform(&pool.action, self.now, &mut self.random)?;
                if reply {
                    let delay = self.random.delay();
                    let pending = Pending::Outcome {
                        life,
                        id: pool.id,
                        outcome,
                    };
                    self.schedule(delay, pending);
                }
            }
            // The controller is embedded: it dies with the dispatcher, and so do its requests.
            Effect::Queue(_) if life != self.life => {}
            Effect::Queue(request) => {
                let watches = matches!(request.action, QueueAction::Watch);
                if watches && !self.controller.has_changes() {
                    if reply {
                        self.waiting
                            .push((self.now + request.timeout, life, effect));
                    }
                    return Ok(());
                }
                // Changes that are taken with a reply that gets lost would be lost with it.
                if watches && !reply {
                    return Ok(());
                }
                let answer = self.controller.perform(&request.action);
                if reply {
                    let delay = self.random.delay();
                    let pending = Pending::Reply {
                        life,
                        id: request.id,
                        reply: answer,
                    };
                    self.schedule(delay, pending);
                }
            }
        }
        Ok(())
    }

    /// Long polls end when something has changed, or when their time is over.
    fn wake_long_polls(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for (at, life, effect) in waiting {
            let changed = match &effect {
                Effect::Pool(pool) => match &pool.action {
                    EffectAction::Report(host, options) => !self.cloud.is_unchanged(host, options),
                    _ => true,
                },
                Effect::Queue(_) => self.controller.has_changes(),
            };
            if life != self.life {
                continue;
            }
            if !changed && at > self.now {
                self.waiting.push((at, life, effect));
                continue;
            }
            let delay = self.random.delay();
            let pending = match effect {
                Effect::Pool(pool) => {
                    let outcome = self.cloud.report(&pool.action);
                    Pending::Outcome {
                        life,
                        id: pool.id,
                        outcome,
                    }
                }
                Effect::Queue(request) => {
                    let reply = self.controller.perform(&request.action);
                    Pending::Reply {
                        life,
                        id: request.id,
                        reply,
                    }
                }
            };
            self.schedule(delay, pending);
        }
    }

    fn misfortune(&mut self) {
        if self.random.chance(self.faults.crash) {
            self.crash();
        }
        if self.random.chance(self.faults.instance_lost) {
            self.cloud.lose_an_instance(&mut self.random);
        }
        if self.random.chance(self.faults.supervisor_lost) {
            self.cloud.lose_a_supervisor(&mut self.random);
        }
    }

    /// The dispatcher is killed and started again. What it had asked for may still be carried out.
    pub(crate) fn crash(&mut self) {
        self.crashes += 1;
        self.story.push_back(format!(
            "{:>10.3} ---- killed and started again",
            seconds(self.now)
        ));
        self.life += 1;
        self.waiting.clear();
        self.controller.subscribe_anew();
        self.core = Core::new(self.config.clone(), self.random.seed(), self.now);
    }

    fn schedule(&mut self, delay: Duration, pending: Pending) {
        self.sequence += 1;
        self.pending
            .insert((self.now + delay, self.sequence), pending);
    }

    /// What was told about a container.
    pub(crate) fn story_of(&self, uuid: ContainerUuid) -> String {
        let about = |line: &&String| line.contains(uuid.as_str()) || line.contains("----");
        self.story
            .iter()
            .filter(about)
            .map(|line| format!("{line}\n"))
            .collect()
    }

    pub(crate) fn describe(&self) -> String {
        let snapshot = self.core.snapshot(self.now);
        let stories: Vec<String> = snapshot
            .waiting
            .iter()
            .take(1)
            .map(|entry| self.story_of(entry.uuid))
            .collect();
        format!(
            "at {:?}: {:?}\n{}\n{}\n{}",
            self.now,
            snapshot,
            stories.join("\n"),
            self.controller.describe(),
            self.cloud.describe()
        )
    }
}
