//! Where an installation has its instances, and how it reaches them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use longshore_cloud::{Driver as _, InstanceSet, TagKeys, Tags};
use longshore_dispatch::runtime::Observer;
use longshore_driver_loopback::{LoopbackDriver, implicit_type};
use longshore_pool::runtime::Isolated;
use longshore_throttle::{Metrics, Stack};
use longshore_types::InstanceType;

use crate::state::StateDirectory;

/// The instance set of an embedded installation; its directory tells installations apart.
const INSTANCE_SET_ID: &str = "embedded";

/// The instances of one provider, and the settings that are its own.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Makes, lists and destroys them.
    pub(crate) instance_set: Arc<dyn InstanceSet>,
    /// Which calls the driver was given.
    pub(crate) driver_metrics: Metrics,
    /// How they are used: types, limits, times.
    pub pool: longshore_pool::Config,
    /// How they are reached.
    pub ssh: longshore_ssh::Settings,
    /// Whether their runners are spoken to over a watch stream.
    pub watch_streams: bool,
    /// Who is told of everything that is decided about them; nobody unless it is set.
    pub observer: Option<Observer>,
    /// Absolute path of the directory on them that the runner is put into.
    pub(crate) runner_directory: String,
}

impl Provider {
    /// A driver, with what keeps it from harming others, and others from being harmed by it.
    pub fn new(
        driver: Box<dyn InstanceSet>,
        types: Vec<InstanceType>,
        runner_directory: String,
    ) -> Self {
        let driver_metrics = Metrics::new();
        let stack = Stack::new(driver)
            .instrument(driver_metrics.clone())
            .hold_off()
            .filter(ours())
            .build();
        let instance_set: Arc<dyn InstanceSet> = Arc::new(Isolated::new(stack));
        let group = |t: &InstanceType| Some((t.name.clone(), instance_set.quota_group(t)?));
        let quota_groups = types.iter().filter_map(group).collect();
        let mut pool = longshore_pool::Config::new(INSTANCE_SET_ID, types);
        pool.tag_keys = tag_keys();
        pool.capabilities = instance_set.capabilities();
        pool.quota_groups = quota_groups;
        Self {
            driver_metrics,
            instance_set,
            pool,
            ssh: longshore_ssh::Settings::default(),
            watch_streams: true,
            observer: None,
            runner_directory,
        }
    }

    /// This machine, as one instance.
    pub async fn loopback(state: &StateDirectory) -> anyhow::Result<Self> {
        let parameters =
            serde_json::json!({ "directory": utf8(&state.loopback())?, "instances": 1 });
        let opened = LoopbackDriver.open(&parameters).await;
        let driver = opened.context("the loopback driver cannot be opened")?;
        Ok(Self::new(
            driver,
            vec![this_machine()?],
            utf8(&state.runner())?,
        ))
    }
}

/// What containers may use of this machine.
pub fn this_machine() -> anyhow::Result<InstanceType> {
    implicit_type(&std::env::temp_dir()).context("cannot measure this machine")
}

/// Whether a type stands for the machine that a service runs on.
pub(crate) fn is_this_machine(instance_type: &InstanceType) -> bool {
    instance_type.name.as_str() == longshore_driver_loopback::TYPE_NAME
}

/// The tags of every instance of ours.
pub(crate) fn ours() -> Tags {
    Tags::from([(tag_keys().set_id, INSTANCE_SET_ID.to_owned())])
}

pub(crate) fn tag_keys() -> TagKeys {
    TagKeys::new("Longshore")
}

fn utf8(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str();
    text.map(str::to_owned).with_context(|| {
        format!(
            "the path {} is not UTF-8; choose another with --state-dir DIR",
            path.display()
        )
    })
}
