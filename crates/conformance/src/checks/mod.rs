//! What is done to see whether a promise is kept.

pub(crate) mod answer;
pub(crate) mod call;
pub(crate) mod create;
pub(crate) mod destroy;
pub(crate) mod extension;
pub(crate) mod list;
pub(crate) mod refuse;
pub(crate) mod stop;
pub(crate) mod tag;
