//! The job files in examples/ are good, and do what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

use longshore::jobfile::{JobFile, Limits, Machine, load};
use longshore_types::{ByteSize, Resources};

fn example(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("examples/jobs").join(name)
}

fn read(path: &Path) -> JobFile {
    // A small machine is enough.
    let room = Resources {
        vcpus: 2,
        ram: ByteSize::gib(1),
        scratch: ByteSize::gib(1),
        gpus: 0,
    };
    let machines = vec![Machine::this(room)];
    load(path, &Limits { machines }).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// Runs a job as the runner would, but in `cwd` and with its results in `out`.
fn run(file: &JobFile, name: &str, cwd: &Path, out: &Path) -> bool {
    let job = file.jobs.iter().find(|job| job.name == name);
    let document = &job.unwrap_or_else(|| panic!("no {name}")).document;
    let mut command = Command::new(&document.command[0]);
    command
        .args(&document.command[1..])
        .envs(&document.env)
        .env("OUT", out)
        .current_dir(cwd);
    command.status().expect("a shell").success()
}

#[test]
fn the_survey_is_large_and_varied() {
    let survey = read(&example("survey.yml"));
    assert!(survey.jobs.len() >= 40, "{}", survey.jobs.len());
    assert!(survey.jobs.iter().any(|job| job.request.vcpus == 2));
    let root = example("../..").canonicalize().unwrap();
    for job in &survey.jobs {
        let cwd = Path::new(job.document.cwd.as_deref().unwrap());
        assert_eq!(cwd.canonicalize().unwrap(), root);
    }
}

#[test]
fn a_part_of_the_survey_becomes_a_table() {
    let survey = read(&example("survey.yml"));
    let merge = read(&example("merge.yml"));
    let root = example("../..");
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("survey");
    assert!(
        !run(&merge, "total", &root, &out),
        "there is nothing to add up yet"
    );
    let parts = [
        "count-a",
        "count-b",
        "source-1",
        "words-sources",
        "compare-GPL-2",
    ];
    for part in parts {
        assert!(run(&survey, part, &root, &out), "{part}");
    }
    assert!(run(&merge, "table", &root, &out));
    let table = std::fs::read_to_string(out.join("table.tsv")).unwrap();
    let names: Vec<&str> = table.lines().filter_map(|l| l.split('\t').next()).collect();
    assert_eq!(
        names,
        [
            "compare-GPL-2",
            "count-a",
            "count-b",
            "source-1",
            "words-sources"
        ]
    );
    assert!(
        table
            .lines()
            .all(|line| line.split('\t').nth(1).is_some_and(|v| !v.is_empty()))
    );
    assert!(run(&merge, "total", &root, &out));
}
