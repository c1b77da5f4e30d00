//! `--watch`: answers the requests of one dispatcher until its standard input ends.
//!
//! It holds nothing that matters: what it starts are supervisors like those that a command starts,
//! and everything else is read from the directory. Any number of streams may be open beside each
//! other and beside commands. It has one thread; whatever may take time is done by a child, made
//! with a fork and with nothing of the stream's but the way back for what it has to say. One that
//! starts an attempt stays, as its supervisor; [a spare one](spare) is made ahead.

mod child;
mod spare;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, stdin};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use longshore_runner_api::command::{EXIT_USAGE, MAX_WAIT};
use longshore_runner_api::report::{MAX_TEXT, parse_acks};
use longshore_runner_api::watch::{Ask, FromRunner, HEARTBEAT, Request, Requests, WATCH_PROTOCOL};
use longshore_types::{Attempt, ContainerReport, ContainerUuid, ReportedState};
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::acknowledge::{acknowledge, sweep, take_turn_to_sweep};
use crate::ahead::Ahead;
use crate::cgroup;
use crate::directory::RunDirectory;
use crate::report::Looks;
use crate::scan::{Look, Survey, end_left};
use crate::system::{wait_any, wait_for};
use crate::watch::{Changes, Watch};
use crate::{complain, kill, say, start};
use child::{Child, Known, Task, child, contact};
use spare::Spare;

/// The most children at once; further requests wait.
const MAX_CHILDREN: usize = 64;
/// The most requests for a report that wait for news; beyond that the oldest is answered at once.
const MAX_REPORTS: usize = 8;
/// How long after its supervisor is ready a job may take to run, before a report is made only to say
/// that it is being started: whoever had it started knows that.
const START_PATIENCE: Duration = Duration::from_millis(50);
/// The same for a report only to say that it runs: one that has ended by then is told of once.
const RUN_PATIENCE: Duration = Duration::from_millis(5);
/// How long an engine that did not do what it was asked to is not asked again.
const ENGINE_PAUSE: Duration = Duration::from_secs(10);
/// The exit code of a command that a signal has ended is this and the signal's number, as a shell
/// says it.
const SIGNALLED: i32 = 128;

/// Answers until there is nobody to answer to, which is so when nothing came for `silence`.
pub(crate) fn serve(directory: &RunDirectory, silence: Duration) -> Result<u8> {
    cgroup::know();
    let mut stream = Stream::new(directory, silence);
    stream.say(&FromRunner::Hello {
        protocol: WATCH_PROTOCOL,
        runner_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: boot_id(),
    })?;
    while stream.turn()? {}
    Ok(0)
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

struct Stream<'a> {
    directory: &'a RunDirectory,
    watch: Watch,
    requests: Requests,
    children: Vec<Child>,
    spare: Option<Spare>,
    /// When a spare supervisor is made, if there is none.
    spare_at: Instant,
    /// Children that are supervisors by now.
    supervisors: BTreeSet<Pid>,
    /// The wait statuses of those of `children` that have ended.
    ended: BTreeMap<Pid, libc::c_int>,
    reports: Vec<Asked>,
    looks: Looks,
    survey: Survey,
    /// Whose remains were last to be ended by a container engine, and when it may be asked again.
    last_left: Option<ContainerUuid>,
    end_left_at: Instant,
    /// Why something could not be looked at since the last report.
    failed: Option<anyhow::Error>,
    /// Whether it was ever asked for a report.
    has_looked: bool,
    /// Whether anything may be news to those who wait for a report.
    may_be_news: bool,
    /// What was started from here and of which nobody has been told yet, and when its supervisor
    /// was ready.
    beginning: BTreeMap<ContainerUuid, Instant>,
    beat_at: Instant,
    heard_at: Instant,
    silence: Duration,
}

/// A request for a report that waits for news.
struct Asked {
    id: u64,
    known: String,
    end: Instant,
}

impl<'a> Stream<'a> {
    fn new(directory: &'a RunDirectory, silence: Duration) -> Self {
        let now = Instant::now();
        Self {
            directory,
            watch: Watch::new(directory),
            requests: Requests::default(),
            children: Vec::new(),
            spare: None,
            spare_at: now,
            supervisors: BTreeSet::new(),
            ended: BTreeMap::new(),
            reports: Vec::new(),
            looks: Looks::default(),
            survey: Survey::without_engines(),
            last_left: None,
            end_left_at: now,
            failed: None,
            has_looked: false,
            may_be_news: false,
            beginning: BTreeMap::new(),
            beat_at: now + HEARTBEAT,
            heard_at: now,
            silence,
        }
    }

