//! The job file of a round: the survey and some jobs that make rare states likely, each wrapped.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use longshore::jobfile::{self, Job, Limits};
use serde_json::{Value, json};

use crate::common::output::Expected;
use crate::common::random::Random;
use crate::common::witness;

/// Jobs and what must become of them, by name.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    jobs: Vec<Value>,
    pub(crate) expected: Vec<(String, Expected)>,
    /// The jobs that leave a file behind, with something in it.
    pub(crate) files: Vec<(String, PathBuf)>,
    wrapper: Vec<String>,
}

impl Plan {
    /// Reads the survey and adds jobs; results are written below `folder`, and so is the witness.
    pub(crate) fn make(survey: &Path, folder: &Path, random: &mut Random) -> Result<Self> {
        let text = |path: &Path| {
            path.to_str()
                .map(str::to_owned)
                .context("a path is not UTF-8")
        };
        let program = std::env::current_exe()?;
        let mut plan = Self {
            wrapper: vec![
                text(&program)?,
                witness::ROLE.to_owned(),
                text(&folder.join("witness"))?,
            ],
            ..Self::default()
        };
        let file = jobfile::load(survey, &Limits::default()).map_err(|problems| {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", all.join("\n"))
        })?;
        for job in file.jobs {
            plan.add_survey(job, &folder.join("out"))?;
        }
        plan.add_own(random);
        Ok(plan)
    }

    /// Writes the job file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let document = json!({ "name": "kill-loop", "jobs": self.jobs });
        Ok(std::fs::write(path, serde_json::to_vec_pretty(&document)?)?)
    }

    fn add_survey(&mut self, job: Job, out: &Path) -> Result<()> {
        let document = job.document;
        let mut env = document.env;
        if env.contains_key("OUT") {
            let out_text = out.to_str().context("a path is not UTF-8")?;
            env.insert("OUT".to_owned(), out_text.to_owned());
            let file = out.join(format!("{}.txt", job.name));
            self.files.push((job.name.clone(), file));
        }
        let needs = job.request;
        let mut value = json!({
            "name": job.name,
            "command": self.wrap(&document.command),
            "env": env,
            "priority": job.priority,
            "retries": job.retries,
            "keep_output": job.keep_output,
            "resources": { "vcpus": needs.vcpus, "ram": needs.ram.0, "scratch": needs.scratch.0 },
        });
        for (key, text) in [("cwd", document.cwd), ("stdin", document.stdin)] {
            if let Some(text) = text {
                value[key] = text.into();
            }
        }
        if let Some(limit_ms) = document.time_limit_ms {
            value["time_limit"] = format!("{limit_ms}ms").into();
        }
        self.jobs.push(value);
        let expected = Expected {
            exit_code: 0,
            output: None,
            whole: job.keep_output,
        };
        self.expected.push((job.name, expected));
        Ok(())
    }

    /// Very short ones, some that write to both streams, fork, fail, write a lot, or delete the
    /// directory they are in.
    fn add_own(&mut self, random: &mut Random) {
        let plain = |n: usize, what: &str| [format!("{what} {n}\n"), String::new()];
        for n in 0..24 {
            self.add(
                random,
                format!("brief-{n}"),
                &format!("echo brief {n}"),
                0,
                plain(n, "brief"),
            );
        }
        for n in 0..10 {
            let pause = format!("{}.{}", random.below(2), random.below(10));
            let script = format!("sleep {pause}; echo slept {n}");
            self.add(random, format!("sleep-{n}"), &script, 0, plain(n, "slept"));
        }
        for n in 0..8 {
            let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; sleep 0.05; done";
            let lines =
                |what| (1..=5).fold(String::new(), |text, i| text + &format!("{what} {i}\n"));
            self.add(
                random,
                format!("both-{n}"),
                script,
                0,
                [lines("out"), lines("err")],
            );
        }
        for n in 0..6 {
            let script = format!(
                "sleep 987 & setsid sleep 987 & (setsid sh -c 'sleep 987 & sleep 987' &); echo family {n}"
            );
            self.add(
                random,
                format!("family-{n}"),
                &script,
                0,
                plain(n, "family"),
            );
        }
        for n in 0..2 {
            let script = format!("echo fail {n}; exit 3");
            self.add(random, format!("fail-{n}"), &script, 3, plain(n, "fail"));
        }
        for n in 0..2 {
            let script = "rm -rf \"$PWD\"; exec >&- 2>&-; sleep 0.2";
            self.add(random, format!("gone-{n}"), script, 0, Default::default());
        }
        let numbers = (1..=300_000).fold(String::new(), |mut text, n| {
            let _ = writeln!(text, "{n}");
            text
        });
        for n in 0..3 {
            let output = || [numbers.clone(), String::new()];
            self.add(random, format!("kept-{n}"), "seq 300000", 0, output());
            if let (Some(job), Some((_, expected))) =
                (self.jobs.last_mut(), self.expected.last_mut())
            {
                job["keep_output"] = true.into();
                expected.whole = true;
            }
            self.add(random, format!("tail-{n}"), "seq 300000", 0, output());
        }
    }

    fn add(
        &mut self,
        random: &mut Random,
        name: String,
        script: &str,
        exit_code: i64,
        output: [String; 2],
    ) {
        let command = ["sh", "-c", script].map(str::to_owned);
        self.jobs.push(json!({
            "name": name,
            "command": self.wrap(&command),
            "priority": 1 + random.below(1000),
            "resources": { "vcpus": 1, "ram": "32MiB" },
        }));
        let expected = Expected {
            exit_code,
            output: Some(output),
            whole: false,
        };
        self.expected.push((name, expected));
    }

    fn wrap(&self, command: &[String]) -> Vec<String> {
        self.wrapper.iter().chain(command).cloned().collect()
    }
}
