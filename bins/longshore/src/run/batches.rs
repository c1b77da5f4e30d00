//! Which batches the files of a command line mean: new ones, or unfinished ones of an earlier run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use longshore_controller::{BatchId, Store};

use crate::cli::RunArgs;
use crate::ending::UsageError;
use crate::jobfile::{Job, JobFile};
use crate::service::Jobs;
use crate::service::view::{BatchView, NewBatchView, NewJobView};
use crate::tell;

/// Where batches of earlier runs are looked for.
pub(super) trait EarlierBatches {
    async fn find(&self, key: &str) -> anyhow::Result<Option<BatchView>>;
    async fn abandon(&self, id: u64) -> anyhow::Result<()>;
}

impl EarlierBatches for Jobs {
    async fn find(&self, key: &str) -> anyhow::Result<Option<BatchView>> {
        self.find_batch(key).await
    }

    async fn abandon(&self, id: u64) -> anyhow::Result<()> {
        self.abandon_batch(id).await.map(|_| ())
    }
}

impl EarlierBatches for Store {
    async fn find(&self, key: &str) -> anyhow::Result<Option<BatchView>> {
        Ok(self.find_batch(key).await?.map(BatchView::from))
    }

    async fn abandon(&self, id: u64) -> anyhow::Result<()> {
        self.abandon_batch(BatchId(id)).await?;
        Ok(())
    }
}

/// Of which files it is settled whether an earlier run is gone on with, by path, with the batch
/// that is: for whoever begins again because a service has gone.
#[derive(Debug, Default)]
pub(super) struct Settled(BTreeMap<PathBuf, Option<u64>>);

/// The batches of a command line, in order.
#[derive(Debug)]
pub(super) struct Batches<'s> {
    planned: Vec<Planned>,
    settled: &'s mut Settled,
}

#[derive(Debug)]
struct Planned {
    file: JobFile,
    /// The batch of an earlier run that is gone on with, or the one that was begun.
    id: Option<u64>,
    resumed: bool,
    /// It was followed to its end.
    finished: bool,
}

impl<'s> Batches<'s> {
    /// Finds what earlier runs left unfinished. A file that has changed since is an error, unless
    /// the arguments say what to do, or it is settled.
    pub(super) async fn find(
        args: &RunArgs,
        files: Vec<JobFile>,
        settled: &'s mut Settled,
        store: &impl EarlierBatches,
    ) -> anyhow::Result<Self> {
        let mut planned = Vec::new();
        for file in files {
            let before = settled.0.get(&file.path).copied();
            let id = match store.find(&key(&file)?).await? {
                Some(batch) if before == Some(Some(batch.id)) => Some(batch.id),
                Some(batch) if args.new && before.is_none() => {
                    store.abandon(batch.id).await?;
                    None
                }
                Some(batch) if args.resume || batch.content_hash == file.hash => Some(batch.id),
                Some(_) => return Err(changed(&file).into()),
                None => None,
            };
            settled.0.insert(file.path.clone(), id);
            planned.push(Planned {
                file,
                resumed: id.is_some(),
                id,
                finished: false,
            });
        }
        Ok(Self { planned, settled })
    }

    pub(super) fn len(&self) -> usize {
        self.planned.len()
    }

    /// What the user should know before it begins.
    pub(super) async fn notes(&self, store: &Jobs) -> anyhow::Result<Vec<String>> {
        let resumed = self.planned.iter().filter(|planned| planned.resumed);
        let mut notes: Vec<String> = resumed
            .map(|planned| {
                let path = planned.file.path.display();
                format!("{path}: going on with an earlier run (--new starts over)")
            })
            .collect();
        if matches!(store, Jobs::There(_)) {
            // A service has the jobs of many, which is nothing to note.
            return Ok(notes);
        }
        let ours: Vec<u64> = self
            .planned
            .iter()
            .filter_map(|planned| planned.id)
            .collect();
        let unfinished = store.unfinished_batches().await?;
        let others = unfinished.iter().filter(|batch| !ours.contains(&batch.id));
        notes.extend(others.map(about_unfinished));
        Ok(notes)
    }

