//! What the HTTP servers of Longshore share.
//!
//! [`serve`] answers the connections of a [`Listener`] (TCP, TCP with TLS, or a Unix socket) with
//! an axum router, within [`Limits`]: however slow or numerous the clients are, what they hold
//! here is bounded, and each wait has its end. [`Token`] and [`presented`] say who asks,
//! [`Parameters`] what is asked for in all the forms that clients of Arvados use, [`errors`] is
//! how they are told that something is wrong.
//!
//! ```
//! use axum::{Router, routing::get};
//! use longshore_http::{Limits, Listener, serve};
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let listener = Listener::tcp("127.0.0.1:0".parse()?, None).await?;
//! let address = listener.address().ok_or("a TCP listener has one")?;
//! let router = Router::new().route("/", get(async || "hello"));
//! let (stop, stopping) = tokio::sync::watch::channel(false);
//! let server = tokio::spawn(serve(listener, router, Limits::default(), stopping));
//!
//! let mut client = tokio::net::TcpStream::connect(address).await?;
//! client.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer).await?;
//! assert!(answer.ends_with("hello"));
//! stop.send(true)?;
//! server.await?;
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod parameters;
mod server;
mod tls;
mod token;

pub use answer::{answer, errors, json, plain};
pub use parameters::{Parameters, method_override, read_body};
pub use server::{Limits, Listener, serve};
pub use tls::{TlsError, tls_acceptor};
pub use token::{Token, authorize, presented};
