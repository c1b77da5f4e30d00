//! Servers that do not do what they should.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
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
    settings.connect = Duration::from_secs(2);
    settings.banner = Duration::from_secs(2);
    settings.key_exchange = Duration::from_secs(2);
    settings.authentication = Duration::from_secs(2);
    settings.answer = Duration::from_millis(300);
    settings
}

/// One in which only answers are short: all that comes before has its time.
fn wanting_answers() -> Settings {
    let mut settings = Settings::default();
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
    let (target, soon) = (target("i", &address), Duration::from_secs(2));
    let begun = Instant::now();
    let error = executor.open(&target, &line, soon).await.unwrap_err();
    assert_eq!((error.phase, error.may_have_run), (Phase::Banner, false));
    assert!(begun.elapsed() >= soon && begun.elapsed() < PLENTY);
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
    let target = target("i", &server.address());
    let line = Command::new("true");
    // The caller's own time, with a patient executor.
    let patient = executor();
    let error = patient.open(&target, &line, Duration::from_secs(2)).await;
    let error = error.unwrap_err();
    assert_eq!((error.phase, error.may_have_run), (Phase::Open, false));
    assert_eq!(server.connections(), 1);
    let executor = executor_with(wanting_answers());
    // The connection is given up, and another is tried, but not for ever.
    let error = executor.open(&target, &line, PLENTY).await.unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::Open, false),
        "{error:?}"
    );
    assert!(
        (2..=4).contains(&(server.connections() - 1)),
        "{}",
        server.connections()
    );
}

#[tokio::test]
async fn a_server_that_never_answers_to_a_command() {
    let server = TestServer::start(Behaviour::NeverRuns).await;
    let executor = executor_with(wanting_answers());
    let target = target("i", &server.address());
    let line = Command::new("true");
    let error = executor.open(&target, &line, PLENTY).await.unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::Open, true),
        "{error:?}"
    );
    let error = executor.open(&target, &line, PLENTY).await;
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

