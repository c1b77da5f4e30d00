//! A small service that embeds the worker pool. It hashes words, each on an instance of its own
//! kind: instances are directories on this machine, payloads are shell scripts, and the runner
//! that starts and watches them is a shell script too.
//!
//! What an embedder writes is in the files beside this one: an instance set (`directories.rs`),
//! an executor (`local.rs`), the language of the runner (`runner.rs`, `runner.sh`) and a place for
//! output (`texts.rs`). The pool itself takes the lines between the two marks below.
//!
//! Halfway the service restarts: the first pool ends while a payload runs, and a second one takes
//! over its worker and tells how it ended. In the end nothing is left; if anything is not as it
//! should be, that is an error.

#![expect(clippy::print_stdout, reason = "it is a program that shows something")]

mod directories;
mod local;
mod runner;
mod texts;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use longshore_pool::runtime::{Ending, Events, Pool, PoolEvent, Run, RunError, random_uuid};
use longshore_pool::{Event, InvalidSettings};
use longshore_runner_api::command::quote;
use longshore_types::{
    Attempt, ByteSize, ContainerUuid, Exit, ExitCause, InstanceId, InstanceType, Price,
};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};

use directories::Directories;
use local::Local;
use runner::{ShellRunner, document};
use texts::Texts;

/// Words, the type of instance that hashes them, and what is to come out.
const REQUESTS: [(&str, &str, &str); 6] = [
    ("apple", "small", "3a7bd3e2360a3d29"),
    ("pear", "large", "97cfbe87531abe0c"),
    ("quince", "small", "4f67642c07d4c8a3"),
    ("medlar", "small", "9f977910ecea8a02"),
    ("fig", "large", "8c39c63488260c31"),
    ("plum", "small", "0467255695084cc1"),
];
const MAX_INSTANCES: usize = 3;
const ALL_IN_ALL: Duration = Duration::from_secs(120);
const MINUTE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error + Send + Sync>;

// ---- The pool, from here ...

/// A pool over the directories. What an earlier one left there is taken over.
async fn open(
    cloud: &Directories,
    outputs: &Texts,
    registry: &mut Registry,
) -> Result<Pool, InvalidSettings> {
    let small = InstanceType::new("small", 1, ByteSize::gib(1), Price::default());
    let large = InstanceType::new("large", 4, ByteSize::gib(8), Price::default());
    let executor = Arc::new(Local(cloud.clone()));
    Pool::builder(
        "embed-pool",
        vec![small, large],
        Arc::new(cloud.clone()),
        executor,
    )
    .protocol(Arc::new(ShellRunner))
    .outputs(Arc::new(outputs.clone()))
    .metrics(registry)
    // A directory has no host key, and needs no sudo.
    .trust_any_host()
    .sudo(false)
    .configure(|config| {
        config.max_instances = MAX_INSTANCES;
        // Short, so that the example is: unused workers go soon, and so that is noticed soon.
        config.timeout_idle = Duration::from_millis(300);
        config.sync_interval = Duration::from_millis(500);
    })
    .start()
    .await
}

/// Hashes a word on an instance of a type: its result, or why there is none.
async fn hash(pool: &Pool, outputs: &Texts, word: &str, on: &str) -> Result<String, Failure> {
    let script = format!("printf %s {} | sha256sum | cut -c 1-16", quote(word));
    let uuid = random_uuid()?;
    let run = Run::new(on, document(&script)).attempt(uuid, Attempt(1));
    let exit = pool.run(run.timeout(MINUTE)).await?;
    match exit.cause {
        ExitCause::Exited { code: 0 } => Ok(outputs.take(uuid)),
        cause => Err(cause.to_string().into()),
    }
}

/// Ends a pool and everything that it has.
async fn close(pool: &Pool) -> Result<(), Failure> {
    let left = pool.shutdown(Ending::Destroy, MINUTE).await;
    ensure(left.is_clean(), &left.to_string())
}

// ---- ... to here.

fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::time::timeout(ALL_IN_ALL, service(folder.path())) => result?,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = terminate.recv() => Err("terminated".into()),
        }
    });
    // The pools are gone with their runtime; what they left, if it went wrong, is ended here.
    runtime.shutdown_timeout(Duration::from_secs(5));
    Directories::new(folder.path())?.end_processes()?;
    folder.close()?;
    result
}

