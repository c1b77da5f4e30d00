//! The parts of the `longshore` program.

pub mod jobfile;
pub mod text;
