//! Settings of a pool.

use std::collections::BTreeMap;
use std::time::Duration;

use longshore_cloud::{AddressKind, Capabilities, TagKeys, Tags};
use longshore_types::{InstanceType, Price, TypeName};

/// Settings of a pool. Every duration is at least a millisecond unless said otherwise; see
/// [`Config::validate`].
///
/// ```
/// use std::time::Duration;
/// use longshore_cloud::CreateRequest;
/// use longshore_pool::Config;
///
/// let mut config = Config::new("my-service", vec![CreateRequest::example().instance_type]);
/// config.max_instances = 4;
/// config.timeout_idle = Duration::from_secs(300);
/// config.validate()?;
/// # Ok::<(), longshore_pool::InvalidSettings>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The types that may be created, by name unique. No default: they are given to
    /// [`Config::new`].
    pub types: Vec<InstanceType>,
    /// The quota group of each type that has one, as
    /// [`InstanceSet::quota_group`](longshore_cloud::InstanceSet::quota_group) says. Default:
    /// none.
    pub quota_groups: BTreeMap<TypeName, String>,
    /// The names of our tags. Default: those of [`TagKeys::new`] with the prefix `Arvados`, but
    /// `Longshore` in a pool made by `runtime::PoolBuilder`. A pool finds instances only under
    /// the names that they were created with.
    pub tag_keys: TagKeys,
    /// Which installation this is: the value of the set-ID tag. No default: it is given to
    /// [`Config::new`].
    pub instance_set_id: String,
    /// Tags of every instance beside ours. Default: none.
    pub resource_tags: Tags,
    /// The provider's name of the image. Default: empty.
    pub image: String,
    /// Shell commands that an instance runs when it first boots. Default: none.
    ///
    /// They are the last part of a script, [`CreateRequest::init_script`], that begins with
    /// `#!/bin/sh` and the writing of the secret to [`Config::secret_path`]. As a rule the image
    /// runs it as root (cloud-init does).
    ///
    /// [`CreateRequest::init_script`]: longshore_cloud::CreateRequest::init_script
    pub init_command: String,
    /// The public key that may log in, in OpenSSH's one-line form. Default: none; the image has
    /// to have one then.
    pub public_key: Option<String>,
    /// Which address of an instance is used to reach it. Default: the private one.
    pub address_kind: AddressKind,
    /// Absolute path of the file on an instance that holds its secret, by which a host proves to
    /// be the instance where the provider does not know its key. Default:
    /// `/var/run/arvados-instance-secret`.
    ///
    /// The script that an instance runs when it first boots writes the file, readable by its
    /// owner only, before [`Config::init_command`] runs; the directory must be there, and the
    /// user of the script (root, as a rule) may write to it. Empty: no secret is written there,
    /// and none is asked for; a host whose key nobody knows is then refused.
    pub secret_path: String,
    /// The user to log in as where the driver names none. Default: `root`.
    pub remote_user: String,
    /// The port of addresses that name none, 1 to 65,535. Default: 22.
    pub ssh_port: u16,
    /// What the instance set can do. Default: nothing beyond what each can.
    pub capabilities: Capabilities,
    /// Whether the provider can tell what an instance printed on its console
    /// ([`Extensions::console_output`](longshore_cloud::Extensions)). Then one that does not boot
    /// is kept up to ten seconds longer, to be asked for the end of that, which goes into the
    /// error. Default: false.
    pub console_output: bool,
    /// The most instances, pending creates included; 0 means no limit. Default: 64.
    pub max_instances: usize,
    /// The most that all instances may cost in an hour, pending creates included, by the prices of
    /// their types; none means no ceiling. Instances whose type is not configured any more cost an
    /// unknown amount, which is left out. Default: none.
    pub max_price_per_hour: Option<Price>,
    /// The most creates under way; 0 means no limit. Default: 20.
    pub max_creates_in_flight: usize,
    /// The most probes under way, at least 1. A report that waits for a change is not one; there
    /// is at most one of these for each worker. Default: 1000.
    pub max_probes_in_flight: usize,
    /// The most probes that begin in a second, all workers together; 0 means no cap. With one,
    /// each worker is probed every `workers / cap` seconds if that is longer than
    /// `probe_interval`, and an end is noticed so much later: an alarm says so. Default: 0.
    pub max_probes_per_second: u32,
    /// Whether the output of containers that ended is brought home. Default: true.
    pub collect_output: bool,
    /// Whether somebody knows where containers were placed and says which claims are so: a worker
    /// of an earlier process that has a container which was not placed there by this one is then
    /// told as [`Event::Claimed`](crate::Event::Claimed), and nothing is believed before
    /// [`Core::answer_claim`](crate::Core::answer_claim). Else it is believed unless another
    /// worker may run the container. Default: false.
    pub asks_about_claims: bool,
    /// How long the runner may wait for a change before it answers a report; zero means that it
    /// answers at once and that reports are asked for every `probe_interval`. At most 60 s, and
    /// taken as a tenth of `timeout_probe` where that is shorter. A change is told at once whatever
    /// this is; a machine that falls silent meanwhile is noticed so much later. Default: 60 s.
    pub report_wait: Duration,
    /// From one probe of a worker to the next. Default: 10 s.
    pub probe_interval: Duration,
    /// From one listing to the next. Default: 60 s.
    pub sync_interval: Duration,
    /// A worker without containers is shut down after this. Default: 60 s.
    pub timeout_idle: Duration,
    /// An instance that does not answer is shut down after this, from its launch. Default: 600 s.
    pub timeout_booting: Duration,
    /// A worker that stopped answering is shut down after this, and at least three failed probes.
    /// Where several do at once, a tenth of all workers (one at least) in each tenth of this time.
    /// Default: 600 s.
    pub timeout_probe: Duration,
    /// The longest that the silence of all workers, of two at least, is taken for a fault of our
    /// own. Default: 3600 s.
    ///
    /// Such time does not count as silence of theirs, so that they are all given up after twice
    /// `timeout_probe` more. While only most of them are silent and others answer, it is
    /// `timeout_probe`, if that is shorter. Faults that follow each other within `timeout_probe`
    /// are one. While instances cannot be listed nobody is given up, however long that takes:
    /// nothing could be destroyed.
    pub timeout_outage: Duration,
    /// The dead-man switch: an instance powers itself off once no dispatcher has sent it a command
    /// for so long and nothing runs there; zero means never. Only where the provider rents
    /// machines ([`Capabilities::rented`]); see [`Config::guard`] for what else it keeps on.
    /// Default: 3600 s.
    pub timeout_unattended: Duration,
    /// A destroy is repeated after this while the instance is still listed. Default: 10 s.
    pub timeout_shutdown: Duration,
    /// From one TERM to the next. Default: 5 s.
    pub timeout_signal: Duration,
    /// A kill is given up after this: see [`Core::kill`](crate::Core::kill). Default: 120 s.
    pub timeout_term: Duration,
    /// A worker with a stale lock drains after this. Default: 5 s.
    pub timeout_stale: Duration,
    /// Two listings that miss an instance must be this far apart to prove that it is gone, from
    /// the answer of the first to the beginning of the second; taken as zero where listings are
    /// consistent and instances have their tags at birth: a listing shows nothing of ours that
    /// has no tags yet. Default: 60 s.
    pub consistency_grace: Duration,
    /// A create whose outcome is unknown is looked for in listings for this long. Default: 120 s.
    pub create_grace: Duration,
    /// The longest that one call to the provider may take. Default: 120 s.
    pub cloud_call_timeout: Duration,
    /// The longest that one short command on an instance may take. Default: 30 s.
    pub command_timeout: Duration,
    /// The longest that copying the runner, or bringing a little output home, may take. Output has a
    /// second more for each 64 KiB of it that the instance keeps, up to six hours. Default: 300 s.
    pub transfer_timeout: Duration,
}

