//! Jobs, here or at the service that holds the state directory.

use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, encode};
use super::local::Local;
use super::view::{BatchView, JobView, NewBatchView};

/// Where batches are submitted and followed.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "here or there")]
pub enum Jobs {
    /// In this process.
    Here(Local),
    /// At the service.
    There(Client),
}

#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

impl Jobs {
    /// The latest batch with a key, abandoned ones excepted.
    pub async fn find_batch(&self, key: &str) -> anyhow::Result<Option<BatchView>> {
        match self {
            Self::Here(local) => Ok(local.find_batch(key).await?),
            Self::There(client) => {
                let path = format!("/longshore/v1/batches?key={}", encode(key));
                let mut found: Items<BatchView> = client.get(&path).await?;
                Ok(found.items.pop())
            }
        }
    }

    /// The first batches of which jobs are unfinished, oldest first.
    pub async fn unfinished_batches(&self) -> anyhow::Result<Vec<BatchView>> {
        match self {
            Self::Here(local) => Ok(local.unfinished_batches().await?),
            Self::There(client) => {
                let found: Items<BatchView> = client.get("/longshore/v1/batches").await?;
                Ok(found.items)
            }
        }
    }

    /// Submits a batch, all of it or nothing, and gives its number.
    pub async fn submit(&self, batch: NewBatchView) -> anyhow::Result<u64> {
        match self {
            Self::Here(local) => Ok(local.submit(batch).await?),
            Self::There(client) => {
                let reply: Value = client.post("/longshore/v1/batches", &batch).await?;
                reply["id"].as_u64().context("the service gave no number")
            }
        }
    }

    /// How far a batch has come.
    pub async fn batch(&self, id: u64) -> anyhow::Result<BatchView> {
        match self {
            Self::Here(local) => Ok(local.batch(id).await?),
            Self::There(client) => Ok(client.get(&format!("/longshore/v1/batches/{id}")).await?),
        }
    }

    /// Its jobs, in the order in which they were submitted.
    pub async fn jobs_of(&self, id: u64) -> anyhow::Result<Vec<JobView>> {
        match self {
            Self::Here(local) => Ok(local.jobs_of(id).await?),
            Self::There(client) => {
                let path = format!("/longshore/v1/batches/{id}/jobs");
                let found: Items<JobView> = client.get(&path).await?;
                Ok(found.items)
            }
        }
    }

    /// Waits until anything of a batch has changed after the revision `since`, at most so long.
    pub async fn watch_batch(&self, id: u64, since: u64, most: Duration) -> anyhow::Result<()> {
        match self {
            Self::Here(local) => Ok(local.watch_batch(id, since, most).await?),
            Self::There(client) => {
                let wait_ms = most.as_millis();
                let path = format!("/longshore/v1/batches/{id}?since={since}&wait_ms={wait_ms}");
                let _: Value = client.get_waiting(&path, most).await?;
                Ok(())
            }
        }
    }

    /// Cancels what is left of a batch.
    pub async fn cancel_batch(&self, id: u64) -> anyhow::Result<u64> {
        self.end_batch(id, false).await
    }

    /// Cancels what is left of a batch, and lets it be found no more.
    pub async fn abandon_batch(&self, id: u64) -> anyhow::Result<u64> {
        self.end_batch(id, true).await
    }

    async fn end_batch(&self, id: u64, abandon: bool) -> anyhow::Result<u64> {
        match self {
            Self::Here(local) => {
                let concerned = local.cancel_batch(id, abandon).await?;
                Ok(u64::try_from(concerned).unwrap_or(u64::MAX))
            }
            Self::There(client) => {
                let verb = if abandon { "abandon" } else { "cancel" };
                let path = format!("/longshore/v1/batches/{id}/{verb}");
                let reply: Value = client.post(&path, &json!({})).await?;
                Ok(reply["jobs"].as_u64().unwrap_or(0))
            }
        }
    }
}
