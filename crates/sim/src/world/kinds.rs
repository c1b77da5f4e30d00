//! On which kinds of machines a container runs: large enough, of a market that it allows, not too
//! dear, and not again on one that may be taken away where it has lost enough of those.

use std::collections::BTreeMap;

use longshore_types::{ContainerUuid, InstanceId, InstanceType, Instant, Preemptible};

use super::World;
use crate::Rule;

/// What containers have lost with preemptible machines, as one life of the dispatcher has seen it.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<ContainerUuid, Lost>);

#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    /// The life that sent the latest start.
    life: u32,
    /// How often what that life had started was lost.
    times: u32,
    /// When the latest start took effect.
    begun_at: Instant,
}

impl Losses {
    /// A start that this life has sent takes effect; how often it has lost that container before. What
    /// was unwanted since the start before may have been forgotten.
    fn begin(
        &mut self,
        uuid: ContainerUuid,
        life: u32,
        unwanted_at: Option<Instant>,
        now: Instant,
    ) -> u32 {
        let lost = self.0.entry(uuid).or_default();
        if lost.life != life || unwanted_at.is_some_and(|at| at >= lost.begun_at) {
            lost.times = 0;
        }
        (lost.life, lost.begun_at) = (life, now);
        lost.times
    }

    fn count(&mut self, uuid: ContainerUuid) {
        if let Some(lost) = self.0.get_mut(&uuid) {
            lost.times += 1;
        }
    }
}

impl World {
    /// A process begins on an instance, as a life of the dispatcher wanted it.
    pub(super) fn judge_kind(&mut self, id: &InstanceId, uuid: ContainerUuid, sent_by: u32) {
        let unwanted_at = self.controller.get(uuid).and_then(|r| r.unwanted_at);
        let lost = self.losses.begin(uuid, sent_by, unwanted_at, self.now);
        let Some(kind) = self.kind_of(id).cloned() else {
            return;
        };
        let fitting = self.fitting(uuid);
        let of_market = fitting.iter().filter(|t| t.preemptible == kind.preemptible);
        let cheapest = of_market.map(|t| t.price).min();
        let factor = self.config.scheduler.maximum_price_factor;
        let most = cheapest.map(|price| price.scaled(factor));
        let fits = fitting.iter().any(|t| t.name == kind.name);
        let stays = self.prefers(uuid) && fitting.iter().any(|t| !t.preemptible);
        let about = [uuid.to_string(), id.to_string()];
        if !fits || most.is_some_and(|most| kind.price > most) {
            let what = format!("{uuid} starts on {id}, which is of type {}", kind.name);
            self.witness.find(Rule::WrongMachine, &about, what);
        }
        if stays && kind.preemptible && lost >= self.config.scheduler.max_interruptions {
            let what = format!("{uuid} starts on {id}, and has lost {lost} like that");
            self.witness.find(Rule::InterruptedAgain, &about, what);
        }
    }

    /// A process is lost with its machine, which does not come back: that may go unnoticed.
    pub(super) fn note_loss(&mut self, id: &InstanceId, uuid: ContainerUuid) {
        if self.kind_of(id).is_some_and(|kind| kind.preemptible) {
            self.losses.count(uuid);
        }
    }

    /// Whether some type can hold a container, whatever it costs.
    pub(super) fn is_satisfiable(&self, uuid: ContainerUuid) -> bool {
        !self.fitting(uuid).is_empty()
    }

    /// The types that are large enough for a container, and of a market that it allows.
    fn fitting(&self, uuid: ContainerUuid) -> Vec<&InstanceType> {
        let granted = self.granted(uuid);
        let wants = self.job(uuid).map(|job| job.preemptible);
        let wants = wants.unwrap_or_default();
        let fits =
            |t: &&InstanceType| wants.allows(t.preemptible) && granted.fits_in(&t.resources());
        self.config.pool.types.iter().filter(fits).collect()
    }

    fn prefers(&self, uuid: ContainerUuid) -> bool {
        let job = self.job(uuid);
        job.is_some_and(|job| job.preemptible == Preemptible::Prefer)
    }

    /// The type of an instance.
    fn kind_of(&self, id: &InstanceId) -> Option<&InstanceType> {
        let name = &self.cloud.instance(id)?.type_name;
        self.config.pool.types.iter().find(|t| t.name == *name)
    }
}
