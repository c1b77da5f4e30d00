//! Questions about single instances.

use std::time::Duration;

use longshore_cloud::{ErrorKind, Interruption, PricePoint};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, Instant, Market, Timestamp};

use super::{Cloud, Refusal};
use crate::FakeInstance;
use crate::random::mix;

impl Cloud {
    /// The SSH host key of an instance, if there is such an instance: of type `ssh-ed25519`, and
    /// made of nothing but the seed and the instance.
    pub fn host_key(&self, id: &InstanceId) -> Option<HostKey> {
        let instance = self.fleet.find(self.settings.name, id)?;
        let mut blob = Vec::from(*b"\0\0\0\x0bssh-ed25519\0\0\0\x20");
        for word in 0..4 {
            let bits = mix(self.seed ^ mix(instance.serial.wrapping_mul(4).wrapping_add(word)));
            blob.extend(bits.to_be_bytes());
        }
        let algorithm = "ssh-ed25519".into();
        Some(HostKey { algorithm, blob })
    }

    pub(super) fn verify(&self, id: &InstanceId, key: &HostKey) -> Result<HostKeyVerdict, Refusal> {
        let booted = self.listed(id)?.booted.is_some();
        Ok(if !self.settings.capabilities.host_keys || !booted {
            HostKeyVerdict::Unsupported
        } else if self.host_key(id).as_ref() == Some(key) {
            HostKeyVerdict::Match
        } else {
            HostKeyVerdict::Mismatch
        })
    }

    pub(super) fn console(&self, id: &InstanceId, limit: usize) -> Result<Vec<u8>, Refusal> {
        let instance = self.listed(id)?;
        let mut printed = format!("{id}: starting {}\n", instance.image).into_bytes();
        if instance.booted.is_some() {
            printed.extend(format!("{id}: booted\n").bytes());
        }
        printed.extend(&instance.console);
        let surplus = printed.len().saturating_sub(limit);
        Ok(printed.split_off(surplus))
    }

    pub(super) fn prices(
        &self,
        id: &InstanceId,
        span: Duration,
    ) -> Result<Vec<PricePoint>, Refusal> {
        let instance = self.listed(id)?;
        if instance.market == Market::OnDemand {
            return Ok(Vec::new());
        }
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let begin = Instant::from_nanos(self.now.as_nanos().saturating_sub(nanos));
        let points = self.settings.prices.get(&instance.provider_type);
        let known = points.map_or(&[][..], Vec::as_slice);
        // The price that held when the span began counts too.
        let first = known
            .partition_point(|(from, _)| *from <= begin)
            .saturating_sub(1);
        let past = known[first..]
            .iter()
            .take_while(|(from, _)| *from <= self.now);
        Ok(past
            .map(|(from, price)| PricePoint::new(self.wall_time(*from), *price))
            .collect())
    }

    pub(super) fn interruptions(&self) -> Vec<Interruption> {
        let noticed = self.fleet.all().filter(|instance| instance.is_live());
        noticed
            .filter_map(|instance| {
                let remaining = instance.interrupted?.since(self.now);
                Some(Interruption::new(instance.id.clone(), Some(remaining)))
            })
            .collect()
    }

    pub(super) fn wall_time(&self, at: Instant) -> Timestamp {
        let elapsed = i64::try_from(at.as_nanos() / 1_000_000).unwrap_or(i64::MAX);
        Timestamp(self.settings.epoch.0.saturating_add(elapsed))
    }

    fn listed(&self, id: &InstanceId) -> Result<&FakeInstance, Refusal> {
        let found = self.fleet.find(self.settings.name, id);
        let listed = found.filter(|instance| instance.vanished.is_none());
        listed.ok_or_else(|| Refusal::new(ErrorKind::NotFound, "no such instance"))
    }
}
