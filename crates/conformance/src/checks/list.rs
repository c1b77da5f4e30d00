//! What list promises.

use std::collections::BTreeSet;
use std::sync::Arc;

use longshore_cloud::Tags;
use longshore_types::InstanceId;

use crate::clean::tag_list;
use crate::jobs::{all, share};
use crate::lab::{Lab, Listing, Step, Stop, is_alive};
use crate::promise::MORE_THAN_A_PAGE;

const COLOR: &str = "longshore-conformance-color";
const SHAPE: &str = "longshore-conformance-shape";

pub(crate) async fn exact(lab: Arc<Lab>) -> Step<()> {
    let mut red = lab.request_with(COLOR, "red");
    red.tags.insert(SHAPE.into(), "round".into());
    let requests = [red, lab.request_with(COLOR, "blue"), lab.request()];
    let made = lab.create_each(&requests).await?;
    let [red, blue, plain] = [&made[0].id, &made[1].id, &made[2].id];
    let did = format!(
        "created {red} with {COLOR}=red and {SHAPE}=round, {blue} with {COLOR}=blue, and \
         {plain} with neither"
    );
    lab.await_listed(&did, &[red.clone(), blue.clone(), plain.clone()])
        .await?;
    let both = |color: &str, shape: &str| {
        let mut tags = lab.tags_with(COLOR, color);
        tags.insert(SHAPE.into(), shape.into());
        tags
    };
    for (filter, wanted) in [
        (lab.tags.clone(), vec![red, blue, plain]),
        (lab.tags_with(COLOR, "red"), vec![red]),
        (lab.tags_with(COLOR, "blue"), vec![blue]),
        (both("red", "round"), vec![red]),
        (both("blue", "round"), vec![]),
        (lab.tags_with(COLOR, "re"), vec![]),
        (lab.tags_with(COLOR, "ed"), vec![]),
        (lab.tags_with(COLOR, "redder"), vec![]),
        (lab.tags_with(COLOR, "Red"), vec![]),
        (lab.tags_with(COLOR, "r*"), vec![]),
        (lab.tags_with(COLOR, "re?"), vec![]),
        (lab.tags_with(COLOR, ""), vec![]),
        (lab.tags_with("longshore-conformance", "red"), vec![]),
    ] {
        expect_listed(&lab, &did, &filter, &wanted).await?;
    }
    Ok(())
}

/// That exactly `wanted` is listed. What is missing may still come; what is too much may not.
async fn expect_listed(lab: &Lab, did: &str, filter: &Tags, wanted: &[&InstanceId]) -> Step<()> {
    let did = format!("{did}; then listed by {}", tag_list(filter));
    let look = |listing: &Listing| {
        let foreign = listing.keys().find(|id| !wanted.contains(id));
        if let Some(id) = foreign {
            return Ok(Some(id.clone()));
        }
        match wanted.iter().find(|id| !listing.contains_key(**id)) {
            Some(id) => Err(format!("{id} has all of these tags and is not listed")),
            None => Ok(None),
        }
    };
    let appear = lab.subject.timing.appear;
    let fix = "compare every tag of the filter, name and value, for equality; all of them have \
               to be there; quote what the provider takes for a pattern";
    match lab.eventually(filter, appear, look).await? {
        Ok(None) => Ok(()),
        Ok(Some(foreign)) => {
            let saw = format!("{foreign} is listed, though it has not all of these tags");
            Err(lab.broken(&did, &saw, fix))
        }
        Err(saw) => Err(lab.broken(&did, &saw, fix)),
    }
}

pub(crate) async fn without_tags(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create_each(&[lab.request(), lab.request()]).await?;
    let ids: Vec<_> = made.into_iter().map(|instance| instance.id).collect();
    let did = format!(
        "created {} and {}, then listed without tags",
        ids[0], ids[1]
    );
    lab.await_listed_by(&Tags::new(), &did, &ids).await?;
    let nobodys = lab.tags_with("longshore-conformance-nobody", "has this");
    let listing = lab.list(&nobodys).await?;
    match listing.keys().next() {
        None => Ok(()),
        Some(id) => {
            let did = format!("listed by {}, which no instance has", tag_list(&nobodys));
            let fix = "give an empty listing when nothing has the tags";
            Err(lab.broken(&did, &format!("{id} is listed"), fix))
        }
    }
}

pub(crate) async fn more_than_one_page(lab: Arc<Lab>) -> Step<()> {
    const AT_ONCE: usize = 16;
    /// So many are whole pages of any usual size, and one more is not.
    const FULL_PAGES: usize = MORE_THAN_A_PAGE - 1;
    lab.remember_what_was_there().await?;
    let create_some = |first: usize| {
        let lab = share(&lab);
        async move {
            let mut ids = Vec::new();
            for _ in (first..FULL_PAGES).step_by(AT_ONCE) {
                ids.push(lab.create(&lab.request()).await?.id);
            }
            Ok(ids)
        }
    };
    let made = all((0..AT_ONCE).map(create_some)).await?;
    let mut made: BTreeSet<InstanceId> = made.into_iter().flatten().collect();
    expect_all_listed(&lab, &made).await?;
    made.insert(lab.create(&lab.request()).await?.id);
    expect_all_listed(&lab, &made).await
}

async fn expect_all_listed(lab: &Lab, made: &BTreeSet<InstanceId>) -> Step<()> {
    let did = format!(
        "created {} instances, then listed by their tags",
        made.len()
    );
    let look = |listing: &Listing| match made.iter().find(|id| !listing.contains_key(*id)) {
        None => Ok(()),
        Some(id) => Err(format!(
            "{} different instances are listed; {id}, for one, is not",
            listing.len()
        )),
    };
    let fix = "ask for the next page until the provider says that there is none, also after a full \
               one, and put all pages together";
    let seen = lab.eventually(&lab.tags, lab.subject.timing.appear, look);
    seen.await?.map_err(|saw| lab.broken(&did, &saw, fix))
}

pub(crate) async fn consistent(lab: Arc<Lab>) -> Step<()> {
    if !lab.capabilities().await?.consistent_listing {
        return Err(Stop::NotRun(
            "consistent_listing is not declared, so listings may lag".into(),
        ));
    }
    for round in 0..3 {
        consistent_round(&lab, &format!("round-{round}")).await?;
    }
    Ok(())
}

async fn consistent_round(lab: &Lab, round: &str) -> Step<()> {
    const TAG: &str = "longshore-conformance-set";
    let fix = "wait in the call until listings show what it did, or do not declare \
               consistent_listing";
    let made = lab.create(&lab.request()).await?;
    let id = &made.id;
    let listing = lab.list(&lab.tags).await?;
    if !listing.contains_key(id) {
        let did = format!("created {id}, then listed at once");
        return Err(lab.broken(&did, &format!("{id} is not listed"), fix));
    }
    lab.tag_one(id, &[(TAG.to_owned(), round.to_owned())].into())
        .await?;
    let listing = lab.list(&lab.tags_with(TAG, round)).await?;
    if !listing.contains_key(id) {
        let did = format!("set the tag {TAG}={round} of {id}, then listed by it at once");
        return Err(lab.broken(&did, &format!("{id} is not listed"), fix));
    }
    lab.destroy_one(id).await?;
    let listing = lab.list(&lab.tags).await?;
    match listing.get(id).filter(|instance| is_alive(instance)) {
        None => Ok(()),
        Some(alive) => {
            let did = format!("destroyed {id}, then listed at once");
            let saw = format!("{id} is listed as {:?}", alive.state);
            Err(lab.broken(&did, &saw, fix))
        }
    }
}
