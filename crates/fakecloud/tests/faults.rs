//! Each fault has an effect that a user of the instance set sees.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Lab, SECOND, context, preemptible, request, tags, typed};
use longshore_cloud::{CreateRequest, ErrorKind, InstanceSet, InstanceState, Outcome, Tags};
use longshore_fakecloud::{
    CallKind, Chance, Clock, FakeCloud, Fault, Latency, Match, Misfortune, Rule, Settings, Spread,
};
use longshore_types::{InstanceId, Instant, Market};

fn with_rule(on: impl Into<Match>, fault: Fault) -> Lab {
    let lab = Lab::instant();
    lab.cloud.inject(Rule::new(on, fault));
    lab
}

#[test]
fn a_call_is_refused() {
    let lab = with_rule(CallKind::Create, Fault::Refuse(ErrorKind::Denied));
    assert_eq!(lab.refused(&request("a")), ErrorKind::Denied);
    assert!(lab.list().is_empty());
}

#[test]
fn a_request_is_lost() {
    let lab = with_rule(CallKind::Create, Fault::LoseRequest);
    let error = lab.create(&request("a")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    assert_eq!(lab.clock.now(), Instant::ZERO + context().timeout);
    lab.pass(SECOND * 3_600);
    assert!(lab.list().is_empty());
}

#[test]
fn a_reply_is_lost() {
    let lab = with_rule(CallKind::Create, Fault::LoseReply);
    let error = lab.create(&request("a")).unwrap_err();
    assert_eq!(
        (error.kind.clone(), error.outcome()),
        (ErrorKind::TimedOut, Outcome::Unknown)
    );
    assert_eq!(lab.clock.now(), Instant::ZERO + context().timeout);
    assert_eq!(lab.list().len(), 1);
    let lab = with_rule(CallKind::Destroy, Fault::LoseReply);
    let id = lab.made("a").id;
    let twice = [id.clone(), id];
    assert_eq!(lab.destroy(&twice), vec![Err(ErrorKind::TimedOut); 2]);
    assert!(lab.list().is_empty());
}

#[test]
fn a_call_fails_after_it_acted() {
    let lab = with_rule(CallKind::Create, Fault::FailAfterActing(ErrorKind::Other));
    assert_eq!(lab.refused(&request("a")), ErrorKind::Other);
    assert_eq!(lab.clock.now(), Instant::ZERO);
    assert_eq!(lab.list().len(), 1);
}

#[test]
fn a_call_is_late() {
    let (before, after) = (SECOND * 2, SECOND * 3);
    let lab = with_rule(CallKind::List, Fault::Delay { before, after });
    lab.list();
    assert_eq!(lab.clock.now(), Instant::ZERO + SECOND * 5);
    let before = Duration::MAX;
    lab.cloud
        .inject(Rule::new(CallKind::List, Fault::Delay { before, after }));
    assert_eq!(lab.try_list().unwrap_err().kind, ErrorKind::TimedOut);
}

#[test]
fn a_listing_is_stale() {
    let lab = with_rule(CallKind::List, Fault::StaleListing(SECOND * 60));
    let id = lab.made("a").id;
    assert!(lab.list().is_empty());
    lab.pass(SECOND * 60);
    lab.set_tags(&[(id.clone(), tags("k", "v"))]);
    lab.destroy(&[id]);
    let listed = lab.list().remove(0);
    assert_eq!(listed.state, InstanceState::Running);
    assert!(!listed.tags.contains_key("k"));
    lab.pass(SECOND * 60);
    assert!(lab.list().is_empty());
}

#[test]
fn a_listing_is_short_and_does_not_say_so() {
    let lab = Lab::instant();
    let ids: Vec<_> = (0..400).map(|i| lab.made(&i.to_string()).id).collect();
    let some = Rule::new(CallKind::List, Fault::OmitSome(Chance::percent(25)));
    lab.cloud.inject(some.times(1));
    let seen = lab.list().len();
    assert!((270..=330).contains(&seen), "{seen}");
    lab.cloud.inject(Rule::new(
        CallKind::List,
        Fault::OmitInstances(ids[1..].to_vec()),
    ));
    assert_eq!(lab.listed_ids(), [ids[0].as_str()]);
}

#[test]
fn pages_repeat_instances_or_break_off() {
    let lab = Lab::new(Settings::instant().with_page_size(2));
    (0..5).for_each(|i| drop(lab.made(&i.to_string())));
    let repeat = lab
        .cloud
        .inject(Rule::new(CallKind::List, Fault::RepeatPages));
    let ids = lab.listed_ids();
    assert_eq!(
        (ids.len(), ids.iter().collect::<BTreeSet<_>>().len()),
        (7, 5)
    );
    assert!(lab.cloud.lift(repeat));
    assert_eq!(lab.list().len(), 5);
    lab.cloud
        .inject(Rule::new(CallKind::List, Fault::FailAfterPages(2)));
    let error = lab.try_list().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Other);
    assert!(error.chain().contains("page 3"), "{}", error.chain());

    let lab = with_rule(CallKind::List, Fault::RepeatPages);
    lab.made("a");
    assert_eq!(lab.list().len(), 2);
}

