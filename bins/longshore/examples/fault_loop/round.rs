//! One batch in a state directory of its own: harmed in every way that is planned, then finished.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::common::eye::{Eye, Stage};
use crate::common::process::Dispatcher;
use crate::common::random::Random;
use crate::common::say;
use crate::dispatcher;
use crate::harm::Harm;
use crate::host::DISK;
use crate::jobs::Jobs;
use crate::plan::{Kind, Planned, draw};
use crate::tally::Tally;
use crate::yard::{Machine, Yard};

/// How often it is looked what is due.
const LOOK: Duration = Duration::from_millis(20);
/// After so long a host will do on which nothing runs.
const ANY_AFTER: Duration = Duration::from_secs(30);
/// How long a round may take, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(900);
/// The exit code of a batch in which some jobs are meant to fail.
const EXPECTED_CODE: i32 = 1;

/// How many containers something hit, by state.
type Hits = BTreeMap<Stage, usize>;

/// A batch.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) folder: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) yard: Yard,
    pub(crate) jobs: Jobs,
    pub(crate) harm: Harm,
    plan: Vec<Planned>,
    dispatcher: Option<Dispatcher>,
    starts: usize,
    /// When a killed dispatcher is started again, or a stopped one goes on.
    back_at: Option<Instant>,
    began: Instant,
}

impl Round {
    pub(crate) fn new(folder: PathBuf, random: &mut Random) -> Result<Self> {
        std::fs::create_dir(&folder)?;
        let yard = Yard::new(&folder);
        Ok(Self {
            state: folder.join("state"),
            jobs: Jobs::write(&folder, random)?,
            plan: draw(random),
            harm: Harm::new(yard.clone()),
            yard,
            folder,
            dispatcher: None,
            starts: 0,
            back_at: Some(Instant::now()),
            began: Instant::now(),
        })
    }

    /// Looks at the store and at the runners of all hosts.
    pub(crate) fn eye(&self) -> Eye {
        Eye::new(&self.state, self.yard.folder(), DISK)
    }

    /// Does everything that is planned, and returns when the batch has ended as it must.
    pub(crate) fn play(&mut self, tally: &mut Tally, random: &mut Random) -> Result<()> {
        while self.began.elapsed() < PATIENCE {
            self.harm.heal()?;
            self.bring_back()?;
            if let Some(status) = self.wait()? {
                return self.check_end(status);
            }
            self.strike_all(tally, random)?;
        }
        bail!("it has not ended in {PATIENCE:?}: {}", self.said())
    }

    /// Waits a moment; how the dispatcher has ended, if it has by itself.
    fn wait(&mut self) -> Result<Option<ExitStatus>> {
        if let Some(dispatcher) = &mut self.dispatcher {
            return dispatcher.wait(LOOK);
        }
        sleep(LOOK);
        Ok(None)
    }

    fn check_end(&self, status: ExitStatus) -> Result<()> {
        ensure!(
            status.code() == Some(EXPECTED_CODE),
            "`longshore run` ended with {status}, not with exit code {EXPECTED_CODE}: {}",
            self.said()
        );
        let left: Vec<String> = self.plan.iter().map(|p| p.kind.to_string()).collect();
        ensure!(
            left.is_empty(),
            "it ended before everything was done to it that is planned: {left:?} are left"
        );
        Ok(())
    }

    fn said(&self) -> String {
        let dispatcher = self.dispatcher.as_ref();
        dispatcher.map_or_else(String::new, Dispatcher::said)
    }

    /// Starts the dispatcher, or lets it go on, if that is due.
    fn bring_back(&mut self) -> Result<()> {
        if self.back_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        self.back_at = None;
        if let Some(dispatcher) = &self.dispatcher {
            return dispatcher.thaw();
        }
        self.starts += 1;
        let log = self.folder.join(format!("run-{:02}.log", self.starts));
        let jobs = self.folder.join("jobs.json");
        let arguments = [
            Path::new(dispatcher::ROLE),
            &self.folder,
            Path::new("run"),
            &jobs,
        ];
        let program = std::env::current_exe()?;
        let started = Dispatcher::start(&program, &arguments, &self.state, log)?;
        self.dispatcher = Some(started);
        Ok(())
    }

