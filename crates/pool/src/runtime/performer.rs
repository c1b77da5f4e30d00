//! Performing many effects at a time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use longshore_types::InstanceId;
use tokio::task::{Id, JoinError, JoinSet};

use super::isolated::panic_text;
use super::shell::Shell;
use crate::effect::{Effect, EffectAction, EffectId, Outcome};

/// How many transfers of output from one instance run at a time: a slow one must not hold up what
/// has ended elsewhere, nor its own starts and reports.
const COLLECTS_PER_INSTANCE: usize = 2;

/// Performs effects. [`Shell`] does; something else may stand in for it, as in [`Performer`]'s
/// example.
///
/// No example: see [`Performer`].
#[async_trait]
pub trait Perform: Send + Sync + 'static {
    /// Does what an effect says and gives its outcome, within [`Effect::timeout`].
    async fn perform(&self, effect: &Effect) -> Outcome;
}

#[async_trait]
impl Perform for Shell {
    async fn perform(&self, effect: &Effect) -> Outcome {
        Self::perform(self, effect).await
    }
}

/// Runs effects as tasks, so many of each kind at a time, and gives back exactly one outcome for
/// each, whatever happens to its task.
///
/// ```
/// use std::sync::Arc;
/// use longshore_pool::runtime::{Perform, Performer};
/// use longshore_pool::{Config, Core, Effect, Outcome};
/// use longshore_types::Instant;
///
/// struct Empty;
/// #[async_trait::async_trait]
/// impl Perform for Empty {
///     async fn perform(&self, _: &Effect) -> Outcome { Outcome::Listed(Ok(vec![])) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut core = Core::new(Config::new("set", vec![]), [0; 32], Instant::ZERO);
/// let mut performer = Performer::new(Arc::new(Empty));
/// performer.spawn(core.poll_effect().unwrap());
/// assert_eq!((performer.len(), performer.effects().count()), (1, 1));
/// let (id, outcome) = performer.next().await.unwrap();
/// core.handle_outcome(id, outcome, Instant::ZERO);
/// assert!(core.is_listed() && performer.is_empty());
/// assert!(performer.try_next().is_none());
/// performer.abort();
/// # }
/// ```
pub struct Performer {
    shell: Arc<dyn Perform>,
    tasks: JoinSet<Outcome>,
    running: BTreeMap<Id, Effect>,
    counts: [usize; Kind::COUNT],
    waiting: [VecDeque<Effect>; Kind::COUNT],
    /// How many transfers are under way from each instance.
    collecting: BTreeMap<InstanceId, usize>,
    aborted: VecDeque<(EffectId, Outcome)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Create,
    List,
    Destroy,
    Tags,
    Boot,
    Deploy,
    Collect,
    Console,
    /// Reports, starts, kills: the core bounds them, and they must never wait for each other.
    Unbounded,
}

impl Kind {
    const COUNT: usize = 9;

    fn of(action: &EffectAction) -> Self {
        match action {
            EffectAction::Create(_) => Self::Create,
            EffectAction::List(_) => Self::List,
            EffectAction::Destroy(_) => Self::Destroy,
            EffectAction::SetTags(..) => Self::Tags,
            EffectAction::Boot(_) => Self::Boot,
            EffectAction::Deploy(..) => Self::Deploy,
            EffectAction::Collect { .. } => Self::Collect,
            EffectAction::Console(..) => Self::Console,
            EffectAction::Report(..)
            | EffectAction::Start { .. }
            | EffectAction::Kill { .. }
            | EffectAction::Disconnect(_) => Self::Unbounded,
        }
    }

    /// How many may run at a time.
    fn limit(self) -> usize {
        match self {
            Self::List => 2,
            Self::Console => 4,
            Self::Deploy => 64,
            Self::Destroy | Self::Tags | Self::Collect => 32,
            Self::Boot => 512,
            Self::Create | Self::Unbounded => usize::MAX,
        }
    }
}

impl Performer {
    /// A performer with nothing to do.
    pub fn new(shell: Arc<dyn Perform>) -> Self {
        Self {
            shell,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            counts: [0; Kind::COUNT],
            waiting: std::array::from_fn(|_| VecDeque::new()),
            collecting: BTreeMap::new(),
            aborted: VecDeque::new(),
        }
    }

