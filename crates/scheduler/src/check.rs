//! What must always hold.

use std::collections::BTreeMap;

use crate::core::Core;
use crate::slots::SlotId;

impl Core {
    /// Walks the whole state and says what is wrong with it, if anything; for tests.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.slots.check()?;
        self.check_bookings()?;
        let (mut active, mut supervisors, mut line) = (0, 0, 0);
        let mut members: BTreeMap<usize, u32> = BTreeMap::new();
        for (uuid, case) in &self.cases {
            if let Some(supervisor) = case.counted.active {
                active += 1;
                supervisors += u32::from(supervisor);
            }
            if let Some(key) = &case.counted.line {
                line += 1;
                *members.entry(case.shape).or_default() += 1;
                let queued = self.shapes.shape(case.shape).map(|s| s.queue.contains(key));
                if !self.line.contains(key) || queued != Some(case.counted.queued) {
                    return Err(format!("{uuid} is not in line where it should be"));
                }
            }
            if case.in_flight.len() > case.claims.len() + 2 {
                return Err(format!(
                    "{uuid}: {} actions in flight",
                    case.in_flight.len()
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

    fn check_bookings(&self) -> Result<(), String> {
        let mut booked = 0;
        for (id, slot) in self.slots.iter() {
            booked += slot.holders.len();
            for uuid in slot.holders.keys() {
                let booking = self.cases.get(uuid).and_then(|c| c.booking.as_ref());
                if booking.is_none_or(|b| b.slot != *id) {
                    return Err(format!("{id:?} holds room for {uuid}, which does not know"));
                }
            }
            if let SlotId::Worker(instance) = id
                && !self.dirty_slots.contains(id)
                && !self.workers.contains_key(instance)
            {
                return Err(format!("{id:?} is no worker"));
            }
        }
        let known = self.cases.values().filter(|c| c.booking.is_some()).count();
        if known != booked {
            return Err(format!(
                "{known} containers have a place, {booked} places are taken"
            ));
        }
        Ok(())
    }
}
