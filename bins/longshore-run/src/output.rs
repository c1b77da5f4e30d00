//! What a container writes: kept within its limit while it runs, and printed by `--output`.
//!
//! A stream is a file that the container itself appends to; nothing passes through our memory. Of
//! one that grows beyond its limit the middle is given back to the disk while the container
//! writes: the file keeps its offsets, and has a hole. Whoever reads all of it gets the beginning,
//! a line that says how much was left out, and the end. The hole itself is the record of what was
//! cut; on a file system without holes it is that line, which stands in the file then.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write, copy, stdout};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use longshore_runner_api::command::OutputStream;
use longshore_runner_api::{MAX_WINDOW_BYTES, OutputWindow};
use longshore_types::{Attempt, ByteSize, ContainerUuid, Cut, Written};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use crate::directory::RunDirectory;

/// Holes begin and end at multiples of this.
const BLOCK: u64 = 4096;
/// How the line in the place of what was left out begins.
const MARK: &str = "\n[longshore: ";
/// No such line is longer, in bytes.
const MAX_MARK: usize = 200;
/// No stream has had more left out, in bytes: a line that says so is not ours.
const MAX_LEFT_OUT: u64 = 1 << 50;

/// Which part of a stream is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// As long as it is now.
    All,
    /// So many of its last bytes.
    Last(u64),
    /// From a byte on, at most so many, with a line that says where they begin.
    Window { from: u64, length: u64 },
}

/// Prints a part of a stream, as far as it is written now.
pub(crate) fn output(
    directory: &RunDirectory,
    uuid: ContainerUuid,
    attempt: Attempt,
    stream: OutputStream,
    part: Part,
) -> Result<u8> {
    let entry = directory.entry(uuid, attempt);
    let (path, limit) = (entry.output(stream), entry.output_limit());
    let mut out = stdout().lock();
    let no_output = || format!("there is no output of attempt {attempt} of {uuid}");
    let printed = match part {
        Part::Window { from, length } => {
            let window = window(&path, limit, (from, length)).with_context(no_output)?;
            out.write_all(&window.format())
        }
        Part::All | Part::Last(_) => {
            let text = Text::open(&path, limit).with_context(no_output)?;
            let last = match part {
                Part::Last(last) => last,
                _ => u64::MAX,
            };
            text.print_last(last, &mut out)
        }
    };
    printed
        .and_then(|()| out.flush())
        .context("cannot print the output")?;
    Ok(0)
}

/// Reads a part of a stream whose middle may be cut at this moment.
fn window(path: &Path, limit: ByteSize, asked: (u64, u64)) -> io::Result<OutputWindow> {
    let text = Text::open(path, limit)?;
    let mut window = text.window(asked)?;
    let now = Text::open(path, limit)?;
    let moved = now.cut != text.cut;
    if moved && window.from + window.bytes.len() as u64 > now.head {
        // It may have zeros, or later bytes, in the place of what was there.
        window.from = now.start_of_what_is_there(window.from);
        window.bytes.clear();
    }
    Ok(window)
}

/// A stream as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Text {
    file: File,
    limit: ByteSize,
    /// Where the first part ends.
    head: u64,
    /// What is missing between the two parts.
    cut: Option<Cut>,
    /// Where in the file the second part begins and ends.
    tail: (u64, u64),
}

impl Text {
    /// `limit` is what the container was started with.
    pub(crate) fn open(path: &Path, limit: ByteSize) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let size = file.metadata()?.len();
        let cut = hole(&file, limit, size)
            .map(|cut| (cut, cut.to))
            .or_else(|| written_mark(&file, limit, size));
        // What is left after a cut may begin behind what there was before it.
        let size = match cut {
            Some(_) => file.metadata()?.len(),
            None => size,
        };
        Ok(Self {
            file,
            limit,
            head: cut.map_or(size, |(cut, _)| cut.from),
            cut: cut.map(|(cut, _)| cut),
            tail: (cut.map_or(size, |(_, tail)| tail), size),
        })
    }

    /// How much the container wrote, and what of it is there.
    pub(crate) fn written(&self) -> Written {
        let left_out = self.cut.map_or(0, Cut::bytes);
        Written {
            bytes: self.head + left_out + (self.tail.1 - self.tail.0),
            cut: self.cut,
        }
    }

    /// Writes the last so many bytes that are there, and between the two parts the line that says
    /// what is missing.
    fn print_last(&self, last: u64, out: &mut impl Write) -> io::Result<()> {
        let written = self.written();
        let from = written.start_of_last(last);
        if from < self.head {
            self.copy(from, self.head - from, out)?;
        }
        let Some(cut) = self.cut else { return Ok(()) };
        if from < cut.to {
            out.write_all(mark(cut.bytes(), self.limit).as_bytes())?;
        }
        let skipped = from.saturating_sub(cut.to);
        let length = (self.tail.1 - self.tail.0).saturating_sub(skipped);
        self.copy(self.tail.0 + skipped, length, out)
    }

    /// The first byte from this one on that was not left out.
    fn start_of_what_is_there(&self, from: u64) -> u64 {
        match self.cut {
            Some(cut) if cut.from <= from => from.max(cut.to),
            _ => from,
        }
    }

    /// At most `length` bytes from the byte `from` on, in one of the two parts.
    fn window(&self, (from, length): (u64, u64)) -> io::Result<OutputWindow> {
        let from = self.start_of_what_is_there(from);
        let (place, room) = match self.cut {
            Some(cut) if cut.to <= from => {
                let place = self.tail.0.saturating_add(from - cut.to);
                (place, self.tail.1.saturating_sub(place))
            }
            _ => (from, self.head.saturating_sub(from)),
        };
        let mut bytes = Vec::new();
        self.copy(place, length.min(room).min(MAX_WINDOW_BYTES), &mut bytes)?;
        Ok(OutputWindow { from, bytes })
    }

    /// Bounded, for the container may write faster than we print.
    fn copy(&self, place: u64, length: u64, out: &mut impl Write) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let mut file = &self.file;
        file.seek(SeekFrom::Start(place))?;
        copy(&mut file.take(length), out).map(drop)
    }
}

