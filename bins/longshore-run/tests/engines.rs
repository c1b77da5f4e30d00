//! Containers of engines: real ones of Podman, and of Docker where there is one; and what Docker is
//! told.

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
use longshore_types::{
    AppliedLimits, ByteSize, ContainerReport, ContainerUuid, ExitCause, Means, ReportedState,
};

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

/// Whether there is a Docker to be used: `scripts/with-docker` says so.
fn docker() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    let there = *THERE.get_or_init(|| {
        if std::env::var_os("LONGSHORE_TEST_DOCKER").is_none() {
            return false;
        }
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("docker");
        let made = Command::new("sh")
            .args(["-euc", include_str!("docker-image.sh"), "sh"])
            .arg(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        true
    });
    if !there {
        eprintln!("NOT TESTED: containers of Docker; scripts/with-docker has one");
    }
    there
}

/// A machine with an engine.
struct Yard {
    fixture: Fixture,
    engine: Engine,
    /// By which variables the engine is found.
    variables: Vec<(&'static str, PathBuf)>,
}

impl Yard {
    /// One of each engine that is there.
    fn all() -> Vec<Self> {
        let mut yards = Vec::new();
        if let Some(store) = podman() {
            let variables = vec![
                ("CONTAINERS_CONF", store.join("containers.conf")),
                ("CONTAINERS_STORAGE_CONF", store.join("storage.conf")),
            ];
            yards.push(Self::new(Engine::Podman, variables));
        }
        if docker() {
            let host = std::env::var_os("DOCKER_HOST").unwrap_or_default();
            yards.push(Self::new(
                Engine::Docker,
                vec![("DOCKER_HOST", host.into())],
            ));
        }
        yards
    }

