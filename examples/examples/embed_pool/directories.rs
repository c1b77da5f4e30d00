//! Instances that are directories on this machine, and the processes in them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, fs, io};

use async_trait::async_trait;
use longshore_cloud::*;
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};

/// The tags of an instance are the file `tags/ID`, its disk is the directory `disks/ID`. The file
/// is made first and removed last, so that whatever there is of an instance is listed.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    base: PathBuf,
    /// The most that there were at a time.
    most: Arc<AtomicUsize>,
}

impl Directories {
    pub(crate) fn new(base: &Path) -> io::Result<Self> {
        fs::create_dir_all(base.join("tags"))?;
        fs::create_dir_all(base.join("disks"))?;
        Ok(Self {
            base: base.to_owned(),
            most: Arc::default(),
        })
    }

    /// The most instances that there were at a time.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub(crate) fn disk(&self, id: &InstanceId) -> PathBuf {
        self.base.join("disks").join(id.as_str())
    }

    fn tags(&self, id: &InstanceId) -> PathBuf {
        self.base.join("tags").join(id.as_str())
    }

    /// Everything that is there: names of tags and of disks, and processes.
    pub(crate) fn remains(&self) -> io::Result<Vec<String>> {
        let mut remains = Vec::new();
        for folder in ["tags", "disks"] {
            for entry in fs::read_dir(self.base.join(folder))? {
                remains.push(entry?.path().display().to_string());
            }
        }
        let processes = processes_in(&self.base.canonicalize()?)?;
        remains.extend(processes.into_iter().map(|pid| format!("process {pid}")));
        Ok(remains)
    }

    /// Switches everything off.
    pub(crate) fn end_processes(&self) -> io::Result<()> {
        end_processes_in(&self.base)
    }

    fn write_tags(&self, id: &InstanceId, tags: &Tags) -> io::Result<()> {
        // Beside it first: nobody ever reads half of it.
        let new = self.base.join(format!("new-{id}"));
        fs::write(&new, serde_json::to_vec(tags)?)?;
        fs::rename(new, self.tags(id))
    }

    fn describe(&self, id: &InstanceId) -> io::Result<Instance> {
        let tags: Tags = serde_json::from_slice(&fs::read(self.tags(id))?)?;
        let mut instance = Instance::new(id.clone(), "directory", InstanceState::Running, tags);
        // It has no address of its own, but without one the pool waits for it to have one.
        instance.address = Some("localhost".to_owned());
        Ok(instance)
    }

    fn make(&self, asked: &CreateRequest) -> io::Result<Instance> {
        // The token names it: the same request again finds what it made before.
        let id = InstanceId::from(asked.token.as_str());
        if !self.tags(&id).exists() {
            self.write_tags(&id, &asked.tags)?;
        }
        fs::create_dir_all(self.disk(&id))?;
        let now = fs::read_dir(self.base.join("tags"))?.count();
        self.most.fetch_max(now, Ordering::SeqCst);
        self.describe(&id)
    }

    fn all(&self) -> io::Result<Vec<Instance>> {
        let mut instances = Vec::new();
        for entry in fs::read_dir(self.base.join("tags"))? {
            let id = InstanceId::from(entry?.file_name().to_string_lossy().as_ref());
            match self.describe(&id) {
                // It went while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                described => instances.push(described?),
            }
        }
        Ok(instances)
    }

    fn remove(&self, id: &InstanceId) -> io::Result<()> {
        end_processes_in(&self.disk(id))?;
        gone(fs::remove_dir_all(self.disk(id)))?;
        gone(fs::remove_file(self.tags(id)))
    }
}

/// What is not there is gone.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn end_processes_in(folder: &Path) -> io::Result<()> {
    let Ok(folder) = folder.canonicalize() else {
        return Ok(());
    };
    for _ in 0..1000 {
        let processes = processes_in(&folder)?;
        if processes.is_empty() {
            return Ok(());
        }
        // One that has ended by itself makes it fail, which is no harm.
        Command::new("kill").arg("-KILL").args(processes).output()?;
    }
    Err(io::Error::other("its processes do not end"))
}

/// The processes that work in a folder.
fn processes_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        // Other people's processes, and those that end, do not say where they work.
        if let Ok(place) = fs::read_link(entry.path().join("cwd"))
            && place.starts_with(folder)
        {
            processes.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    // A new process can have a number that was passed already: nobody sees it this time.
    processes.retain(|pid| pid.bytes().all(|b| b.is_ascii_digit()));
    Ok(processes)
}

impl fmt::Display for Directories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directories({})", self.base.display())
    }
}

/// The one place that says what kind of error it was.
fn failed(operation: Operation, error: io::Error) -> CloudError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::StorageFull => ErrorKind::QuotaExceeded(Scope::Everything),
        _ => ErrorKind::Other,
    };
    CloudError::new(operation, "directories", kind, error)
}

#[async_trait]
impl InstanceSet for Directories {
    async fn create(&self, _: &CallContext, asked: &CreateRequest) -> Result<Instance, CloudError> {
        let made = self.make(asked);
        made.map_err(|error| failed(Operation::Create, error))
    }

    async fn list(&self, _: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        let all = self.all();
        let mut instances = all.map_err(|error| failed(Operation::List, error))?;
        instances.retain(|instance| instance.has_tags(tags));
        Ok(instances)
    }

    async fn destroy(&self, _: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        let remove = |id| {
            let removed = self.remove(id);
            removed.map_err(|error| failed(Operation::Destroy, error))
        };
        ids.iter().map(|id| (id.clone(), remove(id))).collect()
    }

    async fn set_tags(&self, _: &CallContext, changes: &[(InstanceId, Tags)]) -> InstanceResults {
        let merge = |id: &InstanceId, tags: &Tags| {
            let mut all = self.describe(id)?.tags;
            all.extend(tags.clone());
            self.write_tags(id, &all)
        };
        let merged = changes.iter().map(|(id, tags)| {
            let done = merge(id, tags).map_err(|error| failed(Operation::SetTags, error));
            (id.clone(), done)
        });
        merged.collect()
    }

    async fn verify_host_key(
        &self,
        _: &CallContext,
        _: &InstanceId,
        _: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        Ok(HostKeyVerdict::Unsupported)
    }

    fn quota_group(&self, _: &InstanceType) -> Option<String> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        let certain = Capabilities::new().with_consistent_listing();
        certain.with_idempotent_create().with_tags_at_birth()
    }

    fn extensions(&self) -> Extensions<'_> {
        Extensions::default()
    }

    async fn stop(&self) {}
}
