//! The first process of a host: makes what the host has of its own, keeps a real SSH server
//! running, and waits for orphans.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The first argument that makes this program the init of a host.
pub(crate) const ROLE: &str = "host";
/// As long as this file is there, the SSH server is not started again.
pub(crate) const SSHD_DOWN: &str = "sshd-down";
/// The disk, seen from outside: what the runner keeps.
pub(crate) const DISK: &str = "disk";

/// How often the init looks around.
const LOOK: Duration = Duration::from_millis(50);

/// Run in namespaces of the host's own. No control groups: those of the machine would survive the
/// host.
const MOUNTS: &str = r#"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -m 700 /var/lib/longshore-run
mount --bind "$1/disk" /var/lib/longshore-run
mount -t tmpfs -o ro tmpfs /sys/fs/cgroup
mount --bind "$1/passwd" /etc/passwd
ip link set lo up
"#;

/// Runs as the init of the host in a directory, for ever.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let [directory] = arguments else {
        anyhow::bail!("{ROLE} DIRECTORY");
    };
    let directory = Path::new(directory);
    let name = directory.file_name().context("it has no name")?;
    std::fs::write("/proc/sys/kernel/hostname", name.as_encoded_bytes())?;
    script(&["-ec", MOUNTS, "mounts"], directory)?;
    let first_boot = directory.join("init.sh");
    script(&[&first_boot.to_string_lossy()], directory)?;
    let mut server = None;
    loop {
        // A host that was destroyed while it was being made.
        ensure!(
            directory.join("record.json").exists(),
            "there is no such host"
        );
        if server.is_none() && !directory.join(SSHD_DOWN).exists() {
            server = Some(start_server(directory)?);
        }
        let ended = reap()?;
        let lost = |child: &Child| ended.contains(&child.id());
        if server.as_ref().is_some_and(lost) {
            server = None;
        }
        std::thread::sleep(LOOK);
    }
}

fn script(arguments: &[&str], directory: &Path) -> Result<()> {
    let status = Command::new("sh").args(arguments).arg(directory).status()?;
    ensure!(status.success(), "{arguments:?}: {status}");
    Ok(())
}

fn start_server(directory: &Path) -> Result<Child> {
    let file = |name: &str| -> PathBuf { directory.join(name) };
    let child = Command::new("/usr/sbin/sshd")
        .arg("-D")
        .arg("-f")
        .arg(file("sshd_config"))
        .arg("-E")
        .arg(file("sshd.log"))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .stdin(Stdio::null())
        .spawn()?;
    Ok(child)
}

/// Every child that has ended.
fn reap() -> Result<Vec<u32>> {
    let mut ended = Vec::new();
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(status) => {
                let pid = status.pid().map(|pid| u32::try_from(pid.as_raw()));
                ended.extend(pid.transpose()?);
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
