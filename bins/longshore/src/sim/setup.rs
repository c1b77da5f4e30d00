//! What is simulated, from what the user says.

use std::path::Path;
use std::time::Duration;

use longshore_sim::{Arrivals, BROKEN, NOT_SURVIVED, Scenario, parse_trace};

use super::args::{FaultLevel, SimArgs};
use super::config::{self, Settings};
use crate::ending::UsageError;
use crate::text::{clean, excerpt};
use crate::yaml::file;
use crate::yaml::problem::{Position, Problem, Problems};

/// The largest trace in bytes.
const TRACE_BYTES_MAX: u64 = 100_000_000;
/// What is simulated if nothing is said.
const USUAL_ARRIVALS: &str = "steady:50@2m";
/// The shortest time in which containers are submitted.
const SHORTEST: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// What is simulated, but for the seed.
#[derive(Debug)]
pub(super) struct Setup {
    /// The containers, as the user named them, if they did.
    arrivals: Option<(String, Arrivals)>,
    busy: Option<Duration>,
    workers: Option<usize>,
    faults: FaultLevel,
    settings: Option<Settings>,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

impl Setup {
    pub(super) fn new(args: &SimArgs) -> anyhow::Result<Self> {
        let settings = args.config.as_deref().map(config::load).transpose()?;
        let arrivals = args.arrivals.as_deref();
        let mut setup = Self::of(arrivals, args.hours, args.faults, settings)?;
        setup.workers = args.workers.and_then(|n| usize::try_from(n).ok());
        Ok(setup)
    }

    pub(super) fn of(
        arrivals: Option<&str>,
        hours: Option<Duration>,
        faults: FaultLevel,
        settings: Option<Settings>,
    ) -> anyhow::Result<Self> {
        let mut setup = Self {
            arrivals: None,
            busy: hours,
            workers: None,
            faults,
            notes: settings.iter().flat_map(|s| s.notes.clone()).collect(),
            settings,
        };
        if let Some(text) = arrivals {
            let arrivals = read_arrivals(text)?;
            setup.arrivals = Some((text.to_owned(), setup.cut(arrivals, text)?));
        }
        if faults == FaultLevel::Wild {
            setup.notes.extend(known());
        }
        Ok(setup)
    }

    /// A trace without what comes after the time that is simulated.
    fn cut(&mut self, arrivals: Arrivals, name: &str) -> anyhow::Result<Arrivals> {
        let (Arrivals::Trace(mut jobs), Some(busy)) = (arrivals.clone(), self.busy) else {
            return Ok(arrivals);
        };
        let all = jobs.len();
        jobs.retain(|job| job.at <= busy);
        let left_out = all - jobs.len();
        if jobs.is_empty() {
            let message = format!(
                "{}: all {all} containers come later than --hours says; give more hours",
                clean(name)
            );
            return Err(UsageError::new(message).into());
        }
        if left_out > 0 {
            let hours = busy.as_secs_f64() / 3600.0;
            self.notes.push(format!(
                "{left_out} of {all} containers come later than {hours} hours and are left out"
            ));
        }
        Ok(Arrivals::Trace(jobs))
    }

    /// The scenario of a seed. What is not given is the usual, but in wild worlds drawn from the
    /// seed.
    pub(super) fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = match self.faults {
            FaultLevel::Wild => Scenario::wild(seed),
            _ => Scenario::new(seed),
        };
        let is_drawn = self.faults == FaultLevel::Wild && self.arrivals.is_none();
        if !is_drawn {
            scenario.faults = self.faults.faults();
        }
        if let Some((_, arrivals)) = &self.arrivals {
            scenario.arrivals = arrivals.clone();
            scenario.busy = usual_time(arrivals);
        }
        scenario.busy = self.busy.unwrap_or(scenario.busy);
        if let (Arrivals::Burst { .. }, FaultLevel::None) = (&scenario.arrivals, self.faults) {
            // There is nothing to wait for but the end of what was submitted.
            scenario.busy = SHORTEST;
        }
        match &self.settings {
            Some(settings) => settings.apply(&mut scenario),
            None if !is_drawn => Settings::default().apply(&mut scenario),
            None => {}
        }
        if let Some(workers) = self.workers {
            scenario.config.pool.max_instances = workers;
        }
        scenario.leave_out_known();
        scenario
    }

    /// The containers in words.
    pub(super) fn arrivals(&self) -> String {
        match &self.arrivals {
            Some((name, _)) => clean(name),
            None if self.faults == FaultLevel::Wild => "drawn from the seed".into(),
            None => USUAL_ARRIVALS.into(),
        }
    }

    pub(super) fn faults(&self) -> &'static str {
        self.faults.as_str()
    }
}

/// How long containers are submitted where nothing is said.
fn usual_time(arrivals: &Arrivals) -> Duration {
    match arrivals {
        Arrivals::Trace(jobs) => {
            let last = jobs.iter().map(|job| job.at).max().unwrap_or_default();
            last.max(SHORTEST)
        }
        Arrivals::Daily { .. } => 24 * HOUR,
        _ => HOUR,
    }
}

/// What is left out of wild worlds because it is known not to hold.
fn known() -> Option<String> {
    let names = NOT_SURVIVED.iter().map(ToString::to_string);
    let rules = BROKEN.iter().map(|rule| format!("{rule:?}"));
    let all: Vec<String> = names.chain(rules).collect();
    (!all.is_empty()).then(|| {
        format!(
            "left out, as known not to hold yet (docs/testing.md): {}",
            all.join(", ")
        )
    })
}

fn read_arrivals(text: &str) -> anyhow::Result<Arrivals> {
    let path = Path::new(text);
    let looks_like_a_pattern = text.contains(':') && !text.contains('/');
    if !looks_like_a_pattern || path.exists() {
        return read_trace(path);
    }
    let parsed = text.parse::<Arrivals>();
    parsed.map_err(|error| {
        let message = format!("--arrivals {}", clean(&error.to_string()));
        UsageError::new(message).into()
    })
}

fn read_trace(path: &Path) -> anyhow::Result<Arrivals> {
    let mut problems = Problems::default();
    let jobs = file::read(path, "a trace", TRACE_BYTES_MAX)
        .map_err(|message| problems.add_general(hint(path, message)))
        .ok()
        .and_then(|(_, bytes)| {
            let text = file::decode(&bytes, &mut problems)?;
            parse_trace(text)
                .map_err(|wrong| {
                    for error in wrong {
                        let (line, column) = (error.line, error.column);
                        problems.add(Position { line, column }, error.message);
                    }
                })
                .ok()
        });
    jobs.map(Arrivals::Trace).ok_or_else(|| {
        let list: Vec<Problem> = problems.into_list(path);
        UsageError::from(list).into()
    })
}

/// A name without a dot was perhaps not meant to be that of a file.
fn hint(path: &Path, message: String) -> String {
    let name = path.to_string_lossy();
    if !path.exists() && !name.contains('.') {
        let name = excerpt(&name);
        return format!("{message}; a pattern is written like steady:500@5m, not {name:?}");
    }
    message
}
