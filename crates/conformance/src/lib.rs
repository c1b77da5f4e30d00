//! The promises of a cloud driver, as tests that any driver can run.

mod call;
mod checks;
mod clean;
mod lab;
mod promise;
mod report;
mod run;
mod subject;
mod suite;

pub use promise::{Promise, UnknownPromise, promises};
pub use report::{Finding, LeftBehind, NotKept, Report, Verdict};
pub use subject::{RUN_TAG, Subject};
pub use suite::Suite;
