//! Running commands over SSH.
#![allow(
    clippy::unwrap_used,
    reason = "only tests are here, though not in functions marked as such"
)]

mod support;

use std::process::Stdio;

use russh::keys::ssh_key::LineEnding;
use support::{Done, PATIENCE, connect, create, eventually, finish, key, open, runs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_command_says_what_it_says_and_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let client = connect(&create(&*set, "one").await).await;
    let done = client.run("echo out; echo err >&2; exit 7").await;
    let expected = Done {
        stdout: b"out\n".to_vec(),
        stderr: b"err\n".to_vec(),
        code: Some(7),
        signal: None,
    };
    assert_eq!(done, expected);
    let done = client.run("kill -TERM $$").await;
    assert_eq!((done.code, done.signal.as_deref()), (None, Some("TERM")));
    let done = client.run("kill -KILL $$").await;
    assert_eq!((done.code, done.signal.as_deref()), (None, Some("KILL")));
    assert_eq!(client.text("sudo echo stripped").await, "stripped");
    // A command that closes its output first is waited for all the same.
    let done = client.run("exec >&- 2>&-; read x; exit 3").await;
    assert_eq!(done.code, Some(3));
}

#[tokio::test]
async fn the_environment_is_what_is_documented_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().canonicalize().unwrap();
    let set = open(&directory, 1).await;
    let instance = create(&*set, "one").await;
    let client = connect(&instance).await;
    let channel = client.session.channel_open_session().await.unwrap();
    channel.set_env(false, "INTRUDER", "1").await.unwrap();
    channel.exec(true, "exec env").await.unwrap();
    let done = finish(channel).await;
    let text = String::from_utf8(done.stdout).unwrap();
    // The shell itself sets PWD and the like.
    let shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let mut names: Vec<_> = text
        .lines()
        .map(|line| line.split_once('=').unwrap().0)
        .filter(|name| !shell.contains(name))
        .collect();
    names.sort_unstable();
    let expected = ["HOME", "LONGSHORE_RUN_DIR", "PATH", "SHELL", "USER"];
    assert_eq!(names, expected);
    let run = directory.join(instance.id.as_str()).join("run");
    let shown = client.text("echo $LONGSHORE_RUN_DIR").await;
    assert_eq!(shown, run.to_str().unwrap());
    assert_eq!(
        client.text("echo $USER").await,
        instance.remote_user.unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_come_back_as_they_went() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let client = connect(&create(&*set, "one").await).await;
    let sent: Vec<u8> = (0..10_u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (mut reader, writer) = client.start("cat").await.split();
    let write = async {
        writer.data(&sent[..]).await.unwrap();
        writer.eof().await.unwrap();
    };
    let read = async {
        let (mut got, mut code) = (Vec::new(), None);
        while let Some(message) = reader.wait().await {
            match message {
                russh::ChannelMsg::Data { data } => got.extend_from_slice(&data),
                russh::ChannelMsg::ExitStatus { exit_status } => code = Some(exit_status),
                _ => {}
            }
        }
        (got, code)
    };
    let ((), (got, code)) = tokio::join!(write, read);
    assert_eq!(code, Some(0));
    assert!(got == sent, "{} came back", got.len());
}

#[tokio::test]
async fn a_command_that_does_not_read_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let client = connect(&create(&*set, "one").await).await;
    let (_reader, writer) = client.start("exec sleep 100").await.split();
    let data = vec![7; 20 << 20];
    writer.data(&data[..]).await.unwrap();
    assert_eq!(client.text("echo still here").await, "still here");
    // One that has ended takes no notice of what still comes.
    let (mut reader, writer) = client.start("exit 4").await.split();
    // The client's own half may wait for ever for a window of a channel that is closed.
    let read = async {
        let mut code = None;
        while let Some(message) = reader.wait().await {
            if let russh::ChannelMsg::ExitStatus { exit_status } = message {
                code = Some(exit_status);
            }
        }
        code
    };
    let write = async {
        let _ = writer.data(&data[..]).await;
        std::future::pending::<()>().await;
    };
    let code = tokio::select! {
        code = read => code,
        () = write => None,
    };
    assert_eq!(code, Some(4));
}

#[tokio::test]
async fn twenty_commands_at_once_on_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let client = connect(&create(&*set, "one").await).await;
    let gate = folder.path().join("gate");
    let mut channels = Vec::new();
    // Each says that it runs and waits for a file that comes when all have said so.
    for i in 0..20 {
        let line = format!(
            "touch {0}.{i}; until [ -e {0} ]; do sleep 0.01; done; echo {i}",
            gate.display()
        );
        channels.push(client.start(&line).await);
    }
    let all_run = || (0..20).all(|i| gate.with_extension(i.to_string()).exists());
    eventually("all run at once", all_run).await;
    std::fs::write(&gate, "").unwrap();
    for (i, channel) in channels.into_iter().enumerate() {
        let done = finish(channel).await;
        assert_eq!(done.stdout, format!("{i}\n").into_bytes());
        assert_eq!(done.code, Some(0));
    }
}

