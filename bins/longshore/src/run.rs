//! `longshore run`: the jobs of files, one file after the other, to their end.

pub(crate) mod batches;
mod place;
pub(crate) mod watch;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use longshore_types::InstanceType;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::RunArgs;
use crate::embedded::{self, Prepared};
use crate::ending::{Ending, UsageError};
use crate::jobfile::{JobFile, Limits, Machine};
use crate::presence::Presence;
use crate::provider::{self, Provider};
use crate::service::follower::{is_gone, next_service, tell_of_waiting};
use crate::service::{
    Bound, Client, ClientError, Jobs, ServerSettings, ServiceKind, USUAL, prune_forever,
};
use crate::state::{StateDirectory, StateError};
use crate::tell;
use crate::ui;
use batches::{Batches, Settled};
use place::{Place, join};
use watch::{Watch, Watched};

/// How long a process that has taken the state directory may need until it answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long what blocks a thread is waited for at the end.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);
/// How often `cleanup` says that it waits, as for an engine that does not answer.
const CLEANUP_SILENCE: Duration = Duration::from_secs(5);

/// Runs the jobs of files on this machine.
pub fn run(args: &RunArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    let types = [provider::this_machine()?];
    run_on(args, state_dir, &types, Provider::loopback)
}

/// Runs the jobs of files on the instances of a provider, which is opened when the files are found
/// to be right, and to fit instances of these types.
///
/// Where another process holds the state directory and answers, they are submitted to it, if they
/// fit instances of the types that it has.
pub fn run_on(
    args: &RunArgs,
    state_dir: &Path,
    types: &[InstanceType],
    open: impl AsyncFnOnce(&StateDirectory) -> anyhow::Result<Provider>,
) -> anyhow::Result<Ending> {
    block_on(async {
        // Where they are to run is where they have to fit.
        let there = match Client::find(state_dir).await {
            Some(client) => client.instance_types().await.ok(),
            None => None,
        };
        let files = load(&args.files, there.as_deref().unwrap_or(types))?;
        let mut interrupts = Interrupts::listen()?;
        // What was begun at one service is gone on with at the next.
        let mut settled = Settled::default();
        let mut service = None;
        loop {
            let client = match service.take() {
                // Should it have ended again: the directory is the next service's, not ours.
                Some(client) => client,
                None => match hold(state_dir).await? {
                    Holder::Us(state) => {
                        state.check_space()?;
                        return run_here(args, files, &mut settled, &state, open, interrupts).await;
                    }
                    Holder::Another(client) => client,
                },
            };
            let followed =
                follow(args, files.clone(), &mut settled, &client, &mut interrupts).await;
            match followed {
                Err(error) if is_gone(&error) => {}
                Err(error) if is_ending(&error) => {
                    tell!("the run that holds the state directory is ending: waiting for that");
                    tokio::select! {
                        () = end_of(&client, state_dir) => {}
                        () = interrupts.next() => return Ok(Ending::Interrupted),
                    }
                }
                ended => return ended,
            }
            match come_back(&client, state_dir, &mut interrupts).await {
                Next::Service(client) => service = Some(client),
                Next::OurTurn => {}
                Next::Interrupted => return Ok(Ending::Interrupted),
            }
        }
    })
}

async fn run_here(
    args: &RunArgs,
    files: Vec<JobFile>,
    settled: &mut Settled,
    state: &StateDirectory,
    open: impl AsyncFnOnce(&StateDirectory) -> anyhow::Result<Provider>,
    mut interrupts: Interrupts,
) -> anyhow::Result<Ending> {
    let prepared = Prepared::new(state, open(state).await?)?;
    // What can be wrong is found before anything acts, and would leave an instance.
    let batches = Batches::find(args, files, settled, prepared.store()).await?;
    // Others may submit their jobs here as long as this runs.
    let bound = Bound::new(state, ServiceKind::Run, &ServerSettings::default()).await?;
    let presence = Presence::of(state, prepared.store())?;
    let embedded = prepared.start();
    let server = bound.serve(&embedded);
    let place = Place {
        jobs: embedded.jobs(),
        here: Some((state, &embedded)),
    };
    let mut lost = None;
    let ended = tokio::select! {
        ended = run_batches(batches, args.quiet, &place, &mut interrupts) => ended,
        error = embedded.failed() => Err(error),
        never = prune_forever(embedded.store(), USUAL) => match never {},
        loss = presence.lost() => {
            loss.begin(embedded.store());
            lost = Some(loss);
            Ok(Ending::StateLost)
        }
    };
    let ending = match ended {
        Ok(ending) => Ok(ending),
        Err(error) => place::tell_what_is_left(&embedded, error).await,
    };
    let store = embedded.store().clone();
    embedded.stop().await;
    server.stop().await;
    if let Some(loss) = lost {
        loss.settle(&store).await;
    }
    ending
}

