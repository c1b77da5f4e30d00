//! Harms a whole installation with real hosts, and checks that nothing is lost, doubled or left
//! behind.
//!
//! Eight hosts in network namespaces, each with processes, mounts and an SSH server of its own,
//! are presented as a cloud. `longshore run` plays 200 jobs on them while links are cut, servers
//! and the dispatcher are stopped and killed, and hosts lose their power. Every job is wrapped by
//! a witness that does not trust our own database; see `common`. `scripts/fault-loop` builds and
//! runs this.

mod cloud;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod confine;
mod dispatcher;
mod harm;
mod host;
mod jobs;
mod network;
mod plan;
mod processes;
mod round;
mod tally;
mod verdict;
mod yard;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;

use common::random::Random;
use common::{Session, say, witness};
use round::Round;
use tally::Tally;
use verdict::{Before, Verdict};

/// What a round takes, about.
const ROUND_MINUTES: u64 = 4;

/// Harms an installation with eight hosts, and checks that nothing is lost, doubled or left behind
#[derive(Debug, Parser)]
struct Args {
    /// How long, about: rounds of 200 jobs are played, of four minutes each
    #[arg(long, default_value_t = ROUND_MINUTES, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Repeats the random choices of an earlier loop, as far as timing allows
    #[arg(long)]
    seed: Option<u64>,
    /// Puts a double into the witness' records, which must make this fail
    #[arg(long)]
    inject_double: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((role, rest)) if role == witness::ROLE => witness::run(rest),
        Some((role, rest)) if role == host::ROLE => host::run(rest),
        Some((role, rest)) if role == dispatcher::ROLE => dispatcher::run(rest),
        Some((role, rest)) if role == confine::INIT => confine::init(rest),
        Some((role, rest)) if role == confine::INSIDE => {
            let name = "fault_loop".to_owned();
            fault_loop(&Args::parse_from([name].iter().chain(rest)))
        }
        _ => {
            Args::parse();
            confine::enter(&arguments)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn fault_loop(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let session = Session::begin("fault-loop", args.seed)?;
    let random = &mut Random(session.seed);
    network::make_bridge()?;
    let before = Before::look()?;
    verdict::self_test(&before)?;
    say("self-test: a process, an interface and a mount that are left behind are found");
    let mut tally = Tally::default();
    let sum = play(args, &before, &mut tally, &session.folder, random)?;
    say("");
    say("what was done, and how many containers it hit, by state:");
    tally.tell();
    say("");
    if !session.end(&sum.wrongs)? {
        return Ok(ExitCode::FAILURE);
    }
    say(&format!(
        "{} times a container was on a host that went silent for a minute at most: none failed or \
         ran again for that",
        sum.borne
    ));
    say(&format!(
        "{} faults: nothing lost, doubled or left behind; {} hosts had to be given up, {} jobs ran \
         again for that, and none for another reason ({} s)",
        tally.all(),
        sum.given_up,
        sum.run_again,
        begun.elapsed().as_secs()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Plays rounds until the time is over or something is wrong.
fn play(
    args: &Args,
    before: &Before,
    tally: &mut Tally,
    folder: &Path,
    random: &mut Random,
) -> Result<Verdict> {
    let begun = Instant::now();
    let rounds = args.minutes.div_ceil(ROUND_MINUTES);
    let time = Duration::from_secs(60 * args.minutes);
    let mut sum = Verdict::default();
    for n in 1..=rounds {
        if n > 1 && begun.elapsed() >= time {
            break;
        }
        let mut round = Round::new(folder.join(format!("round-{n}")), random)?;
        say(&format!("round {n}: {} jobs", round.jobs.0.len()));
        let played = round.play(tally, random);
        let wrong = played.err();
        let verdict = verdict::judge(&round, before, args.inject_double)?;
        let wrongs = wrong.into_iter().map(|error| format!("{error:#}"));
        let wrongs = wrongs.chain(verdict.wrongs);
        sum.wrongs
            .extend(wrongs.map(|wrong| format!("round {n}: {wrong}")));
        sum.given_up += verdict.given_up;
        sum.run_again += verdict.run_again;
        sum.borne += verdict.borne;
        if !sum.wrongs.is_empty() {
            break;
        }
        say(&format!("round {n}: every check passed"));
    }
    Ok(sum)
}
