//! Commands on a server in this process that really runs them.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::server::{Behaviour, TestServer};
use common::{
    PLENTY, client_key, executor, executor_with, generate, own_ip, run, target, try_run, until,
};
use longshore_exec::{Command, Executor, ExecutorExt, ExitStatus, Output, Phase};
use longshore_ssh::{PrivateKey, Settings, SshExecutor};

#[tokio::test]
async fn output_is_byte_exact() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    let done = run(
        &executor,
        &target,
        r"printf 'no newline\000\377'; printf 'e\n\nf' >&2",
    )
    .await;
    assert_eq!(done.stdout, b"no newline\0\xff");
    assert_eq!(done.stderr, b"e\n\nf");
    assert_eq!(done.status, Some(ExitStatus::Code(0)));
    let silent = run(&executor, &target, "true").await;
    assert_eq!((silent.stdout.len(), silent.stderr.len()), (0, 0));
    assert!(silent.succeeded());
    // Much of both at once.
    let done = run(&executor, &target, "seq 300000; seq 300000 >&2").await;
    let expected: String = (1..=300_000).map(|i| format!("{i}\n")).collect();
    assert!(done.stdout == expected.as_bytes());
    assert!(done.stderr == expected.as_bytes());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn exit_codes_and_odd_lines() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    for code in [0, 1, 3, 127, 255] {
        let done = run(&executor, &target, &format!("exit {code}")).await;
        assert_eq!(done.status, Some(ExitStatus::Code(code)));
    }
    let cases: [(&str, &str, u32); 9] = [
        (
            r#"echo 'it'"'"'s "quoted" $HOME' \\ '!x'"#,
            "it's \"quoted\" $HOME \\ !x\n",
            0,
        ),
        ("echo a\necho b\n\nexit 4\n", "a\nb\n", 4),
        ("cat <<X\nhere $((1+1))\nX", "here 2\n", 0),
        ("echo a # comment", "a\n", 0),
        ("-x", "", 127),
        ("exec sh -c 'echo x; exit 9'", "x\n", 9),
        ("set -e; false; echo never", "", 1),
        ("echo x; return 5 2>/dev/null || exit 6", "x\n", 5),
        ("trap 'echo trapped' EXIT; exit 7", "trapped\n", 7),
    ];
    for (line, stdout, code) in cases {
        let done = run(&executor, &target, line).await;
        assert_eq!(String::from_utf8_lossy(&done.stdout), stdout, "{line}");
        if !line.contains("return") {
            assert_eq!(done.status, Some(ExitStatus::Code(code)), "{line}");
        }
    }
    for open in [
        "echo 'a", "echo \"a", "if true", "echo $(", "(", ")", "cat <<X", "a \\", "{",
    ] {
        let done = run(&executor, &target, open).await;
        assert!(
            done.status.is_some(),
            "{open:?} swallowed the trailer: {done:?}"
        );
    }
    let error = try_run(&executor, &target, "a\0b").await.unwrap_err();
    assert!(!error.may_have_run);
    let long = try_run(&executor, &target, &"x".repeat(40_000))
        .await
        .unwrap_err();
    assert!(!long.may_have_run);
    let long = format!("printf %s '{}'", "y".repeat(20_000));
    assert_eq!(run(&executor, &target, &long).await.stdout.len(), 20_000);
}

#[tokio::test]
async fn all_kinds_of_keys() {
    let server = TestServer::start(Behaviour::Run).await;
    let kinds: [&[&str]; 6] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
        &["-t", "ecdsa", "-b", "384", "-m", "PKCS8"],
    ];
    for kind in kinds {
        let key = generate(kind);
        let parsed = PrivateKey::parse(&key.private).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert_eq!(format!("{parsed:?}"), "PrivateKey(hidden)");
        let executor = SshExecutor::new(parsed, Settings::default());
        let done = run(&executor, &target("i", &server.address()), "echo in").await;
        assert_eq!(done.stdout, b"in\n", "{kind:?}");
    }
}

#[tokio::test]
async fn bad_keys_are_refused_when_they_are_given() {
    let good = &client_key().private;
    let body = good.len() / 2;
    let broken = format!("{}AAAA{}", &good[..body], &good[body + 4..]);
    let locked = generate(&["-t", "ed25519", "-N", "secret"]).private;
    for bad in [
        "",
        "nonsense",
        &client_key().public,
        &good[..body],
        &locked,
        &broken,
    ] {
        let error = PrivateKey::parse(bad).unwrap_err().to_string();
        assert!(error.starts_with("not a usable private key: "), "{error}");
        assert!(!error.contains("AAAA"), "{error}");
    }
    PrivateKey::parse(&format!("\n {}", good.trim().replace('\n', "\r\n"))).unwrap();
}

