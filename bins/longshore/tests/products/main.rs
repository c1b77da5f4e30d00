//! The library crates as products of their own: whatever is public is shown in an example or says
//! why not, and lets no other crate's types through but those on a list.

mod examples;
mod foreign;
mod source;

/// The crates that are products of their own, by folder.
const PRODUCTS: &[&str] = &[
    "cloud",
    "exec",
    "throttle",
    "ssh",
    "pool",
    "scheduler",
    "fakecloud",
    "conformance",
];