    /// Waits for something to do, and does it; whether the stream goes on.
    fn turn(&mut self) -> Result<bool> {
        let input = stdin();
        let mut sources: Vec<BorrowedFd<'_>> = Vec::new();
        sources.extend(self.children.iter().map(|child| child.way_back.as_fd()));
        let may_ask = self.children.len() < MAX_CHILDREN;
        if may_ask {
            sources.push(input.as_fd());
        }
        let ready = self.watch.poll(self.patience(), &sources);
        if ready.nobody_listens {
            return Ok(false);
        }
        self.reap();
        let asked = may_ask && ready.others.last().copied().unwrap_or(false);
        for (i, ready) in ready.others.iter().enumerate().rev() {
            if *ready && i < self.children.len() {
                self.hear_child(i)?;
            }
        }
        // After that: what a supervisor does changes something once it has said that it is one.
        self.take_note(ready.changes, Instant::now());
        if asked && !self.read()? {
            return Ok(false);
        }
        // What was asked for meanwhile may be due by now.
        let now = Instant::now();
        self.look(now);
        if self.may_be_news || self.reports.iter().any(|asked| asked.end <= now) {
            self.report(now)?;
        }
        if self.beat_at <= now {
            self.say(&FromRunner::Heartbeat)?;
        }
        self.make_spare(now);
        self.end_left(now);
        if now.duration_since(self.heard_at) >= self.silence {
            bail!("nothing came from the dispatcher for {:?}", self.silence);
        }
        Ok(true)
    }

    /// Until when nothing has to be done unless something happens.
    fn patience(&self) -> Duration {
        let mut next = self.beat_at.min(self.heard_at + self.silence);
        if self.spare.is_none() {
            next = next.min(self.spare_at);
        }
        if self.next_left().is_some() {
            next = next.min(self.end_left_at);
        }
        let ends = self.reports.iter().map(|asked| asked.end);
        next = ends.chain(self.looks.next()).fold(next, Instant::min);
        next.saturating_duration_since(Instant::now())
    }

    fn say(&mut self, message: &FromRunner) -> Result<()> {
        say(&message.line())?;
        self.beat_at = Instant::now() + HEARTBEAT;
        Ok(())
    }

