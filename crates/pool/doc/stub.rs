use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longshore_cloud::*;
use longshore_exec::{
    Collected, Command, ExecError, Executor, ExitStatus, HostKey, HostKeyVerdict, Output, Process,
    Target,
};
use longshore_pool::runtime::RunnerProtocol;
use longshore_pool::{KillOutcome, StartOutcome};
use longshore_runner_api::command::{OutputStream, ReportOptions};
use longshore_types::*;

/// A cloud whose instances are entries of a table.
#[derive(Debug, Default)]
struct Stub(Mutex<Vec<Instance>>);

impl fmt::Display for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stub")
    }
}

#[async_trait]
impl InstanceSet for Stub {
    async fn create(&self, _: &CallContext, r: &CreateRequest) -> Result<Instance, CloudError> {
        let mut table = self.0.lock().unwrap();
        let id = format!("i-{}", r.token);
        let mut made = Instance::new(id, "stub", InstanceState::Running, r.tags.clone());
        made.address = Some("stub.example:22".into());
        table.push(made.clone());
        Ok(made)
    }

    async fn list(&self, _: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        let table = self.0.lock().unwrap();
        Ok(table.iter().filter(|i| i.has_tags(tags)).cloned().collect())
    }

    async fn destroy(
        &self,
        _: &CallContext,
        ids: &[InstanceId],
    ) -> InstanceResults {
        self.0.lock().unwrap().retain(|i| !ids.contains(&i.id));
        ids.iter().map(|id| (id.clone(), Ok(()))).collect()
    }

    async fn set_tags(
        &self,
        _: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults {
        changes.iter().map(|(id, _)| (id.clone(), Ok(()))).collect()
    }

    async fn verify_host_key(
        &self,
        _: &CallContext,
        _: &InstanceId,
        _: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        Ok(HostKeyVerdict::Unsupported)
    }

    fn quota_group(&self, _: &InstanceType) -> Option<String> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with_consistent_listing().with_tags_at_birth()
    }

    fn extensions(&self) -> Extensions<'_> {
        Extensions::default()
    }

    async fn stop(&self) {}
}

/// Hosts that carry a payload out while it is started: its exit code is its length.
#[derive(Clone, Debug, Default)]
struct Hosts(Arc<Mutex<BTreeMap<String, usize>>>);

/// One command on such a host.
#[derive(Debug)]
struct Ran {
    hosts: Hosts,
    line: String,
    stdin: usize,
    read: bool,
}

#[async_trait]
impl Executor for Hosts {
    async fn open(
        &self,
        _: &Target,
        command: &Command,
        _: Duration,
    ) -> Result<Box<dyn Process>, ExecError> {
        let (hosts, line) = (self.clone(), command.line.clone());
        Ok(Box::new(Ran { hosts, line, stdin: 0, read: false }))
    }

    async fn disconnect(&self, _: &InstanceId) {}
}

#[async_trait]
impl Process for Ran {
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
        self.stdin += bytes.len();
        Ok(())
    }

    async fn close_stdin(&mut self) -> Result<(), ExecError> {
        let mut results = self.hosts.0.lock().unwrap();
        if let Some(payload) = self.line.strip_prefix("exec start ") {
            results.insert(payload.to_owned(), self.stdin);
        }
        for done in self.line.split(" forget ").skip(1) {
            results.remove(done);
        }
        Ok(())
    }

    async fn output(&mut self) -> Result<Option<Output>, ExecError> {
        if !self.line.starts_with("exec report") || std::mem::replace(&mut self.read, true) {
            return Ok(None);
        }
        let results = self.hosts.0.lock().unwrap();
        let lines = results.iter().map(|(payload, code)| format!("{payload} {code}\n"));
        let text: String = lines.collect();
        Ok(Some(Output::Stdout(text.into_bytes())).filter(|_| !results.is_empty()))
    }

    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        Ok(Some(ExitStatus::Code(0)))
    }
}

/// The language of those hosts: what is said, and what the answers mean.
#[derive(Debug)]
struct Plain;

impl RunnerProtocol for Plain {
    fn start(&self, uuid: ContainerUuid, attempt: Attempt) -> String {
        format!("start {uuid} {attempt}")
    }

    fn started(&self, answer: &Collected) -> StartOutcome {
        match &answer.status {
            Some(ExitStatus::Code(0)) => StartOutcome::Started,
            Some(status) => StartOutcome::NotStarted { error: status.to_string() },
            None => StartOutcome::Unknown { error: "no exit status".into() },
        }
    }

    fn kill(&self, uuid: ContainerUuid, attempt: Attempt, _: u8) -> String {
        format!("kill {uuid} {attempt}")
    }

    fn killed(&self, answer: &Collected) -> KillOutcome {
        match answer.succeeded() {
            true => KillOutcome::Gone,
            false => KillOutcome::Unknown { error: "it was not said".into() },
        }
    }

    fn report(&self, options: &ReportOptions) -> String {
        let forget = options.acks.iter().map(|(uuid, attempt)| format!(" forget {uuid} {attempt}"));
        format!("report{}", forget.collect::<String>())
    }

    fn complete_report(&self, _: &[u8]) -> Option<RunnerReport> {
        None
    }

    fn reported(&self, answer: &Collected) -> Result<RunnerReport, String> {
        let text = String::from_utf8_lossy(&answer.stdout);
        let mut report = RunnerReport::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [uuid, attempt, code] = words[..] else {
                return Err(format!("{line:?} is no line of a report"));
            };
            let code = code.parse().map_err(|_| "no exit code")?;
            report.containers.push(ContainerReport {
                uuid: uuid.parse().map_err(|_| "no UUID")?,
                attempt: Attempt(attempt.parse().map_err(|_| "no attempt")?),
                state: ReportedState::Finished(Exit::unseen(ExitCause::Exited { code })),
            });
        }
        Ok(report)
    }

    fn output(&self, _: ContainerUuid, _: Attempt, _: OutputStream, _: Option<u64>) -> String {
        "true".into()
    }
}
