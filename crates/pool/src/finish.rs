//! Results: their output is brought home, they are told, and kept until acknowledged.

use std::time::Duration;

use longshore_runner_api::command::OutputStream;
use longshore_types::{
    Attempt, ContainerUuid, Exit, ExitCause, InstanceId, Instant, WorkerState, Written,
};

use crate::core::{Core, FlightAction, WorkerFlight};
use crate::effect::{EffectAction, HostFailure, Outcome};
use crate::event::Event;
use crate::holdoff::growing;
use crate::timers::{ContainerTimer, Timer, WorkerTimer};
use crate::worker::{Ended, Held, Seq, Stage};

const COLLECT_PAUSE: (u64, u64) = (1, 60);
/// So often an instance may fail to give the output of one attempt, or both sides together to
/// bring it home, which must have failed for [`Config::timeout_probe`](crate::Config) then, too.
const MAX_COLLECTS: u32 = 5;
/// A transfer has a second more for so many bytes; it ends sooner if none come.
const LEAST_BYTES_PER_SECOND: u64 = 64 << 10;
/// Nobody waits longer for one transfer, whatever an instance says that there is.
const LONGEST_TRANSFER: Duration = Duration::from_secs(6 * 3600);
/// So often a runner may show a result that it was told to forget.
const MAX_KEPT: u32 = 3;
/// Acknowledgements wait this long for others to go with them.
const ACK_PAUSE: Duration = Duration::from_millis(100);

impl Core {
    /// The controller has the result: the runner may forget it. The entry goes once the runner
    /// has; until then the container cannot be started again on the same worker. Ignored where it
    /// does not apply.
    pub fn acknowledge(
        &mut self,
        uuid: ContainerUuid,
        attempt: Attempt,
        instance: &InstanceId,
        now: Instant,
    ) {
        self.advance(now);
        let Some(worker) = self.workers.get_mut(instance) else {
            return;
        };
        let down = worker.state == WorkerState::Shutdown;
        let seq = self.seq;
        let Some(held) = worker
            .held
            .get_mut(&uuid)
            .filter(|held| held.attempt == attempt)
        else {
            return;
        };
        let Stage::Ended(ended) = &mut held.stage else {
            return;
        };
        if ended.acked {
            return;
        }
        ended.acked = true;
        held.acted = seq;
        if !ended.told {
            return;
        }
        if down {
            self.remove_held(instance, uuid);
            self.worker_changed(instance);
        } else if !self.stopping {
            let timer = Timer::Worker(instance.clone(), WorkerTimer::Ack);
            self.timers.set_once(timer, self.now + ACK_PAUSE);
        }
    }

    /// Takes note that a report tells the runner to forget results.
    pub(crate) fn note_acks(
        &mut self,
        id: &InstanceId,
        acks: &[(ContainerUuid, Attempt)],
        began: Seq,
    ) {
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        for (uuid, _) in acks {
            if let Some(held) = worker.held.get_mut(uuid)
                && let Stage::Ended(ended) = &mut held.stage
            {
                ended.ack_sent.get_or_insert(began);
            }
        }
    }

