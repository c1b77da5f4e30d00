//! The scheduler (pure): deltas in, actions out, reasons on demand.