#[test]
fn a_batch_fails_in_part() {
    let lab = Lab::instant();
    let ids: Vec<_> = (0..200).map(|i| lab.made(&i.to_string()).id).collect();
    let fault = Fault::FailSome(Chance::percent(50), ErrorKind::Denied);
    let rule = lab.cloud.inject(Rule::new(CallKind::Destroy, fault));
    let results = lab.destroy(&ids);
    let failed = results
        .iter()
        .filter(|r| **r == Err(ErrorKind::Denied))
        .count();
    assert!((70..=130).contains(&failed), "{failed}");
    assert_eq!(lab.list().len(), failed);
    lab.cloud.lift(rule);

    let left: Vec<InstanceId> = lab.list().into_iter().take(2).map(|i| i.id).collect();
    let one = Match::from(CallKind::SetTags).of_instance(left[1].clone());
    let fault = Fault::FailSome(Chance::ALWAYS, ErrorKind::NotFound);
    lab.cloud.inject(Rule::new(one, fault));
    let changes = left.iter().map(|id| (id.clone(), tags("k", "v")));
    let results = lab.set_tags(&changes.collect::<Vec<_>>());
    assert_eq!(results, [Ok(()), Err(ErrorKind::NotFound)]);
}

#[test]
fn a_create_gives_a_wrong_id() {
    let lab = Lab::instant();
    let first = lab.made("a").id;
    lab.cloud
        .inject(Rule::new(CallKind::Create, Fault::RepeatedId).times(1));
    assert_eq!(lab.made("b").id, first);
    lab.cloud
        .inject(Rule::new(CallKind::Create, Fault::EmptyId).times(1));
    assert_eq!(lab.made("c").id.as_str(), "");
    let listed: BTreeSet<_> = lab.listed_ids().into_iter().collect();
    assert_eq!(listed.len(), 3);
    assert!(!listed.contains(""));
}

#[test]
fn misfortunes_befall_an_instance() {
    let lab = Lab::new(Settings::instant().with_boot(SECOND));
    let ids: Vec<_> = (0..6).map(|i| lab.made(&i.to_string()).id).collect();
    let strike = |i: usize, misfortune| assert!(lab.cloud.strike(&ids[i], misfortune));
    let before = lab.list();
    strike(0, Misfortune::NeverBoot);
    strike(1, Misfortune::Vanish);
    strike(2, Misfortune::ChangeAddress);
    strike(3, Misfortune::LoseTags);
    strike(4, Misfortune::GarbleTags);
    strike(5, Misfortune::Interrupt(None));
    assert!(
        !lab.cloud.strike(&ids[1], Misfortune::Vanish),
        "it is no more"
    );
    lab.pass(SECOND * 3_600);
    let after = lab.list();
    let find = |id: &InstanceId| after.iter().find(|i| i.id == *id);
    assert!(!lab.cloud.is_booted(&ids[0]) && lab.cloud.is_booted(&ids[2]));
    assert!(find(&ids[1]).is_none());
    assert_ne!(find(&ids[2]).unwrap().address, before[2].address);
    assert!(find(&ids[3]).unwrap().tags.is_empty());
    let garbled = &find(&ids[4]).unwrap().tags;
    assert!(garbled.keys().eq(before[4].tags.keys()) && *garbled != before[4].tags);
    assert_eq!(
        find(&ids[5]).unwrap().state,
        InstanceState::Running,
        "it is on demand"
    );
}

#[test]
fn an_instance_that_is_off_stays_until_it_is_destroyed() {
    let lab = Lab::new(Settings::instant().with_stopping(SECOND * 10));
    let id = lab.made("a").id;
    assert!(lab.cloud.strike(&id, Misfortune::PowerOff));
    lab.pass(SECOND * 3_600);
    assert_eq!(lab.list()[0].state, InstanceState::Stopping);
    assert_eq!(lab.destroy(&[id]), [Ok(())]);
    lab.pass(SECOND * 11);
    assert!(lab.list().iter().all(|i| i.state == InstanceState::Gone));
}

