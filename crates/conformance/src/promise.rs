//! The promises, by name.

use std::fmt;

use crate::checks::{answer, call, create, destroy, extension, list, refuse, stop, tag};
use crate::run::run;
use crate::{Finding, Subject};

/// The largest listing that some provider gives on one page, and one more.
pub(crate) const MORE_THAN_A_PAGE: usize = 1001;

macro_rules! promises {
    ($(
        $name:ident $function:ident: $check:path, $at_once:expr;
        $says:literal
        $contract:literal
    )*) => {
        /// A promise of an instance set.
        ///
        /// ```
        /// use longshore_conformance::Promise;
        /// let promise: Promise = "tags_from_birth".parse().unwrap();
        /// assert_eq!(promise, Promise::TagsFromBirth);
        /// assert_eq!(promise.to_string(), "tags_from_birth");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Promise {
            $(#[doc = concat!("That ", $says, ".")] $name,)*
        }

        impl Promise {
            /// Every promise, in the order in which the suite looks at them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name of its function in [`promises`].
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($function),)* }
            }

            /// What it promises, in a few words.
            ///
            /// ```
            /// use longshore_conformance::Promise;
            /// assert!(Promise::TagsFromBirth.says().contains("tags"));
            /// ```
            pub fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }

            /// Where it comes from: the documentation of [`longshore_cloud::InstanceSet`].
            ///
            /// ```
            /// use longshore_conformance::Promise;
            /// assert!(Promise::TagsFromBirth.contract().contains("tags_at_birth"));
            /// ```
            pub fn contract(self) -> &'static str {
                match self { $(Self::$name => $contract,)* }
            }

            /// How many instances it takes at once with a driver that keeps it; 1 more or a few
            /// with one that does not.
            ///
            /// ```
            /// use longshore_conformance::Promise;
            /// assert_eq!(Promise::EmptyBatchesDoNothing.instances_at_once(), 0);
            /// ```
            pub fn instances_at_once(self) -> usize {
                match self { $(Self::$name => $at_once,)* }
            }

            /// Looks at this promise, and removes what was made for it.
            ///
            /// ```
            /// # use longshore_conformance::{Promise, Subject};
            /// # async fn look(subject: &Subject) {
            /// Promise::TagsFromBirth.check(subject).await.assert_kept();
            /// # }
            /// ```
            pub async fn check(self, subject: &Subject) -> Finding {
                match self { $(Self::$name => promises::$function(subject).await,)* }
            }
        }

        pub mod promises {
            //! One function for each promise, to work on one at a time:
            //!
            //! ```
            //! # use longshore_conformance::{Subject, promises};
            //! # async fn look(subject: &Subject) {
            //! promises::destroyed_instances_vanish(subject).await.assert_kept();
            //! # }
            //! ```
            //!
            //! Each makes what it needs, removes it, and says what it could not remove.

            use super::*;

            $(
                #[doc = concat!("Checks that ", $says, ".")]
                #[doc = ""]
                #[doc = concat!("> ", $contract)]
                #[doc = ""]
                #[doc = "No example: all of them are called as the module's example shows."]
                pub async fn $function(subject: &Subject) -> Finding {
                    run(subject, Promise::$name, $check).await
                }
            )*
        }
    };
}

