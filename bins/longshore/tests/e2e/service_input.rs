//! What a service is given that is wrong, too much, or too slow.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use super::service::{Reply, Service, clean};
use super::world::{World, wait_for};

const REQUESTS: &str = "/arvados/v1/container_requests";

struct Asked<'a> {
    service: &'a Service,
    token: String,
}

impl Asked<'_> {
    fn ask(&self, method_path: &str, body: &str) -> Reply {
        let token = &self.token;
        let head = format!(
            "{method_path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json"
        );
        self.service.ask(&head, body)
    }

    #[track_caller]
    fn refused(&self, method_path: &str, body: &str, status: u16, why: &str) {
        let reply = self.ask(method_path, body);
        let shown: String = body.chars().take(200).collect();
        assert_eq!(reply.status, status, "{method_path} {shown}: {reply:?}");
        let said: Value = serde_json::from_str(&reply.body).unwrap();
        let said = said["errors"][0].as_str().unwrap();
        assert!(said.contains(why), "{method_path} {shown}: {said}");
    }
}

fn committed(more: &str) -> String {
    format!(r#"{{"container_request": {{"state": "Committed", "command": ["true"]{more}}}}}"#)
}

fn jobs_that_ask_for_nothing_are_refused(asked: &Asked<'_>) {
    for request in [
        r#"{"vcpus": 0, "ram": 1}"#,
        r#"{"vcpus": 1, "ram": 0}"#,
        "{}",
    ] {
        let job = format!(
            r#"{{"name": "j", "document": {{"version": 1, "command": ["true"]}}, "request": {request},
                "priority": 1, "retries": 0, "keep_output": false}}"#
        );
        let batch = format!(
            r#"{{"key": "k", "content_hash": "", "name": "n", "followed": false, "jobs": [{job}]}}"#
        );
        let why = "no vCPU or no RAM";
        asked.refused("POST /longshore/v1/batches", &batch, 422, why);
    }
}

