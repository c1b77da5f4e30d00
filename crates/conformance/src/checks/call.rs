//! What holds for every call: deadlines, calls at the same time, dropped calls, empty batches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use longshore_cloud::{CloudError, ErrorKind, Operation, Tags};
use longshore_types::{HostKey, InstanceId, format_duration};
use tokio::time::Instant;

use crate::checks::create::create_and_drop;
use crate::checks::tag::expect_tags;
use crate::jobs::{self, all, share};
use crate::lab::{Answers, Lab, Listing, Step};

/// Less than any provider needs.
const NEXT_TO_NOTHING: Duration = Duration::from_millis(1);

/// The longest that the quickest of a few calls may go on after its timeout. A driver that keeps
/// deadlines needs no time for that, and one that waits for its provider needs more; the slack would
/// let that pass, which is there for a machine that is busy for once.
const PROMPT: Duration = Duration::from_millis(100);
const TRIES: u32 = 3;

pub(crate) async fn empty_batches(lab: Arc<Lab>) -> Step<()> {
    let fix = "return an empty list before the provider is called: many refuse an empty batch";
    for (call, answers) in [
        ("destroyed nothing", lab.destroy(&[]).await?),
        ("set tags of nothing", lab.set_tags(&[]).await?),
    ] {
        if let Some((id, _)) = answers.first() {
            let saw = format!("{} answer(s), the first about {id:?}", answers.len());
            return Err(lab.broken(call, &saw, fix));
        }
    }
    Ok(())
}

pub(crate) async fn deadlines(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create(&lab.request()).await?;
    let id = std::slice::from_ref(&made.id);
    lab.await_listed(&format!("created {}", made.id), id)
        .await?;
    for timeout in [Duration::ZERO, NEXT_TO_NOTHING] {
        let listing = || lab.try_list(&lab.tags, timeout);
        let listed = promptly(&lab, "list", timeout, listing).await?;
        judge(&lab, "list", timeout, listed.err().as_ref())?;
        let tags: Tags = [("longshore-conformance-added".to_owned(), "1".to_owned())].into();
        let changes = [(made.id.clone(), tags)];
        let tagging = || lab.set_tags_within(&changes, timeout);
        let answers = promptly(&lab, "set_tags", timeout, tagging).await?;
        judge_each(&lab, "set_tags", timeout, id, &answers)?;
        let key = HostKey {
            algorithm: "ssh-ed25519".into(),
            blob: vec![0; 51],
        };
        let verifying = || {
            let (asked, key) = (made.id.clone(), key.clone());
            lab.call(
                Operation::VerifyHostKey,
                timeout,
                move |set, context| async move {
                    set.verify_host_key(&context, &asked, &key).await
                },
            )
        };
        let verdict = promptly(&lab, "verify_host_key", timeout, verifying).await?;
        judge(&lab, "verify_host_key", timeout, verdict.err().as_ref())?;
        let destroying = || lab.destroy_within(id, timeout);
        let answers = promptly(&lab, "destroy", timeout, destroying).await?;
        judge_each(&lab, "destroy", timeout, id, &answers)?;
    }
    // Each may make an instance, which is removed before the next.
    let creating = || async {
        let request = lab.request();
        let began = Instant::now();
        let created = lab.try_create_within(&request, NEXT_TO_NOTHING).await?;
        let took = began.elapsed();
        judge(&lab, "create", NEXT_TO_NOTHING, created.err().as_ref())?;
        lab.resolve(&request).await?;
        Ok((took, ()))
    };
    in_time(&lab, "create", NEXT_TO_NOTHING, creating).await
}

/// Makes a call that may be repeated; broken if no try comes back when its time is over.
async fn promptly<T, R>(lab: &Lab, name: &str, timeout: Duration, call: impl Fn() -> R) -> Step<T>
where
    R: Future<Output = Step<T>>,
{
    let timed = || {
        let call = call();
        async move {
            let began = Instant::now();
            let answer = call.await?;
            Ok((began.elapsed(), answer))
        }
    };
    in_time(lab, name, timeout, timed).await
}

