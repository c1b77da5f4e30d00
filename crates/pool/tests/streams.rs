//! Watch streams: what a shell does with a runner that offers one, on paused time.
#![cfg(feature = "runtime")]
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a test that panics has failed; the stub is more than this needs"
)]

mod stub {
    include!("../doc/stub.rs");

    pub(crate) fn cloud() -> Arc<dyn InstanceSet> {
        Arc::new(Stub::default())
    }
}

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longshore_exec::{
    Alone, Command, ExecError, Executor, ExitStatus, Output, Phase, Process, Target,
};
use longshore_pool::runtime::{LongshoreRun, Shell};
use longshore_pool::{Effect, EffectAction, EffectId, Host, KillOutcome, Outcome, StartOutcome};
use longshore_runner_api::command::ReportOptions;
use longshore_runner_api::report;
use longshore_runner_api::watch::{
    Ask, FromRunner, MAX_UNANSWERED, RUNNER_SILENCE, Request, Requests,
};
use longshore_types::{Attempt, ContainerUuid, InstanceId, RunnerReport};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};

const TIMEOUT: Duration = Duration::from_secs(30);

fn uuid() -> ContainerUuid {
    "zzzzz-dz642-0123456789abcde".parse().unwrap()
}

/// The runner's end of one stream.
struct Runner {
    heard: UnboundedReceiver<Vec<u8>>,
    says: UnboundedSender<Output>,
    requests: Requests,
}

impl Runner {
    fn say(&self, message: &FromRunner) {
        let text = message.line().into_bytes();
        self.says.send(Output::Stdout(text)).unwrap();
    }

    fn hello(&self) {
        self.say(&FromRunner::Hello {
            protocol: 1,
            runner_version: "1.2.3".into(),
            boot_id: "b".into(),
        });
    }

    fn done(&self, id: u64, code: u32) {
        let said = "words".into();
        self.say(&FromRunner::Done { id, code, said });
    }

    async fn asked(&mut self) -> (Request, Vec<u8>) {
        loop {
            if let Some(request) = self.requests.next().unwrap() {
                return request;
            }
            let bytes = self.heard.recv().await.expect("the stream was closed");
            self.requests.push(&bytes);
        }
    }
}

/// Hosts whose runners are played by the test. Commands other than that for a stream are noted,
/// and end with code 0 and an empty report.
#[derive(Debug)]
struct Far {
    commands: Mutex<Vec<String>>,
    streams: UnboundedSender<(String, Runner)>,
    /// How the command for a stream fails, if it is to.
    refuses: Mutex<Option<Phase>>,
    /// Whether nothing runs beside a stream.
    runs_one: AtomicBool,
    open_streams: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runner")
    }
}

#[async_trait]
impl Executor for Far {
    async fn open(
        &self,
        target: &Target,
        command: &Command,
        _: Duration,
    ) -> Result<Box<dyn Process>, ExecError> {
        if !command.line.ends_with(" --watch") {
            if self.runs_one.load(SeqCst) && self.open_streams.load(SeqCst) > 0 {
                return Err(ExecError::not_run(Phase::Open, Alone));
            }
            self.commands.lock().unwrap().push(command.line.clone());
            let report = report::format(&RunnerReport::default());
            return Ok(Box::new(Ran(vec![Output::Stdout(report.into_bytes())])));
        }
        if let Some(phase) = *self.refuses.lock().unwrap() {
            return Err(ExecError::not_run(phase, "refused"));
        }
        let (hears, heard) = unbounded_channel();
        let (says, said) = unbounded_channel();
        let requests = Requests::default();
        let runner = Runner {
            heard,
            says,
            requests,
        };
        let stream = (target.address.clone(), runner);
        self.streams.send(stream).unwrap();
        self.open_streams.fetch_add(1, SeqCst);
        let open_streams = self.open_streams.clone();
        Ok(Box::new(Channel {
            hears,
            said,
            open_streams,
        }))
    }

    async fn disconnect(&self, _: &InstanceId) {}
}

#[derive(Debug)]
struct Ran(Vec<Output>);

#[async_trait]
impl Process for Ran {
    async fn write_stdin(&mut self, _: &[u8]) -> Result<(), ExecError> {
        Ok(())
    }
    async fn close_stdin(&mut self) -> Result<(), ExecError> {
        Ok(())
    }
    async fn output(&mut self) -> Result<Option<Output>, ExecError> {
        Ok(self.0.pop())
    }
    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        Ok(Some(ExitStatus::Code(0)))
    }
}

