//! Every example program is run, and has to end well.

use std::collections::BTreeSet;
use std::env::current_exe;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Far more than any of them takes.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn every_example_works() {
    let mut failed = Vec::new();
    for name in examples() {
        if let Err(problem) = run(&name) {
            failed.push(format!("{name}: {problem}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// The names of the programs: a file or a folder each.
fn examples() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = fs::read_dir(folder).expect("the folder of examples can be read");
    let paths = entries.map(|entry| entry.expect("the folder of examples can be read").path());
    let names: BTreeSet<String> = paths
        .map(|path| path.file_stem().expect("a name").display().to_string())
        .collect();
    assert!(!names.is_empty(), "there are no examples");
    names
}

/// Where the test command puts a program that it has built.
fn program(name: &str) -> PathBuf {
    let own = current_exe().expect("a program knows where it is");
    let profile = own.parent().and_then(Path::parent).expect("target/PROFILE");
    profile.join("examples").join(name)
}

fn run(name: &str) -> Result<(), String> {
    let program = program(name);
    let outputs = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = |stream| fs::File::create(outputs.path().join(stream));
    let (stdout, stderr) = (file("stdout"), file("stderr"));
    let mut child = Command::new(&program)
        .stdin(Stdio::null())
        .stdout(stdout.map_err(|error| error.to_string())?)
        .stderr(stderr.map_err(|error| error.to_string())?)
        .spawn()
        .map_err(|error| {
            let path = program.display();
            format!("{path}: {error}; `cargo test -p longshore-examples` builds it")
        })?;
    let ended = wait(&mut child);
    let printed = ["stdout", "stderr"].map(|stream| {
        let bytes = fs::read(outputs.path().join(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    eprintln!("=== {name}\n{}", printed[0]);
    match ended {
        Some(status) if status.success() && !printed[0].is_empty() => Ok(()),
        Some(status) => Err(format!("{status}\n{}{}", printed[0], printed[1])),
        None => Err(format!("did not end\n{}{}", printed[0], printed[1])),
    }
}

/// How a program ended; none if it had to be killed.
fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    // It may have ended just now; either way it is gone after this.
    let _ = child.kill();
    let _ = child.wait();
    None
}
