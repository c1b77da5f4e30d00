//! Input that nobody should give: what comes of it is defined, and nothing panics.
//!
//! `LONGSHORE_CASES` sets how many cases each property runs; a soak sets a million.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use longshore_scheduler::type_choice::{compare_versions, eligible, need};
use longshore_scheduler::{Action, Config, Core, Input, Limits, Packing, Unsatisfiable, plan};
use longshore_types::*;
use proptest::prelude::*;
use support::*;

fn cases(usual: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(how_many(usual))
    }
}

fn size() -> impl Strategy<Value = ByteSize> {
    prop_oneof![
        3 => (0u64..200).prop_map(ByteSize::gib),
        1 => prop::sample::select(vec![0, 1, u64::MAX - 1, u64::MAX]).prop_map(ByteSize),
        1 => any::<u64>().prop_map(ByteSize),
    ]
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..10, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn text() -> impl Strategy<Value = String> {
    let known = [
        "", "9.0", "8.6", "12.10", "gfx90a", ".", "-1", "9.é", "0009",
    ];
    prop_oneof![
        4 => prop::sample::select(known.to_vec()).prop_map(String::from),
        1 => "[0-9.a\\PC]{0,6}",
    ]
}

fn stack() -> impl Strategy<Value = GpuStack> {
    prop::sample::select(vec![GpuStack::Cuda, GpuStack::Rocm])
}

fn any_request() -> impl Strategy<Value = ResourceRequest> {
    let targets = prop::collection::vec(text(), 0..3);
    let gpu = (stack(), text(), targets, count(), size()).prop_map(
        |(stack, driver_version, hardware_targets, device_count, vram)| GpuRequest {
            stack,
            driver_version,
            hardware_targets,
            device_count,
            vram,
        },
    );
    let sizes = prop::array::uniform5(size());
    (
        count(),
        sizes,
        prop::option::weighted(0.3, gpu),
        prop::sample::select(vec![
            Preemptible::Never,
            Preemptible::Never,
            Preemptible::Only,
            Preemptible::Prefer,
        ]),
    )
        .prop_map(
            |(vcpus, [ram, keep_cache_ram, scratch, image, keep_cache_disk], gpu, preemptible)| {
                ResourceRequest {
                    vcpus,
                    ram,
                    keep_cache_ram,
                    scratch,
                    image,
                    keep_cache_disk,
                    gpu,
                    preemptible,
                }
            },
        )
}

fn any_type() -> impl Strategy<Value = InstanceType> {
    let gpu = (stack(), text(), text(), count(), size()).prop_map(
        |(stack, driver_version, hardware_target, device_count, vram)| Gpu {
            stack,
            driver_version,
            hardware_target,
            device_count,
            vram,
        },
    );
    let price = prop_oneof![Just(0.0), Just(0.1), 0.0..1e9];
    // Names are not always unique, nor always there.
    let name = prop::sample::select(vec!["", "a", "b", "c", "d", "e"]);
    let sizes = prop::array::uniform3(size());
    (
        name,
        count(),
        sizes,
        price,
        prop::option::weighted(0.3, gpu),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(name, vcpus, [ram, included, added], price, gpu, preemptible)| {
                let price = Price::from_units(price).unwrap();
                let mut t = InstanceType::new(name, vcpus, ram, price);
                t.included_scratch = included;
                t.added_scratch = added;
                t.gpu = gpu;
                t.preemptible = preemptible;
                t
            },
        )
}

fn any_config() -> impl Strategy<Value = Config> {
    let factor = prop_oneof![
        prop::sample::select(vec![0.0, -1.0, 1.0, 1.5, f64::NAN, f64::INFINITY]),
        any::<f64>()
    ];
    let fraction = prop_oneof![0.0..1.0, any::<f64>()];
    (
        prop::collection::vec(any_type(), 0..6),
        factor,
        size(),
        count(),
        any::<bool>(),
        fraction,
    )
        .prop_map(|(types, factor, reserve, buffers, records, fraction)| {
            let mut config = Config::new(types);
            config.maximum_price_factor = factor;
            config.reserve_extra_ram = reserve;
            config.keep_buffers_per_vcpu = buffers;
            config.records_placement = records;
            config.supervisor_fraction = fraction;
            config.packing = match buffers % 3 {
                0 => Packing::Fullest,
                1 => Packing::BestFit,
                _ => Packing::CheapestShare,
            };
            config
        })
}

/// The rule by which a type satisfies a container, written once more, clause by clause.
fn satisfies(request: &ResourceRequest, need: &Resources, t: &InstanceType) -> bool {
    let has = t.resources();
    let gpus = match (&request.gpu, &t.gpu) {
        (None, None) => true,
        (Some(want), Some(have)) => {
            let driver = compare_versions(&have.driver_version, &want.driver_version).is_ge();
            let target = match (want.stack, want.hardware_targets.len()) {
                (_, 0) => false,
                (GpuStack::Cuda, 1) => {
                    compare_versions(&have.hardware_target, &want.hardware_targets[0]).is_ge()
                }
                _ => want.hardware_targets.contains(&have.hardware_target),
            };
            want.stack == have.stack
                && want.device_count <= have.device_count
                && want.vram <= have.vram
                && (want.device_count == 0 || driver && target)
        }
        _ => false,
    };
    need.scratch <= has.scratch
        && need.ram <= has.ram
        && need.vcpus <= has.vcpus
        && request.preemptible.allows(t.preemptible)
        && gpus
}

proptest! {
    #![proptest_config(cases(5_000))]

    #[test]
    fn types_are_chosen_by_the_rule(request in any_request(), config in any_config()) {
        let need = need(&request, &config);
        let fits: Vec<&InstanceType> = config.types.iter().filter(|t| satisfies(&request, &need, t)).collect();
        match eligible(&request, &config) {
            Ok(chosen) => {
                // Each market by itself, the preemptible one first.
                let split = chosen.iter().filter(|t| t.preemptible).count();
                for (market, chosen) in [(true, &chosen[..split]), (false, &chosen[split..])] {
                    let fits = || fits.iter().filter(|t| t.preemptible == market);
                    let Some(cheapest) = fits().map(|t| t.price).min() else {
                        prop_assert!(chosen.is_empty());
                        continue;
                    };
                    let cap = cheapest.scaled(config.maximum_price_factor);
                    let within = fits().filter(|t| t.price <= cap).count();
                    prop_assert_eq!(chosen.len(), within);
                    prop_assert!(chosen.iter().all(|t| satisfies(&request, &need, t) && t.price <= cap));
                    prop_assert_eq!(chosen[0].price, cheapest);
                }
                let key = |t: &InstanceType| {
                    let has = t.resources();
                    (!t.preemptible, t.price, std::cmp::Reverse((has.ram, has.vcpus, has.scratch)), t.name.clone())
                };
                prop_assert!(chosen.is_sorted_by_key(|t| key(t)));
            }
            Err(Unsatisfiable::NoTypes) => prop_assert!(config.types.is_empty()),
            Err(error) => {
                prop_assert!(fits.is_empty() && !config.types.is_empty());
                let text = error.to_string();
                let says = text.starts_with("constraints not satisfiable by any configured instance type: ");
                prop_assert!(says, "it says something else");
                let named = config.types.iter().any(|t| text.contains(&(t.name.to_string() + " ")));
                prop_assert!(named, "no type is named");
            }
        }
    }
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![4 => -1i64..4, 1 => prop::sample::select(vec![i64::MIN, i64::MAX]), 1 => any::<i64>()]
}

fn moment() -> impl Strategy<Value = Instant> {
    prop_oneof![4 => (0u64..6).prop_map(at), 1 => Just(Instant::FAR_FUTURE)]
}

fn name() -> impl Strategy<Value = InstanceId> {
    let names = [
        "",
        "w0",
        "w1",
        "w2",
        "an instance with a long name 1",
        "an instance with a long name 2",
    ];
    prop::sample::select(names.to_vec()).prop_map(InstanceId::from)
}

fn any_entry() -> impl Strategy<Value = QueueEntry> {
    let state = prop::sample::select(ContainerState::ALL.to_vec());
    // Few numbers: the same container comes more than once.
    (
        0u32..6,
        state,
        number(),
        number(),
        any_request(),
        count(),
        prop::option::of(name()),
        moment(),
        any::<[bool; 3]>(),
    )
        .prop_map(
            |(n, state, priority, created_at, request, lock_count, place, as_of, flags)| {
                let mut entry = queued(n);
                entry.as_of = as_of;
                entry.call_in_flight = flags[2] && flags[1];
                with(entry, |c| {
                    c.state = state;
                    c.priority = priority;
                    c.created_at = Timestamp(created_at);
                    c.request = request;
                    c.lock_count = lock_count;
                    c.placed_on = place;
                    c.supervisor = flags[0];
                    c.locked_by_us = flags[1];
                })
            },
        )
}

fn any_resources() -> impl Strategy<Value = Resources> {
    (count(), size(), size(), count()).prop_map(|(vcpus, ram, scratch, gpus)| Resources {
        vcpus,
        ram,
        scratch,
        gpus,
    })
}

fn any_worker() -> impl Strategy<Value = WorkerView> {
    use IdleBehavior::{Drain, Hold, Run};
    let state = prop::sample::select(WorkerState::ALL.to_vec());
    let behavior = prop::sample::select(vec![Run, Run, Run, Hold, Drain]);
    let type_name =
        prop::sample::select(vec![None, Some(""), Some("a"), Some("b"), Some("vanished")]);
    let phase = prop::sample::select(vec![
        HeldPhase::Starting,
        HeldPhase::Running,
        HeldPhase::Killing,
        HeldPhase::GivenUp,
        HeldPhase::Stale,
        ended(ExitCause::Killed),
        ended(ExitCause::NotStarted { error: "no".into() }),
    ]);
    let held =
        (0u32..7, count(), phase, any_resources()).prop_map(|(n, attempt, phase, granted)| {
            HeldContainer {
                uuid: uuid(n),
                attempt: Attempt(attempt),
                phase,
                granted,
            }
        });
    let held = prop::collection::vec(held, 0..3);
    (
        name(),
        type_name,
        state,
        behavior,
        any_resources(),
        any_resources(),
        held,
        prop::option::of(moment()),
    )
        .prop_map(
            |(
                instance,
                type_name,
                state,
                idle_behavior,
                capacity,
                granted,
                containers,
                probed_at,
            )| WorkerView {
                instance,
                type_name: type_name.map(TypeName::from),
                state,
                idle_behavior,
                capacity,
                granted,
                containers,
                probed_at,
                last_error: None,
            },
        )
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let names = prop::sample::subsequence(vec!["", "a", "b", "c", "d", "e", "vanished"], 0..=7);
    (
        names,
        any::<bool>(),
        prop::option::of(count()),
        any::<bool>(),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(names, quota, max_containers, evidence, accept_new)| {
            let mut limits = Limits {
                max_containers,
                accept_new,
                absence_is_evidence: evidence,
                ..Limits::default()
            };
            for name in names {
                limits.create_blocked.insert(name.into(), "held off".into());
                if quota {
                    limits.quota_blocked.insert(name.into());
                }
            }
            limits
        })
}

fn any_input() -> impl Strategy<Value = Input> {
    let entries = prop::collection::vec(any_entry(), 0..6);
    let workers = prop::collection::vec(any_worker(), 0..4);
    let pending = (
        0u64..3,
        prop::sample::select(vec!["a", "vanished"]),
        any_resources(),
    )
        .prop_map(|(id, name, capacity)| PendingView {
            id,
            type_name: name.into(),
            capacity,
        });
    let pendings = prop::collection::vec(pending, 0..3);
    (
        any_config(),
        any_limits(),
        entries,
        workers,
        pendings,
        moment(),
    )
        .prop_map(|(config, limits, entries, workers, pendings, now)| Input {
            config,
            limits,
            entries,
            workers,
            pendings,
            now,
        })
}

/// What is started or locked for a worker fits there beside what is granted.
fn never_too_much(input: &Input, actions: &[Action]) -> Result<(), TestCaseError> {
    // Of several views of one worker, or records of one container, the last counts.
    let workers: BTreeMap<&InstanceId, &WorkerView> =
        input.workers.iter().map(|w| (&w.instance, w)).collect();
    let entries: BTreeMap<ContainerUuid, &QueueEntry> = input
        .entries
        .iter()
        .map(|e| (e.container.uuid, e))
        .collect();
    let mut promised: BTreeMap<&InstanceId, Resources> = BTreeMap::new();
    for action in actions {
        let (uuid, instance) = match action {
            Action::Start { uuid, instance, .. }
            | Action::Place { uuid, instance }
            | Action::Lock {
                uuid,
                instance: Some(instance),
            } => (uuid, instance),
            _ => continue,
        };
        let worker = workers[instance];
        prop_assert!(worker.takes_containers(), "{:?} takes nothing", action);
        let sum = promised.entry(instance).or_insert(worker.granted);
        let need = need(&entries[uuid].container.request, &input.config);
        // Of what is granted beyond the capacity already, there is just nothing left.
        let spare = worker.capacity.saturating_sub(*sum);
        prop_assert!(need.fits_in(&spare), "{:?} is too much", action);
        *sum = sum.saturating_add(need);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn whatever_comes_is_planned(input in any_input()) {
        let done = plan(&input);
        never_too_much(&input, &done.actions)?;
        let uuids: BTreeSet<ContainerUuid> = input.entries.iter().map(|e| e.container.uuid).collect();
        prop_assert_eq!(done.reasons.keys().copied().collect::<BTreeSet<_>>(), uuids);
        let creates = done.actions.iter().filter(|a| matches!(a, Action::Create { .. })).count();
        prop_assert!(creates <= input.entries.len());
    }

    #[test]
    fn whatever_comes_and_goes_is_kept_in_order(
        config in any_config(),
        news in prop::collection::vec(prop_oneof![
            4 => any_entry().prop_map(News::Entry),
            4 => any_worker().prop_map(News::Worker),
            1 => (0u32..7).prop_map(News::NoEntry),
            1 => (0u32..7, moment()).prop_map(|(n, at)| News::Absent(n, at)),
            1 => name().prop_map(News::NoWorker),
            1 => (0u64..3).prop_map(News::Pending),
            1 => (0u64..3).prop_map(News::NoPending),
            1 => any_limits().prop_map(News::Limits),
            2 => any::<bool>().prop_map(News::Drain),
        ], 0..20),
    ) {
        let mut core = Core::new(config);
        for (step, news) in news.into_iter().enumerate() {
            let now = at(u64::try_from(step).unwrap());
            match news {
                News::Entry(entry) => core.upsert_entry(entry, now),
                News::Worker(view) => core.upsert_worker(view, now),
                News::NoEntry(n) => core.remove_entry(uuid(n), now),
                News::Absent(n, at) => core.confirm_absent(uuid(n), at, now),
                News::NoWorker(id) => core.remove_worker(&id, now),
                News::Pending(id) => core.upsert_pending(pending_of(id), now),
                News::NoPending(id) => core.remove_pending(id, now),
                News::Limits(limits) => core.set_limits(limits, now),
                News::Drain(fails) => {
                    for action in drain(&mut core, now) {
                        if fails {
                            core.action_failed(&action, "no", now);
                        }
                    }
                }
            }
            core.check_invariants().unwrap();
        }
        drain(&mut core, at(10_000));
        for uuid in core.waiting().collect::<Vec<_>>() {
            prop_assert!(core.reason(uuid, at(10_000)).is_some());
            prop_assert!(core.position(uuid).is_some());
        }
    }
}

#[derive(Clone, Debug)]
enum News {
    Entry(QueueEntry),
    Worker(WorkerView),
    NoEntry(u32),
    Absent(u32, Instant),
    NoWorker(InstanceId),
    Pending(u64),
    NoPending(u64),
    Limits(Limits),
    Drain(bool),
}

fn pending_of(id: u64) -> PendingView {
    PendingView {
        id,
        type_name: "a".into(),
        capacity: Resources {
            vcpus: 4,
            ram: ByteSize::gib(999),
            scratch: ByteSize::gib(999),
            gpus: 1,
        },
    }
}

/// Ten thousand types at one price, each held off for a reason of its own.
#[test]
fn ten_thousand_types_all_held_off() {
    let name = |n: u32| format!("type{n:05}");
    let types: Vec<InstanceType> = (0..10_000)
        .map(|n| InstanceType::new(name(n), 4, ByteSize::gib(16), Price::default()))
        .collect();
    let mut core = Core::new(Config::new(types));
    let mut limits = Limits::default();
    for n in 0..10_000 {
        limits
            .create_blocked
            .insert(name(n).as_str().into(), format!("cause {n}"));
    }
    core.set_limits(limits.clone(), at(1));
    for n in 0..100 {
        core.upsert_entry(queued(n), at(1));
    }
    assert_eq!(drain(&mut core, at(1)), []);
    let Some(Reason::NoRoom {
        types,
        create_blocked_by,
        ..
    }) = core.reason(uuid(1), at(1))
    else {
        panic!("there is no room");
    };
    assert_eq!(types.len(), 10_000);
    assert!(
        create_blocked_by.contains("cause 0; cause 1"),
        "{create_blocked_by:.100}"
    );
    limits.create_blocked.remove(&name(7_777).as_str().into());
    core.set_limits(limits, at(2));
    let actions = briefs(&mut core, at(2));
    assert!(!actions.is_empty() && actions.iter().all(|a| a == "create type07777"));
}

/// The type of an instance vanishes from the configuration: what runs there goes on, nothing new
/// comes.
#[test]
fn a_type_that_vanished() {
    let mut view = holding(idle("a", "small"), 1, 1, HeldPhase::Running);
    view.type_name = Some("vanished".into());
    let mut core = Core::new(config());
    core.upsert_entry(running(1, "a"), at(1));
    core.upsert_entry(queued(2), at(1));
    core.upsert_worker(view, at(1));
    assert_eq!(briefs(&mut core, at(1)), ["create small"]);
    assert_eq!(core.reason(uuid(1), at(1)), Some(Reason::NotWaiting));
}

/// Priorities and times beyond all bounds order the line like any other number.
#[test]
fn the_line_is_total_whatever_the_numbers() {
    let entries = [
        with(queued(1), |c| c.priority = i64::MAX),
        with(queued(2), |c| c.priority = i64::MAX - 1),
        with(queued(3), |c| c.created_at = Timestamp(i64::MIN)),
        with(queued(4), |c| c.created_at = Timestamp(0)),
        with(queued(5), |c| c.created_at = Timestamp(i64::MAX)),
        with(queued(6), |c| c.priority = i64::MIN),
    ];
    let mut core = Core::new(config());
    for entry in entries {
        core.upsert_entry(entry, at(1));
    }
    drain(&mut core, at(1));
    assert_eq!(
        core.waiting().collect::<Vec<_>>(),
        [1, 2, 3, 4, 5].map(uuid)
    );
    assert_eq!(core.reason(uuid(6), at(1)), Some(Reason::PriorityZero));
}
