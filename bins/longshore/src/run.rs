//! `longshore run`: the jobs of files, one file after the other, to their end.

mod batches;
mod watch;

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use longshore_types::{InstanceId, InstanceType};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::RunArgs;
use crate::embedded::{self, Embedded};
use crate::ending::{Ending, UsageError};
use crate::jobfile::{JobFile, Limits};
use crate::provider::{self, Provider};
use crate::state::StateDirectory;
use crate::ui;
use batches::Batches;
use watch::{Watch, Watched};

/// Runs the jobs of files on this machine.
pub fn run(args: &RunArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    let types = [provider::this_machine()?];
    run_on(args, state_dir, &types, Provider::loopback)
}

/// Runs the jobs of files on the instances of a provider, which is opened when the files are found
/// to be right, and to fit instances of these types.
pub fn run_on(
    args: &RunArgs,
    state_dir: &Path,
    types: &[InstanceType],
    open: impl AsyncFnOnce(&StateDirectory) -> anyhow::Result<Provider>,
) -> anyhow::Result<Ending> {
    let files = load(args, types)?;
    let state = StateDirectory::open(state_dir)?;
    state.check_space()?;
    runtime()?.block_on(async {
        let provider = open(&state).await?;
        let embedded = Embedded::start(&state, provider, None).await?;
        let ending = run_files(args, files, &state, &embedded).await;
        embedded.stop().await;
        ending
    })
}

/// Destroys the instances that earlier runs left in a state directory.
pub fn cleanup(state_dir: &Path) -> anyhow::Result<Ending> {
    let state = StateDirectory::open(state_dir)?;
    let destroyed = runtime()?
        .block_on(async { embedded::destroy_all(Provider::loopback(&state).await?).await })?;
    match destroyed.len() {
        0 => eprintln!("no instances were left"),
        count => eprintln!("destroyed {count}: {}", join(&destroyed)),
    }
    Ok(Ending::Succeeded)
}

/// Two threads: one for the event loop and what it waits for, one for SSH servers and files.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")
}

/// Reads every file before anything starts, so that all problems are told at once.
fn load(args: &RunArgs, types: &[InstanceType]) -> anyhow::Result<Vec<JobFile>> {
    let limits = Limits {
        capacities: types.iter().map(InstanceType::resources).collect(),
    };
    let mut files: Vec<JobFile> = Vec::new();
    let mut problems = Vec::new();
    for path in &args.files {
        match crate::jobfile::load(path, &limits) {
            Ok(file) => files.push(file),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(UsageError::from(problems).into());
    }
    for (i, file) in files.iter().enumerate() {
        if files[..i].iter().any(|earlier| earlier.path == file.path) {
            let message = format!("{}: is named twice; name it once", file.path.display());
            return Err(UsageError::new(message).into());
        }
    }
    Ok(files)
}

async fn run_files(
    args: &RunArgs,
    files: Vec<JobFile>,
    state: &StateDirectory,
    embedded: &Embedded,
) -> anyhow::Result<Ending> {
    let mut interrupts = Interrupts::listen()?;
    let mut batches = Batches::find(args, files, embedded.store()).await?;
    let mut progress = ui::progress(args.quiet);
    for line in batches.notes(embedded.store()).await? {
        progress.note(&line);
    }
    let mut all_succeeded = true;
    for n in 0..batches.len() {
        let id = batches.begin(n, embedded.store()).await?;
        let mut watch = Watch::new(id, state);
        let watched = watch
            .follow(embedded, &mut *progress, &mut interrupts)
            .await?;
        let summary = match watched {
            Watched::Finished { succeeded, summary } => {
                all_succeeded &= succeeded;
                summary
            }
            Watched::Interrupted => {
                progress.note("interrupted: ending the jobs; once more to leave them");
                if let Err(error) = embedded.store().cancel_batch(id).await {
                    progress.end();
                    leave(embedded).await?;
                    return Err(error).context("the jobs cannot be cancelled");
                }
                let ended = watch
                    .follow(embedded, &mut *progress, &mut interrupts)
                    .await?;
                progress.end();
                let Watched::Finished { summary, .. } = ended else {
                    return leave(embedded).await;
                };
                // What was interrupted on purpose is over: the next run begins anew.
                embedded.store().abandon_batch(id).await?;
                print(&summary);
                return wind_down(embedded, &mut interrupts, Ending::Interrupted).await;
            }
        };
        progress.end();
        print(&summary);
        if !all_succeeded {
            batches.tell_what_is_not_run(n);
            break;
        }
    }
    let ending = if all_succeeded {
        Ending::Succeeded
    } else {
        Ending::Failed
    };
    let ending = wind_down(embedded, &mut interrupts, ending).await?;
    if ending != Ending::InstancesLeft {
        batches.close(embedded.store()).await?;
    }
    Ok(ending)
}

async fn wind_down(
    embedded: &Embedded,
    interrupts: &mut Interrupts,
    ending: Ending,
) -> anyhow::Result<Ending> {
    let mut patience = tokio::time::interval(Duration::from_secs(10));
    patience.tick().await;
    let winding_down = embedded.wind_down();
    tokio::pin!(winding_down);
    loop {
        tokio::select! {
            done = &mut winding_down => {
                done?;
                return Ok(ending);
            }
            () = interrupts.next() => return leave(embedded).await,
            _ = patience.tick() => eprintln!("waiting until the instances are gone"),
        }
    }
}

/// Tells which instances are left.
async fn leave(embedded: &Embedded) -> anyhow::Result<Ending> {
    let left = embedded.instances().await?;
    if left.is_empty() {
        return Ok(Ending::Interrupted);
    }
    eprintln!(
        "left behind: {}; `longshore cleanup` destroys them, the same command again goes on",
        join(&left)
    );
    Ok(Ending::InstancesLeft)
}

fn join(instances: &[InstanceId]) -> String {
    instances
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn print(summary: &str) {
    // A reader that has gone away does not want it.
    let _ = io::stdout().write_all(summary.as_bytes());
}

/// Ctrl-C and TERM.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next one. Safe to drop at any await.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
