//! Fake clouds, and what the suite has to know of them.

use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{Capabilities, CreateRequest, InstanceSet};
use longshore_conformance::Subject;
use longshore_fakecloud::{CallKind, FakeCloud, Settings};
use longshore_types::{InstanceId, Instant, Price};

use super::memory::nobodys_key;

/// A fake cloud, and how many instances it may have.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) settings: Settings,
    pub(crate) at_once: usize,
    pub(crate) appear: Duration,
}

impl Shape {
    /// With all that there is, and with the times that a cloud takes.
    pub(crate) fn full() -> Self {
        let day = |n: u64| Instant::ZERO + Duration::from_secs(n);
        let price = |units| Price::from_units(units).unwrap();
        let settings = Settings::default()
            .with_provider_type("s1")
            .with_image("image")
            .with_quota_group("s1", "small")
            .with_price("s1", day(0), price(0.02))
            .with_price("s1", day(10), price(0.03));
        Self {
            settings,
            at_once: 4,
            appear: Duration::from_secs(60),
        }
    }

    /// With nothing that a cloud need not have.
    pub(crate) fn bare() -> Self {
        let mut shape = Self::full();
        shape.settings = shape
            .settings
            .with_capabilities(Capabilities::new())
            .without_extension(CallKind::Console)
            .without_extension(CallKind::Prices)
            .without_extension(CallKind::Interruptions);
        shape
    }
}

pub(crate) fn cloud(shape: &Shape) -> FakeCloud {
    FakeCloud::tokio(shape.settings.clone(), 7)
}

pub(crate) fn request() -> CreateRequest {
    let mut request = CreateRequest::example();
    request.instance_type.preemptible = true;
    request.public_key = Some("ssh-ed25519 AAAA test".into());
    request
}

pub(crate) fn subject(cloud: &FakeCloud, shape: &Shape) -> Subject {
    around(cloud, shape, Arc::new).with_name("Fake(")
}

/// A subject that is something around a fake cloud.
pub(crate) fn around<S: InstanceSet + 'static>(
    cloud: &FakeCloud,
    shape: &Shape,
    wrap: impl Fn(FakeCloud) -> Arc<S> + Send + Sync + 'static,
) -> Subject {
    let (again, truth) = (cloud.clone(), cloud.clone());
    let set: Arc<dyn InstanceSet> = wrap(cloud.reopen());
    Subject::new(set, request())
        .with_instances_at_once(shape.at_once)
        .with_appearance(shape.appear)
        .with_reopen(move || {
            let opened: Arc<dyn InstanceSet> = wrap(again.reopen());
            async move { Ok(opened) }
        })
        .with_host_keys(
            move |instance| {
                let key = truth.with(|cloud, _| cloud.host_key(&instance.id));
                async move { key }
            },
            nobodys_key(),
        )
}

/// What still costs money.
pub(crate) fn alive(cloud: &FakeCloud) -> Vec<InstanceId> {
    cloud.with(|cloud, _| {
        let alive = cloud.instances().filter(|i| i.destroyed.is_none());
        alive.map(|instance| instance.id.clone()).collect()
    })
}
