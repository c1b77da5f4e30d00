//! The worker pool without a cloud, a network or a clock: its effects are printed and answered by
//! hand. This is what a simulator does, and how to see what the pool does next.
//!
//! One container runs on one instance. Its boot probe fails at first, and the answer to its start
//! is lost on the way: watch the pool find out that it runs all the same.
#![expect(clippy::print_stdout, reason = "it is a program that shows something")]

use std::error::Error;
use std::time::Duration;

use longshore_cloud::{Instance, InstanceState};
use longshore_pool::{
    Config, Core, Effect, EffectAction, Event, HostFailure, Outcome, StartOutcome, StartRequest,
};
use longshore_types::{
    Attempt, ByteSize, ContainerReport, ContainerUuid, Exit, ExitCause, InstanceType, Instant,
    Price, ReportedState, Resources, RunnerReport, WorkerState,
};

const BOOT: Duration = Duration::from_secs(25);
const WORK: Duration = Duration::from_secs(40);
const SUCCESS: ExitCause = ExitCause::Exited { code: 0 };

/// A provider with at most one machine, which may run one container.
struct World {
    machine: Option<Machine>,
}

struct Machine {
    instance: Instance,
    boots_at: Instant,
    container: Option<Running>,
}

struct Running {
    uuid: ContainerUuid,
    attempt: Attempt,
    ends_at: Instant,
}

fn main() -> Result<(), Box<dyn Error>> {
    let price = Price::from_units(0.10)?;
    let small = InstanceType::new("small", 2, ByteSize::gib(4), price);
    let mut config = Config::new("example", vec![small.clone()]);
    // Reports are asked for every ten seconds; nothing here could push them.
    config.report_wait = Duration::ZERO;
    config.collect_output = false;

    // 1. A core, the time, and a seed for its secrets.
    let mut now = Instant::ZERO;
    let mut core = Core::new(config, [7; 32], now);
    let mut world = World { machine: None };
    let uuid: ContainerUuid = "zzzzz-dz642-0123456789abcde".parse()?;
    let mut started = false;
    let mut exit = None;

    // 2. Something is asked of it.
    core.create(&small.name, now)?;
    loop {
        // 3. All its outputs are drained; each effect gets exactly one outcome.
        while let Some(effect) = core.poll_effect() {
            let outcome = world.perform(&effect, now);
            let problem = problem(&outcome).map_or(String::new(), |why| format!(": {why}"));
            print(
                now,
                "effect",
                &format!("{}{problem}", describe(&effect.action)),
            );
            core.handle_outcome(effect.id, outcome, now);
        }
        while let Some(event) = core.poll_event() {
            print(now, "event", &format!("{event:?}"));
            if let Event::Ended {
                uuid,
                attempt,
                instance,
                exit: how,
            } = event
            {
                exit = Some(how);
                // Only now may the runner forget it.
                core.acknowledge(uuid, attempt, &instance, now);
            }
        }
        while core.poll_changed().is_some() {}

        let ready = core.workers().find(|w| w.state == WorkerState::Idle);
        if let (Some(worker), false) = (ready, started) {
            started = true;
            print(now, "verb", &format!("start {uuid} on {}", worker.instance));
            core.start(
                StartRequest {
                    instance: worker.instance,
                    uuid,
                    attempt: Attempt(1),
                    resources: Resources {
                        vcpus: 1,
                        ..Resources::NONE
                    },
                    document: b"whatever the runner understands".as_slice().into(),
                },
                now,
            )?;
            continue;
        }
        core.check_invariants()?;
        if exit.is_some() && core.workers().next().is_none() {
            break;
        }

        // 4. Time goes on to where something is due; nothing else moves it.
        let Some(deadline) = core.poll_timeout() else {
            return Err("the pool waits for nothing".into());
        };
        now = now.max(deadline.at);
        print(now, "due", deadline.why);
        core.handle_timeout(now);
    }

    let exit = exit.ok_or("the container never ended")?;
    println!(
        "the container ended: {:?}; nothing is left running",
        exit.cause
    );
    if exit.cause != SUCCESS || world.machine.is_some() {
        return Err("that is not what should have happened".into());
    }
    Ok(())
}

