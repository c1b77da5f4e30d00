//! `longshore serve`: runs what is submitted, until it is told to stop.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use longshore_controller::Retention;
use longshore_dispatch::Snapshot;

use super::client::ServiceKind;
use super::pruning::{MIN_AGE, prune_forever};
use super::server::{Bound, ServerSettings};
use super::systemd::Systemd;
use crate::cli::ServeArgs;
use crate::embedded::Prepared;
use crate::ending::{Ending, UsageError};
use crate::presence::Presence;
use crate::provider::Provider;
use crate::run::{Interrupts, block_on};
use crate::state::StateDirectory;
use crate::tell;

/// The name that is printed where there is no address on TCP.
const NO_ADDRESS: &str = "its socket only";

/// Serves this machine.
pub fn serve(args: &ServeArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    // What is wrong with the arguments is told before anything is made.
    let settings = settings(args)?;
    let state = StateDirectory::open(state_dir)?;
    state.check_space()?;
    raise_descriptor_limit();
    block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let provider = Provider::loopback(&state).await?;
        serve_with(args, &settings, &state, provider, interrupts.next()).await
    })
}

/// Serves the instances of a provider until it is told to end.
pub async fn serve_until(
    args: &ServeArgs,
    state: &StateDirectory,
    provider: Provider,
    end: impl Future<Output = ()>,
) -> anyhow::Result<Ending> {
    serve_with(args, &settings(args)?, state, provider, end).await
}

async fn serve_with(
    args: &ServeArgs,
    settings: &ServerSettings,
    state: &StateDirectory,
    provider: Provider,
    end: impl Future<Output = ()>,
) -> anyhow::Result<Ending> {
    let retention = Retention {
        max_finished: args.keep_jobs,
        min_age: MIN_AGE,
        max_age: args.keep_for,
        max_output_bytes: args.keep_output.0,
    };
    let prepared = Prepared::new(state, provider)?;
    // An address that is in use is told before anything acts.
    let bound = Bound::new(state, ServiceKind::Serve, settings).await?;
    let presence = Presence::of(state, prepared.store())?;
    let embedded = prepared.start();
    let server = bound.serve(&embedded);
    tell!(
        "serving {} on {}; Ctrl-C ends it, what runs goes on",
        state.path().display(),
        server.url().unwrap_or(NO_ADDRESS)
    );
    let systemd = Systemd::from_environment();
    systemd.tell("READY=1");
    let mut lost = None;
    let ended = tokio::select! {
        () = end => Ok(Ending::Succeeded),
        never = prune_forever(embedded.store(), retention) => match never {},
        never = systemd.feed_watchdog(embedded.dispatcher().handle()) => match never {},
        error = embedded.failed() => Err(error),
        loss = presence.lost() => {
            loss.begin(embedded.store());
            lost = Some(loss);
            Ok(Ending::StateLost)
        }
    };
    systemd.tell("STOPPING=1");
    if lost.is_none() {
        tell_what_goes_on(&embedded.dispatcher().snapshot());
    }
    tell!("waiting at most 10 s for requests and commands that are under way");
    server.stop().await;
    let store = embedded.store().clone();
    embedded.stop().await;
    if let Some(loss) = lost {
        loss.settle(&store).await;
    }
    ended
}

fn settings(args: &ServeArgs) -> Result<ServerSettings, UsageError> {
    let listen = match args.listen.as_str() {
        "off" => None,
        text => Some(text.parse::<SocketAddr>().map_err(|_| {
            UsageError::new(format!(
                "--listen {text}: write an address and a port, like 127.0.0.1:9006, or off"
            ))
        })?),
    };
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
        _ => None,
    };
    if let Some(address) = listen
        && !is_loopback(address.ip())
        && tls.is_none()
        && !args.plain
    {
        return Err(UsageError::new(format!(
            "--listen {address}: tokens would go over the network in plain text; give --tls-cert \
             and --tls-key, or say --plain if something else protects them"
        )));
    }
    Ok(ServerSettings { listen, tls })
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn tell_what_goes_on(snapshot: &Snapshot) {
    let held = snapshot
        .workers
        .iter()
        .flat_map(|worker| &worker.containers);
    let running = held.filter(|held| held.phase.may_run()).count();
    let waiting = snapshot.unfinished.saturating_sub(running);
    tell!(
        "ending: jobs that go on running: {running}, that wait: {waiting}; the next `longshore serve` \
         takes them up, `longshore cleanup` ends what runs"
    );
}

/// A thousand clients are a thousand descriptors, which is where the usual limit is.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 16_384;
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = WANTED.min(hard).max(soft);
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
