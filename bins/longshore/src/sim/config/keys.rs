//! The keys of a configuration, by where they stand: those that a simulation uses, and those that
//! are right in a configuration but change nothing in a simulation.

/// Keys at one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    /// For messages.
    pub(super) place: &'static str,
    pub(super) used: &'static [&'static str],
    pub(super) ignored: &'static [&'static str],
}

pub(super) const ROOT: Keys = Keys {
    place: "a configuration",
    used: &["InstanceTypes", "Containers", "Simulation", "Clusters"],
    ignored: &[
        "ManagementToken",
        "SystemRootToken",
        "PostgreSQL",
        "Services",
        "TLS",
        "API",
        "SystemLogs",
        "Volumes",
        "Collections",
    ],
};

pub(super) const INSTANCE_TYPE: Keys = Keys {
    place: "an instance type",
    used: &[
        "VCPUs",
        "RAM",
        "IncludedScratch",
        "AddedScratch",
        "Price",
        "Preemptible",
        "GPU",
    ],
    ignored: &["ProviderType"],
};

pub(super) const CONTAINERS: Keys = Keys {
    place: "\"Containers\"",
    used: &[
        "MaximumPriceFactor",
        "ReserveExtraRAM",
        "LocalKeepBlobBuffersPerVCPU",
        "Packing",
        "CloudVMs",
    ],
    ignored: &[
        "StaleLockTimeout",
        "DispatchPrivateKey",
        "CrunchRunCommand",
        "CrunchRunArgumentsList",
        "RuntimeEngine",
        "LocalKeepLogsToContainerLog",
        "PreemptiblePriceFactor",
        "MaxDispatchAttempts",
        "MaxRetryAttempts",
        "MinRetryPeriod",
    ],
};

pub(super) const CLOUD_VMS: Keys = Keys {
    place: "\"CloudVMs\"",
    used: &[
        "MaxInstances",
        "MaxConcurrentInstanceCreateOps",
        "MaxProbesPerSecond",
        "SupervisorFraction",
        "ReserveAfter",
        "PollInterval",
        "SyncInterval",
        "ProbeInterval",
        "TimeoutIdle",
        "TimeoutBooting",
        "TimeoutProbe",
        "TimeoutShutdown",
        "TimeoutSignal",
        "TimeoutTERM",
        "TimeoutStaleRunLock",
    ],
    ignored: &[
        "Enable",
        "SSHPort",
        "BootProbeCommand",
        "MaxCloudOpsPerSecond",
        "MaxRunningContainersPerInstance",
        "InitialQuotaEstimate",
        "ImageID",
        "InstanceInitCommand",
        "DeployRunnerBinary",
        "DeployRunnerDirectory",
        "DeployPublicKey",
        "ResourceTags",
        "TagKeyPrefix",
        "Driver",
        "DriverParameters",
    ],
};

pub(super) const SIMULATION: Keys = Keys {
    place: "\"Simulation\"",
    used: &["BootTime", "Quota", "ControllerPushes"],
    ignored: &[],
};

pub(super) const BOOT_TIME: Keys = Keys {
    place: "\"BootTime\"",
    used: &["Min", "Max", "Median"],
    ignored: &[],
};

pub(super) const QUOTA: Keys = Keys {
    place: "\"Quota\"",
    used: &["Instances", "VCPUs"],
    ignored: &[],
};
