//! `longshore run`: the jobs of files, one file after the other, to their end.

pub(crate) mod batches;
pub(crate) mod watch;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use longshore_types::{InstanceId, InstanceType};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::RunArgs;
use crate::embedded::{self, Embedded};
use crate::ending::{Ending, UsageError};
use crate::jobfile::{JobFile, Limits};
use crate::provider::{self, Provider};
use crate::service::{Client, ClientError, Jobs, Server, ServerSettings, ServiceKind};
use crate::state::{StateDirectory, StateError};
use crate::ui;
use batches::Batches;
use watch::{Watch, Watched};

/// How long a process that has taken the state directory may need until it answers.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the jobs of files on this machine.
pub fn run(args: &RunArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    let types = [provider::this_machine()?];
    run_on(args, state_dir, &types, Provider::loopback)
}

/// Runs the jobs of files on the instances of a provider, which is opened when the files are found
/// to be right, and to fit instances of these types.
///
/// Where another process holds the state directory and answers, they are submitted to it.
pub fn run_on(
    args: &RunArgs,
    state_dir: &Path,
    types: &[InstanceType],
    open: impl AsyncFnOnce(&StateDirectory) -> anyhow::Result<Provider>,
) -> anyhow::Result<Ending> {
    let files = load(&args.files, types)?;
    let mut args = args.clone();
    runtime()?.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let mut service = None;
        loop {
            let client = match service.take() {
                // Should it have ended again: the directory is the next service's, not ours.
                Some(client) => client,
                None => match hold(state_dir).await? {
                    Holder::Us(state) => {
                        state.check_space()?;
                        return run_here(&args, files, &state, open, interrupts).await;
                    }
                    Holder::Another(client) => client,
                },
            };
            let followed = follow(&args, files.clone(), &client, &mut interrupts).await;
            match followed {
                Err(error) if is_gone(&error) => {}
                ended => return ended,
            }
            match come_back(&client, state_dir, &mut interrupts).await {
                Next::Service(client) => service = Some(client),
                Next::OurTurn => {}
                Next::Interrupted => return Ok(Ending::Interrupted),
            }
            // What was begun there is gone on with.
            (args.new, args.resume) = (false, true);
        }
    })
}

async fn run_here(
    args: &RunArgs,
    files: Vec<JobFile>,
    state: &StateDirectory,
    open: impl AsyncFnOnce(&StateDirectory) -> anyhow::Result<Provider>,
    mut interrupts: Interrupts,
) -> anyhow::Result<Ending> {
    let provider = open(state).await?;
    let embedded = Embedded::start(state, provider, None).await?;
    // Others may submit their jobs here as long as this runs.
    let settings = ServerSettings::default();
    let server = Server::start(state, &embedded, ServiceKind::Run, &settings).await;
    let ending = match &server {
        Ok(_) => {
            let place = Place {
                jobs: embedded.jobs(),
                here: Some((state, &embedded)),
            };
            run_files(args, files, &place, &mut interrupts).await
        }
        Err(_) => Ok(Ending::Failed),
    };
    embedded.stop().await;
    server?.stop().await;
    ending
}

async fn follow(
    args: &RunArgs,
    files: Vec<JobFile>,
    client: &Client,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Ending> {
    let what = match client.kind() {
        ServiceKind::Serve => "the service",
        ServiceKind::Run => "another run",
    };
    let pid = client.pid();
    eprintln!("submitting to {what} that holds the state directory (process {pid})");
    let place = Place {
        jobs: Jobs::There(client.clone()),
        here: None,
    };
    run_files(args, files, &place, interrupts).await
}

fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<ClientError>();
    error.is_some_and(ClientError::is_gone)
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
        eprintln!("the run that held the state directory has ended; going on here");
        return Next::OurTurn;
    }
    eprintln!(
        "the service does not answer; its jobs are kept: waiting until it is started again (Ctrl-C \
         ends the waiting, not the jobs)"
    );
    let answers = async {
        loop {
            if let Some(client) = Client::find(state_dir).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        client = answers => Next::Service(client),
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
pub(crate) fn load(paths: &[PathBuf], types: &[InstanceType]) -> anyhow::Result<Vec<JobFile>> {
    let limits = Limits {
        capacities: types.iter().map(InstanceType::resources).collect(),
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

/// Where files are run.
struct Place<'a> {
    jobs: Jobs,
    /// The installation, if it is in this process.
    here: Option<(&'a StateDirectory, &'a Embedded)>,
}

async fn run_files(
    args: &RunArgs,
    files: Vec<JobFile>,
    place: &Place<'_>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Ending> {
    let jobs = &place.jobs;
    let mut batches = Batches::find(args, files, jobs).await?;
    let mut progress = ui::progress(args.quiet);
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
                summary
            }
            Watched::Interrupted => {
                progress.note("interrupted: ending the jobs; once more to leave them");
                if let Err(error) = jobs.cancel_batch(id).await {
                    progress.end();
                    place.leave().await?;
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

impl Place<'_> {
    /// Waits until the instances are gone, if they are of this process.
    async fn wind_down(
        &self,
        interrupts: &mut Interrupts,
        ending: Ending,
    ) -> anyhow::Result<Ending> {
        match self.here {
            Some((_, embedded)) => wind_down(embedded, interrupts, ending).await,
            None => Ok(ending),
        }
    }

    /// Tells what is left.
    async fn leave(&self) -> anyhow::Result<Ending> {
        if let Some((_, embedded)) = self.here {
            return leave(embedded).await;
        }
        eprintln!("left to the service: `longshore list` shows what is there");
        Ok(Ending::Interrupted)
    }
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
