//! Containers of engines: real ones of Podman, and what Docker would be told.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod common;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use common::*;
use longshore_runner_api::{Engine, Mount, Network, StartDocument};
use longshore_types::{AppliedLimits, ByteSize, ContainerUuid, ExitCause, Means, ReportedState};

const IMAGE: &str = "localhost/longshore-test:1";

/// A store of images and containers of this test's own, with one small image; none, loudly, where
/// there is no Podman or no root.
fn podman() -> Option<&'static PathBuf> {
    static STORE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let store = STORE.get_or_init(|| {
        let works = Command::new("podman").arg("--version").output();
        if works.is_err() || !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("CI").is_none(),
                "there is no podman, or no root"
            );
            return None;
        }
        let store = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("podman");
        let script = include_str!("podman-store.sh");
        let made = Command::new("sh")
            .args(["-euc", script, "sh"])
            .arg(&store)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Some(store)
    });
    if store.is_none() {
        eprintln!("NOT TESTED: containers of Podman; that needs podman and root");
    }
    store.as_ref()
}

struct Yard {
    fixture: Fixture,
    store: &'static PathBuf,
}

impl Yard {
    fn new() -> Option<Self> {
        let store = podman()?;
        let mut fixture = Fixture::new();
        fixture.set("CONTAINERS_CONF", store.join("containers.conf"));
        fixture.set("CONTAINERS_STORAGE_CONF", store.join("storage.conf"));
        Some(Self { fixture, store })
    }

