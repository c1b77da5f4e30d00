//! An in-memory cloud with injectable faults, on a given clock.
