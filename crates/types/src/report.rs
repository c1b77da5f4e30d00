//! What a runner reports about the containers of its machine.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Attempt, ByteSize, ContainerUuid, Cut, Timestamp, Written};

/// Why a container's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause", from = "AnyCause")]
#[expect(
    clippy::exhaustive_enums,
    reason = "each cause has its consequence for the container; a new one must not compile unnoticed"
)]
pub enum ExitCause {
    /// It exited by itself with this code.
    Exited {
        /// The exit code, 0 to 255.
        code: i32,
    },
    /// A signal that nobody asked us to send ended it.
    Signaled {
        /// The number of the signal.
        signal: i32,
    },
    /// The kernel ended one of its processes, or all of them, because its memory was used up.
    OutOfMemory {
        /// What it had.
        limit: ByteSize,
    },
    /// What it is to run is not there, or cannot be executed; nothing ran, and nothing would
    /// elsewhere.
    CannotRun {
        /// The exit code that a shell gives for that: 127 or 126.
        code: i32,
        /// What went wrong, one line.
        error: String,
    },
    /// It ran longer than its time limit and was ended.
    TimeLimit,
    /// A kill was asked for, and it was ended.
    Killed,
    /// It could not be started at all; nothing ran.
    NotStarted {
        /// What went wrong, one line.
        error: String,
    },
    /// Its supervisor died without recording how it ended; nothing of it is left. What is read of a
    /// cause that only newer versions know is this, too: it ended, and how is not known.
    SupervisorLost,
    /// The machine it ran on is gone.
    InstanceLost,
}

/// What may be read for an [`ExitCause`]: those, and what newer versions write.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
enum AnyCause {
    Exited {
        code: i32,
    },
    Signaled {
        signal: i32,
    },
    OutOfMemory {
        limit: ByteSize,
    },
    CannotRun {
        code: i32,
        error: String,
    },
    TimeLimit,
    Killed,
    NotStarted {
        error: String,
    },
    SupervisorLost,
    InstanceLost,
    #[serde(other)]
    Newer,
}

impl From<AnyCause> for ExitCause {
    fn from(cause: AnyCause) -> Self {
        match cause {
            AnyCause::Exited { code } => Self::Exited { code },
            AnyCause::Signaled { signal } => Self::Signaled { signal },
            AnyCause::OutOfMemory { limit } => Self::OutOfMemory { limit },
            AnyCause::CannotRun { code, error } => Self::CannotRun { code, error },
            AnyCause::TimeLimit => Self::TimeLimit,
            AnyCause::Killed => Self::Killed,
            AnyCause::NotStarted { error } => Self::NotStarted { error },
            AnyCause::SupervisorLost | AnyCause::Newer => Self::SupervisorLost,
            AnyCause::InstanceLost => Self::InstanceLost,
        }
    }
}

impl ExitCause {
    /// Whether the infrastructure is to blame, or may be, so that another attempt is worthwhile.
    pub fn is_infrastructure(&self) -> bool {
        matches!(
            self,
            Self::NotStarted { .. } | Self::SupervisorLost | Self::InstanceLost
        )
    }

    /// Whether the container did what it was asked to, successfully.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exit code {code}"),
            Self::Signaled { signal } => write!(f, "ended by signal {signal}"),
            Self::OutOfMemory { limit } => write!(f, "out of memory (it had {limit})"),
            Self::CannotRun { code, error } => write!(f, "exit code {code}: {error}"),
            Self::TimeLimit => f.write_str("time limit reached"),
            Self::Killed => f.write_str("killed on request"),
            Self::NotStarted { error } => write!(f, "could not be started: {error}"),
            Self::SupervisorLost => f.write_str("its supervisor was lost"),
            Self::InstanceLost => f.write_str("its instance was lost"),
        }
    }
}

/// How and when a container's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Why.
    #[serde(flatten)]
    pub cause: ExitCause,
    /// When its process was started, on the clock of its machine; none if it never was.
    pub started_at: Option<Timestamp>,
    /// When it ended, on the clock of its machine; none if nobody saw it.
    pub finished_at: Option<Timestamp>,
    /// Bytes that it wrote to standard output, those that were left out included.
    pub stdout_bytes: u64,
    /// Bytes that it wrote to standard error, those that were left out included.
    pub stderr_bytes: u64,
    /// What was left out of its standard output, which grew beyond its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_cut: Option<Cut>,
    /// What was left out of its standard error, which grew beyond its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_cut: Option<Cut>,
    /// By what means its limits were enforced; none if it never ran, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<AppliedLimits>,
    /// Whether its standard output could not be kept; a runner never says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdout_lost: bool,
    /// Whether its standard error could not be kept; a runner never says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stderr_lost: bool,
}

impl Exit {
    /// Whether its machine, or the runner there, failed before its process was started, as far as
    /// is known: it is for another machine to try.
    ///
    /// ```
    /// use longshore_types::{Exit, ExitCause, Timestamp};
    /// let mut exit = Exit::unseen(ExitCause::SupervisorLost);
    /// assert!(exit.failed_to_begin());
    /// exit.started_at = Some(Timestamp(1));
    /// assert!(!exit.failed_to_begin());
    /// ```
    pub fn failed_to_begin(&self) -> bool {
        let on_machine = matches!(
            self.cause,
            ExitCause::NotStarted { .. } | ExitCause::SupervisorLost
        );
        on_machine && self.started_at.is_none()
    }

