//! Input that nobody should ever give: what providers, hosts, runners and clocks may say on a bad
//! day. Each does as little harm as it can, to as few as it can.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::time::Duration;

use common::*;
use longshore_cloud::{ErrorKind, Instance, InstanceState, Scope};
use longshore_pool::*;
use longshore_types::*;
use proptest::prelude::*;

fn megabyte() -> String {
    "x\n".repeat(1 << 19)
}

/// Adopts whatever the cloud lists now.
fn look(rig: &mut Rig) {
    if rig.find(is_list).is_none() {
        rig.wait(seconds(61));
    } else {
        rig.answer_list();
    }
}

fn texts(rig: &Rig) -> Vec<String> {
    let events = rig.events.iter();
    events
        .filter_map(|event| match event {
            Event::Alarm { text } => Some(text.clone()),
            Event::CreateFailed { error, .. } | Event::NotStarted { error, .. } => {
                Some(error.clone())
            }
            _ => None,
        })
        .collect()
}

fn assert_bounded(rig: &Rig) {
    for text in texts(rig) {
        assert!(text.chars().count() <= 1100, "{} bytes", text.len());
        assert!(!text.contains('\n'), "{text:?}");
    }
    for worker in rig.core.workers() {
        let error = worker.last_error.unwrap_or_default();
        assert!(error.chars().count() <= 1100 && !error.contains('\n'));
    }
    let debugged = format!("{:?}", rig.core);
    assert!(
        debugged.len() < 200_000,
        "{} bytes are kept",
        debugged.len()
    );
}

#[test]
fn a_listing_of_nonsense_adds_only_what_can_be_used() {
    let mut rig = Rig::ready(config());
    let mut foreign = listed("theirs", "small", "s", "run");
    foreign.tags.remove("ArvadosInstanceSetID");
    let mut tagged = listed("tags", "small", "secret 1", "run");
    tagged.tags.insert("Other".into(), megabyte());
    tagged.tags.insert("ArvadosIdleBehavior".into(), megabyte());
    rig.cloud = vec![
        listed("", "small", "s", "run"),
        listed(&megabyte(), "small", "s", "run"),
        listed("a\nb", "small", "s", "run"),
        foreign,
        tagged,
        listed("twice", "small", "secret 2", "run"),
        listed("twice", "small", "secret 2", "run"),
        listed("secret", "small", &megabyte(), "run"),
    ];
    look(&mut rig);
    let ids: Vec<String> = rig.core.workers().map(|w| w.instance.to_string()).collect();
    assert_eq!(ids, ["secret", "tags", "twice"]);
    assert_eq!(rig.alarms(), 1, "{:?}", texts(&rig));
    look(&mut rig);
    assert_eq!(rig.alarms(), 1, "the same again is not news");
    let boot = rig.take(on("secret", is_boot));
    let EffectAction::Boot(host) = boot.action else {
        unreachable!()
    };
    assert_eq!(host.secret, None);
    assert_bounded(&rig);
}

