//! Each setting has an effect that a user of the instance set sees.

mod common;

use std::time::Duration;

use common::{Lab, SECOND, context, preemptible, request, tags, typed};
use longshore_cloud::{Capabilities, ErrorKind, InstanceSet, InstanceState, Scope, Tags};
use longshore_fakecloud::{
    CallKind, CapacityHole, Chance, Clock, Latency, Quota, RateLimit, Settings, Spread,
};
use longshore_types::{HostKeyVerdict, Instant, Market, Price, Timestamp};

#[test]
fn a_repeated_token_makes_one_instance_where_that_is_promised() {
    let lab = Lab::instant();
    assert_eq!(lab.made("a").id, lab.made("a").id);
    assert_ne!(lab.made("a").id, lab.made("b").id);
    let other = typed("a", |kind| kind.provider_type = "s2".into());
    assert_eq!(lab.refused(&other), ErrorKind::InvalidRequest);
    // A token is remembered after the instance is gone.
    let first = lab.made("a");
    lab.destroy(std::slice::from_ref(&first.id));
    let again = lab.made("a");
    assert_eq!((&again.id, again.state), (&first.id, InstanceState::Gone));

    let lab = Lab::new(Settings::instant().with_capabilities(Capabilities::new()));
    assert_ne!(lab.made("a").id, lab.made("a").id);
    assert_eq!(lab.list().len(), 2);
}

#[test]
fn tags_come_late_where_they_are_not_promised_at_birth() {
    let capabilities = Capabilities::new().with_consistent_listing();
    let settings = Settings::instant().with_capabilities(capabilities);
    let lab = Lab::new(settings.with_tag_delay(SECOND * 3));
    assert!(lab.made("a").tags.is_empty());
    let wanted = request("a").tags;
    let found = || lab.clock.run(lab.cloud.list(&context(), &wanted)).unwrap();
    assert_eq!((lab.list().len(), found().len()), (1, 0));
    lab.pass(SECOND * 3);
    assert_eq!(found().len(), 1);
}

#[test]
fn listings_lag_where_they_are_not_promised_to_be_consistent() {
    let capabilities = Capabilities::new().with_tags_at_birth();
    let settings = Settings::instant().with_capabilities(capabilities);
    let lab = Lab::new(settings.with_listing_lag(SECOND * 5));
    let made = lab.made("a");
    assert!(lab.list().is_empty());
    lab.pass(SECOND * 5);
    assert_eq!(lab.list().len(), 1);
    lab.destroy(&[made.id]);
    assert_eq!(lab.list()[0].state, InstanceState::Running);
    lab.pass(SECOND * 5);
    assert!(lab.list().is_empty());
}

#[test]
fn host_keys_are_told_once_an_instance_has_booted() {
    let lab = Lab::new(Settings::instant().with_boot(SECOND));
    let (one, two) = (lab.made("a").id, lab.made("b").id);
    let key = |id| lab.cloud.with(|cloud, _| cloud.host_key(id).unwrap());
    let verify = |id, key| {
        let (context, key) = (context(), key);
        lab.clock.run(lab.cloud.verify_host_key(&context, id, &key))
    };
    assert_eq!(
        verify(&one, key(&one)).unwrap(),
        HostKeyVerdict::Unsupported
    );
    lab.pass(SECOND);
    assert_eq!(verify(&one, key(&one)).unwrap(), HostKeyVerdict::Match);
    assert_eq!(verify(&one, key(&two)).unwrap(), HostKeyVerdict::Mismatch);
    let nobody = verify(&"nobody".into(), key(&two)).unwrap_err();
    assert_eq!(nobody.kind, ErrorKind::NotFound);

    let lab = Lab::new(Settings::instant().with_capabilities(Capabilities::new()));
    let id = lab.made("a").id;
    let key = lab.cloud.with(|cloud, _| cloud.host_key(&id).unwrap());
    let verdict = lab
        .clock
        .run(lab.cloud.verify_host_key(&context(), &id, &key));
    assert_eq!(verdict.unwrap(), HostKeyVerdict::Unsupported);
}

