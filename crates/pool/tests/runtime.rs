//! Performing effects with a host and a provider that do as they are told, on paused time.
#![cfg(feature = "runtime")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::*;
use longshore_cloud::*;
use longshore_exec::{
    Command, ExecError, Executor, ExitStatus, Identity, Output, OutputSink, OutputStore, Phase,
    Process, Target,
};
use longshore_pool::runtime::*;
use longshore_pool::{
    Effect, EffectAction, EffectId, Host, HostFailure, KillOutcome, Outcome, StartOutcome,
};
use longshore_runner_api::command::{GuardOptions, OutputStream, ReportOptions};
use longshore_types::*;

/// What the host does with a command.
#[derive(Clone, Debug)]
enum Reply {
    Says(&'static str, &'static str, Option<ExitStatus>),
    Bytes(Vec<Vec<u8>>),
    /// A few bytes, and then nothing more.
    Stalls,
    Refuses(Phase, bool),
    Hangs,
    Panics,
}

fn says(stdout: &'static str, code: u32) -> Reply {
    Reply::Says(stdout, "", Some(ExitStatus::Code(code)))
}

/// A host that answers commands in turn, and everything that it was told.
#[derive(Debug, Default)]
struct FakeHost {
    replies: Mutex<Vec<Reply>>,
    lines: Mutex<Vec<String>>,
    stdin: Arc<Mutex<Vec<u8>>>,
    identities: Mutex<Vec<Identity>>,
}

impl FakeHost {
    fn replies(replies: Vec<Reply>) -> Arc<Self> {
        let host = Self::default();
        *host.replies.lock().unwrap() = replies;
        Arc::new(host)
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

#[async_trait]
impl Executor for FakeHost {
    async fn open(
        &self,
        target: &Target,
        command: &Command,
        _: Duration,
    ) -> Result<Box<dyn Process>, ExecError> {
        if command.line.ends_with(" --watch") {
            // Its runner is older than that.
            return Ok(Box::new(FakeProcess {
                outputs: vec![Output::Stderr(b"unknown option".to_vec())],
                stalls: false,
                status: Some(ExitStatus::Code(2)),
                stdin: Arc::default(),
            }));
        }
        self.lines.lock().unwrap().push(command.line.clone());
        self.identities
            .lock()
            .unwrap()
            .push(target.identity.clone());
        let reply = {
            let mut replies = self.replies.lock().unwrap();
            assert!(
                !replies.is_empty(),
                "an unexpected command: {}",
                command.line
            );
            replies.remove(0)
        };
        let stalls = matches!(reply, Reply::Stalls);
        let (stdout, stderr, status) = match reply {
            Reply::Says(stdout, stderr, status) => (
                vec![stdout.as_bytes().to_vec()],
                stderr.as_bytes().to_vec(),
                status,
            ),
            Reply::Bytes(chunks) => (chunks, Vec::new(), Some(ExitStatus::Code(0))),
            Reply::Stalls => (vec![b"a".to_vec()], Vec::new(), None),
            Reply::Refuses(phase, true) => return Err(ExecError::may_have_run(phase, "cut off")),
            Reply::Refuses(phase, false) => return Err(ExecError::not_run(phase, "refused")),
            Reply::Hangs => std::future::pending().await,
            Reply::Panics => panic!("a driver broke"),
        };
        let mut outputs: Vec<Output> = stdout
            .into_iter()
            .filter(|c| !c.is_empty())
            .map(Output::Stdout)
            .collect();
        if !stderr.is_empty() {
            outputs.push(Output::Stderr(stderr));
        }
        outputs.reverse();
        let stdin = self.stdin.clone();
        Ok(Box::new(FakeProcess {
            outputs,
            stalls,
            status,
            stdin,
        }))
    }

    async fn disconnect(&self, _: &InstanceId) {}
}

#[derive(Debug)]
struct FakeProcess {
    outputs: Vec<Output>,
    stalls: bool,
    status: Option<ExitStatus>,
    stdin: Arc<Mutex<Vec<u8>>>,
}

#[async_trait]
impl Process for FakeProcess {
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
        self.stdin.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }
    async fn close_stdin(&mut self) -> Result<(), ExecError> {
        Ok(())
    }
    async fn output(&mut self) -> Result<Option<Output>, ExecError> {
        if self.stalls && self.outputs.is_empty() {
            std::future::pending::<()>().await;
        }
        Ok(self.outputs.pop())
    }
    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        Ok(self.status.clone())
    }
}

