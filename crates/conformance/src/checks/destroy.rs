//! What destroy promises.

use std::sync::Arc;

use longshore_types::InstanceId;

use crate::lab::{Answers, Lab, Step, is_alive};

/// How many ids a destroy without limit is tried with.
pub(crate) const LARGE_BATCH: usize = 1100;

const UNKNOWN_IS_SUCCESS: &str = "answer Ok for an id that the provider does not know, or whose form it refuses, and repeat \
     the call without it if the provider failed the others because of it";

pub(crate) async fn vanish(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create(&lab.request()).await?;
    let id = std::slice::from_ref(&made.id);
    let did = format!(
        "created {}, which was listed, and destroyed it: Ok",
        made.id
    );
    lab.await_listed(&did, id).await?;
    lab.destroy_one(&made.id).await?;
    lab.await_vanished(&did, id).await
}

pub(crate) async fn unknown(lab: Arc<Lab>) -> Step<()> {
    let id = lab.unknown_id(0);
    let answers = lab.destroy(std::slice::from_ref(&id)).await?;
    let did = format!("destroyed {id}, which no instance has");
    expect_all_ok(&lab, &did, &[id], &answers, UNKNOWN_IS_SUCCESS)
}

pub(crate) async fn twice(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create(&lab.request()).await?;
    let id = std::slice::from_ref(&made.id);
    lab.await_listed(&format!("created {}", made.id), id)
        .await?;
    lab.destroy_one(&made.id).await?;
    let fix = "answer Ok for what is being destroyed, and for what is gone";
    let did = format!("destroyed {} twice, at once after each other", made.id);
    expect_all_ok(&lab, &did, id, &lab.destroy(id).await?, fix)?;
    lab.await_vanished(&format!("destroyed {}", made.id), id)
        .await?;
    let did = format!("destroyed {} once more after it had vanished", made.id);
    expect_all_ok(&lab, &did, id, &lab.destroy(id).await?, fix)
}

pub(crate) async fn answers(lab: Arc<Lab>) -> Step<()> {
    let requests = [lab.request(), lab.request(), lab.request()];
    let made = lab.create_each(&requests).await?;
    let ids: Vec<_> = made.into_iter().map(|instance| instance.id).collect();
    let did = format!("created {ids:?}");
    lab.await_listed(&did, &ids).await?;

    let unknown = lab.unknown_id(0);
    let batch = [ids[0].clone(), unknown.clone(), ids[1].clone()];
    let asked = limited(&lab, &batch).await?;
    let did = format!("destroyed {asked:?} in one call; {unknown} is of no instance");
    let answers = lab.destroy(&asked).await?;
    expect_all_ok(&lab, &did, &asked, &answers, UNKNOWN_IS_SUCCESS)?;
    for rest in batch.iter().filter(|id| !asked.contains(id)) {
        lab.destroy_one(rest).await?;
    }

    let pair = limited(&lab, &[ids[2].clone(), ids[2].clone()]).await?;
    let did = format!("destroyed {pair:?} in one call, one id twice");
    let fix = "answer Ok for an id that is named twice, once or twice";
    let answers = lab.destroy(&pair).await?;
    expect_all_ok(&lab, &did, &pair, &answers, fix)?;
    lab.await_vanished(&format!("destroyed {ids:?}"), &ids)
        .await
}

/// As many of `ids` as one call may have.
async fn limited(lab: &Lab, ids: &[InstanceId]) -> Step<Vec<InstanceId>> {
    let most = match lab.capabilities().await?.destroy_batch {
        0 => ids.len(),
        most => most.min(ids.len()),
    };
    Ok(ids[..most].to_vec())
}

pub(crate) async fn batch(lab: Arc<Lab>) -> Step<()> {
    let (most, declared) = match lab.capabilities().await?.destroy_batch {
        0 => (LARGE_BATCH, "destroy_batch is 0, no limit".to_owned()),
        most => (most, format!("destroy_batch is {most}")),
    };
    // One at either end, so that no part of the batch is forgotten unseen.
    let made = lab.create_each(&[lab.request(), lab.request()]).await?;
    let mut made: Vec<_> = made.into_iter().map(|instance| instance.id).collect();
    lab.await_listed(&format!("created {made:?}"), &made)
        .await?;
    made.truncate(most);
    let mut ids = made.clone();
    ids.splice(1..1, (made.len()..most).map(|n| lab.unknown_id(n)));
    let did = format!(
        "destroyed {most} ids in one call ({declared}): {} that no instance has, and {made:?} at \
         its ends",
        most - made.len(),
    );
    let answers = lab.destroy(&ids).await?;
    let fix = "declare the largest batch that works, or make several calls to the provider; an \
               unknown id is success";
    expect_all_ok(&lab, &did, &ids, &answers, fix)?;
    lab.await_vanished(&did, &made).await
}

pub(crate) async fn others(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create_each(&[lab.request(), lab.request()]).await?;
    let (one, other) = (&made[0].id, &made[1].id);
    let did = format!("created {one} and {other}, and destroyed {one}");
    lab.await_listed(&did, &[one.clone(), other.clone()])
        .await?;
    lab.destroy_one(one).await?;
    lab.await_vanished(&did, std::slice::from_ref(one)).await?;
    lab.let_listings_settle().await?;
    let listing = lab.list(&lab.tags).await?;
    let saw = match listing.get(other) {
        Some(instance) if is_alive(instance) => return Ok(()),
        Some(instance) => format!("{other} is {:?} as well", instance.state),
        None => format!("{other} is not listed any more either"),
    };
    let fix = "destroy by the exact ids of the call, and nothing else";
    Err(lab.broken(&did, &saw, fix))
}

/// That there is an answer about each id, and that it is Ok.
fn expect_all_ok(
    lab: &Lab,
    did: &str,
    asked: &[InstanceId],
    answers: &Answers,
    fix: &str,
) -> Step<()> {
    lab.check_ids(did, asked, answers)?;
    for (id, answer) in answers {
        if let Err(error) = answer {
            let saw = format!("the answer about {id} is an error: {}", error.chain());
            return Err(lab.broken(did, &saw, fix));
        }
    }
    Ok(())
}
