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
