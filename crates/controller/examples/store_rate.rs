//! How many containers a second go through the store (lock, running, ended: three acknowledged
//! writes each), beside the rate of bare syncs in the same directory.
//!
//! `cargo run --release -p longshore-controller --example store_rate [DIRECTORY]` prints one line
//! for each figure: name, value, unit. The directory, by default the one for temporary files,
//! must be on the disk that is meant.

#![expect(clippy::print_stdout, reason = "its purpose")]

use std::error::Error;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use longshore_controller::{NewBatch, NewJob, Settings, Store};
use longshore_queue::{Call, Queue, QueueError};
use longshore_runner_api::StartDocument;
use longshore_types::{Attempt, ContainerUuid, Exit, ExitCause, ResourceRequest};

const TIMEOUT: Duration = Duration::from_secs(60);
const SYNCS: u32 = 500;
const ROUNDS: usize = 3;
const LARGE: usize = 100_000;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let within = std::env::args_os()
        .nth(1)
        .unwrap_or_else(|| std::env::temp_dir().into());
    let directory = tempfile::tempdir_in(within)?;
    // In turn, because the machine may have other work.
    let mut syncs = Vec::new();
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    let mut grouping = Vec::new();
    for round in 0..ROUNDS {
        syncs.push(syncs_per_second(directory.path())?);
        let store = Store::open(
            &directory.path().join(round.to_string()),
            Settings::default(),
        )?;
        let store = Arc::new(store);
        alone.push(cycles_per_second(&store, 1, 200).await?);
        let before = store.stats();
        together.push(cycles_per_second(&store, 32, 4000).await?);
        let after = store.stats();
        let requests = after.requests - before.requests;
        grouping.push(requests as f64 / (after.commits - before.commits) as f64);
    }
    let syncs = median(syncs);
    println!("raw_fsync {syncs:.0} 1/s");
    let alone = median(alone);
    println!("cycles_1_caller {alone:.0} 1/s");
    println!("writes_1_caller_to_fsync {:.2} ratio", alone * 3.0 / syncs);
    let together = median(together);
    println!("cycles_32_callers {together:.0} 1/s");
    println!(
        "writes_32_callers_to_fsync {:.2} ratio",
        together * 3.0 / syncs
    );
    println!("writes_per_commit_32_callers {:.1} n", median(grouping));
    large(&directory.path().join("large")).await
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a commit cannot be faster than: one page of a file written over and synced.
fn syncs_per_second(directory: &Path) -> Result<f64, Failure> {
    let mut file = File::create(directory.join("raw"))?;
    file.write_all(&vec![0; 4096 * SYNCS as usize])?;
    file.sync_all()?;
    file.rewind()?;
    let begun = Instant::now();
    for _ in 0..SYNCS {
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
    }
    Ok(f64::from(SYNCS) / begun.elapsed().as_secs_f64())
}

async fn submit(store: &Store, jobs: usize) -> Result<Vec<ContainerUuid>, Failure> {
    let job = |n| {
        let document = StartDocument::new(vec!["true".into()]);
        NewJob::new(format!("job {n}"), document, ResourceRequest::default())
    };
    let id = store
        .submit_batch(NewBatch {
            key: format!("{jobs} jobs"),
            content_hash: String::new(),
            name: "figures".into(),
            followed: true,
            jobs: (0..jobs).map(job).collect(),
        })
        .await?;
    let jobs = store.job_status(id).await?;
    Ok(jobs.iter().map(|job| job.uuid).collect())
}

async fn cycles_per_second(
    store: &Arc<Store>,
    callers: usize,
    cycles: usize,
) -> Result<f64, Failure> {
    let uuids = submit(store, cycles).await?;
    let begun = Instant::now();
    let callers: Vec<_> = uuids
        .chunks(cycles.div_ceil(callers))
        .map(|chunk| {
            let (store, chunk) = (Arc::clone(store), chunk.to_vec());
            tokio::spawn(async move {
                for uuid in chunk {
                    cycle(&store, uuid).await?;
                }
                Ok::<_, QueueError>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(cycles as f64 / begun.elapsed().as_secs_f64())
}

async fn cycle(store: &Store, uuid: ContainerUuid) -> Result<(), QueueError> {
    let planned = Some("i-1".into());
    let attempt = Attempt(1);
    let lock = Call::Lock { attempt, planned };
    let locked = store.call(uuid, &lock, TIMEOUT).await?;
    let attempt = locked.container.attempt();
    let started_at = None;
    let running = Call::Running {
        attempt,
        started_at,
    };
    store.call(uuid, &running, TIMEOUT).await?;
    let exit = Exit::unseen(ExitCause::Exited { code: 0 });
    store
        .call(uuid, &Call::Ended { attempt, exit }, TIMEOUT)
        .await?;
    Ok(())
}

/// Figures of a store with many containers.
async fn large(directory: &Path) -> Result<(), Failure> {
    let store = Store::open(directory, Settings::default())?;
    let empty = resident_bytes()?;
    let begun = Instant::now();
    let uuids = submit(&store, 10_000).await?;
    println!("submit_10000_jobs {} ms", begun.elapsed().as_millis());
    drop(uuids);
    drop(submit(&store, LARGE - 10_000).await?);
    let grown = resident_bytes()?.saturating_sub(empty);
    println!(
        "resident_per_container_after_submit {} B",
        grown / LARGE as u64
    );
    let begun = Instant::now();
    let refresh = store.refresh(&[], TIMEOUT).await?;
    println!(
        "refresh_{} {} ms",
        refresh.containers.len(),
        begun.elapsed().as_millis()
    );
    Ok(())
}

fn resident_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = status.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4096)
}
