//! One batch in a state directory of its own: killed again and again, then finished.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::common::eye::{Eye, Sight, Stage};
use crate::common::process::Dispatcher;
use crate::common::random::Random;
use crate::common::say;
use crate::jobs::Plan;

/// The states that must all be hit.
pub(crate) const WANTED: [Stage; 4] = [
    Stage::Locked,
    Stage::Starting,
    Stage::Running,
    Stage::Unreported,
];
/// So many kills may be needed to hit each wanted state once: after some that are aimed the process
/// goes on for a moment.
const MOST_KILLS: usize = 40;
/// So many kills more are reckoned with, at least.
const MORE_KILLS: usize = 4;
/// How often it is looked.
const TICK: Duration = Duration::from_millis(1);
/// The longest time that a process goes on between two moments at which it is stopped.
const STEP_MS: u64 = 4;
/// How long a wanted state is waited for.
const AIM_PATIENCE: Duration = Duration::from_secs(20);
/// How long a batch may take that is left alone, on a machine that has other work.
const END_PATIENCE: Duration = Duration::from_secs(600);
/// The exit code of a batch in which some jobs are meant to fail.
const EXPECTED_CODE: i32 = 1;

/// What a kill is meant to hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Stage(Stage),
    /// So many milliseconds after the start at most.
    StartUp(u64),
    Anywhere,
    WindingDown,
}

impl Aim {
    fn name(self) -> String {
        match self {
            Self::Stage(stage) => stage.to_string(),
            Self::StartUp(_) => "start-up".to_owned(),
            Self::Anywhere => "anywhere".to_owned(),
            Self::WindingDown => "winding down".to_owned(),
        }
    }
}

/// What the kills of all rounds have hit.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) kills: usize,
    /// At how many kills a container was in this state that was not in it at an earlier kill.
    stages: BTreeMap<Stage, usize>,
    seen: BTreeSet<(Stage, String)>,
    pub(crate) moments: BTreeMap<&'static str, usize>,
    crash_loops: usize,
}

impl Tally {
    pub(crate) fn of(&self, stage: Stage) -> usize {
        self.stages.get(&stage).copied().unwrap_or(0)
    }

    /// Whether each wanted state was hit so often.
    pub(crate) fn complete(&self, times: usize) -> bool {
        WANTED.iter().all(|&stage| self.of(stage) >= times)
    }

    /// What the next kills are meant to hit: what was hit least, with others between.
    fn next_aims(&mut self, goal: Goal, random: &mut Random) -> Vec<Aim> {
        if self.kills >= 12 * self.crash_loops {
            self.crash_loops += 1;
            return vec![Aim::StartUp(400), Aim::StartUp(80), Aim::StartUp(15)];
        }
        if self.kills + 1 == goal.kills {
            return vec![Aim::WindingDown];
        }
        if self.kills % 6 == 5 {
            return vec![Aim::Anywhere];
        }
        let fewest = WANTED.iter().map(|&stage| self.of(stage)).min();
        let rare: Vec<Stage> = WANTED
            .into_iter()
            .filter(|&stage| Some(self.of(stage)) == fewest)
            .collect();
        let choice = usize::try_from(random.below(rare.len() as u64)).unwrap_or(0);
        rare.get(choice)
            .map(|&stage| Aim::Stage(stage))
            .into_iter()
            .collect()
    }

    /// Whether a container is in this state that was not in it at an earlier kill.
    fn is_news(&self, stage: Stage, sight: &Sight) -> bool {
        let stages = sight.stages();
        let mut uuids = stages.get(&stage).into_iter().flatten();
        uuids.any(|&uuid| !self.seen.contains(&(stage, uuid.to_owned())))
    }

    fn note(&mut self, sight: &Sight) {
        self.kills += 1;
        for (stage, uuids) in sight.stages() {
            if self.is_news(stage, sight) {
                *self.stages.entry(stage).or_insert(0) += 1;
            }
            self.seen
                .extend(uuids.into_iter().map(|uuid| (stage, uuid.to_owned())));
        }
        *self.moments.entry(sight.moment()).or_insert(0) += 1;
    }
}

/// When kills have been enough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) kills: usize,
    /// How often each wanted state must be hit.
    pub(crate) each: usize,
}

impl Goal {
    pub(crate) fn reached(self, tally: &Tally) -> bool {
        // Some states last a millisecond or two: more kills than wanted, if luck is bad.
        let enough = tally.kills >= self.kills;
        let most = (2 * self.kills).max(MOST_KILLS);
        enough && (tally.complete(self.each) || tally.kills >= most)
    }
}

