//! Containers that ask for the same: where one finds no room, none of them does.

use std::collections::{BTreeMap, BTreeSet};

use longshore_types::{
    ByteSize, Container, GpuRequest, GpuStack, Instant, Preemptible, ResourceRequest, Resources,
};

use crate::Config;
use crate::history::Stops;
use crate::ids::OrderKey;
use crate::type_choice::{eligible_indexes, need};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ShapeKey {
    supervisor: bool,
    preemptible: Preemptible,
    vcpus: u32,
    sizes: [ByteSize; 5],
    gpu: Option<(GpuStack, String, Vec<String>, u32, ByteSize)>,
}

impl ShapeKey {
    fn of(request: &ResourceRequest, supervisor: bool) -> Self {
        let gpu = |gpu: &GpuRequest| {
            (
                gpu.stack,
                gpu.driver_version.clone(),
                gpu.hardware_targets.clone(),
                gpu.device_count,
                gpu.vram,
            )
        };
        Self {
            supervisor,
            preemptible: request.preemptible,
            vcpus: request.vcpus,
            sizes: [
                request.ram,
                request.keep_cache_ram,
                request.scratch,
                request.image,
                request.keep_cache_disk,
            ],
            gpu: request.gpu.as_ref().map(gpu),
        }
    }
}

/// Why the rest of a shape got nothing in the last pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    NoRoom(String),
    Supervisors(u32),
    Containers(u32),
    NotAccepting,
}

/// The types that satisfy a shape, best first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Eligible {
    pub(crate) indexes: Vec<usize>,
    /// Each type with its place in `indexes`, ordered by type.
    ranks: Vec<(usize, usize)>,
}

impl Eligible {
    fn new(indexes: Vec<usize>) -> Self {
        let ranked = indexes.iter().enumerate();
        let mut ranks: Vec<_> = ranked.map(|(rank, index)| (*index, rank)).collect();
        ranks.sort_unstable();
        Self { indexes, ranks }
    }

    fn rank(&self, index: usize) -> Option<usize> {
        let at = self.ranks.binary_search_by_key(&index, |(index, _)| *index);
        Some(self.ranks[at.ok()?].1)
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.rank(index).is_some()
    }

    /// Those of these types that satisfy the shape, best first.
    pub(crate) fn among<'a>(&self, types: impl Iterator<Item = &'a usize>) -> Vec<usize> {
        let mut ranks: Vec<usize> = types.filter_map(|t| self.rank(*t)).collect();
        ranks.sort_unstable();
        ranks.into_iter().map(|rank| self.indexes[rank]).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Shape {
    key: ShapeKey,
    pub(crate) request: ResourceRequest,
    /// Entries of this shape; the shape goes with the last one.
    refs: usize,
    pub(crate) supervisor: bool,
    pub(crate) need: Resources,
    pub(crate) eligible: Result<Eligible, String>,
    /// Those that need a place.
    pub(crate) queue: BTreeSet<OrderKey>,
    /// Those that need a place now or will after a pause or a call.
    pub(crate) members: u32,
    /// The first one that got no place in the last pass, and why.
    pub(crate) stop: Option<(OrderKey, Stop)>,
    /// What `stop` was before.
    pub(crate) stops: Stops,
}

impl Shape {
    fn new(key: ShapeKey, container: &Container, config: &Config) -> Self {
        let eligible = eligible_indexes(&container.request, config)
            .map(Eligible::new)
            .map_err(|error| error.to_string());
        Self {
            key,
            request: container.request.clone(),
            refs: 0,
            supervisor: container.supervisor,
            need: need(&container.request, config),
            eligible,
            queue: BTreeSet::new(),
            members: 0,
            stop: None,
            stops: Stops::default(),
        }
    }

    /// The best types, none if nothing satisfies it.
    pub(crate) fn types(&self) -> &[usize] {
        self.eligible.as_ref().map_or(&[], |e| &e.indexes)
    }
}

/// All shapes in use.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    list: Vec<Option<Shape>>,
    ids: BTreeMap<ShapeKey, usize>,
    free: Vec<usize>,
    /// The one that was asked for last: the next is often the same.
    last: usize,
}

impl Shapes {
    pub(crate) fn acquire(&mut self, container: &Container, config: &Config) -> usize {
        if let Some(Some(shape)) = self.list.get_mut(self.last)
            && shape.supervisor == container.supervisor
            && shape.request == container.request
        {
            shape.refs += 1;
            return self.last;
        }
        let key = ShapeKey::of(&container.request, container.supervisor);
        let id = match self.ids.get(&key) {
            Some(&id) => id,
            None => {
                let shape = Shape::new(key.clone(), container, config);
                let id = self.free.pop().unwrap_or(self.list.len());
                if id == self.list.len() {
                    self.list.push(Some(shape));
                } else {
                    self.list[id] = Some(shape);
                }
                self.ids.insert(key, id);
                id
            }
        };
        if let Some(shape) = &mut self.list[id] {
            shape.refs += 1;
        }
        self.last = id;
        id
    }

    pub(crate) fn release(&mut self, id: usize) {
        let Some(shape) = self.list.get_mut(id).and_then(Option::as_mut) else {
            return;
        };
        shape.refs -= 1;
        if shape.refs == 0 {
            self.ids.remove(&shape.key);
            self.list[id] = None;
            self.free.push(id);
        }
    }

    pub(crate) fn shape(&self, id: usize) -> Option<&Shape> {
        self.list.get(id)?.as_ref()
    }

    pub(crate) fn shape_mut(&mut self, id: usize) -> Option<&mut Shape> {
        self.list.get_mut(id)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Shape)> {
        self.list
            .iter()
            .enumerate()
            .filter_map(|(id, shape)| shape.as_ref().map(|s| (id, s)))
    }

    /// The least that any of those who need a place now needs of each kind.
    pub(crate) fn least_need(&self) -> Resources {
        let waiting = self.iter().filter(|(_, shape)| !shape.queue.is_empty());
        let needs = waiting.map(|(_, shape)| shape.need);
        let least = needs.reduce(|a, b| Resources {
            vcpus: a.vcpus.min(b.vcpus),
            ram: a.ram.min(b.ram),
            scratch: a.scratch.min(b.scratch),
            gpus: a.gpus.min(b.gpus),
        });
        least.unwrap_or_default()
    }

    /// Sets why the rest of some shapes got nothing; the rest of the others got something.
    pub(crate) fn set_stops(&mut self, mut stops: BTreeMap<usize, (OrderKey, Stop)>, now: Instant) {
        for (id, shape) in self.list.iter_mut().enumerate() {
            if let Some(shape) = shape {
                shape.stop = stops.remove(&id);
                let stop = shape.stop.as_ref().map(|(_, stop)| stop);
                shape.stops.note(stop, now);
            }
        }
    }

    /// The types that satisfy a shape, none if there is no such shape or type.
    pub(crate) fn types(&self, id: usize) -> &[usize] {
        self.shape(id).map_or(&[], Shape::types)
    }
}