#[test]
fn batches_have_the_size_that_was_declared() {
    let capabilities = Capabilities::new().with_destroy_batch(2).with_tag_batch(1);
    let lab = Lab::new(Settings::instant().with_capabilities(capabilities));
    let ids = [lab.made("a").id, lab.made("b").id, lab.made("c").id];
    assert_eq!(lab.destroy(&ids), vec![Err(ErrorKind::InvalidRequest); 3]);
    assert_eq!(lab.list().len(), 3);
    assert_eq!(lab.destroy(&ids[..2]), [Ok(()), Ok(())]);
    let change = |id: &longshore_types::InstanceId| (id.clone(), tags("k", "v"));
    let both = [change(&ids[2]), change(&ids[2])];
    assert_eq!(lab.set_tags(&both), vec![Err(ErrorKind::InvalidRequest); 2]);
    assert_eq!(lab.set_tags(&both[..1]), [Ok(())]);
}

#[test]
fn calls_take_their_time_and_end_in_time() {
    let latency = Latency::new(SECOND, SECOND * 2);
    let slow = Latency::new(Spread::ZERO, SECOND * 60);
    let settings = Settings::instant().with_latency(latency);
    let lab = Lab::new(settings.with_latency_of(CallKind::Create, slow));
    lab.list();
    assert_eq!(lab.clock.now(), Instant::ZERO + SECOND * 3);
    assert_eq!(lab.refused(&request("a")), ErrorKind::TimedOut);
    assert_eq!(lab.clock.now(), Instant::ZERO + SECOND * 13);
    assert_eq!(lab.list().len(), 1, "it acted all the same");
}

#[test]
fn each_page_of_a_listing_takes_time() {
    let latency = Latency::new(Spread::ZERO, SECOND);
    let settings = Settings::instant().with_latency_of(CallKind::List, latency);
    let lab = Lab::new(settings.with_page_size(2));
    (0..5).for_each(|i| drop(lab.made(&i.to_string())));
    assert_eq!(lab.list().len(), 5);
    assert_eq!(lab.clock.now(), Instant::ZERO + SECOND * 3);
}

#[test]
fn an_instance_gets_an_address_then_boots_then_dies_by_stages() {
    let settings = Settings::instant().with_address_delay(SECOND * 5);
    let settings = settings.with_boot(SECOND * 30).with_stopping(SECOND * 10);
    let lab = Lab::new(settings.with_gone(SECOND * 60).with_remote_user("admin"));
    let made = lab.made("a");
    assert_eq!((made.state, &made.address), (InstanceState::Pending, &None));
    lab.pass(SECOND * 5);
    let listed = lab.list().remove(0);
    assert_eq!(listed.state, InstanceState::Running);
    assert!(listed.address.is_some());
    assert_eq!(listed.remote_user.as_deref(), Some("admin"));
    assert!(!lab.cloud.is_booted(&made.id));
    lab.pass(SECOND * 25);
    assert!(lab.cloud.is_booted(&made.id));
    lab.destroy(std::slice::from_ref(&made.id));
    assert_eq!(lab.list()[0].state, InstanceState::Stopping);
    assert!(!lab.cloud.is_booted(&made.id));
    lab.pass(SECOND * 10);
    assert_eq!(lab.list()[0].state, InstanceState::Gone);
    lab.pass(SECOND * 60);
    assert!(lab.list().is_empty());
    assert_eq!(
        lab.destroy(&[made.id.clone(), "nobody".into()]),
        [Ok(()), Ok(())]
    );
    let change = [(made.id, tags("k", "v"))];
    assert_eq!(lab.set_tags(&change), [Err(ErrorKind::NotFound)]);
}

#[test]
fn some_instances_never_boot() {
    let lab = Lab::new(Settings::instant().with_never_boots(Chance::percent(30)));
    for i in 0..500 {
        lab.made(&i.to_string());
    }
    lab.pass(SECOND * 86_400);
    let booted = lab
        .cloud
        .instances()
        .iter()
        .filter(|i| i.booted.is_some())
        .count();
    assert!((300..=400).contains(&booted), "{booted}");
    assert!(lab.list().iter().all(|i| i.state == InstanceState::Running));
}

