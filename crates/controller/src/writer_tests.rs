use std::path::Path;

use rusqlite::params;

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn start(directory: &Path) -> Arc<Writer> {
    let lock = File::create(directory.join("lock")).unwrap();
    start_with(directory, lock)
}

fn start_with(directory: &Path, lock: File) -> Arc<Writer> {
    let connection = Connection::open(directory.join("db")).unwrap();
    connection.busy_timeout(LONG).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER, filler BLOB);")
        .unwrap();
    connection
        .pragma_update_and_check(None, "max_page_count", 50, |_| Ok(()))
        .unwrap();
    Arc::new(Writer::start(connection, lock, 0, 100).unwrap())
}

fn numbers(directory: &Path) -> Vec<i64> {
    let connection = Connection::open(directory.join("db")).unwrap();
    let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
    let numbers = statement.query_map((), |row| row.get(0)).unwrap();
    numbers.collect::<Result<_, _>>().unwrap()
}

/// A request that writes a row of so many bytes, and then fails if told to.
async fn put(writer: Arc<Writer>, n: i64, bytes: usize, fails: bool) -> Result<i64, QueueError> {
    writer
        .write(LONG, move |tx| {
            let revision = tx.next_revision();
            tx.connection
                .execute(
                    "INSERT INTO t VALUES (?1, zeroblob(?2))",
                    params![n, bytes as i64],
                )
                .map_err(|e| sqlite("no row", e))?;
            if fails {
                return Err(QueueError::new(QueueErrorKind::Refused, "as told"));
            }
            assert!(revision > 0);
            Ok(n)
        })
        .await
}

#[test]
fn a_copy_of_the_lock_does_not_hold_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let lock = File::create(&path).unwrap();
    lock.lock().unwrap();
    let copy = lock.try_clone().unwrap();
    let writer = start_with(directory.path(), lock);
    let other = File::open(&path).unwrap();
    assert!(other.try_lock().is_err());
    drop(writer);
    assert!(other.try_lock().is_ok());
    drop(copy);
}

/// Puts 20 rows that have to wait for one transaction; the third is of the kind that is given.
async fn put_together(
    writer: &Arc<Writer>,
    directory: &Path,
    bytes: usize,
    fails: bool,
) -> Vec<Result<i64, QueueError>> {
    let other = Connection::open(directory.join("db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let requests: Vec<_> = (0..20)
        .map(|n| match n {
            3 => tokio::spawn(put(Arc::clone(writer), n, bytes, fails)),
            n => tokio::spawn(put(Arc::clone(writer), n, 10, false)),
        })
        .collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    other.execute_batch("ROLLBACK").unwrap();
    let mut outcomes = Vec::new();
    for request in requests {
        outcomes.push(request.await.unwrap());
    }
    outcomes
}

#[tokio::test]
async fn the_dispatcher_goes_before_clients_that_wait() {
    const CLIENTS: usize = 3 * MAX_CLIENTS;
    let directory = tempfile::tempdir().unwrap();
    let writer = start(directory.path());
    let other = Connection::open(directory.path().join("db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let served = Arc::new(std::sync::Mutex::new(Vec::new()));
    let ask = |line: Line| {
        let (writer, served) = (Arc::clone(&writer), Arc::clone(&served));
        let note = move |_: &mut Tx<'_>| {
            served.lock().unwrap().push(line);
            Ok(())
        };
        tokio::spawn(async move { writer.write_in(line, LONG, note).await })
    };
    let mut requests: Vec<_> = (0..CLIENTS).map(|_| ask(Line::Clients)).collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    requests.push(ask(Line::Dispatcher));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    other.execute_batch("ROLLBACK").unwrap();
    for request in requests {
        request.await.unwrap().unwrap();
    }
    let served = served.lock().unwrap();
    assert_eq!(served.len(), CLIENTS + 1);
    // Only a group that was taken before may come before it.
    let place = served.iter().position(|line| *line == Line::Dispatcher);
    assert!(place.unwrap() <= MAX_CLIENTS, "{place:?}");
}

fn all_but_the_third() -> Vec<i64> {
    (0..20).filter(|&n| n != 3).collect()
}

#[tokio::test]
async fn a_request_that_fails_takes_back_what_it_wrote_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let writer = start(directory.path());
    let outcomes = put_together(&writer, directory.path(), 10, true).await;
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_err()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        outcomes[3].as_ref().unwrap_err().kind,
        QueueErrorKind::Refused
    );
    assert_eq!(numbers(directory.path()), all_but_the_third());
    assert!(writer.stats().commits <= 2);
}

#[tokio::test]
async fn a_request_that_is_too_large_fails_alone() {
    let directory = tempfile::tempdir().unwrap();
    let writer = start(directory.path());
    let outcomes = put_together(&writer, directory.path(), 1 << 20, false).await;
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_err()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        outcomes[3].as_ref().unwrap_err().kind,
        QueueErrorKind::Unavailable
    );
    assert_eq!(numbers(directory.path()), all_but_the_third());
}