#[derive(Debug)]
struct Channel {
    hears: UnboundedSender<Vec<u8>>,
    said: UnboundedReceiver<Output>,
    open_streams: Arc<AtomicUsize>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.open_streams.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl Process for Channel {
    async fn write_stdin(&mut self, bytes: &[u8]) -> Result<(), ExecError> {
        let sent = self.hears.send(bytes.to_vec());
        sent.map_err(|_| ExecError::may_have_run(Phase::Command, "gone"))
    }
    async fn close_stdin(&mut self) -> Result<(), ExecError> {
        Ok(())
    }
    async fn output(&mut self) -> Result<Option<Output>, ExecError> {
        Ok(self.said.recv().await)
    }
    async fn wait(&mut self) -> Result<Option<ExitStatus>, ExecError> {
        Ok(None)
    }
}

/// A shell, and the hosts that it speaks to.
struct Fixture {
    shell: Arc<Shell>,
    far: Arc<Far>,
    streams: UnboundedReceiver<(String, Runner)>,
}

impl Fixture {
    fn new() -> Self {
        let (sender, streams) = unbounded_channel();
        let far = Arc::new(Far {
            commands: Mutex::default(),
            streams: sender,
            refuses: Mutex::default(),
            runs_one: AtomicBool::default(),
            open_streams: Arc::default(),
        });
        let path = "/run".into();
        let protocol = Arc::new(LongshoreRun { path });
        let shell = Arc::new(Shell::new(stub::cloud(), far.clone(), protocol));
        Self {
            shell,
            far,
            streams,
        }
    }

    /// Begins an effect.
    fn perform(&self, action: EffectAction) -> tokio::task::JoinHandle<Outcome> {
        let shell = self.shell.clone();
        let effect = Effect {
            id: EffectId(1),
            timeout: TIMEOUT,
            action,
        };
        tokio::spawn(async move { shell.perform(&effect).await })
    }

    async fn runner(&mut self) -> Runner {
        self.stream().await.1
    }

    /// The next stream that is opened, and to which address; within an hour.
    async fn stream(&mut self) -> (String, Runner) {
        let opened = timeout(Duration::from_secs(3600), self.streams.recv());
        opened.await.expect("no stream is opened").unwrap()
    }

    /// Opens a stream with a report that has nothing in it.
    async fn open(&mut self) -> Runner {
        let report = self.perform(report());
        let mut runner = self.runner().await;
        runner.hello();
        let (request, _) = runner.asked().await;
        assert!(matches!(request.ask, Ask::Report { .. }), "{request:?}");
        let (id, report_of) = (request.id, RunnerReport::default());
        runner.say(&FromRunner::Report {
            id,
            report: report_of,
        });
        let outcome = report.await.unwrap();
        assert_eq!(outcome, Outcome::Reported(Ok(RunnerReport::default())));
        runner
    }

    fn commands(&self) -> Vec<String> {
        std::mem::take(&mut *self.far.commands.lock().unwrap())
    }
}

fn host(address: &str) -> Host {
    Host {
        instance: "i-1".into(),
        address: address.into(),
        user: "root".into(),
        secret: None,
    }
}

fn report() -> EffectAction {
    EffectAction::Report(host("a"), ReportOptions::default())
}

fn start(size: usize) -> EffectAction {
    EffectAction::Start {
        host: host("a"),
        uuid: uuid(),
        attempt: Attempt(2),
        document: vec![b'd'; size].into(),
    }
}

fn kill() -> EffectAction {
    EffectAction::Kill {
        host: host("a"),
        uuid: uuid(),
        attempt: Attempt(2),
        signal: 15,
    }
}

fn is_unknown_start(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Started(StartOutcome::Unknown { .. }))
}

