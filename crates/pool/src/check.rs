//! What must always hold.

use std::collections::BTreeSet;

use longshore_types::WorkerState;

use crate::books::Books;
use crate::core::{Core, FlightAction, MAX_CONDEMNED};
use crate::worker::{Stage, Worker};

macro_rules! require {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

impl Core {
    /// Walks the whole state and says what contradicts itself. For tests; it is slow.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_counts()?;
        self.check_places()?;
        for (id, worker) in &self.workers {
            check_worker(worker).map_err(|error| format!("worker {id}: {error}"))?;
        }
        Ok(())
    }

    /// How much is kept of each kind. What has ended leaves nothing, but what is called
    /// `remembered`, which is bounded.
    ///
    /// ```
    /// # use longshore_pool::{Config, Core};
    /// # use longshore_types::Instant;
    /// let core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
    /// assert!(core.sizes().contains(&("held containers", 0)));
    /// ```
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let sum = |of: fn(&Worker) -> usize| self.workers.values().map(of).sum();
        vec![
            ("pool workers", self.workers.len()),
            ("held containers", sum(|worker| worker.held.len())),
            ("claims of workers", sum(|worker| worker.claims.len())),
            ("removed containers", sum(|worker| worker.removed.len())),
            ("late starts", sum(|worker| worker.late.len())),
            ("promises of workers", sum(|worker| worker.promises.len())),
            ("failed starts", sum(|worker| worker.duds.count())),
            ("places", self.places.len()),
            ("claimants", self.claimants.len()),
            ("recorded places", self.records.len()),
            ("creates of the pool", self.pendings.len()),
            ("effects in flight", self.in_flight.len()),
            ("timers", self.timers.iter().count()),
            ("changes", self.changes.len()),
            ("remembered condemned instances", self.condemned.len()),
        ]
    }

    fn check_counts(&self) -> Result<(), String> {
        require!(
            self.timers.is_consistent(),
            "the timers contradict each other"
        );
        let (mut creates, mut probes) = (BTreeSet::new(), 0);
        for (id, flight) in &self.in_flight {
            match &flight.action {
                FlightAction::Create(..) => {
                    creates.insert(*id);
                }
                FlightAction::OnWorker(_, _, flight) => {
                    probes += usize::from(flight.takes_turn() == Some(false));
                }
                _ => {}
            }
        }
        require!(
            creates == self.creates_in_flight,
            "creates: {creates:?} are under way"
        );
        require!(
            probes == self.turns.in_flight,
            "probes: {probes} are under way"
        );
        let mut books = Books::default();
        for worker in self.workers.values() {
            books.add(worker);
        }
        for pending in self.pendings.values() {
            let name = &pending.request.instance_type.name;
            books.change(name, |count| count.pending += 1);
        }
        require!(
            books == self.books,
            "counted: {:?}, not {books:?}",
            self.books
        );
        for id in self.failing.iter().chain(&self.answering) {
            let says = self.workers.get(id).is_some_and(Worker::says_something);
            require!(says, "{id} says nothing, and is listened to");
        }
        require!(
            self.failing.is_disjoint(&self.answering),
            "a worker fails and answers"
        );
        require!(self.records.are_consistent(), "recorded places");
        let limit = self.config.max_probes_in_flight.max(1);
        require!(probes <= limit, "{probes} probes are under way");
        let limit = self.config.max_creates_in_flight;
        require!(
            limit == 0 || creates.len() <= limit,
            "{creates:?} creates are under way"
        );
        require!(
            self.pendings.len() == self.pending_secrets.len(),
            "secrets of pendings"
        );
        require!(
            self.condemned.len() <= MAX_CONDEMNED,
            "too many condemned ids"
        );
        require!(
            self.condemned.len() == self.condemned_order.len(),
            "condemned ids"
        );
        Ok(())
    }

    fn check_places(&self) -> Result<(), String> {
        let held = self
            .workers
            .values()
            .map(|worker| worker.held.len())
            .sum::<usize>();
        let placed = self.places.values().map(BTreeSet::len).sum::<usize>();
        require!(
            held == placed,
            "{held} entries are held and {placed} are indexed"
        );
        let open = self.workers.values().flat_map(|w| w.claims.values());
        let open = open.filter(|claimed| claimed.may_be_so()).count();
        let indexed = self.claimants.values().map(BTreeSet::len);
        let indexed = indexed.sum::<usize>();
        require!(
            open == indexed,
            "{open} claims are open and {indexed} are indexed"
        );
        for (uuid, ids) in &self.places {
            let running = ids
                .iter()
                .filter_map(|id| self.workers.get(id)?.held.get(uuid))
                .filter(|held| held.may_run())
                .count();
            require!(
                running <= 1,
                "container {uuid} may run on {running} workers"
            );
        }
        Ok(())
    }
}

fn check_worker(worker: &Worker) -> Result<(), String> {
    let runs = worker.may_run_something();
    match worker.state {
        WorkerState::Idle => require!(!runs, "it is idle and something runs"),
        WorkerState::Running => require!(runs, "it is running and nothing runs"),
        WorkerState::Booting => require!(
            worker.held.values().all(|h| h.granted.is_none()),
            "started while booting"
        ),
        WorkerState::Unknown | WorkerState::Shutdown => {}
    }
    let found = worker.held.values().any(|held| held.found);
    require!(
        found || worker.granted().fits_in(&worker.capacity),
        "more is granted than it has"
    );
    require!(
        worker.removed.is_empty() || worker.probe.is_some() || worker.short.is_some(),
        "old entries are kept"
    );
    for (uuid, held) in &worker.held {
        require!(
            worker.claims.get(uuid).is_none_or(|c| !c.may_be_so()),
            "{uuid} is held, and only claimed"
        );
        match &held.stage {
            Stage::Starting(_) => require!(held.document.is_some(), "{uuid} has no document"),
            Stage::Ended(_) => require!(!held.given_up, "{uuid} has ended and is given up"),
            Stage::Known | Stage::Running => {}
        }
    }
    Ok(())
}