#[test]
fn quotas_count_instances_and_vcpus_by_scope_until_they_are_gone() {
    let group = Scope::QuotaGroup("standard".into(), Market::OnDemand);
    let settings = Settings::instant()
        .with_quota_group("s1", "standard")
        .with_quota(Quota::vcpus(group.clone(), 5))
        .with_quota(Quota::instances(Scope::Type("tiny".into()), 1))
        .with_quota(Quota::instances(Scope::Everything, 5))
        .with_stopping(SECOND);
    let lab = Lab::new(settings);
    let two = |token| typed(token, |kind| kind.vcpus = 2);
    let first = lab.create(&two("a")).unwrap();
    lab.create(&two("b")).unwrap();
    assert_eq!(lab.refused(&two("c")), ErrorKind::QuotaExceeded(group));
    lab.made("d");
    let mut spot = preemptible("e");
    spot.instance_type.vcpus = 100;
    lab.create(&spot).unwrap();
    let tiny = |token| {
        typed(token, |kind| {
            kind.provider_type = "t1".into();
            kind.name = "tiny".into();
        })
    };
    lab.create(&tiny("f")).unwrap();
    let everything = ErrorKind::QuotaExceeded(Scope::Everything);
    assert_eq!(lab.refused(&tiny("g")), everything);
    lab.destroy(&[first.id]);
    assert_eq!(lab.refused(&tiny("g")), everything);
    lab.pass(SECOND);
    let of_type = ErrorKind::QuotaExceeded(Scope::Type("tiny".into()));
    assert_eq!(lab.refused(&tiny("g")), of_type);
    lab.create(&two("h")).unwrap();
    let small = request("i").instance_type;
    assert_eq!(lab.cloud.quota_group(&small).as_deref(), Some("standard"));
}

#[test]
fn capacity_is_lacking_for_a_time() {
    let at = |seconds| Instant::ZERO + SECOND * seconds;
    let market = Scope::Market(Market::Preemptible);
    let settings = Settings::instant()
        .with_hole(CapacityHole::new(market.clone(), at(10), at(20)))
        .with_hole(CapacityHole::new(Scope::Zone("a".into()), at(0), at(100)))
        .with_hole(CapacityHole::new(Scope::Zone("b".into()), at(50), at(100)))
        .with_zone("a")
        .with_zone("b");
    let lab = Lab::new(settings);
    for i in 0..10 {
        let made = lab.create(&preemptible(&i.to_string())).unwrap();
        assert_eq!(made.zone.as_deref(), Some("b"));
    }
    lab.clock.advance_to(at(10));
    assert_eq!(
        lab.refused(&preemptible("x")),
        ErrorKind::NoCapacity(market)
    );
    lab.made("x");
    lab.clock.advance_to(at(20));
    lab.create(&preemptible("y")).unwrap();
    lab.clock.advance_to(at(50));
    assert!(matches!(
        lab.refused(&request("z")),
        ErrorKind::NoCapacity(Scope::Zone(_))
    ));
    lab.clock.advance_to(at(100));
    lab.made("z");
}

#[test]
fn calls_that_come_too_fast_are_refused() {
    let settings = Settings::instant().with_rate(CallKind::Create, RateLimit::new(3, 2));
    let lab = Lab::new(settings.with_rate(CallKind::List, RateLimit::new(0, 1).silent()));
    for token in ["a", "b", "c"] {
        lab.made(token);
    }
    let retry_after = Some(Duration::from_millis(500));
    assert_eq!(
        lab.refused(&request("d")),
        ErrorKind::RateLimited { retry_after }
    );
    lab.pass(Duration::from_millis(499));
    let retry_after = Some(Duration::from_millis(1));
    assert_eq!(
        lab.refused(&request("d")),
        ErrorKind::RateLimited { retry_after }
    );
    lab.pass(Duration::from_millis(1));
    lab.made("d");
    assert!(lab.create(&request("e")).is_err());
    let silent = ErrorKind::RateLimited { retry_after: None };
    assert_eq!(lab.try_list().unwrap_err().kind, silent);
    assert_eq!(lab.cloud.counts(CallKind::Create).errors["rate limited"], 3);
}

