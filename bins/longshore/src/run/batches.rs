//! Which batches the files of a command line mean: new ones, or unfinished ones of an earlier run.

use anyhow::Context as _;

use crate::cli::RunArgs;
use crate::ending::UsageError;
use crate::jobfile::{Job, JobFile};
use crate::service::Jobs;
use crate::service::view::{NewBatchView, NewJobView};

/// The batches of a command line, in order.
#[derive(Debug)]
pub(super) struct Batches(Vec<Planned>);

#[derive(Debug)]
struct Planned {
    file: JobFile,
    /// The batch of an earlier run that is gone on with, or the one that was begun.
    id: Option<u64>,
    resumed: bool,
}

impl Batches {
    /// Finds what earlier runs left unfinished. A file that has changed since is an error, unless
    /// the arguments say what to do.
    pub(super) async fn find(
        args: &RunArgs,
        files: Vec<JobFile>,
        store: &Jobs,
    ) -> anyhow::Result<Self> {
        let mut planned = Vec::new();
        for file in files {
            let found = store.find_batch(&key(&file)?).await?;
            let id = match found {
                Some(batch) if args.new => {
                    store.abandon_batch(batch.id).await?;
                    None
                }
                Some(batch) if args.resume || batch.content_hash == file.hash => Some(batch.id),
                Some(_) => return Err(changed(&file).into()),
                None => None,
            };
            planned.push(Planned {
                file,
                resumed: id.is_some(),
                id,
            });
        }
        Ok(Self(planned))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What the user should know before it begins.
    pub(super) async fn notes(&self, store: &Jobs) -> anyhow::Result<Vec<String>> {
        let resumed = self.0.iter().filter(|planned| planned.resumed);
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
        let ours: Vec<u64> = self.0.iter().filter_map(|planned| planned.id).collect();
        let unfinished = store.unfinished_batches().await?;
        let others = unfinished.iter().filter(|batch| !ours.contains(&batch.id));
        notes.extend(others.map(|batch| {
            let path = &batch.key;
            format!(
                "{path}: an earlier run of it is unfinished, and its jobs run beside these; \
                 `longshore run {path}` waits for them"
            )
        }));
        Ok(notes)
    }

    /// Submits the batch unless it is there.
    pub(super) async fn begin(&mut self, n: usize, store: &Jobs) -> anyhow::Result<u64> {
        let planned = &mut self.0[n];
        if let Some(id) = planned.id {
            return Ok(id);
        }
        let file = &mut planned.file;
        let id = store.submit(new_batch(file, true)?).await?;
        planned.id = Some(id);
        Ok(id)
    }

    /// Says which files are not run since the `n`th has failed.
    pub(super) fn tell_what_is_not_run(&self, n: usize) {
        for planned in &self.0[n + 1..] {
            eprintln!("not run: {}", planned.file.path.display());
        }
    }

    /// The run is over and its results were shown: the next one of these files is a new one.
    pub(super) async fn close(&self, store: &Jobs) -> anyhow::Result<()> {
        for id in self.0.iter().filter_map(|planned| planned.id) {
            // Nothing is left in it to cancel; it is only not found any more.
            store.abandon_batch(id).await?;
        }
        Ok(())
    }
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
