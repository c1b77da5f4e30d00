//! `--output`: prints what a container wrote.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write, copy, stdout};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use longshore_runner_api::command::OutputStream;
use longshore_types::{Attempt, ContainerUuid};

use crate::directory::RunDirectory;

/// Prints a stream as long as it is now, or its last `last` bytes.
pub(crate) fn output(
    directory: &RunDirectory,
    uuid: ContainerUuid,
    attempt: Attempt,
    stream: OutputStream,
    last: Option<u64>,
) -> Result<u8> {
    let path = directory.entry(uuid, attempt).output(stream);
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .with_context(|| format!("there is no output of attempt {attempt} of {uuid}"))?;
    let size = file.metadata()?.len();
    let wanted = last.unwrap_or(size).min(size);
    file.seek(SeekFrom::Start(size - wanted))?;
    let mut out = stdout().lock();
    // Bounded by the size at this moment: the container may write faster than we print.
    copy(&mut file.take(wanted), &mut out).context("cannot print the output")?;
    out.flush()?;
    Ok(0)
}
