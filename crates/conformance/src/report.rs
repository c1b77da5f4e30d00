//! What was found.

use std::fmt::{self, Write as _};
use std::time::Duration;

use longshore_types::{InstanceId, format_duration};

use crate::Promise;

/// Whether a promise is kept.
///
/// ```
/// use longshore_conformance::Verdict;
/// assert!(!Verdict::NotRun { why: "it needs 1001 instances".into() }.is_broken());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever acts on it must decide about all three"
)]
pub enum Verdict {
    /// As far as this run could see.
    Kept,
    /// It is not.
    Broken {
        /// What was done, what was seen, what the contract says, and what to fix.
        what: String,
    },
    /// Nothing can be said.
    NotRun {
        /// What would have to be different.
        why: String,
    },
}

impl Verdict {
    /// Whether the promise is broken.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken { .. })
    }

    /// Whether the promise is kept: neither broken nor not run.
    ///
    /// ```
    /// assert!(longshore_conformance::Verdict::Kept.is_kept());
    /// ```
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept)
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken { .. } => "BROKEN",
            Self::NotRun { .. } => "not run",
        }
    }

    fn words(&self) -> Option<&str> {
        match self {
            Self::Kept => None,
            Self::Broken { what } => Some(what),
            Self::NotRun { why } => Some(why),
        }
    }
}

/// An instance that the suite made and could not remove. It may cost money: remove it by hand.
///
/// ```
/// use longshore_conformance::LeftBehind;
/// let left = LeftBehind::new("i-1", "destroy: ec2: destroy: denied");
/// assert_eq!(left.to_string(), "i-1 (destroy: ec2: destroy: denied)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftBehind {
    /// Which; empty if a create may have made one that was never seen.
    pub id: InstanceId,
    /// What was tried, and what came of it.
    pub why: String,
}

impl LeftBehind {
    /// An instance that could not be removed, and why.
    pub fn new(id: impl Into<InstanceId>, why: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            why: why.into(),
        }
    }
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id.as_str() {
            "" => write!(f, "an instance whose id is not known ({})", self.why),
            id => write!(f, "{id} ({})", self.why),
        }
    }
}

/// What was found about one promise.
///
/// ```
/// # use longshore_conformance::{Subject, promises};
/// # async fn look(subject: &Subject) {
/// let finding = promises::tags_from_birth(subject).await;
/// eprintln!("{finding}");
/// finding.assert_kept();
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Which promise.
    pub promise: Promise,
    /// Whether it is kept.
    pub verdict: Verdict,
    /// How many times an instance was asked for.
    pub creates: usize,
    /// How long it took, removing what was made included.
    pub took: Duration,
    /// What could not be removed.
    pub left_behind: Vec<LeftBehind>,
}

impl Finding {
    /// A finding that made nothing and left nothing.
    ///
    /// ```
    /// use longshore_conformance::{Finding, Promise, Verdict};
    /// let finding = Finding::new(Promise::ALL[0], Verdict::Kept);
    /// assert!(finding.left_behind.is_empty());
    /// ```
    pub fn new(promise: Promise, verdict: Verdict) -> Self {
        Self {
            promise,
            verdict,
            creates: 0,
            took: Duration::ZERO,
            left_behind: Vec::new(),
        }
    }

    /// Does nothing if the promise is kept or was not run, and everything was removed.
    ///
    /// # Panics
    ///
    /// With the finding in words otherwise; for tests.
    #[track_caller]
    pub fn assert_kept(&self) {
        assert!(self.is_fine(), "{self}");
    }

    fn is_fine(&self) -> bool {
        !self.verdict.is_broken() && self.left_behind.is_empty()
    }
}

impl fmt::Display for Finding {
    /// One line, and what was found below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = format_duration(self.took);
        write!(
            f,
            "{:<8} {:<42} {:>7} {:>8}  {}",
            self.verdict.word(),
            self.promise.name(),
            self.creates,
            took,
            self.promise.says(),
        )?;
        if let Some(words) = self.verdict.words() {
            for line in words.lines() {
                write!(f, "\n           {line}")?;
            }
        }
        for left in &self.left_behind {
            write!(f, "\n           LEFT BEHIND: {left}")?;
        }
        Ok(())
    }
}

/// A driver that does not keep its promises; prints the report.
///
/// ```
/// # use longshore_conformance::{NotKept, Subject, Suite};
/// # async fn look(subject: &Subject) -> Result<(), NotKept> {
/// let report = Suite::new().run(subject).await.into_result()?;
/// eprintln!("{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{trouble}\n{0}", trouble = .0.trouble())]
pub struct NotKept(pub Box<Report>);

