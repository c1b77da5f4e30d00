//! A part of an output stream as a runner prints it: one line that says where it begins, then the
//! bytes.

use serde::{Deserialize, Serialize};

/// The most bytes of output in one window: 1 MiB.
pub const MAX_WINDOW_BYTES: u64 = 1 << 20;
/// The longest first line of a window, in bytes, its end included.
pub const MAX_WINDOW_LINE: usize = 256;

/// A part of what a container wrote to an output stream.
///
/// ```
/// use longshore_runner_api::OutputWindow;
/// let window = OutputWindow { from: 7, bytes: b"text".to_vec() };
/// let printed = window.format();
/// assert_eq!(printed, b"{\"from\":7}\ntext");
/// assert_eq!(OutputWindow::parse(&printed, (5, 100)), Some(window));
/// // It begins before what was asked for.
/// assert_eq!(OutputWindow::parse(&printed, (8, 100)), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct OutputWindow {
    /// Where it begins, in bytes from the beginning of what the container wrote: later than what
    /// was asked for if that was left out.
    pub from: u64,
    /// What it holds; empty where nothing more is written yet.
    pub bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    from: u64,
}

impl OutputWindow {
    /// As it is printed.
    pub fn format(&self) -> Vec<u8> {
        let mut text = format!("{{\"from\":{}}}\n", self.from).into_bytes();
        text.extend(&self.bytes);
        text
    }

    /// Reads what was printed when `length` bytes from the byte `from` on were asked for. None if
    /// that is not an answer to it.
    pub fn parse(printed: &[u8], (from, length): (u64, u64)) -> Option<Self> {
        let head = printed.get(..MAX_WINDOW_LINE).unwrap_or(printed);
        let end = head.iter().position(|byte| *byte == b'\n')?;
        let line: Line = serde_json::from_slice(head.get(..end)?).ok()?;
        let bytes = printed.get(end + 1..)?.to_vec();
        let is_answer = line.from >= from && bytes.len() as u64 <= length;
        is_answer.then_some(Self {
            from: line.from,
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_refused() {
        let read = |text: &str| OutputWindow::parse(text.as_bytes(), (5, 3));
        assert!(read("{\"from\":5}\nabc").is_some());
        assert!(read("{\"from\":9,\"more\":1}\n").is_some());
        let long = format!("{}{{\"from\":5}}\nabc", " ".repeat(MAX_WINDOW_LINE));
        for bad in [
            "",
            "abc",
            "\nabc",
            "{\"from\":5}",
            "{\"from\":4}\nabc",
            "{\"from\":-5}\nabc",
            "{\"from\":5}\nabcd",
            "{}\nabc",
            &long,
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
