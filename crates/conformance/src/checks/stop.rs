//! What stop promises.

use std::sync::Arc;

use crate::Promise;
use crate::lab::{Lab, Listing, Step, Stop, broken, is_alive};

pub(crate) async fn stop(lab: Arc<Lab>) -> Step<()> {
    if !lab.subject.can_reopen() {
        return Err(Stop::NotRun(
            "the suite cannot open the instance set again (Subject::with_reopen), and without \
             one nothing could be removed after a stop"
                .into(),
        ));
    }
    let request = lab.request();
    let made = lab.create(&request).await?;
    let id = &made.id;
    lab.await_listed(&format!("created {id}"), std::slice::from_ref(id))
        .await?;
    let first = stop_once(&lab, "stop").await;
    let second = match first {
        Ok(()) => stop_once(&lab, "stop, the second time").await,
        Err(_) => Ok(()),
    };
    // Whatever happened: without it nothing can be removed.
    if let Err(error) = lab.subject.open_again().await {
        return Err(Stop::NotRun(format!(
            "the instance set could not be opened again: {error}"
        )));
    }
    first?;
    second?;
    let did = format!("created {id}, stopped the instance set twice and opened it again");
    let look = |listing: &Listing| match listing.get(id) {
        Some(instance) if is_alive(instance) => Ok(()),
        Some(instance) => Err(format!("{id} is listed as {:?}", instance.state)),
        None => Err(format!("{id} is not listed")),
    };
    let appear = lab.subject.timing.appear;
    let seen = lab.eventually(&lab.tags, appear, look).await?;
    let fix = "end only what runs in this process; instances go on without the driver";
    seen.map_err(|saw| lab.broken(&did, &saw, fix))?;
    if !lab.capabilities().await?.idempotent_create {
        return Ok(());
    }
    let again = lab.create(&request).await?.id;
    if again == *id {
        return Ok(());
    }
    let did = format!("{did}, then created again with the token {}", request.token);
    let saw = format!("it returned {again}: there are two instances of one token");
    let fix = "have the provider remember tokens, or look for them among the instances: what this \
               process knew is lost with it; else do not declare idempotent_create";
    let promise = Promise::RepeatedCreateMakesNothingNew;
    Err(broken(promise, &did, &saw, fix))
}

async fn stop_once(lab: &Lab, what: &str) -> Step<()> {
    let set = lab.subject.set();
    let timeout = lab.subject.timing.call;
    lab.watch(what, timeout, async move { set.stop().await })
        .await
}