/// Gives back what a stream has too much of, from its middle; to be called now and then while the
/// container writes. What it writes in between is above the limit for that long.
pub(crate) fn cut(path: &Path, limit: ByteSize) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let size = file.metadata()?.len();
    let half = half(limit);
    let end = size.saturating_sub(half) / BLOCK * BLOCK;
    if size <= limit.0 || end <= half {
        return Ok(());
    }
    let offset = |n: u64| libc::off_t::try_from(n).unwrap_or(libc::off_t::MAX);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(&file, flags, offset(half), offset(end - half)) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => cut_without_hole(path, limit),
        Err(error) => Err(error.into()),
    }
}

/// The same where files can have no holes: the beginning is kept, and what comes from now on.
fn cut_without_hole(path: &Path, limit: ByteSize) -> io::Result<()> {
    let left_out = Text::open(path, limit)?.written().bytes - half(limit);
    // What is appended goes behind the line, also what the container writes meanwhile.
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.set_len(half(limit))?;
    file.write_all(mark(left_out, limit).as_bytes())
}

fn mark(bytes: u64, limit: ByteSize) -> String {
    format!("{MARK}{bytes} bytes of output were left out here; the limit is {limit} a stream]\n")
}

/// How much of the beginning is kept, and at least how much of the end.
fn half(limit: ByteSize) -> u64 {
    limit.0 / 2 / BLOCK * BLOCK
}

/// Where a stream has its hole if it was cut; it was so long before it is looked.
fn hole(file: &File, limit: ByteSize, size: u64) -> Option<Cut> {
    let from = half(limit);
    if size <= limit.0 || seek(file, from, Whence::SeekHole)? != from {
        return None;
    }
    let to = seek(file, from, Whence::SeekData)?;
    (from < to).then_some(Cut { from, to })
}

/// What the line in the place of a hole says, and where in the file it ends.
fn written_mark(file: &File, limit: ByteSize, size: u64) -> Option<(Cut, u64)> {
    let from = half(limit);
    let mut head = vec![0; MAX_MARK.min(usize::try_from(size.checked_sub(from)?).ok()?)];
    let read = file.read_at(&mut head, from).ok()?;
    let text = String::from_utf8_lossy(head.get(..read)?);
    let digits = text.strip_prefix(MARK)?.split(' ').next()?;
    let left_out: u64 = digits.parse().ok()?;
    let line = mark(left_out, limit);
    if !text.starts_with(&line) || left_out > MAX_LEFT_OUT {
        return None;
    }
    let to = from + left_out;
    Some((Cut { from, to }, from + line.len() as u64))
}

