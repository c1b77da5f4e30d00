//! What `longshore sim` is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use longshore_sim::{Faults, TIME_MAX};
use longshore_types::parse_duration;

/// What `longshore sim` is told.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Nothing real is started and no time is waited for: the same dispatcher that `longshore run` uses
decides on a simulated clock, over simulated machines that cost what your prices say. A witness
watches whether it keeps its promises: no container lost or run twice, no machine left behind.

  longshore sim                                         An hour with 50 containers
  longshore sim --arrivals steady:500@10m --hours 8     500 containers of some 10 minutes in 8 hours
  longshore sim --arrivals burst:1000@5m --workers 20   1000 at once, on at most 20 machines
  longshore sim --arrivals daily:2000@15m --hours 168   A week with days and nights
  longshore sim --arrivals week.csv --config mine.yml   What ran last week, on your machine types
  longshore sim compare now.yml then.yml --arrivals week.csv
                                                        What would another configuration cost?
  longshore sim --faults wild --for 3m                  Small wild worlds, one after the other

A trace is a CSV table; its first line is time,count,vcpus,ram,duration,priority, a further one
like 1h30m,10,2,4GiB,15m,500. Traces and configurations to copy are in examples/sim, and
docs/simulator.md explains the figures, the files and what is not modelled.

Exit codes: 0 every promise was kept, 1 one was broken (its story is printed), 2 bad input,
130 ended by Ctrl-C (what there is so far is printed).")]
pub struct SimArgs {
    /// Something other than one simulation.
    #[command(subcommand)]
    pub command: Option<SimCommand>,
    /// Which containers are submitted: a CSV file, or a pattern (burst:COUNT@RUNTIME,
    /// steady:COUNT@RUNTIME or daily:COUNT@RUNTIME); steady:50@2m if left out
    #[arg(long, value_name = "FILE|PATTERN")]
    pub arrivals: Option<String>,
    /// How long containers are submitted and faults happen, in simulated hours; it then goes on
    /// until all is done [default: 1, 24 for daily, all of a trace]
    #[arg(long, value_name = "H", value_parser = hours, allow_negative_numbers = true)]
    pub hours: Option<Duration>,
    /// The most machines at once; overrides MaxInstances [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    #[arg(allow_negative_numbers = true)]
    pub workers: Option<u32>,
    /// What goes wrong
    #[arg(long, value_name = "LEVEL", default_value = "none")]
    pub faults: FaultLevel,
    /// Where all chance comes from: the same seed gives the same simulation
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub seed: u64,
    /// Instance types, limits and times of the dispatcher, and how the provider behaves
    #[arg(long, value_name = "FILE.yml")]
    pub config: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Write all that happens to a file, a line each; two runs with one seed write the same
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "time"])]
    pub events: Option<PathBuf>,
    /// Simulate so many seeds, from --seed on, and stop at the first broken promise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    #[arg(allow_negative_numbers = true)]
    pub seeds: Option<u64>,
    /// Simulate seed after seed for so long, like 90s or 3m; one at least
    #[arg(long = "for", id = "time", value_name = "DURATION", value_parser = patience)]
    pub time: Option<Duration>,
}

/// What else can be simulated.
#[derive(Clone, Debug, Subcommand)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a command that is not carried out must not compile"
)]
pub enum SimCommand {
    /// The same containers under two configurations, side by side
    Compare(CompareArgs),
}

/// What `longshore sim compare` is told.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// The configuration to compare with, as a rule the present one
    #[arg(value_name = "A.yml")]
    pub a: PathBuf,
    /// The other configuration
    #[arg(value_name = "B.yml")]
    pub b: PathBuf,
    /// Which containers are submitted: a CSV file, or a pattern like steady:500@10m
    #[arg(long, value_name = "FILE|PATTERN")]
    pub arrivals: String,
    /// How long containers are submitted, in simulated hours [default: 1, 24 for daily, all of a
    /// trace]
    #[arg(long, value_name = "H", value_parser = hours, allow_negative_numbers = true)]
    pub hours: Option<Duration>,
    /// What goes wrong
    #[arg(long, value_name = "LEVEL", default_value = "none")]
    pub faults: FaultLevel,
    /// Where all chance comes from
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    pub seed: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[expect(
    clippy::exhaustive_enums,
    reason = "each has its word on the command line"
)]
pub enum FaultLevel {
    /// Nothing.
    #[default]
    None,
    /// A day at a decent provider, in an ordinary network.
    Mild,
    /// A day on which everything goes wrong.
    Wild,
}

impl FaultLevel {
    /// How often what goes wrong.
    pub fn faults(self) -> Faults {
        match self {
            Self::None => Faults::none(),
            Self::Mild => Faults::mild(),
            Self::Wild => Faults::wild(),
        }
    }

    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mild => "mild",
            Self::Wild => "wild",
        }
    }
}

fn hours(text: &str) -> Result<Duration, String> {
    let hours: Option<f64> = text.parse().ok();
    let most = TIME_MAX.as_secs_f64() / 3600.0;
    match hours.filter(|hours| *hours >= 0.01 && *hours <= most) {
        Some(hours) => Ok(Duration::from_secs_f64(hours * 3600.0)),
        None => Err(format!(
            "write a number of hours from 0.01 to {most}, like 8 or 0.5"
        )),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        Ok(_) => Err("write a duration above 0, like 3m".into()),
        Err(error) => Err(error.to_string()),
    }
}
