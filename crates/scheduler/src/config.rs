//! Settings and limits of a scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use longshore_types::{ByteSize, InstanceType, TypeName};

/// Where a container is placed if there is more than one place for it, and which type of instance
/// is created for it.
///
/// Whatever it is: ready instances come before booting ones, those before creates under way, those
/// before a new instance. `docs/scheduling.md` compares them by cost and wait.
///
/// ```
/// use longshore_scheduler::{Config, Packing};
/// let mut config = Config::new(vec![]);
/// assert_eq!(config.packing, Packing::Fullest);
/// config.packing = Packing::CheapestShare;
/// assert_eq!(Packing::from_name("best-fit"), Some(Packing::BestFit));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packing {
    /// The instance with the most containers, then the cheapest; new: the cheapest type that fits.
    #[default]
    Fullest,
    /// The instance that has the least left afterwards of what the container takes the largest
    /// share of; new: the cheapest type that fits.
    BestFit,
    /// The instance as with `Fullest`; new: of the types up to the price factor the one that costs
    /// least for each of the equal containers that wait and fit on it together.
    CheapestShare,
}

impl Packing {
    /// The names that configurations use.
    const NAMES: [(&str, Self); 3] = [
        ("fullest", Self::Fullest),
        ("best-fit", Self::BestFit),
        ("cheapest-share", Self::CheapestShare),
    ];

    /// The policy of this name, none if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, packing)| *packing)
    }
}

/// Settings that hold for the life of a scheduler.
///
/// ```
/// use longshore_scheduler::Config;
/// use longshore_types::{ByteSize, InstanceType, Price};
/// let small = InstanceType::new("small", 2, ByteSize::gib(4), Price::default());
/// let mut config = Config::new(vec![small]);
/// config.maximum_price_factor = 2.0;
/// config.reserve_extra_ram = ByteSize::mib(100);
/// assert_eq!(config.max_dispatch_attempts, 10);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The types that instances may be created of, by name unique.
    pub types: Vec<InstanceType>,
    /// Types up to the price of the cheapest one that fits times this are used as well; less
    /// than 1 counts as 1.
    pub maximum_price_factor: f64,
    /// RAM that each container is granted beyond what it asks for, in bytes.
    pub reserve_extra_ram: ByteSize,
    /// Buffers of 64 MiB that each container is granted per vCPU it asks for; 0 for none.
    pub keep_buffers_per_vcpu: u32,
    /// Whether the controller records where an attempt will be started, before it is.
    pub records_placement: bool,
    /// The part of the containers at once that may be supervisors, 0 to 1; one always may.
    pub supervisor_fraction: f64,
    /// No lock is given up for our convenience if its container has used up so many tries
    /// ([`Container::tries`](longshore_types::Container::tries)).
    pub max_dispatch_attempts: u32,
    /// How instances are filled.
    pub packing: Packing,
    /// A container that prefers preemptible machines and has lost this many of them runs on others.
    pub max_interruptions: u32,
    /// How long the first container in line waits without a place before an instance is kept
    /// free for it.
    pub reserve_after: Duration,
    /// The pause after the first failure of an action; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause after a failure.
    pub longest_pause: Duration,
}

impl Config {
    /// The documented defaults, for these types.
    pub fn new(types: Vec<InstanceType>) -> Self {
        Self {
            types,
            maximum_price_factor: 1.5,
            reserve_extra_ram: ByteSize::mib(550),
            keep_buffers_per_vcpu: 1,
            records_placement: false,
            supervisor_fraction: 0.5,
            max_dispatch_attempts: 10,
            packing: Packing::default(),
            max_interruptions: 2,
            reserve_after: Duration::from_secs(300),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
        }
    }
}

/// What limits the scheduler at the moment.
///
/// ```
/// use longshore_scheduler::Limits;
/// let mut limits = Limits::default();
/// limits.max_containers = Some(64);
/// limits.create_blocked.insert("small".into(), "the quota is reached".into());
/// limits.quota_blocked.insert("small".into());
/// assert!(limits.accept_new && !limits.absence_is_evidence);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a limit that a caller leaves out would be overstepped"
)]
pub struct Limits {
    /// Types of which no instance can be created now, each with the reason as one clause.
    pub create_blocked: BTreeMap<TypeName, String>,
    /// Those of them that a quota or the limit on instances blocks, so that giving another
    /// instance back helps.
    pub quota_blocked: BTreeSet<TypeName>,
    /// The most containers that may run at once, none if there is no limit.
    pub max_containers: Option<u32>,
    /// Whether an instance that is not known surely does not exist.
    pub absence_is_evidence: bool,
    /// Whether anything new is begun: locks, starts and creates.
    pub accept_new: bool,
}

impl Default for Limits {
    /// Nothing is blocked, nothing is evidence.
    fn default() -> Self {
        Self {
            create_blocked: BTreeMap::new(),
            quota_blocked: BTreeSet::new(),
            max_containers: None,
            absence_is_evidence: false,
            accept_new: true,
        }
    }
}