#[tokio::test]
async fn a_transaction_that_cannot_be_committed_answers_nobody_with_success() {
    let directory = tempfile::tempdir().unwrap();
    let writer = start(directory.path());
    // Carried out one by one when the group fails: only the one that asks for it loses.
    let broken = writer.write(LONG, |tx| {
        tx.connection
            .execute_batch("ROLLBACK")
            .map_err(|e| sqlite("no rollback", e))
    });
    let (broken, fine) = tokio::join!(broken, put(Arc::clone(&writer), 1, 10, false));
    assert_eq!(broken.unwrap_err().kind, QueueErrorKind::Unavailable);
    assert_eq!(fine.unwrap(), 1);
    assert_eq!(numbers(directory.path()), [1]);
}

#[tokio::test]
async fn revisions_are_told_after_the_commit_only() {
    let directory = tempfile::tempdir().unwrap();
    let writer = start(directory.path());
    let committed = writer.committed();
    put(Arc::clone(&writer), 1, 1 << 20, false)
        .await
        .unwrap_err();
    put(Arc::clone(&writer), 2, 10, false).await.unwrap();
    let told = *committed.borrow();
    assert!(told > 0);
    assert_eq!(numbers(directory.path()), [2]);
}

#[tokio::test]
async fn dropping_the_writer_writes_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let writer = start(directory.path());
    let requests: Vec<_> = (0..50)
        .map(|n| tokio::spawn(put(Arc::clone(&writer), n, 10, false)))
        .collect();
    drop(writer);
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(numbers(directory.path()).len(), 50);
}

#[tokio::test]
async fn what_is_given_up_before_it_was_begun_is_never_done() {
    let directory = tempfile::tempdir().unwrap();
    let writer = start(directory.path());
    let other = Connection::open(directory.path().join("db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let insert = |tx: &mut Tx<'_>| {
        let inserted = tx.connection.execute("INSERT INTO t VALUES (1, '')", ());
        inserted.map_err(|e| sqlite("no row", e))
    };
    // In line, and soon in the hands of the thread, which waits for the other one.
    let short = Duration::from_millis(200);
    let given_up = writer.write(short, insert).await.unwrap_err();
    assert_eq!(given_up.kind, QueueErrorKind::Unavailable);
    let dropped = tokio::time::timeout(short, writer.write(LONG, insert));
    assert!(dropped.await.is_err());
    other.execute_batch("COMMIT").unwrap();
    put(Arc::clone(&writer), 2, 0, false).await.unwrap();
    assert_eq!(numbers(directory.path()), [2]);
}

#[tokio::test]
async fn of_what_was_begun_nobody_knows_the_outcome() {
    let directory = tempfile::tempdir().unwrap();
    let writer = start(directory.path());
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let hangs = move |_: &mut Tx<'_>| {
        let _ = (begun.send(()), wait.recv());
        Ok(())
    };
    let mut answer = std::pin::pin!(writer.write(Duration::from_millis(200), hangs));
    let first = tokio::time::timeout(Duration::ZERO, &mut answer).await;
    assert!(first.is_err(), "it is in line");
    tokio::task::spawn_blocking(move || has_begun.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.await.unwrap_err().kind, QueueErrorKind::Unknown);
    drop(done);
}
