//! Servers that do not do what they should.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::time::Duration;

use common::server::{Behaviour, TestServer};
use common::{PLENTY, executor, executor_with, run, target, try_run, until};
use longshore_exec::{Command, Executor, ExecutorExt, ExitStatus, Output, Phase};
use longshore_ssh::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// A TCP server that does `serve` with each connection.
async fn raw<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    address
}

fn impatient() -> Settings {
    let mut settings = Settings::default();
    settings.connect = Duration::from_millis(300);
    settings.banner = Duration::from_millis(300);
    settings.key_exchange = Duration::from_millis(300);
    settings.authentication = Duration::from_millis(300);
    settings.answer = Duration::from_millis(300);
    settings
}

async fn forever<T>(_held: T) {
    std::future::pending().await
}

#[tokio::test]
async fn an_endless_banner_is_cut() {
    let address = raw(async |mut tcp| {
        while tcp
            .write_all(b"hello, this is no SSH server\r\n")
            .await
            .is_ok()
        {}
    })
    .await;
    let executor = executor();
    let error = try_run(&executor, &target("i", &address), "true")
        .await
        .unwrap_err();
    assert_eq!(error.phase, Phase::Banner, "{error:?}");
    assert!(!error.may_have_run);
    assert!(
        error.chain().contains("bytes that belong to no command"),
        "{}",
        error.chain()
    );
    let received = executor.stats().bytes_received;
    assert!(received < 512 * 1024, "{received} bytes were read");
}

#[tokio::test]
async fn a_dripping_banner_meets_its_deadline() {
    let address = raw(async |mut tcp| {
        while tcp.write_all(b"x\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let executor = executor_with(impatient());
    let error = try_run(&executor, &target("i", &address), "true")
        .await
        .unwrap_err();
    assert_eq!(error.phase, Phase::Banner, "{error:?}");
    assert!(error.chain().ends_with("the time is up"));
}

#[tokio::test]
async fn a_silent_server_meets_the_deadline_of_its_phase_or_of_the_caller() {
    let address = raw(forever::<TcpStream>).await;
    let silent = executor_with(impatient());
    let error = try_run(&silent, &target("i", &address), "true")
        .await
        .unwrap_err();
    assert_eq!((error.phase, error.may_have_run), (Phase::Banner, false));
    // The caller's own time, with a patient executor.
    let executor = executor();
    let line = Command::new("true");
    let (target, soon) = (target("i", &address), Duration::from_millis(200));
    let begun = Instant::now();
    let error = executor.open(&target, &line, soon).await.unwrap_err();
    assert_eq!((error.phase, error.may_have_run), (Phase::Banner, false));
    assert!(begun.elapsed() >= soon && begun.elapsed() < Duration::from_secs(5));
    executor.disconnect(&target.instance).await;
    // Silence after the banner.
    let address = raw(async |mut tcp| {
        tcp.write_all(b"SSH-2.0-mute\r\n").await.unwrap();
        forever(tcp).await;
    })
    .await;
    let error = try_run(&silent, &common::target("j", &address), "true")
        .await
        .unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::KeyExchange, false)
    );
}

#[tokio::test]
async fn a_server_that_closes_early_says_so() {
    let cases: [(&[u8], Phase); 3] = [
        (b"", Phase::Banner),
        (b"SSH-2.0-bye\r\n", Phase::KeyExchange),
        (
            b"SSH-2.0-noise\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            Phase::KeyExchange,
        ),
    ];
    for (greeting, phase) in cases {
        let address = raw(async move |mut tcp: TcpStream| {
            tcp.write_all(greeting).await.unwrap();
            // Not before the client has spoken: closing with unread bytes would be a reset.
            let _ = tcp.read(&mut [0; 4096]).await;
        })
        .await;
        let executor = executor();
        let error = try_run(&executor, &target("i", &address), "true")
            .await
            .unwrap_err();
        assert_eq!(
            (error.phase, error.may_have_run),
            (phase, false),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_lets_nobody_in() {
    let server = TestServer::start(Behaviour::LetsNobodyIn).await;
    let target = target("i", &server.address());
    let error = try_run(&executor(), &target, "true").await.unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::Authentication, false)
    );
}

#[tokio::test]
async fn a_server_that_never_opens_a_channel() {
    let server = TestServer::start(Behaviour::NeverOpens).await;
    let executor = executor_with(impatient());
    let target = target("i", &server.address());
    let line = Command::new("true");
    let error = executor
        .open(&target, &line, Duration::from_millis(100))
        .await;
    let error = error.unwrap_err();
    assert_eq!((error.phase, error.may_have_run), (Phase::Open, false));
    // The connection is given up, and another is tried, but not for ever.
    let error = executor.open(&target, &line, PLENTY).await.unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::Open, false),
        "{error:?}"
    );
    assert!(
        (2..=4).contains(&server.connections()),
        "{}",
        server.connections()
    );
}

