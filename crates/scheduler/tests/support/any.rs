//! Small worlds of every kind, for properties.

use longshore_scheduler::{Input, Limits, Packing};
use longshore_types::*;
use proptest::prelude::*;

use super::*;

pub(crate) fn any_entry(n: u32) -> impl Strategy<Value = QueueEntry> {
    let state = prop::sample::select(ContainerState::ALL.to_vec());
    let place = prop::option::of(0..4u32);
    let numbers = (0i64..3, 0i64..3, 0u32..3, 0u64..3, 1u32..10);
    (state, place, numbers, any::<[bool; 3]>()).prop_map(
        move |(state, place, (priority, created_at, lock_count, as_of, vcpus), flags)| QueueEntry {
            container: Container {
                uuid: uuid(n),
                state,
                priority,
                created_at: Timestamp(created_at),
                request: request(vcpus),
                supervisor: flags[0],
                lock_count,
                given_back: None,
                locked_by_us: flags[1] || flags[2],
                placed_on: place.map(|i| InstanceId::from(format!("w{i}").as_str())),
                revision: 0,
            },
            as_of: at(as_of),
            call_in_flight: flags[1] && flags[0],
        },
    )
}

pub(crate) fn any_worker(n: u32) -> impl Strategy<Value = WorkerView> {
    let name = prop::sample::select(vec!["small", "medium", "large"]);
    let phase = prop::sample::select(vec![
        HeldPhase::Starting,
        HeldPhase::Running,
        HeldPhase::Killing,
        HeldPhase::Stale,
        ended(ExitCause::Exited { code: 0 }),
    ]);
    let held = prop::option::of((0..12u32, 0..3u32, phase));
    let behavior = prop::sample::select(vec![
        IdleBehavior::Run,
        IdleBehavior::Run,
        IdleBehavior::Hold,
    ]);
    (name, held, behavior, prop::option::of(0..4u64)).prop_map(
        move |(name, held, behavior, probe)| {
            let id = format!("w{n}");
            let mut view = match probe {
                Some(seconds) => probed(idle(&id, name), seconds),
                None => booting(&id, name),
            };
            view.idle_behavior = behavior;
            if let Some((n, attempt, phase)) = held {
                view = holding(view, n, attempt, phase);
            }
            view
        },
    )
}

pub(crate) fn any_input() -> impl Strategy<Value = Input> {
    let entries: Vec<_> = (0..10).map(any_entry).collect();
    let workers: Vec<_> = (0..4).map(any_worker).collect();
    let limit = prop::option::of(0u32..6);
    let quota = prop::bool::ANY;
    let (pendings, accept_new) = (0u64..3, 0u32..12);
    (
        entries,
        workers,
        limit,
        quota,
        any::<[bool; 2]>(),
        pendings,
        accept_new,
    )
        .prop_map(
            |(entries, workers, max_containers, quota, flags, pendings, accept_new)| {
                let mut limits = Limits {
                    max_containers,
                    absence_is_evidence: flags[0],
                    accept_new: accept_new > 0,
                    ..Limits::default()
                };
                let mut config = if flags[1] { config() } else { arvados() };
                config.packing = match pendings {
                    0 => Packing::Fullest,
                    1 => Packing::BestFit,
                    _ => Packing::CheapestShare,
                };
                if quota {
                    for t in &config.types {
                        limits.create_blocked.insert(t.name.clone(), "quota".into());
                        limits.quota_blocked.insert(t.name.clone());
                    }
                }
                Input {
                    config,
                    limits,
                    entries,
                    workers,
                    pendings: (0..pendings).map(|id| pending(id, "small")).collect(),
                    now: at(5),
                }
            },
        )
}
