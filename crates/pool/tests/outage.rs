//! Bad days on which many workers are silent: whose fault it is, and how long that is doubted.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::*;
use longshore_cloud::ErrorKind;
use longshore_pool::*;
use longshore_types::*;

const MINUTE: Duration = Duration::from_secs(60);

fn minutes(n: u32) -> Duration {
    MINUTE * n
}

fn name(n: usize) -> String {
    format!("i-{n:03}")
}

/// Workers on each of which a container runs, and which of them answer.
struct Fleet {
    rig: Rig,
    /// The first so many workers have a container.
    busy: usize,
    silent: BTreeSet<InstanceId>,
    /// Whether the provider answers.
    listed: bool,
}

impl Fleet {
    fn new(workers: usize) -> Self {
        let mut fleet = Self::idle(workers);
        for n in 0..workers {
            fleet.rig.run(&name(n), n);
        }
        fleet.busy = workers;
        fleet
    }

    /// Workers that nothing runs on yet.
    fn idle(workers: usize) -> Self {
        let mut config = config();
        config.max_instances = 0;
        if workers > 50 {
            // Every step is checked in full.
            config.probe_interval = seconds(30);
        }
        let mut rig = Rig::ready(config);
        for n in 0..workers {
            rig.idle(&name(n));
        }
        Self {
            rig,
            busy: 0,
            silent: BTreeSet::new(),
            listed: true,
        }
    }

    fn silence(&mut self, workers: std::ops::Range<usize>) {
        self.silent = workers.map(|n| name(n).as_str().into()).collect();
    }

    fn pass(&mut self, span: Duration) {
        let (silent, listed, busy) = (&self.silent, self.listed, self.busy);
        self.rig.pass(span, |action| {
            let silent = action.host().is_some_and(|h| silent.contains(&h.instance));
            match action {
                EffectAction::List(_) if !listed => {
                    Some(Outcome::Listed(Err(failure(ErrorKind::Other, true))))
                }
                EffectAction::Start { .. } if silent => Some(unknown_start()),
                EffectAction::Kill { .. } if silent => Some(unknown_kill()),
                EffectAction::Boot(_) if silent => Some(Outcome::Booted(Err(unreachable()))),
                EffectAction::Report(..) if silent => Some(Outcome::Reported(Err(unreachable()))),
                EffectAction::Boot(_) => Some(Outcome::Booted(Ok(()))),
                EffectAction::Deploy(..) => Some(Outcome::Deployed(Ok(()))),
                EffectAction::Report(host, _) => {
                    let n: usize = host
                        .instance
                        .as_str()
                        .trim_start_matches("i-")
                        .parse()
                        .ok()?;
                    let runs = (n < busy).then(|| running(n, 1));
                    Some(report(runs.into_iter().collect()))
                }
                _ => None,
            }
        });
    }

    fn given_up(&self) -> Vec<String> {
        let workers = self.rig.core.workers();
        let gone = workers.filter(|view| view.state == WorkerState::Shutdown);
        gone.map(|view| view.instance.to_string()).collect()
    }

    fn nothing_is_lost(&self) {
        assert_eq!(self.given_up(), Vec::<String>::new());
        assert!(
            !self
                .rig
                .has_event(|event| matches!(event, Event::Ended { .. }))
        );
    }
}

#[test]
fn an_uplink_that_is_cut_for_twenty_minutes_costs_nothing() {
    for listed in [false, true] {
        let mut fleet = Fleet::new(100);
        fleet.pass(minutes(1));
        fleet.silence(0..100);
        fleet.listed = listed;
        fleet.pass(minutes(20));
        fleet.nothing_is_lost();
        assert_eq!(fleet.rig.alarms(), if listed { 1 } else { 2 });
        // Half of them are back a moment before the others.
        fleet.listed = true;
        fleet.silence(50..100);
        fleet.pass(minutes(1));
        fleet.nothing_is_lost();
        fleet.silence(0..0);
        fleet.pass(minutes(30));
        fleet.nothing_is_lost();
    }
}

#[test]
fn starts_and_kills_that_an_outage_leaves_in_doubt_cost_nothing() {
    let mut fleet = Fleet::idle(10);
    // Each has a start under way, or an attempt that is to be withdrawn, when nobody answers any more.
    for n in 0..5 {
        fleet.rig.start(&name(n), n, 1).unwrap();
    }
    for n in 5..10 {
        let (core, now) = (&mut fleet.rig.core, fleet.rig.now);
        let id = name(n).as_str().into();
        core.withdraw(uuid(n), Attempt(1), &id, "test", now)
            .unwrap();
    }
    fleet.rig.drain();
    fleet.silence(0..10);
    fleet.pass(minutes(20));
    fleet.nothing_is_lost();
}