/// A provider of which every call fails in the same way, or hangs.
#[derive(Debug)]
struct FakeCloud(Option<ErrorKind>);

impl FakeCloud {
    async fn fail<T>(&self, operation: Operation) -> Result<T, CloudError> {
        match &self.0 {
            Some(kind) => Err(CloudError::new(
                operation,
                "fake",
                kind.clone(),
                "inner words",
            )),
            None => std::future::pending().await,
        }
    }
}

impl fmt::Display for FakeCloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

#[async_trait]
impl InstanceSet for FakeCloud {
    async fn create(&self, _: &CallContext, _: &CreateRequest) -> Result<Instance, CloudError> {
        self.fail(Operation::Create).await
    }
    async fn list(&self, _: &CallContext, _: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.fail(Operation::List).await
    }
    async fn destroy(&self, _: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        let failure = self.fail(Operation::Destroy).await;
        ids.iter().take(1).cloned().zip([failure]).collect()
    }
    async fn set_tags(&self, _: &CallContext, _: &[(InstanceId, Tags)]) -> InstanceResults {
        vec![]
    }
    async fn verify_host_key(
        &self,
        _: &CallContext,
        _: &InstanceId,
        _: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        self.fail(Operation::VerifyHostKey).await
    }
    fn quota_group(&self, _: &InstanceType) -> Option<String> {
        None
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    fn extensions(&self) -> Extensions<'_> {
        Extensions::default()
    }
    async fn stop(&self) {}
}

/// Stream, skipped bytes, and what was kept.
type Kept = (String, u64, Vec<u8>);

/// What a store does that does not just keep everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It knows of no such container.
    Unknown,
    /// It cannot be asked.
    Unread,
    /// Its disk does not answer.
    Hangs,
}

#[derive(Debug, Default)]
struct FakeStore {
    wanted: Option<u64>,
    trouble: Option<Trouble>,
    kept: Arc<Mutex<Vec<Kept>>>,
}

#[derive(Debug)]
struct FakeSink {
    stream: &'static str,
    skipped: u64,
    bytes: Vec<u8>,
    hangs: bool,
    kept: Arc<Mutex<Vec<Kept>>>,
}

#[async_trait]
impl OutputStore for FakeStore {
    async fn wanted(&self, _: ContainerUuid) -> io::Result<Option<u64>> {
        match self.trouble {
            Some(Trouble::Unknown) => Err(io::ErrorKind::NotFound.into()),
            Some(Trouble::Unread) => Err(io::Error::other("busy")),
            _ => Ok(self.wanted),
        }
    }
    async fn begin(
        &self,
        _: ContainerUuid,
        _: Attempt,
        stream: &'static str,
        skipped: u64,
    ) -> io::Result<Box<dyn OutputSink>> {
        let kept = self.kept.clone();
        Ok(Box::new(FakeSink {
            stream,
            skipped,
            bytes: Vec::new(),
            hangs: self.trouble == Some(Trouble::Hangs),
            kept,
        }))
    }
}

#[async_trait]
impl OutputSink for FakeSink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    async fn finish(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.kept
            .lock()
            .unwrap()
            .push((self.stream.to_owned(), self.skipped, bytes));
        Ok(())
    }
}

