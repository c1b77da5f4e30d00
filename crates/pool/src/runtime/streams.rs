//! Watch streams: one to each instance whose runner offers it, in place of a command for each
//! thing that is asked of it.
//!
//! A stream is opened by the first report that is asked for, and anew by the next one after it
//! broke. Whatever finds no stream is done by a command; so is a start whose document is large.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longshore_exec::{Command, ExecError, Executor, Output, Process, Target};
use longshore_runner_api::watch::{
    Answers, Ask, FromRunner, MAX_UNANSWERED, PING_INTERVAL, RUNNER_SILENCE, Request,
};
use longshore_types::InstanceId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::text::one_line;

/// The largest start document that is sent over a stream, in bytes: what is sent must not make
/// everything else wait.
pub(super) const MAX_DOCUMENT: usize = 64 << 10;
/// How long a runner may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// How long a runner that does not offer a stream is not asked again.
const WITHOUT_FOR: Duration = Duration::from_secs(600);
/// The most bytes of what a runner complains of that are kept.
const MAX_COMPLAINT: usize = 1024;

/// The streams of all instances.
#[derive(Clone, Default)]
pub(super) struct Streams {
    known: Arc<Mutex<BTreeMap<InstanceId, Known>>>,
}

enum Known {
    /// Somebody is about to open it.
    Opening,
    Open(Stream),
    /// Its runner has none; not asked again before this time.
    Without(Instant),
    /// Its host lets one command run at a time: a stream would keep all others from their turn.
    Alone,
}

/// A way to ask one runner.
#[derive(Clone)]
pub(super) struct Stream {
    questions: mpsc::Sender<Question>,
    /// Tells it to end as soon as it may.
    leave: watch::Sender<bool>,
    /// Where it leads to.
    address: String,
    user: String,
}

struct Question {
    ask: Ask,
    document: Vec<u8>,
    answer: oneshot::Sender<FromRunner>,
}

/// Why a request has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It was not sent: nothing was done.
    NotSent,
    /// It may have been carried out.
    Unknown,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").finish_non_exhaustive()
    }
}

impl Streams {
    /// The open stream to a host, if there is one.
    pub(super) fn get(&self, target: &Target) -> Option<Stream> {
        match self.lock().get(&target.instance) {
            Some(Known::Open(stream)) if stream.leads_to(target) => Some(stream.clone()),
            _ => None,
        }
    }

    /// The stream to a host, opened with `line` if there is none; none also if the runner has none
    /// to offer. Takes at most `patience`.
    ///
    /// # Errors
    ///
    /// What kept the command from being started.
    pub(super) async fn open(
        &self,
        executor: &dyn Executor,
        target: &Target,
        line: String,
        patience: Duration,
    ) -> Result<Option<Stream>, ExecError> {
        {
            let mut known = self.lock();
            match known.get(&target.instance) {
                Some(Known::Open(stream)) if stream.leads_to(target) => {
                    return Ok(Some(stream.clone()));
                }
                Some(Known::Opening | Known::Alone) => return Ok(None),
                Some(Known::Without(until)) if Instant::now() < *until => return Ok(None),
                _ => {}
            }
            known.insert(target.instance.clone(), Known::Opening);
        }
        let mut opening = OpeningGuard {
            streams: self,
            instance: &target.instance,
            outcome: None,
        };
        let greeted = timeout(patience, greet(executor, target, line)).await;
        match greeted {
            Ok(Ok(Some((process, answers)))) => {
                let (questions, inbox) = mpsc::channel(MAX_UNANSWERED);
                let (leave, leaving) = watch::channel(false);
                let stream = Stream {
                    questions,
                    leave,
                    address: target.address.clone(),
                    user: target.user.clone(),
                };
                let instance = target.instance.clone();
                tokio::spawn(converse(instance, process, answers, inbox, leaving));
                opening.outcome = Some(Known::Open(stream.clone()));
                Ok(Some(stream))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(None),
            Ok(Ok(None)) => {
                opening.outcome = Some(Known::Without(Instant::now() + WITHOUT_FOR));
                Ok(None)
            }
        }
    }

    /// Closes the stream to an instance, and forgets what is known of its runner.
    pub(super) fn forget(&self, instance: &InstanceId) {
        self.lock().remove(instance);
    }

    /// Ends the stream to a host that lets one command run at a time, so that others have their
    /// turn. There is no other until the instance is forgotten. Returns once it has ended.
    pub(super) async fn give_way(&self, instance: &InstanceId) {
        let before = self.lock().insert(instance.clone(), Known::Alone);
        if !matches!(before, Some(Known::Alone)) {
            tracing::warn!(
                %instance,
                "its SSH server allows one session at a time (MaxSessions 1), so it has no watch \
                 stream, and is asked at intervals: starts and ends are seen later there"
            );
        }
        if let Some(Known::Open(stream)) = before {
            stream.leave.send_replace(true);
            stream.leave.closed().await;
        }
    }

    /// Whether a host lets one command run at a time.
    pub(super) fn is_alone(&self, instance: &InstanceId) -> bool {
        matches!(self.lock().get(instance), Some(Known::Alone))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts down what has become of an attempt to open a stream, also if it is given up midway.
struct OpeningGuard<'a> {
    streams: &'a Streams,
    instance: &'a InstanceId,
    outcome: Option<Known>,
}

impl Drop for OpeningGuard<'_> {
    fn drop(&mut self) {
        let mut known = self.streams.lock();
        // Unless it was forgotten meanwhile.
        if let Some(Known::Opening) = known.get(self.instance) {
            match self.outcome.take() {
                Some(outcome) => known.insert(self.instance.clone(), outcome),
                None => known.remove(self.instance),
            };
        }
    }
}

impl Stream {
    fn leads_to(&self, target: &Target) -> bool {
        self.address == target.address && self.user == target.user && !self.questions.is_closed()
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, ask: Ask, document: Vec<u8>) -> Result<FromRunner, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            ask,
            document,
            answer,
        };
        // Where so many are waiting a command does no harm.
        let sent = self.questions.try_send(question);
        sent.map_err(|_| NoAnswer::NotSent)?;
        answered.await.map_err(|_| NoAnswer::Unknown)
    }
}

