//! A process that is killed while it writes: every acknowledged write is there afterwards.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

mod common;

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{batch, ended, lock_for, open, running, uuids};
use longshore_controller::{BatchId, Store};
use longshore_queue::Reply;
use longshore_types::{ContainerState, ContainerUuid, ExitCause};

const DIRECTORY: &str = "LONGSHORE_TEST_CRASH_DIRECTORY";
const ROUNDS: u64 = 12;
const JOBS: usize = 40;
const BATCH: usize = 50;

/// How far a container has come, as a number that only grows.
fn progress(state: ContainerState, lock_count: u32) -> u32 {
    let step = match state {
        ContainerState::Locked => 0,
        ContainerState::Running => 1,
        ContainerState::Queued => 2,
        other => panic!("{other} does not happen here"),
    };
    // An attempt is locked, running, and then queued again.
    (lock_count * 3 + step).saturating_sub(if lock_count == 0 { 2 } else { 0 })
}

/// One line in one write, so that what the parent reads was acknowledged.
fn say(line: &str) {
    let mut out = std::io::stdout();
    out.write_all(format!("\nACK {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn acknowledge(reply: &Reply) {
    let container = &reply.container;
    let progress = progress(container.state, container.lock_count);
    say(&format!("{} {progress}", container.uuid));
}

/// What the child does until it is killed.
#[tokio::main]
async fn write_for_ever(directory: &Path) {
    let store = Arc::new(open(directory));
    let main = store.find_batch("main").await.unwrap().unwrap().id;
    let all = uuids(&store, main).await;
    let mut tasks: Vec<_> = all
        .chunks(JOBS / 8)
        .map(|chunk| tokio::spawn(lose_for_ever(Arc::clone(&store), chunk.to_vec())))
        .collect();
    tasks.push(tokio::spawn(async move {
        loop {
            let key = format!("batch {:?}", std::time::SystemTime::now());
            let id = store.submit_batch(batch(&key, BATCH)).await.unwrap();
            say(&format!("batch {id}"));
        }
    }));
    for task in tasks {
        task.await.unwrap();
    }
}

async fn lose_for_ever(store: Arc<Store>, uuids: Vec<ContainerUuid>) {
    // An earlier child may have left them in any state.
    let jobs = store.find_batch("main").await.unwrap().unwrap().id;
    let jobs = store.job_status(jobs).await.unwrap();
    let mut attempts = BTreeMap::new();
    for job in jobs.iter().filter(|job| uuids.contains(&job.uuid)) {
        attempts.insert(job.uuid, job.attempts);
        if job.state != ContainerState::Queued {
            let lost = ended(&store, job.uuid, job.attempts, ExitCause::InstanceLost).await;
            acknowledge(&lost.unwrap());
        }
    }
    loop {
        for &uuid in &uuids {
            let attempt = attempts[&uuid] + 1;
            attempts.insert(uuid, attempt);
            acknowledge(&lock_for(&store, uuid, attempt).await.unwrap());
            acknowledge(&running(&store, uuid, attempt).await.unwrap());
            let lost = ended(&store, uuid, attempt, ExitCause::InstanceLost).await;
            acknowledge(&lost.unwrap());
        }
    }
}

#[derive(Default)]
struct Acknowledged {
    progress: BTreeMap<ContainerUuid, u32>,
    batches: Vec<u64>,
    count: u64,
}

/// Starts a child, kills it after so many acknowledgements, and returns all of them.
fn kill_after(directory: &Path, count: u64, acknowledged: &mut Acknowledged) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "acknowledged_writes_survive_a_kill",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = 0;
    for line in lines.map_while(Result::ok) {
        let Some(line) = line.strip_prefix("ACK ") else {
            continue;
        };
        seen += 1;
        let (what, number) = line.split_once(' ').unwrap();
        if what == "batch" {
            acknowledged.batches.push(number.parse().unwrap());
        } else {
            let number = number.parse().unwrap();
            acknowledged.progress.insert(what.parse().unwrap(), number);
        }
        if seen == count {
            child.kill().unwrap();
        }
    }
    assert!(seen >= count, "the child ended by itself after {seen}");
    acknowledged.count += seen;
    child.wait().unwrap();
}

async fn check(directory: &Path, acknowledged: &mut Acknowledged) {
    let path = directory.join("store.sqlite");
    let database = rusqlite::Connection::open(&path).unwrap();
    let sound: String = database
        .query_row("PRAGMA integrity_check", (), |row| row.get(0))
        .unwrap();
    assert_eq!(sound, "ok");
    let torn: i64 = database
        .query_row(
            "SELECT count(*) FROM batches b WHERE key <> 'main' AND \
             (SELECT count(*) FROM containers c JOIN documents d ON d.container = c.id \
              WHERE c.batch = b.id) <> ?1",
            [BATCH as i64],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(torn, 0, "a batch is there in part");
    drop(database);

    let store = open(directory);
    let main = store.find_batch("main").await.unwrap().unwrap().id;
    for job in store.job_status(main).await.unwrap() {
        let stored = progress(job.state, job.attempts);
        let told = acknowledged.progress.get(&job.uuid).copied().unwrap_or(0);
        // One more step may have been written and not been told of: from Locked also the one to
        // Queued, with which a new child begins.
        let next = if told % 3 == 0 { told + 2 } else { told + 1 };
        assert!(
            (told..=next).contains(&stored),
            "{}: {told} acknowledged, {stored} stored",
            job.uuid
        );
        // What was read is known from now on.
        acknowledged.progress.insert(job.uuid, stored);
    }
    for &id in &acknowledged.batches {
        let status = store.batch_status(BatchId(id)).await.unwrap();
        assert_eq!(status.counts.queued, BATCH as u64);
    }
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        return write_for_ever(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(directory.path());
        let mut main = batch("main", JOBS);
        for job in &mut main.jobs {
            job.retries = u32::MAX;
        }
        store.submit_batch(main).await.unwrap();
    });
    let mut acknowledged = Acknowledged::default();
    for round in 1..=ROUNDS {
        let count = 1 + round * round * 7919 % 700;
        kill_after(directory.path(), count, &mut acknowledged);
        runtime.block_on(check(directory.path(), &mut acknowledged));
    }
    eprintln!("acknowledged_writes {} n", acknowledged.count);
}
