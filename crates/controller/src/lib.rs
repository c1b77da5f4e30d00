//! The embedded controller: an SQLite store as an in-process queue.
