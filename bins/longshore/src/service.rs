//! The service: jobs and instances of a state directory, for other processes.
//!
//! Whoever holds a state directory (`longshore serve`, or a `longshore run`) answers on a Unix
//! socket in it; `serve` also on TCP. Commands ask there. [`Jobs`] is the same in this process
//! and through the socket, so that `run` works with either.

mod api;
pub mod client;
mod files;
pub(crate) mod follower;
mod jobs;
mod local;
mod pages;
mod pruning;
mod requests;
pub mod serve;
mod server;
mod systemd;
pub mod view;

pub use client::{Client, ClientError, ServiceKind};
pub use jobs::Jobs;
pub use local::Local;
pub(crate) use pruning::{USUAL, prune_forever};
pub(crate) use server::{Bound, ServerSettings};
