use std::path::Path;

use rusqlite::params;

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn start(directory: &Path) -> Arc<Writer> {
    let connection = Connection::open(directory.join("db")).unwrap();
    connection.busy_timeout(LONG).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER, filler BLOB);")
        .unwrap();
    connection
        .pragma_update_and_check(None, "max_page_count", 50, |_| Ok(()))
        .unwrap();
    let lock = File::create(directory.join("lock")).unwrap();
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
        QueueErrorKind::Overloaded
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
    assert_eq!(broken.unwrap_err().kind, QueueErrorKind::Overloaded);
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