#[test]
fn an_instance_is_interrupted_with_and_without_notice() {
    let lab = Lab::new(Settings::instant().with_stopping(SECOND * 10));
    let warned = lab.create(&preemptible("a")).unwrap().id;
    let surprised = lab.create(&preemptible("b")).unwrap().id;
    lab.cloud
        .strike(&warned, Misfortune::Interrupt(Some(SECOND * 120)));
    lab.cloud.strike(&surprised, Misfortune::Interrupt(None));
    let notices = || {
        let notices = lab.cloud.extensions().interruption_notices.unwrap();
        lab.clock.run(notices.interruptions(&context())).unwrap()
    };
    lab.pass(SECOND * 20);
    let noticed = notices();
    assert_eq!(noticed.len(), 1);
    assert_eq!(
        (&noticed[0].id, noticed[0].remaining),
        (&warned, Some(SECOND * 100))
    );
    assert_eq!(lab.listed_ids(), [warned.as_str()]);
    lab.pass(SECOND * 100);
    assert_eq!(lab.list()[0].state, InstanceState::Stopping);
    assert!(notices().is_empty());
    lab.pass(SECOND * 10);
    assert!(lab.list().is_empty());
}

#[test]
fn an_instance_lingers_or_comes_back() {
    let lab = Lab::new(Settings::instant().with_stopping(SECOND));
    let first = lab.made("0").id;
    let later = Duration::from_secs(60);
    let fault = |after, misfortune| Fault::Strike { after, misfortune };
    let one = Match::from(CallKind::Destroy).of_instance(first.clone());
    lab.cloud.inject(Rule::new(
        one,
        fault(Duration::ZERO, Misfortune::ComeBack(later)),
    ));
    let second = Match::from(CallKind::Create).nth(1);
    let lingers = fault(Duration::ZERO, Misfortune::LingerStopping);
    lab.cloud.inject(Rule::new(second, lingers));
    let second = lab.made("1").id;
    let third = lab.made("2").id;
    lab.destroy(&[first.clone(), second.clone(), third]);
    lab.pass(SECOND * 30);
    assert_eq!(lab.listed_ids(), [second.as_str()]);
    lab.pass(SECOND * 31);
    let listed = lab.list();
    let states: Vec<_> = listed.iter().map(|i| (&i.id, i.state)).collect();
    let expected = [
        (&first, InstanceState::Running),
        (&second, InstanceState::Stopping),
    ];
    assert_eq!(states, expected);
    let destroyed = lab
        .cloud
        .with(|cloud, _| cloud.instance(&second).unwrap().destroyed);
    assert_eq!(destroyed, Some(Instant::ZERO));
}

#[test]
fn rules_choose_their_calls() {
    let refuse = || Fault::Refuse(ErrorKind::Denied);
    let denied = |lab: &Lab, request: &CreateRequest| lab.create(request).is_err();
    let lab = with_rule(Match::from(CallKind::Create).nth(2), refuse());
    let outcomes = ["a", "b", "c"].map(|token| denied(&lab, &request(token)));
    assert_eq!(outcomes, [false, true, false]);

    let lab = Lab::instant();
    lab.cloud.inject(Rule::new(Match::any(), refuse()).times(2));
    let outcomes = ["a", "b", "c"].map(|token| denied(&lab, &request(token)));
    assert_eq!(outcomes, [true, true, false]);

    let lab = with_rule(Match::any().with_token("b"), refuse());
    let outcomes = ["a", "b", "c"].map(|token| denied(&lab, &request(token)));
    assert_eq!(outcomes, [false, true, false]);

    let large = typed("l", |kind| kind.name = "large".into());
    let spot = |token| preemptible(token);
    let on = Match::any().of_type("small").on_market(Market::Preemptible);
    let lab = with_rule(on, refuse());
    assert!(!denied(&lab, &large) && !denied(&lab, &request("a")));
    assert!(denied(&lab, &spot("b")));

    let lab = Lab::instant();
    let id = lab.create(&large).unwrap().id;
    lab.cloud
        .inject(Rule::new(Match::any().of_type("large"), refuse()));
    assert_eq!(lab.destroy(&[lab.made("a").id]), [Ok(())]);
    assert_eq!(lab.destroy(&[id]), [Err(ErrorKind::Denied)]);

    let lab = Lab::instant();
    let often = Rule::new(CallKind::Create, refuse()).with_probability(Chance::percent(50));
    lab.cloud.inject(often);
    let failed = (0..200)
        .filter(|i| denied(&lab, &request(&i.to_string())))
        .count();
    assert!((70..=130).contains(&failed), "{failed}");
    let events = lab.cloud.with(|cloud, _| {
        std::iter::from_fn(|| cloud.poll_event())
            .map(|event| event.to_string())
            .collect::<Vec<_>>()
    });
    let met = events
        .iter()
        .filter(|event| event.ends_with("meets rule 1"))
        .count();
    assert_eq!(met, failed);
}

