//! Reading the output of containers that ended, in bounded pieces.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use longshore_types::{ContainerUuid, Cut};

use crate::Store;

/// The longest line that says how much is missing in its place, and the end of the one before.
const MAX_MARK: usize = 200;
/// The most bytes in one [`Window`].
const MAX_WINDOW: u64 = 1 << 20;

/// A part of an output stream that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// Which attempt wrote it; 0 where only one is there.
    pub attempt: u32,
    /// Where it begins, in bytes from the beginning of what the container wrote. Later than what
    /// was asked for if that was not kept.
    pub from: u64,
    /// What it holds; empty at the end.
    pub bytes: Vec<u8>,
}

impl Window {
    /// These bytes from here on.
    pub fn new(from: u64, bytes: Vec<u8>) -> Self {
        Self {
            attempt: 0,
            from,
            bytes,
        }
    }

    /// The same, of this attempt.
    #[must_use]
    pub fn of_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }
}

impl Store {
    /// At most `length` bytes, and never more than 1 MiB, of what a container that ended wrote to
    /// a stream (`stdout` or `stderr`), from the byte `from` on, or later if that was not kept.
    /// Beyond the end, and where nothing was kept, it is empty.
    ///
    /// `cut` is what its [`Exit`](longshore_types::Exit) says was left out of the middle. No window
    /// reaches over it, and the line that stands there in the file is in none.
    pub async fn read_kept(
        &self,
        uuid: ContainerUuid,
        stream: &str,
        (from, length): (u64, u64),
        cut: Option<Cut>,
    ) -> io::Result<Window> {
        let path = self.output_path(uuid, stream);
        let reading = tokio::task::spawn_blocking(move || match File::open(&path) {
            Ok(file) => read(&file, from, length.min(MAX_WINDOW), cut),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Window::new(from, Vec::new()))
            }
            Err(error) => Err(named(&path, &error)),
        });
        reading
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

fn read(file: &File, from: u64, length: u64, cut: Option<Cut>) -> io::Result<Window> {
    let (first_line, dropped) = dropped(&peek(file, 0)?).unwrap_or((0, 0));
    let from = from.max(dropped);
    // Where a byte of the stream before the cut is in the file.
    let place = |byte: u64| (byte - dropped).saturating_add(first_line);
    let Some(cut) = cut.filter(|cut| dropped <= cut.from && cut.from < cut.to) else {
        return read_at(file, place(from), length).map(|bytes| Window::new(from, bytes));
    };
    if from < cut.from {
        let bytes = read_at(file, place(from), length.min(cut.from - from))?;
        return Ok(Window::new(from, bytes));
    }
    let from = from.max(cut.to);
    let line = left_out(&peek(file, place(cut.from))?).unwrap_or(0);
    let place = place(cut.from)
        .saturating_add(line)
        .saturating_add(from - cut.to);
    read_at(file, place, length).map(|bytes| Window::new(from, bytes))
}

/// The first bytes from a place on, enough for any mark.
fn peek(file: &File, place: u64) -> io::Result<Vec<u8>> {
    read_at(file, place, MAX_MARK as u64)
}

fn read_at(mut file: &File, place: u64, length: u64) -> io::Result<Vec<u8>> {
    // A file system refuses positions that no file of it could have.
    file.seek(SeekFrom::Start(place.min(file.metadata()?.len())))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The length of the first line, and how many bytes it says were dropped, if that is what it is.
fn dropped(head: &[u8]) -> Option<(u64, u64)> {
    let end = head.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&head[..end]).ok()?;
    let rest = line.strip_prefix("[longshore: ")?;
    let dropped = rest.strip_suffix(" bytes before this were dropped]")?;
    Some((end as u64 + 1, dropped.parse().ok()?))
}

/// The length of the line that stands where bytes were left out, the end of the one before it
/// included.
fn left_out(head: &[u8]) -> Option<u64> {
    let line = head.strip_prefix(b"\n")?;
    let end = line.iter().position(|&byte| byte == b'\n')?;
    line.starts_with(b"[longshore: ").then_some(end as u64 + 2)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A stream of 26 letters, of which `d` to `w` was left out, as it is kept.
    fn kept(dropped: usize) -> File {
        let mut file = tempfile::tempfile().unwrap();
        if dropped > 0 {
            writeln!(
                file,
                "[longshore: {dropped} bytes before this were dropped]"
            )
            .unwrap();
        }
        let mark = "\n[longshore: 20 bytes of output were left out here; the limit is 6 B]\n";
        file.write_all(&b"abc"[dropped..]).unwrap();
        file.write_all(mark.as_bytes()).unwrap();
        file.write_all(b"xyz").unwrap();
        file
    }

    #[test]
    fn windows_have_their_place_in_what_was_written() {
        let cut = Some(Cut { from: 3, to: 23 });
        for dropped in 0..=3 {
            let file = kept(dropped);
            for (from, length, begin, text) in [
                (0, 9, dropped as u64, &"abc"[dropped..]),
                (2, 9, 2, "c"),
                (3, 9, 23, "xyz"),
                (22, 2, 23, "xy"),
                (24, 9, 24, "yz"),
                (26, 9, 26, ""),
                (u64::MAX, u64::MAX, u64::MAX, ""),
            ] {
                if from < 3 && dropped as u64 > from {
                    continue;
                }
                let window = read(&file, from, length, cut).unwrap();
                assert_eq!(window, Window::new(begin, text.into()), "{dropped} {from}");
            }
        }
    }

    #[test]
    fn a_cut_that_is_not_in_the_file_does_no_harm() {
        for cut in [
            Cut { from: 9, to: 4 },
            Cut {
                from: 0,
                to: u64::MAX,
            },
            Cut {
                from: u64::MAX - 1,
                to: u64::MAX,
            },
        ] {
            let file = kept(1);
            let mut at = 0;
            for _ in 0..10 {
                let window = read(&file, at, 1 << 20, Some(cut)).unwrap();
                assert!(window.from >= at);
                at = window.from + window.bytes.len() as u64;
            }
            assert!(
                read(&file, at, 9, Some(cut)).unwrap().bytes.is_empty(),
                "{cut:?}"
            );
        }
    }
}
