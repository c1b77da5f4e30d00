//! The process that is harmed: `longshore run`, with the hosts in the place of this machine.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser as _;
use longshore::cli::{Cli, Command};
use longshore::provider::Provider;
use longshore::{ending, logging, run, state_dir};
use longshore_types::{ByteSize, InstanceType, Price};

use crate::cloud::Cloud;
use crate::yard::{SLOTS, Yard};

/// The first argument that makes this program a dispatcher: then where the hosts are, and what
/// `longshore` is told.
pub(crate) const ROLE: &str = "dispatcher";

/// A silent host is given up after this: 10 minutes as a rule, here less, so that it is seen.
///
/// Two silences that have to be borne, of a minute each, may look like one to a dispatcher that did
/// not get to hear from the host between them, on a machine that has other work: this is more.
pub(crate) const TIMEOUT_PROBE: Duration = Duration::from_secs(150);

/// Runs as a dispatcher.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let [folder, line @ ..] = arguments else {
        anyhow::bail!("{ROLE} DIRECTORY ARGUMENTS...");
    };
    let cli = Cli::parse_from(
        ["longshore"]
            .into_iter()
            .chain(line.iter().map(String::as_str)),
    );
    let Command::Run(args) = &cli.command else {
        anyhow::bail!("only `run` is possible here");
    };
    let variable = |name: &str| std::env::var_os(name);
    let state_dir = state_dir::locate(cli.common.state_dir.as_deref(), variable)?;
    state_dir::create(&state_dir)?;
    logging::start(&state_dir, cli.common.log.as_deref())?;
    let folder = Path::new(folder);
    let open = async |_: &_| Ok(provider(folder));
    match run::run_on(args, &state_dir, &[host_type()], open) {
        Ok(ending) => Ok(ending.into()),
        Err(error) => {
            let (code, lines) = ending::explain(&error);
            tracing::error!("{lines}");
            eprintln!("{lines}");
            Ok(code.into())
        }
    }
}

/// What containers may use of a host.
fn host_type() -> InstanceType {
    let mut host = InstanceType::new("host", 2, ByteSize::gib(1), Price::default());
    host.included_scratch = ByteSize::gib(1);
    host
}

/// The hosts, with times that are shorter than usual by a like factor.
fn provider(folder: &Path) -> Provider {
    let seconds = Duration::from_secs;
    let cloud = Box::new(Cloud(Yard::new(folder)));
    let mut provider = Provider::new(cloud, vec![host_type()], "/var/lib/longshore".to_owned());
    let pool = &mut provider.pool;
    pool.max_instances = SLOTS;
    pool.secret_path = "/run/longshore-instance-secret".to_owned();
    pool.report_wait = seconds(5);
    pool.probe_interval = seconds(2);
    pool.sync_interval = seconds(10);
    pool.timeout_probe = TIMEOUT_PROBE;
    pool.timeout_booting = TIMEOUT_PROBE;
    // Hosts that have nothing left to do stay and answer: were only silent ones left, the dispatcher
    // would take it for an outage of its own, and give none of them up.
    pool.timeout_idle = 4 * TIMEOUT_PROBE;
    pool.timeout_shutdown = seconds(2);
    pool.command_timeout = seconds(10);
    pool.transfer_timeout = seconds(60);
    let ssh = &mut provider.ssh;
    ssh.connect = seconds(5);
    ssh.banner = seconds(5);
    ssh.key_exchange = seconds(5);
    ssh.authentication = seconds(5);
    ssh.handshake = seconds(10);
    ssh.answer = seconds(10);
    ssh.unacknowledged = seconds(10);
    ssh.keepalive = seconds(5);
    provider
}