#[tokio::test(start_paused = true)]
async fn everything_goes_over_one_stream() {
    let mut fixture = Fixture::new();
    let mut runner = fixture.open().await;
    for (code, expected) in [
        (0, StartOutcome::Started),
        (3, StartOutcome::KnownAttempt),
        (
            1,
            StartOutcome::NotStarted {
                error: "exit code 1: words".into(),
            },
        ),
        (
            137,
            StartOutcome::Unknown {
                error: "exit code 137: words".into(),
            },
        ),
    ] {
        let started = fixture.perform(start(3));
        let (request, document) = runner.asked().await;
        let (attempt, bytes) = (Attempt(2), 3);
        let uuid = uuid();
        let ask = Ask::Start {
            uuid,
            attempt,
            bytes,
        };
        assert_eq!((request.ask, &document[..]), (ask, &b"ddd"[..]));
        runner.done(request.id, code);
        assert_eq!(started.await.unwrap(), Outcome::Started(expected));
    }
    // Answers come in any order.
    let (one, other) = (fixture.perform(kill()), fixture.perform(report()));
    let requests = [runner.asked().await.0, runner.asked().await.0];
    for request in requests.iter().rev() {
        match request.ask {
            Ask::Kill { .. } => runner.done(request.id, 1),
            _ => runner.say(&FromRunner::Report {
                id: request.id,
                report: RunnerReport::default(),
            }),
        }
    }
    let outcome = Outcome::Killed(KillOutcome::StillRuns);
    assert_eq!(one.await.unwrap(), outcome);
    assert!(matches!(other.await.unwrap(), Outcome::Reported(Ok(_))));
    assert_eq!(fixture.commands(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_large_document_holds_up_nobody() {
    let mut fixture = Fixture::new();
    let runner = fixture.open().await;
    fixture.perform(start((64 << 10) + 1)).await.unwrap();
    assert_eq!(fixture.commands().len(), 1);
    drop(runner);
}

#[tokio::test(start_paused = true)]
async fn a_stream_gives_way_on_a_host_that_runs_one_command_at_a_time() {
    let mut fixture = Fixture::new();
    let mut runner = fixture.open().await;
    fixture.far.runs_one.store(true, SeqCst);
    // A report that waits for news, and a start that the runner is at work on.
    let options = ReportOptions {
        wait: Duration::from_secs(20),
        ..ReportOptions::default()
    };
    let waits = fixture.perform(EffectAction::Report(host("a"), options));
    runner.asked().await;
    let started = fixture.perform(start(3));
    let (request, _) = runner.asked().await;
    let boot = fixture.perform(EffectAction::Boot(host("a")));
    settle().await;
    assert_eq!(fixture.commands(), [""; 0], "the start is not done");
    runner.done(request.id, 0);
    let outcome = Outcome::Started(StartOutcome::Started);
    assert_eq!(started.await.unwrap(), outcome);
    assert_eq!(boot.await.unwrap(), Outcome::Booted(Ok(())));
    assert!(matches!(waits.await.unwrap(), Outcome::Reported(Ok(_))));
    // From then on everything is a command, and none of them waits.
    assert!(matches!(
        fixture.perform(report()).await.unwrap(),
        Outcome::Reported(Ok(_))
    ));
    let commands = fixture.commands();
    assert_eq!(commands.len(), 3, "{commands:?}");
    assert!(
        !commands.iter().any(|line| line.contains("--wait")),
        "{commands:?}"
    );
    assert!(fixture.streams.is_empty());
    // Another machine may have its name.
    let instance = EffectAction::Disconnect("i-1".into());
    assert_eq!(
        fixture.perform(instance).await.unwrap(),
        Outcome::Disconnected
    );
    fixture.open().await;
}

/// Lets everything that can go on go on.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_without_a_stream_is_spoken_to_by_commands() {
    let mut fixture = Fixture::new();
    // It complains, and ends without a hello.
    let first = fixture.perform(report());
    let runner = fixture.runner().await;
    let complaint = Output::Stderr(b"unknown option".to_vec());
    runner.says.send(complaint).unwrap();
    drop(runner);
    assert!(matches!(first.await.unwrap(), Outcome::Reported(Ok(_))));
    for action in [start(1), kill(), report()] {
        fixture.perform(action).await.unwrap();
    }
    let commands = fixture.commands();
    let words = ["--report", "--detach", "--kill", "--report"];
    assert_eq!(commands.len(), words.len(), "{commands:?}");
    for (command, word) in commands.iter().zip(words) {
        assert!(command.contains(word), "{commands:?}");
    }
    // It may have been replaced by a newer one.
    tokio::time::advance(Duration::from_secs(601)).await;
    fixture.open().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_broken_stream_left_unanswered_is_unknown() {
    let mut fixture = Fixture::new();
    let mut runner = fixture.open().await;
    let unanswered = [start(1), kill(), report()].map(|action| fixture.perform(action));
    for _ in &unanswered {
        runner.asked().await;
    }
    drop(runner);
    let [started, killed, reported] = unanswered;
    let started = started.await.unwrap();
    assert!(is_unknown_start(&started), "{started:?}");
    let killed = killed.await.unwrap();
    assert!(matches!(
        killed,
        Outcome::Killed(KillOutcome::Unknown { .. })
    ));
    assert!(matches!(reported.await.unwrap(), Outcome::Reported(Err(_))));
    // Until there is another one, commands do.
    fixture.perform(start(1)).await.unwrap();
    assert_eq!(fixture.commands().len(), 1);
    fixture.open().await;
    assert_eq!(fixture.commands(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn nonsense_and_silence_break_a_stream() {
    for nonsense in [true, false] {
        let mut fixture = Fixture::new();
        let mut runner = fixture.open().await;
        let reported = fixture.perform(report());
        runner.asked().await;
        let began = Instant::now();
        if nonsense {
            let text = Output::Stdout(b"sing me a song\n".to_vec());
            runner.says.send(text).unwrap();
        } else {
            // As long as it says something it is believed to be there.
            tokio::time::sleep(RUNNER_SILENCE / 2).await;
            runner.say(&FromRunner::Heartbeat);
        }
        let outcome = reported.await.unwrap();
        assert!(matches!(outcome, Outcome::Reported(Err(_))), "{outcome:?}");
        if !nonsense {
            // The report's own time was up before that.
            assert_eq!(began.elapsed(), TIMEOUT);
            let pinged = runner.asked().await.0;
            assert_eq!(pinged.ask, Ask::Ping);
            assert!(runner.heard.recv().await.is_none());
            let silent = began + RUNNER_SILENCE / 2 + RUNNER_SILENCE;
            assert_eq!(Instant::now(), silent);
        }
        fixture.open().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_answers_pings_alone_is_spoken_to_by_commands() {
    let mut fixture = Fixture::new();
    let mut runner = fixture.open().await;
    let asked = |fixture: &Fixture| -> Vec<_> {
        (0..MAX_UNANSWERED + 40)
            .map(|_| fixture.perform(kill()))
            .collect()
    };
    let mut first = asked(&fixture);
    // It is there, and does nothing.
    while !runner.says.is_closed() {
        runner.say(&FromRunner::Heartbeat);
        tokio::time::sleep(RUNNER_SILENCE / 4).await;
    }
    for one in first.drain(..) {
        let outcome = one.await.unwrap();
        let unknown = matches!(outcome, Outcome::Killed(KillOutcome::Unknown { .. }));
        assert!(
            unknown || outcome == Outcome::Killed(KillOutcome::Gone),
            "{outcome:?}"
        );
    }
    tokio::time::sleep(TIMEOUT).await;
    let mut heard = 0;
    while let Some(bytes) = runner.heard.recv().await {
        runner.requests.push(&bytes);
        while let Some((request, _)) = runner.requests.next().unwrap() {
            heard += usize::from(matches!(request.ask, Ask::Kill { .. }));
        }
    }
    assert_eq!(heard, MAX_UNANSWERED, "nothing is asked after its time");
    fixture.commands();
    fixture.perform(kill()).await.unwrap();
    assert_eq!(fixture.commands().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_be_reached_is_no_runner_without_a_stream() {
    let mut fixture = Fixture::new();
    *fixture.far.refuses.lock().unwrap() = Some(Phase::Connect);
    let outcome = fixture.perform(report()).await.unwrap();
    let Outcome::Reported(Err(failure)) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(failure.unreachable);
    *fixture.far.refuses.lock().unwrap() = None;
    // Nor is one that was given up in the middle.
    let given_up = fixture.perform(report());
    let runner = fixture.runner().await;
    given_up.abort();
    assert!(given_up.await.is_err());
    drop(runner);
    fixture.open().await;
    assert_eq!(fixture.commands(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_instance_and_with_its_address() {
    let mut fixture = Fixture::new();
    let mut runner = fixture.open().await;
    let began = Instant::now();
    let gone = EffectAction::Disconnect("i-1".into());
    fixture.perform(gone).await.unwrap();
    assert!(runner.heard.recv().await.is_none());

    let mut runner = fixture.open().await;
    let moved = EffectAction::Report(host("b"), ReportOptions::default());
    let report = fixture.perform(moved);
    let (address, other) = fixture.stream().await;
    other.hello();
    assert_eq!(address, "b");
    assert!(runner.heard.recv().await.is_none());
    // At once, not for being silent.
    assert_eq!(Instant::now(), began);
    report.abort();
}