    /// Reads what has come, and takes up what is whole; whether more may come.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 64 << 10];
        let count = match nix::unistd::read(stdin(), &mut buffer) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => return Ok(true),
            Err(error) => return Err(error).context("cannot read standard input"),
        };
        self.heard_at = Instant::now();
        self.requests.push(buffer.get(..count).unwrap_or_default());
        while let Some((request, bytes)) = self.requests.next()? {
            self.take_up(request, bytes)?;
        }
        Ok(true)
    }

    fn take_up(&mut self, request: Request, document: Vec<u8>) -> Result<()> {
        let (id, directory) = (request.id, self.directory);
        match request.ask {
            Ask::Start { uuid, attempt, .. } => self.start(id, uuid, attempt, &document),
            Ask::Kill {
                uuid,
                attempt,
                signal,
            } => self.delegate(id, Task::Kill, || {
                kill::kill(directory, uuid, Some(attempt), signal)
            }),
            Ask::Report {
                known,
                wait_ms,
                acks,
            } => {
                contact(self.directory);
                let known = (known, Duration::from_millis(wait_ms).min(MAX_WAIT));
                match acks.is_empty() {
                    true => self.wait_for_news(id, known),
                    false => self.acknowledge(id, known, &acks)?,
                }
                Ok(())
            }
            Ask::Ping => {
                contact(self.directory);
                self.done(id, 0, String::new())
            }
            _ => self.done(
                id,
                EXIT_USAGE,
                "this runner does not know the request".into(),
            ),
        }
    }

    fn done(&mut self, id: u64, code: u32, said: String) -> Result<()> {
        self.say(&FromRunner::Done { id, code, said })
    }

    /// Has the spare supervisor start it, or a child become another.
    fn start(
        &mut self,
        id: u64,
        uuid: ContainerUuid,
        attempt: Attempt,
        document: &[u8],
    ) -> Result<()> {
        self.spare_at = Instant::now() + spare::PAUSE;
        let task = Task::Start(uuid);
        if let Some(order) = spare::order(uuid, attempt, document)
            && let Some(spare) = self.spare.take()
            && let Ok(ordered) = spare.start(&order)
        {
            self.children.push(Child::new(id, ordered, task));
            return Ok(());
        }
        let directory = self.directory;
        self.delegate(id, task, || {
            start::supervise(directory, uuid, attempt, document, Ahead::default())
        })
    }

    /// Makes a spare supervisor if there is the time.
    fn make_spare(&mut self, now: Instant) {
        if self.spare.is_some() || now < self.spare_at {
            return;
        }
        // Each start makes its own all the same.
        self.spare = Spare::make(self.directory).ok();
        self.spare_at = now + spare::LONG_PAUSE;
    }

    /// Has a child do it, whose end is the answer, or that it says that it is a supervisor.
    fn delegate(&mut self, id: u64, task: Task, act: impl FnOnce() -> Result<u8>) -> Result<()> {
        let directory = self.directory;
        match child(|| {
            contact(directory);
            act()
        }) {
            Ok(forked) => {
                self.children.push(Child::new(id, forked, task));
                Ok(())
            }
            Err(error) => self.done(id, 1, format!("{error:#}")),
        }
    }

    /// What is to be ended next by a container engine; nothing while one is at it.
    fn next_left(&self) -> Option<ContainerUuid> {
        let is_busy = |child: &Child| matches!(child.task, Task::EndLeft(_));
        let free = !self.children.iter().any(is_busy);
        free.then(|| self.survey.left_after(self.last_left))?
    }

    /// Has a child end what a dead supervisor has left to a container engine: that may take time.
    fn end_left(&mut self, now: Instant) {
        if now < self.end_left_at {
            return;
        }
        let Some(uuid) = self.next_left() else {
            return;
        };
        self.last_left = Some(uuid);
        let directory = self.directory;
        match child(|| end_left(directory, uuid)) {
            Ok(forked) => self
                .children
                .push(Child::new(0, forked, Task::EndLeft(uuid))),
            Err(_) => self.end_left_at = now + ENGINE_PAUSE,
        }
    }

    /// Takes what a child has to say; at its end the request is answered.
    fn hear_child(&mut self, i: usize) -> Result<()> {
        let Some(child) = self.children.get_mut(i) else {
            return Ok(());
        };
        let mut buffer = [0; MAX_TEXT];
        let count = child.way_back.read(&mut buffer).unwrap_or(0);
        if count > 0 {
            let room = MAX_TEXT.saturating_sub(child.said.len());
            child.said.extend(buffer.iter().take(count.min(room)));
            return Ok(());
        }
        let child = self.children.swap_remove(i);
        match child.task {
            Task::Start(uuid) => self.end_of_start(&child, uuid),
            Task::Kill => self.end_of_command(&child),
            Task::EndLeft(uuid) => {
                let now = Instant::now();
                if self.exit_code(child.process) != 0 {
                    self.end_left_at = now + ENGINE_PAUSE;
                }
                self.looks.plan(Look::Container(uuid), now);
                Ok(())
            }
            Task::Acknowledge {
                ref acknowledged,
                ref known,
            } => {
                if self.exit_code(child.process) != 0 {
                    // What was not removed is reported, and will be acknowledged again.
                    child.pass_on_complaint();
                }
                let now = Instant::now();
                for uuid in acknowledged {
                    self.looks.plan(Look::Container(*uuid), now);
                }
                self.wait_for_news(child.id, known.clone());
                self.sweep();
                Ok(())
            }
            Task::Sweep => {
                if self.exit_code(child.process) != 0 {
                    child.pass_on_complaint();
                }
                Ok(())
            }
        }
    }

    /// Has a child look for what is old from time to time, for which nobody has to wait.
    fn sweep(&mut self) {
        let directory = self.directory;
        if !take_turn_to_sweep(directory) {
            return;
        }
        match child(|| sweep(directory).map(|()| 0)) {
            Ok(forked) => self.children.push(Child::new(0, forked, Task::Sweep)),
            Err(error) => complain(&format!("cannot look for what is old: {error:#}")),
        }
    }

    fn end_of_command(&mut self, child: &Child) -> Result<()> {
        let code = self.exit_code(child.process);
        self.done(child.id, code, child.complaint())
    }

    /// It has become a supervisor, or has ended.
    fn end_of_start(&mut self, child: &Child, uuid: ContainerUuid) -> Result<()> {
        let now = Instant::now();
        if !child.is_ready() {
            self.looks.plan(Look::Container(uuid), now);
            return self.end_of_command(child);
        }
        // It may have ended by now.
        if self.ended.remove(&child.process).is_none() {
            self.supervisors.insert(child.process);
        }
        self.beginning.insert(uuid, now);
        for patience in [RUN_PATIENCE, START_PATIENCE] {
            self.looks.plan(Look::Container(uuid), now + patience);
        }
        self.done(child.id, 0, String::new())
    }

    /// Waits for the end of a child.
    fn exit_code(&mut self, child: Pid) -> u32 {
        let status = match self.ended.remove(&child) {
            Some(status) => Some(status),
            None => wait_for(child).ok(),
        };
        let code = match status {
            Some(status) if libc::WIFEXITED(status) => libc::WEXITSTATUS(status),
            Some(status) => SIGNALLED + libc::WTERMSIG(status),
            // What became of it is not known.
            None => SIGNALLED,
        };
        u32::try_from(code).unwrap_or(1)
    }

    /// Waits for all children that have ended; supervisors are of no interest then.
    fn reap(&mut self) {
        while let Ok(Some((child, status))) = wait_any() {
            self.note_end(child, status);
        }
    }

    /// Keeps the status of what is still to be asked for, and of nothing else: another child may get
    /// the same id.
    fn note_end(&mut self, child: Pid, status: libc::c_int) {
        if self.spare.take_if(|spare| spare.process == child).is_some() {
            self.spare_at = Instant::now() + spare::LONG_PAUSE;
        } else if self.children.iter().any(|known| known.process == child) {
            self.ended.insert(child, status);
        } else {
            self.supervisors.remove(&child);
        }
    }

    /// Has a child remove what is acknowledged, which waits for the disk; after that the request
    /// waits for news.
    fn acknowledge(&mut self, id: u64, known: Known, acks: &str) -> Result<()> {
        let Some(acks) = parse_acks(acks) else {
            complain(&format!("{acks:.100?} is not valid"));
            self.wait_for_news(id, known);
            return Ok(());
        };
        let directory = self.directory;
        let removed = child(|| acknowledge(directory, &acks).map(|()| 0));
        let acknowledged = acks.iter().map(|(uuid, _)| *uuid).collect();
        match removed {
            Ok(forked) => {
                let task = Task::Acknowledge {
                    acknowledged,
                    known,
                };
                self.children.push(Child::new(id, forked, task));
            }
            // What was not removed is reported, and will be acknowledged again.
            Err(error) => {
                complain(&format!("{error:#}"));
                self.wait_for_news(id, known);
            }
        }
        Ok(())
    }

    fn wait_for_news(&mut self, id: u64, (known, wait): Known) {
        let now = Instant::now();
        if self.reports.len() >= MAX_REPORTS
            && let Some(oldest) = self.reports.first_mut()
        {
            oldest.end = now;
        }
        let end = now + wait;
        self.reports.push(Asked { id, known, end });
        if !self.has_looked {
            self.looks.plan(Look::All, now);
            self.has_looked = true;
        }
        self.may_be_news = true;
    }

    /// Plans to look at what may have changed; not at what a child is about to start, which is
    /// looked at when it has, and by whoever is reported to until then.
    fn take_note(&mut self, mut changes: Changes, now: Instant) {
        for uuid in self.children.iter().filter_map(Child::starts) {
            changes.remove(&Look::Container(uuid));
        }
        self.looks.after(&changes, now);
    }

    /// Looks at all that it is time to look at.
    fn look(&mut self, now: Instant) {
        for at in self.looks.take_due(now) {
            let before = match at {
                Look::Container(uuid) => self.survey.found(uuid).cloned(),
                Look::All | Look::Flag => None,
            };
            if let Err(error) = self.survey.look(self.directory, at) {
                self.failed = Some(error);
                self.may_be_news = true;
            }
            self.may_be_news |= match at {
                Look::Container(uuid) => self.is_news(uuid, before.as_ref(), now),
                Look::All | Look::Flag => true,
            };
        }
    }

    /// Whether what was found of a container, of which this was found before, may be news to those
    /// who wait.
    fn is_news(
        &mut self,
        uuid: ContainerUuid,
        before: Option<&ContainerReport>,
        now: Instant,
    ) -> bool {
        let found = self.survey.found(uuid);
        let has_changed = found != before;
        let began = self.beginning.get(&uuid);
        let since = began.map(|began| now.saturating_duration_since(*began));
        if since.is_some_and(|since| is_too_new(found, since)) {
            return false;
        }
        let was_held_back = self.beginning.remove(&uuid).is_some();
        has_changed || was_held_back
    }

    /// Answers every request that what was found is news to, or that has waited enough.
    fn report(&mut self, now: Instant) -> Result<()> {
        self.may_be_news = false;
        if self.reports.is_empty() {
            return Ok(());
        }
        self.complete(now);
        let found = match self.failed.take() {
            None => Ok(self.survey.report()),
            Some(error) => Err(error),
        };
        let mut answers = Vec::new();
        self.reports.retain(|asked| {
            let (id, end) = (asked.id, asked.end);
            match &found {
                Ok(report) if report.digest == asked.known && now < end => return true,
                Ok(report) => answers.push(FromRunner::Report {
                    id,
                    report: report.clone(),
                }),
                Err(error) => answers.push(FromRunner::Done {
                    id,
                    code: 1,
                    said: format!("{error:#}"),
                }),
            }
            false
        });
        answers.iter().try_for_each(|answer| self.say(answer))
    }

    /// Makes what was found the truth of this moment: adds what is about to be started, and, when
    /// somebody has waited for as long as he would, what the kernel may not have told of.
    fn complete(&mut self, now: Instant) {
        let mut looks: Vec<Look> = match self.reports.iter().any(|asked| asked.end <= now) {
            true => vec![Look::All],
            false => Vec::new(),
        };
        let starting = self.children.iter().filter_map(Child::starts);
        looks.extend(starting.map(Look::Container));
        for at in looks {
            if let Err(error) = self.survey.look(self.directory, at) {
                self.failed = Some(error);
            }
        }
    }
}

