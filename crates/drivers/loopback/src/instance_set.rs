//! The instance set.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use longshore_cloud::{
    CallContext, Capabilities, CloudError, CreateRequest, ErrorKind, Extensions, Instance,
    InstanceResults, InstanceSet, InstanceState, Operation, Scope, Tags,
};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};
use russh::keys::PublicKey;

use crate::environment::{Environment, current_user};
use crate::parameters::{DirectoryLock, Taken};
use crate::processes::{self, END_TIMEOUT};
use crate::record::{self, Record, RecordError, Stored};
use crate::server::Server;

const PROVIDER: &str = "loopback";

/// Instances on this machine.
#[derive(Debug)]
pub(crate) struct Loopback(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    limit: usize,
    user: String,
    /// Held by whoever changes what is on disk.
    writing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    machines: BTreeMap<InstanceId, Machine>,
    /// None once the set was stopped.
    lock: Option<DirectoryLock>,
}

#[derive(Debug)]
struct Machine {
    record: Record,
    host_key: HostKey,
    /// None while it is being destroyed.
    server: Option<Server>,
    /// Held by whoever ends it.
    ending: Arc<tokio::sync::Mutex<()>>,
}

impl Loopback {
    /// Starts servers for what is recorded, and goes on with what was being destroyed.
    pub(crate) async fn start(taken: Taken, limit: usize) -> Result<Self, CloudError> {
        let inner = Arc::new(Inner {
            directory: taken.directory,
            limit,
            user: current_user().0,
            writing: tokio::sync::Mutex::default(),
            state: Mutex::new(State {
                machines: BTreeMap::new(),
                lock: Some(taken.lock),
            }),
        });
        for stored in taken.stored {
            let (id, stopping) = (stored.record.id.clone(), stored.record.stopping);
            inner.add(stored, Operation::Other).await?;
            if stopping {
                let inner = Arc::clone(&inner);
                tokio::spawn(async move {
                    if let Err(error) = inner.end(&id, record::sweep).await {
                        tracing::error!(%error, instance = %id, "cannot go on destroying");
                    }
                });
            }
        }
        Ok(Self(inner))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self, operation: Operation) -> Result<(), CloudError> {
        match self.state().lock {
            Some(_) => Ok(()),
            None => Err(refused(operation, ErrorKind::Unsupported, "it was stopped")),
        }
    }

    /// Starts the server of an instance that is on disk, and lists it.
    async fn add(&self, stored: Stored, operation: Operation) -> Result<Instance, CloudError> {
        let other = |error: Box<dyn std::error::Error + Send + Sync>| {
            CloudError::new(operation, PROVIDER, ErrorKind::Other, error)
        };
        let Stored { record, host_key } = stored;
        let public = host_key.public_key();
        let host_key_data = HostKey {
            algorithm: public.algorithm().to_string(),
            blob: public.to_bytes().map_err(|e| other(e.into()))?,
        };
        let mut server = None;
        if !record.stopping {
            let login = record.login().map_err(|e| other(e.into()))?;
            let place = record::instance_directory(&self.directory, &record.id);
            let run = record::run_directory(&self.directory, &record.id);
            let starting = Server::start(place, host_key, login, Environment::new(&run));
            server = Some(starting.await.map_err(|e| other(e.into()))?);
        }
        let machine = Machine {
            record,
            host_key: host_key_data,
            server,
            ending: Arc::default(),
        };
        let instance = self.describe(&machine);
        let mut state = self.state();
        state.machines.insert(machine.record.id.clone(), machine);
        Ok(instance)
    }

    fn describe(&self, machine: &Machine) -> Instance {
        let record = &machine.record;
        let running = machine.server.as_ref().filter(|_| !record.stopping);
        let state = match running {
            Some(_) => InstanceState::Running,
            None => InstanceState::Stopping,
        };
        let mut instance = Instance::new(
            record.id.clone(),
            record.provider_type.clone(),
            state,
            record.tags.clone(),
        );
        instance.address = running.map(|server| server.address().to_string());
        instance.remote_user = Some(self.user.clone());
        instance.launched_at = Some(record.created_at);
        instance
    }

    async fn create(&self, request: CreateRequest) -> Result<Instance, CloudError> {
        let writing = self.writing.lock().await;
        self.check_open(Operation::Create)?;
        {
            let state = self.state();
            let mut machines = state.machines.values();
            if let Some(machine) = machines.find(|m| m.record.token == request.token) {
                return Ok(self.describe(machine));
            }
            if state.machines.len() >= self.limit {
                let kind = ErrorKind::QuotaExceeded(Scope::Everything);
                let text = format!(
                    "this machine can be only {} instance(s) at once, and is",
                    self.limit
                );
                return Err(refused(Operation::Create, kind, &text));
            }
        }
        check_key(request.public_key.as_deref())?;
        let directory = self.directory.clone();
        let stored = blocking(Operation::Create, move || {
            let id = record::new_id()?;
            let record = Record::new(
                id,
                request.token,
                request.instance_type.provider_type,
                request.tags,
                request.public_key,
            );
            Ok(record::make(&directory, record)?)
        })
        .await?;
        let id = stored.record.id.clone();
        let added = self.add(stored, Operation::Create).await;
        if added.is_err() {
            // It could not be listed, so it must not take up the place of one that can.
            let directory = self.directory.clone();
            blocking(Operation::Create, move || {
                record::sweep(&record::retire(&directory, &id)?);
                Ok(())
            })
            .await?;
        }
        drop(writing);
        added
    }