/// Starts the command and waits for its hello; none if it ends, or says something else.
async fn greet(
    executor: &dyn Executor,
    target: &Target,
    line: String,
) -> Result<Option<(Box<dyn Process>, Answers)>, ExecError> {
    let command = Command::new(line);
    // It stays open for as long as the instance is there.
    let mut process = executor.open(target, &command, Duration::MAX).await?;
    let mut answers = Answers::default();
    let hello = timeout(HELLO_PATIENCE, async {
        while let Ok(Some(output)) = process.output().await {
            let Output::Stdout(bytes) = output else {
                continue;
            };
            answers.push(&bytes);
            match answers.next() {
                Ok(None) => {}
                Ok(Some(FromRunner::Hello {
                    protocol,
                    runner_version,
                    ..
                })) => return Some((protocol, runner_version)),
                Ok(Some(_)) | Err(_) => return None,
            }
        }
        None
    });
    let instance = &target.instance;
    match hello.await.ok().flatten() {
        Some((protocol, version)) => {
            tracing::debug!(%instance, protocol, version, "the watch stream is open");
            Ok(Some((process, answers)))
        }
        None => {
            tracing::debug!(%instance, "the runner offers no watch stream");
            Ok(None)
        }
    }
}

/// Carries questions and answers until the stream breaks or nobody can ask any more.
async fn converse(
    instance: InstanceId,
    process: Box<dyn Process>,
    answers: Answers,
    questions: mpsc::Receiver<Question>,
    // Whoever waits for the end of it waits for that of the process, which goes before this.
    mut leaving: watch::Receiver<bool>,
) {
    let mut conversation = Conversation {
        process,
        answers,
        unanswered: BTreeMap::new(),
        next: 0,
        complaint: Vec::new(),
        silent_at: Instant::now() + RUNNER_SILENCE,
        ping_at: Instant::now() + PING_INTERVAL,
    };
    let why = conversation.run(questions, &mut leaving).await;
    // Those that wait for an answer, and those that come too late, learn of it by this.
    let complaint = String::from_utf8_lossy(&conversation.complaint);
    let complaint = one_line(complaint.trim());
    tracing::debug!(%instance, why, complaint, "the watch stream has ended");
}

struct Conversation {
    process: Box<dyn Process>,
    answers: Answers,
    unanswered: BTreeMap<u64, Asker>,
    next: u64,
    /// The first bytes of what the runner complained of.
    complaint: Vec<u8>,
    silent_at: Instant,
    ping_at: Instant,
}

