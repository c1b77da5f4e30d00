//! Waiting until the provider has time for a call.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use longshore_cloud::{CloudError, ErrorKind, Tags};
use longshore_types::{InstanceId, format_duration};
use tokio::time::Instant;

use crate::lab::{Answers, Lab, Step, Stop};

impl Lab {
    /// Destroys, and gives the answers as they are. Waits if the provider wants fewer calls.
    pub(crate) async fn destroy(&self, ids: &[InstanceId]) -> Step<Answers> {
        let timeout = self.subject.timing.call;
        let call = |ids: Vec<InstanceId>| async move { self.destroy_within(&ids, timeout).await };
        self.batch_patiently(ids, |id| id, call).await
    }

    /// Sets tags, and gives the answers as they are. Waits if the provider wants fewer calls.
    pub(crate) async fn set_tags(&self, changes: &[(InstanceId, Tags)]) -> Step<Answers> {
        let timeout = self.subject.timing.call;
        let call = |changes: Vec<(InstanceId, Tags)>| async move {
            self.set_tags_within(&changes, timeout).await
        };
        self.batch_patiently(changes, |(id, _)| id, call).await
    }

    /// Makes a call about several instances, and again about those that were refused for the
    /// rate.
    async fn batch_patiently<T, F, R>(
        &self,
        asked: &[T],
        id_of: fn(&T) -> &InstanceId,
        call: F,
    ) -> Step<Answers>
    where
        T: Clone,
        F: Fn(Vec<T>) -> R,
        R: Future<Output = Step<Answers>>,
    {
        let until = Instant::now() + self.subject.timing.vanish;
        let (mut asked, mut answers) = (asked.to_vec(), Answers::new());
        loop {
            let mut given = call(asked.clone()).await?;
            let (mut limited, mut refusal) = (BTreeSet::new(), None);
            for (id, answer) in &given {
                if let Err(error) = answer
                    && let Some(pause) = pause_of(error)
                    && asked.iter().any(|one| id_of(one) == id)
                {
                    limited.insert(id.clone());
                    refusal = refusal.max(Some((pause, error.chain())));
                }
            }
            // One that was named twice is asked about twice again.
            given.retain(|(id, _)| !limited.contains(id));
            answers.extend(given);
            let Some((pause, words)) = refusal else {
                return Ok(answers);
            };
            asked.retain(|one| limited.contains(id_of(one)));
            self.pause(pause, until, &words).await?;
        }
    }

    /// Makes a call, and again if it was refused for the rate.
    pub(crate) async fn patiently<T, F, R>(&self, call: F) -> Step<Result<T, CloudError>>
    where
        F: Fn() -> R,
        R: Future<Output = Step<Result<T, CloudError>>>,
    {
        let until = Instant::now() + self.subject.timing.vanish;
        loop {
            let answer = call().await?;
            let refusal = match &answer {
                Err(error) => pause_of(error).map(|pause| (pause, error.chain())),
                Ok(_) => None,
            };
            let Some((pause, words)) = refusal else {
                return Ok(answer);
            };
            self.pause(pause, until, &words).await?;
        }
    }

    async fn pause(&self, pause: Duration, until: Instant, words: &str) -> Step<()> {
        let pause = pause.max(self.subject.timing.poll);
        if Instant::now() + pause > until {
            return Err(Stop::NotRun(format!(
                "the provider wanted fewer calls for {}: {words}",
                format_duration(self.subject.timing.vanish)
            )));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// How long the provider wants to be left alone; none if that is not what it says. A word of
/// years is not believed, as it has to be added to a moment.
fn pause_of(error: &CloudError) -> Option<Duration> {
    const MOST: Duration = Duration::from_secs(86_400);
    match error.kind {
        ErrorKind::RateLimited { retry_after } => Some(retry_after.unwrap_or_default().min(MOST)),
        _ => None,
    }
}