/// A report waits for at most so much of the time after which a silent worker is given up.
const WAIT_PART: u32 = 10;

impl Config {
    /// The defaults that each field documents, for an installation and its types.
    ///
    /// The names of tags begin with `Arvados` here, as in Arvados' dispatcher; a pool made by
    /// `runtime::Pool::builder` has `Longshore` there. The two do not see each other's instances
    /// unless [`Config::tag_keys`] is made the same.
    pub fn new(instance_set_id: impl Into<String>, types: Vec<InstanceType>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            types,
            quota_groups: BTreeMap::new(),
            tag_keys: TagKeys::new("Arvados"),
            instance_set_id: instance_set_id.into(),
            resource_tags: Tags::new(),
            image: String::new(),
            init_command: String::new(),
            public_key: None,
            address_kind: AddressKind::default(),
            secret_path: "/var/run/arvados-instance-secret".into(),
            remote_user: "root".into(),
            ssh_port: 22,
            capabilities: Capabilities::default(),
            console_output: false,
            max_instances: 64,
            max_price_per_hour: None,
            max_creates_in_flight: 20,
            max_probes_in_flight: 1000,
            max_probes_per_second: 0,
            collect_output: true,
            asks_about_claims: false,
            report_wait: seconds(60),
            probe_interval: seconds(10),
            sync_interval: seconds(60),
            timeout_idle: seconds(60),
            timeout_booting: seconds(600),
            timeout_probe: seconds(600),
            timeout_outage: seconds(3600),
            timeout_unattended: seconds(3600),
            timeout_shutdown: seconds(10),
            timeout_signal: seconds(5),
            timeout_term: seconds(120),
            timeout_stale: seconds(5),
            consistency_grace: seconds(60),
            create_grace: seconds(120),
            cloud_call_timeout: seconds(120),
            command_timeout: seconds(30),
            transfer_timeout: seconds(300),
        }
    }

    /// How long a report waits for a change.
    pub(crate) fn wait_for_change(&self) -> Duration {
        self.report_wait.min(self.timeout_probe / WAIT_PART)
    }
}
