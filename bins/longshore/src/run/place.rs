//! Where batches are run, and how that is left.

use std::time::Duration;

use longshore_types::InstanceId;

use super::Interrupts;
use crate::embedded::Embedded;
use crate::ending::{Ending, tell_error};
use crate::service::Jobs;
use crate::state::StateDirectory;
use crate::tell;

/// Where batches are run.
pub(super) struct Place<'a> {
    pub(super) jobs: Jobs,
    /// The installation, if it is in this process.
    pub(super) here: Option<(&'a StateDirectory, &'a Embedded)>,
}

impl Place<'_> {
    /// Waits until the instances are gone, if they are of this process.
    pub(super) async fn wind_down(
        &self,
        interrupts: &mut Interrupts,
        ending: Ending,
    ) -> anyhow::Result<Ending> {
        match self.here {
            Some((_, embedded)) => wind_down(embedded, interrupts, ending).await,
            None => Ok(ending),
        }
    }

    /// Tells what is left.
    pub(super) async fn leave(&self) -> anyhow::Result<Ending> {
        if let Some((_, embedded)) = self.here {
            return leave(embedded).await;
        }
        tell!("left to the service: `longshore list` shows what is there");
        Ok(Ending::Interrupted)
    }
}

async fn wind_down(
    embedded: &Embedded,
    interrupts: &mut Interrupts,
    ending: Ending,
) -> anyhow::Result<Ending> {
    let mut patience = tokio::time::interval(Duration::from_secs(10));
    patience.tick().await;
    let winding_down = embedded.wind_down();
    tokio::pin!(winding_down);
    loop {
        tokio::select! {
            done = &mut winding_down => {
                done?;
                tell_what_waits(embedded).await?;
                return Ok(ending);
            }
            () = interrupts.next() => return leave(embedded).await,
            _ = patience.tick() => tell!("waiting until the instances are gone"),
        }
    }
}

/// Tells of jobs that are not of this run, and that nobody runs now.
async fn tell_what_waits(embedded: &Embedded) -> anyhow::Result<()> {
    let batches = embedded.jobs().unfinished_batches().await?;
    let waiting: u64 = batches
        .iter()
        .map(|batch| batch.counts.queued + batch.counts.locked + batch.counts.running)
        .sum();
    if waiting > 0 {
        tell!(
            "left waiting: {} not of this run; `longshore serve` runs them",
            jobs(waiting)
        );
    }
    Ok(())
}

fn jobs(count: u64) -> String {
    match count {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    }
}

/// Tells which instances are left, as the user wanted it.
async fn leave(embedded: &Embedded) -> anyhow::Result<Ending> {
    let left = embedded.instances().await?;
    Ok(match tell_of(&left) {
        false => Ending::Interrupted,
        true => Ending::InstancesLeft,
    })
}

/// Tells which instances an error leaves, after the error. Without any the error is all there is.
pub(super) async fn tell_what_is_left(
    embedded: &Embedded,
    error: anyhow::Error,
) -> anyhow::Result<Ending> {
    let left = embedded.instances().await.unwrap_or_else(|failed| {
        tracing::warn!(
            error = format!("{failed:#}"),
            "it is not known which instances are left"
        );
        Vec::new()
    });
    if left.is_empty() {
        return Err(error);
    }
    tell_error(&error);
    tell_of(&left);
    Ok(Ending::InstancesLeft)
}

/// Whether any are left.
fn tell_of(left: &[InstanceId]) -> bool {
    if !left.is_empty() {
        tell!(
            "left behind: {}; `longshore cleanup` destroys them, the same command again goes on",
            join(left)
        );
    }
    !left.is_empty()
}

pub(super) fn join(instances: &[InstanceId]) -> String {
    let names: Vec<String> = instances.iter().map(ToString::to_string).collect();
    names.join(", ")
}
