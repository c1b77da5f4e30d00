//! For each promise drivers that break it: the suite has to say so, by that promise, in words
//! that lead to the mistake.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::layer;
use common::memory::{Memory, Shape};
use common::wrong::{Fault, Wrong};
use longshore_conformance::{Promise, Report, Suite, Verdict};

use Fault as F;
use Promise as P;

struct Case {
    fault: Fault,
    /// The promise that it breaks.
    breaks: Promise,
    /// What the message about it has to contain.
    words: &'static str,
    /// Other promises that may not be kept either then.
    also: &'static [Promise],
}

const fn case(fault: Fault, breaks: Promise, words: &'static str) -> Case {
    let also = &[];
    Case {
        fault,
        breaks,
        words,
        also,
    }
}

impl Case {
    const fn also(mut self, also: &'static [Promise]) -> Self {
        self.also = also;
        self
    }
}

/// Without an instance that is listed by its tags there is not much to see.
const NEED_AN_INSTANCE: &[Promise] = &[
    P::AnswersWithoutCallsAreConstant,
    P::EveryCreateIsListed,
    P::TagsFromBirth,
    P::IdsAreStable,
    P::TypeIsWhatWasAskedFor,
    P::DifferentTokensMakeDifferentInstances,
    P::RepeatedCreateMakesNothingNew,
    P::ConcurrentRepeatsMakeOneInstance,
    P::DroppedCreateCanBeRepeated,
    P::BareRequestIsEnough,
    P::UnknownTypeIsRefused,
    P::UnknownImageIsRefused,
    P::ErrorsSayWhatFailed,
    P::OddTagsAreKept,
    P::ListsExactlyWhatHasTheTags,
    P::ListWithoutTagsGivesAll,
    P::ConsistentListingShowsAllThatWasDone,
    P::SetTagsMerges,
    P::SetTagsAnswersPerChange,
    P::SetTagsLeavesOthersAlone,
    P::TagBatchesAreTaken,
    P::DestroyedInstancesVanish,
    P::DestroyTwiceSucceeds,
    P::DestroyAnswersPerId,
    P::DestroyBatchesAreTaken,
    P::DestroyLeavesOthersAlone,
    P::HostKeysAreJudged,
    P::PriceHistoryIsSorted,
    P::ConsoleOutputKeepsItsLimit,
    P::DeadlinesAreKept,
    P::CallsRunAtOnce,
    P::DroppedCallsDoNoHarm,
    P::StopDestroysNothing,
];

const NEED_AN_EXACT_LISTING: &[Promise] = &[
    P::IdsAreStable,
    P::RepeatedCreateMakesNothingNew,
    P::ConcurrentRepeatsMakeOneInstance,
    P::DroppedCreateCanBeRepeated,
    P::UnknownTypeIsRefused,
    P::UnknownImageIsRefused,
    P::ListWithoutTagsGivesAll,
    P::CallsRunAtOnce,
];

const NEED_A_LISTING_WITHOUT_TAGS: &[Promise] = &[
    P::TagsFromBirth,
    P::OddTagsAreKept,
    P::SetTagsMerges,
    P::SetTagsAnswersPerChange,
    P::SetTagsLeavesOthersAlone,
    P::TagBatchesAreTaken,
    P::CallsRunAtOnce,
];

const NEED_AN_END: &[Promise] = &[
    P::DroppedCreateCanBeRepeated,
    P::ConsistentListingShowsAllThatWasDone,
    P::DestroyTwiceSucceeds,
    P::DestroyAnswersPerId,
    P::DestroyBatchesAreTaken,
    P::DestroyLeavesOthersAlone,
    P::CallsRunAtOnce,
    P::DroppedCallsDoNoHarm,
];