/// Waits until it is told so; false if nobody can tell it any more.
async fn told_to_leave(leaving: &mut watch::Receiver<bool>) -> bool {
    leaving.wait_for(|leave| *leave).await.is_ok()
}

/// Who waits for an answer.
struct Asker {
    answer: oneshot::Sender<FromRunner>,
    /// Whether nothing is lost without the answer.
    only_looks: bool,
}

impl Asker {
    fn must_hear(&self) -> bool {
        !self.only_looks && !self.answer.is_closed()
    }
}

impl Conversation {
    /// Why it has ended. Told to leave it takes no more questions, and ends once it has answered
    /// those that have an effect.
    async fn run(
        &mut self,
        mut questions: mpsc::Receiver<Question>,
        leaving: &mut watch::Receiver<bool>,
    ) -> String {
        let mut is_leaving = false;
        loop {
            if let Err(why) = self.is_answered() {
                return why;
            }
            let is_last = is_leaving && questions.is_empty();
            if is_last && !self.unanswered.values().any(Asker::must_hear) {
                return "it gives way to commands".into();
            }
            let may_ask = !is_last && self.unanswered.len() < MAX_UNANSWERED;
            let done = tokio::select! {
                true = told_to_leave(leaving), if !is_leaving => {
                    is_leaving = true;
                    questions.close();
                    Ok(())
                }
                question = questions.recv(), if may_ask => match question {
                    None => return "nobody asks any more".into(),
                    // Whoever asked has lost patience: it must not be done later.
                    Some(question) if question.answer.is_closed() => Ok(()),
                    Some(question) => self.ask(question.ask, &question.document, question.answer).await,
                },
                output = self.process.output() => self.hear(output),
                () = sleep_until(self.silent_at) => {
                    Err(format!("the runner was silent for {RUNNER_SILENCE:?}"))
                }
                () = sleep_until(self.ping_at) => {
                    let (nobody, _) = oneshot::channel();
                    self.ask(Ask::Ping, &[], nobody).await
                }
            };
            if let Err(why) = done {
                return why;
            }
        }
    }

    /// An error if nothing more can be asked, and that because nobody waits for most of the
    /// answers any more: commands may fare better.
    fn is_answered(&self) -> Result<(), String> {
        if self.unanswered.len() < MAX_UNANSWERED {
            return Ok(());
        }
        let late = self.unanswered.values();
        let late = late.filter(|asker| asker.answer.is_closed());
        match late.count() {
            late if late > MAX_UNANSWERED / 2 => {
                Err(format!("the runner has not answered {late} requests"))
            }
            _ => Ok(()),
        }
    }

    async fn ask(
        &mut self,
        ask: Ask,
        document: &[u8],
        answer: oneshot::Sender<FromRunner>,
    ) -> Result<(), String> {
        let id = self.next;
        self.next += 1;
        self.ping_at = Instant::now() + PING_INTERVAL;
        let only_looks = matches!(ask, Ask::Report { .. } | Ask::Ping);
        let mut text = Request { id, ask }.line().into_bytes();
        text.extend_from_slice(document);
        // Before it is sent: whoever asked must not think that it was not.
        self.unanswered.insert(id, Asker { answer, only_looks });
        match timeout(RUNNER_SILENCE, self.process.write_stdin(&text)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.chain()),
            Err(_) => Err(format!("the runner took nothing for {RUNNER_SILENCE:?}")),
        }
    }

    fn hear(&mut self, output: Result<Option<Output>, ExecError>) -> Result<(), String> {
        match output {
            Err(error) => Err(error.chain()),
            Ok(None) => Err("the runner has ended it".into()),
            Ok(Some(Output::Stderr(text))) => {
                let room = MAX_COMPLAINT.saturating_sub(self.complaint.len());
                self.complaint.extend(text.iter().take(room));
                Ok(())
            }
            Ok(Some(Output::Stdout(bytes))) => {
                self.silent_at = Instant::now() + RUNNER_SILENCE;
                self.answers.push(&bytes);
                while let Some(message) = self.answers.next().map_err(|error| error.to_string())? {
                    self.deliver(message);
                }
                Ok(())
            }
        }
    }

    fn deliver(&mut self, message: FromRunner) {
        let (FromRunner::Done { id, .. } | FromRunner::Report { id, .. }) = &message else {
            return;
        };
        if let Some(asker) = self.unanswered.remove(id) {
            // Whoever asked may have lost patience.
            let _ = asker.answer.send(message);
        }
    }
}
