//! tokio around the core.