    /// Does what is due and possible.
    fn strike_all(&mut self, tally: &mut Tally, random: &mut Random) -> Result<()> {
        for planned in std::mem::take(&mut self.plan) {
            let due = planned.at <= self.began.elapsed();
            if !(due && self.strike(planned, tally, random)?) {
                self.plan.push(planned);
            }
        }
        Ok(())
    }

    /// Does one thing; whether that was possible.
    fn strike(&mut self, planned: Planned, tally: &mut Tally, random: &mut Random) -> Result<bool> {
        if self.back_at.is_some() {
            // What is hit could not be seen.
            return Ok(false);
        }
        let kind = planned.kind;
        if kind.is_of_dispatcher() {
            self.strike_dispatcher(planned, tally)?;
            return Ok(true);
        }
        let mut targets = self.harm.targets(kind, Instant::now())?;
        if kind != Kind::CutAll {
            let late = self.began.elapsed() > planned.at + ANY_AFTER;
            targets = self.choose(&targets, late, random).into_iter().collect();
        }
        if targets.is_empty() {
            return Ok(false);
        }
        let hits = self.hits(&targets);
        let on_each = targets.iter().map(|machine| {
            let hits = self.hits(std::slice::from_ref(machine));
            (machine.clone(), hits.values().sum())
        });
        let on_each: Vec<(Machine, usize)> = on_each.collect();
        self.harm.begin(planned, &on_each)?;
        let at = match targets.as_slice() {
            [machine] => format!(" on {}", machine.id),
            all => format!(" on {}", all.len()),
        };
        self.tell(planned, &at, &hits);
        tally.note(kind, &hits);
        Ok(true)
    }

    /// One of these on which something runs; any if there is none and it is late.
    fn choose(&self, machines: &[Machine], late: bool, random: &mut Random) -> Option<Machine> {
        let mut fit = machines.to_vec();
        fit.retain(|machine| !self.hits(std::slice::from_ref(machine)).is_empty());
        if fit.is_empty() && late {
            fit = machines.to_vec();
        }
        let choice = usize::try_from(random.below(fit.len() as u64)).ok()?;
        fit.into_iter().nth(choice)
    }

    /// How many containers on these machines are in which state.
    fn hits(&self, machines: &[Machine]) -> Hits {
        let sight = self.eye().look();
        let stages = sight.stages_where(|row| {
            let placed = row.placed_on.as_ref();
            placed.is_some_and(|on| machines.iter().any(|machine| machine.id == *on))
        });
        let counts = stages.into_iter().map(|(stage, all)| (stage, all.len()));
        counts.collect()
    }

    /// Stops the dispatcher, looks at what it is about, and kills it if that is planned.
    fn strike_dispatcher(&mut self, planned: Planned, tally: &mut Tally) -> Result<()> {
        let Some(dispatcher) = &mut self.dispatcher else {
            return Ok(());
        };
        dispatcher.freeze()?;
        let mut eye = Eye::new(&self.state, self.yard.folder(), DISK);
        let sight = eye.look();
        eye.close();
        if planned.kind == Kind::KillDispatcher {
            dispatcher.kill()?;
            self.dispatcher = None;
        }
        self.back_at = Some(Instant::now() + planned.lasts);
        let stages = sight.stages().into_iter();
        let hits = stages.map(|(stage, all)| (stage, all.len())).collect();
        let at = format!(" {}, {} done", sight.moment(), sight.done());
        self.tell(planned, &at, &hits);
        tally.note(planned.kind, &hits);
        Ok(())
    }

    fn tell(&self, planned: Planned, at: &str, hits: &Hits) {
        let lasts = if planned.kind.is_for_good() {
            String::new()
        } else {
            format!(" for {:.1} s", planned.lasts.as_secs_f64())
        };
        let hits: Vec<String> = hits
            .iter()
            .map(|(stage, count)| format!("{count} {stage}"))
            .collect();
        let hits = match hits.is_empty() {
            true => "nothing under way".to_owned(),
            false => hits.join(", "),
        };
        let seconds = self.began.elapsed().as_secs();
        say(&format!(
            "  {seconds:>4} s: {}{at}{lasts}: {hits}",
            planned.kind
        ));
    }
}
