//! What happened, in order: for people, and as a digest by which two runs are compared.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};

use longshore_dispatch::Notice;
use longshore_types::{Attempt, ContainerState, ContainerUuid, ExitCause, InstanceId, Instant};

use crate::FaultKind;
use crate::how::How;

/// The most lines that are remembered.
const LINES_MAX: usize = 60_000;
/// The longest line in the story of a violation, in characters.
const LINE_MAX: usize = 300;

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    /// The dispatcher asks for something.
    Effect {
        life: u32,
        id: u64,
        kind: &'static str,
        about: About,
    },
    /// The dispatcher hears what came of it.
    Outcome {
        life: u32,
        id: u64,
        kind: &'static str,
        how: How,
        about: About,
    },
    ProcessStarted(About),
    ProcessEnded(About, ExitCause),
    Record {
        uuid: ContainerUuid,
        attempt: Attempt,
        from: Option<ContainerState>,
        to: ContainerState,
        placed_on: Option<InstanceId>,
    },
    /// Something goes wrong.
    Fault(FaultKind, About),
    /// The dispatcher begins a life.
    Life(u32),
    /// An instance appears, boots or goes.
    Instance(InstanceId, &'static str),
    /// The faults end.
    Quiet,
    /// The dispatcher says something.
    Notice(Box<Notice>),
}

/// What something is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct About {
    pub(crate) instance: Option<InstanceId>,
    pub(crate) container: Option<(ContainerUuid, Attempt)>,
}

impl About {
    pub(crate) fn instance(id: &InstanceId) -> Self {
        Self {
            instance: Some(id.clone()),
            container: None,
        }
    }

    pub(crate) fn container(uuid: ContainerUuid, attempt: Attempt) -> Self {
        Self {
            instance: None,
            container: Some((uuid, attempt)),
        }
    }

    pub(crate) fn on(id: &InstanceId, uuid: ContainerUuid, attempt: Attempt) -> Self {
        Self {
            instance: Some(id.clone()),
            container: Some((uuid, attempt)),
        }
    }
}

/// The last happenings, and the digest of all.
#[derive(Debug)]
pub(crate) struct Story {
    lines: VecDeque<(Instant, Happening)>,
    digest: Digest,
    pub(crate) count: u64,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            digest: Digest(0xcbf2_9ce4_8422_2325),
            count: 0,
        }
    }

    pub(crate) fn tell(&mut self, now: Instant, happening: Happening) {
        now.hash(&mut self.digest);
        happening.hash_into(&mut self.digest);
        self.count += 1;
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back((now, happening));
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest.0
    }

    /// The last `most` lines that touch any of these words; reports that say nothing new are left
    /// out.
    pub(crate) fn about(&self, words: &[String], most: usize) -> Vec<String> {
        let mut told: VecDeque<String> = VecDeque::new();
        let mut reports: BTreeMap<Option<&InstanceId>, &How> = BTreeMap::new();
        for (at, happening) in &self.lines {
            match happening {
                Happening::Effect { kind: "report", .. } => continue,
                Happening::Outcome {
                    kind: "report",
                    how,
                    about,
                    ..
                } if reports.insert(about.instance.as_ref(), how) == Some(how) => continue,
                _ => {}
            }
            let text = line(*at, happening);
            let touches = words.iter().any(|word| text.contains(word.as_str()));
            if !touches && !text.contains("----") {
                continue;
            }
            if told.len() == most {
                told.pop_front();
            }
            told.push_back(text.chars().take(LINE_MAX).collect());
        }
        told.into()
    }

    /// What happened since so many things had, as far as it is remembered.
    pub(crate) fn since(&self, count: u64) -> impl Iterator<Item = String> {
        let new = usize::try_from(self.count.saturating_sub(count)).unwrap_or(usize::MAX);
        let skipped = self.lines.len().saturating_sub(new);
        let lines = self.lines.iter().skip(skipped);
        lines.map(|(at, happening)| line(*at, happening))
    }
}

fn line(at: Instant, happening: &Happening) -> String {
    let seconds = at.since(Instant::ZERO).as_secs_f64();
    format!("{seconds:>11.3}  {happening}")
}

impl Happening {
    fn hash_into(&self, state: &mut Digest) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Effect {
                life,
                id,
                kind,
                about,
            } => (life, id, kind, about).hash(state),
            Self::Outcome { life, id, how, .. } => (life, id, how).hash(state),
            Self::ProcessStarted(about) => about.hash(state),
            Self::ProcessEnded(about, cause) => {
                (about, std::mem::discriminant(cause)).hash(state);
            }
            Self::Record {
                uuid, attempt, to, ..
            } => (uuid, attempt, to).hash(state),
            Self::Fault(kind, about) => (kind, about).hash(state),
            Self::Life(life) => life.hash(state),
            Self::Instance(id, what) => (id, what).hash(state),
            Self::Quiet | Self::Notice(_) => {}
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Effect {
                life,
                id,
                kind,
                about,
            } => write!(f, "dispatcher {life} asks #{id}: {kind}{about}"),
            Self::Outcome {
                life,
                id,
                kind,
                how,
                about,
            } => write!(f, "dispatcher {life} hears #{id}: {kind}{about}: {how}"),
            Self::ProcessStarted(about) => write!(f, "PROCESS STARTS{about}"),
            Self::ProcessEnded(about, cause) => write!(f, "PROCESS ENDS{about}: {cause}"),
            Self::Record {
                uuid,
                attempt,
                from,
                to,
                placed_on,
            } => {
                write!(f, "record of {uuid} attempt {attempt}: ")?;
                if let Some(from) = from {
                    write!(f, "{from} -> ")?;
                }
                write!(f, "{to}")?;
                match placed_on {
                    Some(instance) => write!(f, ", placed on {instance}"),
                    None => Ok(()),
                }
            }
            Self::Fault(kind, about) => write!(f, "FAULT {kind}{about}"),
            Self::Life(life) => write!(f, "---- dispatcher {life} begins"),
            Self::Instance(id, what) => write!(f, "instance {id} {what}"),
            Self::Quiet => f.write_str("---- the faults end"),
            Self::Notice(notice) => write!(f, "dispatcher says {notice:?}"),
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((uuid, attempt)) = &self.container {
            write!(f, " {uuid} attempt {attempt}")?;
        }
        match &self.instance {
            Some(instance) => write!(f, " on {instance}"),
            None => Ok(()),
        }
    }
}

/// A hash that is the same in every process, unlike the standard library's, and that takes eight
/// bytes at a time.
#[derive(Clone, Copy, Debug)]
struct Digest(u64);

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let product = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 = product ^ (product >> 32);
        }
    }
}
