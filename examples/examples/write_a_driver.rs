//! A whole cloud driver in a hundred lines: its machines are entries in a table. The
//! conformance suite says whether it keeps the promises of the driver interface.
#![expect(clippy::print_stdout, reason = "it is a program that shows something")]
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use longshore_cloud::*;
use longshore_conformance::{Subject, Suite};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};
use tokio::sync::Mutex;

#[derive(Debug, Default)]
struct Table(Mutex<BTreeMap<InstanceId, Instance>>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Table")
    }
}

/// Where a real driver maps its provider's codes to kinds.
fn error(operation: Operation, kind: ErrorKind, words: &str) -> CloudError {
    CloudError::new(operation, "table", kind, words)
}

#[async_trait]
impl InstanceSet for Table {
    async fn create(&self, _: &CallContext, asked: &CreateRequest) -> Result<Instance, CloudError> {
        if asked.instance_type.provider_type != "s1" {
            return Err(error(
                Operation::Create,
                ErrorKind::InvalidRequest,
                "only s1 is sold",
            ));
        }
        let mut machines = self.0.lock().await;
        // The token names the machine, so the same request again finds what it made before.
        let id = InstanceId::from(asked.token.as_str());
        let make = || Instance::new(id.clone(), "s1", InstanceState::Running, asked.tags.clone());
        Ok(machines.entry(id.clone()).or_insert_with(make).clone())
    }

    async fn list(&self, _: &CallContext, tags: &Tags) -> Result<Vec<Instance>, CloudError> {
        let machines = self.0.lock().await;
        let wanted = machines.values().filter(|machine| machine.has_tags(tags));
        Ok(wanted.cloned().collect())
    }

    async fn destroy(&self, _: &CallContext, ids: &[InstanceId]) -> InstanceResults {
        let mut machines = self.0.lock().await;
        machines.retain(|id, _| !ids.contains(id));
        ids.iter().map(|id| (id.clone(), Ok(()))).collect()
    }

    async fn set_tags(&self, _: &CallContext, changes: &[(InstanceId, Tags)]) -> InstanceResults {
        let mut machines = self.0.lock().await;
        let unknown = || error(Operation::SetTags, ErrorKind::NotFound, "no such machine");
        let mut merge = |id: &InstanceId, tags: &Tags| {
            let machine = machines.get_mut(id).ok_or_else(unknown)?;
            machine.tags.extend(tags.clone());
            Ok(())
        };
        let merged = changes
            .iter()
            .map(|(id, tags)| (id.clone(), merge(id, tags)));
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let table = Arc::new(Table::default());
    let subject = Subject::new(table, CreateRequest::example()).with_instances_at_once(1200);
    let subject = subject.with_any_image_accepted();
    println!("{}", Suite::new().run(&subject).await.into_result()?);
    Ok(())
}
