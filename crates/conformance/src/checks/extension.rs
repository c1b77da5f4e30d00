//! What the optional powers promise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{CloudError, ErrorKind, Operation, PricePoint, Tags};
use longshore_types::InstanceId;
use tokio::time::Instant;

use crate::lab::{Lab, Step, Stop};

/// Which powers there are.
async fn powers(lab: &Lab) -> Step<[bool; 3]> {
    lab.ask("extensions", |set| {
        let extensions = set.extensions();
        [
            extensions.price_history.is_some(),
            extensions.console_output.is_some(),
            extensions.interruption_notices.is_some(),
        ]
    })
    .await
}

pub(crate) async fn forwarded(lab: Arc<Lab>) -> Step<()> {
    let Some(inner) = &lab.subject.inner else {
        return Err(Stop::NotRun(
            "it is about layers, and the suite was not told of an instance set inside \
             (Subject::with_inner)"
                .into(),
        ));
    };
    let has = powers(&lab).await?;
    let inner = inner.extensions();
    for (name, inner, outer) in [
        ("price_history", inner.price_history.is_some(), has[0]),
        ("console_output", inner.console_output.is_some(), has[1]),
        (
            "interruption_notices",
            inner.interruption_notices.is_some(),
            has[2],
        ),
    ] {
        if inner != outer {
            let did = "compared the extensions with those of what is wrapped";
            let word = |has| if has { "has it" } else { "has not" };
            let saw = format!(
                "{name}: the instance set inside {}, the layer around it {}",
                word(inner),
                word(outer)
            );
            let fix = "return the extensions of what the layer wraps, or those of the layer \
                       around them";
            return Err(lab.broken(did, &saw, fix));
        }
    }
    Ok(())
}

fn not_there(name: &str) -> Stop {
    Stop::NotRun(format!("the instance set has no extension {name}"))
}

pub(crate) async fn price_history(lab: Arc<Lab>) -> Step<()> {
    if !powers(&lab).await?[0] {
        return Err(not_there("price_history"));
    }
    let made = lab.create(&lab.request()).await?;
    let id = &made.id;
    let did = format!("asked for the prices of {id} during the last day");
    let points = match prices(&lab, id).await? {
        Ok(points) => points,
        Err(error) if error.kind == ErrorKind::Unsupported => {
            let why = format!("price_history says: {}", error.chain());
            return Err(Stop::NotRun(why));
        }
        Err(error) => return Err(lab.refused(&did, &error)),
    };
    match points.windows(2).find(|pair| pair[0].start > pair[1].start) {
        None => Ok(()),
        Some(pair) => {
            let saw = format!(
                "a price from {} comes before one from {}",
                pair[0].start, pair[1].start
            );
            let fix = "sort the prices by the moment from which they hold";
            Err(lab.broken(&did, &saw, fix))
        }
    }
}

async fn prices(lab: &Lab, id: &InstanceId) -> Step<Result<Vec<PricePoint>, CloudError>> {
    let timeout = lab.subject.timing.call;
    let day = Duration::from_secs(86_400);
    lab.patiently(|| {
        let id = id.clone();
        lab.call(Operation::Other, timeout, move |set, context| async move {
            match set.extensions().price_history {
                Some(power) => power.price_history(&context, &id, day).await,
                None => Ok(Vec::new()),
            }
        })
    })
    .await
}

pub(crate) async fn console_output(lab: Arc<Lab>) -> Step<()> {
    if !powers(&lab).await?[1] {
        return Err(not_there("console_output"));
    }
    let made = lab.create(&lab.request()).await?;
    let id = &made.id;
    let fix = "cut the output to its last limit bytes, whatever the provider gives";
    let mut outputs = Vec::new();
    for limit in [65_536, 1, 0, 16, 65_536] {
        let did = format!("asked for the last {limit} bytes of the console of {id}");
        let output = match console(&lab, id, limit).await? {
            Ok(output) => output,
            Err(error) if error.kind == ErrorKind::Unsupported => {
                let why = format!("console_output says: {}", error.chain());
                return Err(Stop::NotRun(why));
            }
            Err(error) => return Err(lab.refused(&did, &error)),
        };
        if output.len() > limit {
            let saw = format!("{} bytes", output.len());
            return Err(lab.broken(&did, &saw, fix));
        }
        outputs.push(output);
    }
    // Only if nothing was printed meanwhile can the short ones be compared with the long one.
    let whole = &outputs[0];
    let same = outputs.last() == Some(whole);
    match outputs.iter().find(|part| !whole.ends_with(part)) {
        Some(part) if same => {
            let did = format!(
                "asked for the last {} bytes of the console of {id}",
                part.len()
            );
            let saw = "they are not the end of the whole output";
            Err(lab.broken(&did, saw, fix))
        }
        _ => Ok(()),
    }
}

async fn console(lab: &Lab, id: &InstanceId, limit: usize) -> Step<Result<Vec<u8>, CloudError>> {
    let timeout = lab.subject.timing.call;
    lab.patiently(|| {
        let id = id.clone();
        lab.call(Operation::Other, timeout, move |set, context| async move {
            match set.extensions().console_output {
                Some(power) => power.console_output(&context, &id, limit).await,
                None => Ok(Vec::new()),
            }
        })
    })
    .await
}

pub(crate) async fn interruptions(lab: Arc<Lab>) -> Step<()> {
    if !powers(&lab).await?[2] {
        return Err(not_there("interruption_notices"));
    }
    let until = Instant::now() + lab.subject.timing.appear;
    let mut foreign: Option<BTreeSet<InstanceId>> = None;
    loop {
        let late = Instant::now() >= until;
        let before = lab.list(&Tags::new()).await?;
        let noticed = notices(&lab).await?;
        let after = lab.list(&Tags::new()).await?;
        let strange = |id: &InstanceId| !before.contains_key(id) && !after.contains_key(id);
        let mut now: BTreeSet<_> = noticed.into_iter().filter(strange).collect();
        // Listings may lag: only what never is listed is not ours.
        if let Some(foreign) = &foreign {
            now.retain(|id| foreign.contains(id));
        }
        let Some(id) = now.first() else {
            return Ok(());
        };
        if late {
            let did = "asked for interruption notices, and listed without tags";
            let saw = format!("there is a notice about {id}, which is not listed");
            let fix = "give notices only about instances that list gives";
            return Err(lab.broken(did, &saw, fix));
        }
        foreign = Some(now);
        tokio::time::sleep(lab.subject.timing.poll).await;
    }
}

async fn notices(lab: &Lab) -> Step<Vec<InstanceId>> {
    let timeout = lab.subject.timing.call;
    let notices = lab
        .patiently(|| {
            lab.call(Operation::Other, timeout, |set, context| async move {
                match set.extensions().interruption_notices {
                    Some(power) => power.interruptions(&context).await,
                    None => Ok(Vec::new()),
                }
            })
        })
        .await?;
    match notices {
        Ok(notices) => Ok(notices.into_iter().map(|notice| notice.id).collect()),
        Err(error) => Err(lab.refused("asked for interruption notices", &error)),
    }
}