const CASES: &[Case] = &[
    case(
        F::PrintsNothing,
        P::DisplayNamesTheDriver,
        "nothing is printed",
    ),
    case(
        F::PrintsTwoLines,
        P::DisplayNamesTheDriver,
        "is not one line",
    ),
    case(
        F::PrintsNotWhatItWraps,
        P::DisplayNamesTheDriver,
        "does not contain what it wraps",
    ),
    case(
        F::PanicsWhenPrinted,
        P::DisplayNamesTheDriver,
        "panicked: a lock is poisoned",
    ),
    case(
        F::ChangesItsCapabilities,
        P::AnswersWithoutCallsAreConstant,
        "after a create",
    ),
    case(
        F::CountsQuotaGroups,
        P::AnswersWithoutCallsAreConstant,
        "g2",
    ),
    case(
        F::AnswersAboutNothing,
        P::EmptyBatchesDoNothing,
        "1 answer(s)",
    ),
    case(
        F::PanicsOnEmptyBatch,
        P::EmptyBatchesDoNothing,
        "panicked: index out of bounds",
    ),
    case(
        F::HidesExtensions,
        P::ExtensionsAreForwarded,
        "price_history: the instance set inside has it, the layer around it has not",
    ),
    case(
        F::NeverListsPendingOnes,
        P::EveryCreateIsListed,
        "is not among",
    )
    .also(NEED_AN_INSTANCE),
    case(F::TagsComeLater, P::TagsFromBirth, "without"),
    case(
        F::LosesATag,
        P::TagsFromBirth,
        "without longshore-conformance-birth=1",
    ),
    case(F::GivesEmptyIds, P::IdsAreStable, "an id is empty").also(NEED_AN_INSTANCE),
    case(F::GivesOneIdToAll, P::IdsAreStable, "both have the same id").also(NEED_AN_INSTANCE),
    case(
        F::ListsOtherIds,
        P::IdsAreStable,
        "list says that their ids are",
    )
    .also(NEED_AN_INSTANCE),
    case(
        F::EchoesNoType,
        P::TypeIsWhatWasAskedFor,
        "create says its type is \"\"",
    ),
    case(
        F::ListsAnotherType,
        P::TypeIsWhatWasAskedFor,
        "list says its type is \"type s1\"",
    ),
    case(
        F::IgnoresTokens,
        P::DifferentTokensMakeDifferentInstances,
        "both returned",
    )
    .also(&[
        P::IdsAreStable,
        P::SetTagsLeavesOthersAlone,
        P::DestroyLeavesOthersAlone,
    ]),
    case(
        F::ComparesTokensByPrefix,
        P::DifferentTokensMakeDifferentInstances,
        "both returned",
    )
    .also(NEED_AN_INSTANCE),
    case(
        F::CutsLongTokens,
        P::DifferentTokensMakeDifferentInstances,
        "both returned",
    ),
    case(
        F::ForgetsTokens,
        P::RepeatedCreateMakesNothingNew,
        "two instances",
    )
    .also(&[
        P::ConcurrentRepeatsMakeOneInstance,
        P::DroppedCreateCanBeRepeated,
        P::StopDestroysNothing,
    ]),
    case(
        F::MakesASecondBehind,
        P::RepeatedCreateMakesNothingNew,
        "are listed",
    )
    .also(&[
        P::ConcurrentRepeatsMakeOneInstance,
        P::DroppedCreateCanBeRepeated,
    ]),
    case(
        F::LooksUpTokensTooEarly,
        P::ConcurrentRepeatsMakeOneInstance,
        "two instances",
    )
    .also(&[P::DroppedCreateCanBeRepeated]),
    case(
        F::NotesTokensTooLate,
        P::DroppedCreateCanBeRepeated,
        "2 instances are listed",
    ),
    case(F::NeedsAKey, P::BareRequestIsEnough, "NotLikeThat"),
    case(F::NeedsAScript, P::BareRequestIsEnough, "NotLikeThat"),
    case(F::TakesADefaultType, P::UnknownTypeIsRefused, "was made"),
    case(
        F::RefusesTypesByOther,
        P::UnknownTypeIsRefused,
        "kind Other, not InvalidRequest",
    ),
    case(
        F::MakesThenRefuses,
        P::UnknownTypeIsRefused,
        "says NotDone, but",
    ),
    case(F::TakesADefaultImage, P::UnknownImageIsRefused, "was made"),
    case(
        F::NamesAnotherCall,
        P::ErrorsSayWhatFailed,
        "it says that Other failed",
    ),
    case(
        F::NamesNoProvider,
        P::ErrorsSayWhatFailed,
        "does not name the provider",
    ),
    case(
        F::RepeatsItsSource,
        P::ErrorsSayWhatFailed,
        "which the error says already",
    ),
    case(F::HasNoWords, P::ErrorsSayWhatFailed, "no words"),
    case(
        F::TrimsTagValues,
        P::OddTagsAreKept,
        "not \" blanks around \"",
    ),
    case(
        F::ShortensTagValues,
        P::OddTagsAreKept,
        "(255 characters), not",
    ),
    case(F::FailsOnNewlines, P::OddTagsAreKept, "TheWholeCallFailed"),
    case(
        F::MatchesAnyTag,
        P::ListsExactlyWhatHasTheTags,
        "has not all of these tags",
    )
    .also(NEED_AN_EXACT_LISTING),
    case(
        F::MatchesTagPrefixes,
        P::ListsExactlyWhatHasTheTags,
        "has not all of these tags",
    ),
    case(
        F::IgnoresFilters,
        P::ListsExactlyWhatHasTheTags,
        "has not all of these tags",
    )
    .also(NEED_AN_EXACT_LISTING),
    case(
        F::MatchesInAnyCase,
        P::ListsExactlyWhatHasTheTags,
        "color=Red",
    ),
    case(
        F::MatchesPatterns,
        P::ListsExactlyWhatHasTheTags,
        "color=r*",
    ),
    case(
        F::ListsNothingWithoutTags,
        P::ListWithoutTagsGivesAll,
        "is not among the 0",
    )
    .also(NEED_A_LISTING_WITHOUT_TAGS),
    case(
        F::IgnoresUnknownTagNames,
        P::ListWithoutTagsGivesAll,
        "which no instance has",
    ),
    case(
        F::ListsOnePage,
        P::ListsMoreThanOnePage,
        "1000 different instances are listed",
    )
    .also(&[P::SetTagsMerges]),
    case(
        F::DropsAFullLastPage,
        P::ListsMoreThanOnePage,
        "900 different instances are listed",
    ),
    case(
        F::LagsThoughConsistent,
        P::ConsistentListingShowsAllThatWasDone,
        "is not listed",
    ),
    case(F::ReplacesTags, P::SetTagsMerges, "it has no tag").also(&[
        P::SetTagsAnswersPerChange,
        P::OddTagsAreKept,
        P::CallsRunAtOnce,
    ]),
    case(
        F::KeepsOldTagValues,
        P::SetTagsMerges,
        "is \"1\", not \"2\"",
    ),
    case(F::ForgetsTagsBeyondTen, P::OddTagsAreKept, "it has no tag"),
    case(
        F::TagsUnknownOnes,
        P::SetTagsAnswersPerChange,
        "Ok about no-such-instance-0",
    )
    .also(&[P::TagBatchesAreTaken]),
    case(
        F::FailsAllTagsForOne,
        P::SetTagsAnswersPerChange,
        "which exists, the error",
    )
    .also(&[P::TagBatchesAreTaken]),
    case(
        F::AnswersOneTagChange,
        P::SetTagsAnswersPerChange,
        "1 answer(s), and none about",
    )
    .also(&[P::TagBatchesAreTaken]),
    case(
        F::TagErrorsAreOther,
        P::SetTagsAnswersPerChange,
        "which no instance has: memory",
    )
    .also(&[P::TagBatchesAreTaken, P::DeadlinesAreKept]),
    case(F::TagsOthersToo, P::SetTagsLeavesOthersAlone, "the tags of").also(&[P::CallsRunAtOnce]),
    case(
        F::TakesSmallTagBatches,
        P::TagBatchesAreTaken,
        "tag_batch is 20",
    ),
    case(F::TagsTheLastChunk, P::TagBatchesAreTaken, "it has no tag"),
    case(
        F::DestroysNothing,
        P::DestroyedInstancesVanish,
        "is still listed as Running",
    )
    .also(NEED_AN_END),
    case(
        F::ListsTheDeadAsRunning,
        P::DestroyedInstancesVanish,
        "is still listed as Running",
    )
    .also(NEED_AN_END),
    case(
        F::UnknownIsNotFound,
        P::DestroyOfUnknownSucceeds,
        "NoSuchMachine",
    )
    .also(&[P::DestroyAnswersPerId, P::DestroyBatchesAreTaken]),
    case(
        F::RefusesToDestroyTwice,
        P::DestroyTwiceSucceeds,
        "NoSuchMachine",
    )
    .also(&[P::DestroyAnswersPerId, P::DroppedCallsDoNoHarm]),
    case(
        F::AnswersTheFirstId,
        P::DestroyAnswersPerId,
        "1 answer(s), and none about",
    )
    .also(&[P::DestroyBatchesAreTaken]),
    case(F::AnswersAboutOthers, P::DestroyAnswersPerId, "none about")
        .also(&[P::DestroyBatchesAreTaken]),
    case(
        F::AnswersTooOften,
        P::DestroyAnswersPerId,
        "6 answers about 3 ids",
    ),
    case(
        F::OneUnknownFailsAll,
        P::DestroyAnswersPerId,
        "TheWholeCallFailed",
    )
    .also(&[P::DestroyBatchesAreTaken]),
    case(
        F::DestroysSmallBatches,
        P::DestroyBatchesAreTaken,
        "destroy_batch is 50",
    ),
    case(
        F::DestroysTheLastChunk,
        P::DestroyBatchesAreTaken,
        "is still listed as Running",
    ),
    case(F::DestroysOthersToo, P::DestroyLeavesOthersAlone, "as well"),
    case(
        F::MatchesEveryKey,
        P::HostKeysAreJudged,
        "the verdict is Match",
    ),
    case(
        F::MatchesNoKey,
        P::HostKeysAreJudged,
        "the verdict is Mismatch",
    ),
    case(
        F::NeverKnowsKeys,
        P::HostKeysAreJudged,
        "the verdict is Unsupported",
    ),
    case(
        F::IgnoresKeyAlgorithms,
        P::HostKeysAreJudged,
        "under another algorithm",
    ),
    case(
        F::ComparesKeyPrefixes,
        P::HostKeysAreJudged,
        "and one more byte",
    ),
    case(
        F::PricesBackwards,
        P::PriceHistoryIsSorted,
        "comes before one from",
    ),
    case(
        F::PrintsTheWholeConsole,
        P::ConsoleOutputKeepsItsLimit,
        "bytes",
    ),
    case(
        F::PrintsTheFirstBytes,
        P::ConsoleOutputKeepsItsLimit,
        "not the end of",
    ),
    case(
        F::NoticesOthers,
        P::InterruptionsAreOfListedInstances,
        "somebody-elses",
    ),
    case(F::IgnoresTimeouts, P::DeadlinesAreKept, "no answer"),
    case(
        F::OverrunsTimeouts,
        P::DeadlinesAreKept,
        "the quickest answer took",
    ),
    case(F::TimesOutAsOther, P::DeadlinesAreKept, "nor TimedOut"),
    case(F::SaysNothingOnTimeout, P::DeadlinesAreKept, "none about"),
    case(F::SharesOneRequest, P::CallsRunAtOnce, ""),
    case(F::LocksInTwoOrders, P::CallsRunAtOnce, "no answer").also(&[P::TagsFromBirth]),
    case(
        F::IsBusy,
        P::CallsRunAtOnce,
        "it failed: memory: set tags: failed",
    ),
    case(F::LosesTagsSetAtOnce, P::CallsRunAtOnce, "it has no tag"),
    case(F::LeaksALock, P::DroppedCallsDoNoHarm, "no answer"),
    case(
        F::DestroysOnStop,
        P::StopDestroysNothing,
        "is listed as Stopping",
    ),
    case(
        F::ForgetsTokensOnStop,
        P::StopDestroysNothing,
        "two instances",
    ),
    case(
        F::NeverStopsTwice,
        P::StopDestroysNothing,
        "the second time",
    ),
    case(
        F::PanicsInCreate,
        P::EveryCreateIsListed,
        "panicked: no entry found for key",
    )
    .also(NEED_AN_INSTANCE),
];

