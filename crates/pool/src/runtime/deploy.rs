//! Putting the runner on an instance.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use longshore_exec::ExitStatus;
use longshore_runner_api::command::{GuardOptions, quote};
use md5::{Digest, Md5};

use super::shell::{Shell, describe, host_failure};
use crate::effect::{Host, HostFailure};

const MAX_ANSWER: usize = 4096;

/// The runner that is put on instances.
///
/// As a rule it is `longshore-run`, which is built in Longshore's own repository. Instances may have
/// another libc than the machine that builds it, so link it statically:
///
/// ```text
/// RUSTFLAGS='-C target-feature=+crt-static' \
///     cargo build --release --target x86_64-unknown-linux-gnu -p longshore-run
/// ```
///
/// Any other program will do whose language a [`RunnerProtocol`](super::RunnerProtocol) speaks.
///
/// ```
/// use longshore_pool::runtime::RunnerBinary;
/// // In a service: `std::fs::read("longshore-run")?`, or `include_bytes!`.
/// let program = b"#!/bin/sh\n".to_vec();
/// let runner = RunnerBinary::new(program, "/var/lib/my-service");
/// assert_eq!(runner.md5, "3e2b31c72181b87149ff995e7202c0e3");
/// assert!(runner.path().starts_with("/var/lib/my-service/"));
/// ```
#[derive(Clone, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by callers; a new field must not be forgotten"
)]
pub struct RunnerBinary {
    /// The program.
    pub content: Arc<[u8]>,
    /// The MD5 digest of the program: 32 lower-case hex digits.
    pub md5: String,
    /// Absolute path of the directory on the instance.
    pub directory: String,
}

impl RunnerBinary {
    /// This program, in this directory (an absolute path) on each instance. Computes its digest.
    pub fn new(content: impl Into<Arc<[u8]>>, directory: impl Into<String>) -> Self {
        let content = content.into();
        let mut md5 = String::with_capacity(32);
        for byte in Md5::digest(&content) {
            // Writing to a string cannot fail.
            let _ = write!(md5, "{byte:02x}");
        }
        let directory = directory.into();
        Self {
            content,
            md5,
            directory,
        }
    }

    /// Where the program is put.
    pub fn path(&self) -> String {
        format!("{}/crunch-run~{}", self.directory, self.md5)
    }

    /// Succeeds if nobody but the current user can change the program.
    fn check_script(&self) -> String {
        let (directory, path) = (quote(&self.directory), quote(&self.path()));
        format!(
            "d={directory}; p={path}; \
             [ ! -L \"$d\" ] && [ -O \"$d\" ] && [ ! -L \"$p\" ] && [ -O \"$p\" ] && [ -x \"$p\" ] && \
             [ -z \"$(find \"$d\" \"$p\" -prune -perm /022)\" ]"
        )
    }

    /// Puts standard input there: beside the final name, with its mode before its content, and
    /// renamed only when it is whole, and on the disk: an empty file would be an empty script,
    /// which succeeds.
    fn write_script(&self) -> String {
        let (directory, path) = (quote(&self.directory), quote(&self.path()));
        let md5 = quote(&self.md5);
        format!(
            "set -e; umask 022; d={directory}; p={path}; t=\"$p.$$\"; \
             refuse() {{ echo \"$1\" >&2; exit 1; }}; \
             mkdir -p \"$d\"; \
             [ -z \"$(find \"$(dirname \"$d\")\" -prune -perm -0002 ! -perm -1000)\" ] || \
             refuse \"anybody can replace $d\"; \
             [ ! -L \"$d\" ] && [ -O \"$d\" ] || refuse \"$d belongs to somebody else\"; \
             chmod 0755 \"$d\"; rm -f \"$t\"; trap 'rm -f \"$t\"' EXIT; \
             : > \"$t\"; chmod 0755 \"$t\"; cat > \"$t\"; \
             [ \"$(md5sum < \"$t\" | cut -d' ' -f1)\" = {md5} ] || refuse \"the copy is not whole\"; \
             sync \"$t\" 2>/dev/null || sync; mv -f \"$t\" \"$p\""
        )
    }
}

impl Shell {
    /// Puts the runner on a host unless it is there, and has it keep the dead-man switch, if one is
    /// given and the runner knows of such a thing.
    pub(super) async fn prepare(
        &self,
        host: &Host,
        guard: Option<&GuardOptions>,
        timeout: Duration,
    ) -> Result<(), HostFailure> {
        self.deploy(host, timeout).await?;
        match guard.and_then(|guard| self.protocol.guard(guard)) {
            Some(line) => self.guard(host, &line, timeout).await,
            None => Ok(()),
        }
    }

    /// A runner that says that it cannot, as where it is not root, has its say: the machine is
    /// used all the same, and a warning tells that nothing will power it off. Where nobody knows
    /// whether it has heard of it, it is asked again.
    async fn guard(&self, host: &Host, line: &str, timeout: Duration) -> Result<(), HostFailure> {
        let answer = self.sudo(host, line, &[], timeout, MAX_ANSWER).await;
        let answer = answer.map_err(|error| host_failure(&error))?;
        let error = format!("no dead-man switch: {}", describe(&answer));
        match answer.status {
            Some(ExitStatus::Code(0)) => Ok(()),
            Some(ExitStatus::Code(_)) => {
                tracing::warn!(instance = %host.instance, "{error}");
                Ok(())
            }
            _ => Err(HostFailure::answered(error)),
        }
    }

    /// Puts the runner on a host unless it is there, whole and safe.
    async fn deploy(&self, host: &Host, timeout: Duration) -> Result<(), HostFailure> {
        let Some(runner) = &self.runner else {
            return Ok(());
        };
        if self.is_deployed(host, runner, timeout).await? {
            return Ok(());
        }
        let line = format!("sh -c {}", quote(&runner.write_script()));
        let answer = self
            .sudo(host, &line, &runner.content, timeout, MAX_ANSWER)
            .await;
        let answer = answer.map_err(|error| host_failure(&error))?;
        if answer.succeeded() {
            return Ok(());
        }
        let error = format!("the runner could not be copied: {}", describe(&answer));
        Err(HostFailure::answered(error))
    }

    async fn is_deployed(
        &self,
        host: &Host,
        runner: &RunnerBinary,
        timeout: Duration,
    ) -> Result<bool, HostFailure> {
        let path = runner.path();
        let line = format!("md5sum {}", quote(&path));
        let answer = self.run(host, &line, &[], timeout, MAX_ANSWER).await;
        let answer = answer.map_err(|error| host_failure(&error))?;
        let expected = format!("{}  {path}\n", runner.md5);
        if answer.stdout != expected.as_bytes() || !answer.stderr.is_empty() {
            return Ok(false);
        }
        let line = format!("sh -c {}", quote(&runner.check_script()));
        let answer = self.sudo(host, &line, &[], timeout, MAX_ANSWER).await;
        let answer = answer.map_err(|error| host_failure(&error))?;
        Ok(answer.succeeded())
    }
}
