//! `longshore serve`: runs what is submitted, until it is told to stop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use longshore_controller::Retention;
use longshore_dispatch::Snapshot;

use super::client::ServiceKind;
use super::server::{Server, ServerSettings};
use crate::cli::ServeArgs;
use crate::embedded::Embedded;
use crate::ending::{Ending, UsageError};
use crate::provider::Provider;
use crate::run::{Interrupts, runtime};
use crate::state::StateDirectory;

/// The name that is printed where there is no address on TCP.
const NO_ADDRESS: &str = "its socket only";
/// How often what is old is looked for.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Serves this machine.
pub fn serve(args: &ServeArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    // What is wrong with the arguments is told before anything is made.
    settings(args)?;
    let state = StateDirectory::open(state_dir)?;
    state.check_space()?;
    raise_descriptor_limit();
    runtime()?.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        let provider = Provider::loopback(&state).await?;
        serve_until(args, &state, provider, interrupts.next()).await
    })
}

/// Serves the instances of a provider until it is told to end.
pub async fn serve_until(
    args: &ServeArgs,
    state: &StateDirectory,
    provider: Provider,
    end: impl Future<Output = ()>,
) -> anyhow::Result<Ending> {
    let settings = settings(args)?;
    let retention = Retention {
        max_finished: args.keep_jobs,
        max_age: args.keep_for,
        max_output_bytes: args.keep_output.0,
    };
    let embedded = Embedded::start(state, provider, None).await?;
    let server = Server::start(state, &embedded, ServiceKind::Serve, &settings).await;
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            embedded.stop().await;
            return Err(error);
        }
    };
    eprintln!(
        "serving {} on {}; Ctrl-C ends it, what runs goes on",
        state.path().display(),
        server.url().unwrap_or(NO_ADDRESS)
    );
    tell_systemd("READY=1");
    tokio::select! {
        () = end => {}
        () = prune_forever(&embedded, &retention) => {}
    }
    tell_systemd("STOPPING=1");
    tell_what_goes_on(&embedded.dispatcher().snapshot());
    eprintln!("waiting at most 10 s for requests and commands that are under way");
    server.stop().await;
    embedded.stop().await;
    Ok(Ending::Succeeded)
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
    eprintln!(
        "ending: {running} jobs go on running and {waiting} wait; the next `longshore serve` \
         takes them up, `longshore cleanup` ends what runs"
    );
}

/// Removes what is older or more than is kept, now and again.
async fn prune_forever(embedded: &Embedded, retention: &Retention) {
    let mut interval = tokio::time::interval(PRUNE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match embedded.store().prune(retention).await {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "removed what ended long ago"),
            Err(error) => tracing::warn!(%error, "what ended long ago cannot be removed"),
        }
    }
}

/// Tells systemd, where it started this and wants to know.
fn tell_systemd(what: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let send = || -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        match path.as_bytes().strip_prefix(b"@") {
            Some(name) => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(what.as_bytes(), &address)?;
            }
            None => {
                socket.send_to(what.as_bytes(), &path)?;
            }
        }
        Ok(())
    };
    if let Err(error) = send() {
        tracing::warn!(%error, "systemd cannot be told");
    }
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
