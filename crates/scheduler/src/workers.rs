//! What is known of the workers.

use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{IdleBehavior, InstanceId, Instant, WorkerState, WorkerView};

use crate::ids::{NameKey, Slab, SlotNo, WorkerNo};

/// A worker, until the pass after it was removed.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) id: InstanceId,
    /// None once it was removed.
    pub(crate) view: Option<WorkerView>,
    /// Its type, none if that is not configured.
    pub(crate) type_index: Option<usize>,
    /// Its books, from the first pass on.
    pub(crate) slot: Option<SlotNo>,
    /// Whether its books may differ from its view.
    pub(crate) dirty: bool,
    pub(crate) giving_back: bool,
    /// How it stands in the index by probe, none if it is not there.
    probe: Option<Option<Instant>>,
    /// Whether it may not stand there as it should.
    probe_dirty: bool,
}

impl Worker {
    /// Its type, if it is on hold.
    fn held_type(&self) -> Option<usize> {
        let view = self.view.as_ref()?;
        let held = view.idle_behavior == IdleBehavior::Hold && view.state != WorkerState::Shutdown;
        self.type_index.filter(|_| held)
    }
}

/// All workers, by name and by when they last answered.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    list: Slab<WorkerNo, Worker>,
    by_name: BTreeMap<NameKey, WorkerNo>,
    by_probe: BTreeSet<(Option<Instant>, NameKey, WorkerNo)>,
    probe_dirty: Vec<WorkerNo>,
    /// Those whose books may differ from their views.
    pub(crate) dirty: Vec<WorkerNo>,
    giving_back: usize,
    /// How many are being destroyed: their places in a quota are not free yet.
    leaving: usize,
    /// Those on hold, by type: few, if any.
    held: BTreeMap<usize, BTreeSet<InstanceId>>,
}

impl Workers {
    /// How many were told to go, or are to be, and are there still.
    pub(crate) fn going(&self) -> usize {
        self.giving_back + self.leaving
    }

    pub(crate) fn no(&self, id: &InstanceId) -> Option<WorkerNo> {
        self.by_name.get(&NameKey::of(id)).copied()
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<&WorkerView> {
        self.list.get(self.no(id)?)?.view.as_ref()
    }

    pub(crate) fn worker(&self, no: WorkerNo) -> Option<&Worker> {
        self.list.get(no)
    }

    pub(crate) fn worker_mut(&mut self, no: WorkerNo) -> Option<&mut Worker> {
        self.list.get_mut(no)
    }

    /// The number of a worker, a new one if it is not known.
    pub(crate) fn number(&mut self, id: &InstanceId) -> WorkerNo {
        let list = &mut self.list;
        *self.by_name.entry(NameKey::of(id)).or_insert_with(|| {
            list.insert(Worker {
                id: id.clone(),
                view: None,
                type_index: None,
                slot: None,
                dirty: false,
                giving_back: false,
                probe: None,
                probe_dirty: false,
            })
        })
    }

    /// Takes the newest view of a worker, none if it is gone; returns the one before. A worker
    /// without a view goes with the next pass.
    pub(crate) fn set(
        &mut self,
        no: WorkerNo,
        view: Option<WorkerView>,
        type_index: Option<usize>,
    ) -> Option<WorkerView> {
        let worker = self.list.get_mut(no)?;
        if let Some(index) = worker.held_type() {
            self.held.entry(index).or_default().remove(&worker.id);
            self.held.retain(|_, held| !held.is_empty());
        }
        worker.type_index = type_index;
        let old = std::mem::replace(&mut worker.view, view);
        if let Some(index) = worker.held_type() {
            self.held
                .entry(index)
                .or_default()
                .insert(worker.id.clone());
        }
        self.leaving += usize::from(is_leaving(worker.view.as_ref()));
        self.leaving -= usize::from(is_leaving(old.as_ref()));
        self.changed(no);
        old
    }

    /// An instance of one of these types that takes nothing because it is on hold.
    pub(crate) fn on_hold(&self, types: &[usize]) -> Option<&InstanceId> {
        let held = types.iter().filter_map(|index| self.held.get(index));
        held.filter_map(BTreeSet::first).next()
    }

    /// A worker answered, and nothing else is new.
    pub(crate) fn answered(&mut self, no: WorkerNo, at: Option<Instant>) {
        if let Some(view) = self.list.get_mut(no).and_then(|w| w.view.as_mut()) {
            view.probed_at = at;
            self.probe_changed(no);
        }
    }

    fn changed(&mut self, no: WorkerNo) {
        self.set_giving_back(no, false);
        self.mark_dirty(no);
        self.probe_changed(no);
    }

    fn probe_changed(&mut self, no: WorkerNo) {
        if let Some(worker) = self.list.get_mut(no)
            && !worker.probe_dirty
        {
            worker.probe_dirty = true;
            self.probe_dirty.push(no);
        }
    }

    pub(crate) fn mark_dirty(&mut self, no: WorkerNo) {
        if let Some(worker) = self.list.get_mut(no)
            && !worker.dirty
        {
            worker.dirty = true;
            self.dirty.push(no);
        }
    }

    pub(crate) fn set_giving_back(&mut self, no: WorkerNo, giving_back: bool) {
        if let Some(worker) = self.list.get_mut(no)
            && worker.giving_back != giving_back
        {
            worker.giving_back = giving_back;
            if giving_back {
                self.giving_back += 1;
            } else {
                self.giving_back -= 1;
            }
        }
    }

    /// Drops a worker without a view.
    pub(crate) fn drop_cleared(&mut self, no: WorkerNo) {
        self.sync_probe(no);
        if let Some(worker) = self.list.remove(no) {
            self.by_name.remove(&NameKey::of(&worker.id));
        }
    }

    /// Brings the index by probe up to date. It is asked for seldom, and kept for those who ask.
    pub(crate) fn sync_probes(&mut self) {
        for no in std::mem::take(&mut self.probe_dirty) {
            self.sync_probe(no);
        }
    }

    fn sync_probe(&mut self, no: WorkerNo) {
        let Some(worker) = self.list.get_mut(no) else {
            return;
        };
        worker.probe_dirty = false;
        let new = worker.view.as_ref().map(|view| view.probed_at);
        if worker.probe == new {
            return;
        }
        let key = NameKey::of(&worker.id);
        if let Some(old) = worker.probe {
            self.by_probe.remove(&(old, key.clone(), no));
        }
        if let Some(new) = new {
            self.by_probe.insert((new, key, no));
        }
        worker.probe = new;
    }

    /// Workers by when they last answered, as of the last [`Workers::sync_probes`].
    pub(crate) fn by_probe(&self) -> impl Iterator<Item = (Option<Instant>, &Worker)> {
        let workers = self.by_probe.iter();
        workers.filter_map(|(at, _, no)| Some((*at, self.list.get(*no)?)))
    }

    /// How much there is of each kind.
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 5] {
        [
            ("workers", self.list.len()),
            ("worker names", self.by_name.len()),
            ("workers by probe", self.by_probe.len()),
            ("types on hold", self.held.len()),
            ("changed workers", self.dirty.len() + self.probe_dirty.len()),
        ]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerNo, &Worker)> {
        self.list.iter()
    }
}

fn is_leaving(view: Option<&WorkerView>) -> bool {
    view.is_some_and(|view| view.state == WorkerState::Shutdown)
}