#[test]
fn an_address_or_a_user_that_is_none_harms_only_its_own_instance() {
    let mut rig = Rig::ready(config());
    for (id, address, user) in [
        ("a", "10.0.0.1\n10.0.0.2", None),
        ("b", "$(reboot)", None),
        ("c", "-oProxyCommand=reboot", None),
        ("d", "10.0.0.4", Some("root; reboot")),
        ("e", "10.0.0.5", None),
    ] {
        let mut instance = listed(id, "small", id, "run");
        instance.address = Some(address.into());
        instance.remote_user = user.map(str::to_owned);
        rig.cloud.push(instance);
    }
    look(&mut rig);
    let asked: Vec<(String, String)> = rig
        .effects
        .iter()
        .filter_map(|effect| effect.action.host())
        .map(|host| (host.instance.to_string(), host.user.clone()))
        .collect();
    let expected = [("d", "root"), ("e", "root")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(asked, expected);
    for id in ["a", "b", "c", "d"] {
        let error = rig.view(id).unwrap().last_error.unwrap();
        assert!(error.contains("the provider gives"), "{error}");
    }
    // Once the provider knows better, it is reached.
    rig.cloud[0].address = Some("10.0.0.1".into());
    look(&mut rig);
    assert!(rig.find(on("a", is_boot)).is_some());
}

#[test]
fn a_created_instance_without_a_usable_id_is_looked_for_not_believed() {
    for id in ["", "a\nb", &megabyte()] {
        let mut rig = Rig::ready(config());
        rig.core.create(&"small".into(), rig.now).unwrap();
        rig.drain();
        let made = Instance::new(id, "s1", InstanceState::Running, [].into());
        rig.answer(is_create, Outcome::Created(Ok(Box::new(made))));
        assert_eq!(rig.core.workers().count(), 0);
        assert_eq!(rig.core.pendings().count(), 1, "it may exist");
        assert_bounded(&rig);
    }
}

/// create A answers `a`; something is started there; create B answers `a` too. If that made `a` a
/// new worker, what runs on it would be called lost and run twice.
#[test]
fn an_id_that_is_given_twice_does_not_lose_what_runs() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let effect = rig.take(is_create);
    let EffectAction::Create(request) = &effect.action else {
        unreachable!()
    };
    let state = InstanceState::Running;
    let made = Instance::new("a", "s1", state, request.tags.clone());
    // The listing agrees with the second create.
    rig.cloud[0].tags = request.tags.clone();
    rig.outcome(&effect, Outcome::Created(Ok(Box::new(made))));
    look(&mut rig);
    assert_eq!(rig.state("a"), WorkerState::Running);
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
    assert_eq!(rig.ended(1), []);
    assert_eq!(rig.core.pendings().count(), 0);
    assert!(rig.has_event(|event| matches!(event, Event::CreateFailed { .. })));
    assert_eq!(rig.alarms(), 1);
}

/// An id is given twice, and listings show the second machine. If its address were taken for that
/// of the first, it would be asked what runs there, and what it does not have be called lost.
#[test]
fn a_machine_that_has_the_id_of_a_busy_one_is_not_asked_in_its_place() {
    for state in [
        InstanceState::Running,
        InstanceState::Gone,
        InstanceState::Stopping,
    ] {
        let mut rig = Rig::ready(config());
        rig.idle("a");
        rig.run("a", 1);
        let mut other = listed("a", "small", "secret of another", "run");
        other.address = Some("elsewhere.example:22".into());
        other.state = state;
        rig.cloud = vec![other];
        look(&mut rig);
        rig.report("a", vec![running(1, 1)]);
        let report = rig.find(on("a", is_report)).unwrap();
        let host = report.action.host().unwrap();
        assert_eq!(host.address, "a.example:22");
        assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
        assert_eq!(rig.ended(1), []);
    }
}

#[test]
fn a_listing_that_shows_a_pending_secret_on_a_busy_worker_does_not_lose_what_runs() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    let effect = rig.find(is_create).unwrap();
    let EffectAction::Create(request) = &effect.action else {
        unreachable!()
    };
    rig.cloud[0].tags = request.tags.clone();
    look(&mut rig);
    assert_eq!(rig.state("a"), WorkerState::Running);
    assert_eq!(rig.ended(1), []);
    assert_eq!(rig.core.pendings().count(), 1);
}

