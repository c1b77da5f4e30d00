//! `longshore-run`: the runner that is copied to instances and supervises containers there.
//!
//! It has no network code and holds no token: a dispatcher runs it over SSH, with the command lines
//! and the language of `longshore-runner-api`, or asks one long-lived `--watch` for everything.
//! Whatever it knows is in one directory (`LONGSHORE_RUN_DIR`, else `/var/lib/longshore-run`): no
//! process holds anything that another could miss, and only the supervisors have to stay.
//!
//! # Build
//!
//! A static binary, for any Linux of its architecture:
//!
//! ```text
//! RUSTFLAGS='-C target-feature=+crt-static' \
//!     cargo build --release --target x86_64-unknown-linux-gnu -p longshore-run
//! ```
//!
//! # Processes
//!
//! ```text
//! start command ── forks ── A supervisor ── forks ── B reaper ── forks ── C the job ── …
//! ```
//!
//! The watch stream forks A itself. Where it has the time it does so ahead of the request, and A makes
//! [what it can](ahead): its lock file, its entry, and B. The end of the stream leaves an A with a
//! container alone. While A writes the entry to disk B makes the groups and C, which waits at a gate
//! that only A can open: for the command to be run at once when the disk has it.
//!
//! A and B bear the container's own part of its UUID as their name (`ps -o comm`). Both are
//! subreapers: whatever the job leaves behind becomes a child of B, and of A once B is gone. When
//! the job ends, when A dies (B sees the end of their socket) or when B dies (A sees it), the one
//! that is left ends every descendant before it goes. Should both be killed, C is ended by its
//! parent-death signal, and the next report or kill ends the members of the job's control group,
//! where there is one, and asks the engine of a container to remove it: a watch stream with a process
//! of its own, and nobody under the directory lock, since engines take their time.
//!
//! Run by root, C has mounts of its own: what the job mounts ends with its last process, and is not
//! there when its files are removed. Whatever is mounted below them all the same (without root a job
//! can have a FUSE file system) is not removed, nor is anything in it.
//!
//! # Files
//!
//! | path | what | what removes it |
//! |---|---|---|
//! | `lock/directory` | the directory lock | nothing |
//! | `lock/UUID.lock` | held as long as anything of the container may run | its supervisor; a report, if nobody holds it |
//! | `spool/UUID/N/` | attempt N: `state` (lines of JSON, the result last), `stdout`, `stderr`, `work/`, `engine` (what a container engine complained of), `variables` (of its container, until that is made) | an acknowledgement |
//! | `blank/PID/`, `blank/PID.lock` | an entry and a lock file that process PID has made ahead | that process, which renames them or removes them; a sweep, if nobody holds the lock |
//! | `mark/UUID` | a symbolic link whose target is the newest attempt that was acknowledged, or killed before it came | age, number (looked for every ten minutes) |
//! | `swept` | empty; written when what is old was last looked for | nothing |
//! | `trash/` | entries that are being removed | the acknowledgement, or one that comes a minute later |
//! | `guard/` | when to power the machine off, when a command last came, the guard's lock | nothing |
//! | `broken` | why the machine should get no more work | the operator |
//!
//! # Locks
//!
//! A lock file has two locked bytes. Byte 0 carries an open-file-description lock, shared through
//! fork by A, B, C and every descendant of the job that keeps the descriptor; byte 1 carries a
//! POSIX lock of A alone. Both can be asked for without being taken, and the answer for byte 1
//! names A's process id, so that no process id is ever believed that was merely written down.
//! A lock file gets its name once, when it is made or, with its lock held, from a blank if no file has
//! that name. It is written in place; who deletes it holds its lock, and who takes the lock checks
//! afterwards that the file still has its name.
//!
//! # What is synchronised to disk, and for which promise
//!
//! | when | what | promise |
//! |---|---|---|
//! | before the gate is opened | the directory `spool/UUID`, in which the entry has just got its name | an attempt that may have run is never run again, also after a power failure |
//! | before a blank is waited with | its `state`, which nobody waits for | none: the result is written faster into room that the disk has given already |
//! | after the end, before the lock is released | `stdout` and `stderr` unless empty; `state` | a result that was reported is not lost |
//! | before an acknowledged entry is removed | the directory `mark` | as the first |
//!
//! A lock file itself is not synchronised: no process and no lock outlives the machine's memory.
//!
//! # Costs
//!
//! A job costs six files or directories beside its lock file, three calls that wait for the disk
//! (one of them, that of the acknowledgement, while nobody waits for it), three forks when it is
//! started over a watch stream (four by a command), and no listing of anything that grows. All files
//! but a directory and two of the forks are made ahead where the stream had the time, with a fourth
//! call that waits for the disk. The job's own process, and the control groups, are made while the
//! disk writes. It is
//! born in its control group, because moving it there afterwards would take the kernel
//! milliseconds, and has one only in the hierarchies that limit something.

mod acknowledge;
mod ahead;
mod arguments;

mod cgroup;
mod directory;
mod engine;
mod gate;
mod guard;
mod job;
mod kill;
mod lock;
mod output;
mod reaper;
mod remains;
mod report;
mod rlimit;
mod scan;
mod spool;
mod start;
mod stream;
mod supervisor;
mod system;
mod tree;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::acknowledge::{sweep, take_turn_to_sweep};
use crate::arguments::Command;
use crate::directory::RunDirectory;

fn main() -> ExitCode {
    system::close_inherited();
    system::reset_signals();
    let command = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(why) => {
            complain(&format!("{why} (see --help)"));
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Help => return say(arguments::HELP),
        Command::Version => return say(concat!("longshore-run ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => {}
    }
    let directory = RunDirectory::open()?;
    guard::contact(&directory);
    let code = run_in(&directory, command);
    // It may have waited for a minute.
    guard::contact(&directory);
    code
}

fn run_in(directory: &RunDirectory, command: Command) -> Result<u8> {
    match command {
        Command::Help | Command::Version => Ok(0),
        Command::Start { uuid, attempt } => start::start(directory, uuid, attempt),
        Command::Kill {
            signal,
            uuid,
            attempt,
        } => kill::kill(directory, uuid, attempt, signal),
        Command::Report(options) => {
            let code = report::report(directory, &options);
            if !options.acks.is_empty()
                && take_turn_to_sweep(directory)
                && let Err(error) = sweep(directory)
            {
                // The report was given all the same.
                complain(&format!("cannot look for what is old: {error:#}"));
            }
            code
        }
        Command::List => report::list(directory),
        Command::Watch { silence } => stream::serve(directory, silence),
        Command::Guard(options) => guard::guard(directory, &options),
        Command::Output {
            stream,
            part,
            uuid,
            attempt,
        } => output::output(directory, uuid, attempt, stream, part),
    }
}

/// Writes to standard output; that is what this program is for.
fn say(text: &str) -> Result<u8> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(0)
}

/// Writes a line to standard error, which may be closed.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "longshore-run: {text}");
}