impl fmt::Debug for NotKept {
    /// As it is displayed: this is what a `main` that returns it shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What was found about an instance set; prints as a table for people.
///
/// ```
/// use longshore_conformance::{Finding, Promise, Report, Verdict};
/// let mut report = Report::new("Ec2(us-east-1)", "run-1");
/// report.findings.push(Finding::new(Promise::TagsFromBirth, Verdict::Kept));
/// report.assert_kept();
/// assert!(report.to_string().contains("1 kept, 0 broken, 0 not run"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The instance set, as it prints itself.
    pub subject: String,
    /// The name of the run.
    pub run: String,
    /// One for each promise that was to be looked at, in their order.
    pub findings: Vec<Finding>,
    /// What was still there of the run at its end and could not be removed, beside what the
    /// findings say.
    pub left_behind: Vec<LeftBehind>,
}

impl Report {
    /// A report without findings.
    pub fn new(subject: impl Into<String>, run: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            run: run.into(),
            findings: Vec::new(),
            left_behind: Vec::new(),
        }
    }

    /// What was found about a promise; none if it was not to be looked at.
    ///
    /// ```
    /// use longshore_conformance::{Promise, Report};
    /// assert!(Report::new("X", "run").finding(Promise::TagsFromBirth).is_none());
    /// ```
    pub fn finding(&self, promise: Promise) -> Option<&Finding> {
        self.findings.iter().find(|f| f.promise == promise)
    }

    /// The promises that are broken.
    ///
    /// ```
    /// # use longshore_conformance::Report;
    /// let report = Report::new("X", "run");
    /// assert_eq!(report.broken().count() + report.not_run().count(), 0);
    /// ```
    pub fn broken(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.verdict.is_broken())
    }

    /// The promises about which nothing can be said. A test that wants all of them looked at
    /// asserts that there are none, or only those that it expects.
    pub fn not_run(&self) -> impl Iterator<Item = &Finding> {
        let not_run = |f: &&Finding| matches!(f.verdict, Verdict::NotRun { .. });
        self.findings.iter().filter(not_run)
    }

    /// The report if no promise is broken and everything was removed.
    pub fn into_result(self) -> Result<Self, NotKept> {
        if self.is_fine() {
            Ok(self)
        } else {
            Err(NotKept(Box::new(self)))
        }
    }

    /// Does nothing if no promise is broken and everything was removed.
    ///
    /// # Panics
    ///
    /// With the report in words otherwise; for tests.
    #[track_caller]
    pub fn assert_kept(&self) {
        assert!(self.is_fine(), "{}\n{self}", self.trouble());
    }

    fn is_fine(&self) -> bool {
        self.left_behind.is_empty() && self.findings.iter().all(Finding::is_fine)
    }

    /// How many instances could not be removed.
    fn left(&self) -> usize {
        let told = self
            .findings
            .iter()
            .map(|finding| finding.left_behind.len());
        told.sum::<usize>() + self.left_behind.len()
    }

    /// What is not fine, in a few words.
    fn trouble(&self) -> &'static str {
        match (self.broken().next().is_some(), self.left()) {
            (true, 0) => "not every promise is kept",
            (true, _) => "not every promise is kept, and not everything was removed",
            (false, _) => "not everything was removed",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (broken, not_run) = (self.broken().count(), self.not_run().count());
        let kept = self.findings.len() - broken - not_run;
        let creates: usize = self.findings.iter().map(|finding| finding.creates).sum();
        writeln!(f, "{} (run {})", self.subject, self.run)?;
        write!(
            f,
            "{kept} kept, {broken} broken, {not_run} not run; {creates} creates"
        )?;
        match self.left() {
            0 => writeln!(f)?,
            left => writeln!(f, ", {left} LEFT BEHIND")?,
        }
        write!(
            f,
            "{:<8} {:<42} {:>7} {:>8}  what it promises",
            "", "promise", "creates", "took"
        )?;
        for finding in &self.findings {
            write!(f, "\n{finding}")?;
        }
        let mut left = String::new();
        for one in &self.left_behind {
            write!(left, "\n  {one}")?;
        }
        if !left.is_empty() {
            write!(
                f,
                "\nLEFT BEHIND at the end, remove it by hand (tag {}={}):{left}",
                crate::RUN_TAG,
                self.run
            )?;
        }
        Ok(())
    }
}
