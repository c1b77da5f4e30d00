//! The job file of a round.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::common::output::Expected;
use crate::common::random::Random;
use crate::common::witness;

/// How many jobs a round has.
pub(crate) const JOBS: u64 = 200;
/// The shortest and the longest job.
const LEAST_MS: u64 = 100;
const MOST_MS: u64 = 20_000;

/// Jobs and what must become of them, by name.
#[derive(Debug)]
pub(crate) struct Jobs(pub(crate) Vec<(String, Expected)>);

impl Jobs {
    /// Makes up jobs that tell `folder/witness` when they run, and writes the job file.
    pub(crate) fn write(folder: &Path, random: &mut Random) -> Result<Self> {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.context("a path is not UTF-8")
        };
        let wrapper = [
            text(&std::env::current_exe()?)?,
            witness::ROLE.to_owned(),
            text(&folder.join("witness"))?,
        ];
        let mut jobs = Vec::new();
        let mut all = Vec::new();
        for n in 0..JOBS {
            let (script, expected) = job(n, random);
            let name = format!("job-{n:03}");
            let shell = ["sh".to_owned(), "-c".to_owned(), script];
            let command: Vec<String> = wrapper.iter().cloned().chain(shell).collect();
            jobs.push(json!({
                "name": name,
                "command": command,
                "priority": 1 + random.below(1000),
            }));
            all.push((name, expected));
        }
        let document: Value = json!({
            "name": "fault-loop",
            "defaults": { "retries": 8, "resources": { "vcpus": 1, "ram": "32MiB" } },
            "jobs": jobs,
        });
        let document = serde_json::to_vec_pretty(&document)?;
        std::fs::write(folder.join("jobs.json"), document)?;
        Ok(Self(all))
    }
}

/// Some fork, some do not listen to TERM, some fail, some write a lot.
fn job(n: u64, random: &mut Random) -> (String, Expected) {
    // More short ones than long ones.
    let part = random.below(1000);
    let ms = LEAST_MS + (MOST_MS - LEAST_MS) * part * part / 1_000_000;
    let nap = format!("sleep {}.{:03}", ms / 1000, ms % 1000);
    let (script, exit_code, errors) = match n % 8 {
        0 => (
            format!(
                "sleep 987 & setsid sleep 987 & (setsid sh -c 'sleep 987 & sleep 987' &); {nap}; echo {n}"
            ),
            0,
            String::new(),
        ),
        1 => (
            format!("trap '' TERM HUP INT; {nap}; echo {n}"),
            0,
            String::new(),
        ),
        2 => (format!("{nap}; echo {n}; exit 3"), 3, String::new()),
        3 => (
            format!("echo {n}; {nap}; echo bad {n} >&2"),
            0,
            format!("bad {n}\n"),
        ),
        _ => (format!("{nap}; echo {n}"), 0, String::new()),
    };
    let expected = Expected {
        exit_code,
        output: Some([format!("{n}\n"), errors]),
        whole: false,
    };
    (script, expected)
}
