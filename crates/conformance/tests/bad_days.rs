//! What the suite itself does on a bad day: it ends, it cleans up, and it says what it could not.

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as RealInstant};

use common::memory::{Memory, Shape};
use common::slow::{Slow, Trouble};
use common::wrong::{Fault, Wrong};
use common::{layer, subject};
use longshore_cloud::{CallContext, CreateRequest, InstanceSet};
use longshore_conformance::{Promise, RUN_TAG, Subject, Suite, Verdict, promises};
use longshore_types::InstanceId;

/// Waits for a condition; tokio's time is paused, so that this takes none.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} never happened");
}

fn broken(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Broken { what } => what,
        other => panic!("not broken: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_promise_that_is_dropped_removes_what_it_made() {
    for shape in [Shape::full(), Shape::bare()] {
        let memory = Memory::new(shape);
        let subject = subject(Arc::new(memory.clone()));
        let running = tokio::spawn({
            let subject = subject.clone();
            async move { promises::lists_exactly_what_has_the_tags(&subject).await }
        });
        until("a second instance", || memory.births() >= 2).await;
        assert_ne!(memory.alive(), []);
        running.abort();
        until("the removal", || memory.alive().is_empty()).await;
        // What is created late, by a call that was under way, is removed as well.
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(memory.alive(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_suite_that_is_dropped_at_any_moment_removes_what_it_made() {
    for step in 1..60 {
        let memory = Memory::new(Shape::full());
        let subject = subject(Arc::new(memory.clone()));
        let moment = Duration::from_millis(step * 337);
        let suite = Suite::new();
        let run = tokio::time::timeout(moment, suite.run(&subject));
        assert!(run.await.is_err());
        until("the removal", || memory.alive().is_empty()).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(memory.alive(), [], "dropped after {moment:?}");
    }
}

/// Here sixteen tasks create: none of them goes on.
#[tokio::test(start_paused = true)]
async fn many_creates_at_once_that_are_dropped_stop_and_are_removed() {
    let memory = Memory::new(Shape::full());
    let subject = subject(Arc::new(memory.clone())).with_instances_at_once(2_000);
    let running = tokio::spawn(async move { promises::lists_more_than_one_page(&subject).await });
    until("a hundred instances", || memory.births() >= 100).await;
    running.abort();
    until("the removal", || memory.alive().is_empty()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(memory.alive(), []);
    assert!(memory.births() < 150, "{}", memory.births());
}

#[tokio::test(start_paused = true)]
async fn two_runs_at_once_do_not_disturb_each_other() {
    let memory = Memory::new(Shape::full());
    let subjects = [0, 1].map(|_| subject(Arc::new(memory.clone())));
    let suite = Suite::new();
    let (one, two) = tokio::join!(suite.run(&subjects[0]), suite.run(&subjects[1]));
    one.assert_kept();
    two.assert_kept();
    assert_eq!(memory.alive(), []);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_is_named() {
    let memory = Memory::new(Shape::full());
    let wrong = Wrong::new(Fault::DestroysNothing, memory.clone());
    let subject = subject(Arc::new(wrong)).with_vanishing(Duration::from_secs(10));
    let report = Suite::only(&[Promise::EveryCreateIsListed])
        .run(&subject)
        .await;
    let finding = &report.findings[0];
    assert!(finding.verdict.is_kept(), "{report}");
    let left: Vec<InstanceId> = finding.left_behind.iter().map(|l| l.id.clone()).collect();
    assert_eq!(left, memory.alive());
    let text = report.to_string();
    let line = "LEFT BEHIND: m-0 (destroy said Ok, but it is still listed as Running)";
    assert!(text.contains(line), "{text}");
    assert!(report.clone().into_result().is_err());
    // The suite's own sweep found the same, and does not say it twice.
    assert_eq!(report.left_behind, []);
    assert!(
        text.contains("1 kept, 0 broken, 0 not run; 2 creates, 2 LEFT BEHIND"),
        "{text}"
    );
}

/// All the destroys together take far longer than one destroyed instance is listed, which is a while.
#[tokio::test(start_paused = true)]
async fn many_slow_destroys_leave_nothing_behind() {
    let slow = Slow::new(
        Trouble::DestroysSlowly(Duration::from_secs(4)),
        Shape::bare(),
    );
    let memory = slow.inner.clone();
    let subject = subject(Arc::new(slow))
        .with_instances_at_once(1001)
        .with_vanishing(Duration::from_secs(20));
    let finding = promises::lists_more_than_one_page(&subject).await;
    assert!(finding.verdict.is_kept(), "{finding}");
    assert_eq!(finding.left_behind, []);
    assert_eq!(memory.alive(), []);
}

/// Where nothing is ever removed, the limit holds, and the promise that says why is looked at.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_counts_against_the_limit() {
    let memory = Memory::new(Shape::full());
    let wrong = Wrong::new(Fault::DestroysNothing, memory.clone());
    let subject = subject(Arc::new(wrong))
        .with_instances_at_once(8)
        .with_vanishing(Duration::from_secs(10));
    let report = Suite::new().run(&subject).await;
    assert!(memory.alive().len() <= 9, "{report}");
    let why = report.finding(Promise::DestroyedInstancesVanish).unwrap();
    assert!(why.verdict.is_broken(), "{report}");
    let text = report.into_result().unwrap_err();
    let begin = "not every promise is kept, and not everything was removed";
    assert!(text.to_string().starts_with(begin), "{text}");
    assert_eq!(format!("{text:?}"), text.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_killed_run_can_be_cleaned_up_by_its_name() {
    let memory = Memory::new(Shape::full());
    let context = CallContext::new(Duration::from_secs(10), "killed");
    let mut request = CreateRequest::example();
    request.tags.insert(RUN_TAG.into(), "nightly-17".into());
    memory.create(&context, &request).await.unwrap();
    request.tags.insert(RUN_TAG.into(), "nightly-18".into());
    request.token = "token-2".into();
    let other = memory.create(&context, &request).await.unwrap();
    let subject = subject(Arc::new(memory.clone())).with_run("nightly-17");
    assert_eq!(subject.clean_up().await, []);
    assert_eq!(memory.alive(), [other.id]);
}

/// A driver that mixes up instances must not lead the suite to somebody else's.
#[tokio::test(start_paused = true)]
async fn what_was_there_before_is_never_destroyed() {
    for fault in [
        Fault::GivesOneIdToAll,
        Fault::MatchesAnyTag,
        Fault::IgnoresTokens,
    ] {
        let memory = Memory::new(Shape::full());
        let context = CallContext::new(Duration::from_secs(10), "others");
        let mut request = CreateRequest::example();
        request.token = "somebody-elses".into();
        let theirs = memory.create(&context, &request).await.unwrap();
        let wrong = Wrong::new(fault, memory.clone());
        let subject = subject(Arc::new(wrong)).with_vanishing(Duration::from_secs(10));
        let creating = [Promise::EveryCreateIsListed, Promise::TypeIsWhatWasAskedFor];
        Suite::only(&creating).run(&subject).await;
        assert!(memory.alive().contains(&theirs.id), "{fault:?}");
    }
}

/// Nor is what somebody else makes meanwhile, even if a listing by our tags shows it.
#[tokio::test(start_paused = true)]
async fn what_others_make_meanwhile_is_never_destroyed() {
    let memory = Memory::new(Shape::full());
    let wrong = Wrong::new(Fault::IgnoresFilters, memory.clone());
    let subject = patient(Arc::new(wrong));
    let running =
        tokio::spawn(async move { promises::lists_exactly_what_has_the_tags(&subject).await });
    until("an instance of ours", || memory.births() >= 1).await;
    let context = CallContext::new(Duration::from_secs(10), "others");
    let mut request = CreateRequest::example();
    request.token = "somebody-elses".into();
    let theirs = memory.create(&context, &request).await.unwrap();
    let finding = running.await.unwrap();
    assert!(finding.verdict.is_broken(), "{finding}");
    assert_eq!(memory.alive(), [theirs.id]);
}

/// Creates that end in silence may have made something: it is looked for by its tags.
#[tokio::test(start_paused = true)]
async fn what_was_made_by_a_create_whose_reply_was_lost_is_found() {
    let slow = Arc::new(Slow::new(Trouble::LosesReplies, Shape::bare()));
    let subject = patient(slow.clone());
    let finding = promises::type_is_what_was_asked_for(&subject).await;
    assert!(broken(&finding.verdict).contains("timed out"), "{finding}");
    assert_eq!((slow.inner.births(), finding.creates), (1, 1));
    assert_eq!((slow.inner.alive(), finding.left_behind), (vec![], vec![]));
}

/// With half a minute for a call, and listings that take as long.
#[tokio::test(start_paused = true)]
async fn when_nothing_can_be_listed_that_is_said() {
    let mut shape = Shape::full();
    shape.latency = Duration::from_secs(12);
    let memory = Memory::new(shape);
    let finding = promises::type_is_what_was_asked_for(&patient(Arc::new(memory.clone()))).await;
    assert!(broken(&finding.verdict).contains("timed out"), "{finding}");
    // It could not even look at what was there before, so it made nothing.
    assert_eq!((memory.births(), finding.creates), (0, 0));
}

fn patient(set: Arc<dyn InstanceSet>) -> Subject {
    subject(set).with_vanishing(Duration::from_secs(300))
}

/// However a driver hangs, the suite ends, and in a time that can be told.
#[tokio::test(start_paused = true)]
async fn a_driver_that_never_answers_does_not_hang_the_suite() {
    let started = tokio::time::Instant::now();
    let subject = patient(Arc::new(Slow::new(Trouble::Hangs, Shape::full())));
    let report = Suite::new().run(&subject).await;
    for finding in &report.findings {
        let told = match &finding.verdict {
            Verdict::Broken { what } => what.contains("so it was given up"),
            _ => true,
        };
        assert!(told, "{finding}");
    }
    assert!(report.broken().count() >= 25, "{report}");
    assert!(started.elapsed() < Duration::from_secs(3_600), "{report}");
}

/// A driver that blocks its thread cannot be stopped, but it is noticed by the others.
#[test]
fn a_driver_that_blocks_its_thread_is_noticed() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let trouble = Trouble::Blocks(Mutex::new(released));
    let subject = subject(Arc::new(Slow::new(trouble, Shape::full())))
        .with_call_timeout(Duration::from_millis(50))
        .with_slack(Duration::from_millis(200))
        .with_vanishing(Duration::from_millis(100));
    let started = RealInstant::now();
    let finding = runtime.block_on(promises::empty_batches_do_nothing(&subject));
    drop(release);
    assert!(
        broken(&finding.verdict).contains("so it was given up"),
        "{finding}"
    );
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_report_reads_like_this() {
    let memory = Memory::new(Shape::full());
    let wrong = Wrong::new(Fault::ListsAnotherType, memory.clone());
    let subject = layer(Arc::new(wrong), memory).with_run("nightly-17");
    let report = Suite::only(&[
        Promise::EmptyBatchesDoNothing,
        Promise::TypeIsWhatWasAskedFor,
        Promise::ListsMoreThanOnePage,
        Promise::StopDestroysNothing,
    ])
    .without(
        Promise::StopDestroysNothing,
        "it is shared with other tests",
    )
    .run(&subject)
    .await;
    assert_eq!(report.to_string(), REPORT);
    assert_eq!(report.broken().count(), 1);
    assert!(report.finding(Promise::TagsFromBirth).is_none());
}

const REPORT: &str = r#"Wrong(Memory(test)) (run nightly-17)
1 kept, 1 broken, 2 not run; 1 creates
         promise                                    creates     took  what it promises
kept     empty_batches_do_nothing                         0     40ms  destroy and set_tags of nothing give no answers and no trouble
BROKEN   type_is_what_was_asked_for                       1     1.1s  an instance says the provider type it was asked for
           Done: created m-0 with the provider type "s1".
           Seen: list says its type is "type s1".
           Contract: Instance.provider_type is what the provider calls its type: InstanceType.provider_type of the request.
           To fix: fill Instance.provider_type from the provider's answer, and ask the provider for InstanceType.provider_type, not for the configured name.
not run  lists_more_than_one_page                         0      0ms  more than 1,000 instances are all listed
           it needs 1001 instances at once, and 4 are allowed (Subject::with_instances_at_once)
not run  stop_destroys_nothing                            0      0ms  stop returns, also the second time, and destroys nothing
           it is shared with other tests"#;

#[tokio::test(start_paused = true)]
async fn without_room_nothing_is_said_about_a_promise() {
    let subject = patient(Arc::new(Slow::new(Trouble::IsFull, Shape::full())));
    let finding = promises::type_is_what_was_asked_for(&subject).await;
    match &finding.verdict {
        Verdict::NotRun { why } => assert!(why.contains("quota exceeded"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(finding.left_behind, []);
    let set = patient(Arc::new(Memory::new(Shape::full())));
    let listed = promises::every_create_is_listed(&set.with_instances_at_once(1)).await;
    assert!(
        matches!(listed.verdict, Verdict::NotRun { why } if why.contains("2 instances at once"))
    );
}
