//! What systemd is told by `longshore serve`, over a socket as systemd has it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::service::{Service, clean};
use super::world::{PATIENCE, World};

/// Where systemd listens.
struct Notified(UnixDatagram);

impl Notified {
    fn listen(world: &World) -> Self {
        let socket = UnixDatagram::bind(world.path("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut told = [0; 256];
        let length = self.0.recv(&mut told).expect("it is told something");
        String::from_utf8(told[..length].to_vec()).unwrap()
    }

    /// Nothing was told that was not taken.
    fn is_quiet(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let quiet = self.0.recv(&mut [0; 256]).is_err();
        self.0.set_nonblocking(false).unwrap();
        quiet
    }
}

fn serve(world: &World) -> Command {
    let mut command = world.longshore(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", world.path("notify"));
    command
}

#[test]
fn it_is_ready_when_requests_are_answered_and_stopping_when_it_is_told_to() {
    let world = World::new();
    let systemd = Notified::listen(&world);
    let running = world.spawn(serve(&world));
    assert_eq!(systemd.next(), "READY=1");
    // At that moment, without waiting for anything.
    let service = Service::that_answers(running);
    assert_eq!(service.ask("GET /_health/ping HTTP/1.1", "").status, 401);
    let listed = world.run(&["list"]).expect(0);
    assert!(listed.out.is_empty());
    // Whoever runs here is not taken for the service.
    let said = "test -z \"$NOTIFY_SOCKET$WATCHDOG_USEC\"";
    let told = world.run(&["submit", "--name", "env", "--", "sh", "-c", said]);
    told.expect(0);
    world.run(&["logs", "-f", "env"]).expect(0);
    assert!(
        systemd.is_quiet(),
        "without a watchdog nothing else is said"
    );
    service.running.signal(Signal::SIGTERM);
    assert_eq!(systemd.next(), "STOPPING=1");
    service.stopped();
    assert!(systemd.is_quiet());
    clean(&world);
}

#[test]
fn what_cannot_be_served_is_never_ready() {
    let world = World::new();
    let systemd = Notified::listen(&world);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let mut command = world.longshore(&["serve", "--listen", &address]);
    command.env("NOTIFY_SOCKET", world.path("notify"));
    world.spawn(command).end().expect(2);
    assert!(systemd.is_quiet());
    world.check_nothing_is_left();
}

#[test]
fn the_watchdog_is_fed_as_long_as_the_service_is_alive() {
    let world = World::new();
    let systemd = Notified::listen(&world);
    let mut command = serve(&world);
    command.env("WATCHDOG_USEC", "200000");
    let running = world.spawn(command);
    assert_eq!(systemd.next(), "READY=1");
    for _ in 0..5 {
        assert_eq!(systemd.next(), "WATCHDOG=1");
    }
    running.signal(Signal::SIGTERM);
    while systemd.next() != "STOPPING=1" {}
    running.end().expect(0);
    assert!(systemd.is_quiet(), "what has ended is not fed");
    clean(&world);
}

#[test]
fn the_unit_of_the_examples_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let unit = fs::read_to_string(root.join("examples/systemd/longshore.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let verify = |unit: &str| {
        let path = folder.path().join("longshore.service");
        fs::write(&path, unit).unwrap();
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(&path)
            .output();
        let Ok(verified) = verified else {
            return None;
        };
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        Some((verified.status.success(), said))
    };
    let installed = "/usr/local/bin/longshore";
    assert!(unit.contains(&format!("ExecStart={installed} serve ")));
    let here = unit.replace(installed, env!("CARGO_BIN_EXE_longshore"));
    let Some(verified) = verify(&here) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "systemd-analyze is missing"
        );
        eprintln!("NOT TESTED: the unit of the examples; that needs systemd-analyze");
        return;
    };
    assert_eq!(verified, (true, String::new()));
    // What is wrong would be said.
    let (_, said) = verify(&here.replace("KillMode=", "KillMood=")).unwrap();
    assert!(said.contains("KillMood"), "{said}");
}
