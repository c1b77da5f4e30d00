//! What a runner is told and what it says, as pure functions on text.
//!
//! A runner is the program on an instance that supervises containers there. This crate has the
//! whole language between a dispatcher and `longshore-run`:
//!
//! - [`command`]: the command lines that a dispatcher sends over SSH.
//! - [`StartDocument`]: what a container is to run, as JSON on the start command's standard input.
//! - [`StartReply`]: the one line that a successful start prints.
//! - [`report`]: the lines that `--report` prints, and the stock `--list` grammar.
//! - [`OutputWindow`]: a part of an output stream, with the place where it begins.
//! - [`watch`]: requests and answers over one long-lived channel, in place of commands.
//!
//! What is parsed comes from machines that may be broken or hostile: every parser has limits, and
//! an answer that breaks the grammar is refused whole.

pub mod command;
mod document;
pub mod report;
pub mod watch;
mod window;

pub use document::{
    DEFAULT_OUTPUT_LIMIT, DEFAULT_PROCESS_LIMIT, DocumentError, Engine, MAX_DOCUMENT_BYTES,
    MIN_OUTPUT_LIMIT, Mount, Network, START_DOCUMENT_VERSION, StartDocument, StartReply,
    is_image_name,
};
pub use window::{MAX_WINDOW_BYTES, MAX_WINDOW_LINE, OutputWindow};
