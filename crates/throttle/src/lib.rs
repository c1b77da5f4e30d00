//! Layers around an instance set.