fn seek(file: &File, from: u64, whence: Whence) -> Option<u64> {
    let from = libc::off_t::try_from(from).ok()?;
    u64::try_from(lseek(file, from, whence).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const LIMIT: ByteSize = ByteSize::mib(1);

    fn printed(path: &Path, last: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let text = Text::open(path, LIMIT).unwrap();
        text.print_last(last, &mut out).unwrap();
        out
    }

    /// Writes ten megabytes, is cut again and again, and gives what was written.
    fn flood(path: &Path, mut cut: impl FnMut()) -> Vec<u8> {
        let mut written: Vec<u8> = Vec::new();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        for round in 0..80_u32 {
            let lines = format!("line {round:>6}\n").repeat(10_000);
            written.extend(lines.as_bytes());
            file.write_all(lines.as_bytes()).unwrap();
            cut();
            let used = path.metadata().unwrap().blocks() * 512;
            assert!(used <= LIMIT.0 + (64 << 10), "{used} bytes");
        }
        written
    }

    /// What was printed is what was written, but for what it says was left out.
    fn check(path: &Path, written: &[u8]) {
        let half = (LIMIT.0 / 2) as usize;
        let text = Text::open(path, LIMIT).unwrap();
        let cut = text.cut.unwrap();
        assert_eq!(text.written().bytes, written.len() as u64);
        assert_eq!(cut.from, half as u64);
        let line = mark(cut.bytes(), LIMIT);
        let tail = &written[cut.to as usize..];
        let mut expected = written[..half].to_vec();
        expected.extend(line.as_bytes());
        expected.extend(tail);
        let all = printed(path, u64::MAX);
        assert!(all == expected, "{} bytes", all.len());
        for last in [0, 1, tail.len() / 2, tail.len()] {
            assert!(
                printed(path, last as u64) == tail[tail.len() - last..],
                "{last}"
            );
        }
        let more = printed(path, tail.len() as u64 + 10);
        assert!(more == all[half - 10..], "{} bytes", more.len());

        let (mut at, mut seen) = (0, Vec::new());
        loop {
            let part = window(path, LIMIT, (at, 100_000)).unwrap();
            if part.bytes.is_empty() {
                break;
            }
            let here = part.from as usize;
            assert!(
                part.bytes == written[here..here + part.bytes.len()],
                "{here}"
            );
            if part.from > at {
                assert_eq!((at, part.from), (cut.from, cut.to));
            }
            at = part.from + part.bytes.len() as u64;
            seen.extend(part.bytes);
        }
        assert_eq!(at, written.len() as u64);
        assert_eq!(seen.len() as u64, text.written().kept());
        let inside = window(path, LIMIT, (cut.from + 1, 9)).unwrap();
        assert_eq!(inside.from, cut.to);
        let beyond = window(path, LIMIT, (u64::MAX, u64::MAX)).unwrap();
        assert!(beyond.bytes.is_empty());
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_cut_is_marked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let written = flood(&path, || cut(&path, LIMIT).unwrap());
        let size = written.len() as u64;
        assert_eq!(path.metadata().unwrap().len(), size, "offsets stay");
        check(&path, &written);
    }

    #[test]
    fn where_files_have_no_holes_the_line_in_the_file_says_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let written = flood(&path, || {
            if path.metadata().unwrap().len() > LIMIT.0 {
                cut_without_hole(&path, LIMIT).unwrap();
            }
        });
        check(&path, &written);
    }

    #[test]
    fn a_window_that_is_cut_while_it_is_read_holds_nothing_false() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let pattern: Vec<u8> = (0..1_000_003_u32).map(|n| (n % 251) as u8 + 1).collect();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..100 {
                    file.write_all(&pattern).unwrap();
                    cut(&path, LIMIT).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Release);
            });
            let mut at = 0;
            loop {
                let last = done.load(std::sync::atomic::Ordering::Acquire);
                let part = window(&path, LIMIT, (at, MAX_WINDOW_BYTES)).unwrap();
                assert!(part.from >= at);
                for (n, byte) in (part.from..).zip(&part.bytes) {
                    let expected = pattern[n as usize % pattern.len()];
                    assert_eq!(*byte, expected, "byte {n}");
                }
                at = part.from + part.bytes.len() as u64;
                if last && part.bytes.is_empty() {
                    break;
                }
            }
            assert_eq!(at, 100 * pattern.len() as u64);
        });
    }

    #[test]
    fn a_line_that_only_looks_like_ours_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let half = half(LIMIT) as usize;
        for bytes in [u64::MAX, u64::MAX / 2, 7] {
            let mut written = vec![b'x'; half];
            written.extend(mark(bytes, LIMIT).as_bytes());
            written.extend(b"end");
            std::fs::write(&path, &written).unwrap();
            assert_eq!(printed(&path, u64::MAX), written);
            let said = Text::open(&path, LIMIT).unwrap().written().bytes;
            assert!(said < 2 * MAX_LEFT_OUT, "{said}");
            window(&path, LIMIT, (0, u64::MAX)).unwrap();
            window(&path, LIMIT, (u64::MAX, 1)).unwrap();
        }
    }

    #[test]
    fn what_is_within_the_limit_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let written = vec![b'x'; 1 << 20];
        std::fs::write(&path, &written).unwrap();
        cut(&path, LIMIT).unwrap();
        assert_eq!(printed(&path, u64::MAX), written);
        assert_eq!(printed(&path, 3), b"xxx");
    }
}
