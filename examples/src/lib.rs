//! Small programs that show how to use each crate on its own; see `examples/examples`.

/// The code on the page "Writing a driver" compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/writing-a-driver.md")]
mod writing_a_driver {}

/// The code on the page "Embedding the pool" compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
mod embedding {}
