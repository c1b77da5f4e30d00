//! What set_tags promises, and what tags may look like.

use std::sync::Arc;

use longshore_cloud::{CloudError, ErrorKind, Tags};
use longshore_types::InstanceId;

use crate::checks::destroy::LARGE_BATCH;
use crate::clean::shown;
use crate::lab::{Answers, Lab, Listing, Step};

const ADDED: &str = "longshore-conformance-added";
const CHANGED: &str = "longshore-conformance-changed";
const KEPT: &str = "longshore-conformance-kept";

fn tags(pairs: &[(&str, &str)]) -> Tags {
    let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    owned.collect()
}

pub(crate) async fn merges(lab: Arc<Lab>) -> Step<()> {
    let mut request = lab.request_with(KEPT, "1");
    request.tags.insert(CHANGED.into(), "1".into());
    let made = lab.create(&request).await?;
    let id = &made.id;
    let did = format!("created {id} with {KEPT}=1 and {CHANGED}=1");
    lab.await_listed(&did, std::slice::from_ref(id)).await?;
    lab.tag_one(id, &tags(&[(CHANGED, "2"), (ADDED, "3")]))
        .await?;
    let did = format!("{did}, and set its tags {CHANGED}=2 and {ADDED}=3");
    let mut wanted = request.tags.clone();
    wanted.extend(tags(&[(CHANGED, "2"), (ADDED, "3")]));
    let fix = "add the given tags to those the instance has, replace those of the same name, and \
               remove none";
    expect_tags(&lab, &did, id, &wanted, fix).await
}

/// That an instance soon has all of `wanted`.
pub(crate) async fn expect_tags(
    lab: &Lab,
    did: &str,
    id: &InstanceId,
    wanted: &Tags,
    fix: &str,
) -> Step<()> {
    let look = |listing: &Listing| {
        let Some(instance) = listing.get(id) else {
            return Err(format!("{id} is not listed by the tags it was made with"));
        };
        match wanted
            .iter()
            .find(|(k, v)| instance.tags.get(*k) != Some(v))
        {
            None => Ok(()),
            Some((key, value)) => Err(match instance.tags.get(key) {
                Some(has) => format!("its tag {key} is {}, not {}", shown(has), shown(value)),
                None => format!("it has no tag {key}, which should be {}", shown(value)),
            }),
        }
    };
    let appear = lab.subject.timing.appear;
    // Not by the tags of the check alone: if one of those was lost, it would not be listed.
    let seen = lab.eventually(&Tags::new(), appear, look).await?;
    seen.map_err(|saw| lab.broken(did, &saw, fix))
}

pub(crate) async fn answers(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create_each(&[lab.request(), lab.request()]).await?;
    let (one, two) = (made[0].id.clone(), made[1].id.clone());
    let did = format!("created {one} and {two}");
    lab.await_listed(&did, &[one.clone(), two.clone()]).await?;
    let unknown = lab.unknown_id(0);
    let new = tags(&[(ADDED, "1")]);
    let changes: Vec<_> = [&one, &unknown, &two]
        .map(|id| (id.clone(), new.clone()))
        .into();
    let most = match lab.capabilities().await?.tag_batch {
        0 => changes.len(),
        most => most,
    };
    for changes in changes.chunks(most) {
        let did = format!("set {ADDED}=1 of {:?} in one call", ids_of(changes));
        let answers = lab.set_tags(changes).await?;
        expect_answers(&lab, &did, changes, &answers, &[&one, &two])?;
    }
    let fix = "set the tags of every id that exists, whatever comes of the others";
    let did = format!("set {ADDED}=1 of {one}, of {unknown}, which nobody has, and of {two}");
    for id in [&one, &two] {
        expect_tags(&lab, &did, id, &new, fix).await?;
    }
    if most >= 2 {
        let pair = [
            (one.clone(), tags(&[(KEPT, "1")])),
            (one.clone(), tags(&[(CHANGED, "1")])),
        ];
        let did = format!("set {KEPT}=1 and {CHANGED}=1 of {one} by two changes in one call");
        let answers = lab.set_tags(&pair).await?;
        expect_answers(&lab, &did, &pair, &answers, &[&one])?;
        let both = tags(&[(KEPT, "1"), (CHANGED, "1")]);
        let fix = "make both changes of an id that is named twice";
        expect_tags(&lab, &did, &one, &both, fix).await?;
    }
    Ok(())
}

fn ids_of(changes: &[(InstanceId, Tags)]) -> Vec<InstanceId> {
    changes.iter().map(|(id, _)| id.clone()).collect()
}

/// That there is an answer about each id: Ok about those that exist, NotFound about the others.
fn expect_answers(
    lab: &Lab,
    did: &str,
    changes: &[(InstanceId, Tags)],
    answers: &Answers,
    existing: &[&InstanceId],
) -> Step<()> {
    lab.check_ids(did, &ids_of(changes), answers)?;
    for (id, answer) in answers {
        let (saw, fix) = match (existing.contains(&id), answer) {
            (true, Ok(())) => continue,
            (false, Err(error)) if error.kind == ErrorKind::NotFound => continue,
            (true, Err(error)) => (
                format!("about {id}, which exists, the error: {}", error.chain()),
                "set the tags of every id that exists, whatever comes of the others",
            ),
            (false, Ok(())) => (
                format!("Ok about {id}, which no instance has"),
                "answer NotFound for an id that no instance has",
            ),
            (false, Err(error)) => (
                format!("about {id}, which no instance has: {}", error.chain()),
                "map what the provider says about an unknown id to NotFound",
            ),
        };
        return Err(lab.broken(did, &saw, fix));
    }
    Ok(())
}