#[tokio::test(start_paused = true)]
async fn held_calls_play_one_interleaving() {
    let cloud = FakeCloud::tokio(Settings::instant(), 1);
    let create = |token: &'static str| {
        let cloud = cloud.clone();
        tokio::spawn(async move { cloud.create(&context(), &request(token)).await })
    };
    cloud.inject(Rule::new(
        Match::any().with_token("request"),
        Fault::HoldRequest,
    ));
    cloud.inject(Rule::new(
        Match::any().with_token("reply"),
        Fault::HoldReply,
    ));
    let (early, late) = (create("request"), create("reply"));
    while cloud.held().len() < 2 {
        tokio::task::yield_now().await;
    }
    let list = async || cloud.list(&context(), &Tags::new()).await.unwrap().len();
    assert_eq!(list().await, 1);
    let held = cloud.held();
    let find = |token: &str| {
        held.iter()
            .find(|h| h.token.as_deref() == Some(token))
            .unwrap()
    };
    assert!(!find("request").acted && find("reply").acted);
    assert!(!early.is_finished() && !late.is_finished());

    assert!(cloud.release(find("request").id));
    let first = early.await.unwrap().unwrap();
    assert_eq!(list().await, 2);
    assert!(!late.is_finished());
    assert!(cloud.release(find("reply").id));
    assert!(!cloud.release(find("reply").id));
    assert_ne!(late.await.unwrap().unwrap().id, first.id);
    assert!(cloud.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_held_request_acts_even_if_its_caller_has_given_up() {
    let cloud = FakeCloud::tokio(Settings::instant(), 1);
    cloud.inject(Rule::new(CallKind::Create, Fault::HoldRequest).times(1));
    cloud.inject(Rule::new(CallKind::Create, Fault::HoldReply).times(2));
    let error = cloud.create(&context(), &request("a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
    let held = cloud.held().remove(0);
    assert!(held.abandoned && !held.acted && held.kind == CallKind::Create);
    assert!(cloud.release(held.id));
    assert_eq!(cloud.instances().len(), 1);
    assert!(cloud.held().is_empty());
    // A held reply is forgotten when its caller gives up.
    assert!(cloud.create(&context(), &request("b")).await.is_err());
    assert!(cloud.held().is_empty());
    assert_eq!(cloud.instances().len(), 2);
}

#[test]
fn a_wild_plan_does_what_it_says_and_none_does_nothing() {
    use longshore_fakecloud::{FaultPlan, Happening};
    let latency = Latency::new(Spread::ZERO, SECOND / 100);
    let run = |plan: FaultPlan| {
        let mut settings = Settings::instant().with_latency(latency).with_plan(plan);
        settings.events_max = 1_000_000;
        let lab = Lab::new(settings);
        for i in 0..2_000 {
            drop(lab.create(&preemptible(&i.to_string())));
            drop(lab.try_list());
            lab.pass(SECOND * 30);
            if i % 10 == 9 {
                let ids = lab.cloud.instances().into_iter().map(|i| i.id);
                lab.destroy(&ids.take(10).collect::<Vec<_>>());
            }
        }
        lab.cloud.with(|cloud, _| {
            let events: Vec<_> = std::iter::from_fn(|| cloud.poll_event()).collect();
            let struck = |e: &&longshore_fakecloud::Event| matches!(e.what, Happening::Struck(..));
            let began =
                |e: &&longshore_fakecloud::Event| matches!(e.what, Happening::EpisodeBegan(_));
            let struck = events.iter().filter(struck).count();
            let episodes = events.iter().filter(began).count();
            (
                cloud.counts(CallKind::Create),
                cloud.counts(CallKind::List),
                struck,
                episodes,
            )
        })
    };
    let (creates, lists, struck, episodes) = run(FaultPlan::none());
    assert!(creates.errors.is_empty() && lists.errors.is_empty());
    assert_eq!((struck, episodes), (0, 0));
    let (creates, lists, mild, _) = run(FaultPlan::mild());
    assert!(creates.errors.values().sum::<u64>() + lists.errors.values().sum::<u64>() > 5);
    assert!(mild > 5, "{mild}");
    let (creates, lists, wild, episodes) = run(FaultPlan::wild());
    assert!(creates.errors["timed out"] > 100, "{creates:?}");
    assert!(creates.errors["failed"] > 10, "{creates:?}");
    assert!(creates.errors.contains_key("no capacity"), "{creates:?}");
    assert!(lists.errors.contains_key("rate limited"), "{lists:?}");
    assert!(lists.errors["failed"] > 30, "{lists:?}");
    assert!(wild > 200 && episodes > 8, "{wild} {episodes}");
}