    /// Submits the batch unless it is there.
    pub(super) async fn begin(&mut self, n: usize, store: &Jobs) -> anyhow::Result<u64> {
        let planned = &mut self.planned[n];
        if let Some(id) = planned.id {
            return Ok(id);
        }
        let file = &mut planned.file;
        let id = store.submit(new_batch(file, true)?).await?;
        planned.id = Some(id);
        self.settled.0.insert(file.path.clone(), Some(id));
        Ok(id)
    }

    /// The `n`th was followed to its end.
    pub(super) fn finish(&mut self, n: usize) {
        self.planned[n].finished = true;
    }

    /// Says which files are not run since the `n`th has failed.
    pub(super) fn tell_what_is_not_run(&self, n: usize) {
        for planned in &self.planned[n + 1..] {
            let path = planned.file.path.display();
            if planned.resumed {
                tell!("not followed: {path}; its jobs are left as they are");
            } else {
                tell!("not run: {path}");
            }
        }
    }

    /// The run is over: the next one of the files whose results were shown is a new one.
    pub(super) async fn close(&self, store: &impl EarlierBatches) -> anyhow::Result<()> {
        let finished = self.planned.iter().filter(|planned| planned.finished);
        for id in finished.filter_map(|planned| planned.id) {
            // Nothing is left in it to cancel; it is only not found any more.
            store.abandon(id).await?;
        }
        Ok(())
    }
}

/// What is said of a batch that is not of this run.
fn about_unfinished(batch: &BatchView) -> String {
    let BatchView { id, key, name, .. } = batch;
    // Only what a file was submitted from can be run again.
    if Path::new(key).is_absolute() {
        return format!(
            "{key}: an earlier run of it is unfinished, and its jobs run beside these; \
             `longshore run {key}` waits for them"
        );
    }
    format!(
        "{name}: was submitted and is unfinished, and runs beside these; \
         `longshore list --batch {id}` shows it"
    )
}

pub(crate) fn key(file: &JobFile) -> anyhow::Result<String> {
    let path = file.path.to_str();
    path.map(str::to_owned)
        .with_context(|| format!("the path {} is not UTF-8; rename it", file.path.display()))
}

fn changed(file: &JobFile) -> UsageError {
    UsageError::new(format!(
        "{}: has changed since a run of it was interrupted; --resume goes on with the jobs as \
         they were, --new gives them up and starts over",
        file.path.display()
    ))
}

/// The batch of a file, whose jobs are taken, and whether it is followed to its end.
pub(crate) fn new_batch(file: &mut JobFile, followed: bool) -> anyhow::Result<NewBatchView> {
    let jobs = std::mem::take(&mut file.jobs).into_iter();
    Ok(NewBatchView {
        key: key(file)?,
        content_hash: file.hash.clone(),
        name: file.name.clone(),
        followed,
        jobs: jobs.map(new_job).collect(),
    })
}

