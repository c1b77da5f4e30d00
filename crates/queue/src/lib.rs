//! The queue's trait and its cache (pure).
