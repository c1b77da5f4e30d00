//! A driver that presents this machine as an instance, over real SSH on loopback.
//!
//! `create` makes a directory with a record, a host key and a place for the runner, and starts an
//! SSH server on an ephemeral port of 127.0.0.1. Whoever logs in with the key of the request runs
//! commands as the current user. `destroy` does what switching a machine off does: every process
//! that was started through the server is ended, and every container that the runner had an engine
//! make; then the directory is removed. A container whose engine cannot be asked, because its program
//! is not where it was, is not taken for gone: the instance stays, and the error says what to do.
//!
//! Everything that must survive this process is in the state directory, so that after a kill -9
//! the instances are listed again: with the same host key, at a new address.
//!
//! ```text
//! DIR/lock                     held by the process that has the directory open
//! DIR/ID/instance.json         the record
//! DIR/ID/host_key              the private host key, mode 0600
//! DIR/ID/run/                  the runner's directory, LONGSHORE_RUN_DIR of every command
//! ```
//!
//! # Example
//!
//! ```
//! use longshore_cloud::{CallContext, CreateRequest, Driver, Tags};
//! use longshore_driver_loopback::LoopbackDriver;
//!
//! # let folder = std::env::temp_dir().join(format!("loopback-doc-{}", std::process::id()));
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let parameters = serde_json::json!({ "directory": folder });
//! let cloud = LoopbackDriver.open(&parameters).await?;
//! let context = CallContext::example();
//! let made = cloud.create(&context, &CreateRequest::example()).await?;
//! assert!(made.address.is_some_and(|address| address.starts_with("127.0.0.1:")));
//! assert!(cloud.destroy(&context, &[made.id]).await[0].1.is_ok());
//! assert!(cloud.list(&context, &Tags::new()).await?.is_empty());
//! cloud.stop().await;
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

mod command;
mod engines;
mod environment;
mod groups;
mod instance_set;
mod machine_type;
mod notes;
mod parameters;
mod processes;
mod record;
mod server;
mod session;
mod stdin;

pub use machine_type::{Measurements, TYPE_NAME, implicit_type};
pub use parameters::{LoopbackDriver, MAX_INSTANCES};
pub use server::{LOGIN_TIMEOUT, MAX_CONNECTIONS};
pub use session::MAX_CHANNELS;
pub use stdin::{MAX_STDIN_ON_DISK, STDIN_IN_MEMORY};
