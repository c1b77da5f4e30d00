//! The part of a configuration that matters to a simulation.
//!
//! The keys are those of the dispatcher's configuration; what only the simulated provider and
//! controller need stands under `Simulation`.

mod keys;
mod read;
mod scalar;

use std::path::Path;

use longshore_dispatch::Config;
use longshore_fakecloud::{Quota, Spread};
use longshore_sim::Scenario;

use crate::ending::UsageError;
use crate::yaml::problem::{Problem, Problems};
use crate::yaml::{file, tree};

/// The largest configuration in bytes.
const BYTES_MAX: u64 = 1_000_000;

/// How dispatcher and provider are to behave.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) boot: Spread,
    pub(super) quotas: Vec<Quota>,
    pub(super) controller_pushes: bool,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

impl Default for Settings {
    /// The documented defaults, and two types to try things with.
    fn default() -> Self {
        let scenario = Scenario::new(0);
        let mut config = scenario.config;
        let defaults = longshore_scheduler::Config::new(Vec::new());
        config.scheduler.reserve_extra_ram = defaults.reserve_extra_ram;
        config.scheduler.keep_buffers_per_vcpu = defaults.keep_buffers_per_vcpu;
        Self {
            config,
            boot: scenario.cloud.boot,
            quotas: Vec::new(),
            controller_pushes: true,
            notes: Vec::new(),
        }
    }
}

impl Settings {
    pub(super) fn apply(&self, scenario: &mut Scenario) {
        scenario.config = self.config.clone();
        scenario.config.queue.pushes = self.controller_pushes;
        scenario.cloud.boot = self.boot;
        scenario.cloud.quotas.clone_from(&self.quotas);
        if !self.quotas.is_empty() {
            // What is said of a quota is what there is for us.
            scenario.others = 0;
        }
    }
}

/// Reads a configuration; an error tells everything that is wrong with it.
pub(super) fn load(path: &Path) -> anyhow::Result<Settings> {
    let mut problems = Problems::default();
    let settings = load_into(path, &mut problems);
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => {
            let list: Vec<Problem> = problems.into_list(path);
            Err(UsageError::from(list).into())
        }
    }
}

fn load_into(path: &Path, problems: &mut Problems) -> Option<Settings> {
    let (_, bytes) = file::read(path, "a configuration", BYTES_MAX)
        .map_err(|message| problems.add_general(message))
        .ok()?;
    let text = file::decode(&bytes, problems)?;
    let root = tree::parse(text, problems);
    if problems.is_empty() && root.as_ref().is_none_or(tree::Node::is_null) {
        problems.add_general("is empty; a configuration has keys like \"InstanceTypes\"");
    }
    let mut settings = read::read(&root?, problems);
    if problems.is_empty() {
        check(&settings, problems);
        settings.note_ignored(path);
    }
    Some(settings.done)
}

fn check(settings: &read::Reading, problems: &mut Problems) {
    if let Err(error) = settings.done.config.pool.validate() {
        problems.add_general(format!("cannot be used: {error}"));
    }
}

#[cfg(test)]
mod tests;