/// A batch.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) folder: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) plan: Plan,
    binary: PathBuf,
    /// Whether a service is killed, and the `run` that follows its jobs once that has begun.
    service: bool,
    client: Option<Dispatcher>,
    starts: usize,
    /// How many jobs had ended at the last kill.
    done: usize,
    wound_down: bool,
}

enum Shot {
    Killed(Sight),
    Ended(ExitStatus),
}

impl Round {
    pub(crate) fn new(
        folder: PathBuf,
        binary: &Path,
        survey: &Path,
        service: bool,
        random: &mut Random,
    ) -> Result<Self> {
        std::fs::create_dir(&folder)?;
        let plan = Plan::make(survey, &folder, random)?;
        plan.write(&folder.join("jobs.json"))?;
        Ok(Self {
            state: folder.join("state"),
            binary: binary.to_owned(),
            plan,
            folder,
            service,
            client: None,
            starts: 0,
            done: 0,
            wound_down: false,
        })
    }

    /// Kills until that was enough or the batch has ended, and then leaves it alone to its end.
    pub(crate) fn play(
        &mut self,
        goal: Goal,
        tally: &mut Tally,
        random: &mut Random,
    ) -> Result<()> {
        let mut aims = Vec::new();
        while !goal.reached(tally) {
            if aims.is_empty() {
                aims = tally.next_aims(goal, random);
            }
            let aim = aims.pop().unwrap_or(Aim::Anywhere);
            let mut dispatcher = self.begin()?;
            match self.shoot(aim, goal, tally, &mut dispatcher, random)? {
                Shot::Ended(status) => {
                    let said = self.client.as_ref().unwrap_or(&dispatcher);
                    return self.check_end(said, status);
                }
                Shot::Killed(sight) => {
                    tally.note(&sight);
                    self.done = sight.done();
                    tell(aim, tally, &sight);
                    if sight.closed {
                        // It has seen the end of its jobs, and would wait for the next service.
                        self.client = None;
                        return Ok(());
                    }
                }
            }
        }
        say(&format!(
            "killed {} times; going on to the end",
            tally.kills
        ));
        let dispatcher = self.begin()?;
        let client = self.client.take();
        let (mut last, _service) = match client {
            Some(client) => (client, Some(dispatcher)),
            None => (dispatcher, None),
        };
        match last.wait(END_PATIENCE)? {
            Some(status) => self.check_end(&last, status),
            None => bail!(
                "the batch has not ended in {END_PATIENCE:?}: {}",
                last.said()
            ),
        }
    }

    /// Starts what is killed, and at the first time who submits the jobs to it.
    fn begin(&mut self) -> Result<Dispatcher> {
        if !self.service {
            return self.start("run");
        }
        let mut service = self.start("serve")?;
        if self.client.is_none() {
            // A `run` that comes before would take the state directory for itself.
            let since = Instant::now();
            while !service.said().contains("serving ") {
                ensure!(service.ended()?.is_none(), "it ended: {}", service.said());
                ensure!(since.elapsed() < END_PATIENCE, "it does not serve");
                sleep(TICK);
            }
            let mut client = self.start("run")?;
            while !client.said().contains("submitting to the service") {
                ensure!(client.ended()?.is_none(), "it ended: {}", client.said());
                ensure!(since.elapsed() < END_PATIENCE, "it does not submit");
                sleep(TICK);
            }
            self.client = Some(client);
        }
        Ok(service)
    }

    pub(crate) fn eye(&self) -> Eye {
        Eye::new(&self.state, self.state.join("loopback"), "run")
    }

    /// Whether the state directory can be used again, with nothing left in it.
    pub(crate) fn clean_up(&mut self) -> Result<()> {
        let mut dispatcher = self.start("cleanup")?;
        let status = dispatcher.wait(END_PATIENCE)?;
        let said = dispatcher.said();
        let good = status.is_some_and(|status| status.success());
        ensure!(good, "`longshore cleanup` ended with {status:?}: {said}");
        // A service keeps its machine for a while.
        let none = self.service || said.contains("no instances were left");
        ensure!(none, "after the end: {said}");
        Ok(())
    }

