//! Running a simulation: progress for people, the log of events, and an early end.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use longshore_sim::{Outcome, Progress, Scenario, Simulation};
use longshore_types::format_duration;

use super::shown;
use crate::ending::UsageError;
use crate::run::{Interrupts, runtime};

/// How many steps are made between two looks at the real clock.
const STEPS: u32 = 256;
/// From one line of progress to the next.
const REFRESH: Duration = Duration::from_millis(200);

/// Whether a simulation went on to its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Done,
    Interrupted,
}

/// Runs simulations one after the other.
#[derive(Debug)]
pub(super) struct Watcher {
    interrupted: Arc<AtomicBool>,
    bar: ProgressBar,
    events: Option<(PathBuf, BufWriter<File>)>,
    shown_at: Instant,
    /// What is said before how far it is.
    pub(super) heading: String,
    /// When to end at the latest.
    pub(super) until: Option<Instant>,
}

impl Watcher {
    /// With a file for the log of events, if one is wanted.
    pub(super) fn new(events: Option<&Path>) -> anyhow::Result<Self> {
        let open = |path: &Path| {
            let file = File::create(path).map_err(|error| {
                let message = format!("--events {}: cannot be written: {error}", shown(path));
                UsageError::new(message)
            })?;
            anyhow::Ok((path.to_owned(), BufWriter::new(file)))
        };
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // The template is ours, so it cannot be wrong.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Ok(Self {
            interrupted: listen()?,
            bar,
            events: events.map(open).transpose()?,
            shown_at: Instant::now(),
            heading: String::new(),
            until: None,
        })
    }

    /// One simulation, to its end or to Ctrl-C.
    pub(super) fn run(&mut self, scenario: &Scenario) -> anyhow::Result<(Outcome, Ended)> {
        let mut simulation = Simulation::new(scenario);
        let ended = self.advance(&mut simulation)?;
        self.bar.finish_and_clear();
        self.flush()?;
        Ok((simulation.finish(), ended))
    }

    fn advance(&mut self, simulation: &mut Simulation) -> anyhow::Result<Ended> {
        loop {
            for _ in 0..STEPS {
                let more = simulation.advance();
                self.log(simulation)?;
                if !more {
                    return Ok(Ended::Done);
                }
            }
            if self.is_over() {
                return Ok(Ended::Interrupted);
            }
            if self.shown_at.elapsed() >= REFRESH {
                self.shown_at = Instant::now();
                let heading = &self.heading;
                let line = describe(&simulation.progress());
                self.bar.set_message(format!("{heading}{line}"));
                self.bar.tick();
            }
        }
    }

    /// Whether the user, or the time that was given, wants an end.
    pub(super) fn is_over(&self) -> bool {
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        late || self.is_interrupted()
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn log(&mut self, simulation: &mut Simulation) -> anyhow::Result<()> {
        let Some((path, file)) = &mut self.events else {
            return Ok(());
        };
        let mut result = Ok(());
        simulation.tell(&mut |line| {
            if result.is_ok() {
                result = writeln!(file, "{line}");
            }
        });
        result.with_context(|| format!("cannot write {}", path.display()))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let Some((path, file)) = &mut self.events else {
            return Ok(());
        };
        file.flush()
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn describe(progress: &Progress) -> String {
    format!(
        "simulated {}: {} of {} containers have ended, {} instances (Ctrl-C shows what there is)",
        format_duration(progress.elapsed),
        progress.ended,
        progress.containers,
        progress.instances
    )
}

/// Becomes true at the first Ctrl-C or TERM; the second ends the program.
fn listen() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let runtime = runtime()?;
    let mut interrupts = runtime.block_on(async { Interrupts::listen() })?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                interrupts.next().await;
                flag.store(true, Ordering::Relaxed);
                interrupts.next().await;
                std::process::exit(130);
            });
        })
        .context("cannot start threads")?;
    Ok(interrupted)
}
