//! Seed after seed, until a promise is broken, all are done, or the time is over.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use longshore_sim::{FaultKind, Outcome, Scenario};
use serde_json::{Map, Value, json};

use super::args::SimArgs;
use super::setup::Setup;
use super::watch::{Ended, Watcher};
use super::{json, print, print_json, story, table, tell};
use crate::ending::Ending;

/// What came of all seeds together.
#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    simulated: Duration,
    containers: usize,
    processes: usize,
    instances: usize,
    restarts: u64,
    faults: BTreeMap<FaultKind, u64>,
    /// The seed that broke a promise.
    broken: Option<(Scenario, Outcome)>,
}

pub(super) fn soak(args: &SimArgs) -> anyhow::Result<Ending> {
    let setup = Setup::new(args)?;
    tell(&setup.notes);
    let mut watcher = Watcher::new(None)?;
    let until = args.time.map(|time| Instant::now() + time);
    let last = args.seeds.map(|count| args.seed.saturating_add(count - 1));
    let mut total = Total::default();
    let mut seed = args.seed;
    while !watcher.is_over() {
        watcher.heading = format!("seed {seed}, {} done; ", total.seeds);
        let scenario = setup.scenario(seed);
        // The first one is simulated to its end on a slow machine, too: else nothing could be said.
        watcher.until = until.filter(|_| total.seeds > 0);
        let (outcome, ended) = watcher.run(&scenario)?;
        // One that was cut short says nothing.
        if ended == Ended::Interrupted && outcome.violations.is_empty() {
            break;
        }
        total.add(scenario, outcome);
        if total.broken.is_some() || last == Some(seed) || seed == u64::MAX {
            break;
        }
        seed += 1;
    }
    total.show(args)?;
    Ok(match &total.broken {
        Some(_) => Ending::Failed,
        None if watcher.is_interrupted() => Ending::Interrupted,
        None => Ending::Succeeded,
    })
}

impl Total {
    fn add(&mut self, scenario: Scenario, outcome: Outcome) {
        self.seeds += 1;
        self.simulated += outcome.elapsed;
        self.containers += outcome.containers;
        self.processes += outcome.processes;
        self.instances += outcome.instances;
        self.restarts += u64::from(outcome.lives.saturating_sub(1));
        for (kind, count) in &outcome.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        if !outcome.violations.is_empty() {
            self.broken = Some((scenario, outcome));
        }
    }

    fn days(&self) -> f64 {
        self.simulated.as_secs_f64() / 86_400.0
    }

    fn show(&self, args: &SimArgs) -> anyhow::Result<()> {
        if args.json {
            return print_json(self.json(args));
        }
        print(&self.text(args))?;
        if let Some((scenario, outcome)) = &self.broken {
            let command = story::command(args, scenario.seed);
            print(&story::story(scenario, outcome, &command))?;
        }
        Ok(())
    }

    fn text(&self, args: &SimArgs) -> String {
        let mut text = String::new();
        let all: u64 = self.faults.values().sum();
        let _ = writeln!(
            text,
            "seeds done       {}, from {} on\n\
             simulated        {:.1} days\n\
             containers       {} ({} processes)\n\
             instances        {} made\n\
             restarts         {} of the dispatcher\n\
             faults met       {all}: {}\n\
             violations: {}",
            self.seeds,
            args.seed,
            self.days(),
            self.containers,
            self.processes,
            self.instances,
            self.restarts,
            table::list(&table::faults(&self.faults)),
            u8::from(self.broken.is_some()),
        );
        text
    }

    fn json(&self, args: &SimArgs) -> Map<String, Value> {
        let broken = self.broken.as_ref();
        let violations = broken.map(|(scenario, outcome)| {
            let all = outcome.violations.iter().map(json::violation);
            json!({"seed": scenario.seed, "violations": all.collect::<Vec<_>>()})
        });
        json::object(json!({
            "format": 1,
            "first_seed": args.seed,
            "seeds": self.seeds,
            "fault_level": args.faults.as_str(),
            "simulated_days": json::rounded(self.days()),
            "containers": self.containers,
            "processes": self.processes,
            "instances": self.instances,
            "dispatcher_restarts": self.restarts,
            "faults": table::faults(&self.faults),
            "broken": violations,
        }))
    }
}