promises! {
    DisplayNamesTheDriver display_names_the_driver: answer::display, 0;
    "the instance set prints itself: one line with its name, around what it wraps"
    "Display names the stack: a layer prints itself around what it wraps, a driver its name and where."

    AnswersWithoutCallsAreConstant answers_without_calls_are_constant: answer::constant, 1;
    "quota_group and capabilities always give the same answer"
    "quota_group is pure: no call to the provider. capabilities is pure, and always the same answer."

    EmptyBatchesDoNothing empty_batches_do_nothing: call::empty_batches, 0;
    "destroy and set_tags of nothing give no answers and no trouble"
    "destroy and set_tags give one result for each id: of no ids, none."

    ExtensionsAreForwarded extensions_are_forwarded: extension::forwarded, 0;
    "a layer shows the extensions of what it wraps"
    "extensions gives optional powers; layers forward those of what they wrap."

    EveryCreateIsListed every_create_is_listed: create::every_create_is_listed, 2;
    "every instance that create returns is listed by its tags"
    "list gives every instance that has all of the tags, also those that boot or die; it may lag behind reality unless capabilities say consistent_listing."

    TagsFromBirth tags_from_birth: create::tags_from_birth, 2;
    "an instance is never listed without the tags of its request, or has them soon if tags_at_birth is not declared"
    "capabilities.tags_at_birth: an instance is never listed without the tags of its request. Without it, it has them once listings have caught up."

    IdsAreStable ids_are_stable: create::ids_are_stable, 2;
    "an id is not empty, belongs to one instance, and is the same in create and list"
    "Instance.id is the provider's identifier, never empty, unique within the instance set."

    TypeIsWhatWasAskedFor type_is_what_was_asked_for: create::type_is_echoed, 1;
    "an instance says the provider type it was asked for"
    "Instance.provider_type is what the provider calls its type: InstanceType.provider_type of the request."

    DifferentTokensMakeDifferentInstances different_tokens_make_different_instances: create::different_tokens, 2;
    "two requests that differ only in their token make two instances"
    "create makes one instance. The token is the same only when a request is repeated."

    RepeatedCreateMakesNothingNew repeated_create_makes_nothing_new: create::repeated, 1;
    "with idempotent_create, the same request once more gives the same instance"
    "With capabilities.idempotent_create a repeated request with the same token returns the instance that the first one made."

    ConcurrentRepeatsMakeOneInstance concurrent_repeats_make_one_instance: create::concurrent, 1;
    "with idempotent_create, the same request several times at once makes one instance"
    "With capabilities.idempotent_create a repeated request with the same token returns the instance that the first one made; and calls may run at the same time as each other."

    DroppedCreateCanBeRepeated dropped_create_can_be_repeated: create::dropped, 1;
    "with idempotent_create, a create that was dropped can be repeated: there is one instance then"
    "With capabilities.idempotent_create a repeated request with the same token returns the instance that the first one made; and a future that is dropped may still have acted."

    BareRequestIsEnough bare_request_is_enough: create::bare, 1;
    "a request without a script and a key makes an instance"
    "CreateRequest.init_script is empty for none; public_key is none if the image has one."

    UnknownTypeIsRefused unknown_type_is_refused: refuse::unknown_type, 0;
    "a type that the provider does not have is an InvalidRequest, and makes nothing"
    "ErrorKind::InvalidRequest: the provider will never accept this request. Its outcome is NotDone: it surely had no effect."

    UnknownImageIsRefused unknown_image_is_refused: refuse::unknown_image, 0;
    "an image that the provider does not have is an InvalidRequest, and makes nothing"
    "ErrorKind::InvalidRequest: the provider will never accept this request. Its outcome is NotDone: it surely had no effect."

    ErrorsSayWhatFailed errors_say_what_failed: refuse::errors_say_what_failed, 0;
    "an error names its call and its provider, and leaves the provider's words to its source"
    "CloudError: Display says which call and what kind of failure; the provider's own words are in source. An error's Display never repeats its source."

    OddTagsAreKept odd_tags_are_kept: tag::odd, 2;
    "tag values with quotes, newlines, UTF-8 or 256 characters are kept as they are, or refused"
    "CreateRequest.tags are tags that the instance has from birth; what the provider will never accept is an InvalidRequest."

    ListsExactlyWhatHasTheTags lists_exactly_what_has_the_tags: list::exact, 3;
    "list by tags gives all instances that have all of them, and no other"
    "list gives every instance that has all of tags."

    ListWithoutTagsGivesAll list_without_tags_gives_all: list::without_tags, 2;
    "list without tags gives every instance, and tags that nobody has give none"
    "list gives every instance that has all of tags; every instance has all of no tags."

    ListsMoreThanOnePage lists_more_than_one_page: list::more_than_one_page, MORE_THAN_A_PAGE;
    "more than 1,000 instances are all listed"
    "An answer that could not read every page is an error, never a short Ok."

    ConsistentListingShowsAllThatWasDone consistent_listing_shows_all_that_was_done: list::consistent, 1;
    "with consistent_listing, the next listing shows what create, set_tags and destroy did"
    "capabilities.consistent_listing: a listing shows everything that was done before it began."

    SetTagsMerges set_tags_merges: tag::merges, 1;
    "set_tags adds and replaces tags, and removes none"
    "set_tags: tags are merged, never removed."

    SetTagsAnswersPerChange set_tags_answers_per_change: tag::answers, 2;
    "set_tags gives one result for each change, NotFound for an unknown id, and does the others"
    "set_tags gives one result for each id. ErrorKind::NotFound: there is no such thing."

    SetTagsLeavesOthersAlone set_tags_leaves_others_alone: tag::others, 2;
    "set_tags changes only the instances that it names"
    "set_tags sets tags of the instances it is given."

    TagBatchesAreTaken tag_batches_are_taken: tag::batch, 2;
    "set_tags takes as many changes as tag_batch declares"
    "capabilities.tag_batch: the most changes in one set_tags; 0 means no limit."

    DestroyedInstancesVanish destroyed_instances_vanish: destroy::vanish, 1;
    "what was destroyed is soon Stopping, Gone or not listed"
    "destroy: success means that the provider accepted it."

    DestroyOfUnknownSucceeds destroy_of_unknown_succeeds: destroy::unknown, 0;
    "destroy of an id that nobody has succeeds"
    "destroy: an unknown id is success."

    DestroyTwiceSucceeds destroy_twice_succeeds: destroy::twice, 1;
    "destroy of what was destroyed succeeds"
    "destroy: an unknown id is success; so is one that is being destroyed already."

    DestroyAnswersPerId destroy_answers_per_id: destroy::answers, 3;
    "destroy gives one result for each id, and one unknown id does not keep the others alive"
    "destroy: one result for each id, in any order. An unknown id is success."

    DestroyBatchesAreTaken destroy_batches_are_taken: destroy::batch, 2;
    "destroy takes as many ids as destroy_batch declares"
    "capabilities.destroy_batch: the most ids in one destroy; 0 means no limit."

    DestroyLeavesOthersAlone destroy_leaves_others_alone: destroy::others, 2;
    "destroy destroys only the instances that it names"
    "destroy destroys the instances it is given. Instances without our tags are never touched."

    HostKeysAreJudged host_keys_are_judged: answer::host_keys, 1;
    "with host_keys, an instance's own key is a Match and any other a Mismatch"
    "capabilities.host_keys: verify_host_key can tell whether a key is the SSH host key of an instance. An unknown instance has no key."

    PriceHistoryIsSorted price_history_is_sorted: extension::price_history, 1;
    "the price history of an instance is oldest first"
    "PriceHistory gives the prices of an instance during the last span, oldest first."

    ConsoleOutputKeepsItsLimit console_output_keeps_its_limit: extension::console_output, 1;
    "console output is the last bytes, and no more than asked for"
    "ConsoleOutput gives the last limit bytes that an instance printed on its console."

    InterruptionsAreOfListedInstances interruptions_are_of_listed_instances: extension::interruptions, 0;
    "interruption notices are only about instances of this set"
    "InterruptionNotices gives every instance that is about to be taken away; an instance set is all instances that an installation may touch."

    DeadlinesAreKept deadlines_are_kept: call::deadlines, 2;
    "a call with next to no time ends at once, with an answer or TimedOut"
    "Each call ends within CallContext::timeout, with ErrorKind::TimedOut if need be."

    CallsRunAtOnce calls_run_at_once: call::at_once, 3;
    "calls of all kinds at the same time do not disturb each other"
    "Calls may run at the same time as each other."

    DroppedCallsDoNoHarm dropped_calls_do_no_harm: call::dropped, 4;
    "after calls that were dropped half-way the instance set works as before"
    "A future that is dropped may still have acted."

    StopDestroysNothing stop_destroys_nothing: stop::stop, 1;
    "stop returns, also the second time, and destroys nothing"
    "stop ends background work. Calls after it may fail. Destroys nothing."
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no promise has.
///
/// ```
/// use longshore_conformance::Promise;
/// let error = "tags_from_death".parse::<Promise>().unwrap_err();
/// assert!(error.to_string().starts_with("no promise has the name \"tags_from_death\""));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no promise has the name {0:?}; Promise::ALL has their names")]
pub struct UnknownPromise(String);

impl std::str::FromStr for Promise {
    type Err = UnknownPromise;

    fn from_str(name: &str) -> Result<Self, UnknownPromise> {
        let mut all = Self::ALL.iter().copied();
        let found = all.find(|promise| promise.name() == name);
        found.ok_or_else(|| UnknownPromise(name.chars().take(64).collect()))
    }
}
