//! Waiting until listings show what they have to.

use std::time::Duration;

use longshore_cloud::Tags;
use longshore_types::{InstanceId, format_duration};
use tokio::time::Instant;

use crate::Promise;
use crate::clean::tag_list;
use crate::lab::{Lab, Listing, Step, broken, is_alive};

impl Lab {
    /// Lists by `tags` until `look` finds what it wants, or gives its last complaint after
    /// `within`.
    pub(crate) async fn eventually<T>(
        &self,
        tags: &Tags,
        within: Duration,
        mut look: impl FnMut(&Listing) -> Result<T, String>,
    ) -> Step<Result<T, String>> {
        let until = Instant::now() + within;
        loop {
            let last = Instant::now() >= until;
            let complaint = match look(&self.list(tags).await?) {
                Ok(found) => return Ok(Ok(found)),
                Err(complaint) => complaint,
            };
            if last {
                let within = format_duration(within);
                return Ok(Err(format!("{complaint}, in each listing for {within}")));
            }
            tokio::time::sleep(self.subject.timing.poll).await;
        }
    }

    /// Waits until all of `ids` are listed by the tags of this check.
    pub(crate) async fn await_listed(&self, did: &str, ids: &[InstanceId]) -> Step<Listing> {
        self.await_listed_by(&self.tags, did, ids).await
    }

    /// Waits until all of `ids` are listed by tags that they have.
    pub(crate) async fn await_listed_by(
        &self,
        tags: &Tags,
        did: &str,
        ids: &[InstanceId],
    ) -> Step<Listing> {
        let look = |listing: &Listing| match ids.iter().find(|id| !listing.contains_key(*id)) {
            None => Ok(listing.clone()),
            Some(id) => Err(format!(
                "{id} is not among the {} instance(s) listed by the tags it was made with",
                listing.len()
            )),
        };
        let appear = self.subject.timing.appear;
        let complaint = match self.eventually(tags, appear, look).await? {
            Ok(listing) => return Ok(listing),
            Err(complaint) => complaint,
        };
        let saw = format!("{complaint}; {}", self.listed_without_tags(ids).await?);
        let mut fix = "show in list every instance that create has returned, with its tags, and \
                       read every page"
            .to_owned();
        if !self.capabilities().await?.consistent_listing {
            fix += "; if the provider only is slower than that, tell the suite by \
                    Subject::with_appearance";
        }
        Err(broken(Promise::EveryCreateIsListed, did, &saw, &fix))
    }

    /// What a listing of everything shows of those that a listing by tags does not.
    async fn listed_without_tags(&self, ids: &[InstanceId]) -> Step<String> {
        let all = self.list(&Tags::new()).await?;
        Ok(match ids.iter().find_map(|id| all.get(id)) {
            Some(found) => format!(
                "without tags {} is listed, with the tags {}",
                found.id,
                tag_list(&found.tags).chars().take(500).collect::<String>()
            ),
            None => format!(
                "nor among the {} listed without tags: is the listing cut off?",
                all.len()
            ),
        })
    }

    /// Waits until none of `ids` is listed as pending or running.
    pub(crate) async fn await_vanished(&self, did: &str, ids: &[InstanceId]) -> Step<()> {
        let look = |listing: &Listing| {
            let alive = |id: &&InstanceId| listing.get(*id).is_some_and(is_alive);
            match ids.iter().find(alive) {
                None => Ok(()),
                Some(id) => Err(format!("{id} is still listed as {:?}", listing[id].state)),
            }
        };
        let vanish = self.subject.timing.vanish;
        let seen = self.eventually(&self.tags, vanish, look).await?;
        let fix = "destroy what destroy says Ok about, and list it as Stopping, Gone or not at \
                   all; if the provider only is slower than that, tell the suite by \
                   Subject::with_vanishing";
        seen.map_err(|saw| broken(Promise::DestroyedInstancesVanish, did, &saw, fix))
    }

    /// Waits as long as listings may lag; not at all if they must not.
    pub(crate) async fn let_listings_settle(&self) -> Step<()> {
        if !self.capabilities().await?.consistent_listing {
            tokio::time::sleep(self.subject.timing.appear).await;
        }
        Ok(())
    }
}
