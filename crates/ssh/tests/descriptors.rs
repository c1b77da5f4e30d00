//! Descriptors of this process are counted, so it holds one test: another one would open its own.

mod common;

use common::server::{Behaviour, TestServer};
use common::{executor, run, target, until};
use longshore_exec::Executor as _;

#[tokio::test]
async fn a_thousand_commands_leave_no_descriptor() {
    let server = TestServer::start(Behaviour::Instant).await;
    let executor = executor();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let target = target("i", &server.address());
    run(&executor, &target, "true").await;
    let before = count();
    for i in 0..1_000 {
        assert!(run(&executor, &target, "true").await.succeeded());
        if i % 100 == 0 {
            executor.disconnect(&target.instance).await;
        }
    }
    until("as many descriptors as before", || count() <= before).await;
    assert_eq!(server.connections(), 11);
}
