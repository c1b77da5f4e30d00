//! What an instance set answers about itself, and about host keys.

use std::sync::Arc;

use longshore_cloud::{Capabilities, CloudError, Instance, Operation};
use longshore_types::{HostKey, HostKeyVerdict, InstanceId, InstanceType};
use tokio::time::Instant;

use crate::lab::{Lab, Step, Stop};

pub(crate) async fn display(lab: Arc<Lab>) -> Step<()> {
    let text = lab.ask("Display", |set| set.to_string()).await?;
    let debug = lab.ask("Debug", |set| format!("{set:?}")).await?;
    let did = "printed the instance set with {} and with {:?}";
    let fix = "print the driver's name and where it works, such as Ec2(us-east-1); a layer \
               prints its name around what it wraps, such as Rate(5/s, Ec2(us-east-1))";
    let wrong = |saw: &str| Err(lab.broken(did, saw, fix));
    if text.trim().is_empty() || debug.trim().is_empty() {
        return wrong("nothing is printed");
    }
    if text.lines().count() > 1 || text.trim() != text {
        return wrong(&format!(
            "{text:?} is not one line without blanks around it"
        ));
    }
    if let Some(name) = lab.subject.name.as_ref().filter(|n| !text.contains(*n)) {
        return wrong(&format!("{text:?} does not contain {name:?}"));
    }
    if let Some(inner) = &lab.subject.inner {
        let inner = inner.to_string();
        if !text.contains(&inner) {
            return wrong(&format!(
                "{text:?} does not contain what it wraps, {inner:?}"
            ));
        }
    }
    Ok(())
}

type Constant = (Capabilities, Option<String>, Option<String>);

pub(crate) async fn constant(lab: Arc<Lab>) -> Step<()> {
    let own = lab.subject.request.instance_type.clone();
    let mut other = own.clone();
    other.name = "longshore-conformance-other".into();
    let first = ask_all(&lab, &own, &other).await?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(("asked again", ask_all(&lab, &own, &other).await?));
    }
    let made = lab.create(&lab.request()).await?;
    seen.push(("after a create", ask_all(&lab, &own, &other).await?));
    lab.list(&lab.tags).await?;
    seen.push(("after a listing", ask_all(&lab, &own, &other).await?));
    lab.destroy_one(&made.id).await?;
    seen.push(("after a destroy", ask_all(&lab, &own, &other).await?));
    let fix = "decide when the instance set is opened what it can do, and derive the quota group \
               from the type alone";
    for (when, later) in seen {
        if later != first {
            let did = format!("asked for capabilities and quota_group, then {when}");
            let saw = format!("the first answer was {first:?}, then it was {later:?}");
            return Err(lab.broken(&did, &saw, fix));
        }
    }
    Ok(())
}

async fn ask_all(lab: &Lab, own: &InstanceType, other: &InstanceType) -> Step<Constant> {
    let (own, other) = (own.clone(), other.clone());
    lab.ask("capabilities and quota_group", move |set| {
        (
            set.capabilities(),
            set.quota_group(&own),
            set.quota_group(&other),
        )
    })
    .await
}

const JUDGE: &str = "compare algorithm and bytes of the key with those that the provider has published for this \
     instance; say Match only when both are the same, and Unsupported as long as it is not known";

pub(crate) async fn host_keys(lab: Arc<Lab>) -> Step<()> {
    if !lab.capabilities().await?.host_keys {
        return Err(Stop::NotRun("host_keys is not declared".into()));
    }
    let Some(wrong) = lab.subject.wrong_key.clone() else {
        return Err(Stop::NotRun(
            "host_keys is declared, but the suite was given no keys (Subject::with_host_keys)"
                .into(),
        ));
    };
    let made = lab.create(&lab.request()).await?;
    let (instance, own) = await_match(&lab, &made, &wrong).await?;
    let id = &instance.id;
    let mut almost = own.clone();
    almost.algorithm.push_str("-cert");
    let mut longer = own.clone();
    longer.blob.push(0);
    for (name, key) in [
        ("a key that no instance has", &wrong),
        ("its own bytes under another algorithm", &almost),
        ("its own key and one more byte", &longer),
    ] {
        let did = format!("verified {name} for {id}, whose own key is a Match");
        match verify(&lab, id, key).await? {
            Ok(HostKeyVerdict::Mismatch) => {}
            Ok(other) => {
                let saw = format!("the verdict is {other:?}, not Mismatch");
                return Err(lab.broken(&did, &saw, JUDGE));
            }
            Err(error) => return Err(lab.refused(&did, &error)),
        }
    }
    let unknown = lab.unknown_id(0);
    match verify(&lab, &unknown, &own).await? {
        Ok(HostKeyVerdict::Match) => {
            let did = format!("verified the key of {id} for {unknown}, which no instance has");
            Err(lab.broken(&did, "the verdict is Match", JUDGE))
        }
        _ => Ok(()),
    }
}

/// Waits until the instance's own key is a match; meanwhile a wrong one must never be.
async fn await_match(lab: &Lab, made: &Instance, wrong: &HostKey) -> Step<(Instance, HostKey)> {
    let until = Instant::now() + lab.subject.timing.boot;
    let id = &made.id;
    let mut last = "its own key could not be found out (Subject::with_host_keys)".to_owned();
    loop {
        let late = Instant::now() >= until;
        let did = format!("verified a key that no instance has for {id}");
        if let Ok(HostKeyVerdict::Match) = verify(lab, id, wrong).await? {
            return Err(lab.broken(&did, "the verdict is Match", JUDGE));
        }
        let mut listing = lab.list(&lab.tags).await?;
        let instance = listing.remove(id).unwrap_or_else(|| made.clone());
        let own = lab.subject.true_key(instance.clone()).await;
        if let Some(own) = own {
            let did = format!("verified {own}, the key of {id}");
            last = match verify(lab, id, &own).await? {
                Ok(HostKeyVerdict::Match) => return Ok((instance, own)),
                Ok(HostKeyVerdict::Unsupported) => "the verdict is Unsupported".into(),
                Ok(HostKeyVerdict::Mismatch) => {
                    return Err(lab.broken(&did, "the verdict is Mismatch", JUDGE));
                }
                Err(error) => format!("it failed: {}", error.chain()),
            };
        }
        if late {
            let did = format!("created {id} and verified its own key until it had to be booted");
            return Err(lab.broken(&did, &last, JUDGE));
        }
        tokio::time::sleep(lab.subject.timing.poll).await;
    }
}

pub(crate) async fn verify(
    lab: &Lab,
    id: &InstanceId,
    key: &HostKey,
) -> Step<Result<HostKeyVerdict, CloudError>> {
    let timeout = lab.subject.timing.call;
    lab.patiently(|| {
        let (id, key) = (id.clone(), key.clone());
        lab.call(
            Operation::VerifyHostKey,
            timeout,
            move |set, context| async move { set.verify_host_key(&context, &id, &key).await },
        )
    })
    .await
}