    fn podman(&self, arguments: &[&str]) -> String {
        let output = Command::new("podman")
            .args(arguments)
            .env("CONTAINERS_CONF", self.store.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.store.join("storage.conf"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn containers_of(&self, uuid: ContainerUuid) -> String {
        let filter = format!("name=longshore-{uuid}-");
        self.podman(&["ps", "--all", "--quiet", "--filter", &filter])
    }

    fn assert_clean(&self, uuid: ContainerUuid) {
        self.fixture.assert_clean(&[uuid]);
        assert_eq!(self.containers_of(uuid), "");
    }

    /// Waits until the job has written a line, so that it runs.
    fn await_output(&self, uuid: ContainerUuid) {
        let path = self.fixture.entry(uuid, 1).join("stdout");
        line_of(&path);
    }
}

fn inside(script: &str) -> StartDocument {
    let mut document = shell(script);
    document.engine = Engine::Podman;
    document.image = Some(IMAGE.into());
    document.ram = Some(ByteSize::mib(64));
    document.vcpus = Some(1);
    document
}

#[test]
fn a_container_sees_what_it_was_given_and_no_more() {
    let Some(yard) = Yard::new() else { return };
    let fixture = &yard.fixture;
    let uuid = uuid();
    let directory = fixture.path("data");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("in"), "input\n").unwrap();
    let mut document = inside(
        "cat; echo \"$A $LONGSHORE_ATTEMPT $HOME\"; pwd; cat /ro/in; echo out > /rw/out; \
         (echo bad > /ro/bad) 2>/dev/null || echo kept; ls /sys/class/net; echo err >&2; exit 7",
    );
    document.env.insert("A".into(), "b\nc '\"$x".into());
    document.env.insert("HOME".into(), "/h".into());
    document.cwd = Some("/tmp".into());
    document.stdin = Some(directory.join("in").to_str().unwrap().into());
    let mount = |target: &str, writable| Mount {
        source: directory.to_str().unwrap().into(),
        target: target.into(),
        writable,
    };
    document.mounts = vec![mount("/ro", false), mount("/rw", true)];
    fixture.start(uuid, 1, &document);
    let exit = fixture.finished(uuid, 1);
    assert_eq!(exit.cause, ExitCause::Exited { code: 7 });
    assert!(exit.limits.unwrap().are_whole(), "{exit:?}");
    assert_eq!(
        fixture.stdout(uuid, 1),
        "input\nb\nc '\"$x 1 /h\n/tmp\ninput\nkept\nlo\n"
    );
    assert_eq!(exit.stderr_bytes, 4);
    assert_eq!(
        std::fs::read_to_string(directory.join("out")).unwrap(),
        "out\n"
    );
    yard.assert_clean(uuid);
}

#[test]
fn a_container_that_uses_up_its_memory_is_told_so() {
    let Some(yard) = Yard::new() else { return };
    for script in ["exec tail /dev/zero", "tail /dev/zero; echo went on"] {
        let uuid = uuid();
        yard.fixture.start(uuid, 1, &inside(script));
        let limit = ByteSize::mib(64);
        let cause = yard.fixture.cause(uuid, 1);
        assert_eq!(cause, ExitCause::OutOfMemory { limit }, "{script}");
        yard.assert_clean(uuid);
    }
}

#[test]
fn what_cannot_run_in_a_container_is_told_in_a_line() {
    let Some(yard) = Yard::new() else { return };
    let mut typo = inside("");
    typo.command = vec!["sotr".into()];
    let mut no_image = inside("true");
    no_image.image = Some("localhost/no-such-image:1".into());
    let mut no_source = inside("true");
    no_source.mounts = vec![Mount {
        source: "/no/such/source".into(),
        target: "/x".into(),
        writable: false,
    }];
    let cases = [
        (
            typo,
            "CannotRun { code: 127",
            "the image has no such command",
        ),
        (no_image, "NotStarted", "no-such-image"),
        (no_source, "CannotRun", "cannot mount /no/such/source"),
    ];
    for (document, kind, part) in cases {
        let uuid = uuid();
        yard.fixture.start(uuid, 1, &document);
        let cause = format!("{:?}", yard.fixture.cause(uuid, 1));
        assert!(cause.starts_with(kind) && cause.contains(part), "{cause}");
        yard.assert_clean(uuid);
    }
}

#[test]
fn a_machine_without_the_engine_says_so() {
    let mut fixture = Fixture::new();
    fixture.set("PATH", "/no/such/directory".into());
    let uuid = uuid();
    fixture.start(uuid, 1, &inside("true"));
    match fixture.cause(uuid, 1) {
        ExitCause::CannotRun { code: 127, error } => {
            assert!(
                error.contains("cannot run podman: no such command"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_kill_reaches_the_container_first_with_term() {
    let Some(yard) = Yard::new() else { return };
    let polite = uuid();
    let script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    yard.fixture.start(polite, 1, &inside(script));
    yard.await_output(polite);
    eventually("the end", || {
        (yard.fixture.kill(15, polite, 1) == Some(0)).then_some(())
    });
    assert_eq!(yard.fixture.cause(polite, 1), ExitCause::Killed);
    assert_eq!(yard.fixture.stdout(polite, 1), "up\nasked\n");
    yard.assert_clean(polite);

    let deaf = uuid();
    let mut document = inside("trap '' TERM; echo up; sleep 1000; sleep 1000");
    document.kill_grace_ms = 100;
    yard.fixture.start(deaf, 1, &document);
    yard.await_output(deaf);
    yard.fixture.kill(15, deaf, 1);
    assert_eq!(yard.fixture.cause(deaf, 1), ExitCause::Killed);
    yard.assert_clean(deaf);
}

#[test]
fn a_container_is_never_taken_for_gone_and_never_left() {
    let Some(yard) = Yard::new() else { return };
    for both in [false, true] {
        let uuid = uuid();
        let script = "echo up; while :; do sleep 0.05; done";
        let supervisor = yard.fixture.start(uuid, 1, &inside(script));
        yard.await_output(uuid);
        let reaper = reaper_of(supervisor);
        if both {
            // Neither sees the other's end.
            signal(reaper, libc::SIGSTOP).unwrap();
        }
        signal(supervisor, libc::SIGKILL).unwrap();
        signal(reaper, if both { libc::SIGKILL } else { libc::SIGCONT }).unwrap();
        let exit = eventually("the end", || {
            // Looked at before the report, which may be what removes it.
            let gone = yard.containers_of(uuid).is_empty();
            match yard.fixture.reported(uuid)?.state {
                ReportedState::Finished(exit) => {
                    assert!(yard.containers_of(uuid).is_empty(), "{exit:?}");
                    Some(exit)
                }
                _ => {
                    assert!(!gone || !both, "nothing is there, and it is not told");
                    None
                }
            }
        });
        assert_eq!(exit.cause, ExitCause::SupervisorLost);
        yard.assert_clean(uuid);
    }
}

/// No real Docker: one that writes down what it is told, and answers as Docker does.
const FAKE_DOCKER: &str = r#"#!/bin/sh
for word; do printf '%s\n' "$word"; done >> "$HOME/$1"
case $1 in
create) echo "secret: $SECRET" >> "$HOME/variables";;
start) echo from docker;;
inspect) printf 'false\n2026-01-01T00:00:00Z\n137\ntrue\n\n';;
esac
"#;

/// One whose client loses the container, which goes on.
const FORGETFUL_DOCKER: &str = r#"#!/bin/sh
for word; do printf '%s\n' "$word"; done >> "$HOME/$1"
case $1 in
start) echo 'write /dev/stdout: no space left on device' >&2; exit 1;;
inspect) printf 'true\n2026-01-01T00:00:00Z\n0\nfalse\n\n';;
esac
"#;

/// A machine with this as its Docker; returns its home.
fn machine_with_docker(fixture: &mut Fixture, docker: &str) -> PathBuf {
    let home = fixture.path("home");
    std::fs::create_dir(&home).unwrap();
    let program = home.join("docker");
    std::fs::write(&program, docker).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    fixture.set("HOME", home.clone());
    fixture.set("PATH", format!("{}:/usr/bin:/bin", home.display()).into());
    home
}

#[test]
fn a_container_whose_client_is_gone_is_lost_and_not_a_success() {
    let mut fixture = Fixture::new();
    let home = machine_with_docker(&mut fixture, FORGETFUL_DOCKER);
    let uuid = uuid();
    let mut document = inside("sleep 100");
    document.engine = Engine::Docker;
    fixture.start(uuid, 1, &document);
    let exit = fixture.finished(uuid, 1);
    assert_eq!(exit.cause, ExitCause::SupervisorLost);
    // What went on is ended before that is told.
    let removed = std::fs::read_to_string(home.join("rm")).unwrap();
    assert_eq!(
        removed,
        format!("rm\n--force\n--volumes\nlongshore-{uuid}-1\n")
    );
    fixture.assert_clean(&[uuid]);
}

#[test]
fn docker_is_told_everything_on_its_command_line_but_the_values_of_variables() {
    let mut fixture = Fixture::new();
    let home = machine_with_docker(&mut fixture, FAKE_DOCKER);
    let uuid = uuid();
    let mut document = inside("x y");
    document.engine = Engine::Docker;
    document.image = Some("busybox:1.36".into());
    document.network = Network::Host;
    document.process_limit = 99;
    document.env.insert("SECRET".into(), "s3cret".into());
    document.mounts = vec![Mount {
        source: "/etc".into(),
        target: "/e".into(),
        writable: false,
    }];
    fixture.start(uuid, 3, &document);
    let exit = fixture.finished(uuid, 3);
    let limit = ByteSize::mib(64);
    assert_eq!(exit.cause, ExitCause::OutOfMemory { limit });
    assert_eq!(exit.limits, Some(AppliedLimits::all(Means::Engine)));
    assert_eq!(fixture.stdout(uuid, 3), "from docker\n");
    let told = |verb: &str| std::fs::read_to_string(home.join(verb)).unwrap();
    let name = format!("longshore-{uuid}-3");
    let bytes = (64 << 20).to_string();
    assert_eq!(
        told("create").lines().collect::<Vec<_>>(),
        [
            "create",
            "--pull",
            "missing",
            "--log-driver",
            "none",
            "--name",
            &name,
            "--network",
            "host",
            "--memory",
            &bytes,
            "--memory-swap",
            &bytes,
            "--cpus",
            "1",
            "--pids-limit",
            "99",
            "--volume",
            "/etc:/e:ro",
            "--env",
            "SECRET",
            "--env",
            "LONGSHORE_CONTAINER_UUID",
            "--env",
            "LONGSHORE_ATTEMPT",
            "busybox:1.36",
            "sh",
            "-c",
            "x y",
        ]
    );
    assert_eq!(told("variables"), "secret: s3cret\n");
    assert_eq!(told("start"), format!("start\n--attach\n{name}\n"));
    assert_eq!(told("rm"), format!("rm\n--force\n--volumes\n{name}\n"));
    fixture.assert_clean(&[uuid]);
}
