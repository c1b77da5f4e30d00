//! The spool: one entry for every attempt that was started and is not acknowledged, and the marks
//! of those that were.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use longshore_runner_api::DEFAULT_OUTPUT_LIMIT;
use longshore_runner_api::command::OutputStream;
use longshore_types::{Attempt, ByteSize, ContainerUuid, Exit, Timestamp, Written};
use serde::{Deserialize, Serialize};

use crate::ahead::Blank;
use crate::directory::{DirectoryLock, RunDirectory};
use crate::engine::Engine;
use crate::output::Text;
use crate::system::sync_directory;
use crate::tree;

/// The file that all is noted in.
const STATE: &str = "state";
/// The directory that a job runs in if it names none.
const WORK: &str = "work";
/// The longest state that is read.
const MAX_STATE: u64 = 64 << 10;
/// How long a state usually is at most: so much is read at once.
const USUAL_STATE: usize = 2 << 10;

/// The longest note of a container, so that it and the result are read.
const MAX_ENGINE: usize = 32 << 10;

/// One line of an attempt's `state`, in JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Note {
    /// What earlier versions wrote.
    Cgroup(PathBuf),
    Cgroups(Vec<PathBuf>),
    Engine(Engine),
    EngineRemoved,
    OutputLimit(ByteSize),
    Started(Timestamp),
    Finished(Exit),
}

/// What the complete lines of an attempt's `state` say.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Where its control groups are, or were to be.
    pub(crate) cgroups: Vec<PathBuf>,
    /// The container that an engine runs, or was to run, unless it was removed.
    pub(crate) engine: Option<Engine>,
    /// How much of each output stream is kept, if not the usual amount.
    pub(crate) output_limit: Option<ByteSize>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) result: Option<Exit>,
}

/// The directory of one attempt. That it exists is the mark that the attempt may have run.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) uuid: ContainerUuid,
    pub(crate) attempt: Attempt,
    path: PathBuf,
}

