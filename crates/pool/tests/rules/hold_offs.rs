//! What may not be created for a while, and why that ends.

use longshore_cloud::{ErrorKind, Scope};
use longshore_pool::*;
use longshore_types::*;

use crate::common::*;

fn refuse(rig: &mut Rig, kind: ErrorKind) {
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    rig.answer(is_create, Outcome::Created(Err(failure(kind, false))));
}

fn refused(rig: &Rig, name: &str) -> Option<Refusal> {
    rig.core.create_refusal(&name.into(), rig.now)
}

#[test]
fn a_lack_of_capacity_holds_off_exactly_its_scope() {
    let mut config = config();
    let mut spot = instance_type("spot", 4);
    spot.preemptible = true;
    config.types.push(spot);
    config.quota_groups = [("small", "standard"), ("spot", "standard"), ("big", "gpu")]
        .map(|(name, group)| (name.into(), group.to_owned()))
        .into();
    for (scope, held) in [
        (Scope::Everything, vec!["small", "big", "spot"]),
        (Scope::Type("small".into()), vec!["small"]),
        (Scope::Market(Market::OnDemand), vec!["small", "big"]),
        (
            Scope::QuotaGroup("standard".into(), Market::OnDemand),
            vec!["small"],
        ),
        (
            Scope::QuotaGroup("standard".into(), Market::Preemptible),
            vec!["small", "spot"],
        ),
        // What was asked for is held off, too, whatever the driver takes for its scope.
        (Scope::Type("m.small".into()), vec!["small"]),
        (Scope::Type("big".into()), vec!["small", "big"]),
        (Scope::Zone("z".into()), vec!["small"]),
    ] {
        let mut rig = Rig::ready(config.clone());
        refuse(&mut rig, ErrorKind::NoCapacity(scope.clone()));
        for name in ["small", "big", "spot"] {
            assert_eq!(
                refused(&rig, name).is_some(),
                held.contains(&name),
                "{scope} {name}"
            );
        }
        rig.changed.clear();
        rig.wait(seconds(60));
        assert!(refused(&rig, "small").is_none(), "{scope}");
        assert!(rig.changed.contains(&Changed::CreateGate));
    }
}

#[test]
fn a_shorter_hold_off_never_shortens_a_longer_one() {
    let mut rig = Rig::ready(config());
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.drain();
    for pause in [100, 5] {
        let kind = ErrorKind::RateLimited {
            retry_after: Some(seconds(pause)),
        };
        rig.answer(is_create, Outcome::Created(Err(failure(kind, false))));
    }
    rig.wait(seconds(99));
    assert!(matches!(
        refused(&rig, "big"),
        Some(Refusal::HeldOff { .. })
    ));
    rig.wait(seconds(2));
    assert!(refused(&rig, "big").is_none());
}

#[test]
fn after_a_quota_one_create_tries_and_successes_double_what_may_follow() {
    let mut rig = Rig::ready(config());
    refuse(&mut rig, ErrorKind::QuotaExceeded(Scope::Everything));
    assert!(matches!(
        refused(&rig, "big"),
        Some(Refusal::HeldOff { .. })
    ));
    rig.wait(seconds(61));
    rig.core.create(&"small".into(), rig.now).unwrap();
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::Trial { .. })
    ));
    rig.drain();
    // Still full: the next pause is longer.
    let full = ErrorKind::QuotaExceeded(Scope::Everything);
    rig.answer(is_create, Outcome::Created(Err(failure(full, false))));
    rig.wait(seconds(100));
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::HeldOff { .. })
    ));
    rig.wait(seconds(30));
    rig.booting("a");
    rig.core.create(&"small".into(), rig.now).unwrap();
    rig.core.create(&"small".into(), rig.now).unwrap();
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::Trial { .. })
    ));
}

#[test]
fn a_quota_hold_off_ends_when_there_are_fewer_instances_than_after_the_last_create() {
    let mut config = config();
    config.consistency_grace = seconds(10);
    let mut rig = Rig::ready(config);
    for _ in 0..3 {
        rig.core.create(&"small".into(), rig.now).unwrap();
    }
    rig.drain();
    let full = ErrorKind::QuotaExceeded(Scope::Everything);
    rig.answer(is_create, Outcome::Created(Err(failure(full, false))));
    // Two more that were under way succeed: they are what the quota holds.
    for id in ["a", "b"] {
        let effect = rig.take(is_create);
        let EffectAction::Create(request) = &effect.action else {
            unreachable!()
        };
        let mut made = listed(id, "small", "", "run");
        made.tags.extend(request.tags.clone());
        rig.outcome(&effect, Outcome::Created(Ok(Box::new(made))));
    }
    // 3 creates, one refused: the quota holds two machines. One of them goes.
    assert!(refused(&rig, "small").is_some());
    rig.core.shut_down(&"a".into(), "test", rig.now).unwrap();
    rig.drain();
    rig.answer(is_destroy, Outcome::Destroyed(vec![("a".into(), Ok(()))]));
    rig.cloud = vec![listed("b", "small", "", "run")];
    rig.wait(seconds(12));
    assert!(refused(&rig, "small").is_some());
    rig.wait(seconds(12));
    assert!(rig.view("a").is_none());
    assert!(refused(&rig, "small").is_none(), "before its time is over");
}

#[test]
fn instances_that_do_not_boot_hold_off_their_type() {
    let mut rig = Rig::ready(config());
    for n in 0..3 {
        assert!(refused(&rig, "small").is_none());
        rig.booting(&format!("i-{n}"));
    }
    rig.pass(seconds(640), |action| {
        is_boot(action).then(|| Outcome::Booted(Err(badly())))
    });
    assert!(matches!(
        refused(&rig, "small"),
        Some(Refusal::HeldOff { .. })
    ));
    assert!(refused(&rig, "big").is_none());
}
