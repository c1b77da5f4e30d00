//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use longshore_types::ByteSize;

use crate::sim::args::SimArgs;

/// Runs batch jobs on machines, this one or rented ones.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  longshore run jobs.yml             Run the jobs of a file on this machine
  longshore run first.yml then.yml   Run two files, one after the other
  longshore run --help               How to write a job file, and more
  longshore serve                    Run what others submit, until it is stopped
  longshore submit -- make test      Submit a command to the service
  longshore logs -f make             Follow what it prints
  longshore sim --help               What would it cost, how long would jobs wait?

Exit codes: 0 all succeeded, 1 something failed, 2 wrong usage, a bad job file, or no service
where one is needed, 3 machines are left, 4 the state directory was taken away, 130 ended by Ctrl-C.")]
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
    #[arg(hide_env_values = true, help_heading = "Options of every command")]
    pub state_dir: Option<PathBuf>,
    /// Also write the log to standard error; FILTER is a level (error, warn, info, debug, trace)
    /// or a list like info,longshore_pool=debug
    #[arg(long, global = true, value_name = "FILTER", env = "LONGSHORE_LOG")]
    #[arg(hide_env_values = true, help_heading = "Options of every command")]
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
    /// Run what is submitted, until it is stopped
    Serve(ServeArgs),
    /// Submit the jobs of a file, or one command, to the service
    Submit(Box<SubmitArgs>),
    /// List jobs
    List(ListArgs),
    /// Show all that is known of a job
    Show(ShowArgs),
    /// Say why a job waits: what was considered for it, and what would get it going
    Explain(ShowArgs),
    /// Print what a job wrote
    Logs(LogsArgs),
    /// End jobs, or keep them from being started
    Cancel(CancelArgs),
    /// Look after the machines of the service
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Give back the machines that an earlier run left behind
    Cleanup,
    /// Print the JSON schema of what is written for this program
    #[command(subcommand)]
    Schema(Schema),
    /// Print what a shell needs to complete these commands
    Completions(CompletionsArgs),
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
    /// The far side of `bench dispatch --stub`, which starts it
    #[command(hide = true)]
    StubInstances,
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
process_limit, output_limit, keep_output, engine (process, podman, docker) with image, mounts and
network, preemptible (true, false, prefer). docs/jobs.md explains them, and an editor that is
given `longshore schema job` completes them.

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

/// What `longshore serve` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The commands submit, list, show, explain, logs, cancel and instance find the service through the
state directory; so does `run`, which then submits its jobs here.

Others use HTTP with a token: `management_token` and `api_token` in the state directory, which are
made at the first start. docs/service.md describes what is answered.

Ctrl-C or TERM ends the service. What runs goes on, and is found again by the next start.")]
pub struct ServeArgs {
    /// Where HTTP requests are answered, or off
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9006")]
    #[arg(env = "LONGSHORE_LISTEN", hide_env_values = true)]
    pub listen: String,
    /// A certificate chain (PEM), to answer with TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Answer other machines without TLS
    #[arg(long)]
    pub plain: bool,
    /// How many jobs that ended are kept
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub keep_jobs: u64,
    /// How long jobs that ended are kept
    #[arg(long, value_name = "TIME", default_value = "720h", value_parser = duration)]
    pub keep_for: Duration,
    /// How much output of jobs that ended is kept, all together
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = size)]
    pub keep_output: ByteSize,
}

/// What `longshore submit` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  longshore submit jobs.yml
  longshore submit --name nightly --vcpus 2 --ram 1GiB -- ./build.sh --all

The options apply to a command; a file says all that itself. A command runs in the directory that
it is submitted from.")]
#[command(override_usage = "\
longshore submit [OPTIONS] <FILE>
       longshore submit [OPTIONS] -- <COMMAND>...")]