/// Has a call made that says how long it took, a few times if it took too long.
async fn in_time<T, R>(lab: &Lab, name: &str, timeout: Duration, call: impl Fn() -> R) -> Step<T>
where
    R: Future<Output = Step<(Duration, T)>>,
{
    let mut quickest = Duration::MAX;
    for _ in 0..TRIES {
        let (took, answer) = call().await?;
        quickest = quickest.min(took);
        if took <= timeout + PROMPT {
            return Ok(answer);
        }
    }
    Err(lab.broken(
        &format!("called {name} with a timeout of {timeout:?}, {TRIES} times"),
        &format!("the quickest answer took {}", format_duration(quickest)),
        "bound everything the call waits for by the timeout: the provider's answer, locks, its turn \
         in a queue",
    ))
}

fn judge_each(
    lab: &Lab,
    call: &str,
    timeout: Duration,
    asked: &[InstanceId],
    answers: &Answers,
) -> Step<()> {
    let did = format!("called {call} with a timeout of {timeout:?}");
    lab.check_ids(&did, asked, answers)?;
    for (_, answer) in answers {
        judge(lab, call, timeout, answer.as_ref().err())?;
    }
    Ok(())
}

fn judge(lab: &Lab, call: &str, timeout: Duration, error: Option<&CloudError>) -> Step<()> {
    match error {
        Some(error) if error.kind == ErrorKind::Other => Err(lab.broken(
            &format!("called {call} with a timeout of {timeout:?}"),
            &format!(
                "an error that is neither an answer nor TimedOut: {}",
                error.chain()
            ),
            "map the HTTP client's timeout, and every other, to TimedOut",
        )),
        _ => Ok(()),
    }
}

/// Three users at once, each with an instance of its own, while others list.
pub(crate) async fn at_once(lab: Arc<Lab>) -> Step<()> {
    lab.remember_what_was_there().await?;
    let users: Vec<String> = (0..3).map(|n| format!("user-{n}")).collect();
    let did = "created, listed, tagged and destroyed three instances by three users at once";
    let begin = users
        .iter()
        .map(|user| begin_life(share(&lab), user.clone()));
    let made = all(begin).await?;
    let fix = "keep what belongs to one call in that call; hold locks only for moments, and never \
               while waiting for the provider";
    let ids: BTreeSet<_> = made.iter().cloned().collect();
    if ids.len() < made.len() {
        let saw = format!("two users got the same instance: {made:?}");
        return Err(lab.broken(did, &saw, fix));
    }
    for (user, id) in users.iter().zip(&made) {
        let mixed = |listing: &Listing| match listing.get(id) {
            None => Err(format!("{id}, made by {user}, is not listed by its tags")),
            Some(_) if listing.len() > 1 => Err(format!("not only {id} has the tags of {user}")),
            Some(_) => Ok(()),
        };
        let mut tags = lab.tags_with(USER, user);
        tags.insert(SET_BY.into(), user.clone());
        let seen = lab.eventually(&tags, lab.subject.timing.appear, mixed);
        seen.await?.map_err(|saw| lab.broken(did, &saw, fix))?;
    }
    tag_at_once(&lab, &made[0]).await?;
    let end = made.iter().map(|id| end_life(share(&lab), id.clone()));
    all(end).await?;
    lab.await_vanished(did, &made).await
}

const USER: &str = "longshore-conformance-user";
const TAGS_AT_ONCE: usize = 4;
const SET_BY: &str = "longshore-conformance-set-by";

async fn begin_life(lab: Arc<Lab>, user: String) -> Step<InstanceId> {
    let listing = {
        let lab = share(&lab);
        async move {
            for _ in 0..3 {
                lab.list(&lab.tags).await?;
                lab.capabilities().await?;
            }
            Ok(())
        }
    };
    let living = {
        let lab = share(&lab);
        async move {
            let made = lab.create(&lab.request_with(USER, &user)).await?;
            let did = format!("created {} while others call as well", made.id);
            lab.await_listed(&did, std::slice::from_ref(&made.id))
                .await?;
            let tags: Tags = [(SET_BY.to_owned(), user)].into();
            lab.tag_one(&made.id, &tags).await?;
            Ok(made.id)
        }
    };
    let listing = jobs::start(listing);
    let made = all([living]).await;
    let listed = listing.await;
    let id = made?.remove(0);
    listed.unwrap_or(Ok(()))?;
    Ok(id)
}