#[tokio::test]
async fn ten_megabytes_of_input() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    let input: Vec<u8> = (0..10 * 1024 * 1024_u32).map(|i| (i % 251) as u8).collect();
    let limit = input.len() + 1;
    let sum = Command::new("cksum");
    let summed = executor
        .exec(&target, &sum, &input, PLENTY, limit)
        .await
        .unwrap();
    assert!(summed.stdout.ends_with(b" 10485760\n"), "{summed:?}");
    let cat = Command::new("cat");
    let mut process = executor.open(&target, &cat, PLENTY).await.unwrap();
    let mut back = Vec::new();
    for chunk in input.chunks(100_000) {
        process.write_stdin(chunk).await.unwrap();
        let written = back.len() + chunk.len();
        while back.len() < written {
            match process.output().await.unwrap() {
                Some(Output::Stdout(bytes)) => back.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
    }
    process.close_stdin().await.unwrap();
    process.close_stdin().await.unwrap();
    assert_eq!(process.output().await.unwrap(), None);
    assert_eq!(process.wait().await.unwrap(), Some(ExitStatus::Code(0)));
    assert!(back == input);
}

#[tokio::test]
async fn input_that_nobody_wants_is_dropped() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    let input = vec![b'x'; 4 * 1024 * 1024];
    let line = Command::new("head -c 3; exec 0<&-; exit 5");
    let done = executor
        .exec(&target, &line, &input, PLENTY, 100)
        .await
        .unwrap();
    assert_eq!(done.stdout, b"xxx");
    assert_eq!(done.status, Some(ExitStatus::Code(5)));
}

