//! Namespaces of the loop's own: whatever it makes ends with it, however it ends.
//!
//! The loop runs again inside: as the child of an init that waits for orphans, in a network that
//! is the gateway of all hosts, with mounts that nobody else sees.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, wait};

/// The first argument that makes this program the init of the namespaces.
pub(crate) const INIT: &str = "init";
/// The first argument that says that the program is inside.
pub(crate) const INSIDE: &str = "inside";

/// What is needed, and the package that has it.
const TOOLS: [(&str, &str); 7] = [
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/ssh-keygen", "openssh-client"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/setsid", "util-linux"),
    ("/sbin/ip", "iproute2"),
];

/// Runs this program once more, inside.
pub(crate) fn enter(arguments: &[String]) -> Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "CANNOT RUN, NOTHING WAS TESTED: network namespaces can be made by root only; run it as root"
    );
    for (path, package) in TOOLS {
        ensure!(
            Path::new(path).exists(),
            "CANNOT RUN, NOTHING WAS TESTED: {path} is missing: apt-get install -y {package}"
        );
    }
    // Should this process be killed, so is `unshare`, and with it everything inside.
    let status = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--net",
            "--pid",
        ])
        .args(["--propagation", "private", "--fork", "--kill-child"])
        .arg("--mount-proc")
        .arg(std::env::current_exe()?)
        .arg(INIT)
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .context("CANNOT RUN, NOTHING WAS TESTED: no namespaces can be made")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Waits for the loop and for every orphan until the loop has ended.
pub(crate) fn init(arguments: &[String]) -> Result<ExitCode> {
    let child = Command::new(std::env::current_exe()?)
        .arg(INSIDE)
        .args(arguments)
        .spawn()?;
    let child = i32::try_from(child.id())?;
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child => {
                return Ok(ExitCode::from(u8::try_from(code)?));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                anyhow::bail!("the loop was ended by {signal}");
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
