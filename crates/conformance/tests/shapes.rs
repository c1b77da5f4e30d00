//! The suite over instance sets that keep their promises.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::memory::{Memory, Shape};
use common::{layer, not_run, subject};
use longshore_conformance::{Promise, Suite};

#[tokio::test(start_paused = true)]
async fn a_driver_with_everything_keeps_everything() {
    let memory = Memory::new(Shape::full());
    let subject = layer(Arc::new(memory.clone()), memory.clone())
        .with_instances_at_once(1001)
        .with_name("Memory(");
    let report = Suite::new().run(&subject).await;
    eprintln!("{report}");
    report.assert_kept();
    assert_eq!(not_run(&report), []);
    assert_eq!(memory.alive(), []);
}

/// What the crate's documentation says that it costs.
#[tokio::test(start_paused = true)]
async fn the_suite_costs_what_its_documentation_says() {
    for promise in Promise::ALL {
        let memory = Memory::new(Shape::full());
        let subject = subject(Arc::new(memory.clone())).with_instances_at_once(1001);
        let finding = promise.check(&subject).await;
        finding.assert_kept();
        let most = promise.instances_at_once();
        assert!(memory.peak() <= most, "{promise}: {}", memory.peak());
        let creates = match promise {
            Promise::DroppedCreateCanBeRepeated => 8,
            Promise::DroppedCallsDoNoHarm => 6,
            Promise::ListsMoreThanOnePage => 1001,
            _ => 4,
        };
        assert!(finding.creates <= creates, "{finding}");
    }
    let memory = Memory::new(Shape::full());
    let report = Suite::new().run(&subject(Arc::new(memory.clone()))).await;
    let creates: usize = report.findings.iter().map(|f| f.creates).sum();
    assert_eq!(creates, 71);
    assert!((45..=55).contains(&memory.births()), "{}", memory.births());
    assert!(memory.peak() <= 4, "{}", memory.peak());
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_promises_little_keeps_it_and_the_report_says_what_was_not_run() {
    let memory = Memory::new(Shape::bare());
    let subject = subject(Arc::new(memory.clone())).with_vanishing(Duration::from_secs(200));
    let report = Suite::new().run(&subject).await;
    eprintln!("{report}");
    report.assert_kept();
    assert_eq!(
        not_run(&report),
        [
            Promise::ExtensionsAreForwarded,
            Promise::RepeatedCreateMakesNothingNew,
            Promise::ConcurrentRepeatsMakeOneInstance,
            Promise::DroppedCreateCanBeRepeated,
            Promise::ListsMoreThanOnePage,
            Promise::ConsistentListingShowsAllThatWasDone,
            Promise::HostKeysAreJudged,
            Promise::PriceHistoryIsSorted,
            Promise::ConsoleOutputKeepsItsLimit,
            Promise::InterruptionsAreOfListedInstances,
        ]
    );
    assert_eq!(memory.alive(), []);
}
