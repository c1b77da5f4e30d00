//! Instances on disk.
//!
//! An instance is made under a name that is never listed and renamed into place when everything
//! in it is on disk; it is removed the other way round. So a directory that has an instance's name
//! is whole, and one that is not whole was damaged by somebody else; but one that has neither record
//! nor key is none: a process that outlived its instance has made it anew.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use longshore_cloud::Tags;
use longshore_types::{InstanceId, Timestamp};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
const RECORD: &str = "instance.json";
const HOST_KEY: &str = "host_key";
/// The longest record in bytes.
const MAX_RECORD: u64 = 1 << 20;
/// What the names of directories begin with that are being made or removed.
const MAKING: &str = ".making-";
const REMOVING: &str = ".removing-";

/// What is recorded of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    pub(crate) id: InstanceId,
    pub(crate) token: String,
    pub(crate) provider_type: String,
    pub(crate) tags: Tags,
    /// Who may log in, in OpenSSH's one-line form.
    pub(crate) public_key: Option<String>,
    pub(crate) created_at: Timestamp,
    /// It is being destroyed.
    pub(crate) stopping: bool,
}

/// An instance as it is on disk.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    pub(crate) host_key: PrivateKey,
}

/// Something on disk is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}", .path.display())]
pub(crate) struct RecordError {
    path: PathBuf,
    pub(crate) source: io::Error,
}

trait At<T> {
    fn at(self, path: &Path) -> Result<T, RecordError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T, RecordError> {
        self.map_err(|error| RecordError {
            path: path.to_owned(),
            source: error.into(),
        })
    }
}

impl Record {
    pub(crate) fn new(
        id: InstanceId,
        token: String,
        provider_type: String,
        tags: Tags,
        public_key: Option<String>,
    ) -> Self {
        Self {
            version: VERSION,
            id,
            token,
            provider_type,
            tags,
            public_key,
            created_at: Timestamp::from_system(std::time::SystemTime::now()),
            stopping: false,
        }
    }

    /// The key that may log in.
    pub(crate) fn login(&self) -> Result<Option<PublicKey>, russh::keys::ssh_key::Error> {
        self.public_key
            .as_deref()
            .map(PublicKey::from_openssh)
            .transpose()
    }
}

/// An instance's own directory.
pub(crate) fn instance_directory(directory: &Path, id: &InstanceId) -> PathBuf {
    directory.join(id.as_str())
}

/// Where an instance's runner keeps its files.
pub(crate) fn run_directory(directory: &Path, id: &InstanceId) -> PathBuf {
    instance_directory(directory, id).join("run")
}

/// A name that was never used before.
pub(crate) fn new_id() -> io::Result<InstanceId> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(format!("loopback-{:016x}", u64::from_le_bytes(random)).into())
}

fn is_id(name: &str) -> bool {
    name.strip_prefix("loopback-").is_some_and(|digits| {
        digits.len() == 16
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Makes an instance with a new host key; when it returns everything is on disk.
pub(crate) fn make(directory: &Path, record: Record) -> Result<Stored, RecordError> {
    let making = directory.join(format!("{MAKING}{}", record.id));
    let made = fill(&making, record);
    if made.is_err() {
        // What is left is swept when the directory is opened the next time.
        let _ = fs::remove_dir_all(&making);
    }
    let stored = made?;
    let place = instance_directory(directory, &stored.record.id);
    let published = fs::rename(&making, &place)
        .at(&place)
        .and_then(|()| sync(directory));
    if published.is_err() {
        // It will not be listed, so it must not be found later.
        let _ = fs::remove_dir_all(&place).or_else(|_| fs::remove_dir_all(&making));
    }
    published.map(|()| stored)
}

fn fill(making: &Path, record: Record) -> Result<Stored, RecordError> {
    let mut private = DirBuilder::new();
    private.mode(0o700);
    private.create(making).at(making)?;
    let run = making.join("run");
    private.create(&run).at(&run)?;

    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(io::Error::other)
        .at(making)?;
    let host_key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    let key_file = making.join(HOST_KEY);
    let text = host_key
        .to_openssh(LineEnding::LF)
        .map_err(io::Error::other)
        .at(&key_file)?;
    write(&key_file, text.as_bytes())?;
    let record_file = making.join(RECORD);
    write(&record_file, &to_json(&record).at(&record_file)?)?;
    sync(making)?;
    Ok(Stored { record, host_key })
}

/// Replaces an instance's record; when it returns the new one is on disk.
pub(crate) fn save(directory: &Path, record: &Record) -> Result<(), RecordError> {
    let place = instance_directory(directory, &record.id);
    let (file, new) = (place.join(RECORD), place.join(".instance.json.new"));
    write(&new, &to_json(record).at(&file)?)?;
    fs::rename(&new, &file).at(&file)?;
    sync(&place)
}

/// Moves an instance's directory away, after which the instance is gone; nothing runs there any
/// more. The files, perhaps many, are where the path says, for [`sweep`].
///
/// Without any directory it was moved before.
pub(crate) fn retire(directory: &Path, id: &InstanceId) -> Result<PathBuf, RecordError> {
    let place = instance_directory(directory, id);
    let mut removing = directory.join(format!("{REMOVING}{id}"));
    let mut moved = fs::rename(&place, &removing);
    if moved.as_ref().is_err_and(is_in_the_way) {
        // An earlier one of the same name that cannot be deleted.
        let other = new_id().at(&place)?;
        removing = directory.join(format!("{REMOVING}{id}-{other}"));
        moved = fs::rename(&place, &removing);
    }
    match moved {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at(&place),
        _ => sync(directory)?,
    }
    Ok(removing)
}

fn is_in_the_way(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(
        error.kind(),
        AlreadyExists | DirectoryNotEmpty | NotADirectory
    )
}

/// Deletes what is no instance any more, or not yet. What a job left may resist: that is told,
/// and tried again when the directory is opened the next time.
pub(crate) fn sweep(path: &Path) {
    match remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "files of an instance that is gone are left");
        }
        _ => {}
    }
}