    async fn set_tags(&self, id: &InstanceId, tags: Tags) -> Result<(), CloudError> {
        let _writing = self.writing.lock().await;
        self.check_open(Operation::SetTags)?;
        let unknown = || refused(Operation::SetTags, ErrorKind::NotFound, "no such instance");
        let mut record = match self.state().machines.get(id) {
            Some(machine) => machine.record.clone(),
            None => return Err(unknown()),
        };
        record.tags.extend(tags);
        self.write(Operation::SetTags, record).await
    }

    /// Replaces a record, on disk first. The caller holds `writing`.
    async fn write(&self, operation: Operation, record: Record) -> Result<(), CloudError> {
        let (directory, copy) = (self.directory.clone(), record.clone());
        blocking(operation, move || Ok(record::save(&directory, &copy)?)).await?;
        if let Some(machine) = self.state().machines.get_mut(&record.id) {
            machine.record = record;
        }
        Ok(())
    }

    /// Switches an instance off, and forgets it when nothing of it runs any more; then `sweep`
    /// deletes its files.
    async fn end(
        &self,
        id: &InstanceId,
        sweep: impl FnOnce(&Path) + Send + 'static,
    ) -> Result<(), CloudError> {
        let ending = match self.state().machines.get(id) {
            Some(machine) => Arc::clone(&machine.ending),
            None => return Ok(()),
        };
        let _ending = ending.lock().await;
        {
            let _writing = self.writing.lock().await;
            self.check_open(Operation::Destroy)?;
            // Closes its connections, and lets no command start any more.
            let (record, server) = match self.state().machines.get_mut(id) {
                Some(machine) => (machine.record.clone(), machine.server.take()),
                None => return Ok(()),
            };
            drop(server);
            let mut stopping = record;
            stopping.stopping = true;
            if let Err(error) = self.write(Operation::Destroy, stopping).await {
                // A full disk does not keep a machine from being switched off.
                tracing::warn!(%error, instance = %id, "cannot record that it is being destroyed");
            }
        }
        let place = record::instance_directory(&self.directory, id);
        let run = record::run_directory(&self.directory, id);
        blocking(Operation::Destroy, move || {
            Ok(processes::end_all(&place, &run, END_TIMEOUT)?)
        })
        .await?;

        let writing = self.writing.lock().await;
        self.check_open(Operation::Destroy)?;
        let (directory, gone) = (self.directory.clone(), id.clone());
        let retiring = move || Ok(record::retire(&directory, &gone)?);
        let files = blocking(Operation::Destroy, retiring).await?;
        self.state().machines.remove(id);
        drop(writing);

        // They may be many, and nobody else is to wait for that.
        let sweeping = move || {
            sweep(&files);
            Ok(())
        };
        blocking(Operation::Destroy, sweeping).await
    }
}

#[async_trait]
impl InstanceSet for Loopback {
    async fn create(
        &self,
        context: &CallContext,
        request: &CreateRequest,
    ) -> Result<Instance, CloudError> {
        let (inner, request) = (Arc::clone(&self.0), request.clone());
        let creating = async move { inner.create(request).await };
        detached(Operation::Create, context, creating).await
    }

    async fn list(&self, _: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        self.0.check_open(Operation::List)?;
        let state = self.0.state();
        let all = state.machines.values().map(|m| self.0.describe(m));
        Ok(all.filter(|instance| instance.has_tags(tags)).collect())
    }

    async fn destroy(&self, context: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        // All at once; each is over when the last is, or the time.
        let endings: Vec<_> = ids
            .iter()
            .map(|id| {
                let (inner, id) = (Arc::clone(&self.0), id.clone());
                let ending = async move { inner.end(&id, record::sweep).await };
                tokio::spawn(detached(Operation::Destroy, context.clone(), ending))
            })
            .collect();
        let mut results = Vec::new();
        for (id, ending) in ids.iter().zip(endings) {
            let result = ending.await;
            results.push((
                id.clone(),
                result.unwrap_or_else(|error| {
                    let (op, kind) = (Operation::Destroy, ErrorKind::Other);
                    Err(CloudError::new(op, PROVIDER, kind, error))
                }),
            ));
        }
        results
    }

    async fn set_tags(
        &self,
        context: &CallContext,
        changes: &[(InstanceId, Tags)],
    ) -> InstanceResults {
        let mut results = Vec::new();
        for (id, tags) in changes {
            let (inner, copy, tags) = (Arc::clone(&self.0), id.clone(), tags.clone());
            let setting = async move { inner.set_tags(&copy, tags).await };
            let result = detached(Operation::SetTags, context, setting).await;
            results.push((id.clone(), result));
        }
        results
    }