fn new_job(job: Job) -> NewJobView {
    NewJobView {
        name: job.name,
        document: job.document,
        request: job.request,
        priority: job.priority,
        retries: job.retries,
        keep_output: job.keep_output,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use clap::Parser as _;
    use longshore_types::Timestamp;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::service::view::CountsView;

    /// The newest batch of each key, and which were abandoned.
    #[derive(Default)]
    struct Memory {
        batches: BTreeMap<String, BatchView>,
        abandoned: Mutex<Vec<u64>>,
    }

    impl Memory {
        fn put(&mut self, key: &str, id: u64, hash: &str) {
            self.batches.insert(key.to_owned(), batch(key, id, hash));
        }

        fn abandoned(&self) -> Vec<u64> {
            self.abandoned.lock().unwrap().clone()
        }
    }

    impl EarlierBatches for Memory {
        async fn find(&self, key: &str) -> anyhow::Result<Option<BatchView>> {
            let found = self.batches.get(key);
            let there = |batch: &&BatchView| !self.abandoned().contains(&batch.id);
            Ok(found.filter(there).cloned())
        }

        async fn abandon(&self, id: u64) -> anyhow::Result<()> {
            self.abandoned.lock().unwrap().push(id);
            Ok(())
        }
    }

    fn batch(key: &str, id: u64, hash: &str) -> BatchView {
        BatchView {
            id,
            key: key.to_owned(),
            content_hash: hash.to_owned(),
            name: "nightly".to_owned(),
            created_at: Timestamp(0),
            finished_at: None,
            cancelled: false,
            counts: CountsView::default(),
            revision: 1,
        }
    }

    fn file(path: &str, hash: &str) -> JobFile {
        JobFile {
            path: path.into(),
            hash: hash.to_owned(),
            name: path.to_owned(),
            jobs: Vec::new(),
        }
    }

    fn args(options: &[&str]) -> RunArgs {
        let line = ["longshore", "run", "/a"].iter().chain(options).copied();
        match Cli::parse_from(line).command {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn only_what_was_followed_to_its_end_is_closed() {
        let (mut memory, mut settled) = (Memory::default(), Settled::default());
        memory.put("/a", 1, "same");
        memory.put("/b", 2, "same");
        let files = vec![file("/a", "same"), file("/b", "same")];
        let mut batches = Batches::find(&args(&[]), files, &mut settled, &memory)
            .await
            .unwrap();
        batches.finish(0);
        batches.close(&memory).await.unwrap();
        assert_eq!(memory.abandoned(), [1]);
    }

    #[tokio::test]
    async fn what_the_arguments_say_holds_until_it_is_done_and_no_longer() {
        let (mut memory, mut settled) = (Memory::default(), Settled::default());
        memory.put("/a", 1, "old");
        let files = || vec![file("/a", "new")];

        // A service that goes away before anything is found answers no question.
        let asked = Batches::find(&args(&[]), files(), &mut settled, &memory).await;
        let said = asked.unwrap_err().to_string();
        assert!(
            said.contains("--resume") && said.contains("--new"),
            "{said}"
        );

        let anew = args(&["--new"]);
        let batches = Batches::find(&anew, files(), &mut settled, &memory).await;
        assert_eq!(batches.unwrap().planned[0].id, None);
        assert_eq!(memory.abandoned(), [1]);
        // Nobody knows whether it was submitted when the service went away: here it was.
        memory.put("/a", 2, "new");
        let batches = Batches::find(&anew, files(), &mut settled, &memory).await;
        assert_eq!(batches.unwrap().planned[0].id, Some(2));
        assert_eq!(memory.abandoned(), [1]);
        // What somebody else made of it meanwhile is not gone on with unasked.
        memory.put("/a", 3, "old");
        let asked = Batches::find(&anew, files(), &mut settled, &memory).await;
        assert!(asked.unwrap_err().to_string().contains("has changed"));
    }

    #[tokio::test]
    async fn what_is_gone_on_with_is_found_again_though_its_file_has_changed() {
        let (mut memory, mut settled) = (Memory::default(), Settled::default());
        memory.put("/a", 1, "old");
        let files = || vec![file("/a", "new")];
        let resume = args(&["--resume"]);
        Batches::find(&resume, files(), &mut settled, &memory)
            .await
            .unwrap();
        let again = Batches::find(&args(&[]), files(), &mut settled, &memory).await;
        assert_eq!(again.unwrap().planned[0].id, Some(1));
    }

    #[test]
    fn only_files_are_said_to_be_run_again() {
        let said = about_unfinished(&batch("/jobs.yml", 4, ""));
        assert!(said.contains("`longshore run /jobs.yml`"), "{said}");
        let said = about_unfinished(&batch("command:4f", 5, ""));
        assert!(!said.contains("longshore run"), "{said}");
        assert!(
            said.contains("nightly") && said.contains("--batch 5"),
            "{said}"
        );
    }
}