#[test]
fn those_that_were_silent_before_an_outage_have_time_to_answer_after_it() {
    let mut fleet = Fleet::new(10);
    fleet.pass(minutes(1));
    fleet.silence(0..4);
    fleet.pass(seconds(580));
    fleet.nothing_is_lost();
    fleet.silence(0..10);
    fleet.pass(minutes(20));
    fleet.silence(0..4);
    fleet.pass(seconds(40));
    fleet.nothing_is_lost();
    fleet.pass(minutes(5));
    assert_eq!(fleet.given_up(), ["i-000", "i-001", "i-002", "i-003"]);
}

#[test]
fn a_zone_that_dies_for_good_is_given_up_in_lots() {
    let mut fleet = Fleet::new(100);
    fleet.pass(minutes(1));
    fleet.silence(0..60);
    fleet.pass(minutes(19));
    fleet.nothing_is_lost();
    let mut before = 0;
    for _ in 0..11 {
        fleet.pass(minutes(1));
        let count = fleet.given_up().len();
        assert!(count - before <= 20, "{before}, then {count}");
        before = count;
    }
    let dead: Vec<String> = (0..60).map(name).collect();
    assert_eq!(fleet.given_up(), dead);
    fleet.pass(minutes(60));
    assert_eq!(fleet.given_up().len(), 60);
}

#[test]
fn all_workers_of_two_that_die_are_given_up_within_the_bound() {
    let mut fleet = Fleet::new(2);
    fleet.pass(minutes(1));
    fleet.silence(0..2);
    fleet.pass(minutes(60));
    fleet.nothing_is_lost();
    fleet.pass(minutes(20));
    assert_eq!(fleet.given_up(), ["i-000", "i-001"]);
}

#[test]
fn a_new_worker_that_answers_shows_that_our_side_works() {
    let mut fleet = Fleet::new(2);
    fleet.pass(minutes(1));
    fleet.silence(0..2);
    fleet.pass(minutes(5));
    fleet.rig.booting("i-002");
    fleet.pass(seconds(1));
    fleet.rig.run("i-002", 2);
    fleet.busy = 3;
    fleet.pass(minutes(30));
    assert_eq!(fleet.given_up(), ["i-000", "i-001"]);
    assert_eq!(fleet.rig.state("i-002"), WorkerState::Running);
}

#[test]
fn the_only_worker_is_given_up_like_any_other() {
    let mut fleet = Fleet::new(1);
    fleet.pass(minutes(1));
    fleet.silence(0..1);
    fleet.pass(minutes(9));
    fleet.nothing_is_lost();
    fleet.pass(minutes(2));
    assert_eq!(fleet.given_up(), ["i-000"]);
}

#[test]
fn an_outage_that_comes_and_goes_costs_nothing_and_hides_nobody_for_ever() {
    for calm in [minutes(5), minutes(1)] {
        let mut fleet = Fleet::new(10);
        fleet.pass(minutes(1));
        let mut given_up_after = None;
        let mut passed = Duration::ZERO;
        while passed < minutes(180) {
            fleet.silence(0..10);
            fleet.pass(minutes(5));
            fleet.silence(0..1);
            fleet.pass(calm);
            passed += minutes(5) + calm;
            if given_up_after.is_none() && !fleet.given_up().is_empty() {
                given_up_after = Some(passed);
            }
        }
        assert_eq!(fleet.given_up(), ["i-000"]);
        assert!(given_up_after.unwrap() <= minutes(80), "{given_up_after:?}");
    }
}

#[test]
fn workers_that_never_booted_are_no_sign_of_an_outage() {
    let mut fleet = Fleet::new(1);
    for n in 1..6 {
        fleet.rig.booting(&name(n));
    }
    fleet.silence(1..6);
    fleet.pass(minutes(11));
    assert_eq!(fleet.given_up().len(), 5);
    assert_eq!(fleet.rig.state("i-000"), WorkerState::Running);
    assert_eq!(fleet.rig.alarms(), 0);
}

#[test]
fn while_instances_cannot_be_listed_nobody_is_given_up_however_long() {
    let mut fleet = Fleet::new(3);
    fleet.pass(minutes(1));
    fleet.silence(0..3);
    fleet.listed = false;
    fleet.pass(minutes(24 * 60));
    fleet.nothing_is_lost();
}

#[test]
fn a_sleep_in_an_outage_is_no_part_of_it() {
    let mut fleet = Fleet::new(3);
    fleet.pass(minutes(1));
    fleet.silence(0..3);
    fleet.pass(minutes(20));
    fleet.rig.now = fleet.rig.now + minutes(600);
    fleet.rig.core.handle_sleep(minutes(600), fleet.rig.now);
    fleet.pass(minutes(60));
    fleet.nothing_is_lost();
    fleet.silence(0..0);
    fleet.pass(minutes(60));
    fleet.nothing_is_lost();
}

// What was asked in an outage.

fn no_listing(action: &EffectAction) -> Option<Outcome> {
    is_list(action).then(|| Outcome::Listed(Err(failure(ErrorKind::Other, true))))
}