async fn service(folder: &Path) -> Result<(), Failure> {
    let cloud = Directories::new(folder)?;
    let outputs = Texts::default();

    let mut registry = Registry::default();
    let pool = open(&cloud, &outputs, &mut registry).await?;
    hash_all(&pool, &outputs).await?;
    println!(
        "{}",
        metric(&registry, "boot_outcomes_total{outcome=\"success\"}")?
    );

    run_and_kill(&pool).await?;

    println!("restarting while a payload runs");
    let (uuid, instance) = leave_one_running(pool, folder).await?;

    let pool = open(&cloud, &outputs, &mut Registry::default()).await?;
    // Asked for before anything can end: nothing is missed.
    let mut events = pool.events();
    std::fs::write(folder.join("go"), "")?;
    let (place, exit) = end_of(uuid, &mut events).await?;
    println!(
        "{uuid} ended on {place}, which the second pool took over: {}",
        exit.cause
    );
    ensure(place == instance, "it ended somewhere else")?;
    ensure(
        exit.cause == ExitCause::Exited { code: 7 },
        "it ended otherwise",
    )?;
    ensure(outputs.take(uuid) == "seven", "it printed something else")?;

    // One that still runs goes with its instance.
    let started = start(&pool, "sleep 1000").await?;
    close(&pool).await?;
    let exit = started.result.await??;
    println!("the last payload did not end by itself: {}", exit.cause);
    ensure(exit.cause.is_infrastructure(), "it ended otherwise")?;
    let remains = cloud.remains()?;
    ensure(remains.is_empty(), &format!("left: {remains:?}"))?;
    let most = cloud.most();
    ensure(
        most <= MAX_INSTANCES,
        &format!("{most} instances at a time"),
    )?;
    println!("nothing is left of at most {most} instances at a time");
    Ok(())
}

/// All requests at once, each result as it comes.
async fn hash_all(pool: &Pool, outputs: &Texts) -> Result<(), Failure> {
    let mut running = JoinSet::new();
    for (word, on, expected) in REQUESTS {
        let (pool, outputs) = (pool.clone(), outputs.clone());
        running.spawn(async move {
            let hashed = hash(&pool, &outputs, word, on).await;
            (word, on, expected, hashed)
        });
    }
    while let Some(done) = running.join_next().await {
        let (word, on, expected, hashed) = done?;
        let hashed = hashed?;
        println!("{word:7} {hashed}  ({on})");
        ensure(hashed == expected, "that is the wrong hash")?;
    }
    Ok(())
}

/// A payload that runs.
struct Started {
    uuid: ContainerUuid,
    instance: InstanceId,
    result: JoinHandle<Result<Exit, RunError>>,
}

/// Has a script run on a small instance, and waits until it does.
async fn start(pool: &Pool, script: &str) -> Result<Started, Failure> {
    let uuid = random_uuid()?;
    let run = Run::new("small", document(script)).attempt(uuid, Attempt(1));
    let mut events = pool.events();
    let pool = pool.clone();
    let result = tokio::spawn(async move { pool.run(run.timeout(MINUTE)).await });
    let instance = place_of(uuid, &mut events).await?;
    Ok(Started {
        uuid,
        instance,
        result,
    })
}

async fn run_and_kill(pool: &Pool) -> Result<(), Failure> {
    let started = start(pool, "sleep 1000").await?;
    let why = "it takes too long";
    pool.kill(started.uuid, &started.instance, why).await?;
    let exit = started.result.await??;
    println!("a payload that sleeps was {}", exit.cause);
    ensure(exit.cause == ExitCause::Killed, "it was not killed")
}

/// Starts a payload that waits for a file, and ends the pool while it waits.
async fn leave_one_running(
    pool: Pool,
    folder: &Path,
) -> Result<(ContainerUuid, InstanceId), Failure> {
    let go = quote(&folder.join("go").to_string_lossy());
    let script = format!("until [ -e {go} ]; do sleep 0.05; done; echo seven; exit 7");
    let started = start(&pool, &script).await?;
    let (uuid, instance) = (started.uuid, started.instance);
    let left = pool.shutdown(Ending::Keep, MINUTE).await;
    println!("the first pool has ended: {left}");
    let runs = [(uuid, instance.clone())];
    ensure(left.running == runs, "it does not know what runs")?;
    // Not a word about how it ended: it may go on running, as it does here.
    let result = started.result.await?;
    ensure(
        result == Err(RunError::Ended),
        &format!("it says {result:?}"),
    )?;
    Ok((uuid, instance))
}

/// Where a payload runs, once it does.
async fn place_of(uuid: ContainerUuid, events: &mut Events) -> Result<InstanceId, Failure> {
    loop {
        match events.next().await.ok_or("the pool ended")? {
            PoolEvent::Happened(Event::Running {
                uuid: other,
                instance,
                ..
            }) if other == uuid => return Ok(instance),
            PoolEvent::Missed(count) => return Err(format!("{count} events were lost").into()),
            _ => {}
        }
    }
}

/// Where and how it ended, once it has.
async fn end_of(uuid: ContainerUuid, events: &mut Events) -> Result<(InstanceId, Exit), Failure> {
    loop {
        match events.next().await.ok_or("the pool ended")? {
            PoolEvent::Happened(Event::Ended {
                uuid: other,
                instance,
                exit,
                ..
            }) if other == uuid => {
                return Ok((instance, exit));
            }
            PoolEvent::Missed(count) => return Err(format!("{count} events were lost").into()),
            _ => {}
        }
    }
}

fn metric(registry: &Registry, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    let line = text.lines().find(|line| line.contains(name));
    Ok(line
        .ok_or_else(|| format!("no metric {name} in:\n{text}"))?
        .to_owned())
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
