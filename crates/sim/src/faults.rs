//! What can go wrong, and how often it does.

use std::collections::BTreeMap;
use std::fmt;

/// One thing that can go wrong.
///
/// ```
/// use longshore_sim::FaultKind;
/// assert_eq!(FaultKind::MachineLost.to_string(), "machine lost");
/// assert!(FaultKind::ALL.contains(&FaultKind::Crash));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// A command to a machine never arrives.
    CommandLost,
    /// A command runs, its answer is lost.
    AnswerLost,
    /// A command takes up to two minutes to arrive.
    CommandLate,
    /// A start stands still before it takes its lock, for up to ten minutes.
    DiskStall,
    /// A machine answers slowly for a while.
    Slow,
    /// A machine accepts commands and carries them out only later.
    Hung,
    /// A machine cannot be reached for a while.
    Unreachable,
    /// A machine can never be reached again; what runs there goes on.
    CutOff,
    /// A machine carries commands out and never answers, for a while.
    HalfOpen,
    /// The runner is not on a machine any more.
    RunnerMissing,
    /// A supervisor dies.
    SupervisorDies,
    /// A machine starts anew: its processes are gone, its files are not.
    Reboot,
    /// A machine is gone from one moment to the next.
    MachineLost,
    /// From now on no container can be started on a machine.
    BlackHole,
    /// From now on a machine claims to run containers that were never placed there.
    Liar,
    /// From now on a machine claims to have results of containers that were never placed there.
    FalseResults,
    /// From now on a machine's reports are too long.
    Flood,
    /// A machine gets another address.
    AddressChange,
    /// A create, listing, destroy or change of tags is lost.
    CloudCallLost,
    /// A call to the provider is carried out, its reply is lost.
    CloudReplyLost,
    /// A call to the provider fails; some are carried out all the same.
    CloudError,
    /// The provider refuses calls for a while: too many.
    CloudStorm,
    /// The provider has no capacity for a type for a while.
    NoCapacity,
    /// A listing misses some instances and does not say so.
    ShortListing,
    /// A listing shows what was true minutes ago.
    StaleListing,
    /// An instance never boots.
    NeverBoots,
    /// A request to the controller is lost.
    QueueCallLost,
    /// The controller does what it was asked to, its reply is lost.
    QueueReplyLost,
    /// Changes that the controller tells of are lost on their way.
    NewsLost,
    /// The controller takes seconds to answer, or its answer to arrive.
    QueueSlow,
    /// The controller refuses everything for a while: too much to do.
    QueueStorm,
    /// The controller does not answer for a while.
    QueueOutage,
    /// Somebody cancels a container.
    Cancel,
    /// Somebody holds a container back, and later wants it after all.
    HoldBack,
    /// Somebody deletes a container's record.
    Delete,
    /// Somebody changes a container's priority.
    Reprioritize,
    /// Another installation's dispatcher locks a container, at a controller that serves several.
    OtherLocks,
    /// Another installation's dispatcher runs a container for up to five hours, at a controller that
    /// serves several, and may lose it.
    OtherRuns,
    /// The lock service ends the session of the dispatcher that acts, where there are several.
    LockLost,
    /// The dispatcher dies after an effect or an outcome, and is started again.
    Crash,
    /// The dispatcher dies several times in a row, seconds apart.
    CrashLoop,
    /// The dispatcher is away for ten minutes to five hours.
    Away,
    /// The dispatcher's machine sleeps for minutes.
    Sleep,
    /// The dispatcher's loop is busy for up to a second; what comes meanwhile is heard all at once.
    Stall,
    /// A supervisor dies, and something holds its lock: its process that goes on, or something that
    /// ends much later, or never.
    StaleLock,
    /// A machine's clock is hours off, and jumps.
    ClockOff,
    /// The dispatcher's wall clock jumps, ahead or back, by hours.
    ClockJump,
    /// For a while, instances that are destroyed go on stopping for many minutes.
    Lingering,
    /// An instance will come back, running, some time after it was gone.
    Reappears,
    /// The provider accepts a destroy, and does nothing.
    DestroyIgnored,
    /// The provider takes a preemptible instance away, with or without notice.
    Interrupted,
    /// Somebody changes a tag of an instance of the dispatcher's.
    TagsChanged,
    /// An instance loses its tags, or their values become rubbish.
    TagsLost,
    /// A listing shows an instance twice.
    RepeatedIds,
    /// Listings fail in the middle.
    BrokenPages,
    /// A create makes an instance and answers without its id.
    CreateIdMissing,
    /// The provider denies every call for a while.
    Denied,
    /// The provider allows fewer instances for a while than there are.
    QuotaLowered,
    /// For a while, instances take nearly as long to boot as they may.
    SlowBoot,
    /// The boot probe of a machine fails for minutes, and works later.
    BootProbeFails,
    /// The runner cannot be put on a machine for minutes.
    DiskFull,
    /// The dispatcher's own network is down for 10 s to 20 min.
    OwnNetwork,
    /// A process takes no notice of TERM.
    Unkillable,
    /// A process goes on for up to two minutes after TERM.
    SlowToEnd,
    /// A process ends by itself just as a signal arrives.
    EndsAtKill,
    /// Somebody holds a container back and wants it after all, at once, and again.
    Wavers,
    /// A report is cut, or rubbish is in it.
    GarbledReport,
    /// A report is delivered long after it was made.
    OldReport,
    /// The answer to a start or a kill is delivered long after it was made.
    OldAnswer,
    /// A start is refused while an earlier one of the same attempt stands still.
    StartRefused,
    /// A start waits behind an earlier one of the same attempt that stands still, and goes on right
    /// after it.
    StartWaits,
    /// A machine cannot give an output that it has.
    OutputRefused,
    /// An operator puts an instance on hold for a while, drains it, or has it destroyed.
    Operator,
    /// An operator stops the dispatcher, or has it wind down, and starts it anew soon after.
    Stopped,
}