#[test]
fn a_batch_may_be_charged_by_the_id_and_be_refused_in_part() {
    let limit = RateLimit::every(2, SECOND).per_id();
    let lab = Lab::new(Settings::instant().with_rate(CallKind::Destroy, limit));
    let ids = [lab.made("a").id, lab.made("b").id, lab.made("c").id];
    let refused = ErrorKind::RateLimited {
        retry_after: Some(SECOND),
    };
    assert_eq!(lab.destroy(&ids), [Ok(()), Ok(()), Err(refused)]);
    assert_eq!(lab.listed_ids(), [ids[2].as_str()]);
}

#[test]
fn unknown_types_and_images_and_denied_calls_are_refused() {
    let settings = Settings::instant()
        .with_provider_type("s1")
        .with_image("image");
    let lab = Lab::new(settings.with_denied(CallKind::SetTags));
    let made = lab.made("a");
    let other = typed("b", |kind| kind.provider_type = "s2".into());
    assert_eq!(lab.refused(&other), ErrorKind::InvalidRequest);
    let mut other = request("c");
    other.image = "another".into();
    assert_eq!(lab.refused(&other), ErrorKind::InvalidRequest);
    let change = [(made.id, tags("k", "v"))];
    assert_eq!(lab.set_tags(&change), [Err(ErrorKind::Denied)]);
}

#[test]
fn what_is_too_big_is_refused() {
    let mut settings = Settings::instant();
    settings.tags_max = 2;
    settings.tag_key_bytes_max = 20;
    settings.tag_value_bytes_max = 5;
    settings.script_bytes_max = 10;
    settings.instances_max = 2;
    let lab = Lab::new(settings);
    let id = lab.made("a").id;
    let change = |tags| lab.set_tags(&[(id.clone(), tags)]).remove(0);
    assert_eq!(change(tags("k", "123456")), Err(ErrorKind::InvalidRequest));
    assert_eq!(
        change(tags(&"k".repeat(21), "")),
        Err(ErrorKind::InvalidRequest)
    );
    assert_eq!(change(tags("", "")), Err(ErrorKind::InvalidRequest));
    assert_eq!(change(tags("k", "12345")), Ok(()));
    assert_eq!(change(tags("l", "12345")), Err(ErrorKind::InvalidRequest));
    assert_eq!(lab.list()[0].tags.len(), 2, "tags are merged");
    let mut long = request("b");
    long.init_script = "#!/bin/sh\n ".into();
    assert_eq!(lab.refused(&long), ErrorKind::InvalidRequest);
    for token in ["UPPER", "a b", &"x".repeat(65)] {
        assert_eq!(lab.refused(&request(token)), ErrorKind::InvalidRequest);
    }
    lab.made("b");
    let full = ErrorKind::QuotaExceeded(Scope::Everything);
    assert_eq!(lab.refused(&request("c")), full);
}

#[test]
fn calls_instances_and_events_that_are_remembered_are_bounded() {
    let mut settings = Settings::instant();
    settings.past_max = 2;
    settings.events_max = 7;
    settings.calls_max = 0;
    let lab = Lab::new(settings);
    let busy = ErrorKind::RateLimited { retry_after: None };
    assert_eq!(lab.refused(&request("a")), busy);
    lab.cloud
        .with(|cloud, _| cloud.settings_mut().calls_max = 1);
    let first = lab.made("a");
    for token in ["a", "b", "c"] {
        let id = lab.made(token).id;
        lab.destroy(&[id]);
    }
    assert_eq!(lab.cloud.with(|cloud, _| cloud.past().count()), 2);
    assert!(
        lab.cloud
            .with(|cloud, _| cloud.instance(&first.id).is_none())
    );
    assert_ne!(lab.made("a").id, first.id, "its token is forgotten too");
    let events = lab
        .cloud
        .with(|cloud, _| std::iter::from_fn(|| cloud.poll_event()).count());
    assert_eq!(events, 7);
    assert!(lab.cloud.with(|cloud, _| cloud.events_dropped()) > 0);
}

