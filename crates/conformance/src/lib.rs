//! The promises of a cloud driver, as tests that any driver can run.
//!
//! [`longshore_cloud::InstanceSet`] says in words what a driver promises. This crate says it in
//! code: one [`Promise`] for each, a function to look at it ([`promises`]), and a [`Suite`] that
//! looks at all that apply and gives a [`Report`]. It knows nothing of any provider.
//!
//! # In a driver's tests
//!
//! Tell the suite what to test (a [`Subject`]), run it, and assert on the report. Here the driver
//! is the fake cloud, on tokio's paused time, so that minutes take no time:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use longshore_cloud::{CreateRequest, InstanceSet};
//! use longshore_conformance::{Promise, Subject, Suite};
//! use longshore_fakecloud::{FakeCloud, Settings};
//! use longshore_types::HostKey;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
//! # .unwrap().block_on(async {
//! let settings = Settings::default().with_provider_type("s1").with_image("image");
//! let cloud = FakeCloud::tokio(settings, 1);
//! let (again, truth) = (cloud.clone(), cloud.clone());
//! let nobodys_key = HostKey { algorithm: "ssh-ed25519".into(), blob: vec![0; 51] };
//!
//! let subject = Subject::new(Arc::new(cloud), CreateRequest::example())
//!     .with_name("Fake(")
//!     .with_instances_at_once(4)
//!     .with_slack(Duration::from_secs(5))
//!     .with_boot(Duration::from_secs(300))
//!     .with_host_keys(
//!         move |instance| {
//!             let key = truth.with(|cloud, _| cloud.host_key(&instance.id));
//!             async move { key }
//!         },
//!         nobodys_key,
//!     )
//!     .with_reopen(move || {
//!         let opened: Arc<dyn InstanceSet> = Arc::new(again.reopen());
//!         async move { Ok(opened) }
//!     });
//!
//! let report = Suite::new().run(&subject).await;
//! eprintln!("{report}");
//! report.assert_kept();
//! let not_run: Vec<_> = report.not_run().map(|finding| finding.promise).collect();
//! assert_eq!(not_run, [Promise::ExtensionsAreForwarded, Promise::ListsMoreThanOnePage]);
//! # });
//! ```
//!
//! The last assertion matters as much as the one before it: what a driver does not declare, or
//! what the subject does not allow, is *not run*, which is neither kept nor broken, and the report
//! says why. [`Suite::without`] leaves out a promise, with a reason that the report repeats.
//!
//! A layer is tested around an instance set that keeps its promises;
//! [`Subject::with_inner`] gives the suite what is inside, to compare. A provider that takes any
//! type name, or has no images, says so:
//!
//! ```
//! # use std::sync::Arc;
//! # use longshore_cloud::InstanceSet;
//! # use longshore_conformance::Subject;
//! # fn layer(subject: Subject, inside: Arc<dyn InstanceSet>) -> Subject {
//! subject
//!     .with_inner(inside)
//!     .with_any_type_accepted()
//!     .with_any_image_accepted()
//! # }
//! ```
//!
//! # One promise at a time
//!
//! While you work on a driver, run the function of one promise: it makes what it needs, and
//! removes it.
//!
//! ```
//! # use longshore_conformance::{Subject, promises};
//! # async fn look(subject: Subject) {
//! let finding = promises::repeated_create_makes_nothing_new(&subject).await;
//! eprintln!("{finding}");
//! finding.assert_kept();
//! # }
//! ```
//!
//! A broken promise is told in four lines: what was done, what was seen, what the contract says,
//! and what to fix.
//!
//! ```text
//! BROKEN   set_tags_answers_per_change                      2     1.1s  set_tags gives one result ...
//!            Done: set longshore-conformance-added=1 of ["i-27", "i-0", "i-28"] in one call.
//!            Seen: about i-27, which exists, the error: ec2: set tags: not found: InvalidID.
//!            Contract: set_tags gives one result for each id. ErrorKind::NotFound: there is ...
//!            To fix: set the tags of every id that exists, whatever comes of the others.
//! ```
//!
//! # What it costs at a real provider
//!
//! | | creates | at once | takes |
//! |---|---|---|---|
//! | one promise | 0 to 4; 6 for [`Promise::DroppedCallsDoNoHarm`], 8 for [`Promise::DroppedCreateCanBeRepeated`] | [`Promise::instances_at_once`], at most 4 | seconds; minutes where listings lag |
//! | the suite, with 4 instances at once | 71, of which some 50 make an instance | 4 | some ten minutes with consistent listings, an hour with a lag of a minute |
//! | [`Promise::ListsMoreThanOnePage`] | 1,001 | 1,001 | only if [`Subject::with_instances_at_once`] allows it |
//!
//! With a driver that breaks its promises there may be a few more at once. No check waits until an
//! instance has booted, but for [`Promise::HostKeysAreJudged`]: choose the smallest type.
//!
//! How long to wait is the subject's: [`Subject::with_appearance`] (how long listings lag; waited
//! for in full wherever something must *not* appear), [`Subject::with_vanishing`],
//! [`Subject::with_boot`], [`Subject::with_call_timeout`]. A refusal that passes (`RateLimited`,
//! `QuotaExceeded`, `NoCapacity`) is waited out; if it does not pass, the promise is not run.
//!
//! # What is left behind
//!
//! Nothing, if the driver can help it. Each check tags what it makes ([`RUN_TAG`] and a tag of the
//! check), and destroys it until listings no longer show it alive: also when the promise is broken,
//! when a call panics or hangs, when a reply was lost, and when the future is dropped (then in the
//! background, as long as the runtime lives). What existed before the check is never destroyed,
//! whatever the driver says about it. What could not be removed is named in
//! [`Finding::left_behind`] and [`Report::left_behind`], and fails the assertion. After a run that
//! was killed, [`Subject::clean_up`] with the name of that run removes the rest.
//!
//! # What it cannot do
//!
//! - A driver that blocks its thread can only be told from outside it: use a runtime with several
//!   threads for drivers that do real work (`#[tokio::test(flavor = "multi_thread")]`).
//! - Under paused time, calls that take real time seem to take none, or time out at once.
//! - Faults of the provider (a page that cannot be read, a lost reply) cannot be brought about
//!   from here. For those, test the driver against an emulator that has them.

mod call;
mod checks;
mod clean;
mod jobs;
mod lab;
mod patience;
mod promise;
mod report;
mod run;
mod subject;
mod suite;
mod wait;

pub use promise::{Promise, UnknownPromise, promises};
pub use report::{Finding, LeftBehind, NotKept, Report, Verdict};
pub use subject::{RUN_TAG, Subject};
pub use suite::Suite;
