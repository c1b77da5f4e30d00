//! The parts of the `longshore` program.
//!
//! [`jobfile`] reads what is to be run, [`run`] puts controller, pool and scheduler together,
//! [`ui`] shows what happens, [`service`] answers other processes, and [`command`] asks it. The rest is the command line and what surrounds it.

#![cfg_attr(not(test), deny(clippy::print_stderr))]

pub mod bench;
pub mod cli;
pub mod command;
pub mod embedded;
pub mod ending;
pub mod jobfile;
pub mod logging;
mod presence;
pub mod provider;
pub mod run;
pub mod runner;
pub mod service;
pub mod sim;
pub mod state;
pub mod state_dir;
pub mod text;
pub mod ui;
mod yaml;