impl Entry {
    pub(crate) fn new(spool: &Path, uuid: ContainerUuid, attempt: Attempt) -> Self {
        let path = spool.join(uuid.as_str()).join(attempt.to_string());
        Self {
            uuid,
            attempt,
            path,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn work_directory(&self) -> PathBuf {
        self.path.join(WORK)
    }

    pub(crate) fn output(&self, stream: OutputStream) -> PathBuf {
        self.path.join(stream.as_str())
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Makes the entry with all that a job needs, so that a full disk shows before the start, and
    /// remembers where its control groups are to be. Its files may be there already, in a blank.
    pub(crate) fn create(
        &self,
        blank: Option<Blank>,
        groups: Option<Vec<PathBuf>>,
        _lock: &DirectoryLock,
    ) -> Result<()> {
        let made = match make_directory(self.container_directory()) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ if blank.is_some_and(|blank| blank.become_entry(&self.path)) => Ok(()),
            _ => make_files(&self.path).map(drop),
        };
        made.and_then(|()| groups.map_or(Ok(()), |groups| self.note_cgroups(&groups)))
            .with_context(|| format!("cannot create {}", self.path.display()))
    }

    /// Makes the entry survive a power failure.
    ///
    /// One write to disk, that of the directory in which the entry has just got its name: with it
    /// the file systems of Linux (ext4, XFS, btrfs, F2FS) write the name of that directory, too, where
    /// it is new. What is in the entry so far is of no use after a power failure.
    pub(crate) fn sync(&self) -> Result<()> {
        sync_directory(self.container_directory())
            .with_context(|| format!("cannot write {} to disk", self.path.display()))
    }

    /// Takes back an entry for which nothing was started.
    pub(crate) fn discard(&self) {
        let _ = tree::remove(&self.path);
        let _ = std::fs::remove_dir(self.container_directory());
    }

    pub(crate) fn open_output(&self, stream: OutputStream) -> std::io::Result<File> {
        open_output(&self.output(stream))
    }

    /// How much was written to a stream of which so much is kept, and what of it is there.
    fn written(&self, stream: OutputStream, limit: ByteSize) -> Written {
        let text = Text::open(&self.output(stream), limit);
        text.map_or_else(|_| Written::default(), |text| text.written())
    }

    /// Completes a result with how much was written to both streams, of which so much is kept.
    pub(crate) fn note_written(&self, exit: &mut Exit, limit: ByteSize) {
        let stdout = self.written(OutputStream::Stdout, limit);
        (exit.stdout_bytes, exit.stdout_cut) = (stdout.bytes, stdout.cut);
        let stderr = self.written(OutputStream::Stderr, limit);
        (exit.stderr_bytes, exit.stderr_cut) = (stderr.bytes, stderr.cut);
    }

    /// How much of each output stream is kept.
    pub(crate) fn output_limit(&self) -> ByteSize {
        self.state().output_limit.unwrap_or(DEFAULT_OUTPUT_LIMIT)
    }

    /// What is noted about the attempt; nothing where nothing can be read.
    pub(crate) fn state(&self) -> State {
        let mut state = State::default();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path.join(STATE));
        let mut bytes = Vec::with_capacity(USUAL_STATE);
        let read = file.and_then(|file| file.take(MAX_STATE).read_to_end(&mut bytes));
        if read.is_err() {
            return state;
        }
        let complete = bytes.get(..complete(&bytes)).unwrap_or_default();
        for line in complete.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Note::Cgroup(path)) => state.cgroups.push(path),
                Ok(Note::Cgroups(paths)) => state.cgroups.extend(paths),
                Ok(Note::Engine(engine)) => state.engine = Some(engine),
                Ok(Note::EngineRemoved) => state.engine = None,
                Ok(Note::OutputLimit(limit)) => state.output_limit = Some(limit),
                Ok(Note::Started(at)) => state.started_at = Some(at),
                Ok(Note::Finished(exit)) => state.result = Some(exit),
                Err(_) => {}
            }
        }
        state
    }

    /// Remembers the control groups, before they are made.
    pub(crate) fn note_cgroups(&self, paths: &[PathBuf]) -> std::io::Result<()> {
        self.note(&Note::Cgroups(paths.to_vec())).map(drop)
    }

    /// Remembers how much of each output stream is kept, if that is not the usual amount.
    pub(crate) fn note_output_limit(&self, limit: ByteSize) -> std::io::Result<()> {
        self.note(&Note::OutputLimit(limit)).map(drop)
    }

    /// Remembers the container of an engine, before it is made.
    pub(crate) fn note_engine(&self, engine: &Engine) -> std::io::Result<()> {
        let note = Note::Engine(engine.clone());
        if serde_json::to_vec(&note)?.len() > MAX_ENGINE {
            let why = "the variables of its client are too long";
            return Err(std::io::Error::other(why));
        }
        self.note(&note)?.sync_data()
    }

    /// Remembers that the engine has removed its container, so that it is not asked again; whether
    /// that could be written.
    pub(crate) fn note_engine_removed(&self) -> bool {
        self.note(&Note::EngineRemoved).is_ok()
    }

    /// What the variables of a container are in, until it is made.
    pub(crate) fn engine_variables(&self) -> PathBuf {
        self.path.join("variables")
    }

    /// Writes them, a line each.
    pub(crate) fn write_engine_variables(&self, lines: &str) -> std::io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.engine_variables())?;
        file.write_all_at(lines.as_bytes(), 0)
    }

    /// Where the client of an engine says what went wrong before there was a container.
    pub(crate) fn engine_errors(&self) -> PathBuf {
        self.path.join("engine")
    }

    /// Remembers when the job was started, for the case that no result is ever written.
    pub(crate) fn note_started(&self, at: Timestamp) {
        // The result says it again.
        let _ = self.note(&Note::Started(at));
    }

    /// Writes the result, with how much was written, and what it is about to disk.
    ///
    /// In place: nobody believes a result while the supervisor lives, and a line without its last
    /// byte counts as none; so no renaming is needed, which would cost another commit. Nor is the
    /// directory written: the name of `state` has been on disk since [`Entry::sync`].
    pub(crate) fn record(&self, exit: &Exit) -> std::io::Result<()> {
        // The job may have deleted even this.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)?;
        for (stream, bytes) in [
            (OutputStream::Stdout, exit.stdout_bytes),
            (OutputStream::Stderr, exit.stderr_bytes),
        ] {
            if bytes > 0 {
                self.open_output(stream)?.sync_data()?;
            }
        }
        self.note(&Note::Finished(exit.clone()))?.sync_all()
    }

    /// Adds a line, in the place of one that a full disk has cut off.
    fn note(&self, note: &Note) -> std::io::Result<File> {
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        let file = open_state(&self.path)?;
        let mut bytes = Vec::with_capacity(USUAL_STATE);
        (&file).take(MAX_STATE).read_to_end(&mut bytes)?;
        let end = complete(&bytes);
        if end < bytes.len() {
            file.set_len(end as u64)?;
        }
        file.write_all_at(&line, end as u64)?;
        Ok(file)
    }

    fn container_directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