    /// Begins an effect, or has it wait for others of its kind. Must be called in a tokio runtime.
    pub fn spawn(&mut self, effect: Effect) {
        let kind = Kind::of(&effect.action);
        if !self.may_begin(&effect) {
            self.waiting[kind as usize].push_back(effect);
            return;
        }
        self.counts[kind as usize] += 1;
        if let EffectAction::Collect { host, .. } = &effect.action {
            *self.collecting.entry(host.instance.clone()).or_default() += 1;
        }
        let shell = self.shell.clone();
        let task = effect.clone();
        let handle = self.tasks.spawn(async move { shell.perform(&task).await });
        self.running.insert(handle.id(), effect);
    }

    fn may_begin(&self, effect: &Effect) -> bool {
        let kind = Kind::of(&effect.action);
        let from_there = match &effect.action {
            EffectAction::Collect { host, .. } => self.collecting.get(&host.instance),
            _ => None,
        };
        let free = from_there.is_none_or(|count| *count < COLLECTS_PER_INSTANCE);
        free && self.counts[kind as usize] < kind.limit()
    }

    /// An effect has ended: another one of its kind begins.
    fn make_room(&mut self, ended: &Effect) {
        let kind = Kind::of(&ended.action) as usize;
        self.counts[kind] -= 1;
        if let EffectAction::Collect { host, .. } = &ended.action
            && let Some(count) = self.collecting.get_mut(&host.instance)
        {
            *count -= 1;
            if *count == 0 {
                self.collecting.remove(&host.instance);
            }
        }
        let mut waiting = self.waiting[kind].iter();
        if let Some(next) = waiting.position(|effect| self.may_begin(effect))
            && let Some(next) = self.waiting[kind].remove(next)
        {
            self.spawn(next);
        }
    }

    /// The next outcome; none if nothing is under way. Safe to drop at any await.
    pub async fn next(&mut self) -> Option<(EffectId, Outcome)> {
        if let Some(outcome) = self.aborted.pop_front() {
            return Some(outcome);
        }
        loop {
            let ended = self.tasks.join_next_with_id().await?;
            if let Some(outcome) = self.outcome_of(ended) {
                return Some(outcome);
            }
        }
    }

    /// The next outcome if there is one already.
    pub fn try_next(&mut self) -> Option<(EffectId, Outcome)> {
        if let Some(outcome) = self.aborted.pop_front() {
            return Some(outcome);
        }
        loop {
            let ended = self.tasks.try_join_next_with_id()?;
            if let Some(outcome) = self.outcome_of(ended) {
                return Some(outcome);
            }
        }
    }

    /// The outcome of the effect whose task has ended.
    fn outcome_of(
        &mut self,
        ended: Result<(Id, Outcome), JoinError>,
    ) -> Option<(EffectId, Outcome)> {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Ok(outcome)),
            Err(error) => (error.id(), Err(error)),
        };
        let effect = self.running.remove(&id)?;
        self.make_room(&effect);
        let outcome = outcome.unwrap_or_else(|error| {
            let why = match error.try_into_panic() {
                Ok(panic) => format!("it panicked: {}", panic_text(&*panic)),
                Err(_) => "it was abandoned".into(),
            };
            tracing::error!(effect = %effect.id, kind = effect.action.kind(), why, "no outcome");
            effect.action.lost(&why)
        });
        Some((effect.id, outcome))
    }

    /// How many effects are under way or wait.
    pub fn len(&self) -> usize {
        let waiting = self.waiting.iter().map(VecDeque::len).sum::<usize>();
        self.running.len() + waiting + self.aborted.len()
    }

    /// The effects that are under way or wait.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.running.values().chain(self.waiting.iter().flatten())
    }

    /// Whether a create is under way or waits.
    pub(super) fn is_creating(&self) -> bool {
        self.counts[Kind::Create as usize] > 0 || !self.waiting[Kind::Create as usize].is_empty()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Abandons everything; [`Performer::next`] still gives an outcome for each.
    pub fn abort(&mut self) {
        for waiting in &mut self.waiting {
            for effect in waiting.drain(..) {
                let lost = effect.action.lost("it was abandoned before it began");
                self.aborted.push_back((effect.id, lost));
            }
        }
        self.tasks.abort_all();
    }
}

impl fmt::Debug for Performer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Performer")
            .field("running", &self.running.len())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