#[tokio::test]
async fn a_server_that_never_answers_to_a_command() {
    let server = TestServer::start(Behaviour::NeverRuns).await;
    let executor = executor_with(impatient());
    let target = target("i", &server.address());
    let line = Command::new("true");
    let error = executor.open(&target, &line, PLENTY).await.unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::Open, true),
        "{error:?}"
    );
    let error = executor
        .open(&target, &line, Duration::from_millis(100))
        .await;
    assert!(error.unwrap_err().may_have_run);
    assert_eq!(
        server.lines().len(),
        2,
        "a command that may have run was repeated"
    );
}

#[tokio::test]
async fn a_server_that_refuses_commands() {
    let server = TestServer::start(Behaviour::RefusesCommands).await;
    let executor = executor();
    let target = target("i", &server.address());
    for _ in 0..20 {
        let error = try_run(&executor, &target, "true").await.unwrap_err();
        assert_eq!(error.phase, Phase::Open);
        assert!(error.chain().ends_with("the server refused"));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_server_with_few_channels_is_used_as_far_as_it_goes() {
    for channels in [1, 3] {
        let server = TestServer::start(Behaviour::Channels(channels)).await;
        let executor = executor();
        let target = target("i", &server.address());
        let line = Command::new("exit 7");
        let commands = (0..20).map(|_| executor.exec(&target, &line, &[], PLENTY, 10));
        let mut commands: Vec<_> = commands.collect();
        for done in join_all(&mut commands).await {
            assert_eq!(done.unwrap().status, Some(ExitStatus::Code(7)));
        }
        assert_eq!(server.connections(), 1);
    }
    let server = TestServer::start(Behaviour::Channels(0)).await;
    let target = target("i", &server.address());
    let error = try_run(&executor(), &target, "true").await.unwrap_err();
    assert_eq!((error.phase, error.may_have_run), (Phase::Open, false));
}

/// Polls all futures until each is done.
async fn join_all<F: Future + Unpin>(futures: &mut [F]) -> Vec<F::Output> {
    let mut results: Vec<_> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match std::pin::Pin::new(future).poll(cx) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        match pending {
            true => std::task::Poll::Pending,
            false => std::task::Poll::Ready(()),
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_missing_exit_status_is_not_success() {
    let server = TestServer::start(Behaviour::NoStatus).await;
    let target = target("i", &server.address());
    let done = run(&executor(), &target, "echo out; echo err >&2").await;
    assert_eq!(
        (done.stdout, done.stderr),
        (b"out\n".to_vec(), b"err\n".to_vec())
    );
    assert_eq!(done.status, None);
}

#[tokio::test]
async fn a_signal_is_reported() {
    let server = TestServer::start(Behaviour::Killed).await;
    let done = run(&executor(), &target("i", &server.address()), "true").await;
    assert_eq!(done.status, Some(ExitStatus::Signal("KILL".to_owned())));
}

#[tokio::test]
async fn a_slow_reader_of_much_output_holds_the_server_back() {
    const GIGABYTE: usize = 1024 * 1024 * 1024;
    let server = TestServer::start(Behaviour::Flood(GIGABYTE)).await;
    let executor = executor();
    let target = target("i", &server.address());
    let line = Command::new("flood");
    let mut process = executor.open(&target, &line, PLENTY).await.unwrap();
    let Some(Output::Stdout(first)) = process.output().await.unwrap() else {
        panic!("no output");
    };
    assert!(!first.is_empty());
    // Another command gets through, so everything that the server may send has been sent.
    let other = executor.open(&target, &line, PLENTY).await.unwrap();
    until("the windows are full", || {
        executor.stats().bytes_received > 200_000
    })
    .await;
    let received = executor.stats().bytes_received;
    assert!(received < 1024 * 1024, "{received} bytes were read");
    executor.disconnect(&target.instance).await;
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_comes_through_and_is_counted() {
    // More than the limit of bytes that belong to no command, and across new keys.
    const BYTES: usize = 1100 * 1024 * 1024;
    let server = TestServer::start(Behaviour::Flood(BYTES)).await;
    let executor = executor();
    let target = target("i", &server.address());
    let line = Command::new("flood");
    let timeout = Duration::from_secs(300);
    let mut process = executor.open(&target, &line, timeout).await.unwrap();
    let mut got = 0;
    while let Some(output) = process.output().await.unwrap() {
        let Output::Stdout(bytes) = output else {
            panic!("standard error");
        };
        assert!(!bytes.is_empty() && bytes.len() <= longshore_exec::MAX_CHUNK);
        got += bytes.len();
    }
    assert_eq!(got, BYTES);
    assert_eq!(process.wait().await.unwrap(), None);
}