#[test]
fn what_cannot_be_right_is_wrong_usage_and_what_cannot_be_printed_an_error() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    for (arguments, why) in [
        (
            &["submit", "--ram", "0", "--", "true"][..],
            "less than 1 MiB",
        ),
        (&["submit", "--vcpus", "0", "--", "true"], "0 is not in 1.."),
        (
            &["submit", "--time-limit", "0s", "--", "true"],
            "at least 1ms",
        ),
        (&["cancel", "--batch", "99"], "batch 99 does not exist"),
    ] {
        let said = world.run(arguments).expect(2);
        assert!(said.err.contains(why), "{arguments:?}: {}", said.err);
    }
    let full = || std::fs::File::create("/dev/full").unwrap();
    for arguments in [&["list", "--json"][..], &["completions", "bash"]] {
        let mut command = world.longshore(arguments);
        let said = command.stdout(full()).output().unwrap();
        assert_eq!(said.status.code(), Some(1), "{arguments:?}: {said:?}");
        let said = String::from_utf8_lossy(&said.stderr);
        assert!(said.contains("could not be written"), "{said}");
    }
    let socket = std::fs::metadata(world.path("state/service.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    service.stop();
}

#[test]
fn each_wrong_request_has_one_clear_error() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let token = world.read("state/api_token").trim().to_owned();
    let asked = Asked {
        service: &service,
        token,
    };
    let post = format!("POST {REQUESTS}");
    let large = committed(&format!(r#", "description": "{}""#, "x".repeat(10 << 20)));
    for (body, status, why) in [
        ("{", 422, "not JSON"),
        ("[]", 422, "no object"),
        (r#"{"container_request": 5}"#, 422, "no object"),
        (
            &*committed(r#", "colour": "red""#),
            422,
            "no attribute \"colour\"",
        ),
        (&*committed(r#", "priority": 1001"#), 422, "priority"),
        (
            &*committed(r#", "priority": "'; DROP TABLE containers; --""#),
            422,
            "priority",
        ),
        (
            &*committed(r#", "container_image": "debian""#),
            422,
            "container_image",
        ),
        (
            &*committed(r#", "mounts": {"/keep": {"kind": "collection"}}"#),
            422,
            "mounted",
        ),
        (&*committed(r#", "cwd": "relative""#), 422, "cwd"),
        (
            &*committed(r#", "environment": {"A": 5}"#),
            422,
            "environment",
        ),
        (
            &*committed(r#", "runtime_constraints": {"vcpus": -1}"#),
            422,
            "vcpus",
        ),
        (
            r#"{"container_request": {"state": "Committed"}}"#,
            422,
            "command",
        ),
        (r#"{"container_request": {"state": "Sunk"}}"#, 422, "state"),
        (&*large, 413, "more than 8388608 bytes"),
    ] {
        asked.refused(&post, body, status, why);
    }
    let list = "GET /arvados/v1/containers";
    for (query, why) in [
        ("filters=x", "not JSON"),
        ("filters=[[%22uuid%22]]", "attribute, operator and operand"),
        (
            "filters=[[%22uuid;DROP%22,%22=%22,1]]",
            "attribute that there is not",
        ),
        ("filters=[[%22state%22,%22OR%22,1]]", "operator"),
        ("order=uuid;DROP", "order"),
        ("limit=-1", "limit"),
        ("select=5", "select"),
    ] {
        asked.refused(&format!("{list}?{query}"), "", 422, why);
    }
    asked.refused(&format!("{list}/x"), "", 404, "no such container");
    asked.refused(&format!("GET {REQUESTS}/%27%3B--"), "", 404, "no such");
    asked.refused(
        "POST /arvados/v1/containers/local-dz642-000000000000000/lock",
        "",
        403,
        "own dispatcher",
    );
    asked.refused("POST /longshore/v1/batches", "{}", 422, "not a batch");
    jobs_that_ask_for_nothing_are_refused(&asked);
    asked.refused("GET /longshore/v1/batches/77", "", 404, "does not exist");
    asked.refused("POST /longshore/v1/jobs/x/cancel", "", 404, "no job");
    let nobody = Asked {
        service: &service,
        token: "x".into(),
    };
    nobody.refused(list, "", 403, "token");

    asked_rightly(&world, &asked);
    service.stop();
    clean(&world);
}

/// After all that it works as before, and texts that a shell or SQL would take apart stay whole.
fn asked_rightly(world: &World, asked: &Asked<'_>) {
    let post = format!("POST {REQUESTS}");
    // A long list may come as a POST.
    let reply = asked.ask(
        "POST /arvados/v1/containers HTTP/1.1\r\nX-HTTP-Method-Override: GET\r\nX-Rest:",
        r#"{"limit": 1}"#,
    );
    assert_eq!(reply.status, 200, "{reply:?}");
    let metacharacters = "$(touch pwned); 'x' \\\" `id` %s ' OR 1=1 --";
    let quoted = serde_json::to_string(metacharacters).unwrap();
    let body = format!(
        r#"{{"container_request": {{"state": "Committed", "name": {quoted}, "command": ["printf", "%s", {quoted}]}}}}"#
    );
    let made: Value = serde_json::from_str(&asked.ask(&post, &body).body).unwrap();
    let (uuid, container) = (
        made["uuid"].as_str().unwrap(),
        made["container_uuid"].as_str().unwrap(),
    );
    wait_for("it to end", || {
        let found = asked.ask(&format!("GET {REQUESTS}/{uuid}"), "");
        found.body.contains(r#""state":"Final""#).then_some(())
    });
    let log = format!("GET {REQUESTS}/{uuid}/log/{container}/stdout.txt");
    assert_eq!(asked.ask(&log, "").body, metacharacters);
    let part = asked.ask(
        &format!("{log} HTTP/1.1\r\nRange: bytes=2-6\r\nX-Rest:"),
        "",
    );
    assert_eq!((part.status, &*part.body), (206, "touch"));
    assert!(part.head.contains("content-range: bytes 2-6/"), "{part:?}");
    for beyond in ["bytes=100000-", "bytes=18446744073709551615-", "lines=1-"] {
        let reply = asked.ask(&format!("{log} HTTP/1.1\r\nRange: {beyond}\r\nX-Rest:"), "");
        assert_eq!(reply.status, 416, "{reply:?}");
    }
    assert!(!world.exists("pwned"));
}

#[test]
fn a_thousand_clients_and_those_that_say_nothing_keep_nobody_out() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(4096), most).unwrap();
    let world = World::new();
    let service = Service::start(&world, &[]);
    // They hold their connections, with half a head each.
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(&service.address).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
            stream
        })
        .collect();
    let token = world.read("state/api_token").trim().to_owned();
    // And these have begun a body, of which a byte comes now and then.
    let head =
        "POST /arvados/v1/container_requests HTTP/1.1\r\nHost: here\r\nContent-Length: 100000";
    let mut slow: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(&service.address).unwrap();
            let head = format!("{head}\r\nAuthorization: Bearer {token}\r\n\r\n{{");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..1000 {
            scope.spawn(|| {
                let head = "GET /arvados/v1/containers?limit=1 HTTP/1.1";
                let reply = service.ask(&format!("{head}\r\nAuthorization: Bearer {token}"), "");
                assert_eq!(reply.status, 200, "{reply:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
        // Jobs are run beside them.
        world.run(&["submit", "--", "touch", "ran"]).expect(0);
        wait_for("the job", || {
            for stream in &mut slow {
                stream.write_all(b" ").unwrap();
            }
            world.exists("ran").then_some(())
        });
    });
    assert_eq!(answered.load(Ordering::Relaxed), 1000);
    drop(slow);
    // Who says no more is not waited for without end.
    for mut stream in idle {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    service.stop();
    clean(&world);
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let second = world.path("second");
    let second = second.to_str().unwrap();
    let address = service.address.clone();
    world
        .run(&["serve", "--state-dir", second, "--listen", &address])
        .expect(2)
        .complains(&["cannot listen", &address, "--listen"]);
    world
        .run(&["serve", "--state-dir", second, "--listen", "0.0.0.0:0"])
        .expect(2)
        .complains(&["--tls-cert", "--plain"]);
    world
        .run(&["serve", "--state-dir", second, "--listen", "here"])
        .expect(2)
        .complains(&["--listen here", "127.0.0.1:9006"]);
    world.touch("empty.pem");
    let tls = ["--tls-cert", "empty.pem", "--tls-key", "empty.pem"];
    let mut arguments = vec!["serve", "--state-dir", second, "--listen", "127.0.0.1:0"];
    arguments.extend(tls);
    world.run(&arguments).expect(2).complains(&["empty.pem"]);
    service.stop();

    let store = world.state().join("controller/store.sqlite");
    std::fs::write(&store, "not a database, and long enough to be looked at").unwrap();
    for side in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(world.state().join(format!("controller/store.sqlite{side}")));
    }
    world
        .run(&["serve", "--listen", "off"])
        .expect(1)
        .complains(&["damaged or not a store", "move it away"]);
    std::fs::remove_file(&store).unwrap();
    clean(&world);
}
