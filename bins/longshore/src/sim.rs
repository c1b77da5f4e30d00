//! `longshore sim`: the dispatcher on a simulated clock, to see what it does, what it costs, and
//! whether it keeps its promises.

pub mod args;
mod compare;
mod config;
mod json;
mod setup;
mod soak;
mod story;
mod table;
mod watch;

use std::path::Path;

use crate::command::print;
use crate::ending::Ending;
use crate::tell;
use args::{SimArgs, SimCommand};
use setup::Setup;
use watch::{Ended, Watcher};

/// Simulates what the arguments say, and prints what came of it.
pub fn sim(args: &SimArgs) -> anyhow::Result<Ending> {
    match &args.command {
        Some(SimCommand::Compare(args)) => compare::compare(args),
        None if args.seeds.is_some() || args.time.is_some() => soak::soak(args),
        None => once(args),
    }
}

/// One simulation.
fn once(args: &SimArgs) -> anyhow::Result<Ending> {
    let setup = Setup::new(args)?;
    tell(&setup.notes);
    let scenario = setup.scenario(args.seed);
    let mut watcher = Watcher::new(args.events.as_deref())?;
    let (outcome, ended) = watcher.run(&scenario)?;
    if args.json {
        let mut object = json::settings(&setup, &scenario);
        object.extend(json::outcome(&outcome));
        object.insert("interrupted".into(), (ended == Ended::Interrupted).into());
        print_json(object)?;
    } else {
        print(&table::table(&setup, &scenario, &outcome, ended))?;
    }
    if outcome.violations.is_empty() {
        return Ok(match ended {
            Ended::Done => Ending::Succeeded,
            Ended::Interrupted => Ending::Interrupted,
        });
    }
    if !args.json {
        print(&story::story(
            &scenario,
            &outcome,
            &story::command(args, args.seed),
        ))?;
    }
    Ok(Ending::Failed)
}

/// Notes for whoever reads the terminal, beside the figures.
fn tell(notes: &[String]) {
    for note in notes {
        tell!("note: {note}");
    }
}

fn print_json(object: serde_json::Map<String, serde_json::Value>) -> anyhow::Result<()> {
    print(&format!("{:#}\n", serde_json::Value::Object(object)))
}

/// The name of a file as it is shown.
fn shown(path: &Path) -> String {
    crate::text::clean(&path.to_string_lossy())
}