/// Several calls at the same time, each of which gives one instance another tag.
async fn tag_at_once(lab: &Arc<Lab>, id: &InstanceId) -> Step<()> {
    let tag = |n: usize| (format!("longshore-conformance-at-once-{n}"), n.to_string());
    let calls = (0..TAGS_AT_ONCE).map(|n| {
        let (lab, id, tags) = (share(lab), id.clone(), Tags::from([tag(n)]));
        async move { lab.tag_one(&id, &tags).await }
    });
    all(calls).await?;
    let wanted: Tags = (0..TAGS_AT_ONCE).map(tag).collect();
    let did =
        format!("set {TAGS_AT_ONCE} tags of {id} at the same time, each by a call of its own");
    let fix = "where the provider replaces all tags, read and write those of an instance under a lock, \
               or in an order of its own";
    expect_tags(lab, &did, id, &wanted, fix).await
}

async fn end_life(lab: Arc<Lab>, id: InstanceId) -> Step<()> {
    lab.list(&Tags::new()).await?;
    lab.destroy_one(&id).await?;
    lab.destroy(&[lab.unknown_id(0)]).await?;
    lab.list(&lab.tags).await.map(drop)
}

pub(crate) async fn dropped(lab: Arc<Lab>) -> Step<()> {
    let made = lab.create(&lab.request()).await?;
    let id = &made.id;
    lab.await_listed(&format!("created {id}"), std::slice::from_ref(id))
        .await?;
    let added: Tags = [("longshore-conformance-added".to_owned(), "1".to_owned())].into();
    for polls in 1..=3 {
        let tags = lab.tags.clone();
        lab.call_and_drop(Operation::List, polls, move |set, context| async move {
            drop(set.list(&context, &tags).await);
        })
        .await?;
        let changes = [(lab.unknown_id(polls), added.clone())];
        lab.call_and_drop(Operation::SetTags, polls, move |set, context| async move {
            set.set_tags(&context, &changes).await.len()
        })
        .await?;
        let ids = [lab.unknown_id(polls)];
        lab.call_and_drop(Operation::Destroy, polls, move |set, context| async move {
            set.destroy(&context, &ids).await.len()
        })
        .await?;
    }
    let requests = [lab.request(), lab.request()];
    create_and_drop(&lab, &requests[0], 1).await?;
    create_and_drop(&lab, &requests[1], 2).await?;
    let gone = std::slice::from_ref(id).to_vec();
    lab.call_and_drop(Operation::Destroy, 1, move |set, context| async move {
        set.destroy(&context, &gone).await.len()
    })
    .await?;
    works_as_before(&lab, id).await?;
    for request in &requests {
        lab.resolve(request).await?;
    }
    Ok(())
}

/// That after all of that a whole life of an instance is possible.
async fn works_as_before(lab: &Lab, old: &InstanceId) -> Step<()> {
    let dropped = "dropped calls of all kinds after one to three polls";
    lab.destroy_one(old).await?;
    let made = lab.create(&lab.request()).await?;
    let id = std::slice::from_ref(&made.id);
    let did = format!("{dropped}, then created {}", made.id);
    lab.await_listed(&did, id).await?;
    let added: Tags = [("longshore-conformance-added".to_owned(), "2".to_owned())].into();
    lab.tag_one(&made.id, &added).await?;
    let mut tags = lab.tags.clone();
    tags.extend(added);
    let did = format!("{dropped}, then set a tag of {}", made.id);
    lab.await_listed_by(&tags, &did, id).await?;
    lab.destroy_one(&made.id).await?;
    let did = format!("{dropped}, then destroyed {old} and {}", made.id);
    lab.await_vanished(&did, &[old.clone(), made.id]).await
}
