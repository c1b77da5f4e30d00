//! The same seed and the same calls give the same bytes, in another process too.
//!
//! Without a test harness: the program starts itself, to have two processes.

use std::io;
use std::process::Command;

#[path = "../examples/cloud_log.rs"]
#[expect(
    dead_code,
    reason = "the example is a program with a main function of its own"
)]
mod cloud_log;

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, flag, seed] = &arguments[..]
        && flag == "--print-log"
    {
        let seed = seed.parse().map_err(io::Error::other)?;
        return cloud_log::write_log(seed, &mut io::stdout().lock());
    }
    two_processes_print_the_same_log()
}

fn two_processes_print_the_same_log() -> io::Result<()> {
    let first = log_of("7")?;
    assert!(first == log_of("7")?, "the logs of two processes differ");
    assert!(first != log_of("8")?, "the seed makes no difference");
    let lines = String::from_utf8(first).map_err(io::Error::other)?;
    for part in [
        "is born",
        "has booted",
        "is struck",
        "timed out",
        "begins",
        "in b",
    ] {
        assert!(lines.contains(part), "nothing {part:?} in the log");
    }
    Ok(())
}

fn log_of(seed: &str) -> io::Result<Vec<u8>> {
    let own = std::env::current_exe()?;
    let output = Command::new(own).args(["--print-log", seed]).output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(output.stdout)
}