    fn new(engine: Engine, variables: Vec<(&'static str, PathBuf)>) -> Self {
        let mut fixture = Fixture::new();
        for (name, value) in &variables {
            fixture.set(name, value.clone());
        }
        Self {
            fixture,
            engine,
            variables,
        }
    }

    fn ask_engine(&self, arguments: &[&str]) -> String {
        let program = match self.engine {
            Engine::Docker => "docker",
            _ => "podman",
        };
        let output = Command::new(program)
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn inside(&self, script: &str) -> StartDocument {
        let mut document = inside(script);
        document.engine = self.engine;
        document
    }

    fn containers_of(&self, uuid: ContainerUuid) -> String {
        let filter = format!("name=longshore-{uuid}-");
        self.ask_engine(&["ps", "--all", "--quiet", "--filter", &filter])
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
    for yard in Yard::all() {
        let fixture = &yard.fixture;
        let uuid = uuid();
        let directory = fixture.path("data");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("in"), "input\n").unwrap();
        let mut document = yard.inside(
            "cat; echo \"$A $LONGSHORE_ATTEMPT $HOME$B,${E-unset}\"; pwd; cat /ro/in; echo out > /rw/out; \
         (echo bad > /ro/bad) 2>/dev/null || echo kept; ls /sys/class/net; echo err >&2; exit 7",
        );
        document.env.insert("A".into(), "b\nc '\"$x".into());
        document.env.insert("HOME".into(), "/h".into());
        document.env.insert("B".into(), "= 'b' \"b\" # $x ".into());
        document.env.insert("E".into(), String::new());
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
            "input\nb\nc '\"$x 1 /h= 'b' \"b\" # $x ,\n/tmp\ninput\nkept\nlo\n"
        );
        assert_eq!(exit.stderr_bytes, 4);
        assert_eq!(
            std::fs::read_to_string(directory.join("out")).unwrap(),
            "out\n"
        );
        yard.assert_clean(uuid);
    }
}

#[test]
fn a_container_that_uses_up_its_memory_is_told_so() {
    for yard in Yard::all() {
        for script in ["exec tail /dev/zero", "tail /dev/zero; echo went on"] {
            let uuid = uuid();
            yard.fixture.start(uuid, 1, &yard.inside(script));
            let limit = ByteSize::mib(64);
            let cause = yard.fixture.cause(uuid, 1);
            assert_eq!(cause, ExitCause::OutOfMemory { limit }, "{script}");
            yard.assert_clean(uuid);
        }
    }
}

#[test]
fn what_cannot_run_in_a_container_is_told_in_a_line() {
    for yard in Yard::all() {
        let mut typo = yard.inside("");
        typo.command = vec!["sotr".into()];
        let mut no_image = yard.inside("true");
        no_image.image = Some("localhost/no-such-image:1".into());
        let mut no_source = yard.inside("true");
        no_source.mounts = vec![Mount {
            source: "/no/such/source".into(),
            target: "/x".into(),
            writable: false,
        }];
        // Docker looks for it somewhere, and says why it is not found there.
        let no_such_image = match yard.engine {
            Engine::Docker => "could not make the container",
            _ => "no-such-image",
        };
        let cases = [
            (
                typo,
                "CannotRun { code: 127",
                "the image has no such command",
            ),
            (no_image, "NotStarted", no_such_image),
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
    for yard in Yard::all() {
        let polite = uuid();
        // Podman may lose what is said by one that is asked to end while its client still attaches.
        let script = "trap 'echo asked; exit 0' TERM; sleep 0.5; echo up; \
                      while :; do sleep 0.05; done";
        yard.fixture.start(polite, 1, &yard.inside(script));
        yard.await_output(polite);
        yard.fixture.end(15, polite, 1);
        assert_eq!(yard.fixture.cause(polite, 1), ExitCause::Killed);
        assert_eq!(yard.fixture.stdout(polite, 1), "up\nasked\n");
        yard.assert_clean(polite);

        let deaf = uuid();
        let mut document = yard.inside("trap '' TERM; echo up; sleep 1000; sleep 1000");
        document.kill_grace_ms = 100;
        yard.fixture.start(deaf, 1, &document);
        yard.await_output(deaf);
        yard.fixture.kill(15, deaf, 1);
        assert_eq!(yard.fixture.cause(deaf, 1), ExitCause::Killed);
        yard.assert_clean(deaf);
    }
}

#[test]
fn a_container_is_never_taken_for_gone_and_never_left() {
    for yard in Yard::all() {
        for both in [false, true] {
            let uuid = uuid();
            let script = "echo up; while :; do sleep 0.05; done";
            let supervisor = yard.fixture.start(uuid, 1, &yard.inside(script));
            yard.await_output(uuid);
            let reaper = reaper_of(supervisor);
            if both {
                // Neither sees the other's end.
                signal(reaper, libc::SIGSTOP).unwrap();
            }
            signal(supervisor, libc::SIGKILL).unwrap();
            if both {
                signal(reaper, libc::SIGKILL).unwrap();
            }
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
}

/// No real Docker: one that writes down what it is told, and answers as Docker does.
const FAKE_DOCKER: &str = r#"#!/bin/sh
for word; do printf '%s\n' "$word"; done >> "$HOME/$1"
case $1 in
create)
  env > "$HOME/own"
  for word; do
    [ "$before" != --env-file ] || { stat -c %a "$word"; cat "$word"; } > "$HOME/variables"
    before=$word
  done;;
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

#[test]
fn a_container_whose_client_is_gone_is_lost_and_not_a_success() {
    let mut fixture = Fixture::new();
    let home = fixture.have_docker(FORGETFUL_DOCKER);
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
    let home = fixture.have_docker(FAKE_DOCKER);
    let uuid = uuid();
    let mut document = inside("x y");
    document.engine = Engine::Docker;
    document.image = Some("busybox:1.36".into());
    document.network = Network::Host;
    document.process_limit = 99;
    for (name, value) in [
        ("SECRET", "s3cret"),
        ("HTTPS_PROXY", "http://job:1"),
        ("DOCKER_HOST", "tcp://job:2"),
        ("LONGSHORE_ATTEMPT", "forged"),
        ("EMPTY", ""),
        ("LINES", "a\nb"),
        ("QUOTED", "\"a\""),
        ("INSIDE", "a \"b\" # c "),
    ] {
        document.env.insert(name.into(), value.into());
    }
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
    let variables = fixture.entry(uuid, 3).join("variables");
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
            "LINES=a",
            "b",
            "--env",
            "QUOTED=\"a\"",
            "--env-file",
            variables.to_str().unwrap(),
            "busybox:1.36",
            "sh",
            "-c",
            "x y",
        ]
    );
    let expected = format!(
        "600\nDOCKER_HOST=tcp://job:2\nEMPTY=\nHTTPS_PROXY=http://job:1\nINSIDE=a \"b\" # c \n\
         LONGSHORE_ATTEMPT=3\nLONGSHORE_CONTAINER_UUID={uuid}\nSECRET=s3cret\n"
    );
    assert_eq!(told("variables"), expected);
    assert!(!variables.exists(), "the container is made");
    let own = told("own");
    assert!(!own.contains("job:") && !own.contains("s3cret"), "{own}");
    assert_eq!(told("start"), format!("start\n--attach\n{name}\n"));
    assert_eq!(told("rm"), format!("rm\n--force\n--volumes\n{name}\n"));
    fixture.assert_clean(&[uuid]);
}

/// A client whose daemon does not run.
const NO_DAEMON: &str = r#"#!/bin/sh
echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?' >&2
exit 1
"#;

#[test]
fn a_container_of_an_engine_that_cannot_be_used_was_not_started() {
    let mut fixture = Fixture::new();
    fixture.have_docker(NO_DAEMON);
    let uuid = uuid();
    let mut document = inside("true");
    document.engine = Engine::Docker;
    fixture.start(uuid, 1, &document);
    let ExitCause::NotStarted { error } = fixture.finished(uuid, 1).cause else {
        panic!("it could not be started");
    };
    assert!(error.contains("Cannot connect"), "{error}");
    fixture.assert_clean(&[uuid]);
    let report = fixture.report_with(&["--ack", &format!("{uuid}:1")]);
    assert!(report.containers.is_empty(), "{report:?}");
}

/// One that is asked to remove a container: it needs the directory lock for that, and says when it
/// has it.
const CURIOUS_DOCKER: &str = r#"#!/bin/sh
"$HOME/runner" --kill 15 --attempt 1 zzzzz-dz642-00000000000free && echo free > "$HOME/free"
"#;

#[test]
fn an_engine_is_asked_without_the_directory_lock() {
    for newer in [false, true] {
        let mut fixture = Fixture::new();
        let home = fixture.have_docker(CURIOUS_DOCKER);
        let runner = format!(
            "#!/bin/sh\nLONGSHORE_RUN_DIR={} exec {RUNNER} \"$@\"\n",
            fixture.root().display()
        );
        executable(&home.join("runner"), &runner);
        let uuid = uuid();
        fixture.lose_container(uuid);
        eventually("the engine to have the lock", || {
            // The engine may have been taken for one that hangs after it had said so.
            let started = match newer {
                true => {
                    let start = fixture.try_start(uuid, 2, &shell("exit 0"));
                    matches!(start.status.code(), Some(0 | 3))
                }
                false => {
                    fixture.report_with(&["--ack", &format!("{uuid}:1")]);
                    true
                }
            };
            (started && home.join("free").exists()).then_some(())
        });
        if newer {
            assert_eq!(fixture.cause(uuid, 2), ExitCause::Exited { code: 0 });
        }
        fixture.assert_clean(&[uuid]);
    }
}

#[test]
fn an_engine_that_has_removed_a_container_is_not_asked_again() {
    let mut fixture = Fixture::new();
    let home = fixture.have_docker(FAKE_DOCKER);
    let uuid = uuid();
    fixture.lose_container(uuid);
    for _ in 0..3 {
        assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
    }
    fixture.report_with(&["--ack", &format!("{uuid}:1")]);
    let told = std::fs::read_to_string(home.join("rm")).unwrap();
    assert_eq!(
        told,
        format!("rm\n--force\n--volumes\nlongshore-{uuid}-1\n")
    );
    fixture.assert_clean(&[uuid]);
}

/// Holds its container until it is asked to remove it, and is not the engine of another host.
const LOCAL_DOCKER: &str = r#"#!/bin/sh
echo "$1 $DOCKER_HOST" >> "$HOME/asked"
case $1 in
create) : > "$HOME/container";;
start) exec sleep 1000;;
rm) rm -f "$HOME/container";;
esac
"#;