pub struct SubmitArgs {
    /// A job file
    #[arg(
        value_name = "FILE",
        required_unless_present = "command",
        conflicts_with = "command"
    )]
    pub file: Option<PathBuf>,
    /// A command and its arguments, after --
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// What the job is called [default: the name of the program]
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub name: Option<String>,
    /// How many processors it needs
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "file")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub vcpus: u32,
    /// How much memory it needs
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = some_ram)]
    #[arg(conflicts_with = "file")]
    pub ram: ByteSize,
    /// How much space in files it needs
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    #[arg(conflicts_with = "file")]
    pub scratch: ByteSize,
    /// 1 to 1000; higher goes first
    #[arg(long, value_name = "N", default_value_t = 500, conflicts_with = "file")]
    #[arg(value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub priority: i64,
    /// End it after so long
    #[arg(long, value_name = "TIME", value_parser = crate::jobfile::limit_in_millis)]
    #[arg(conflicts_with = "file")]
    pub time_limit: Option<u64>,
    /// Set a variable of its environment; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", conflicts_with = "file")]
    pub env: Vec<String>,
    /// Keep all of its output, not just the last MiB of each stream
    #[arg(long, conflicts_with = "file")]
    pub keep_output: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `longshore list` is told.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Also those that ended
    #[arg(long, short)]
    pub all: bool,
    /// Only those of this batch, ended or not
    #[arg(long, value_name = "NUMBER")]
    pub batch: Option<u64>,
    /// Only those that are waiting, running, ok, failed or cancelled
    #[arg(long, value_name = "STATUS", value_parser = ["waiting", "running", "ok", "failed", "cancelled"])]
    pub status: Option<String>,
    /// Only those whose name has this in it
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Show the list again whenever it changes, until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `longshore show` and `longshore explain` are told.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The name of a job (the newest with that name), its UUID, or the end of that
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `longshore logs` is told.
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// The name of a job (the newest with that name), its UUID, or the end of that
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Go on until the job has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Only its standard output
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only its standard error
    #[arg(long)]
    pub stderr: bool,
}

/// What `longshore cancel` is told.
#[derive(Clone, Debug, Args)]
pub struct CancelArgs {
    /// Names of jobs (the newest with that name), their UUIDs, or the ends of those
    #[arg(value_name = "JOB", required_unless_present = "batch")]
    pub jobs: Vec<String>,
    /// All jobs of this batch
    #[arg(long, value_name = "NUMBER", conflicts_with = "jobs")]
    pub batch: Option<u64>,
}

/// What can be done with machines.
#[derive(Clone, Debug, Subcommand)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a command that is not carried out must not compile"
)]
pub enum InstanceCommand {
    /// List machines and what runs there
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give them no new jobs, and keep them
    Hold(InstanceArgs),
    /// Give them no new jobs, and give them back when nothing runs there any more
    Drain(InstanceArgs),
    /// Use them as usual again
    Run(InstanceArgs),
    /// Give them back at once; what runs there is started again elsewhere
    Kill(KillArgs),
}

/// Which machines.
#[derive(Clone, Debug, Args)]
pub struct InstanceArgs {
    /// Their ids, as `longshore instance list` shows them
    #[arg(value_name = "INSTANCE", required = true)]
    pub instances: Vec<String>,
}

/// What `longshore instance kill` is told.
#[derive(Clone, Debug, Args)]
pub struct KillArgs {
    /// Their ids, as `longshore instance list` shows them
    #[arg(value_name = "INSTANCE", required = true)]
    pub instances: Vec<String>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// What there are schemas of.
#[derive(Clone, Copy, Debug, Subcommand)]
#[expect(clippy::exhaustive_enums, reason = "each has its schema")]
pub enum Schema {
    /// Of a job file
    Job,
}

/// What `longshore completions` is told.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Example, for bash:
  longshore completions bash > ~/.local/share/bash-completion/completions/longshore")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

fn duration(text: &str) -> Result<Duration, String> {
    longshore_types::parse_duration(text).map_err(|error| error.to_string())
}

fn size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn some_ram(text: &str) -> Result<ByteSize, String> {
    let ram = size(text)?;
    crate::jobfile::too_little_ram(ram).map_or(Ok(ram), Err)
}

/// What `longshore bench dispatch` is told.
///
/// It works in a fresh directory beside the state directory and removes it at the end.
#[derive(Clone, Debug, Args)]
pub struct BenchDispatchArgs {
    /// How many jobs to run for the figure of jobs per second [default: 1000, or 20 if short; 5000 or 50 with --stub]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub jobs: Option<u32>,
    /// How many single starts to measure [default: 100, or 5 if short; 200 with --stub]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub samples: Option<u32>,
    /// Only see whether it works: few jobs, little time
    #[arg(long)]
    pub short: bool,
    /// Speak to the runner by a command for each thing, without a watch stream
    #[arg(long)]
    pub by_command: bool,
    /// Measure the dispatcher alone: a queue in memory, and instances of which only the SSH server
    /// is real, in a process of its own
    #[arg(long)]
    pub stub: bool,
    /// How many such instances [default: 1000, or 10 if short]
    #[arg(long, value_name = "N", requires = "stub", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub instances: Option<u32>,
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
