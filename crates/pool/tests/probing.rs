//! How often each worker is asked, however many there are.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::*;
use longshore_pool::*;
use longshore_types::*;

/// What machines do, and how long it takes.
#[derive(Clone, Copy, Debug)]
struct Machines {
    count: usize,
    /// Whether the runner can wait for a change.
    waits: bool,
    busy: bool,
    /// Whether its boot probe fails.
    unwell: bool,
    behavior: IdleBehavior,
    max_probes_per_second: u32,
}

const MACHINES: Machines = Machines {
    count: 1,
    waits: false,
    busy: false,
    unwell: false,
    behavior: IdleBehavior::Hold,
    max_probes_per_second: 0,
};

const LATENCY: Duration = Duration::from_millis(200);

/// Machines that answer, on a clock of their own: when each was asked something.
struct Hall {
    core: Core,
    now: Instant,
    due: BTreeMap<(Instant, EffectId), Effect>,
    asked: BTreeMap<InstanceId, Instant>,
    longest: Duration,
    alarms: Vec<String>,
    machines: Machines,
}

impl Hall {
    fn new(machines: Machines) -> Self {
        let mut config = config();
        config.max_probes_per_second = machines.max_probes_per_second;
        let now = Instant::ZERO;
        Self {
            core: Core::new(config, [0; 32], now),
            now,
            due: BTreeMap::new(),
            asked: BTreeMap::new(),
            longest: Duration::ZERO,
            alarms: Vec::new(),
            machines,
        }
    }

    fn listing(&self) -> Outcome {
        let behavior = self.machines.behavior.as_str();
        let ids = (0..self.machines.count).map(|n| format!("i-{n:05}"));
        let instances = ids.map(|id| listed(&id, "small", &format!("secret of {id}"), behavior));
        Outcome::listed(instances)
    }

    fn answer(&self, action: &EffectAction) -> Outcome {
        match action {
            EffectAction::List(_) => self.listing(),
            EffectAction::Boot(_) if self.machines.unwell => Outcome::Booted(Err(badly())),
            EffectAction::Boot(_) => Outcome::Booted(Ok(())),
            EffectAction::Deploy(..) => Outcome::Deployed(Ok(())),
            EffectAction::Report(host, _) => {
                let number: usize = host.instance.as_str()[2..].parse().unwrap();
                let busy = self.machines.busy.then(|| running(number, 1));
                let digest = if self.machines.waits { "same" } else { "" };
                Outcome::Reported(Ok(RunnerReport {
                    containers: busy.into_iter().collect(),
                    broken: None,
                    digest: digest.into(),
                }))
            }
            other => other.lost("not modelled"),
        }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            let mut takes = LATENCY;
            if let EffectAction::Report(host, options) = &effect.action {
                takes += if self.machines.waits {
                    options.wait
                } else {
                    Duration::ZERO
                };
                let before = self.asked.insert(host.instance.clone(), self.now);
                let gap = self.now.since(before.unwrap_or(self.now));
                self.longest = self.longest.max(gap);
            }
            self.due.insert((self.now + takes, effect.id), effect);
        }
        while let Some(event) = self.core.poll_event() {
            if let Event::Alarm { text } = event {
                self.alarms.push(text);
            }
        }
        while self.core.poll_changed().is_some() {}
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.drain();
        loop {
            let timer = self.core.poll_timeout().map(|deadline| deadline.at);
            let outcome = self.due.keys().next().map(|(at, _)| *at);
            let Some(next) = timer
                .into_iter()
                .chain(outcome)
                .min()
                .filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            if outcome == Some(next) {
                let (_, effect) = self.due.pop_first().unwrap();
                let outcome = self.answer(&effect.action);
                self.core.handle_outcome(effect.id, outcome, self.now);
            } else {
                self.core.handle_timeout(self.now);
            }
            self.drain();
        }
        self.now = end;
    }

    /// The longest time between two reports of one worker, once all have been adopted.
    fn period(&mut self) -> Duration {
        self.run(seconds(80));
        assert_eq!(self.asked.len(), self.machines.count);
        self.longest = Duration::ZERO;
        self.run(seconds(130));
        let late = self.asked.values().map(|at| self.now.since(*at)).max();
        self.longest.max(late.unwrap())
    }
}

#[test]
fn each_of_10_000_workers_is_asked_as_often_as_each_of_100() {
    for (waits, busy) in [(true, false), (true, true), (false, true)] {
        for count in [100, 10_000] {
            let machines = Machines {
                count,
                waits,
                busy,
                ..MACHINES
            };
            let period = Hall::new(machines).period();
            let case = format!("{count} workers, waits: {waits}, busy: {busy}: {period:?}");
            // A report that waits for a change waits for a minute.
            let usual = seconds(if waits { 60 } else { 10 });
            assert!(period <= usual + Duration::from_millis(500), "{case}");
            assert!(period >= usual - Duration::from_millis(500), "{case}");
        }
    }
}

#[test]
fn a_cap_on_the_rate_of_probes_holds_and_makes_itself_known() {
    let machines = Machines {
        count: 400,
        max_probes_per_second: 20,
        ..MACHINES
    };
    let mut hall = Hall::new(machines);
    hall.run(seconds(120));
    assert_eq!(hall.asked.len(), 400);
    hall.longest = Duration::ZERO;
    hall.run(seconds(60));
    // 400 workers at 20 a second.
    let period = hall.longest;
    assert!(period >= seconds(19) && period <= seconds(21), "{period:?}");
    let said: Vec<&String> = hall
        .alarms
        .iter()
        .filter(|text| text.contains("cap of 20"))
        .collect();
    assert_eq!(said.len(), 1, "{:?}", hall.alarms);

    let machines = Machines {
        count: 200,
        ..machines
    };
    let mut hall = Hall::new(machines);
    hall.run(seconds(60));
    assert_eq!(hall.alarms, [""; 0], "200 workers can be asked every 10 s");
}

/// The runner powers its machine off if nobody asks it anything for an hour.
#[test]
fn every_worker_that_is_wanted_is_asked_something_every_other_minute() {
    for behavior in [IdleBehavior::Run, IdleBehavior::Hold, IdleBehavior::Drain] {
        for unwell in [false, true] {
            for waits in [false, true] {
                let machines = Machines {
                    waits,
                    busy: true,
                    behavior,
                    unwell,
                    ..MACHINES
                };
                let mut hall = Hall::new(machines);
                hall.run(seconds(7200));
                assert_eq!(hall.core.workers().count(), 1);
                let longest = hall
                    .longest
                    .max(hall.now.since(hall.asked[&"i-00000".into()]));
                assert!(longest <= seconds(120), "{machines:?}: {longest:?}");
            }
        }
    }
}

#[test]
fn an_instance_that_is_to_go_is_not_asked_anything_any_more() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.kill("a", 1);
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    rig.effects.retain(|effect| effect.action.host().is_none());
    rig.pass(seconds(7200), |action| match action {
        EffectAction::Destroy(ids) => {
            let refused = failure(longshore_cloud::ErrorKind::Denied, false);
            let results = ids.iter().map(|id| (id.clone(), Err(refused.clone())));
            Some(Outcome::Destroyed(results.collect()))
        }
        action => gone(action),
    });
    assert!(
        rig.effects
            .iter()
            .all(|effect| effect.action.host().is_none())
    );
}