#[test]
fn a_megabyte_of_error_is_one_line_wherever_it_comes_from() {
    let mut rig = Rig::ready(config());
    let cloud = |kind, may_have_acted| CloudFailure {
        kind,
        may_have_acted,
        error: megabyte(),
    };
    rig.core.create(&"big".into(), rig.now).unwrap();
    rig.drain();
    let kind = ErrorKind::NoCapacity(Scope::QuotaGroup(megabyte(), Market::OnDemand));
    rig.answer(is_create, Outcome::Created(Err(cloud(kind, false))));
    rig.adopted("a");
    let host = || HostFailure {
        unreachable: false,
        ours: false,
        error: megabyte(),
    };
    rig.answer(on("a", is_boot), Outcome::Booted(Err(host())));
    rig.answer(on("a", is_deploy), Outcome::Deployed(Err(host())));
    rig.idle("b");
    rig.start("b", 1, 1).unwrap();
    let error = megabyte();
    let outcome = Outcome::Started(StartOutcome::NotStarted { error });
    rig.answer(is_start, outcome);
    rig.start("b", 2, 1).unwrap();
    rig.kill("b", 2);
    let error = megabyte();
    rig.answer(is_kill, Outcome::Killed(KillOutcome::Unknown { error }));
    let report = RunnerReport {
        containers: vec![ContainerReport {
            uuid: uuid(3),
            attempt: Attempt(1),
            state: ReportedState::Finished(Exit::unseen(ExitCause::NotStarted {
                error: megabyte(),
            })),
        }],
        broken: Some(megabyte()),
        digest: megabyte(),
    };
    rig.answer(on("b", is_report), Outcome::Reported(Ok(report)));
    rig.core
        .shut_down(&"b".into(), &megabyte(), rig.now)
        .unwrap();
    for _ in 0..3 {
        rig.wait(seconds(61));
        if let Some(list) = rig.find(is_list) {
            rig.take(is_list);
            rig.outcome(&list, Outcome::Listed(Err(cloud(ErrorKind::Other, false))));
        }
    }
    rig.effects.clear();
    assert_bounded(&rig);
}

#[test]
fn a_report_of_more_containers_than_can_be_is_no_report() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    let claims = (10..5000).map(|n| finished(n, 1)).collect();
    rig.report("a", claims);
    let view = rig.view("a").unwrap();
    assert_eq!(view.containers.len(), 1, "nothing of it was taken");
    assert!(view.last_error.unwrap().contains("4990 containers"));
    assert_eq!(rig.phase("a", 1), Some(HeldPhase::Running));
}

#[test]
fn a_provider_that_says_wait_for_ever_is_asked_again_within_the_hour() {
    let mut rig = Rig::ready(config());
    let kind = ErrorKind::RateLimited {
        retry_after: Some(Duration::MAX),
    };
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    rig.answer(is_create, Outcome::Created(Err(failure(kind, false))));
    assert!(rig.core.create(&"small".into(), rig.now).is_err());
    rig.wait(seconds(3601));
    assert!(rig.core.create(&"small".into(), rig.now).is_ok());
}

#[test]
fn results_for_others_and_missing_ones_do_not_count_as_destroyed() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    let others = (0..100_000).map(|n| (format!("i-{n}").into(), Ok(())));
    rig.answer(is_destroy, Outcome::Destroyed(others.collect()));
    rig.cloud.clear();
    rig.wait(seconds(5));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
    rig.wait(seconds(10));
    assert!(rig.find(is_destroy).is_some(), "it is destroyed again");
}

#[test]
fn a_clock_that_goes_back_or_to_its_end_breaks_nothing() {
    let mut rig = Rig::ready(config());
    rig.idle("a");
    rig.run("a", 1);
    rig.core.handle_timeout(Instant::ZERO);
    rig.core.create(&"small".into(), Instant::ZERO).unwrap();
    rig.drain();
    let end = Instant::FAR_FUTURE;
    rig.core.handle_sleep(Duration::MAX, end);
    rig.core.handle_timeout(end);
    rig.drain();
    assert!(rig.core.poll_timeout().is_none(), "nothing is due for ever");
    for _ in 0..100 {
        rig.core.handle_timeout(end);
        rig.drain();
    }
    assert!(rig.effects.len() < 20, "{} effects", rig.effects.len());
    rig.now = end;
    rig.report("a", vec![running(1, 1)]);
    assert_eq!(rig.state("a"), WorkerState::Running);
    assert!(rig.core.poll_timeout().is_none());
}

