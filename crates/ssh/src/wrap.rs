//! The line that is really sent, and the trailer that comes back. Pure.
//!
//! libssh2 cannot tell an exit status of 0 from none. So the login shell runs the caller's line in
//! a subshell, and then prints a nonce and the status on standard error:
//!
//! ```text
//! (eval ' LINE');s=$?;printf 'NONCE:%d;' "$s" >&2;exit "$s"
//! ```
//!
//! The line is quoted, so whatever it holds (an open quote, `exit 3`, a comment) ends with the
//! subshell. The subshell is a fork without an exec, and the only extra process.

/// Bytes of a nonce, before it is written in hexadecimal.
pub(crate) const NONCE_BYTES: usize = 16;
/// The longest line that is sent; an SSH packet carries about 32 KiB.
const MAX_WRAPPED: usize = 30_000;
/// The most digits of a status, 32 bits.
const MAX_DIGITS: usize = 10;

/// A line to send, and what its trailer begins with.
#[derive(Clone, Debug)]
pub(crate) struct Wrapped {
    pub(crate) line: String,
    pub(crate) mark: String,
}

/// Wraps a line for a POSIX login shell; an error says why it cannot be sent.
pub(crate) fn wrap(line: &str, nonce: [u8; NONCE_BYTES]) -> Result<Wrapped, &'static str> {
    const TOO_LONG: &str = "it is longer than 30,000 bytes";
    if line.len() > MAX_WRAPPED {
        return Err(TOO_LONG);
    }
    if line.contains('\0') {
        return Err("it has a NUL byte");
    }
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    // The blank keeps a line that begins with a dash from being an option of eval.
    let quoted = quote(&format!(" {line}"));
    let line = format!("(eval {quoted});s=$?;printf '{nonce}:%d;' \"$s\" >&2;exit \"$s\"");
    if line.len() > MAX_WRAPPED {
        return Err(TOO_LONG);
    }
    Ok(Wrapped {
        line,
        mark: format!("{nonce}:"),
    })
}

/// Quotes a text as one word of a POSIX shell.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Takes the trailer out of standard error, wherever it was cut into chunks.
#[derive(Debug)]
pub(crate) struct Scanner {
    mark: Vec<u8>,
    /// The end of what came so far, if it may be the beginning of a trailer.
    held: Vec<u8>,
    status: Option<u32>,
}

/// What the bytes at some place are.
enum Found {
    Trailer { length: usize, status: u32 },
    Perhaps,
    Not,
}

impl Scanner {
    pub(crate) fn new(mark: String) -> Self {
        Self {
            mark: mark.into_bytes(),
            held: Vec::new(),
            status: None,
        }
    }

    /// The status, once the trailer was seen.
    pub(crate) fn status(&self) -> Option<u32> {
        self.status
    }

    /// Takes the next chunk and returns what of it, and of what was held back, is output.
    pub(crate) fn push(&mut self, chunk: Vec<u8>) -> Vec<u8> {
        if self.status.is_some() {
            return chunk;
        }
        let mut bytes = std::mem::take(&mut self.held);
        if bytes.is_empty() {
            bytes = chunk;
        } else {
            bytes.extend_from_slice(&chunk);
        }
        let mut at = 0;
        while let Some(offset) = bytes[at..].iter().position(|&b| b == self.mark[0]) {
            at += offset;
            match self.look(&bytes[at..]) {
                Found::Trailer { length, status } => {
                    self.status = Some(status);
                    bytes.drain(at..at + length);
                    return bytes;
                }
                Found::Perhaps => {
                    self.held = bytes.split_off(at);
                    return bytes;
                }
                Found::Not => at += 1,
            }
        }
        bytes
    }

    /// What was held back in vain; for the end of the stream.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn look(&self, bytes: &[u8]) -> Found {
        let common = bytes.len().min(self.mark.len());
        if bytes[..common] != self.mark[..common] {
            return Found::Not;
        }
        let rest = &bytes[common..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        match rest.get(digits) {
            None if digits <= MAX_DIGITS => Found::Perhaps,
            Some(b';') => match std::str::from_utf8(&rest[..digits]).map(str::parse) {
                Ok(Ok(status)) => Found::Trailer {
                    length: common + digits + 1,
                    status,
                },
                _ => Found::Not,
            },
            _ => Found::Not,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_BYTES] = [0xab; NONCE_BYTES];

    fn scan(chunks: &[&[u8]]) -> (Vec<u8>, Option<u32>) {
        let mut scanner = Scanner::new(wrap("", NONCE).unwrap().mark);
        let mut output = Vec::new();
        for chunk in chunks {
            output.extend(scanner.push(chunk.to_vec()));
        }
        output.extend(scanner.finish());
        (output, scanner.status())
    }

    #[test]
    fn the_line_is_one_word_whatever_it_holds() {
        let wrapped = wrap("echo 'a", NONCE).unwrap();
        assert!(
            wrapped
                .line
                .starts_with(r"(eval ' echo '\''a');s=$?;printf 'abab")
        );
        assert!(wrap("a\0b", NONCE).is_err());
        assert!(wrap(&"'".repeat(10_000), NONCE).is_err());
    }

    #[test]
    fn the_trailer_is_found_wherever_it_is_cut() {
        let text = format!("some abab text{}:137;after", "ab".repeat(16));
        let bytes = text.as_bytes();
        let expected = (b"some abab textafter".to_vec(), Some(137));
        for i in 0..bytes.len() {
            for j in i..bytes.len() {
                let cut = scan(&[&bytes[..i], &bytes[i..j], &bytes[j..]]);
                assert_eq!(cut, expected, "cut at {i} and {j}");
            }
        }
    }

    #[test]
    fn what_is_no_trailer_is_output() {
        let mark = "ab".repeat(16);
        for text in [
            format!("{mark}:"),
            format!("{mark}:12"),
            format!("{mark}:x;"),
            format!("{mark}:;"),
            format!("{mark}:99999999999;"),
            format!("{mark}:4294967296;"),
            "ababab".to_owned(),
        ] {
            assert_eq!(scan(&[text.as_bytes()]), (text.into_bytes(), None));
        }
        let late = format!("a{mark}:1{mark}:2;b");
        assert_eq!(
            scan(&[late.as_bytes()]),
            (format!("a{mark}:1b").into_bytes(), Some(2))
        );
    }
}
