//! The cache beside a model of a controller whose answers arrive late, in any order, or never.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use std::collections::BTreeMap;

use longshore_queue::{Cache, Change, Delta, Refresh};
use longshore_types::{
    Container, ContainerState, ContainerUuid, Instant, QueueEntry, ResourceRequest, Timestamp,
};
use proptest::prelude::*;

const CONTAINERS: usize = 3;

fn uuid(n: usize) -> ContainerUuid {
    format!("local-dz642-{n:015}").parse().unwrap()
}

/// What the world does next. The numbers choose among what is possible.
#[derive(Clone, Debug)]
enum Step {
    Tick,
    UserChanges(usize, Look),
    BeginCall(usize),
    ControllerApplies(usize, Look),
    ReplyArrives(usize),
    ReplyIsLost(usize),
    RefreshBegins,
    ControllerReads(usize),
    RefreshArrives(usize),
    ChangesAreRead,
    ChangesArrive,
    Forget(usize),
}

/// What a container looks like after a change.
#[derive(Clone, Copy, Debug)]
struct Look {
    state: ContainerState,
    priority: i64,
}

fn any_look() -> impl Strategy<Value = Look> {
    (
        0..ContainerState::ALL.len(),
        prop_oneof![Just(0i64), Just(500)],
    )
        .prop_map(|(state, priority)| Look {
            state: ContainerState::ALL[state],
            priority,
        })
}

fn any_step() -> impl Strategy<Value = Step> {
    let one = 0..CONTAINERS;
    prop_oneof![
        3 => Just(Step::Tick),
        2 => (one.clone(), any_look()).prop_map(|(n, look)| Step::UserChanges(n, look)),
        3 => one.clone().prop_map(Step::BeginCall),
        3 => (one.clone(), any_look()).prop_map(|(n, look)| Step::ControllerApplies(n, look)),
        3 => one.clone().prop_map(Step::ReplyArrives),
        1 => one.clone().prop_map(Step::ReplyIsLost),
        3 => Just(Step::RefreshBegins),
        3 => (0..4usize).prop_map(Step::ControllerReads),
        3 => (0..4usize).prop_map(Step::RefreshArrives),
        2 => Just(Step::ChangesAreRead),
        2 => Just(Step::ChangesArrive),
        2 => one.prop_map(Step::Forget),
    ]
}

/// A refresh under way.
struct Asked {
    at: Instant,
    answer: Option<Refresh>,
}

struct World {
    /// Whether the controller numbers its records, and tells of changes.
    numbered: bool,
    now: u64,
    version: u32,
    /// The truth; each record holds its version in `lock_count`, which the cache ignores.
    truth: BTreeMap<ContainerUuid, Container>,
    /// Own calls under way, with the record once the controller has applied it.
    calls: BTreeMap<ContainerUuid, Option<Container>>,
    asked: Vec<Asked>,
    told: u32,
    changes: Option<Vec<Change>>,
    /// The version that this dispatcher's last write of a container made, as far as it knows.
    written: BTreeMap<ContainerUuid, u32>,
    /// The version known when the reply of that write was lost; it stays until a newer one comes.
    left: BTreeMap<ContainerUuid, u32>,
    cache: Cache,
    mirror: BTreeMap<ContainerUuid, QueueEntry>,
    /// The largest revision that was ever seen of each container.
    seen: BTreeMap<ContainerUuid, u64>,
}