/// Makes the directory of an entry, with all that a job needs, and gives its `state`.
fn make_files(path: &Path) -> std::io::Result<File> {
    make_directory(path)?;
    make_directory(&path.join(WORK))?;
    for stream in OutputStream::ALL {
        open_output(&path.join(stream.as_str()))?;
    }
    open_state(path)
}

/// The same for an entry of no attempt yet. The disk has given its `state` room, so that writing the
/// result takes less.
pub(crate) fn make_blank(path: &Path) -> std::io::Result<()> {
    let state = make_files(path)?;
    state.write_all_at(b"\n", 0)?;
    state.sync_data()
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn open_output(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

fn open_state(entry: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(entry.join(STATE))
}

/// How many bytes are complete lines.
fn complete(bytes: &[u8]) -> usize {
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    end.map_or(0, |end| end + 1)
}

/// The newest attempt of a container that has an entry.
pub(crate) fn newest_entry(directory: &RunDirectory, uuid: ContainerUuid) -> Result<Option<Entry>> {
    let path = directory.spool().join(uuid.as_str());
    let names = match std::fs::read_dir(&path) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let mut newest = None;
    for name in names {
        let name = name.with_context(|| format!("cannot read {}", path.display()))?;
        let attempt = name.file_name().to_str().and_then(|text| text.parse().ok());
        newest = newest.max(attempt.map(Attempt));
    }
    Ok(newest.map(|attempt| directory.entry(uuid, attempt)))
}

/// The newest attempt of a container that was acknowledged, or killed before it was started.
pub(crate) fn mark(directory: &RunDirectory, uuid: ContainerUuid) -> Result<Option<Attempt>> {
    let path = directory.marks().join(uuid.as_str());
    match path.read_link() {
        Ok(target) => {
            let attempt = target.to_str().and_then(|text| text.parse().ok());
            attempt
                .map(|attempt| Some(Attempt(attempt)))
                .with_context(|| format!("{} is not a mark", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Marks an attempt, and so all older ones, as not to be started any more. Not on disk before
/// [`sync_directory`] of the marks.
pub(crate) fn set_mark(
    directory: &RunDirectory,
    uuid: ContainerUuid,
    attempt: Attempt,
    _lock: &DirectoryLock,
) -> Result<()> {
    if mark(directory, uuid)?.is_some_and(|marked| marked >= attempt) {
        return Ok(());
    }
    let path = directory.marks().join(uuid.as_str());
    let new = directory.marks().join("new");
    let _ = std::fs::remove_file(&new);
    symlink(attempt.to_string(), &new)
        .and_then(|()| std::fs::rename(&new, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The newest attempt that may not be started any more.
pub(crate) fn newest(directory: &RunDirectory, uuid: ContainerUuid) -> Result<Option<Attempt>> {
    let entry = newest_entry(directory, uuid)?.map(|entry| entry.attempt);
    Ok(entry.max(mark(directory, uuid)?))
}
