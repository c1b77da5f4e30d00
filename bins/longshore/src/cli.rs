//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::sim::args::SimArgs;

/// Runs batch jobs on machines, this one or rented ones.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  longshore run jobs.yml             Run the jobs of a file on this machine
  longshore run first.yml then.yml   Run two files, one after the other
  longshore run --help               How to write a job file, and more
  longshore sim --help               What would it cost, how long would jobs wait?

Exit codes: 0 all succeeded, 1 something failed, 2 wrong usage or a bad job file,
3 machines are left, 130 ended by Ctrl-C.")]
pub struct Cli {
    /// Settings of every command.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Settings of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Where queue, results and logs are kept
    /// [default: $XDG_STATE_HOME/longshore, else ~/.local/state/longshore]
    #[arg(long, global = true, value_name = "DIR", env = "LONGSHORE_STATE_DIR")]
    #[arg(hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Also write the log to standard error; FILTER is a level (error, warn, info, debug, trace)
    /// or a list like info,longshore_pool=debug
    #[arg(long, global = true, value_name = "FILTER", env = "LONGSHORE_LOG")]
    #[arg(hide_env_values = true)]
    pub log: Option<String>,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a command that is not carried out must not compile"
)]
pub enum Command {
    /// Run the jobs of one or more files and wait for their end
    Run(RunArgs),
    /// Give back the machines that an earlier run left behind
    Cleanup,
    /// Try limits, machine types and a day's work on a simulated clock, for nothing
    Sim(Box<SimArgs>),
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
}

/// What can be measured.
#[derive(Debug, Subcommand)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a command that is not carried out must not compile"
)]
pub enum Bench {
    /// Measure how fast jobs are started and their places reused on this machine
    Dispatch(BenchDispatchArgs),
    /// Measure what the scheduler costs, up to 100,000 containers and 10,000 instances
    Plan(BenchPlanArgs),
}

/// What `longshore run` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A job file is YAML or JSON:

  name: checksums
  defaults:
    resources: {vcpus: 1, ram: 256MiB}   # what each job needs of its machine
  jobs:
    - name: count
      command: ls | wc -l                # given to sh -c; or a list: [ls, -l]
      cwd: data                          # relative paths start at the file's directory
    - name: hash-{item}
      for_each: data/*.txt               # one job for each file; or a list: [a, b]
      command: [sha256sum, \"{item}\"]
      time_limit: 10m

Further keys of a job: env, stdin, priority (1 to 1000), retries (after a lost machine),
keep_output, engine (process).

Run the same file again after an interruption, and it goes on where it was.")]
pub struct RunArgs {
    /// Job files; each starts when all jobs of the one before have succeeded
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Go on with the unfinished run of a file even though the file has changed since; the jobs
    /// stay as they were
    #[arg(long, conflicts_with = "new")]
    pub resume: bool,
    /// Start over: give up an unfinished run of the file, if there is one
    #[arg(long)]
    pub new: bool,
    /// Show no progress, only the summary
    #[arg(long, short)]
    pub quiet: bool,
}

/// What `longshore bench dispatch` is told.
///
/// It works in a fresh directory beside the state directory and removes it at the end.
#[derive(Clone, Debug, Args)]
pub struct BenchDispatchArgs {
    /// How many jobs to run for the figure of jobs per second [default: 1000, or 20 if short]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub jobs: Option<u32>,
    /// How many single starts to measure [default: 100, or 5 if short]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub samples: Option<u32>,
    /// Only see whether it works: few jobs, little time
    #[arg(long)]
    pub short: bool,
}

/// What `longshore bench plan` is told.
#[derive(Clone, Copy, Debug, Args)]
pub struct BenchPlanArgs {
    /// Only see whether it works: each size once, less memory
    #[arg(long)]
    pub short: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_example_in_the_help_is_a_job_file() {
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap();
        let help = run.get_after_help().unwrap().to_string();
        let (_, rest) = help.split_once("JSON:\n\n").unwrap();
        let (example, _) = rest.split_once("\n\nFurther").unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        std::fs::write(directory.path().join("data/a.txt"), "").unwrap();
        let path = directory.path().join("jobs.yml");
        std::fs::write(&path, example).unwrap();
        let limits = crate::jobfile::Limits::default();
        assert_eq!(crate::jobfile::load(&path, &limits).unwrap().jobs.len(), 2);
    }

    #[test]
    fn lines_are_understood_or_refused() {
        let cli = parse("longshore run a.yml b.yml --state-dir /s --new").unwrap();
        assert_eq!(cli.common.state_dir, Some("/s".into()));
        let Command::Run(args) = cli.command else {
            panic!("{:?}", cli.command)
        };
        assert_eq!(args.files, [PathBuf::from("a.yml"), PathBuf::from("b.yml")]);
        assert!(args.new && !args.resume && !args.quiet);
        assert!(parse("longshore bench dispatch --jobs 10").is_ok());
        assert!(parse("longshore cleanup").is_ok());
        for bad in [
            "longshore",
            "longshore run",
            "longshore run a --new --resume",
            "longshore sail",
            "longshore bench dispatch --jobs 0",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