/// Passes bytes on to `server`, those from it one at a time and slowly as long as `slow` says so.
async fn relay(server: String, slow: Arc<AtomicBool>) -> String {
    raw(move |near| {
        let (server, slow) = (server.clone(), Arc::clone(&slow));
        async move {
            let far = TcpStream::connect(server).await.unwrap();
            let (mut near_in, mut near_out) = near.into_split();
            let (mut far_in, mut far_out) = far.into_split();
            let there = tokio::io::copy(&mut near_in, &mut far_out);
            let back = async {
                let mut bytes = [0; 4096];
                loop {
                    let limit = if slow.load(SeqCst) { 1 } else { bytes.len() };
                    let count = far_in.read(&mut bytes[..limit]).await.unwrap_or(0);
                    if count == 0 || near_out.write_all(&bytes[..count]).await.is_err() {
                        return;
                    }
                    if limit == 1 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            };
            tokio::select! {
                _ = there => {}
                () = back => {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_host_that_drips_meets_the_deadline_and_harms_no_other() {
    let server = TestServer::start(Behaviour::Run).await;
    let slow = Arc::new(AtomicBool::new(false));
    let dripping = relay(server.address(), Arc::clone(&slow)).await;
    let executor = executor();
    let (one, two) = (target("i", &dripping), target("j", &server.address()));
    assert!(run(&executor, &one, "true").await.succeeded());
    slow.store(true, SeqCst);
    let (line, soon) = (Command::new("echo x"), Duration::from_millis(500));
    let begun = Instant::now();
    let error = executor.exec(&one, &line, &[], soon, 10).await.unwrap_err();
    assert!(
        error.may_have_run && error.chain().ends_with("the time is up"),
        "{error:?}"
    );
    assert!(begun.elapsed() >= soon && begun.elapsed() < Duration::from_secs(10));
    assert!(run(&executor, &two, "true").await.succeeded());
    // The connection was not given up for it.
    slow.store(false, SeqCst);
    assert!(run(&executor, &one, "true").await.succeeded());
    assert_eq!(executor.stats().connections_made, 2);
}

#[tokio::test]
async fn a_thousand_commands_at_once_wait_and_more_are_refused() {
    let server = TestServer::start(Behaviour::Instant).await;
    let executor = executor();
    let target = target("i", &server.address());
    let line = Command::new("true");
    let commands = (0..3_000).map(|_| executor.exec(&target, &line, &[], PLENTY, 10));
    let mut commands: Vec<_> = commands.collect();
    let (mut done, mut refused) = (0, 0);
    for result in join_all(&mut commands).await {
        match result {
            Ok(result) if result.succeeded() => done += 1,
            Err(error) if !error.may_have_run => {
                assert!(
                    error.chain().ends_with("commands are waiting already"),
                    "{error:?}"
                );
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(done >= 1_024, "{done} done, {refused} refused");
    assert!(
        refused > 0 && done + refused == 3_000,
        "{done} done, {refused} refused"
    );
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_jump_of_the_clock_is_a_deadline_and_no_more() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    let cat = Command::new("cat");
    let mut process = executor.open(&target, &cat, PLENTY).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(365 * 24 * 3600)).await;
    tokio::time::resume();
    let error = process.output().await.unwrap_err();
    assert!(
        error.may_have_run && error.chain().ends_with("the time is up"),
        "{error:?}"
    );
    drop(process);
    assert!(run(&executor, &target, "true").await.succeeded());
}

#[tokio::test]
async fn absurd_settings_have_a_meaning() {
    let server = TestServer::start(Behaviour::Run).await;
    let target = target("i", &server.address());
    let absurd = |time: Duration, number: usize, bytes: u64| {
        let mut settings = Settings::default();
        settings.connect = time;
        settings.banner = time;
        settings.key_exchange = time;
        settings.authentication = time;
        settings.handshake = time;
        settings.answer = time;
        settings.unacknowledged = time;
        settings.keepalive = time;
        settings.connecting = number;
        settings.channels = number;
        settings.queue = number;
        settings.verdicts = number;
        settings.handshake_bytes = bytes;
        settings.unexplained_bytes = bytes;
        settings
    };
    let executor = executor_with(absurd(Duration::MAX, usize::MAX, u64::MAX));
    for timeout in [PLENTY, Duration::MAX] {
        let line = Command::new("echo x");
        let done = executor.exec(&target, &line, &[], timeout, 10).await;
        assert_eq!(done.unwrap().stdout, b"x\n");
    }
    let executor = executor_with(absurd(PLENTY, 0, u64::MAX));
    assert!(run(&executor, &target, "true").await.succeeded());
    let none = [
        absurd(Duration::ZERO, 0, 0),
        absurd(Duration::ZERO, usize::MAX, u64::MAX),
        absurd(PLENTY, 1, 0),
    ];
    for settings in none {
        let error = try_run(&executor_with(settings), &target, "true").await;
        assert!(!error.unwrap_err().may_have_run);
    }
    let line = Command::new("true");
    let error = executor.open(&target, &line, Duration::ZERO).await;
    assert!(error.is_err_and(|error| error.chain().ends_with("the time is up")));
}

#[tokio::test]
async fn names_and_lines_that_cannot_be_sent_are_errors_that_say_so() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let good = target("i", &server.address());
    for user in ["", "ro\0ot", "root\n", &"r".repeat(1 << 20)] {
        let mut bad = good.clone();
        bad.user = user.to_owned();
        let error = try_run(&executor, &bad, "true").await.unwrap_err();
        assert_eq!(
            (error.phase, error.may_have_run),
            (Phase::Authentication, false)
        );
    }
    for address in [
        "127.0.0.1\0:22",
        "127.0.0.1\n",
        "\n",
        "",
        &"a".repeat(1 << 20),
    ] {
        let mut bad = good.clone();
        bad.address = address.to_owned();
        let error = try_run(&executor, &bad, "true").await.unwrap_err();
        assert_eq!((error.phase, error.may_have_run), (Phase::Connect, false));
    }
    for line in ["a\0b", &"x".repeat(1 << 20)] {
        let error = try_run(&executor, &good, line).await.unwrap_err();
        assert_eq!((error.phase, error.may_have_run), (Phase::Open, false));
    }
    assert_eq!(
        run(&executor, &good, "echo a\necho b").await.stdout,
        b"a\nb\n"
    );
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn a_dropped_disconnect_still_disconnects() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    let cat = Command::new("cat");
    let mut process = executor.open(&target, &cat, PLENTY).await.unwrap();
    let mut disconnect = Box::pin(executor.disconnect(&target.instance));
    std::future::poll_fn(|cx| {
        let _ = disconnect.as_mut().poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
    drop(disconnect);
    assert!(process.output().await.unwrap_err().may_have_run);
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(server.connections(), 2);
}
