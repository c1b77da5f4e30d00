//! What must always hold.

use std::collections::BTreeMap;

use crate::core::Core;
use crate::slots::SlotOn;

impl Core {
    /// Walks the whole state and says what is wrong with it, if anything; for tests.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.slots.check()?;
        self.check_bookings()?;
        let (mut active, mut supervisors, mut line) = (0, 0, 0);
        let mut members: BTreeMap<usize, u32> = BTreeMap::new();
        for (no, case) in self.cases.iter() {
            let uuid = case.uuid;
            if self.known(uuid) != Some(no) {
                return Err(format!("{uuid} has another number than it should"));
            }
            if let Some(supervisor) = case.counted.active {
                active += 1;
                supervisors += u32::from(supervisor);
            }
            if let Some(key) = &case.order(no).filter(|_| case.counted.line) {
                line += 1;
                *members.entry(case.shape).or_default() += 1;
                let queued = self.shapes.shape(case.shape).map(|s| s.queue.contains(key));
                if !self.line.contains(key) || queued != Some(case.counted.queued) {
                    return Err(format!("{uuid} is not in line where it should be"));
                }
            }
            if case.ties.in_flight.len() > case.ties.claims.len() + 2 {
                return Err(format!(
                    "{uuid}: {} actions in flight",
                    case.ties.in_flight.len()
                ));
            }
        }
        if (active, supervisors, line) != (self.active, self.active_supervisors, self.line.len()) {
            return Err("the counts of active or waiting containers are wrong".into());
        }
        for (id, shape) in self.shapes.iter() {
            if shape.members != members.get(&id).copied().unwrap_or(0) {
                return Err(format!("shape {id} counts {} members", shape.members));
            }
        }
        Ok(())
    }

    /// How much is kept of each kind. What has ended leaves nothing, but what is called
    /// `remembered`, which is bounded.
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let cases = || self.cases.iter().map(|(_, case)| case);
        let shapes = || self.shapes.iter().map(|(_, shape)| shape);
        let mut sizes = vec![
            ("cases", self.cases.len()),
            ("case numbers", self.numbers.len()),
            ("claims", cases().map(|case| case.ties.claims.len()).sum()),
            (
                "actions in flight",
                cases().map(|c| c.ties.in_flight.len()).sum(),
            ),
            ("wishes", cases().map(|case| case.ties.wants.len()).sum()),
            ("containers with wishes", self.todo.len()),
            ("watched instances", self.watch.len()),
            ("shapes", shapes().count()),
            ("queued", shapes().map(|shape| shape.queue.len()).sum()),
            ("line", self.line.len()),
            ("pauses", self.pauses.len()),
            ("changed containers", self.touched.len()),
            ("planned", self.planned.len()),
            ("soft promises", self.soft.len()),
            ("pending instances", self.pendings.len()),
            ("changed pending instances", self.dirty_pendings.len()),
            ("creates", self.creating.iter().sum()),
            ("new slots", self.new_slots.iter().map(Vec::len).sum()),
            ("reservations", self.reservations.len()),
            ("remembered instances", self.gone.len()),
        ];
        sizes.extend(self.workers.sizes());
        sizes.extend(self.slots.sizes());
        sizes
    }

    fn check_bookings(&self) -> Result<(), String> {
        let mut booked = 0;
        for (slot_no, slot) in self.slots.iter() {
            booked += slot.holders.len();
            for (no, need) in &slot.holders {
                let booking = self.cases.get(*no).and_then(|c| c.booking.as_ref());
                if booking.is_none_or(|b| b.slot != slot_no || b.need != *need) {
                    return Err(format!("{:?} holds room for who does not know", slot.on));
                }
            }
            if let SlotOn::Worker(worker) = slot.on {
                let worker = self.workers.worker(worker);
                if worker.and_then(|worker| worker.slot) != Some(slot_no) {
                    return Err(format!("{:?} is no worker", slot.on));
                }
            }
        }
        let places = self.cases.iter().filter(|(_, c)| c.booking.is_some());
        let known = places.count();
        let promised = self.promised(self.cases.iter().map(|(no, _)| no));
        let promises: usize = promised.values().map(|(count, _)| count).sum();
        if known != booked + promises {
            return Err(format!(
                "{known} containers have a place, {booked} places are taken, {promises} promised"
            ));
        }
        for (no, (_, sum)) in promised {
            let slot = self.slots.slot(no);
            if !slot.is_some_and(|slot| sum.fits_in(&slot.spare())) {
                return Err(format!("{sum:?} is promised where it does not fit"));
            }
        }
        for (no, worker) in self.workers.iter() {
            if worker.view.is_none() && !worker.dirty {
                return Err(format!("{} is gone and still known", worker.id));
            }
            if self.workers.no(&worker.id) != Some(no) {
                return Err(format!("{} has another number than it should", worker.id));
            }
        }
        Ok(())
    }
}
