//! The same with a real OpenSSH server.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::sshd::Sshd;
use common::{PLENTY, client_key, executor, executor_with, generate, run, target, try_run, until};
use longshore_exec::{Command, Executor, ExecutorExt, ExitStatus, Output, Phase};
use longshore_ssh::{PrivateKey, Settings, SshExecutor};

#[tokio::test]
async fn output_codes_and_odd_lines() {
    let server = Sshd::start(&[client_key()], "");
    let executor = executor();
    let target = target("i", &server.address);
    let done = run(
        &executor,
        &target,
        r"printf 'out\000\377'; printf err >&2; exit 3",
    )
    .await;
    assert_eq!(
        (&done.stdout[..], &done.stderr[..]),
        (&b"out\0\xff"[..], &b"err"[..])
    );
    assert_eq!(done.status, Some(ExitStatus::Code(3)));
    for code in [0, 255] {
        let done = run(&executor, &target, &format!("exit {code}")).await;
        assert_eq!(done.status, Some(ExitStatus::Code(code)));
    }
    let odd = "echo 'it'\\''s' \"$((1+2))\"\necho next # comment";
    assert_eq!(run(&executor, &target, odd).await.stdout, b"it's 3\nnext\n");
    let open = run(&executor, &target, "echo 'open").await;
    assert!(open.status.is_some_and(|status| !status.is_success()));
    // The signal of a command is the shell's code; the signal of the shell is a signal.
    let killed = run(&executor, &target, "sh -c 'kill -TERM $$'").await;
    assert_eq!(killed.status, Some(ExitStatus::Code(128 + 15)));
    let killed = run(&executor, &target, "kill -KILL $$").await;
    assert_eq!(killed.status, Some(ExitStatus::Signal("KILL".to_owned())));
    let much = run(&executor, &target, "seq 1000000; seq 200000 >&2").await;
    assert_eq!(
        (much.stdout.len(), much.stderr.len()),
        (6_888_896, 1_288_895)
    );
    assert_eq!(executor.stats().connections_made, 1);
}

#[tokio::test]
async fn all_kinds_of_keys() {
    let kinds: [&[&str]; 4] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
    ];
    let keys = kinds.map(generate);
    let server = Sshd::start(&keys.each_ref(), "");
    for (kind, key) in kinds.iter().zip(&keys) {
        let key = PrivateKey::parse(&key.private).unwrap();
        let executor = SshExecutor::new(key, Settings::default());
        let done = run(&executor, &target("i", &server.address), "echo in").await;
        assert_eq!(done.stdout, b"in\n", "{kind:?}: {}", server.log());
    }
    let stranger = PrivateKey::parse(&generate(&["-t", "ed25519"]).private).unwrap();
    let executor = SshExecutor::new(stranger, Settings::default());
    let error = try_run(&executor, &target("i", &server.address), "true")
        .await
        .unwrap_err();
    assert_eq!(
        (error.phase, error.may_have_run),
        (Phase::Authentication, false)
    );
}

#[tokio::test]
async fn much_input_and_unwanted_input() {
    let server = Sshd::start(&[client_key()], "");
    let executor = executor();
    let target = target("i", &server.address);
    let input = vec![b'x'; 10 * 1024 * 1024];
    let count = Command::new("wc -c");
    let done = executor
        .exec(&target, &count, &input, PLENTY, 100)
        .await
        .unwrap();
    assert_eq!(done.stdout, b"10485760\n");
    let head = Command::new("head -c 3; exec 0<&-; exit 5");
    let done = executor
        .exec(&target, &head, &input, PLENTY, 100)
        .await
        .unwrap();
    assert_eq!(
        (done.stdout, done.status),
        (b"xxx".to_vec(), Some(ExitStatus::Code(5)))
    );
}