async fn follow(
    args: &RunArgs,
    files: Vec<JobFile>,
    settled: &mut Settled,
    client: &Client,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Ending> {
    let what = match client.kind() {
        ServiceKind::Serve => "the service",
        ServiceKind::Run => "another run",
    };
    let pid = client.pid();
    tell!("submitting to {what} that holds the state directory (process {pid})");
    let place = Place {
        jobs: Jobs::There(client.clone()),
        here: None,
    };
    let batches = Batches::find(args, files, settled, &place.jobs).await?;
    run_batches(batches, args.quiet, &place, interrupts).await
}

fn is_ending(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<ClientError>();
    error.is_some_and(ClientError::is_ending)
}

/// Waits until who held the state directory does not answer any more.
async fn end_of(client: &Client, state_dir: &Path) {
    while let Some(found) = Client::find(state_dir).await
        && found.pid() == client.pid()
    {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What follows when who held the state directory does not answer any more.
enum Next {
    /// The service is there again.
    Service(Client),
    /// It was a `run`, after which anybody may take the directory.
    OurTurn,
    /// The user does not want to wait.
    Interrupted,
}

/// Waits for the next service, if it was one.
async fn come_back(client: &Client, state_dir: &Path, interrupts: &mut Interrupts) -> Next {
    if client.kind() == ServiceKind::Run {
        tell!("the run that held the state directory has ended; going on here");
        return Next::OurTurn;
    }
    tell_of_waiting();
    tokio::select! {
        client = next_service(state_dir) => Next::Service(client),
        () = interrupts.next() => Next::Interrupted,
    }
}

/// Who has the state directory.
enum Holder {
    /// This process, from now on.
    Us(StateDirectory),
    /// Another one, which answers.
    Another(Client),
}

/// Takes the state directory, or finds who has it. One that has just begun is waited for.
async fn hold(state_dir: &Path) -> anyhow::Result<Holder> {
    let begun = tokio::time::Instant::now();
    loop {
        let error = match StateDirectory::open(state_dir) {
            Ok(state) => return Ok(Holder::Us(state)),
            Err(error @ StateError::InUse { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        if let Some(client) = Client::find(state_dir).await {
            return Ok(Holder::Another(client));
        }
        if begun.elapsed() > ANSWER_PATIENCE {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Destroys the instances that earlier runs left in a state directory.
pub fn cleanup(state_dir: &Path) -> anyhow::Result<Ending> {
    let state = StateDirectory::open(state_dir)?;
    let destroyed = block_on(async {
        let destroying = async { embedded::destroy_all(Provider::loopback(&state).await?).await };
        tokio::pin!(destroying);
        loop {
            match tokio::time::timeout(CLEANUP_SILENCE, &mut destroying).await {
                Ok(destroyed) => return destroyed,
                Err(_) => tell!("waiting until what is left is ended and its instances destroyed"),
            }
        }
    })?;
    match destroyed.len() {
        0 => tell!("no instances were left"),
        count => tell!("destroyed {count}: {}", join(&destroyed)),
    }
    Ok(Ending::Succeeded)
}

/// Does work to its end. What it leaves under way on threads that block (an instance that is being
/// destroyed, an output that is being fetched) is waited for only a moment: it can stop anywhere.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(SHUTDOWN_PATIENCE);
    done
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
pub(crate) fn load(paths: &[PathBuf], types: &[InstanceType]) -> anyhow::Result<Vec<JobFile>> {
    let limits = Limits {
        machines: types.iter().map(machine).collect(),
    };
    let mut files: Vec<JobFile> = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
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

fn machine(instance_type: &InstanceType) -> Machine {
    let machine = Machine::from(instance_type);
    if provider::is_this_machine(instance_type) {
        return Machine::this(machine.room);
    }
    machine
}

/// Runs batches one after the other, up to the first that fails.
async fn run_batches(
    mut batches: Batches<'_>,
    quiet: bool,
    place: &Place<'_>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Ending> {
    let jobs = &place.jobs;
    let mut progress = ui::progress(quiet);
    for line in batches.notes(jobs).await? {
        progress.note(&line);
    }
    let mut all_succeeded = true;
    for n in 0..batches.len() {
        let id = batches.begin(n, jobs).await?;
        let mut watch = Watch::new(id, place.here.map(|(state, _)| state));
        let watched = watch.follow(jobs, &mut *progress, interrupts).await;
        let watched = watched.inspect_err(|_| progress.end())?;
        let summary = match watched {
            Watched::Finished { succeeded, summary } => {
                all_succeeded &= succeeded;
                batches.finish(n);
                summary
            }
            Watched::Interrupted => {
                progress.note("interrupted: ending the jobs; once more to leave them");
                if let Err(error) = jobs.cancel_batch(id).await {
                    progress.end();
                    return Err(error).context("the jobs cannot be cancelled");
                }
                let ended = watch.follow(jobs, &mut *progress, interrupts).await;
                progress.end();
                let Watched::Finished { summary, .. } = ended? else {
                    return place.leave().await;
                };
                // What was interrupted on purpose is over: the next run begins anew.
                jobs.abandon_batch(id).await?;
                print(&summary);
                return place.wind_down(interrupts, Ending::Interrupted).await;
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
    let ending = place.wind_down(interrupts, ending).await?;
    if ending != Ending::InstancesLeft {
        batches.close(jobs).await?;
    }
    Ok(ending)
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