/// A worker that is nearly given up, and was asked once more just before an outage of five minutes
/// that is over; the answer is still to come.
fn asked_before_an_outage(rig: &mut Rig) {
    rig.wait(seconds(5));
    rig.pass(minutes(5), no_listing);
    rig.wait(minutes(4));
}

#[test]
fn nobody_is_given_up_that_was_not_asked_since_an_outage() {
    let silent = |action: &EffectAction| match action {
        EffectAction::Boot(_) => Some(Outcome::Booted(Err(unreachable()))),
        EffectAction::Report(..) => Some(Outcome::Reported(Err(unreachable()))),
        _ => None,
    };
    let probe = |action: &EffectAction| is_boot(action) || is_report(action);
    for boots in [false, true] {
        let mut rig = Rig::ready(config());
        if boots {
            rig.booting("a");
        } else {
            rig.idle("a");
            rig.run("a", 1);
        }
        rig.pass(seconds(530), silent);
        let before = rig.state("a");
        asked_before_an_outage(&mut rig);
        assert_eq!(rig.state("a"), before, "it was not asked since");
        let failed = silent(&rig.find(on("a", probe)).unwrap().action).unwrap();
        rig.answer(on("a", probe), failed.clone());
        rig.wait(seconds(25));
        assert_eq!(
            rig.state("a"),
            before,
            "what it was asked since is under way"
        );
        rig.answer(on("a", probe), failed);
        rig.wait(seconds(11));
        assert_eq!(rig.state("a"), WorkerState::Shutdown);
    }
}

#[test]
fn an_outage_begins_when_the_listing_that_shows_it_was_asked_for() {
    let silent =
        |action: &EffectAction| is_boot(action).then(|| Outcome::Booted(Err(unreachable())));
    let mut rig = Rig::ready(config());
    rig.booting("a");
    rig.pass(seconds(470), silent);
    while rig.find(is_list).is_none() {
        rig.now = rig.core.poll_timeout().unwrap().at;
        rig.core.handle_timeout(rig.now);
        rig.drain();
    }
    assert_eq!(rig.now, Instant::ZERO + seconds(480));
    rig.now = rig.now + seconds(120);
    rig.answer(
        is_list,
        Outcome::Listed(Err(failure(ErrorKind::TimedOut, true))),
    );
    rig.pass(seconds(100), silent);
    assert_eq!(rig.state("a"), WorkerState::Booting);
    rig.pass(seconds(40), silent);
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
}

// What the records say.

/// An adopted worker whose first probe hangs, then fails, while a container is recorded there.
fn hanging(records: impl Fn(&mut Rig)) -> Rig {
    let mut rig = Rig::new(config());
    records(&mut rig);
    rig.adopted("a");
    rig.wait(seconds(660));
    rig
}

#[test]
fn a_worker_that_may_run_something_for_all_that_is_recorded_is_not_one_that_does_not_boot() {
    let place = |rig: &mut Rig| {
        let now = rig.now;
        rig.core.set_recorded_place(uuid(1), Some(&"a".into()), now);
    };
    let unread = |rig: &mut Rig| rig.core.set_records_read(false, Instant::ZERO);
    assert_eq!(hanging(|_| {}).state("a"), WorkerState::Shutdown);
    for mut rig in [hanging(place), hanging(unread)] {
        assert_eq!(rig.state("a"), WorkerState::Unknown);
        let fail =
            |action: &EffectAction| is_boot(action).then(|| Outcome::Booted(Err(unreachable())));
        rig.pass(seconds(5), fail);
        assert_eq!(rig.state("a"), WorkerState::Unknown);
        rig.pass(seconds(60), fail);
        assert_eq!(rig.state("a"), WorkerState::Shutdown, "it is silent");
    }
    let mut rig = hanging(place);
    let now = rig.now;
    rig.core.set_recorded_place(uuid(1), None, now);
    rig.wait(seconds(11));
    assert_eq!(rig.state("a"), WorkerState::Shutdown);
}

// What a listing proves.

#[test]
fn where_tags_come_late_a_newborn_without_them_is_not_missing() {
    let mut config = config();
    config.capabilities.consistent_listing = true;
    let mut rig = Rig::ready(config.clone());
    rig.booting("a");
    let tagged = std::mem::take(&mut rig.cloud[0].tags);
    rig.wait(seconds(59));
    assert!(rig.view("a").is_some());
    rig.cloud[0].tags = tagged;
    rig.wait(seconds(120));
    assert!(rig.view("a").is_some());
    assert_eq!(rig.alarms(), 0);

    config.capabilities.tags_at_birth = true;
    let mut rig = Rig::ready(config);
    rig.booting("a");
    rig.cloud.clear();
    rig.wait(seconds(120));
    assert!(rig.view("a").is_none(), "there the listing does prove it");
}
