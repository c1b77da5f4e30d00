//! What a container writes: kept within its limit while it runs, and printed by `--output`.
//!
//! A stream is a file that the container itself appends to; nothing passes through our memory. Of
//! one that grows beyond its limit the middle is given back to the disk while the container
//! writes: the file keeps its offsets, and has a hole. Whoever reads it gets the beginning, a line
//! that says how much was left out, and the end. The hole itself is the record of what was cut.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write, copy, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use longshore_runner_api::command::OutputStream;
use longshore_types::{Attempt, ByteSize, ContainerUuid};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use crate::directory::RunDirectory;

/// Holes begin and end at multiples of this.
const BLOCK: u64 = 4096;

/// Which part of a stream is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// As long as it is now.
    All,
    /// So many of its last bytes.
    Last(u64),
    /// From a byte on, at most so many. Of a stream that was cut that moves on, as the end does.
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
    let text = Text::open(&entry.output(stream), entry.output_limit())
        .with_context(|| format!("there is no output of attempt {attempt} of {uuid}"))?;
    let size = text.len();
    let (from, wanted) = match part {
        Part::All => (0, size),
        Part::Last(last) => (size.saturating_sub(last), last.min(size)),
        Part::Window { from, length } => (from, length),
    };
    let mut out = stdout().lock();
    text.print(from, wanted, &mut out)
        .context("cannot print the output")?;
    out.flush()?;
    Ok(0)
}

/// A stream as its reader sees it, as long as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Text {
    file: File,
    /// Where the first part ends.
    head: u64,
    /// What stands in the place of what was cut.
    mark: String,
    /// Where the second part begins and ends.
    tail: (u64, u64),
}

impl Text {
    /// `limit` is what the container was started with.
    pub(crate) fn open(path: &Path, limit: ByteSize) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let size = file.metadata()?.len();
        let (head, mark, tail) = match hole(&file, limit, size) {
            None => (size, String::new(), (size, size)),
            Some((start, end)) => (start, mark(end - start, limit), (end, size)),
        };
        Ok(Self {
            file,
            head,
            mark,
            tail,
        })
    }

    /// How many bytes it has for its reader.
    pub(crate) fn len(&self) -> u64 {
        self.head + self.mark.len() as u64 + (self.tail.1 - self.tail.0)
    }

    /// Writes at most `length` bytes of it, from the byte `from` on.
    fn print(&self, from: u64, length: u64, out: &mut impl Write) -> std::io::Result<()> {
        let (mut skip, mut left) = (from, length);
        // How much of a piece is skipped, and how much of it is wanted after that.
        let mut part = |piece: u64| {
            let skipped = skip.min(piece);
            let wanted = left.min(piece - skipped);
            skip -= skipped;
            left -= wanted;
            (skipped, wanted)
        };
        let (skipped, wanted) = part(self.head);
        self.copy(skipped, wanted, out)?;
        let (skipped, wanted) = part(self.mark.len() as u64);
        let mark = self
            .mark
            .bytes()
            .skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        let mark: Vec<u8> = mark.take(usize::try_from(wanted).unwrap_or(0)).collect();
        out.write_all(&mark)?;
        let (skipped, wanted) = part(self.tail.1 - self.tail.0);
        self.copy(self.tail.0 + skipped, wanted, out)
    }

    /// Bounded, for the container may write faster than we print.
    fn copy(&self, from: u64, length: u64, out: &mut impl Write) -> std::io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from))?;
        copy(&mut file.take(length), out).map(drop)
    }
}

/// Gives back what a stream has too much of, from its middle; to be called now and then while the
/// container writes. What it writes in between is above the limit for that long.
pub(crate) fn cut(path: &Path, limit: ByteSize) -> std::io::Result<()> {
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
        // A file system that knows no holes: its beginning is kept, and what comes from now on.
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            file.set_len(half)?;
            let mut file = OpenOptions::new().append(true).open(path)?;
            file.write_all(mark(size - half, limit).as_bytes())
        }
        Err(error) => Err(error.into()),
    }
}

fn mark(bytes: u64, limit: ByteSize) -> String {
    format!(
        "\n[longshore: {bytes} bytes of output were left out here; the limit is {limit} a stream]\n"
    )
}

/// How much of the beginning is kept, and at least how much of the end.
fn half(limit: ByteSize) -> u64 {
    limit.0 / 2 / BLOCK * BLOCK
}

/// Where a stream that was cut has its hole.
fn hole(file: &File, limit: ByteSize, size: u64) -> Option<(u64, u64)> {
    let start = half(limit);
    if size <= limit.0 || seek(file, start, Whence::SeekHole)? != start {
        return None;
    }
    let end = seek(file, start, Whence::SeekData)?;
    (start < end && end <= size).then_some((start, end))
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

    fn printed(path: &Path, last: Option<u64>) -> Vec<u8> {
        let text = Text::open(path, LIMIT).unwrap();
        let mut out = Vec::new();
        let from = text.len().saturating_sub(last.unwrap_or(u64::MAX));
        text.print(from, u64::MAX, &mut out).unwrap();
        let expected = last.map_or(text.len(), |last| last.min(text.len()));
        assert_eq!(out.len() as u64, expected);
        out
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_cut_is_marked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let mut written: Vec<u8> = Vec::new();
        let mut file = File::create(&path).unwrap();
        for round in 0..40_u32 {
            let lines = format!("line {round:>6}\n").repeat(10_000);
            written.extend(lines.as_bytes());
            file.write_all(lines.as_bytes()).unwrap();
            cut(&path, LIMIT).unwrap();
            let used = path.metadata().unwrap().blocks() * 512;
            assert!(used <= LIMIT.0 + (64 << 10), "{used} bytes");
        }
        let size = written.len() as u64;
        assert_eq!(path.metadata().unwrap().len(), size, "offsets stay");
        let all = printed(&path, None);
        let half = (LIMIT.0 / 2) as usize;
        assert_eq!(all[..half], written[..half]);
        assert!(written.ends_with(&all[all.len() - half..]));
        let text = String::from_utf8(all.clone()).unwrap();
        let begin = "\n[longshore: ";
        assert_eq!(text.find(begin), Some(half));
        let after = &text[half + begin.len()..];
        let left_out: u64 = after.split(' ').next().unwrap().parse().unwrap();
        let mark = begin.len() + after.find('\n').unwrap() + 1;
        assert_eq!(left_out + (all.len() - mark) as u64, size);
        for last in [0, 1, 100_000, 600_000, u64::MAX] {
            assert!(all.ends_with(&printed(&path, Some(last))), "{last}");
        }
        let middle = half as u64 - 5;
        let mut window = Vec::new();
        let stream = Text::open(&path, LIMIT).unwrap();
        stream.print(middle, 200, &mut window).unwrap();
        assert_eq!(window, all[half - 5..half + 195]);
    }

    #[test]
    fn what_is_within_the_limit_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let written = vec![b'x'; 1 << 20];
        std::fs::write(&path, &written).unwrap();
        cut(&path, LIMIT).unwrap();
        assert_eq!(printed(&path, None), written);
        assert_eq!(printed(&path, Some(3)), b"xxx");
    }
}
