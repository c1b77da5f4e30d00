//! What happens in a pool, for whoever reads it.

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::event::Event;

/// What happens in a [`Pool`](super::Pool): the first reader hears everything since the start of
/// the pool, each other what happens from the moment at which it was asked for.
///
/// Each reader has all events. The pool waits for none: it keeps the last
/// [`PoolBuilder::event_capacity`](super::PoolBuilder::event_capacity), and a reader that falls
/// further behind loses the oldest, which it is told as [`PoolEvent::Missed`]; so does a first
/// reader that comes late. What it missed is still in [`Pool::snapshot`](super::Pool::snapshot): a
/// result stays there until it is acknowledged.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/stub.rs"));
/// # use longshore_pool::{Event, runtime::{Pool, PoolEvent, Run}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
/// # let pool = Pool::builder("doc", vec![small], Arc::new(Stub::default()), Arc::new(Hosts::default()))
/// #     .protocol(Arc::new(Plain))
/// #     .configure(|config| config.probe_interval = Duration::from_millis(10))
/// #     .start().await?;
/// let mut events = pool.events();
/// pool.run(Run::new("small", *b"work")).await?;
/// while let Some(event) = events.next().await {
///     match event {
///         PoolEvent::Happened(Event::Ended { exit, .. }) => {
///             assert_eq!(exit.cause, ExitCause::Exited { code: 4 });
///             break;
///         }
///         PoolEvent::Missed(count) => println!("{count} events were lost"),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Events {
    receiver: Option<Receiver<Event>>,
}

/// One thing that [`Events`] gives; its documentation has an example.
///
/// No example: see [`Events`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// It happened.
    Happened(Event),
    /// So many older events were dropped, because they were not read.
    Missed(u64),
}

impl Events {
    pub(super) fn new(receiver: Option<Receiver<Event>>) -> Self {
        Self { receiver }
    }

    /// The next one; none once the pool has ended and everything was read. Safe to drop at any
    /// await: nothing is lost by it.
    pub async fn next(&mut self) -> Option<PoolEvent> {
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(PoolEvent::Happened(event)),
            Err(RecvError::Lagged(count)) => Some(PoolEvent::Missed(count)),
            Err(RecvError::Closed) => None,
        }
    }
}
