//! Kills `longshore run`, or `longshore serve`, again and again, and checks that nothing is lost,
//! doubled or left behind.
//!
//! Every job is wrapped by a witness that does not trust our own database; see `common`. `scripts/kill-loop` builds and runs this.

#[path = "../common/mod.rs"]
mod common;
mod jobs;
mod round;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;

use common::eye::Stage;
use common::random::Random;
use common::{Session, say, witness};
use round::{Goal, Round, Tally, WANTED};

/// From so many kills on each wanted state must be hit three times.
const FULL: usize = 30;

/// Kills `longshore run` again and again, and checks that nothing is lost, doubled or left behind
#[derive(Debug, Parser)]
struct Args {
    /// How often to kill; from 30 on each state must be hit three times, else once
    #[arg(long, default_value_t = FULL, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    kills: usize,
    /// Repeats the random choices of an earlier loop, as far as timing allows
    #[arg(long)]
    seed: Option<u64>,
    /// Kills a service to which a `run` has submitted the jobs, instead of the `run`
    #[arg(long)]
    service: bool,
    /// Puts a double into the witness file, which must make this fail
    #[arg(long)]
    inject_double: bool,
    /// The program to kill
    #[arg(long)]
    binary: PathBuf,
    /// The jobs
    #[arg(long)]
    survey: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((role, rest)) if role == witness::ROLE => witness::run(rest),
        _ => kill_loop(&Args::parse()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn kill_loop(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let session = Session::begin("kill-loop", args.seed)?;
    let random = &mut Random(session.seed);
    let goal = Goal {
        kills: args.kills,
        each: if args.kills >= FULL { 3 } else { 1 },
    };
    let mut tally = Tally::default();
    let played = play(args, goal, &mut tally, &session.folder, random);
    table(&tally);
    let wrongs = match played {
        Ok(wrongs) => wrongs,
        Err(error) => vec![format!("{error:#}")],
    };
    if !session.end(&wrongs)? {
        return Ok(ExitCode::FAILURE);
    }
    let seconds = begun.elapsed().as_secs();
    say(&format!(
        "{} kills: nothing lost, doubled or left behind ({seconds} s)",
        tally.kills
    ));
    Ok(ExitCode::SUCCESS)
}

/// Plays rounds until there were enough kills; what is wrong.
fn play(
    args: &Args,
    goal: Goal,
    tally: &mut Tally,
    folder: &std::path::Path,
    random: &mut Random,
) -> Result<Vec<String>> {
    let binary = args.binary.canonicalize().context("--binary")?;
    let survey = args.survey.canonicalize().context("--survey")?;
    let mut wrongs = Vec::new();
    for n in 1.. {
        let before = tally.kills;
        let folder = folder.join(format!("round-{n}"));
        let mut round = Round::new(folder, &binary, &survey, args.service, random)?;
        say(&format!("round {n}: {} jobs", round.plan.expected.len()));
        let played = round.play(goal, tally, random);
        let ended = played.is_ok();
        wrongs.extend(played.err().map(|error| format!("round {n}: {error:#}")));
        if ended {
            let cleaned = round.clean_up();
            wrongs.extend(cleaned.err().map(|error| format!("round {n}: {error:#}")));
        }
        let found = verdict::judge(&round, args.inject_double)?;
        wrongs.extend(found.into_iter().map(|wrong| format!("round {n}: {wrong}")));
        if goal.reached(tally) || !wrongs.is_empty() || tally.kills == before {
            break;
        }
        say(&format!(
            "round {n}: every check passed; {} kills so far",
            tally.kills
        ));
    }
    if wrongs.is_empty() {
        if tally.kills < goal.kills {
            wrongs.push(format!("only {} kills were possible", tally.kills));
        }
        let missed = WANTED
            .into_iter()
            .filter(|&stage| tally.of(stage) < goal.each);
        wrongs.extend(missed.map(|stage| {
            format!(
                "\"{stage}\" was hit {} times, not {}",
                tally.of(stage),
                goal.each
            )
        }));
    }
    Ok(wrongs)
}

fn table(tally: &Tally) {
    say("");
    say(&format!(
        "{} kills; so many hit a container in this state that none had hit in it before:",
        tally.kills
    ));
    for stage in Stage::ALL {
        say(&format!("  {stage:<26}{:>4}", tally.of(stage)));
    }
    say("and the installation was");
    for (moment, count) in &tally.moments {
        say(&format!("  {moment:<26}{count:>4}"));
    }
    say("");
}
