//! The parts of the `longshore` program.
//!
//! [`jobfile`] reads what is to be run, [`ui`] shows what happens. The rest is the command line and
//! what surrounds it.

pub mod cli;
pub mod ending;
pub mod jobfile;
pub mod logging;
pub mod runner;
pub mod state_dir;
pub mod text;
pub mod ui;