#[tokio::test]
async fn many_commands_share_one_connection() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = Arc::new(executor());
    let target = target("i", &server.address());
    let tasks: Vec<_> = (0..100)
        .map(|i| {
            let (executor, target) = (Arc::clone(&executor), target.clone());
            tokio::spawn(async move {
                let done = run(&executor, &target, &format!("echo {i}; exit {i}")).await;
                assert_eq!(done.stdout, format!("{i}\n").as_bytes());
                assert_eq!(done.status, Some(ExitStatus::Code(i)));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    let most = server
        .seen
        .most_channels
        .load(std::sync::atomic::Ordering::SeqCst);
    assert!(most <= 10, "{most} channels at a time");
    let stats = executor.stats();
    assert_eq!((stats.connections_open, stats.connections_made), (1, 1));
    assert_eq!(stats.commands, 100);
    assert!(stats.bytes_received > 0 && stats.bytes_sent > 0);
}

#[tokio::test]
async fn commands_wait_in_order_and_each_until_its_own_deadline() {
    let server = TestServer::start(Behaviour::Run).await;
    let mut settings = Settings::default();
    settings.channels = 1;
    settings.queue = 2;
    let executor = executor_with(settings);
    let target = target("i", &server.address());
    let cat = Command::new("cat");
    let mut first = executor.open(&target, &cat, PLENTY).await.unwrap();
    let soon = Duration::from_millis(50);
    let error = executor.open(&target, &cat, soon).await.unwrap_err();
    assert!(!error.may_have_run, "{error:?}");
    first.close_stdin().await.unwrap();
    assert_eq!(first.wait().await.unwrap(), Some(ExitStatus::Code(0)));
    drop(first);
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn a_reader_that_stalls_stalls_nobody_else() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    let endless = Command::new("yes");
    let mut stalled = executor.open(&target, &endless, PLENTY).await.unwrap();
    let complaints = Command::new("yes >&2");
    let unread = executor.open(&target, &complaints, PLENTY).await.unwrap();
    for i in 0..50 {
        let done = run(&executor, &target, &format!("seq {i} 30000")).await;
        assert!(done.stdout.ends_with(b"30000\n"));
    }
    let mut got = 0;
    while got < 5_000_000 {
        match stalled.output().await.unwrap() {
            Some(Output::Stdout(bytes)) => got += bytes.len(),
            other => panic!("{other:?}"),
        }
    }
    drop((stalled, unread));
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_a_command() {
    let server = TestServer::start(Behaviour::Run).await;
    let mut settings = Settings::default();
    settings.answer = 2 * PLENTY;
    let executor = executor_with(settings);
    let target = target("i", &server.address());
    run(&executor, &target, "true").await;
    let line = Command::new("echo begun; exec sleep 100");
    let mut process = executor.open(&target, &line, PLENTY).await.unwrap();
    assert_eq!(
        process.output().await.unwrap(),
        Some(Output::Stdout(b"begun\n".to_vec()))
    );
    tokio::time::pause();
    tokio::time::advance(PLENTY).await;
    tokio::time::resume();
    let error = process.output().await.unwrap_err();
    assert!(
        error.may_have_run && error.phase == Phase::Command,
        "{error:?}"
    );
    assert!(process.wait().await.unwrap_err().may_have_run);
    let full = vec![0; 10 * 1024 * 1024];
    assert!(process.write_stdin(&full).await.unwrap_err().may_have_run);
    drop(process);
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_refused_connection_is_not_a_run_command() {
    let server = TestServer::start(Behaviour::Run).await;
    let address = server.address();
    server.stop().await;
    let executor = executor();
    for address in [address.as_str(), "nonsense:x", "host.invalid"] {
        let error = try_run(&executor, &target("i", address), "true")
            .await
            .unwrap_err();
        assert_eq!(error.phase, Phase::Connect, "{error:?}");
        assert!(!error.may_have_run, "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_restarts_is_connected_to_again() {
    let key = generate(&["-t", "ed25519"]).private;
    let server = TestServer::start_at(&format!("{}:0", own_ip()), Behaviour::Run, &key).await;
    let address = server.address();
    let executor = executor();
    let target = target("i", &address);
    let sleep = Command::new("sleep 100");
    let mut process = executor.open(&target, &sleep, PLENTY).await.unwrap();
    server.stop().await;
    let error = process.output().await.unwrap_err();
    assert!(error.may_have_run, "{error:?}");
    assert!(process.wait().await.unwrap_err().may_have_run);
    let server = TestServer::start_at(&address, Behaviour::Run, &key).await;
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(server.connections(), 1);
    // Closed while nobody looked.
    server.cut();
    until("the connection is seen to be closed", || {
        executor.stats().connections_open == 0
    })
    .await;
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn output_that_came_before_the_connection_broke_is_given() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    let line = Command::new("printf %0100000d 7; sleep 100");
    let mut process = executor.open(&target, &line, PLENTY).await.unwrap();
    // The handshake, the frames around it, and a packet of which only a part has come.
    const AROUND: usize = 4096 + 8192;
    until("most of the output is here", || {
        executor.stats().bytes_received > 90_000
    })
    .await;
    let received = usize::try_from(executor.stats().bytes_received).unwrap();
    server.cut();
    let mut got = Vec::new();
    let error = loop {
        match process.output().await {
            Ok(Some(Output::Stdout(bytes))) => got.extend(bytes),
            Err(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(error.may_have_run);
    assert!(
        got.len() + AROUND >= received,
        "{} of {received}",
        got.len()
    );
    let printed = "0".repeat(99_999) + "7";
    assert!(printed.as_bytes().starts_with(&got));
}

#[tokio::test]
async fn another_address_is_another_connection() {
    let one = TestServer::start(Behaviour::Run).await;
    let two = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    run(&executor, &target("i", &one.address()), "true").await;
    run(&executor, &target("i", &two.address()), "true").await;
    assert_eq!((one.lines().len(), two.lines().len()), (1, 1));
    until("the first is closed", || {
        executor.stats().connections_open == 1
    })
    .await;
}

#[tokio::test]
async fn disconnect_fails_what_runs() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let target = target("i", &server.address());
    let sleep = Command::new("sleep 100");
    let mut one = executor.open(&target, &sleep, PLENTY).await.unwrap();
    let mut two = executor.open(&target, &sleep, PLENTY).await.unwrap();
    executor.disconnect(&target.instance).await;
    assert_eq!(executor.stats().connections_open, 0);
    assert!(one.output().await.unwrap_err().may_have_run);
    assert!(two.wait().await.unwrap_err().may_have_run);
    executor.disconnect(&target.instance).await;
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn dropping_futures_anywhere_does_no_harm() {
    let server = TestServer::start(Behaviour::Run).await;
    let executor = executor();
    let input = vec![b'x'; 200_000];
    // Each step later than the one before, so that each await is hit.
    for step in 0..150_u64 {
        let target = target(&format!("i-{}", step / 50), &server.address());
        let cat = Command::new("cat; cat >&2; exit 3");
        let work = executor.exec(&target, &cat, &input, PLENTY, 1 << 20);
        let _ = tokio::time::timeout(Duration::from_micros(step % 50 * 200), work).await;
    }
    for instance in ["i-0", "i-1", "i-2"] {
        let target = target(instance, &server.address());
        assert!(run(&executor, &target, "true").await.succeeded());
    }
    // Channels that nobody waits for are closed.
    until("only the channels opened ahead are left", || {
        server.seen.open_channels() <= 3
    })
    .await;
    assert_eq!(server.connections(), 3);
}
