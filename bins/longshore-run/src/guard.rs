//! `--guard`: powers off a rented machine that nobody looks after any more.
//!
//! A dispatcher that is gone for good cannot give its machines back, and they would cost money for
//! ever. So where a dispatcher has said so, a process of ours stays on the machine and powers it
//! off after an hour (or what was said) in which no command of a dispatcher came and no container
//! ran. It needs no daemon manager: the first command that finds it missing starts it again. One
//! process watches a directory, that which holds the lock.
//!
//! A container that runs, or may run, keeps the machine on, however long it takes: it has a time
//! limit of its own if it needs one. Results that no dispatcher has fetched keep it on for longer
//! (six hours), since running their containers again costs more than waiting, but not for ever: a
//! container whose result is lost with its machine is tried again, a machine that is forgotten is
//! paid for.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use longshore_runner_api::command::GuardOptions;
use longshore_types::ReportedState;
use nix::sys::signal::SigSet;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, geteuid, setsid};
use serde::{Deserialize, Serialize};

use crate::directory::RunDirectory;
use crate::lock::try_take;
use crate::scan::scan;
use crate::system::fork;

/// The longest time between two looks.
const LONGEST_PERIOD: Duration = Duration::from_secs(60);
/// How many looks there are at least before the machine is powered off.
const LOOKS: u32 = 20;
/// How long the directory lock may take.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing can be started on a machine that goes off, at most.
const GOING_OFF: Duration = Duration::from_secs(300);
/// What powers a machine off; the first that works.
const POWER_OFF: &str = "systemctl poweroff || shutdown -h now || poweroff -f || \
                         echo o > /proc/sysrq-trigger";

#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    after_s: u64,
    results_s: u64,
    power_off: Option<String>,
}

/// Puts a guard on the machine, or tells the one that is there what it is to do from now on.
pub(crate) fn guard(directory: &RunDirectory, options: &GuardOptions) -> Result<u8> {
    if options.power_off.is_none() && !geteuid().is_root() {
        bail!("only root can power the machine off; no guard was put on it");
    }
    let settings = Settings {
        after_s: options.after.as_secs(),
        results_s: options
            .after_with_results
            .as_secs()
            .max(options.after.as_secs()),
        power_off: options.power_off.clone(),
    };
    let place = place(directory);
    let written = (|| {
        match DirBuilder::new().mode(0o700).create(&place) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let new = place.join("new");
        std::fs::write(&new, serde_json::to_vec(&settings)?)?;
        std::fs::rename(&new, place.join("settings"))
    })();
    written.with_context(|| format!("cannot write to {}", place.display()))?;
    contact(directory);
    Ok(0)
}

/// A dispatcher is there: to be called by every command of one. Does nothing where no guard was
/// ever asked for.
pub(crate) fn contact(directory: &RunDirectory) {
    if !is_wanted(directory) {
        return;
    }
    // If it cannot be written, on a full disk, the guard still sees what runs.
    let _ = note_contact(directory);
    if let Ok(lock) = open_lock(directory)
        && try_take(&lock).unwrap_or(false)
    {
        drop(lock);
        if let Ok(ForkResult::Child) = fork() {
            let _ = watch(directory);
            std::process::exit(0);
        }
    }
}

/// Whether a dispatcher has asked for a guard.
pub(crate) fn is_wanted(directory: &RunDirectory) -> bool {
    settings(directory).is_some()
}

/// In place and always of one length, so that nobody ever reads a part of it.
fn note_contact(directory: &RunDirectory) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(place(directory).join("contact"))?;
    file.write_all_at(format!("{:020}\n", awake_for().as_millis()).as_bytes(), 0)
}

/// Is the guard, in a process of its own.
fn watch(directory: &RunDirectory) -> Result<()> {
    setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    chdir("/")?;
    // Whoever ends it has to mean it.
    SigSet::all().thread_block()?;
    let lock = open_lock(directory)?;
    if !try_take(&lock)? {
        return Ok(());
    }
    let mut last_busy = awake_for();
    while let Some(settings) = settings(directory) {
        let after = Duration::from_secs(settings.after_s);
        std::thread::sleep((after / LOOKS).clamp(Duration::from_millis(20), LONGEST_PERIOD));
        if is_left_alone(directory, &settings, &mut last_busy) {
            // From here on nothing can be started.
            let Ok(_directory_lock) = directory.lock(LOCK_PATIENCE) else {
                continue;
            };
            if is_left_alone(directory, &settings, &mut last_busy) {
                if power_off(&settings) {
                    // The machine goes off while it is still reached.
                    std::thread::sleep(after.min(GOING_OFF));
                }
                // Should it still be on after that it gets the same time again.
                last_busy = awake_for();
            }
        }
    }
    Ok(())
}

/// Whether nobody has come and nothing has run for as long as the settings say.
fn is_left_alone(directory: &RunDirectory, settings: &Settings, last_busy: &mut Duration) -> bool {
    // What cannot be read may be anything, so also a container.
    let containers = scan(directory).map(|report| report.containers);
    let finished = |state: &ReportedState| matches!(state, ReportedState::Finished(_));
    let contact = std::fs::read_to_string(place(directory).join("contact"));
    // After the contact was read: one that is later was written before the machine started anew.
    let now = awake_for();
    let (is_busy, has_results) = match containers {
        Ok(containers) => (
            containers.iter().any(|c| !finished(&c.state)),
            !containers.is_empty(),
        ),
        Err(_) => (true, true),
    };
    if is_busy {
        *last_busy = now;
    }
    let seconds = if has_results {
        settings.results_s
    } else {
        settings.after_s
    };
    let contact = contact.ok().and_then(|text| text.trim().parse().ok());
    let contact = Duration::from_millis(contact.unwrap_or(0));
    let contact = if contact > now {
        Duration::ZERO
    } else {
        contact
    };
    now.saturating_sub(contact.max(*last_busy)) >= Duration::from_secs(seconds)
}

/// Whether the machine says that it goes off.
fn power_off(settings: &Settings) -> bool {
    let command = settings.power_off.as_deref().unwrap_or(POWER_OFF);
    let status = Command::new("sh")
        .args(["-c", command])
        .env("PATH", crate::job::DEFAULT_PATH)
        .stdin(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn settings(directory: &RunDirectory) -> Option<Settings> {
    let bytes = std::fs::read(place(directory).join("settings")).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn open_lock(directory: &RunDirectory) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(place(directory).join("lock"))
}

fn place(directory: &RunDirectory) -> PathBuf {
    directory.root().join("guard")
}

/// Time since the machine was started, sleep included; nobody sets it.
fn awake_for() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