impl World {
    fn perform(&mut self, effect: &Effect, now: Instant) -> Outcome {
        match &effect.action {
            EffectAction::Create(request) => {
                let kind = request.instance_type.provider_type.clone();
                let tags = request.tags.clone();
                let mut instance = Instance::new("i-1", kind, InstanceState::Running, tags);
                instance.address = Some("10.0.0.1".into());
                self.machine = Some(Machine {
                    instance: instance.clone(),
                    boots_at: now + BOOT,
                    container: None,
                });
                Outcome::Created(Ok(Box::new(instance)))
            }
            EffectAction::List(tags) => {
                let machines = self.machine.iter().map(|machine| machine.instance.clone());
                Outcome::listed(machines.filter(|i| i.has_tags(tags)))
            }
            EffectAction::Destroy(ids) => {
                self.machine = None;
                Outcome::Destroyed(ids.iter().map(|id| (id.clone(), Ok(()))).collect())
            }
            on_machine => match &mut self.machine {
                Some(machine) if machine.boots_at <= now => machine.perform(on_machine, now),
                Some(_) => refused(on_machine),
                None => on_machine.lost("there is no such machine"),
            },
        }
    }
}

impl Machine {
    fn perform(&mut self, action: &EffectAction, now: Instant) -> Outcome {
        match action {
            EffectAction::Boot(_) => Outcome::Booted(Ok(())),
            EffectAction::Deploy(..) => Outcome::Deployed(Ok(())),
            EffectAction::Start { uuid, attempt, .. } => {
                self.container = Some(Running {
                    uuid: *uuid,
                    attempt: *attempt,
                    ends_at: now + WORK,
                });
                // It runs, but the answer is lost.
                Outcome::Started(StartOutcome::Unknown {
                    error: "connection reset".into(),
                })
            }
            EffectAction::Report(_, options) => {
                for (uuid, attempt) in &options.acks {
                    let acknowledged = |c: &Running| c.uuid == *uuid && c.attempt == *attempt;
                    self.container.take_if(|container| acknowledged(container));
                }
                Outcome::Reported(Ok(self.report(now)))
            }
            other => other.lost("not in this example"),
        }
    }

    fn report(&self, now: Instant) -> RunnerReport {
        let state = |container: &Running| {
            if container.ends_at <= now {
                ReportedState::Finished(Exit::unseen(SUCCESS))
            } else {
                ReportedState::Running { started_at: None }
            }
        };
        let containers = self.container.iter().map(|container| ContainerReport {
            uuid: container.uuid,
            attempt: container.attempt,
            state: state(container),
        });
        RunnerReport {
            containers: containers.collect(),
            broken: None,
            digest: String::new(),
        }
    }
}

/// Nobody answers there yet.
fn refused(action: &EffectAction) -> Outcome {
    match action {
        EffectAction::Boot(_) => Outcome::Booted(Err(HostFailure {
            unreachable: true,
            ours: false,
            error: "connection refused".into(),
        })),
        other => other.lost("connection refused"),
    }
}

fn describe(action: &EffectAction) -> String {
    match action {
        EffectAction::Create(request) => format!("create a {}", request.instance_type.name),
        EffectAction::List(_) => "list instances".into(),
        EffectAction::Destroy(ids) => format!("destroy {ids:?}"),
        EffectAction::SetTags(id, tags) => format!("set tags of {id}: {tags:?}"),
        EffectAction::Boot(host) => format!("probe whether {} has booted", host.instance),
        EffectAction::Deploy(host, _) => format!("put the runner on {}", host.instance),
        EffectAction::Report(host, options) => {
            format!(
                "ask {} what runs; acknowledge {:?}",
                host.instance, options.acks
            )
        }
        EffectAction::Start { uuid, host, .. } => format!("start {uuid} on {}", host.instance),
        EffectAction::Kill { uuid, signal, .. } => format!("signal {signal} to {uuid}"),
        EffectAction::Collect { uuid, .. } => format!("bring the output of {uuid} home"),
        EffectAction::Console(id, _) => format!("ask what {id} printed on its console"),
        EffectAction::Disconnect(id) => format!("close the connection to {id}"),
    }
}

fn problem(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Booted(Err(failure)) => Some(&failure.error),
        Outcome::Started(StartOutcome::Unknown { error }) => Some(error),
        _ => None,
    }
}

fn print(now: Instant, what: &str, text: &str) {
    let seconds = now.since(Instant::ZERO).as_secs_f64();
    println!("{seconds:7.1} s  {what:6}  {text}");
}