    /// An end of which nothing but the cause is known.
    pub fn unseen(cause: ExitCause) -> Self {
        Self {
            cause,
            started_at: None,
            finished_at: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_cut: None,
            stderr_cut: None,
            limits: None,
            stdout_lost: false,
            stderr_lost: false,
        }
    }

    /// How much it wrote to standard output, and what of it is there.
    ///
    /// ```
    /// use longshore_types::{Exit, ExitCause};
    /// let exit = Exit { stdout_bytes: 5, ..Exit::unseen(ExitCause::Killed) };
    /// assert_eq!((exit.stdout().kept(), exit.stderr().kept()), (5, 0));
    /// ```
    pub fn stdout(&self) -> Written {
        Written {
            bytes: self.stdout_bytes,
            cut: self.stdout_cut,
        }
    }

    /// How much it wrote to standard error, and what of it is there; as [`Exit::stdout`].
    pub fn stderr(&self) -> Written {
        Written {
            bytes: self.stderr_bytes,
            cut: self.stderr_cut,
        }
    }

    /// Which of its output could not be kept, in words; none if nothing is missing.
    ///
    /// ```
    /// use longshore_types::{Exit, ExitCause};
    /// let mut exit = Exit::unseen(ExitCause::Exited { code: 0 });
    /// assert_eq!(exit.lost_output(), None);
    /// exit.stderr_lost = true;
    /// assert_eq!(exit.lost_output(), Some("stderr"));
    /// ```
    pub fn lost_output(&self) -> Option<&'static str> {
        match (self.stdout_lost, self.stderr_lost) {
            (false, false) => None,
            (true, false) => Some("stdout"),
            (false, true) => Some("stderr"),
            (true, true) => Some("stdout and stderr"),
        }
    }
}

/// By what means a limit was enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Means {
    /// A control group of version 2, for all processes of the container together.
    CgroupV2,
    /// A control group of version 1, for all processes of the container together.
    CgroupV1,
    /// A limit of each process (RAM), or of each user (processes): less than what was asked for.
    Rlimit,
    /// The container engine, which was told the limit.
    Engine,
    /// By nothing: the machine offers no way to whoever runs the runner.
    Nothing,
    /// In a way that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Means {
    /// Whether the limit holds for all that the container runs, taken together.
    ///
    /// ```
    /// use longshore_types::Means;
    /// assert!(Means::CgroupV1.is_whole() && !Means::Rlimit.is_whole());
    /// ```
    pub fn is_whole(self) -> bool {
        matches!(self, Self::CgroupV2 | Self::CgroupV1 | Self::Engine)
    }
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV2 => "cgroup v2",
            Self::CgroupV1 => "cgroup v1",
            Self::Rlimit => "rlimit",
            Self::Engine => "container engine",
            Self::Nothing => "nothing",
            Self::Unknown => "unknown means",
        })
    }
}

/// By what means the limits of a container were enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedLimits {
    /// That of RAM, which includes swap.
    pub ram: Means,
    /// That of processor time.
    pub vcpus: Means,
    /// That of the number of processes and threads.
    pub processes: Means,
}

impl AppliedLimits {
    /// All by the same means.
    pub fn all(means: Means) -> Self {
        Self {
            ram: means,
            vcpus: means,
            processes: means,
        }
    }

    /// Whether each holds for all that the container runs, taken together.
    pub fn are_whole(&self) -> bool {
        self.ram.is_whole() && self.vcpus.is_whole() && self.processes.is_whole()
    }
}

impl fmt::Display for AppliedLimits {
    /// One line: by which means each is enforced.
    ///
    /// ```
    /// use longshore_types::{AppliedLimits, Means};
    /// let mut limits = AppliedLimits::all(Means::CgroupV2);
    /// assert_eq!(limits.to_string(), "cgroup v2");
    /// limits.vcpus = Means::Nothing;
    /// assert_eq!(limits.to_string(), "RAM by cgroup v2, vCPUs by nothing, processes by cgroup v2");
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ram,
            vcpus,
            processes,
        } = self;
        if ram == vcpus && ram == processes {
            return ram.fmt(f);
        }
        write!(
            f,
            "RAM by {ram}, vCPUs by {vcpus}, processes by {processes}"
        )
    }
}

/// How far a container has come, as its runner says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[expect(
    clippy::exhaustive_enums,
    reason = "the report grammar; a new state must not compile unnoticed"
)]
pub enum ReportedState {
    /// Its supervisor holds its lock.
    Running {
        /// When its process was started, on the clock of its machine; none if it is not yet.
        started_at: Option<Timestamp>,
    },
    /// Its supervisor is gone but something holds its lock, or an engine has its container: it may
    /// still run.
    Stale,
    /// It ended, and the runner keeps the result until that is acknowledged.
    Finished(Exit),
}

/// One container in a runner's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Which.
    pub uuid: ContainerUuid,
    /// Which attempt; 0 where the runner does not number them.
    pub attempt: Attempt,
    /// How far it has come.
    #[serde(flatten)]
    pub state: ReportedState,
}

/// Everything that a runner knows about the containers of its machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunnerReport {
    /// Every container that has a process, a lock, or a result that was not acknowledged.
    pub containers: Vec<ContainerReport>,
    /// Why the machine should get no more work, if the runner says that it is broken.
    pub broken: Option<String>,
    /// A digest of the above; equal digests mean equal reports. Empty where the runner gives none.
    pub digest: String,
}