/// The engine of another host, or another user's: it has no such container.
const OTHER_DOCKER: &str = r#"#!/bin/sh
echo "Error response from daemon: No such container: $4" >&2
exit 1
"#;

#[test]
fn a_container_is_asked_for_where_it_was_made_and_never_taken_for_gone_elsewhere() {
    let mut fixture = Fixture::new();
    let home = fixture.have_docker(LOCAL_DOCKER);
    fixture.set("DOCKER_HOST", "unix:///first".into());
    let uuid = uuid();
    let mut document = inside("x");
    document.engine = Engine::Docker;
    let supervisor = fixture.start(uuid, 1, &document);
    let asked = home.join("asked");
    eventually("the start", || {
        let asked = std::fs::read_to_string(&asked).unwrap_or_default();
        asked.contains("start ").then_some(())
    });
    let reaper = reaper_of(supervisor);
    // Neither sees the other's end.
    signal(reaper, libc::SIGSTOP).unwrap();
    signal(supervisor, libc::SIGKILL).unwrap();
    // Its client is there no more.
    let (docker, moved) = (home.join("docker"), home.join("moved"));
    std::fs::rename(&docker, &moved).unwrap();
    signal(reaper, libc::SIGKILL).unwrap();
    // Another is in the path, and another host is the present one.
    let other = fixture.path("other");
    std::fs::create_dir(&other).unwrap();
    executable(&other.join("docker"), OTHER_DOCKER);
    fixture.set("PATH", format!("{}:/usr/bin:/bin", other.display()).into());
    fixture.set("DOCKER_HOST", "unix:///second".into());

    let output = fixture.run(&["--report"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(docker.to_str().unwrap()), "{errors}");
    let state = fixture.reported(uuid).unwrap().state;
    assert_eq!(state, ReportedState::Stale);
    let newer = fixture.try_start(uuid, 2, &shell("exit 0"));
    assert!(!newer.status.success(), "{newer:?}");
    fixture.report_with(&["--ack", &format!("{uuid}:1")]);
    assert!(home.join("container").exists() && fixture.entry(uuid, 1).exists());

    std::fs::rename(&moved, &docker).unwrap();
    assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
    assert!(!home.join("container").exists());
    let asked = std::fs::read_to_string(&asked).unwrap();
    assert!(
        asked.lines().all(|line| line.ends_with(" unix:///first")),
        "{asked}"
    );
    fixture.assert_clean(&[uuid]);
}

#[test]
fn a_container_of_which_no_client_is_known_is_not_gone_without_one() {
    let mut fixture = Fixture::new();
    fixture.set("PATH", "/no/such/directory".into());
    let uuid = uuid();
    // As earlier versions noted it.
    fixture.lose_container(uuid);
    let state = fixture.reported(uuid).unwrap().state;
    assert_eq!(state, ReportedState::Stale);
    fixture.have_docker(OTHER_DOCKER);
    assert_eq!(fixture.cause(uuid, 1), ExitCause::SupervisorLost);
}

/// One that hangs, with a part that would survive its end.
const SLOW_DOCKER: &str =
    "#!/bin/sh\nfor i in 1 2; do echo \"$4\" >> \"$HOME/asked\"; sleep 1000 & wait; done\n";

#[test]
fn of_an_engine_that_hangs_nothing_is_left_and_one_call_a_report_is_enough() {
    let mut fixture = Fixture::new();
    let home = fixture.have_docker(SLOW_DOCKER);
    let uuids = [uuid(), uuid()];
    for uuid in uuids {
        fixture.lose_container(uuid);
    }
    let report = fixture.report();
    let stale = |container: &ContainerReport| container.state == ReportedState::Stale;
    assert!(report.containers.iter().all(stale), "{report:?}");
    let asked = std::fs::read_to_string(home.join("asked")).unwrap();
    assert_eq!(asked, format!("longshore-{}-1\n", uuids[0]));
    eventually("the end of all processes", || {
        fixture.processes().is_empty().then_some(())
    });
}