impl World {
    fn new(numbered: bool) -> Self {
        let mut world = Self {
            numbered,
            now: 10,
            version: 0,
            truth: BTreeMap::new(),
            calls: BTreeMap::new(),
            asked: Vec::new(),
            told: 0,
            changes: None,
            written: BTreeMap::new(),
            left: BTreeMap::new(),
            cache: Cache::new(),
            mirror: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        let look = Look {
            state: ContainerState::Queued,
            priority: 500,
        };
        (0..CONTAINERS).for_each(|n| world.change(uuid(n), look));
        world
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn change(&mut self, uuid: ContainerUuid, look: Look) {
        self.version += 1;
        let record = Container {
            uuid,
            state: look.state,
            priority: look.priority,
            created_at: Timestamp(0),
            request: ResourceRequest::default(),
            supervisor: false,
            lock_count: self.version,
            given_back: None,
            locked_by_us: false,
            placed_on: None,
            revision: if self.numbered {
                self.version.into()
            } else {
                0
            },
        };
        self.truth.insert(uuid, record);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Tick => self.now += 1,
            Step::UserChanges(n, look) => self.change(uuid(n), look),
            Step::BeginCall(n) => {
                let busy = self.cache.begin_call(uuid(n), self.now()).is_err();
                assert_eq!(busy, self.calls.contains_key(&uuid(n)));
                self.calls.entry(uuid(n)).or_insert(None);
            }
            Step::ControllerApplies(n, look) => {
                if self.calls.get(&uuid(n)).is_some_and(Option::is_none) {
                    self.change(uuid(n), look);
                    let record = self.truth[&uuid(n)].clone();
                    self.calls.insert(uuid(n), Some(record));
                }
            }
            Step::ReplyArrives(n) => self.finish(uuid(n), true),
            Step::ReplyIsLost(n) => self.finish(uuid(n), false),
            Step::RefreshBegins => {
                let asked = Asked {
                    at: self.now(),
                    answer: None,
                };
                self.asked.push(asked);
            }
            Step::ControllerReads(i) => {
                let containers = self.truth.values().cloned().collect();
                if let Some(asked) = self.asked.get_mut(i) {
                    asked.answer.get_or_insert(Refresh {
                        containers,
                        removed: Vec::new(),
                    });
                }
            }
            Step::RefreshArrives(i) => {
                if self
                    .asked
                    .get(i)
                    .is_some_and(|asked| asked.answer.is_some())
                {
                    let asked = self.asked.remove(i);
                    let answer = asked.answer.unwrap();
                    self.cache.handle_refresh(&answer, asked.at, self.now());
                }
            }
            Step::ChangesAreRead => self.read_changes(),
            Step::ChangesArrive => {
                let now = self.now();
                for change in self.changes.take().iter().flatten() {
                    self.cache.handle_change(change, now);
                }
            }
            Step::Forget(n) => self.forget(uuid(n)),
        }
    }

    fn finish(&mut self, uuid: ContainerUuid, arrives: bool) {
        let Some(applied) = self.calls.remove(&uuid) else {
            return;
        };
        // Where nothing tells the order but the time, a lost write counts, too.
        if let Some(record) = applied.as_ref().filter(|_| arrives || !self.numbered) {
            self.written.insert(uuid, record.lock_count);
            self.left.remove(&uuid);
            if let Some(entry) = self.cache.get(uuid).filter(|_| !arrives) {
                self.left.insert(uuid, entry.container.lock_count);
            }
        }
        let now = self.now();
        self.cache
            .finish_call(uuid, applied.filter(|_| arrives), now);
        assert!(
            self.cache
                .get(uuid)
                .is_none_or(|entry| !entry.call_in_flight)
        );
    }

    fn read_changes(&mut self) {
        if self.numbered && self.changes.is_none() {
            let newer = self.truth.values().filter(|c| c.lock_count > self.told);
            let changes = newer.map(|c| Change::Updated(Box::new(c.clone())));
            self.changes = Some(changes.collect());
            self.told = self.version;
        }
    }

    fn forget(&mut self, uuid: ContainerUuid) {
        let before = self.cache.get(uuid);
        self.cache.forget(uuid);
        let dropped = before.is_some() && self.cache.get(uuid).is_none();
        let droppable = before.is_some_and(|entry| {
            let container = &entry.container;
            let idle = container.state == ContainerState::Queued && container.priority < 1;
            !entry.call_in_flight && (container.state.is_final() || idle)
        });
        assert_eq!(dropped, droppable);
    }

    fn check(&mut self) {
        self.cache.check_invariants().unwrap();
        for entry in self.cache.iter() {
            let uuid = entry.container.uuid;
            let version = entry.container.lock_count;
            let written = self.written.get(&uuid).copied().unwrap_or(0);
            assert!(
                version >= written || self.left.get(&uuid) == Some(&version),
                "{uuid} went back behind an own write"
            );
            let seen = self.seen.entry(uuid).or_insert(0);
            assert!(entry.container.revision >= *seen, "a revision decreased");
            *seen = entry.container.revision;
            assert!(entry.as_of <= self.now());
            let in_flight = self.calls.contains_key(&uuid);
            assert_eq!(entry.call_in_flight, in_flight);
        }
    }

    fn drain(&mut self) {
        let mut polled = Vec::new();
        while let Some(delta) = self.cache.poll_delta() {
            match delta {
                Delta::Upsert(entry) => {
                    let uuid = entry.container.uuid;
                    let before = self.mirror.insert(uuid, entry.clone());
                    assert!(before.is_none_or(|before| before.as_of <= entry.as_of));
                    polled.push(uuid);
                }
                Delta::Remove(uuid) => {
                    self.mirror.remove(&uuid);
                    polled.push(uuid);
                }
            }
        }
        let count = polled.len();
        polled.dedup();
        assert_eq!(count, polled.len(), "more than one delta for a container");
        let entries: Vec<_> = self.cache.iter().collect();
        let mirrored: Vec<_> = self.mirror.values().cloned().collect();
        assert_eq!(entries, mirrored);
    }

    /// Everything settles: the cache then has the truth.
    fn settle(&mut self) {
        for n in 0..CONTAINERS {
            self.finish(uuid(n), false);
        }
        self.now += 1;
        let refresh = Refresh {
            containers: self.truth.values().cloned().collect(),
            removed: Vec::new(),
        };
        let asked_at = self.now();
        self.now += 1;
        self.cache.handle_refresh(&refresh, asked_at, self.now());
        self.check();
        self.drain();
        for (uuid, record) in &self.truth {
            if let Some(entry) = self.cache.get(*uuid) {
                assert_eq!(entry.container, *record);
                assert_eq!(entry.as_of, asked_at);
            } else {
                panic!("{uuid} is missing");
            }
        }
    }
}

fn play(numbered: bool, steps: &[(Step, bool)]) {
    let mut world = World::new(numbered);
    for (step, drained) in steps {
        world.step(step);
        world.check();
        if *drained {
            world.drain();
        }
    }
    world.drain();
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn own_writes_stand_and_deltas_suffice_with_revisions(
        steps in prop::collection::vec((any_step(), any::<bool>()), 0..80),
    ) {
        play(true, &steps);
    }

    #[test]
    fn own_writes_stand_and_deltas_suffice_without_revisions(
        steps in prop::collection::vec((any_step(), any::<bool>()), 0..80),
    ) {
        play(false, &steps);
    }
}