    /// A report shows a result. One that the runner goes on to show after it was told to forget it
    /// would keep the container from being started there for ever: such a worker gets no more.
    pub(crate) fn shown_again(&mut self, id: &InstanceId, uuid: ContainerUuid, began: Seq) {
        let held = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid));
        let Some(Stage::Ended(ended)) = held.map(|held| &mut held.stage) else {
            return;
        };
        if ended.ack_sent.is_some_and(|sent| sent <= began) {
            ended.kept = ended.kept.saturating_add(1);
            if ended.kept == MAX_KEPT {
                let why = format!("it does not forget the result of container {uuid}");
                self.suspect(id, &why);
            }
        }
    }

    /// A container has ended: its resources are free at once.
    pub(crate) fn end(&mut self, id: &InstanceId, uuid: ContainerUuid, mut exit: Exit) {
        let seq = self.next_seq();
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let Some(held) = worker.held.get_mut(&uuid).filter(|held| held.may_run()) else {
            return;
        };
        held.acted = seq;
        held.document = None;
        held.given_up = false;
        held.stale = false;
        // That it is missing from reports is in doubt no more.
        held.absent = None;
        exit.started_at = exit.started_at.or(held.started_at);
        let failed = exit.failed_to_begin();
        if failed {
            worker.last_error = Some(exit.cause.to_string());
        }
        // That it was told to end before it ran says nothing of the machine.
        let says_nothing = exit.cause == ExitCause::Killed && exit.started_at.is_none();
        let missing = match self.config.collect_output {
            true => streams(&exit),
            false => Vec::new(),
        };
        held.stage = Stage::Ended(Ended {
            exit,
            missing,
            collects: 0,
            refusals: 0,
            failing_since: None,
            alarmed: false,
            collecting: None,
            told: false,
            acked: false,
            ack_sent: None,
            kept: 0,
        });
        self.timers.clear_container(id, uuid);
        self.note_freed(uuid);
        if failed {
            self.count_early_end(id, uuid);
        } else if !says_nothing {
            self.came_to_run(id);
        }
        self.collect(id, uuid);
        self.settle(id);
    }

    /// Brings the next stream home, if there is one to bring; else tells the result.
    pub(crate) fn collect(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let Some(held) = worker.held.get(&uuid) else {
            return;
        };
        let Stage::Ended(ended) = &held.stage else {
            return;
        };
        if ended.told || ended.collecting.is_some() {
            return;
        }
        let Some(stream) = ended.missing.first().copied() else {
            self.tell_ended(id, uuid, "");
            return;
        };
        let Some(host) = worker.host(id) else {
            self.tell_ended(id, uuid, "it is not known where its instance answers");
            return;
        };
        let about = FlightAction::OnWorker(id.clone(), worker.serial, WorkerFlight::Collect(uuid));
        let written = written(&ended.exit, stream);
        let timeout = self.config.transfer_timeout + time_for(written.kept());
        let action = EffectAction::Collect {
            host,
            uuid,
            attempt: held.attempt,
            stream,
            written,
        };
        let sent = self.send(timeout, action, about).is_some();
        let held = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid));
        if let Some(Stage::Ended(ended)) = held.map(|held| &mut held.stage) {
            ended.collecting = sent.then_some(stream);
        }
    }

    pub(crate) fn on_collected(&mut self, id: &InstanceId, uuid: ContainerUuid, outcome: Outcome) {
        let now = self.now;
        let held = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid));
        let Some(Stage::Ended(ended)) = held.map(|held| &mut held.stage) else {
            return;
        };
        let stream = ended.collecting.take();
        let failure = match outcome {
            Outcome::Collected(Ok(())) => {
                ended.missing.retain(|missing| Some(*missing) != stream);
                ended.failing_since = None;
                self.collect(id, uuid);
                self.settle(id);
                return;
            }
            Outcome::Collected(Err(failure)) => failure,
            _ => HostFailure::mismatched(),
        };
        self.set_error(id, &failure.error);
        let held = self.workers.get_mut(id).and_then(|w| w.held.get_mut(&uuid));
        let Some(Stage::Ended(ended)) = held.map(|held| &mut held.stage) else {
            return;
        };
        ended.collects = ended.collects.saturating_add(1);
        // Now it is the other stream's turn: one that cannot be read does not keep that one there.
        ended.missing.reverse();
        let tries = ended.collects;
        // Nobody waits for what was acknowledged.
        let ours = failure.ours && !ended.acked;
        let too_often = if ours {
            // It is there still, and comes home once that is over, however long that takes.
            ended.failing_since = None;
            false
        } else if failure.unreachable {
            let since = *ended.failing_since.get_or_insert(now);
            tries >= MAX_COLLECTS && now.since(since) >= self.config.timeout_probe
        } else {
            ended.refusals += 1;
            ended.refusals >= MAX_COLLECTS
        };
        let alarms = ours && tries >= MAX_COLLECTS && !std::mem::replace(&mut ended.alarmed, true);
        if too_often && !self.excused() {
            let why = format!("it could not be brought home in {tries} tries");
            self.tell_ended(id, uuid, &why);
            self.settle(id);
            return;
        }
        if alarms {
            self.alarm(format!(
                "output of container {uuid} on instance {id} cannot be kept here, so the instance stays until it can: {}",
                failure.error
            ));
        }
        if !self.stopping {
            let timer = Timer::Container(id.clone(), uuid, ContainerTimer::Collect);
            self.timers
                .set(timer, now + growing(COLLECT_PAUSE, tries - 1));
        }
    }

    /// Tells every result of a worker that was not told yet: nothing more comes home from there.
    pub(crate) fn tell_all_ended(&mut self, id: &InstanceId, why: &str) {
        let untold = |held: &Held| matches!(&held.stage, Stage::Ended(ended) if !ended.told);
        let held = self.workers.get(id).into_iter().flat_map(|w| &w.held);
        let uuids: Vec<ContainerUuid> = held
            .filter(|(_, held)| untold(held))
            .map(|(uuid, _)| *uuid)
            .collect();
        for uuid in uuids {
            self.tell_ended(id, uuid, why);
        }
    }

    /// Tells a result. What is missing of its output is lost: `why` says for which reason.
    fn tell_ended(&mut self, id: &InstanceId, uuid: ContainerUuid, why: &str) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(id) else {
            return;
        };
        let down = worker.state == WorkerState::Shutdown;
        let Some(held) = worker.held.get_mut(&uuid) else {
            return;
        };
        let attempt = held.attempt;
        let Stage::Ended(ended) = &mut held.stage else {
            return;
        };
        ended.told = true;
        ended.give_up_missing();
        let (exit, acked) = (ended.exit.clone(), ended.acked);
        // Where the result was acknowledged already (an earlier process told it, and what became
        // of its output), nobody waits for it.
        if !acked {
            if let Some(lost) = exit.lost_output() {
                self.alarm(format!(
                    "output of container {uuid}, attempt {attempt} on instance {id}, is lost ({lost}): {why}"
                ));
            }
            self.event(Event::Ended {
                uuid,
                attempt,
                instance: id.clone(),
                exit,
            });
        }
        if acked && down {
            self.remove_held(id, uuid);
        } else if acked && !self.stopping {
            let timer = Timer::Worker(id.clone(), WorkerTimer::Ack);
            self.timers.set_once(timer, now + ACK_PAUSE);
        }
        self.worker_changed(id);
    }
}

impl Ended {
    fn give_up_missing(&mut self) {
        for stream in self.missing.drain(..) {
            match stream {
                OutputStream::Stdout => self.exit.stdout_lost = true,
                OutputStream::Stderr => self.exit.stderr_lost = true,
            }
        }
    }
}

/// How long so much may be under way.
fn time_for(bytes: u64) -> Duration {
    Duration::from_secs(bytes / LEAST_BYTES_PER_SECOND).min(LONGEST_TRANSFER)
}

fn written(exit: &Exit, stream: OutputStream) -> Written {
    match stream {
        OutputStream::Stdout => exit.stdout(),
        OutputStream::Stderr => exit.stderr(),
    }
}

/// The streams to which something was written.
fn streams(exit: &Exit) -> Vec<OutputStream> {
    let mut streams = OutputStream::ALL.to_vec();
    streams.retain(|stream| written(exit, *stream).bytes > 0);
    streams
}