#[test]
fn prices_of_preemptible_instances_are_told_and_charged() {
    let hour = SECOND * 3_600;
    let at = |hours| Instant::ZERO + hour * hours;
    let price = |units| Price::from_units(units).unwrap();
    let settings = Settings::instant()
        .with_price("s1", at(0), price(0.25))
        .with_price("s1", at(2), price(0.5))
        .with_price("s1", at(9), price(9.0));
    let epoch = settings.epoch;
    let lab = Lab::new(settings);
    let spot = lab.create(&preemptible("a")).unwrap();
    let mut usual = request("b");
    usual.instance_type.name = "usual".into();
    usual.instance_type.price = price(1.0);
    let usual = lab.create(&usual).unwrap();
    lab.pass(hour * 3);
    let history = |id, span| {
        let prices = lab.cloud.extensions().price_history.unwrap();
        let points = lab
            .clock
            .run(prices.price_history(&context(), id, span))
            .unwrap();
        points
            .into_iter()
            .map(|p| (p.start, p.price))
            .collect::<Vec<_>>()
    };
    let second = (Timestamp(epoch.0 + 7_200_000), price(0.5));
    assert_eq!(
        history(&spot.id, Duration::MAX),
        [(epoch, price(0.25)), second]
    );
    assert_eq!(history(&spot.id, hour / 2), [second]);
    assert!(history(&usual.id, hour).is_empty());

    lab.destroy(&[spot.id, usual.id]);
    lab.pass(hour);
    let usage = lab.cloud.with(|cloud, now| cloud.usage(now));
    assert_eq!(usage[&"small".into()].cost_billionths(), 1_000_000_000);
    assert_eq!(usage[&"usual".into()].cost_billionths(), 3_000_000_000);
    let total = lab.cloud.with(|cloud, now| cloud.total_usage(now));
    assert_eq!((total.made, total.live, total.peak), (2, 0, 2));
    assert_eq!(
        (total.time(), total.cost_billionths()),
        (hour * 6, 4_000_000_000)
    );
}

#[test]
fn extensions_can_be_missing() {
    let lab = Lab::instant();
    let id = lab.made("a").id;
    lab.cloud.with(|cloud, _| cloud.print(&id, b"login: "));
    let console = lab.cloud.extensions().console_output.unwrap();
    let printed = |limit| {
        lab.clock
            .run(console.console_output(&context(), &id, limit))
            .unwrap()
    };
    assert_eq!(printed(7), b"login: ");
    assert!(
        String::from_utf8(printed(usize::MAX))
            .unwrap()
            .contains("booted")
    );
    let settings = Settings::instant()
        .without_extension(CallKind::Console)
        .without_extension(CallKind::Prices)
        .without_extension(CallKind::Interruptions);
    let lab = Lab::new(settings.with_name("bare"));
    let extensions = lab.cloud.extensions();
    assert!(extensions.console_output.is_none());
    assert!(extensions.price_history.is_none());
    assert!(extensions.interruption_notices.is_none());
    assert_eq!(lab.cloud.to_string(), "Fake(bare)");
    assert_eq!(lab.made("a").id.as_str(), "bare-1");
}

#[test]
fn tags_filter_listings() {
    let lab = Lab::instant();
    let id = lab.made("a").id;
    lab.made("b");
    lab.set_tags(&[(id.clone(), tags("color", "red"))]);
    let list = |tags: Tags| lab.clock.run(lab.cloud.list(&context(), &tags)).unwrap();
    assert_eq!(list(tags("color", "red"))[0].id, id);
    assert!(list(tags("color", "blue")).is_empty());
    let mut both = request("a").tags;
    assert_eq!(list(both.clone()).len(), 2);
    both.insert("color".into(), "red".into());
    assert_eq!(list(both).len(), 1);
}
