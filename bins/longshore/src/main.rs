//! The `longshore` program: runs batch jobs on machines, this one or rented ones.

#![deny(clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser as _;
use longshore::cli::{Bench, Cli, Command};
use longshore::ending::{self, Ending};
use longshore::{bench, command, logging, run, service, sim, state_dir};

fn main() -> ExitCode {
    match dispatch(&Cli::parse()) {
        Ok(ending) => ending.into(),
        Err(error) => ending::tell_error(&error).into(),
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<Ending> {
    let variable = |name: &str| std::env::var_os(name);
    let locate = || state_dir::locate(cli.common.state_dir.as_deref(), variable);
    let log = cli.common.log.as_deref();
    let prepare = || {
        let state_dir = locate()?;
        state_dir::create(&state_dir)?;
        logging::start(&state_dir, log)?;
        anyhow::Ok(state_dir)
    };
    match &cli.command {
        Command::Run(args) => prepare().and_then(|state_dir| run::run(args, &state_dir)),
        Command::Cleanup => prepare().and_then(|state_dir| run::cleanup(&state_dir)),
        Command::Serve(args) => {
            prepare().and_then(|state_dir| service::serve::serve(args, &state_dir))
        }
        // They ask the service, which writes the log.
        Command::Submit(args) => command::submit(args, &locate()?),
        Command::List(args) => command::list(args, &locate()?),
        Command::Show(args) => command::show(args, &locate()?),
        Command::Explain(args) => command::explain(args, &locate()?),
        Command::Logs(args) => command::logs(args, &locate()?),
        Command::Cancel(args) => command::cancel(args, &locate()?),
        Command::Instance(args) => command::instance(args, &locate()?),
        Command::Schema(schema) => command::schema(*schema),
        Command::Completions(args) => command::completions(*args),
        // It keeps nothing and writes no log.
        Command::Sim(args) => sim::sim(args),
        Command::Bench(Bench::Plan(args)) => bench::plan(args),
        Command::Bench(Bench::StubInstances) => bench::stub_instances(),
        // It has a directory of its own, with a log of its own.
        Command::Bench(Bench::Dispatch(args)) => bench::dispatch(args, &locate()?, log),
    }
}