async fn run(fault: Fault, promises: &[Promise]) -> (Report, Memory) {
    let memory = Memory::new(Shape::full());
    let subject = layer(Arc::new(Wrong::new(fault, memory.clone())), memory.clone())
        .with_instances_at_once(match fault {
            F::ListsOnePage | F::DropsAFullLastPage => 1001,
            _ => 8,
        })
        .with_appearance(Duration::from_secs(20))
        .with_vanishing(Duration::from_secs(25));
    (Suite::only(promises).run(&subject).await, memory)
}

#[tokio::test(start_paused = true)]
async fn each_wrong_driver_is_caught_by_its_promise_in_words() {
    let mut wrong = Vec::new();
    for case in CASES {
        let (report, _) = run(case.fault, Promise::ALL).await;
        let broken: BTreeSet<_> = report.broken().map(|finding| finding.promise).collect();
        let finding = report.finding(case.breaks).unwrap();
        match &finding.verdict {
            Verdict::Broken { what } if what.contains(case.words) => {}
            other => wrong.push(format!("{:?}: {}: {other:?}", case.fault, case.breaks)),
        }
        let may: BTreeSet<_> = case.also.iter().copied().chain([case.breaks]).collect();
        let too: Vec<_> = broken.difference(&may).collect();
        if !too.is_empty() {
            wrong.push(format!("{:?} breaks {too:?} as well", case.fault));
        }
        eprintln!("=== {:?}\n{finding}", case.fault);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The wrapper itself breaks nothing: what is broken is broken by the fault.
#[tokio::test(start_paused = true)]
async fn without_a_fault_everything_is_kept() {
    let (report, memory) = run(F::Nothing, Promise::ALL).await;
    report.assert_kept();
    assert_eq!(memory.alive(), []);
}

/// Also alone, as an author runs it, each promise catches what breaks it.
#[tokio::test(start_paused = true)]
async fn each_promise_catches_its_wrong_drivers_alone() {
    for case in CASES {
        let (report, _) = run(case.fault, &[case.breaks]).await;
        let finding = &report.findings[0];
        assert!(finding.verdict.is_broken(), "{:?}: {finding}", case.fault);
    }
}

#[test]
fn every_promise_has_a_wrong_driver() {
    let with: BTreeSet<_> = CASES.iter().map(|case| case.breaks).collect();
    let without: Vec<_> = Promise::ALL.iter().filter(|p| !with.contains(p)).collect();
    assert!(without.is_empty(), "nothing breaks {without:?}");
}
