//! `--output`: prints what a container wrote.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write, copy, stdout};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use longshore_runner_api::command::OutputStream;
use longshore_types::{Attempt, ContainerUuid};

use crate::directory::RunDirectory;

/// Which part of a stream is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// As long as it is now.
    All,
    /// So many of its last bytes.
    Last(u64),
    /// From a byte on, at most so many.
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
    let path = directory.entry(uuid, attempt).output(stream);
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .with_context(|| format!("there is no output of attempt {attempt} of {uuid}"))?;
    let size = file.metadata()?.len();
    let (from, wanted) = match part {
        Part::All => (0, size),
        Part::Last(last) => (size.saturating_sub(last), last.min(size)),
        Part::Window { from, length } => (from.min(size), length.min(size.saturating_sub(from))),
    };
    file.seek(SeekFrom::Start(from))?;
    let mut out = stdout().lock();
    // Bounded by the size at this moment: the container may write faster than we print.
    copy(&mut file.take(wanted), &mut out).context("cannot print the output")?;
    out.flush()?;
    Ok(0)
}