#[tokio::test]
async fn closing_ends_the_command_and_what_it_did_not_detach() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let instance = create(&*set, "one").await;
    let client = connect(&instance).await;
    let file = folder.path().join("pids");
    let line = format!(
        "sleep 100 & child=$!; setsid sh -c 'echo $$ > {0}.detached; exec sleep 100' <&- >&- 2>&- & \
         until [ -s {0}.detached ]; do sleep 0.01; done; \
         echo $$ $child $(cat {0}.detached) > {0}.new; rm {0}.detached; mv {0}.new {0}; wait",
        file.display()
    );
    let pids = || -> Vec<u32> {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.split_whitespace()
            .map(|p| p.parse().unwrap())
            .collect()
    };
    let channel = client.start(&line).await;
    eventually("the command runs", || pids().len() == 3).await;
    let [shell, child, detached] = pids()[..] else {
        panic!("three")
    };
    channel.close().await.unwrap();
    eventually("the command is ended", || !runs(shell) && !runs(child)).await;
    assert!(runs(detached));

    std::fs::remove_file(&file).unwrap();
    let _channel = client.start(&line).await;
    eventually("the command runs", || pids().len() == 3).await;
    let second = pids();
    let reason = russh::Disconnect::ByApplication;
    client.session.disconnect(reason, "", "").await.unwrap();
    eventually("it is ended with the connection", || {
        !runs(second[0]) && !runs(second[1])
    })
    .await;
    assert!(runs(detached) && runs(second[2]));
    let destroyed = set.destroy(&support::context(), &[instance.id]).await;
    assert!(destroyed[0].1.is_ok());
    assert!(!runs(detached) && !runs(second[2]));
}

#[tokio::test]
async fn only_commands_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let client = connect(&create(&*set, "one").await).await;
    let refused = client
        .session
        .channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1)
        .await;
    assert!(refused.is_err());
    for kind in ["shell", "pty", "subsystem", "environment"] {
        let mut channel = client.session.channel_open_session().await.unwrap();
        match kind {
            "shell" => channel.request_shell(true).await.unwrap(),
            "pty" => channel
                .request_pty(true, "xterm", 80, 24, 0, 0, &[])
                .await
                .unwrap(),
            "subsystem" => channel.request_subsystem(true, "sftp").await.unwrap(),
            _ => channel.set_env(true, "A", "B").await.unwrap(),
        }
        let answer = loop {
            match channel.wait().await {
                Some(russh::ChannelMsg::WindowAdjusted { .. }) => {}
                other => break other,
            }
        };
        assert!(
            matches!(answer, Some(russh::ChannelMsg::Failure)),
            "{kind}: {answer:?}"
        );
    }
    let channel = client.start("echo one; read x").await;
    channel.exec(true, "echo two").await.unwrap();
    channel.eof().await.unwrap();
    assert_eq!(finish(channel).await.stdout, b"one\n");
}

#[tokio::test]
async fn too_many_channels_are_refused_and_closed_ones_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path(), 1).await;
    let client = connect(&create(&*set, "one").await).await;
    let mut channels = Vec::new();
    for _ in 0..longshore_driver_loopback::MAX_CHANNELS {
        channels.push(client.session.channel_open_session().await.unwrap());
    }
    assert!(client.session.channel_open_session().await.is_err());
    channels.pop().unwrap().close().await.unwrap();
    let mut last = client.session.channel_open_session().await;
    for _ in 0..longshore_driver_loopback::MAX_CHANNELS {
        // A channel that ended on our side makes room as well.
        let channel = last.unwrap();
        channel.exec(true, "true").await.unwrap();
        assert_eq!(finish(channel).await.code, Some(0));
        last = client.session.channel_open_session().await;
    }
}

/// OpenSSH's client, which has a mind of its own.
#[tokio::test]
async fn openssh_s_client_gets_along() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(&folder.path().join("state"), 1).await;
    let instance = create(&*set, "one").await;
    let identity = folder.path().join("identity");
    let text = key(1).to_openssh(LineEnding::LF).unwrap();
    std::fs::write(&identity, text.as_bytes()).unwrap();
    std::fs::set_permissions(
        &identity,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let known = folder.path().join("known_hosts");
    let address = instance.address.unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let host_key = connect(&set.list(&support::context(), &instance.tags).await.unwrap()[0])
        .await
        .host_key;
    std::fs::write(&known, format!("[{host}]:{port} {host_key}\n")).unwrap();
    let mut child = tokio::process::Command::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .args(["-o", "StrictHostKeyChecking=yes", "-p", port, "-i"])
        .arg(&identity)
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known.display()))
        .arg(format!("{}@{host}", instance.remote_user.unwrap()))
        .arg("cat; echo done >&2; exit 9")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs OpenSSH's client: install the package openssh-client");
    let sent = vec![42; 3 << 20];
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let talk = async {
        let (mut got, mut errors) = (Vec::new(), String::new());
        let write = async {
            stdin.write_all(&sent).await.unwrap();
            drop(stdin);
        };
        let (_, read, complaints) = tokio::join!(
            write,
            stdout.read_to_end(&mut got),
            stderr.read_to_string(&mut errors)
        );
        read.unwrap();
        complaints.unwrap();
        (got, errors, child.wait().await.unwrap())
    };
    let (got, errors, status) = tokio::time::timeout(PATIENCE, talk).await.unwrap();
    assert!(got == sent, "{} came back; {errors}", got.len());
    assert_eq!(errors, "done\n");
    assert_eq!(status.code(), Some(9));
}