pub(crate) async fn others(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create_each(&[lab.request(), lab.request()]).await?;
    let (one, other) = (&made[0].id, &made[1].id);
    let did = format!("created {one} and {other}, and set {ADDED}=1 of {one}");
    let before = lab
        .await_listed(&did, &[one.clone(), other.clone()])
        .await?;
    let new = tags(&[(ADDED, "1")]);
    lab.tag_one(one, &new).await?;
    let fix = "name the instance in the provider's call; a call by tags changes them all";
    expect_tags(&lab, &did, one, &new, fix).await?;
    lab.let_listings_settle().await?;
    let after = lab.await_listed(&did, std::slice::from_ref(other)).await?;
    let (had, has) = (&before[other].tags, &after[other].tags);
    // The provider itself may add tags; those that somebody gave it must be the same.
    let same = had.iter().all(|(k, v)| has.get(k) == Some(v)) && !has.contains_key(ADDED);
    if same {
        return Ok(());
    }
    let saw = format!("the tags of {other} were {had:?} and are {has:?}");
    Err(lab.broken(&did, &saw, fix))
}

pub(crate) async fn batch(lab: Arc<Lab>) -> Step<()> {
    let (most, declared) = match lab.capabilities().await?.tag_batch {
        0 => (LARGE_BATCH, "tag_batch is 0, no limit".to_owned()),
        most => (most, format!("tag_batch is {most}")),
    };
    // One at either end, so that no part of the batch is forgotten unseen.
    let made = lab.create_each(&[lab.request(), lab.request()]).await?;
    let mut made: Vec<_> = made.into_iter().map(|instance| instance.id).collect();
    lab.await_listed(&format!("created {made:?}"), &made)
        .await?;
    made.truncate(most);
    let new = tags(&[(ADDED, "1")]);
    let mut ids = made.clone();
    ids.splice(1..1, (made.len()..most).map(|n| lab.unknown_id(n)));
    let changes: Vec<_> = ids.into_iter().map(|id| (id, new.clone())).collect();
    let did = format!(
        "set tags by {most} changes in one call ({declared}): {} of ids that nobody has, and of \
         {made:?} at its ends",
        most - made.len()
    );
    let answers = lab.set_tags(&changes).await?;
    let fix = "declare the largest batch that works, or make several calls to the provider";
    let not_found = |error: &CloudError| error.kind == ErrorKind::NotFound;
    let mut errors = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().err());
    if let Some(error) = errors.find(|error| !not_found(error)) {
        return Err(lab.broken(&did, &format!("the error: {}", error.chain()), fix));
    }
    let existing: Vec<_> = made.iter().collect();
    expect_answers(&lab, &did, &changes, &answers, &existing)?;
    for id in &made {
        expect_tags(&lab, &did, id, &new, fix).await?;
    }
    Ok(())
}

pub(crate) async fn odd(lab: Arc<Lab>) -> Step<()> {
    let request = lab.request();
    let made = lab.create(&request).await?;
    let id = &made.id;
    lab.await_listed(&format!("created {id}"), std::slice::from_ref(id))
        .await?;
    let mut taken = Tags::new();
    for (number, value) in odd_values().into_iter().enumerate() {
        let key = format!("longshore-conformance-odd-{number}");
        let one = tags(&[(&key, &value)]);
        let did = format!("set the tag {key} of {id} to {}", shown(&value));
        let answers = lab.set_tags(&[(id.clone(), one.clone())]).await?;
        lab.check_ids(&did, std::slice::from_ref(id), &answers)?;
        match &answers[0].1 {
            Ok(()) => {
                expect_tags(&lab, &did, id, &one, AS_IT_IS).await?;
                taken.extend(one);
            }
            Err(error) if error.kind == ErrorKind::InvalidRequest => {}
            Err(error) => {
                let saw = format!("it failed: {}", error.chain());
                return Err(lab.broken(&did, &saw, AS_IT_IS));
            }
        }
    }
    let mut all = request.tags.clone();
    all.extend(taken.clone());
    let did = format!("set {} more tags of {id}, one after the other", taken.len());
    let fix = "keep every tag; refuse as InvalidRequest one that is too many for the provider";
    expect_tags(&lab, &did, id, &all, fix).await?;
    let mut request = lab.request();
    request.tags.extend(taken);
    let made = lab.create(&request).await?;
    let did = format!("created {} with the odd tags that set_tags took", made.id);
    expect_tags(&lab, &did, &made.id, &request.tags, AS_IT_IS).await?;
    let listed = format!("{did}, and listed by all of them");
    lab.await_listed_by(&request.tags, &listed, &[made.id])
        .await
        .map(drop)
}

const AS_IT_IS: &str = "quote the value as the provider's protocol wants it, and read it back the same way; refuse \
     as InvalidRequest what the provider cannot keep, and never shorten or change it";

/// Values that break careless quoting.
fn odd_values() -> Vec<String> {
    let mut values: Vec<String> = [
        "it's \"quoted\", with a \\ too",
        "two\nlines and a\ttab",
        "Grüße, 機械, 🚢",
        "a=b&c=d;e,f%20<g>{h}",
        " blanks around ",
        "a * and a ? are no pattern",
        "",
    ]
    .map(String::from)
    .into();
    values.push("x".repeat(256));
    values
}
