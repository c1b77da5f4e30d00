//! What create promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longshore_cloud::{CreateRequest, Operation, Tags};
use longshore_types::InstanceId;

use crate::clean::tag_list;
use crate::jobs::{self, all, share};
use crate::lab::{Lab, Listing, Step, Stop};

pub(crate) async fn every_create_is_listed(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create_each(&[lab.request(), lab.request()]).await?;
    let ids: Vec<_> = made.into_iter().map(|instance| instance.id).collect();
    let did = format!(
        "created {} and {}, then listed by {}",
        ids[0],
        ids[1],
        tag_list(&lab.tags)
    );
    lab.await_listed(&did, &ids).await.map(drop)
}

/// Looks at everything while the instance comes into being: a listing by tags would never show
/// one without them.
pub(crate) async fn tags_from_birth(lab: Arc<Lab>) -> Step<()> {
    let at_birth = lab.capabilities().await?.tags_at_birth;
    lab.remember_what_was_there().await?;
    let request = lab.request_with("longshore-conformance-birth", "1");
    let done = Arc::new(AtomicBool::new(false));
    let watching = jobs::start(watch_births(
        share(&lab),
        request.tags.clone(),
        Arc::clone(&done),
    ));
    let made = lab.create(&request).await;
    done.store(true, Ordering::Relaxed);
    let seen = watching.await;
    let made = made?;
    let seen = match seen {
        Ok(seen) => seen?,
        Err(error) => return Err(Stop::Broken(format!("a part of the check failed: {error}"))),
    };
    let did = format!("created {}, and listed everything meanwhile", made.id);
    let fix = "create the instance with its tags in one call to the provider, or do not declare \
               tags_at_birth";
    let no_tags = Tags::new();
    let mut early = seen.get(&made.id).cloned();
    let look = |listing: &Listing| match listing.get(&made.id) {
        None => Err(format!("{} is not listed", made.id)),
        Some(instance) if instance.has_tags(&request.tags) => Ok(()),
        Some(instance) => {
            early.get_or_insert_with(|| instance.tags.clone());
            let tags = tag_list(&instance.tags);
            Err(format!("{} is listed with the tags [{tags}]", made.id))
        }
    };
    let within = lab.subject.timing.appear;
    let seen = lab.eventually(&no_tags, within, look).await?;
    if let (true, Some(tags)) = (at_birth, early) {
        let missing = missing_tags(&request.tags, &tags);
        let saw = format!("a listing showed {} without {missing}", made.id);
        return Err(lab.broken(&did, &saw, fix));
    }
    let fix = "give the instance every tag of the request, and list it with them";
    seen.map_err(|saw| lab.broken(&did, &saw, fix))
}

/// Lists until told to stop: the tags of those that were seen without all of `wanted`.
async fn watch_births(
    lab: Arc<Lab>,
    wanted: Tags,
    done: Arc<AtomicBool>,
) -> Step<BTreeMap<InstanceId, Tags>> {
    let mut seen = BTreeMap::new();
    while !done.load(Ordering::Relaxed) {
        for (id, instance) in lab.list(&Tags::new()).await? {
            if !lab.was_there(&id) && !instance.has_tags(&wanted) {
                seen.insert(id, instance.tags);
            }
        }
        // More often than elsewhere: the moment between birth and tags may be short.
        tokio::time::sleep(lab.subject.timing.poll / 4).await;
    }
    Ok(seen)
}

fn missing_tags(wanted: &Tags, has: &Tags) -> String {
    let missing = wanted.iter().filter(|(k, v)| has.get(*k) != Some(v));
    tag_list(&missing.map(|(k, v)| (k.clone(), v.clone())).collect())
}

pub(crate) async fn ids_are_stable(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create_each(&[lab.request(), lab.request()]).await?;
    let (first, second) = (&made[0].id, &made[1].id);
    let did = format!("created two instances, with the ids {first:?} and {second:?}");
    let fix = "give each instance the provider's own id, the same one in create and in list";
    if first.as_str().is_empty() || second.as_str().is_empty() {
        return Err(lab.broken(&did, "an id is empty", fix));
    }
    if first == second {
        return Err(lab.broken(&did, "both have the same id", fix));
    }
    let look = |listing: &Listing| match listing.len() {
        2 => Ok(listing.keys().cloned().collect::<Vec<_>>()),
        other => Err(format!(
            "{other} instances are listed by the tags of the two"
        )),
    };
    let appear = lab.subject.timing.appear;
    let listed = lab.eventually(&lab.tags, appear, look).await?;
    let listed = listed.map_err(|saw| lab.broken(&did, &saw, fix))?;
    if !listed.contains(first) || !listed.contains(second) {
        let saw = format!("list says that their ids are {listed:?}");
        return Err(lab.broken(&did, &saw, fix));
    }
    Ok(())
}

pub(crate) async fn type_is_echoed(lab: Arc<Lab>) -> Step<()> {
    let request = lab.request();
    let wanted = &request.instance_type.provider_type;
    let made = lab.create(&request).await?;
    let did = format!("created {} with the provider type {wanted:?}", made.id);
    let fix = "fill Instance.provider_type from the provider's answer, and ask the provider for \
               InstanceType.provider_type, not for the configured name";
    let wrong = |call: &str, seen: &str| {
        lab.broken(&did, &format!("{call} says its type is {seen:?}"), fix)
    };
    if made.provider_type != *wanted {
        return Err(wrong("create", &made.provider_type));
    }
    let listing = lab
        .await_listed(&did, std::slice::from_ref(&made.id))
        .await?;
    match &listing[&made.id].provider_type {
        listed if listed == wanted => Ok(()),
        listed => Err(wrong("list", listed)),
    }
}

