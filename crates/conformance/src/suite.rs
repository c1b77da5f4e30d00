//! All promises, one after the other.

use crate::lab::Lab;
use crate::{Finding, Promise, Report, Subject, Verdict};

/// The promises to look at, in their order.
///
/// ```
/// # use longshore_conformance::{Promise, Subject, Suite};
/// # async fn look(subject: &Subject) {
/// let report = Suite::new()
///     .without(Promise::ListsMoreThanOnePage, "the account may have 20 instances")
///     .run(subject)
///     .await;
/// eprintln!("{report}");
/// report.assert_kept();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// What to look at; with a reason, what not to.
    plan: Vec<(Promise, Option<String>)>,
}

impl Default for Suite {
    fn default() -> Self {
        Self::new()
    }
}

impl Suite {
    /// All promises.
    pub fn new() -> Self {
        Self::only(Promise::ALL)
    }

    /// Some promises.
    ///
    /// ```
    /// use longshore_conformance::{Promise, Suite};
    /// let about_tags = Promise::ALL.iter().filter(|p| p.name().contains("tag"));
    /// let suite = Suite::only(&about_tags.copied().collect::<Vec<_>>());
    /// assert_ne!(suite, Suite::new());
    /// ```
    pub fn only(promises: &[Promise]) -> Self {
        Self {
            plan: promises.iter().map(|promise| (*promise, None)).collect(),
        }
    }

    /// Does not look at a promise; the report says so, and why.
    #[must_use]
    pub fn without(mut self, promise: Promise, why: impl Into<String>) -> Self {
        let why = why.into();
        for (planned, reason) in &mut self.plan {
            if *planned == promise {
                *reason = Some(why.clone());
            }
        }
        self
    }

    /// Looks at one promise after the other, and removes at the end whatever is left of the run.
    ///
    /// Takes as long as the provider does; always ends, because each call and each wait is
    /// bounded. May be dropped: what was made is then removed in the background, as long as the
    /// runtime lives.
    pub async fn run(&self, subject: &Subject) -> Report {
        self.run_and_tell(subject, |_| {}).await
    }

    /// Like [`Suite::run`], and tells of each finding as soon as it is there: where a provider is
    /// slow, or a driver hangs, that is sooner than the report.
    ///
    /// ```
    /// # use longshore_conformance::{Subject, Suite};
    /// # async fn look(subject: &Subject) {
    /// eprintln!("run {}", subject.run());
    /// let report = Suite::new().run_and_tell(subject, |finding| eprintln!("{finding}")).await;
    /// assert!(report.into_result().is_ok(), "not every promise is kept");
    /// # }
    /// ```
    pub async fn run_and_tell(
        &self,
        subject: &Subject,
        mut tell: impl FnMut(&Finding) + Send,
    ) -> Report {
        let mut report = Report::new(name_of(subject).await, subject.run());
        for (promise, why) in &self.plan {
            let finding = match why.clone().or_else(|| too_many(subject, *promise, &report)) {
                None => promise.check(subject).await,
                Some(why) => Finding::new(*promise, Verdict::NotRun { why }),
            };
            tell(&finding);
            report.findings.push(finding);
        }
        if report.findings.iter().any(|finding| finding.creates > 0) {
            report.left_behind = subject.clean_up().await;
            let told = |id| {
                let mut all = report.findings.iter().flat_map(|f| &f.left_behind);
                all.any(|left| left.id == id)
            };
            report.left_behind.retain(|left| !told(left.id.clone()));
        }
        report
    }
}

/// Why a promise cannot be looked at beside what could not be removed: each instance costs money.
/// The one that tells why nothing is removed is looked at all the same.
fn too_many(subject: &Subject, promise: Promise, so_far: &Report) -> Option<String> {
    if promise == Promise::DestroyedInstancesVanish {
        return None;
    }
    let left: usize = so_far.findings.iter().map(|f| f.left_behind.len()).sum();
    let needed = promise.instances_at_once();
    (needed > 0 && left > 0 && left + needed > subject.at_once).then(|| {
        format!(
            "{left} instance(s) of this run could not be removed; with the {needed} that it needs \
             there would be more than the {} that are allowed (Subject::with_instances_at_once)",
            subject.at_once
        )
    })
}

/// How the instance set prints itself, whatever it does then.
async fn name_of(subject: &Subject) -> String {
    let lab = Lab::new(subject.clone(), Promise::DisplayNamesTheDriver);
    let name = lab.ask("Display", |set| set.to_string()).await;
    name.unwrap_or_else(|_| "an instance set that cannot be printed".into())
}