    fn start(&mut self, what: &str) -> Result<Dispatcher> {
        self.starts += 1;
        let log = self.folder.join(format!("{what}-{:02}.log", self.starts));
        let jobs = self.folder.join("jobs.json");
        let arguments: &[&Path] = match what {
            "run" => &[Path::new("run"), &jobs],
            "serve" => &[Path::new("serve"), Path::new("--listen"), Path::new("off")],
            other => &[Path::new(other)],
        };
        Dispatcher::start(&self.binary, arguments, &self.state, log)
    }

    fn check_end(&self, dispatcher: &Dispatcher, status: ExitStatus) -> Result<()> {
        ensure!(
            status.code() == Some(EXPECTED_CODE),
            "`longshore run` ended with {status}, not with exit code {EXPECTED_CODE}: {}",
            dispatcher.said()
        );
        Ok(())
    }

    /// How many jobs shall end before the next aimed kill, so that kills fall all over the batch.
    fn pause(&self, goal: Goal, tally: &Tally, random: &mut Random) -> usize {
        let left = self.plan.expected.len().saturating_sub(self.done);
        // Kills beyond the goal are there for what was not hit yet, and want most of the batch.
        let kills = goal.kills.saturating_sub(tally.kills).max(MORE_KILLS);
        usize::try_from(random.below((2 * left / (kills + 1)) as u64)).unwrap_or(0)
    }

    /// Waits for what is aimed at and kills, unless the process ends before.
    fn shoot(
        &mut self,
        aim: Aim,
        goal: Goal,
        tally: &Tally,
        dispatcher: &mut Dispatcher,
        random: &mut Random,
    ) -> Result<Shot> {
        let mut eye = self.eye();
        let begun = Instant::now();
        let mut since = begun;
        let patience = match aim {
            Aim::StartUp(most_ms) => random.duration_ms(most_ms),
            Aim::Anywhere => random.duration_ms(3000),
            Aim::Stage(_) => AIM_PATIENCE,
            Aim::WindingDown => END_PATIENCE,
        };
        let mut hit = aim;
        let due = self.done + self.pause(goal, tally, random);
        while since.elapsed() < patience {
            if let Some(status) = dispatcher.ended()? {
                return Ok(Shot::Ended(status));
            }
            if let Some(client) = &mut self.client
                && let Some(status) = client.ended()?
            {
                dispatcher.kill()?;
                return Ok(Shot::Ended(status));
            }
            let sight = eye.look();
            if sight.all_final() && !self.wound_down {
                self.wound_down = true;
                hit = Aim::WindingDown;
                break;
            }
            if let Aim::Stage(_) = aim
                && sight.done() < due
            {
                ensure!(begun.elapsed() < END_PATIENCE, "no job ends any more");
                since = Instant::now();
            } else if let Aim::Stage(stage) = aim {
                // Such a state may pass in less time than a look takes: so the process is stopped
                // at some moment, and what counts is what is there while it cannot move.
                dispatcher.freeze()?;
                if tally.is_news(stage, &eye.look()) {
                    break;
                }
                dispatcher.thaw()?;
                sleep(random.duration_ms(STEP_MS));
            }
            sleep(TICK);
        }
        eye.close();
        // A process that stands frozen in what was aimed at is killed there, unless this is one of
        // the kills that come a little later, to hit what no look can aim at.
        let jitter = match hit {
            Aim::Stage(Stage::Running) => random.duration_ms(1500),
            Aim::WindingDown => random.duration_ms(300),
            Aim::Stage(_) if random.below(3) == 0 => random.duration_ms(3),
            _ => Duration::ZERO,
        };
        if !jitter.is_zero() {
            dispatcher.thaw()?;
            sleep(jitter);
        }
        let status = dispatcher.kill()?;
        if status.code().is_some() {
            return Ok(Shot::Ended(status));
        }
        let sight = eye
            .look_at_copy()
            .context("the store cannot be read after a kill")?;
        Ok(Shot::Killed(sight))
    }
}

fn tell(aim: Aim, tally: &Tally, sight: &Sight) {
    let stages: Vec<String> = sight
        .stages()
        .into_iter()
        .map(|(stage, uuids)| format!("{} {stage}", uuids.len()))
        .collect();
    let done = sight.done();
    say(&format!(
        "kill {:>2}, aimed at {:<20}: {}; {}; {done} of {} done",
        tally.kills,
        aim.name(),
        sight.moment(),
        if stages.is_empty() {
            "nothing under way".to_owned()
        } else {
            stages.join(", ")
        },
        sight.rows.len(),
    ));
}