/// Removes a directory with all that is in it, but never what is mounted there: a job that has
/// mounted shared files has not put them up for removal.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path).map_err(|error| (error.kind(), error)) {
        // The kernel says so only of a directory that nothing is mounted on; else that it is busy.
        Err((io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists, _)) => {}
        other => return other.map_err(|(_, error)| error),
    }
    // Jobs may have taken the right to list and change it away.
    let _ = fs::set_permissions(path, Permissions::from_mode(0o700));
    let mut result = Ok(());
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let removed = match entry.file_type()?.is_dir() {
            true => remove_tree(&entry.path()),
            false => fs::remove_file(entry.path()),
        };
        result = result.and(removed);
    }
    result.and_then(|()| fs::remove_dir(path))
}

/// What is in a state directory.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) instances: Vec<Stored>,
    /// Directories that processes of instances that are gone have made: they may still run.
    pub(crate) left: Vec<InstanceId>,
}

/// Reads every instance, and sweeps what was being made or removed when the last process ended.
pub(crate) fn load_all(directory: &Path) -> Result<Found, RecordError> {
    let mut found = Found::default();
    for entry in fs::read_dir(directory).at(directory)? {
        let entry = entry.at(directory)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(MAKING) || name.starts_with(REMOVING) {
            sweep(&entry.path());
        } else if is_id(&name) {
            match is_left(&entry.path()).at(&entry.path())? {
                true => found.left.push(name.into()),
                false => found.instances.push(load(&entry.path(), &name)?),
            }
        }
    }
    Ok(found)
}

/// Whether this is not even a part of an instance.
fn is_left(place: &Path) -> io::Result<bool> {
    Ok(!place.join(RECORD).try_exists()? && !place.join(HOST_KEY).try_exists()?)
}

fn load(place: &Path, name: &str) -> Result<Stored, RecordError> {
    let file = place.join(RECORD);
    let size = fs::metadata(&file).at(&file)?.len();
    if size > MAX_RECORD {
        return Err(io::Error::other(format!("{size} bytes are no record"))).at(&file);
    }
    let record: Record = serde_json::from_slice(&fs::read(&file).at(&file)?).at(&file)?;
    if record.version != VERSION {
        let text = format!("version {}, expected {VERSION}", record.version);
        return Err(io::Error::other(text)).at(&file);
    }
    if record.id.as_str() != name {
        let text = format!("the record of another instance, {}", record.id);
        return Err(io::Error::other(text)).at(&file);
    }
    record.login().map_err(io::Error::other).at(&file)?;
    let key_file = place.join(HOST_KEY);
    let text = fs::read(&key_file).at(&key_file)?;
    let host_key = PrivateKey::from_openssh(text)
        .map_err(io::Error::other)
        .at(&key_file)?;
    Ok(Stored { record, host_key })
}

fn to_json(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec_pretty(record)?;
    if json.len() as u64 > MAX_RECORD {
        return Err(io::Error::other("the tags are too long"));
    }
    Ok(json)
}

/// Writes a private file that is on disk when it returns.
fn write(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .at(path)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .at(path)
}

fn sync(directory: &Path) -> Result<(), RecordError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .at(directory)
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount, umount};
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Gives this thread mounts that nobody else sees, and that are gone with it.
    fn own_mounts() -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(none, "/", none, flags, none)
    }

    #[test]
    fn what_is_mounted_in_an_instance_is_not_removed_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let id = InstanceId::from("loopback-0000000000000001");
        let shared = folder.path().join("shared");
        let place = instance_directory(folder.path(), &id);
        for path in [&shared, &place.join("run/work/mounted")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(shared.join("kept"), "").unwrap();
        fs::write(place.join("run/work/file"), "").unwrap();
        fs::set_permissions(place.join("run/work"), Permissions::from_mode(0o500)).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
        if let Err(error) = own_mounts() {
            eprintln!("NOT TESTED: mounts in an instance; {error}");
            sweep(&retire(folder.path(), &id).unwrap());
            assert!(!place.exists());
            return;
        }
        let (from, to, none) = (&shared, &place.join("run/work/mounted"), None::<&str>);
        mount(Some(from), to, none, MsFlags::MS_BIND, none).unwrap();

        sweep(&retire(folder.path(), &id).unwrap());
        assert!(!place.exists());
        assert!(shared.join("kept").exists());
        let mode = shared.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let left = folder.path().join(format!("{REMOVING}{id}"));
        assert!(!left.join("run/work/file").exists());

        umount(&left.join("run/work/mounted")).unwrap();
        assert!(load_all(folder.path()).unwrap().instances.is_empty());
        assert!(!left.exists() && shared.join("kept").exists());
    }
}
