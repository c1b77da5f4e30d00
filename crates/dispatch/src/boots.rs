//! How long instances take to boot, for saying when one will be ready.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use longshore_types::{
    Estimate, InstanceId, Instant, TypeName, WorkerState, WorkerView, format_duration,
};

/// So many boots of each type are remembered.
const MAX_BOOTS: usize = 16;
/// So many have to be known before anything is concluded from them.
const ENOUGH: usize = 3;

/// Boots that were seen from the first sight of an instance to its first answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Boots {
    /// Since when each instance boots.
    booting: BTreeMap<InstanceId, Instant>,
    took: BTreeMap<TypeName, VecDeque<Duration>>,
}

impl Boots {
    /// Takes the newest view of a worker.
    pub(crate) fn note(&mut self, view: &WorkerView, now: Instant) {
        match view.state {
            WorkerState::Booting => {
                if !self.booting.contains_key(&view.instance) {
                    self.booting.insert(view.instance.clone(), now);
                }
            }
            WorkerState::Idle | WorkerState::Running => {
                if let Some(since) = self.booting.remove(&view.instance)
                    && let Some(name) = &view.type_name
                {
                    let took = self.took.entry(name.clone()).or_default();
                    took.push_back(now.since(since));
                    if took.len() > MAX_BOOTS {
                        took.pop_front();
                    }
                }
            }
            WorkerState::Unknown | WorkerState::Shutdown => self.forget(&view.instance),
        }
    }

    /// A worker is gone.
    pub(crate) fn forget(&mut self, instance: &InstanceId) {
        self.booting.remove(instance);
    }

    /// When an instance will be ready, if enough others of its type have booted, and it is not
    /// overdue.
    pub(crate) fn estimate(
        &self,
        type_name: &TypeName,
        instance: &InstanceId,
        now: Instant,
    ) -> Option<Estimate> {
        let elapsed = now.since(*self.booting.get(instance)?);
        let took = self.took.get(type_name).filter(|t| t.len() >= ENOUGH)?;
        let mut sorted: Vec<Duration> = took.iter().copied().collect();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        let remaining = median.checked_sub(elapsed)?;
        let basis = format!(
            "half of the last {} instances of type {type_name} were ready {} after they were \
             created",
            sorted.len(),
            format_duration(median)
        );
        Some(Estimate::new(remaining, basis))
    }
}

#[cfg(test)]
mod tests {
    use longshore_types::{ByteSize, InstanceType, Price};

    use super::*;

    fn view(id: &str, state: WorkerState) -> WorkerView {
        let small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
        let mut view = WorkerView::idle(id, &small, Instant::ZERO);
        view.state = state;
        view
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn is_said_once_enough_have_booted_and_only_while_it_is_not_overdue() {
        let mut boots = Boots::default();
        let small = "small".into();
        boots.note(&view("new", WorkerState::Booting), at(0));
        for (id, took) in [("a", 30), ("b", 90), ("c", 40)] {
            assert_eq!(boots.estimate(&small, &"new".into(), at(10)), None);
            boots.note(&view(id, WorkerState::Booting), at(0));
            boots.note(&view(id, WorkerState::Booting), at(1));
            boots.note(&view(id, WorkerState::Idle), at(took));
        }
        let estimate = |seconds| boots.estimate(&small, &"new".into(), at(seconds));
        assert_eq!(estimate(10).unwrap().remaining, Duration::from_secs(30));
        assert_eq!(estimate(41), None, "overdue: nobody knows");
        assert_eq!(boots.estimate(&small, &"other".into(), at(10)), None);
        boots.forget(&"new".into());
        assert_eq!(boots.estimate(&small, &"new".into(), at(10)), None);
    }
}
