//! Small programs that show how to use each crate on its own; see `examples/examples`.