    async fn verify_host_key(
        &self,
        _: &CallContext,
        id: &InstanceId,
        key: &HostKey,
    ) -> Result<HostKeyVerdict, CloudError> {
        self.0.check_open(Operation::VerifyHostKey)?;
        match self.0.state().machines.get(id) {
            Some(machine) if machine.host_key == *key => Ok(HostKeyVerdict::Match),
            Some(_) => Ok(HostKeyVerdict::Mismatch),
            None => Err(refused(
                Operation::VerifyHostKey,
                ErrorKind::NotFound,
                "no such instance",
            )),
        }
    }

    fn quota_group(&self, _: &InstanceType) -> Option<String> {
        None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
            .with_idempotent_create()
            .with_tags_at_birth()
            .with_consistent_listing()
            .with_host_keys()
            .with_max_instances(self.0.limit)
    }

    fn extensions(&self) -> Extensions<'_> {
        Extensions::default()
    }

    async fn stop(&self) {
        // Nobody writes any more when the directory is let go.
        let _writing = self.0.writing.lock().await;
        let mut state = self.0.state();
        for machine in state.machines.values_mut() {
            machine.server = None;
        }
        state.lock = None;
    }
}

impl fmt::Display for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Loopback({}, {})",
            self.0.directory.display(),
            self.0.limit
        )
    }
}

/// Runs a call to its end even if the caller does not wait for it, so that what is on disk and
/// what is in memory stay the same.
async fn detached<T: Send + 'static>(
    operation: Operation,
    context: impl std::borrow::Borrow<CallContext>,
    call: impl Future<Output = Result<T, CloudError>> + Send + 'static,
) -> Result<T, CloudError> {
    let timeout = context.borrow().timeout;
    match tokio::time::timeout(timeout, tokio::spawn(call)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(CloudError::new(
            operation,
            PROVIDER,
            ErrorKind::Other,
            error,
        )),
        Err(elapsed) => {
            let kind = ErrorKind::TimedOut;
            Err(CloudError::new(operation, PROVIDER, kind, elapsed))
        }
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Does work that blocks, and says what kind of failure its failure is.
async fn blocking<T: Send + 'static>(
    operation: Operation,
    work: impl FnOnce() -> Result<T, AnyError> + Send + 'static,
) -> Result<T, CloudError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result
            .map_err(|error| CloudError::new(operation, PROVIDER, classify(error.as_ref()), error)),
        Err(error) => Err(CloudError::new(
            operation,
            PROVIDER,
            ErrorKind::Other,
            error,
        )),
    }
}

/// The one place that maps what this machine says to kinds.
fn classify(error: &(dyn std::error::Error + Send + Sync + 'static)) -> ErrorKind {
    let io = match error.downcast_ref::<RecordError>() {
        Some(record) => Some(record.source.kind()),
        None => error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind),
    };
    match io {
        Some(std::io::ErrorKind::PermissionDenied) => ErrorKind::Denied,
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => {
            ErrorKind::QuotaExceeded(Scope::Everything)
        }
        _ => ErrorKind::Other,
    }
}

fn check_key(key: Option<&str>) -> Result<(), CloudError> {
    let Some(key) = key else {
        tracing::warn!("the instance gets no public key, so nobody can log in");
        return Ok(());
    };
    match PublicKey::from_openssh(key) {
        Ok(_) => Ok(()),
        Err(error) => {
            let (op, kind) = (Operation::Create, ErrorKind::InvalidRequest);
            Err(CloudError::new(op, PROVIDER, kind, error))
        }
    }
}

fn refused(operation: Operation, kind: ErrorKind, why: &str) -> CloudError {
    CloudError::new(operation, PROVIDER, kind, why)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use longshore_cloud::Driver as _;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_the_files_of_an_instance_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let parameters = serde_json::json!({ "directory": folder.path(), "instances": 1 });
        let taken = crate::parameters::take(folder.path()).unwrap();
        let inner = Loopback::start(taken, 1).await.unwrap().0;
        let mut request = CreateRequest::example();
        let first = inner.create(request.clone()).await.unwrap();

        let (began, begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let (ending, id) = (Arc::clone(&inner), first.id.clone());
        let ending = tokio::spawn(async move {
            let slow = move |files: &Path| {
                let _ = began.send(());
                let _ = may_go_on.recv();
                record::sweep(files);
            };
            ending.end(&id, slow).await
        });
        begun.await.unwrap();
        // Others change meanwhile, in the place that is free.
        request.token = "second".into();
        let patience = std::time::Duration::from_secs(20);
        let second = tokio::time::timeout(patience, inner.create(request)).await;
        go_on.send(()).unwrap();
        ending.await.unwrap().unwrap();
        let second = second.expect("it waits for the files").unwrap();
        assert_ne!(second.id, first.id);

        Loopback(inner).stop().await;
        let set = crate::LoopbackDriver.open(&parameters).await.unwrap();
        let listed = set.list(&CallContext::example(), &Tags::new()).await;
        assert_eq!(listed.unwrap().len(), 1);
    }
}