#[test]
fn a_listing_of_very_many_instances_is_taken_whole_and_their_silence_is_our_fault() {
    let mut config = config();
    config.max_instances = 10;
    let mut rig = Rig::new(config);
    let count = 20_000;
    rig.cloud = (0..count)
        .map(|n| listed(&format!("i-{n}"), "small", &format!("s-{n}"), "run"))
        .collect();
    rig.answer_list();
    assert_eq!(rig.core.workers().count(), count);
    assert_eq!(rig.effects.len(), 1000, "as many probes as may be");
    let refused = rig.core.create(&"small".into(), rig.now);
    assert!(matches!(refused, Err(Refusal::MaxInstances { .. })));
    // Nobody answers; then all boots are over at the same moment. That is our fault, not theirs.
    let mut answered = 0;
    let mut effects = std::mem::take(&mut rig.effects);
    while answered < count {
        for effect in std::mem::take(&mut effects) {
            answered += 1;
            let outcome = Outcome::Booted(Err(unreachable()));
            rig.core.handle_outcome(effect.id, outcome, rig.now);
            effects.extend(std::iter::from_fn(|| rig.core.poll_effect()));
        }
    }
    rig.core.handle_timeout(rig.now + seconds(601));
    assert!(
        rig.core
            .workers()
            .all(|worker| worker.state == WorkerState::Unknown)
    );
    rig.core.check_invariants().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the settings, the core does what it is told without a panic, and comes to rest.
    #[test]
    fn absurd_settings_break_nothing(
        durations in prop::collection::vec(
            prop::sample::select(vec![Duration::ZERO, Duration::from_nanos(1), SECOND, Duration::MAX]),
            14,
        ),
        limits in prop::collection::vec(prop::sample::select(vec![0, 1, usize::MAX]), 3),
        steps in prop::collection::vec((0..6u8, prop::sample::select(vec![0, 1, u64::MAX])), 1..40),
    ) {
        let mut config = config();
        let fields = [
            &mut config.report_wait, &mut config.probe_interval, &mut config.sync_interval,
            &mut config.timeout_idle, &mut config.timeout_booting, &mut config.timeout_probe,
            &mut config.timeout_shutdown, &mut config.timeout_signal, &mut config.timeout_term,
            &mut config.timeout_stale, &mut config.consistency_grace, &mut config.create_grace,
            &mut config.command_timeout, &mut config.cloud_call_timeout,
        ];
        for (field, duration) in fields.into_iter().zip(durations) {
            *field = duration;
        }
        config.max_instances = limits[0];
        config.max_creates_in_flight = limits[1];
        config.max_probes_in_flight = limits[2];
        let _ = config.validate();
        let mut rig = Rig::new(config);
        for (op, nanos) in steps {
            rig.now = rig.now.max(Instant::from_nanos(rig.now.as_nanos().saturating_add(nanos)));
            match op {
                0 => { let _ = rig.core.create(&"small".into(), rig.now); }
                1 => rig.core.handle_timeout(Instant::from_nanos(nanos)),
                2 => rig.core.handle_sleep(Duration::from_nanos(nanos), rig.now),
                3 => { let _ = rig.start("i-0", 1, 1); }
                _ => if let Some(effect) = rig.effects.pop() {
                    let outcome = match &effect.action {
                        EffectAction::Create(request) => {
                            let mut made = listed("i-0", "small", "", "run");
                            made.tags = request.tags.clone();
                            Outcome::Created(Ok(Box::new(made)))
                        }
                        EffectAction::Boot(_) => Outcome::Booted(Ok(())),
                        EffectAction::Deploy(..) => Outcome::Deployed(Ok(())),
                        EffectAction::Report(..) => report(vec![]),
                        action => gone(action).unwrap_or_else(|| action.lost("test")),
                    };
                    rig.core.handle_outcome(effect.id, outcome, rig.now);
                },
            }
            rig.drain();
        }
        prop_assert!(rig.effects.len() < 1000);
    }
}