#[tokio::test]
async fn many_commands_share_one_connection_and_new_keys() {
    // New keys after every megabyte.
    let server = Sshd::start(&[client_key()], "RekeyLimit 1M");
    let executor = Arc::new(executor());
    let target = target("i", &server.address);
    let tasks: Vec<_> = (0..60)
        .map(|i| {
            let (executor, target) = (Arc::clone(&executor), target.clone());
            tokio::spawn(async move {
                let line = Command::new(format!("cat | wc -c; seq 50000; exit {i}"));
                let input = vec![b'x'; 300_000];
                let done = executor
                    .exec(&target, &line, &input, PLENTY, 1 << 20)
                    .await
                    .unwrap();
                assert!(done.stdout.starts_with(b"300000\n1\n2\n"));
                assert!(done.stdout.ends_with(b"\n50000\n"));
                assert_eq!(done.status, Some(ExitStatus::Code(i)));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(executor.stats().connections_made, 1, "{}", server.log());
}

#[tokio::test]
async fn a_server_with_one_channel() {
    let server = Sshd::start(&[client_key()], "MaxSessions 1");
    let executor = executor();
    let target = target("i", &server.address);
    for i in 0..10 {
        let line = Command::new(format!("echo {i}"));
        let done = executor.exec(&target, &line, &[], PLENTY, 100).await;
        let done = done.unwrap_or_else(|e| panic!("{i}: {}: {}", e.chain(), server.log()));
        assert_eq!(done.stdout, format!("{i}\n").as_bytes());
    }
    assert_eq!(executor.stats().connections_made, 1);
}

#[tokio::test]
async fn beside_a_command_without_an_end_a_server_with_one_channel_runs_no_other() {
    let server = Sshd::start(&[client_key()], "MaxSessions 1");
    let executor = executor();
    let target = target("i", &server.address);
    assert!(run(&executor, &target, "true").await.succeeded());
    let cat = Command::new("cat");
    let endless = executor.open(&target, &cat, Duration::MAX).await.unwrap();
    let line = Command::new("true");
    for _ in 0..2 {
        let refused = executor.open(&target, &line, PLENTY).await.unwrap_err();
        assert!(refused.is_alone(), "{}", refused.chain());
        assert_eq!((refused.phase, refused.may_have_run), (Phase::Open, false));
    }
    drop(endless);
    assert!(run(&executor, &target, "true").await.succeeded());
    // One that has an end is waited for.
    let mut cat = executor.open(&target, &cat, PLENTY).await.unwrap();
    let waiting = run(&executor, &target, "true");
    let (done, closed) = tokio::join!(waiting, cat.close_stdin());
    closed.unwrap();
    assert!(done.succeeded());
    assert_eq!(executor.stats().connections_made, 1, "{}", server.log());
}

#[tokio::test]
async fn beside_a_command_without_an_end_a_server_with_two_channels_runs_others() {
    let server = Sshd::start(&[client_key()], "MaxSessions 2");
    let executor = executor();
    let target = target("i", &server.address);
    let cat = Command::new("cat");
    let _endless = executor.open(&target, &cat, Duration::MAX).await.unwrap();
    for _ in 0..20 {
        assert!(run(&executor, &target, "true").await.succeeded());
    }
    assert_eq!(executor.stats().connections_made, 1, "{}", server.log());
}

/// A line that says something and goes on until `stop` exists.
fn until_stopped(stop: &std::path::Path) -> String {
    format!(
        "echo; f={}; while test -d \"${{f%/*}}\" && ! test -e \"$f\"; do sleep 0.1; done",
        stop.display()
    )
}

#[tokio::test]
async fn dropped_commands_that_go_on_do_not_use_the_server_up() {
    let server = Sshd::start(&[client_key()], "MaxSessions 4");
    let executor = executor();
    let target = target("i", &server.address);
    let folder = tempfile::tempdir().unwrap();
    let stop = folder.path().join("stop");
    for _ in 0..10 {
        let line = Command::new(until_stopped(&stop));
        let mut process = executor.open(&target, &line, PLENTY).await.unwrap();
        assert!(process.output().await.unwrap().is_some());
    }
    assert!(run(&executor, &target, "true").await.succeeded());
    std::fs::write(stop, "").unwrap();
    let made = executor.stats().connections_made;
    assert!((2..=4).contains(&made), "{made} connections");
}

#[tokio::test]
async fn a_dropped_command_that_goes_on_harms_no_other() {
    let server = Sshd::start(&[client_key()], "");
    let mut settings = Settings::default();
    settings.answer = Duration::from_secs(5);
    let executor = executor_with(settings);
    let target = target("i", &server.address);
    let folder = tempfile::tempdir().unwrap();
    let stop = folder.path().join("stop");
    let cat = Command::new("cat");
    let mut other = executor.open(&target, &cat, PLENTY).await.unwrap();
    let line = Command::new(until_stopped(&stop));
    let mut dropped = executor.open(&target, &line, PLENTY).await.unwrap();
    assert!(dropped.output().await.unwrap().is_some());
    drop(dropped);
    // OpenSSH closes the channel when the command ends: that is no lack of an answer.
    let slow = run(&executor, &target, "sleep 8").await;
    assert!(slow.succeeded());
    other.write_stdin(b"still here").await.unwrap();
    other.close_stdin().await.unwrap();
    let mut said = Vec::new();
    while let Some(output) = other.output().await.unwrap() {
        // A start-up file of the login shell may have something to say on standard error.
        if let Output::Stdout(bytes) = output {
            said.extend(bytes);
        }
    }
    assert_eq!(said, b"still here");
    assert_eq!(other.wait().await.unwrap(), Some(ExitStatus::Code(0)));
    std::fs::write(stop, "").unwrap();
    assert_eq!(executor.stats().connections_made, 1);
}

#[tokio::test]
async fn what_a_command_leaves_behind_does_not_hold_up_its_status() {
    let server = Sshd::start(&[client_key()], "");
    let executor = executor();
    let target = target("i", &server.address);
    let line = Command::new("sleep 100 & echo $!; exit 4");
    let mut process = executor.open(&target, &line, PLENTY).await.unwrap();
    // A start-up file of the login shell may have something to say, too.
    let pid = loop {
        match process.output().await.unwrap() {
            Some(Output::Stdout(pid)) => break pid,
            Some(Output::Stderr(noise)) => eprintln!("{}", String::from_utf8_lossy(&noise)),
            None => panic!("no output; sshd says: {}", server.log()),
        }
    };
    assert_eq!(process.wait().await.unwrap(), Some(ExitStatus::Code(4)));
    drop(process);
    let kill = format!("kill {}", String::from_utf8(pid).unwrap());
    assert!(run(&executor, &target, &kill).await.succeeded());
}

#[tokio::test]
async fn a_stopped_server_meets_the_deadline_and_goes_on_afterwards() {
    let server = Sshd::start(&[client_key()], "");
    let signal = |name: &str| {
        let done = std::process::Command::new("kill")
            .args([name, &server.pid().to_string()])
            .status();
        assert!(done.unwrap().success());
    };
    let executor = executor();
    let target = target("i", &server.address);
    signal("-STOP");
    let line = Command::new("true");
    let error = executor
        .open(&target, &line, Duration::from_secs(2))
        .await
        .unwrap_err();
    assert_eq!((error.phase, error.may_have_run), (Phase::Banner, false));
    signal("-CONT");
    assert!(run(&executor, &target, "true").await.succeeded());
}

#[tokio::test]
async fn a_server_that_asks_whether_we_are_there_is_answered() {
    let more = "ClientAliveInterval 1\nClientAliveCountMax 3";
    let server = Sshd::start(&[client_key()], more);
    let executor = executor();
    let target = target("i", &server.address);
    assert!(run(&executor, &target, "true").await.succeeded());
    let before = executor.stats();
    // Each question takes an answer: with four unanswered ones the server would hang up.
    until("six questions were answered", || {
        executor.stats().bytes_sent >= before.bytes_sent + 6 * 30
    })
    .await;
    assert!(run(&executor, &target, "true").await.succeeded());
    assert_eq!(executor.stats().connections_made, 1);
}