/// Whether it is told later, so long after its supervisor was ready.
fn is_too_new(found: Option<&ContainerReport>, since: Duration) -> bool {
    match found.map(|found| &found.state) {
        Some(ReportedState::Running { started_at: None }) => since < START_PATIENCE,
        Some(ReportedState::Running { .. }) => since < RUN_PATIENCE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use longshore_types::{Exit, ExitCause, Timestamp};

    use super::*;

    #[test]
    fn that_something_runs_may_wait_and_that_it_has_ended_may_not() {
        let runs = |started_at| ReportedState::Running { started_at };
        let ended = ReportedState::Finished(Exit::unseen(ExitCause::Exited { code: 0 }));
        for (state, patience) in [
            (runs(None), START_PATIENCE),
            (runs(Some(Timestamp(1))), RUN_PATIENCE),
            (ended, Duration::ZERO),
            (ReportedState::Stale, Duration::ZERO),
        ] {
            let uuid = "zzzzz-dz642-000000000000001".parse().unwrap();
            let attempt = Attempt(1);
            let found = ContainerReport {
                uuid,
                attempt,
                state,
            };
            let waits = |since| is_too_new(Some(&found), since);
            assert_eq!(
                waits(Duration::ZERO),
                patience > Duration::ZERO,
                "{found:?}"
            );
            assert!(!waits(patience), "{found:?}");
        }
        assert!(!is_too_new(None, Duration::ZERO));
    }

    #[test]
    fn the_status_of_a_child_is_never_taken_for_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::at(&folder.path().join("run")).unwrap();
        let mut stream = Stream::new(&directory, Duration::from_secs(60));
        let [asked, supervisor, unknown] = [1001, 1002, 1003].map(Pid::from_raw);
        let (way_back, _) = std::io::pipe().unwrap();
        let child = Child::new(1, (asked, way_back), Task::Kill);
        stream.children.push(child);
        stream.supervisors.insert(supervisor);
        for pid in [asked, supervisor, unknown] {
            stream.note_end(pid, 0);
        }
        assert!(stream.ended.keys().eq([&asked]), "{:?}", stream.ended);
        assert!(stream.supervisors.is_empty());
    }
}