fn shell(host: Arc<FakeHost>) -> Shell {
    let protocol = Arc::new(LongshoreRun {
        path: "/opt/run".into(),
    });
    Shell::new(Arc::new(FakeCloud(Some(ErrorKind::Other))), host, protocol)
}

fn host(user: &str) -> Host {
    Host {
        instance: "i-1".into(),
        address: "10.0.0.1:22".into(),
        user: user.into(),
        secret: Some("s3".into()),
    }
}

fn effect(id: u64, action: EffectAction) -> Effect {
    Effect {
        id: EffectId(id),
        timeout: seconds(10),
        action,
    }
}

fn start() -> EffectAction {
    EffectAction::Start {
        host: host("admin"),
        uuid: uuid(1),
        attempt: Attempt(2),
        document: Arc::from(&b"{}"[..]),
    }
}

fn kill() -> EffectAction {
    EffectAction::Kill {
        host: host("root"),
        uuid: uuid(1),
        attempt: Attempt(2),
        signal: 15,
    }
}

async fn perform(reply: Reply, action: EffectAction) -> (Outcome, Arc<FakeHost>) {
    let host = FakeHost::replies(vec![reply]);
    let outcome = shell(host.clone()).perform(&effect(1, action)).await;
    (outcome, host)
}

#[tokio::test(start_paused = true)]
async fn a_start_that_leaves_a_doubt_is_unknown() {
    for (reply, expected) in [
        (says("{}\n", 0), "started"),
        (says("", 3), "known"),
        (says("", 1), "not"),
        (says("", 127), "not"),
        (says("", 137), "unknown"),
        (Reply::Says("", "", None), "unknown"),
        (
            Reply::Says("", "", Some(ExitStatus::Signal("KILL".into()))),
            "unknown",
        ),
        (Reply::Refuses(Phase::Connect, false), "not"),
        (Reply::Refuses(Phase::Command, true), "unknown"),
        (Reply::Hangs, "unknown"),
    ] {
        let (outcome, host) = perform(reply.clone(), start()).await;
        let Outcome::Started(outcome) = outcome else {
            panic!("{outcome:?}")
        };
        let got = match outcome {
            StartOutcome::Started => "started",
            StartOutcome::KnownAttempt => "known",
            StartOutcome::NotStarted { .. } => "not",
            StartOutcome::Unknown { .. } => "unknown",
        };
        assert_eq!(got, expected, "{reply:?}");
        let line = format!(
            "exec sudo '/opt/run' --detach --stdin-config --attempt 2 {}",
            uuid(1)
        );
        assert_eq!(host.lines(), [line]);
        if got == "started" {
            assert_eq!(*host.stdin.lock().unwrap(), b"{}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_exit_status_0_of_a_kill_means_gone() {
    for (reply, gone) in [
        (says("", 0), Some(true)),
        (says("", 1), Some(false)),
        (says("", 127), None),
        (Reply::Says("", "", None), None),
        (Reply::Refuses(Phase::Connect, false), None),
        (Reply::Hangs, None),
    ] {
        let (outcome, host) = perform(reply.clone(), kill()).await;
        match gone {
            Some(true) => assert_eq!(outcome, Outcome::Killed(KillOutcome::Gone)),
            Some(false) => assert_eq!(outcome, Outcome::Killed(KillOutcome::StillRuns)),
            None => assert!(
                matches!(outcome, Outcome::Killed(KillOutcome::Unknown { .. })),
                "{reply:?}"
            ),
        }
        assert!(
            host.lines()[0].starts_with("exec '/opt/run' --kill 15"),
            "root needs no sudo"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_ends_in_time_whatever_hangs() {
    let cloud = Arc::new(FakeCloud(None));
    let protocol = Arc::new(LongshoreRun {
        path: "/opt/run".into(),
    });
    let hung = FakeHost::replies(vec![Reply::Hangs]);
    let shell = Shell::new(cloud, hung, protocol);
    let began = tokio::time::Instant::now();
    let request = Box::new(CreateRequest::example());
    let outcome = shell
        .perform(&effect(1, EffectAction::Create(request)))
        .await;
    assert_eq!(began.elapsed(), seconds(10));
    let Outcome::Created(Err(failure)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(failure.may_have_acted);
    let report = EffectAction::Report(host("root"), ReportOptions::default());
    let outcome = shell.perform(&effect(2, report)).await;
    let Outcome::Reported(Err(failure)) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(!failure.unreachable);
}

#[tokio::test]
async fn failures_of_the_provider_keep_their_kind_and_their_words() {
    for (kind, may_have_acted) in [
        (ErrorKind::Other, true),
        (ErrorKind::TimedOut, true),
        (ErrorKind::QuotaExceeded(Scope::Everything), false),
    ] {
        let mut shell = shell(FakeHost::replies(vec![]));
        shell.instance_set = Arc::new(FakeCloud(Some(kind.clone())));
        let outcome = shell
            .perform(&effect(1, EffectAction::List(Tags::new())))
            .await;
        let Outcome::Listed(Err(failure)) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            (failure.kind, failure.may_have_acted),
            (kind, may_have_acted)
        );
        assert!(
            failure.error.ends_with(": inner words"),
            "{}",
            failure.error
        );
        let set = EffectAction::SetTags("i-1".into(), Tags::new());
        let outcome = shell.perform(&effect(2, set)).await;
        assert!(
            matches!(outcome, Outcome::TagsSet(Err(_))),
            "a result that is missing is a failure"
        );
    }
}

#[tokio::test]
async fn a_report_is_believed_whole_or_not_at_all() {
    const WHOLE: &str = "{\"type\":\"report\",\"version\":1}\n{\"type\":\"end\",\"containers\":0,\"digest\":\"d\"}\n";
    const CUT: &str = "{\"type\":\"report\",\"version\":1}\n";
    let options = ReportOptions {
        wait: seconds(5),
        known: "k".into(),
        ..ReportOptions::default()
    };
    for (reply, fine, reachable) in [
        (says(WHOLE, 0), true, true),
        // Its last line shows that it is whole, however the command ends.
        (says(WHOLE, 1), true, true),
        (Reply::Says(WHOLE, "", None), true, true),
        (says(CUT, 0), false, true),
        (Reply::Refuses(Phase::Banner, false), false, false),
        (Reply::Refuses(Phase::Command, true), false, true),
    ] {
        let (outcome, host) = perform(
            reply.clone(),
            EffectAction::Report(host("admin"), options.clone()),
        )
        .await;
        assert_eq!(
            host.lines(),
            ["exec sudo '/opt/run' --report --wait-ms 5000 --known 'k'"]
        );
        match outcome {
            Outcome::Reported(Ok(report)) => assert!(fine && report.digest == "d"),
            Outcome::Reported(Err(failure)) => {
                assert!(!fine && failure.unreachable != reachable, "{reply:?}")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_boot_probe_uses_no_sudo_and_the_host_must_show_who_it_is() {
    let fake = FakeHost::replies(vec![says("degraded\n", 1), says("running\n", 0)]);
    let mut shell = shell(fake.clone());
    shell.boot_probe_command = "systemctl is-system-running".into();
    let outcome = shell
        .perform(&effect(1, EffectAction::Boot(host("admin"))))
        .await;
    let Outcome::Booted(Err(failure)) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(failure.error, "boot probe: exit code 1: degraded");
    let outcome = shell
        .perform(&effect(2, EffectAction::Boot(host("admin"))))
        .await;
    assert_eq!(outcome, Outcome::Booted(Ok(())));
    assert_eq!(
        fake.lines(),
        ["systemctl is-system-running", "systemctl is-system-running"]
    );
    let Identity::Checked {
        secret,
        secret_path,
        verifier,
    } = fake.identities.lock().unwrap()[0].clone()
    else {
        panic!("anybody is believed")
    };
    assert_eq!(
        (secret.as_deref(), secret_path.as_str()),
        (Some("s3"), "/var/run/arvados-instance-secret")
    );
    let key = HostKey {
        algorithm: "x".into(),
        blob: vec![],
    };
    assert_eq!(
        verifier.verify(&"i-1".into(), &key).await,
        HostKeyVerdict::Unsupported
    );
}

#[tokio::test]
async fn without_a_path_no_host_is_asked_for_its_secret() {
    let fake = FakeHost::replies(vec![says("", 0)]);
    let mut shell = shell(fake.clone());
    shell.secret_path = String::new();
    let boot = EffectAction::Boot(host("admin"));
    let outcome = shell.perform(&effect(1, boot)).await;
    assert_eq!(outcome, Outcome::Booted(Ok(())));
    let Identity::Checked { secret, .. } = fake.identities.lock().unwrap()[0].clone() else {
        panic!("anybody is believed")
    };
    assert_eq!(secret, None);
}

fn runner() -> RunnerBinary {
    RunnerBinary {
        content: Arc::from(&b"program"[..]),
        md5: "0123".into(),
        directory: "/tmp/r".into(),
    }
}

#[tokio::test]
async fn the_runner_is_copied_unless_it_is_there_whole_and_safe() {
    let there = says("0123  /tmp/r/crunch-run~0123\n", 0);
    let warned = Reply::Says(
        "0123  /tmp/r/crunch-run~0123\n",
        "odd",
        Some(ExitStatus::Code(0)),
    );
    let md5sum = "md5sum '/tmp/r/crunch-run~0123'";
    for (replies, copied, fine) in [
        (vec![there.clone(), says("", 0)], false, true),
        (vec![there, says("", 1), says("", 0)], true, true),
        (vec![warned, says("", 0)], true, true),
        (vec![says("", 1), says("", 0)], true, true),
        (vec![says("", 1), says("disk full", 1)], true, false),
        (vec![says("", 1), Reply::Says("", "", None)], true, false),
    ] {
        let fake = FakeHost::replies(replies);
        let mut shell = shell(fake.clone());
        shell.runner = Some(runner());
        let outcome = shell
            .perform(&effect(1, EffectAction::Deploy(host("admin"), None)))
            .await;
        assert_eq!(
            matches!(outcome, Outcome::Deployed(Ok(()))),
            fine,
            "{outcome:?}"
        );
        assert_eq!(fake.lines()[0], md5sum);
        assert!(
            fake.lines()[1..]
                .iter()
                .all(|line| line.starts_with("exec sudo sh -c '"))
        );
        assert_eq!(fake.stdin.lock().unwrap().is_empty(), !copied);
    }
    let fake = FakeHost::replies(vec![]);
    let outcome = shell(fake)
        .perform(&effect(1, EffectAction::Deploy(host("admin"), None)))
        .await;
    assert_eq!(outcome, Outcome::Deployed(Ok(())), "nothing to copy");
}

#[tokio::test]
async fn a_machine_without_a_switch_is_used_and_one_that_may_not_have_heard_is_told_again() {
    let guard = || Some(GuardOptions::default());
    for (reply, fine) in [
        (says("", 0), true),
        (
            Reply::Says("", "only root can", Some(ExitStatus::Code(1))),
            true,
        ),
        (Reply::Says("", "", None), false),
        (Reply::Refuses(Phase::Command, true), false),
    ] {
        let fake = FakeHost::replies(vec![reply]);
        let deploy = EffectAction::Deploy(host("admin"), guard());
        let outcome = shell(fake.clone()).perform(&effect(1, deploy)).await;
        assert_eq!(outcome == Outcome::Deployed(Ok(())), fine, "{outcome:?}");
        let line = "exec sudo '/opt/run' --guard 3600 --guard-results 21600";
        assert_eq!(fake.lines(), [line]);
    }
    // Without the runner there is nobody to be told.
    let fake = FakeHost::replies(vec![says("", 1), says("disk full", 1)]);
    let mut shell = shell(fake.clone());
    shell.runner = Some(runner());
    let deploy = EffectAction::Deploy(host("admin"), guard());
    let outcome = shell.perform(&effect(1, deploy)).await;
    assert!(matches!(outcome, Outcome::Deployed(Err(_))), "{outcome:?}");
    assert_eq!(fake.lines().len(), 2);
}

/// The scripts, run by a real shell.
#[test]
fn the_copy_script_does_what_it_should_in_a_real_shell() {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    let folder = std::env::temp_dir().join(format!("longshore-pool-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let directory = folder.join("it's here");
    let sum = |bytes: &[u8]| {
        let path = folder.join("sum");
        std::fs::write(&path, bytes).unwrap();
        let output = Command::new("md5sum").arg(path).output().unwrap().stdout;
        String::from_utf8(output).unwrap()[..32].to_owned()
    };
    let content = b"#!/bin/sh\nexit 0\n";
    let mut binary = RunnerBinary::new(*content, directory.to_str().unwrap());
    assert_eq!(binary.md5, sum(content));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // What the shell would send, taken from a host that lacks the runner, run for real.
    let line = |binary: &RunnerBinary, replies: Vec<Reply>, at: usize| {
        let fake = FakeHost::replies(replies);
        let mut shell = shell(fake.clone());
        shell.runner = Some(binary.clone());
        let deploy = EffectAction::Deploy(host("root"), None);
        runtime.block_on(shell.perform(&effect(1, deploy)));
        fake.lines()[at].clone()
    };
    let run = |line: &str, stdin: &[u8]| {
        use std::io::Write as _;
        let mut child = Command::new("sh")
            .args(["-c", line])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait().unwrap().success()
    };
    let copy = line(&binary, vec![says("", 1), says("", 0)], 1);
    assert!(
        !run(&copy, &content[..5]),
        "a copy that was cut must not get the final name"
    );
    assert!(!std::path::Path::new(&binary.path()).exists());
    assert!(run(&copy, content));
    assert_eq!(std::fs::read(binary.path()).unwrap(), content);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode(&directory), mode(binary.path().as_ref())),
        (0o755, 0o755)
    );
    assert_eq!(
        std::fs::read_dir(&directory).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    let there: &'static str =
        Box::leak(format!("{}  {}\n", binary.md5, binary.path()).into_boxed_str());
    let check = line(&binary, vec![says(there, 0), says("", 0)], 1);
    assert!(run(&check, b""));
    std::fs::set_permissions(binary.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(!run(&check, b""), "anybody could change it");
    // A directory whose parent anybody may write to.
    let open = folder.join("open");
    std::fs::create_dir_all(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    binary.directory = open.join("d").to_str().unwrap().to_owned();
    let copy = line(&binary, vec![says("", 1), says("", 0)], 1);
    assert!(!run(&copy, content));
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(run(&copy, content));
    std::fs::remove_dir_all(&folder).unwrap();
}

fn collect(stream: OutputStream, bytes: u64) -> EffectAction {
    EffectAction::Collect {
        host: host("admin"),
        uuid: uuid(1),
        attempt: Attempt(1),
        stream,
        written: Written { bytes, cut: None },
    }
}

#[tokio::test]
async fn output_comes_home_as_far_as_it_is_wanted() {
    let fake = FakeHost::replies(vec![
        Reply::Bytes(vec![b"abc".to_vec(), b"defg".to_vec()]),
        Reply::Bytes(vec![b"xy and more than was announced".to_vec()]),
    ]);
    let store = FakeStore {
        wanted: Some(5),
        ..FakeStore::default()
    };
    let kept = store.kept.clone();
    let mut shell = shell(fake.clone());
    shell.outputs = Some(Arc::new(store));
    for (stream, bytes) in [(OutputStream::Stdout, 9), (OutputStream::Stderr, 2)] {
        let outcome = shell.perform(&effect(1, collect(stream, bytes))).await;
        assert_eq!(outcome, Outcome::Collected(Ok(())));
    }
    assert_eq!(
        *kept.lock().unwrap(),
        [
            ("stdout".to_owned(), 4, b"abcde".to_vec()),
            ("stderr".to_owned(), 0, b"xy".to_vec())
        ]
    );
    assert_eq!(
        fake.lines()[0],
        format!(
            "exec sudo '/opt/run' --output stdout --last 5 --attempt 1 {}",
            uuid(1)
        )
    );
    assert_eq!(
        fake.lines()[1],
        format!(
            "exec sudo '/opt/run' --output stderr --attempt 1 {}",
            uuid(1)
        )
    );
}

/// How bringing output home fails, and after how long.
async fn failed_collect(reply: Option<Reply>, trouble: Option<Trouble>) -> (HostFailure, u64) {
    let mut shell = shell(FakeHost::replies(reply.into_iter().collect()));
    let store = FakeStore {
        trouble,
        ..FakeStore::default()
    };
    shell.outputs = Some(Arc::new(store));
    let began = tokio::time::Instant::now();
    let mut effect = effect(1, collect(OutputStream::Stdout, 3));
    effect.timeout = seconds(3600);
    match shell.perform(&effect).await {
        Outcome::Collected(Err(failure)) => (failure, began.elapsed().as_secs()),
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn whose_fault_it_is_that_output_does_not_come_home() {
    let cut_off = Reply::Refuses(Phase::Command, true);
    let refused = Reply::Says("", "no such attempt", Some(ExitStatus::Code(1)));
    let whole = Reply::Bytes(vec![b"abc".to_vec()]);
    let (ours, theirs, nobodys) = ((true, false), (false, false), (false, true));
    for (reply, trouble, fault, after) in [
        (Some(refused), None, theirs, 0),
        (Some(cut_off), None, nobodys, 0),
        (Some(Reply::Stalls), None, nobodys, 60),
        (Some(whole), Some(Trouble::Hangs), ours, 60),
        (None, Some(Trouble::Unread), ours, 0),
    ] {
        let (failure, took) = failed_collect(reply, trouble).await;
        let HostFailure {
            ours, unreachable, ..
        } = failure;
        assert_eq!(((ours, unreachable), took), (fault, after), "{failure:?}");
    }
}

#[tokio::test]
async fn output_of_what_the_store_does_not_know_is_left() {
    let mut shell = shell(FakeHost::replies(Vec::new()));
    shell.outputs = Some(Arc::new(FakeStore {
        trouble: Some(Trouble::Unknown),
        ..FakeStore::default()
    }));
    let effect = effect(1, collect(OutputStream::Stdout, 3));
    assert_eq!(shell.perform(&effect).await, Outcome::Collected(Ok(())));
}

#[tokio::test]
async fn output_without_a_good_end_is_not_kept() {
    let fake = FakeHost::replies(vec![Reply::Says("abc", "", None)]);
    let store = FakeStore::default();
    let kept = store.kept.clone();
    let mut shell = shell(fake);
    shell.outputs = Some(Arc::new(store));
    let outcome = shell
        .perform(&effect(1, collect(OutputStream::Stdout, 3)))
        .await;
    assert!(matches!(outcome, Outcome::Collected(Err(_))));
    assert!(kept.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_effect_has_one_outcome_though_its_task_breaks_or_is_abandoned() {
    let fake = FakeHost::replies(vec![Reply::Panics]);
    let mut performer = Performer::new(Arc::new(shell(fake)));
    performer.spawn(effect(7, start()));
    let (id, outcome) = performer.next().await.unwrap();
    assert_eq!(id, EffectId(7));
    assert!(matches!(
        outcome,
        Outcome::Started(StartOutcome::Unknown { .. })
    ));
    assert!(performer.next().await.is_none());

    let fake = FakeHost::replies(vec![Reply::Hangs; 20]);
    let mut shell = shell(fake);
    shell.runner = Some(runner());
    let mut performer = Performer::new(Arc::new(shell));
    for id in 0..20 {
        performer.spawn(effect(id, EffectAction::Deploy(host("root"), None)));
    }
    assert_eq!(performer.len(), 20);
    tokio::task::yield_now().await;
    performer.abort();
    let mut ids = Vec::new();
    while let Some((id, outcome)) = performer.next().await {
        assert!(matches!(outcome, Outcome::Deployed(Err(_))));
        ids.push(id.0);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>());
    assert!(performer.is_empty());
}

#[tokio::test(start_paused = true)]
async fn so_many_of_a_kind_run_at_a_time_and_the_others_follow() {
    let slow = Arc::new(Slow(Mutex::new((0, 0))));
    let mut performer = Performer::new(slow.clone());
    for id in 0..100 {
        performer.spawn(effect(id, EffectAction::Deploy(host("root"), None)));
    }
    let mut count = 0;
    while performer.next().await.is_some() {
        count += 1;
    }
    assert_eq!(count, 100);
    assert_eq!(slow.0.lock().unwrap().1, 64);
}

#[tokio::test(start_paused = true)]
async fn one_machine_with_much_output_does_not_hold_up_that_of_others() {
    let slow = Arc::new(Slow(Mutex::new((0, 0))));
    let mut performer = Performer::new(slow.clone());
    let began = tokio::time::Instant::now();
    for id in 0..100 {
        performer.spawn(effect(id, collect(OutputStream::Stdout, 3)));
    }
    let EffectAction::Collect {
        mut host,
        uuid,
        attempt,
        stream,
        written,
    } = collect(OutputStream::Stdout, 3)
    else {
        unreachable!()
    };
    host.instance = "other".into();
    let others = EffectAction::Collect {
        host,
        uuid,
        attempt,
        stream,
        written,
    };
    performer.spawn(effect(200, others));
    let mut last = EffectId(0);
    while began.elapsed() < SECOND + SECOND / 2 && last != EffectId(200) {
        last = performer.next().await.unwrap().0;
    }
    assert_eq!(last, EffectId(200), "it did not wait for its turn");
    let mut count = 1;
    while performer.next().await.is_some() {
        count += 1;
    }
    assert!(count > 95, "{count}");
    assert_eq!(slow.0.lock().unwrap().1, 3);
}

/// Takes a second for each effect, and counts those under way, and the most of them.
struct Slow(Mutex<(usize, usize)>);

#[async_trait]
impl Perform for Slow {
    async fn perform(&self, effect: &Effect) -> Outcome {
        {
            let mut counts = self.0.lock().unwrap();
            counts.0 += 1;
            counts.1 = counts.1.max(counts.0);
        }
        tokio::time::sleep(SECOND).await;
        self.0.lock().unwrap().0 -= 1;
        effect.action.lost("slow")
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_shows_what_has_passed_and_waits_for_deadlines() {
    let clock = Clock::new();
    let mut watch = SleepWatch::new();
    tokio::time::advance(seconds(5)).await;
    assert_eq!(clock.now(), Instant::ZERO + seconds(5));
    let deadline = Deadline {
        at: Instant::ZERO + seconds(9),
        why: "test",
    };
    clock.sleep_until(Some(deadline)).await;
    assert!(clock.now() >= deadline.at);
    clock
        .sleep_until(Some(Deadline {
            at: Instant::ZERO,
            why: "past",
        }))
        .await;
    assert_eq!(watch.tick(), None);
    tokio::time::advance(seconds(31)).await;
    assert_eq!(watch.tick(), Some(seconds(31)));
    assert_eq!(watch.tick(), None);
}
