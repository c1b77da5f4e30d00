//! Reading the output of containers that ended, in bounded pieces.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use longshore_types::ContainerUuid;

use crate::Store;

/// The longest first line that says how much was dropped before it.
const MAX_MARK: usize = 100;
/// The most bytes in one [`Window`].
const MAX_WINDOW: u64 = 1 << 20;

/// A part of an output stream that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// Where it begins, in bytes from the beginning of what the container wrote. Later than what
    /// was asked for if that was not kept.
    pub from: u64,
    /// What it holds; empty at the end.
    pub bytes: Vec<u8>,
}

impl Window {
    /// These bytes from here on.
    pub fn new(from: u64, bytes: Vec<u8>) -> Self {
        Self { from, bytes }
    }
}

impl Store {
    /// At most `length` bytes, and never more than 1 MiB, of what a container that ended wrote to
    /// a stream (`stdout` or `stderr`), from the byte `from` on. Beyond the end, and where nothing
    /// was kept, it is empty.
    pub async fn read_kept(
        &self,
        uuid: ContainerUuid,
        stream: &str,
        from: u64,
        length: u64,
    ) -> io::Result<Window> {
        let path = self.output_path(uuid, stream);
        let reading = tokio::task::spawn_blocking(move || match File::open(&path) {
            Ok(file) => read(file, from, length.min(MAX_WINDOW)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Window {
                from,
                bytes: Vec::new(),
            }),
            Err(error) => Err(named(&path, &error)),
        });
        reading
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

fn read(mut file: File, from: u64, length: u64) -> io::Result<Window> {
    let mut head = [0; MAX_MARK];
    let mut known = 0;
    while known < head.len() {
        match file.read(&mut head[known..])? {
            0 => break,
            count => known += count,
        }
    }
    let (mark, dropped) = mark(&head[..known]).unwrap_or((0, 0));
    let from = from.max(dropped);
    // A file system refuses positions that no file of it could have.
    let at = (from - dropped).saturating_add(mark);
    file.seek(SeekFrom::Start(at.min(file.metadata()?.len())))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(Window { from, bytes })
}

/// The length of the first line, and how many bytes it says were dropped, if that is what it is.
fn mark(head: &[u8]) -> Option<(u64, u64)> {
    let end = head.iter().position(|&byte| byte == b'\n')?;
    let line = std::str::from_utf8(&head[..end]).ok()?;
    let rest = line.strip_prefix("[longshore: ")?;
    let dropped = rest.strip_suffix(" bytes before this were dropped]")?;
    Some((end as u64 + 1, dropped.parse().ok()?))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
