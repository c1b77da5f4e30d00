//! The `longshore` program: runs batch jobs on machines, this one or rented ones.

use std::process::ExitCode;

use clap::Parser as _;
use longshore::cli::{Bench, Cli, Command};
use longshore::ending::{self, Ending};
use longshore::{bench, logging, run, state_dir};

fn main() -> ExitCode {
    match dispatch(&Cli::parse()) {
        Ok(ending) => ending.into(),
        Err(error) => {
            let (code, lines) = ending::explain(&error);
            tracing::error!("{lines}");
            eprintln!("{lines}");
            code.into()
        }
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<Ending> {
    let variable = |name: &str| std::env::var_os(name);
    let state_dir = state_dir::locate(cli.common.state_dir.as_deref(), variable)?;
    let log = cli.common.log.as_deref();
    let prepare = || {
        state_dir::create(&state_dir)?;
        logging::start(&state_dir, log)
    };
    match &cli.command {
        Command::Run(args) => prepare().and_then(|()| run::run(args, &state_dir)),
        Command::Cleanup => prepare().and_then(|()| run::cleanup(&state_dir)),
        // It has a directory of its own, with a log of its own.
        Command::Bench(Bench::Dispatch(args)) => bench::dispatch(args, &state_dir, log),
    }
}
