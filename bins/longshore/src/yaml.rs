//! YAML files that people write: values that know where they stand, and problems that say so.

pub(crate) mod file;
pub(crate) mod problem;
pub(crate) mod tree;
pub(crate) mod value;
