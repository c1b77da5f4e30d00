//! The embedded controller: an SQLite store as an in-process queue.
//!
//! [`Store`] has two sides. The program submits batches of jobs, watches and cancels them; a
//! dispatcher sees the same containers through [`longshore_queue::Queue`], is told of changes, and
//! says where it runs them and how they end. As a [`longshore_exec::OutputStore`] it also keeps
//! their output.
//!
//! - What was answered successfully is on the disk. Requests that arrive together share one sync.
//! - What may follow what in a container's life is decided here, for whoever asks.
//! - Nothing of the containers is kept in memory: changes are found by their revision, a number
//!   that grows with every change of any container.
//! - One process at a time has a store open.
//!
//! ```
//! use std::time::Duration;
//! use longshore_controller::{NewBatch, NewJob, Settings, Store};
//! use longshore_queue::{Call, Queue};
//! use longshore_runner_api::StartDocument;
//! use longshore_types::{Attempt, Exit, ExitCause, ResourceRequest};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let directory = tempfile::tempdir()?;
//! let store = Store::open(directory.path(), Settings::default())?;
//! let document = StartDocument::new(vec!["true".into()]);
//! let batch = store.submit_batch(NewBatch {
//!     key: "/home/me/jobs.yml".into(),
//!     content_hash: "5d41402a".into(),
//!     name: "first try".into(),
//!     followed: true,
//!     jobs: vec![NewJob::new("one", document, ResourceRequest::default())],
//! }).await?;
//!
//! // What a dispatcher does with it:
//! let second = Duration::from_secs(1);
//! let uuid = store.refresh(&[], second).await?.containers[0].uuid;
//! let reply = store.call(uuid, &Call::Lock { attempt: Attempt(1), planned: None }, second).await?;
//! let attempt = reply.container.attempt();
//! store.call(uuid, &Call::Place { attempt, instance: "i-1".into() }, second).await?;
//! store.call(uuid, &Call::Running { attempt, started_at: None }, second).await?;
//! let exit = Exit::unseen(ExitCause::Exited { code: 0 });
//! store.call(uuid, &Call::Ended { attempt, exit }, second).await?;
//!
//! assert!(store.batch_status(batch).await?.is_success());
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod drafts;
mod error;
#[cfg(feature = "http")]
pub mod http;
mod kept;
#[cfg(feature = "http")]
mod listing;
mod output;
mod request;
mod retention;
mod room;
mod row;
mod saving;
mod schema;
mod settings;
mod status;
mod store;
mod transition;
mod writer;

pub use batch::{BatchId, MAX_BATCH_JOBS, NewBatch, NewJob};
pub use error::{OpenError, SubmitError};
pub use kept::Window;
pub use request::{ContainerRequest, RequestAttributes, RequestChange};
pub use retention::Retention;
pub use settings::Settings;
pub use status::{BatchStatus, JobCounts, JobFilter, JobPart, JobStates, JobStatus, SHORTEST_END};
pub use store::Store;
pub use writer::Stats;
