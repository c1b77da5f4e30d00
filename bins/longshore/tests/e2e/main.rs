//! The program as a user runs it: `longshore run` from a job file to exit code, summary and files.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod bad_input;
mod display;
mod engines;
mod explained;
mod failures;
mod full_disk;
#[path = "../../../longshore-run/tests/common/groups.rs"]
mod groups;
mod interrupts;
mod nasty;
mod restart;
mod runs;
mod service;
mod service_input;
mod service_list;
mod service_logs;
mod service_metrics;
mod service_store;
mod systemd;
mod world;