pub(crate) async fn different_tokens(lab: Arc<Lab>) -> Step<()> {
    // As long as a token may be, and different in its last byte only.
    let mut first = lab.request();
    first.token = format!("{:-<63}", first.token);
    first.token.truncate(63);
    let mut second = first.clone();
    first.token.push('a');
    second.token.push('b');
    let tokens = (first.token.clone(), second.token.clone());
    let made = lab.create_each(&[first, second]).await?;
    let did = format!(
        "created twice, with the tokens {} and {}",
        tokens.0, tokens.1
    );
    if made[0].id == made[1].id {
        let saw = format!("both returned the instance {}", made[0].id);
        let fix = "tell requests apart by their whole token, and by nothing else";
        return Err(lab.broken(&did, &saw, fix));
    }
    let ids = [made[0].id.clone(), made[1].id.clone()];
    lab.await_listed(&did, &ids).await.map(drop)
}

/// Not run unless idempotent creates are declared.
async fn want_idempotent(lab: &Lab) -> Step<()> {
    match lab.capabilities().await?.idempotent_create {
        true => Ok(()),
        false => Err(Stop::NotRun(
            "idempotent_create is not declared, so nothing is promised about a repeated token"
                .into(),
        )),
    }
}

/// That all answers are one instance, and that no other exists behind them.
async fn expect_one(lab: &Lab, tags: &Tags, did: &str, ids: &[InstanceId]) -> Step<()> {
    let fix = "give the token to the provider as its own idempotency token, or look for an \
               instance of that token before making one, under a lock";
    let Some(other) = ids.iter().find(|id| **id != ids[0]) else {
        lab.await_listed_by(tags, did, ids).await?;
        lab.let_listings_settle().await?;
        let listing = lab.list(tags).await?;
        if listing.len() == 1 {
            return Ok(());
        }
        let saw = format!(
            "create always returned {}, but {} instances are listed: {:?}",
            ids[0],
            listing.len(),
            listing.keys().collect::<Vec<_>>()
        );
        return Err(lab.broken(did, &saw, fix));
    };
    let saw = format!("it returned {} and {other}, two instances", ids[0]);
    Err(lab.broken(did, &saw, fix))
}

pub(crate) async fn repeated(lab: Arc<Lab>) -> Step<()> {
    want_idempotent(&lab).await?;
    let request = lab.request();
    let mut ids = vec![lab.create(&request).await?.id];
    ids.push(lab.create(&request).await?.id);
    let did = format!("created with the token {}", request.token);
    lab.await_listed(&did, &ids).await?;
    ids.push(lab.create(&request).await?.id);
    let did = format!(
        "created three times with the token {}, one after the other",
        request.token
    );
    expect_one(&lab, &lab.tags, &did, &ids).await
}

pub(crate) async fn concurrent(lab: Arc<Lab>) -> Step<()> {
    want_idempotent(&lab).await?;
    let request = lab.request();
    let did = format!(
        "created four times at once with the token {}",
        request.token
    );
    let create = |_| {
        let (lab, request) = (share(&lab), request.clone());
        async move { Ok(lab.create(&request).await?.id) }
    };
    let ids = all((0..4).map(create)).await?;
    expect_one(&lab, &lab.tags, &did, &ids).await
}

pub(crate) async fn dropped(lab: Arc<Lab>) -> Step<()> {
    want_idempotent(&lab).await?;
    for polls in 1..=4 {
        let request = lab.request_with("longshore-conformance-polls", &polls.to_string());
        create_and_drop(&lab, &request, polls).await?;
        let made = lab.create(&request).await?;
        let did = format!(
            "created with the token {}, dropped that future after {polls} poll(s), and created \
             again with the same token",
            request.token
        );
        let id = std::slice::from_ref(&made.id);
        expect_one(&lab, &request.tags, &did, id).await?;
        lab.forget_doubt(&request);
        lab.destroy_one(&made.id).await?;
        let did = format!("destroyed {}", made.id);
        lab.await_vanished(&did, id).await?;
    }
    Ok(())
}

/// Begins to create, and drops the future on its way.
pub(crate) async fn create_and_drop(lab: &Lab, request: &CreateRequest, polls: usize) -> Step<()> {
    lab.remember_what_was_there().await?;
    lab.begin_create()?;
    let (request, token) = (request.clone(), &request.token);
    let answer = lab
        .call_and_drop(Operation::Create, polls, move |set, context| async move {
            set.create(&context, &request).await
        })
        .await;
    let told = match &answer {
        Ok(Some(Ok(instance))) => Some(Some(instance.id.clone())),
        _ => None,
    };
    lab.end_create(token, told);
    answer.map(drop)
}

pub(crate) async fn bare(lab: Arc<Lab>) -> Step<()> {
    let mut request = lab.request();
    request.init_script = String::new();
    request.public_key = None;
    let made = match lab.create_or_hear_why_not(&request).await? {
        Ok(made) => made,
        Err(error) => {
            let saw = format!("it failed: {}", error.chain());
            let fix = "send the provider no script when it is empty, and no key when there is \
                       none";
            let did = "created an instance without a script and a key";
            return Err(lab.broken(did, &saw, fix));
        }
    };
    let did = format!("created {} without a script and a key", made.id);
    lab.await_listed(&did, &[made.id]).await.map(drop)
}