/// What no dispatcher can survive, and what is therefore in no ready-made set of rates: an
/// instance without its tags cannot be told from those of others, and a dispatcher that starts
/// anew cannot find it.
const NOT_SURVIVABLE: [FaultKind; 1] = [FaultKind::TagsLost];

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 74] = [
        Self::CommandLost,
        Self::AnswerLost,
        Self::CommandLate,
        Self::DiskStall,
        Self::Slow,
        Self::Hung,
        Self::Unreachable,
        Self::CutOff,
        Self::HalfOpen,
        Self::RunnerMissing,
        Self::SupervisorDies,
        Self::Reboot,
        Self::MachineLost,
        Self::BlackHole,
        Self::Liar,
        Self::FalseResults,
        Self::Flood,
        Self::AddressChange,
        Self::CloudCallLost,
        Self::CloudReplyLost,
        Self::CloudError,
        Self::CloudStorm,
        Self::NoCapacity,
        Self::ShortListing,
        Self::StaleListing,
        Self::NeverBoots,
        Self::QueueCallLost,
        Self::QueueReplyLost,
        Self::QueueSlow,
        Self::QueueStorm,
        Self::QueueOutage,
        Self::Cancel,
        Self::HoldBack,
        Self::Delete,
        Self::Crash,
        Self::CrashLoop,
        Self::Sleep,
        Self::Stall,
        Self::Reprioritize,
        Self::OtherLocks,
        Self::LockLost,
        Self::StaleLock,
        Self::ClockOff,
        Self::ClockJump,
        Self::Lingering,
        Self::Reappears,
        Self::DestroyIgnored,
        Self::Interrupted,
        Self::TagsChanged,
        Self::TagsLost,
        Self::RepeatedIds,
        Self::BrokenPages,
        Self::CreateIdMissing,
        Self::Denied,
        Self::QuotaLowered,
        Self::SlowBoot,
        Self::BootProbeFails,
        Self::DiskFull,
        Self::OwnNetwork,
        Self::Unkillable,
        Self::SlowToEnd,
        Self::EndsAtKill,
        Self::Wavers,
        Self::GarbledReport,
        Self::OldReport,
        Self::StartRefused,
        Self::Away,
        Self::OldAnswer,
        Self::NewsLost,
        Self::StartWaits,
        Self::OutputRefused,
        Self::Operator,
        Self::Stopped,
        Self::OtherRuns,
    ];

    /// Whether it happens to calls, effects or instances that are made, so many in a million; the
    /// others happen by the clock, so many in a thousand hours.
    pub fn is_per_million(self) -> bool {
        matches!(
            self,
            Self::CommandLost
                | Self::AnswerLost
                | Self::CommandLate
                | Self::DiskStall
                | Self::CloudCallLost
                | Self::CloudReplyLost
                | Self::CloudError
                | Self::NeverBoots
                | Self::QueueCallLost
                | Self::QueueReplyLost
                | Self::NewsLost
                | Self::QueueSlow
                | Self::Crash
                | Self::DestroyIgnored
                | Self::CreateIdMissing
                | Self::DiskFull
                | Self::Unkillable
                | Self::SlowToEnd
                | Self::EndsAtKill
                | Self::GarbledReport
                | Self::OldReport
                | Self::OldAnswer
                | Self::StartRefused
                | Self::StartWaits
                | Self::OutputRefused
        )
    }

    fn name(self) -> &'static str {
        match self {
            Self::CommandLost => "command lost",
            Self::AnswerLost => "answer lost",
            Self::CommandLate => "command late",
            Self::DiskStall => "disk stall",
            Self::Slow => "slow",
            Self::Hung => "hung",
            Self::Unreachable => "unreachable",
            Self::CutOff => "cut off",
            Self::HalfOpen => "half open",
            Self::RunnerMissing => "runner missing",
            Self::SupervisorDies => "supervisor dies",
            Self::Reboot => "reboot",
            Self::MachineLost => "machine lost",
            Self::BlackHole => "black hole",
            Self::Liar => "liar",
            Self::FalseResults => "false results",
            Self::Flood => "flood",
            Self::AddressChange => "address change",
            Self::CloudCallLost => "cloud call lost",
            Self::CloudReplyLost => "cloud reply lost",
            Self::CloudError => "cloud error",
            Self::CloudStorm => "cloud storm",
            Self::NoCapacity => "no capacity",
            Self::ShortListing => "short listing",
            Self::StaleListing => "stale listing",
            Self::NeverBoots => "never boots",
            Self::QueueCallLost => "queue call lost",
            Self::QueueReplyLost => "queue reply lost",
            Self::NewsLost => "news lost",
            Self::QueueSlow => "queue slow",
            Self::QueueStorm => "queue storm",
            Self::QueueOutage => "queue outage",
            Self::Cancel => "cancel",
            Self::HoldBack => "hold back",
            Self::Delete => "delete",
            Self::Crash => "crash",
            Self::CrashLoop => "crash loop",
            Self::Away => "away",
            Self::Sleep => "sleep",
            Self::Stall => "stall",
            Self::Reprioritize => "reprioritize",
            Self::OtherLocks => "other locks",
            Self::OtherRuns => "other runs",
            Self::LockLost => "lock lost",
            Self::StaleLock => "stale lock",
            Self::ClockOff => "clock off",
            Self::ClockJump => "clock jump",
            Self::Lingering => "lingering",
            Self::Reappears => "reappears",
            Self::DestroyIgnored => "destroy ignored",
            Self::Interrupted => "interrupted",
            Self::TagsChanged => "tags changed",
            Self::TagsLost => "tags lost",
            Self::RepeatedIds => "repeated ids",
            Self::BrokenPages => "broken pages",
            Self::CreateIdMissing => "create id missing",
            Self::Denied => "denied",
            Self::QuotaLowered => "quota lowered",
            Self::SlowBoot => "slow boot",
            Self::BootProbeFails => "boot probe fails",
            Self::DiskFull => "disk full",
            Self::OwnNetwork => "own network",
            Self::Unkillable => "unkillable",
            Self::SlowToEnd => "slow to end",
            Self::EndsAtKill => "ends at kill",
            Self::Wavers => "wavers",
            Self::GarbledReport => "garbled report",
            Self::OldReport => "old report",
            Self::OldAnswer => "old answer",
            Self::StartRefused => "start refused",
            Self::StartWaits => "start waits",
            Self::OutputRefused => "output refused",
            Self::Operator => "operator",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How often each fault happens.
///
/// ```
/// use longshore_sim::{FaultKind, Faults};
/// let mut faults = Faults::wild();
/// assert!(faults.rate(FaultKind::Crash) > Faults::mild().rate(FaultKind::Crash));
/// faults.set(FaultKind::Crash, 0);
/// assert!(!faults.kinds().any(|kind| kind == FaultKind::Crash));
/// assert_eq!(Faults::none().kinds().count(), 0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<FaultKind, u32>);

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// A day at a decent provider, in an ordinary network: each kind now and then.
    pub fn mild() -> Self {
        let rate = |kind: FaultKind| match kind {
            kind if NOT_SURVIVABLE.contains(&kind) => 0,
            FaultKind::Crash => 20,
            FaultKind::NeverBoots => 5_000,
            kind if kind.is_per_million() => 500,
            FaultKind::CrashLoop | FaultKind::Delete => 50,
            FaultKind::Away => 10,
            _ => 300,
        };
        Self::of(rate)
    }

    /// A day on which everything goes wrong.
    pub fn wild() -> Self {
        let rate = |kind: FaultKind| match kind {
            kind if NOT_SURVIVABLE.contains(&kind) => 0,
            FaultKind::Crash => 1_000,
            FaultKind::DiskStall => 30_000,
            FaultKind::NeverBoots | FaultKind::DestroyIgnored | FaultKind::DiskFull => 50_000,
            FaultKind::EndsAtKill => 100_000,
            FaultKind::OldReport | FaultKind::OldAnswer => 30_000,
            FaultKind::BootProbeFails | FaultKind::HalfOpen => 12_000,
            FaultKind::StartRefused => 500_000,
            FaultKind::StartWaits | FaultKind::OutputRefused => 300_000,
            kind if kind.is_per_million() => 10_000,
            FaultKind::Cancel | FaultKind::HoldBack | FaultKind::Reprioritize => 8_000,
            FaultKind::OtherLocks => 20_000,
            FaultKind::CrashLoop | FaultKind::Delete | FaultKind::Sleep => 1_000,
            FaultKind::Away => 200,
            FaultKind::Stall => 100_000,
            FaultKind::QueueOutage | FaultKind::CloudStorm | FaultKind::OwnNetwork => 2_000,
            _ => 4_000,
        };
        Self::of(rate)
    }

    fn of(rate: impl Fn(FaultKind) -> u32) -> Self {
        let rates = FaultKind::ALL.into_iter().map(|kind| (kind, rate(kind)));
        Self(rates.filter(|(_, rate)| *rate > 0).collect())
    }

    /// How often a kind happens: in a million calls, or in a thousand hours, as
    /// [`FaultKind::is_per_million`] says. 0 is never.
    pub fn rate(&self, kind: FaultKind) -> u32 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// Changes how often a kind happens; 0 is never.
    pub fn set(&mut self, kind: FaultKind, rate: u32) {
        if rate == 0 {
            self.0.remove(&kind);
        } else {
            self.0.insert(kind, rate);
        }
    }

    /// The kinds that happen.
    pub fn kinds(&self) -> impl Iterator<Item = FaultKind> {
        self.0.keys().copied()
    }

    /// Whether nothing goes wrong.
    ///
    /// ```
    /// # use longshore_sim::Faults;
    /// assert!(Faults::none().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
