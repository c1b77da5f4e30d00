//! Processes, as far as the namespaces of the loop show them: all, with those of every host.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::left::children;
use crate::host;

/// Every process but the init and this one.
pub(crate) fn others() -> Vec<u32> {
    let pid = |path: PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut all: Vec<u32> = children(Path::new("/proc"))
        .into_iter()
        .filter_map(pid)
        .collect();
    all.retain(|&pid| pid != 1 && pid != std::process::id());
    all
}

/// What a process was started with; nothing if it has ended.
pub(crate) fn command_line(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split_terminator('\0').map(str::to_owned).collect()
}

/// The processes that keep the host in a directory alive: its init, and those that made it.
pub(crate) fn keepers(directory: &Path) -> Vec<u32> {
    let wanted = [host::ROLE.to_owned(), directory.display().to_string()];
    let mut found = others();
    found.retain(|&pid| command_line(pid).ends_with(&wanted));
    found
}

/// The init of the host in a directory.
pub(crate) fn init_of(directory: &Path) -> Option<u32> {
    let program = std::env::current_exe().ok()?.display().to_string();
    let mut keepers = keepers(directory).into_iter();
    keepers.find(|&pid| command_line(pid).first() == Some(&program))
}

/// The processes of the SSH server of a host: the one that listens, and one or two for each
/// connection.
pub(crate) fn servers(directory: &Path) -> Vec<u32> {
    let Some(host) = init_of(directory).and_then(namespace) else {
        return Vec::new();
    };
    let mut found = others();
    found.retain(|&pid| name(pid).starts_with("sshd") && namespace(pid).as_ref() == Some(&host));
    found
}

/// Sends a signal to those that still live.
pub(crate) fn signal(pids: &[u32], signal: Signal) {
    for &pid in pids {
        if let Ok(pid) = i32::try_from(pid) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

fn name(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    text.trim_end().to_owned()
}

fn namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}
