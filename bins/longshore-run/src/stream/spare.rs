//! A supervisor that is made ahead: a process that waits for what it is to start.
//!
//! Making a process takes longer than all else that comes before the disk. A spare one is made when
//! nothing else is to be done. It holds nothing of anybody's, and goes when the stream goes.

use std::io::{PipeReader, PipeWriter, Write, stdin};
use std::time::Duration;

use anyhow::{Context, Result};
use longshore_runner_api::watch::{Ask, Request};
use longshore_types::{Attempt, ContainerUuid};
use nix::unistd::Pid;

use super::child::{child_reading, contact};
use crate::ahead::Ahead;
use crate::directory::RunDirectory;
use crate::start;

/// For how long nothing was started when a spare supervisor is made: of those that are started one
/// after the other each is made at once, which takes no longer.
pub(super) const PAUSE: Duration = Duration::from_millis(5);
/// How long it is not tried again if one cannot be made, or was ended.
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(1);
/// The longest order, in bytes: less than a pipe holds, so that giving it never waits.
const MAX_ORDER: usize = 60 << 10;

/// A process that waits for its order.
pub(super) struct Spare {
    pub(super) process: Pid,
    way_back: PipeReader,
    order: PipeWriter,
}

impl Spare {
    pub(super) fn make(directory: &RunDirectory) -> Result<Self> {
        let (read, order) = std::io::pipe().context("cannot make a pipe")?;
        let (process, way_back) = child_reading(Some(read), || carry_out(directory))?;
        Ok(Self {
            process,
            way_back,
            order,
        })
    }

    /// Gives it its order. An error means that it did not get it.
    pub(super) fn start(mut self, order: &[u8]) -> Result<(Pid, PipeReader)> {
        self.order.write_all(order)?;
        Ok((self.process, self.way_back))
    }
}

/// What tells a spare supervisor to start an attempt; none if that is too long for it.
pub(super) fn order(uuid: ContainerUuid, attempt: Attempt, document: &[u8]) -> Option<Vec<u8>> {
    let bytes = document.len();
    let ask = Ask::Start {
        uuid,
        attempt,
        bytes,
    };
    let mut order = Request { id: 0, ask }.line().into_bytes();
    order.extend_from_slice(document);
    (order.len() <= MAX_ORDER).then_some(order)
}

/// In the spare process: waits for the order, and becomes the supervisor. There is none if the end
/// of the stream comes first.
fn carry_out(directory: &RunDirectory) -> Result<u8> {
    let mut ahead = Ahead::make(directory);
    let Some((uuid, attempt, document)) = ahead.read_order(&mut stdin())? else {
        return Ok(0);
    };
    contact(directory);
    start::supervise(directory, uuid, attempt, &document, ahead)
}
