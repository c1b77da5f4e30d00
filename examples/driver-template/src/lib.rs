//! A driver of Longshore for the provider Acme: a template to copy. `README.md` has the steps.
//!
//! [`AcmeDriver`] opens an [`AcmeSet`] from JSON parameters. The set asks the provider through the
//! trait [`Api`], which is all that you write anew; what is around it (paging, deadlines, batches,
//! the kinds of errors) is here, and tested against an emulator of such an API.
//!
//! ```
//! use std::sync::Arc;
//! use longshore_cloud::{Driver, InstanceSet, ParameterError};
//! use longshore_driver_acme::{AcmeDriver, Api, Parameters};
//!
//! async fn open(connect: fn(&Parameters) -> Result<Arc<dyn Api>, ParameterError>) {
//!     let parameters = serde_json::json!({
//!         "region": "north-1",
//!         "project": "genomics",
//!         "token_file": "/etc/longshore/acme-token",
//!     });
//!     match AcmeDriver::new(connect).open(&parameters).await {
//!         Ok(set) => eprintln!("{set} is open"),
//!         Err(errors) => eprintln!("{errors}"),
//!     }
//! }
//! ```

mod api;
mod classify;
mod parameters;
mod set;

pub use api::{Api, ApiError, Order, Page, Server};
pub use parameters::{AcmeDriver, Parameters};
pub use set::AcmeSet;

/// The driver's name in the configuration and in errors.
const NAME: &str = "acme";
