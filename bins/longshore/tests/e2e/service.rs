//! `longshore serve`, and the commands that ask it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::world::{Running, World, wait_for};

/// A service, and where it answers.
pub(crate) struct Service {
    pub(crate) running: Running,
    pub(crate) address: String,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Service {
    pub(crate) fn start(world: &World, more: &[&str]) -> Self {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
        arguments.extend(more);
        Self::spawn(world, world.longshore(&arguments))
    }

    /// One that is started so.
    pub(crate) fn spawn(world: &World, command: std::process::Command) -> Self {
        let running = world.spawn(command);
        let address = wait_for("the service to answer", || address(&running));
        Self { running, address }
    }

    /// One that has said where it answers.
    pub(crate) fn that_answers(running: Running) -> Self {
        let address = address(&running).expect("it has said where it answers");
        Self { running, address }
    }

    /// One request whose head is complete but for the connection.
    pub(crate) fn ask(&self, head: &str, body: &str) -> Reply {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let request = format!(
            "{head}\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    /// Ends it as systemd does.
    pub(crate) fn stop(self) {
        self.running.signal(Signal::SIGTERM);
        self.stopped();
    }

    /// Waits for its end, once it was told to end.
    pub(crate) fn stopped(self) {
        self.running
            .end()
            .expect(0)
            .complains(&["go on running", "waiting"]);
    }

    /// Kills it, and what runs for it goes on.
    pub(crate) fn kill(self) {
        self.running.signal(Signal::SIGKILL);
        self.running.end();
    }
}

/// Where a service says that it answers, if it has said so.
fn address(running: &Running) -> Option<String> {
    let err = running.err();
    let (_, rest) = err.split_once("http://").or(err.split_once("https://"))?;
    let (address, _) = rest.split_once(';')?;
    Some(address.to_owned())
}

/// Nothing of the service or its jobs stays.
pub(crate) fn clean(world: &World) {
    world.run(&["cleanup"]).expect(0);
    world.check_nothing_is_left();
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn commands_say_what_to_do_where_no_service_runs() {
    let world = World::new();
    for command in [
        &["list"][..],
        &["submit", "--", "true"],
        &["show", "a"],
        &["explain", "a"],
        &["logs", "a"],
        &["cancel", "a"],
        &["instance", "list"],
    ] {
        world.run(command).expect(2).complains(&["longshore serve"]);
    }
}

#[test]
fn tokens_that_are_not_the_service_s_are_said() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    for (name, command) in [
        ("api_token", &["list"][..]),
        ("management_token", &["instance", "list"]),
    ] {
        let path = world.state().join(name);
        let token = std::fs::read(&path).unwrap();
        std::fs::write(&path, "another-token-that-is-long-enough\n").unwrap();
        let said = world.run(command).expect(1);
        said.complains(&["is not the one that the service began with"]);
        std::fs::remove_file(&path).unwrap();
        world
            .run(command)
            .expect(2)
            .complains(&[name, "cannot be read"]);
        std::fs::write(&path, token).unwrap();
        world.run(command).expect(0);
    }
    service.stop();
    clean(&world);
}

#[test]
fn a_job_is_submitted_listed_shown_followed_and_ended() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let told = world.run(&["submit", "--json", "--name", "two words", "--", "sh", "-c",
        "echo out 1; echo err 1 >&2; touch began; until test -e go; do sleep 0.05; done; echo out 2; exit 3"]);
    let told = json(&told.expect(0).out);
    let uuid = told["jobs"][0]["uuid"].as_str().unwrap().to_owned();
    wait_for("the job to begin", || world.exists("began").then_some(()));

    // What it has written is there while it runs.
    let logs = world.start(&["logs", "-f", "two words"]);
    wait_for("its output", || {
        (logs.out() == "out 1\n" && logs.err().contains("err 1\n")).then_some(())
    });
    let listed = wait_for("it to be said that it runs", || {
        let listed = json(&world.run(&["list", "--json"]).expect(0).out);
        (listed[0]["verdict"] == "running").then_some(listed)
    });
    assert_eq!(listed[0]["uuid"], uuid.as_str());
    assert_eq!(listed.as_array().unwrap().len(), 1);
    world.touch("go");
    let said = logs.end().expect(1);
    assert_eq!(said.out, "out 1\nout 2\n");
    assert!(said.err.contains("exit code 3"), "{said:?}");

    // And afterwards, by the end of its UUID, too.
    let said = world.run(&["logs", "--stdout", &uuid[20..]]).expect(0);
    assert_eq!((&*said.out, &*said.err), ("out 1\nout 2\n", ""));
    let shown = json(&world.run(&["show", "--json", &uuid]).expect(0).out);
    assert_eq!(shown["verdict"], "failed");
    assert_eq!(shown["exit_code"], 3);
    assert_eq!(shown["document"]["command"][0], "sh");
    assert!(world.run(&["list"]).expect(0).err.contains("--all"));
    assert!(
        world
            .run(&["list", "--all"])
            .expect(0)
            .out
            .contains("exit code 3")
    );

    // One that would run for ever is ended.
    world.run(&["submit", "--", "sleep", "1000"]).expect(0);
    world.run(&["cancel", "sleep"]).expect(0);
    wait_for("it to be ended", || {
        let listed = json(
            &world
                .run(&["list", "--all", "--name", "sleep", "--json"])
                .out,
        );
        (listed[0]["verdict"] == "cancelled").then_some(())
    });
    service.stop();
    clean(&world);
}

#[test]
fn what_was_submitted_and_has_ended_is_run_anew_by_run() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    world.jobs("a", "  - {name: a, command: 'echo x >> $W/runs'}\n");
    world.run(&["submit", "a"]).expect(0);
    wait_for("it to end", || {
        let listed = json(&world.run(&["list", "--all", "--json"]).expect(0).out);
        (listed[0]["verdict"] == "ok").then_some(())
    });
    let said = world.run(&["run", "a"]).expect(0);
    assert!(!said.out.contains("going on"), "{}", said.out);
    assert_eq!(world.read("runs"), "x\nx\n");
    service.stop();
    clean(&world);
}

#[test]
fn the_output_is_that_of_the_last_attempt() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    // The first attempt says something and ends its supervisor; the second says nothing.
    let script = "if test $LONGSHORE_ATTEMPT = 1; then echo first; echo first >&2; touch wrote; \
                  supervisor=$(ps -o ppid= -p $PPID); kill -9 $supervisor; sleep 1000; fi";
    let told = world.run(&["submit", "--name", "twice", "--", "sh", "-c", script]);
    told.expect(0);
    let shown = wait_for("the second attempt to end", || {
        let shown = json(&world.run(&["show", "--json", "twice"]).expect(0).out);
        (shown["verdict"] == "ok").then_some(shown)
    });
    assert_eq!(shown["attempts"], 2, "{shown}");
    let said = world.run(&["logs", "twice"]).expect(0);
    assert_eq!((&*said.out, &*said.err), ("", ""));
    service.stop();
    clean(&world);
}

#[test]
fn a_run_beside_a_service_submits_to_it_and_outlives_its_death() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let until = "until test -e $W/go; do sleep 0.05; done";
    world.jobs(
        "a",
        &format!("  - {{name: a, command: 'echo x >> $W/runs; {until}'}}\n"),
    );
    let running = world.start(&["run", "a"]);
    wait_for("the job to begin", || world.exists("runs").then_some(()));
    assert!(
        running.err().contains("submitting to the service"),
        "{}",
        running.err()
    );
    service.kill();
    wait_for("the death to be noticed", || {
        running.err().contains("does not answer").then_some(())
    });
    let service = Service::start(&world, &[]);
    wait_for("it to be followed again", || {
        (running.err().matches("submitting to the service").count() == 2).then_some(())
    });
    world.touch("go");
    running.end().expect(0).line("ok", "a");
    assert_eq!(world.read("runs"), "x\n", "it ran once");
    service.stop();
    clean(&world);
}

#[test]
fn a_run_beside_a_run_submits_to_it_and_goes_on_alone() {
    let world = World::new();
    let until = |name: &str| format!("until test -e $W/{name}; do sleep 0.05; done");
    world.jobs(
        "a",
        &format!(
            "  - {{name: a, command: 'touch $W/a-began; {}'}}\n",
            until("go-a")
        ),
    );
    world.jobs(
        "b",
        &format!(
            "  - {{name: b, command: 'echo x >> $W/b-runs; {}'}}\n",
            until("go-b")
        ),
    );
    let first = world.start(&["run", "a"]);
    wait_for("the first to begin", || {
        world.exists("a-began").then_some(())
    });
    let second = world.start(&["run", "b"]);
    wait_for("the second to begin", || {
        world.exists("b-runs").then_some(())
    });
    assert!(second.err().contains("another run"), "{}", second.err());
    first.signal(Signal::SIGKILL);
    first.end();
    world.touch("go-a");
    world.touch("go-b");
    second.end().expect(0).line("ok", "b");
    assert_eq!(world.read("b-runs"), "x\n", "it ran once");
    clean(&world);
}

/// Each end point, rightly and wrongly asked.
fn check_each(service: &Service, management: &str, uuid: &str, id: &str) {
    for (method_path, status, said) in [
        (
            "GET /arvados/v1/dispatch/container?container_uuid=x".to_owned(),
            404,
            "container not found",
        ),
        (
            "POST /arvados/v1/dispatch/containers/kill".to_owned(),
            400,
            "container_uuid parameter not provided",
        ),
        (
            "POST /arvados/v1/dispatch/containers/kill?container_uuid=local-dz642-000000000000000"
                .to_owned(),
            404,
            "container not found",
        ),
        (
            "POST /arvados/v1/dispatch/instances/hold".to_owned(),
            400,
            "instance_id parameter not provided",
        ),
        (
            "POST /arvados/v1/dispatch/instances/drain?instance_id=%27%3B--".to_owned(),
            404,
            "requested instance does not exist",
        ),
        (
            "POST /arvados/v1/dispatch/instances/kill?instance_id=x".to_owned(),
            404,
            "instance not found",
        ),
        (
            format!("POST /arvados/v1/dispatch/instances/hold?instance_id={id}"),
            200,
            "",
        ),
        (
            format!("POST /arvados/v1/dispatch/instances/run?instance_id={id}"),
            200,
            "",
        ),
        (
            format!("POST /arvados/v1/dispatch/containers/kill?container_uuid={uuid}&reason=r"),
            200,
            "",
        ),
        ("GET /nowhere".to_owned(), 404, "nothing at this path"),
        (
            "DELETE /arvados/v1/dispatch/instances".to_owned(),
            405,
            "no such method",
        ),
    ] {
        let head = format!("{method_path} HTTP/1.1\r\nAuthorization: Bearer {management}");
        let reply = service.ask(&head, "");
        assert_eq!(reply.status, status, "{method_path}: {reply:?}");
        assert!(reply.body.contains(said), "{method_path}: {reply:?}");
        if status >= 400 {
            assert!(json(&reply.body)["errors"][0].is_string(), "{reply:?}");
            assert!(
                reply.head.contains("x-content-type-options: nosniff"),
                "{reply:?}"
            );
        }
    }
}

#[test]
fn the_management_api_lets_in_who_has_its_token() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let token = |name: &str| world.read(&format!("state/{name}")).trim().to_owned();
    let (management, api) = (token("management_token"), token("api_token"));
    let containers = "GET /arvados/v1/dispatch/containers";
    let ask = |method_path: &str, token: &str| {
        service.ask(
            &format!("{method_path} HTTP/1.1\r\nAuthorization: Bearer {token}"),
            "",
        )
    };

    let none = service.ask(&format!("{containers} HTTP/1.1"), "");
    assert_eq!((none.status, &*none.body), (401, "Unauthorized"));
    for wrong in ["x", &api, &management[1..], &management.to_uppercase()] {
        let wrong = ask(containers, wrong);
        assert_eq!((wrong.status, &*wrong.body), (403, "Forbidden"));
    }
    let good = ask(containers, &management);
    assert_eq!((good.status, &*good.body), (200, r#"{"items":null}"#));
    let basic = format!("{containers}?api_token={management} HTTP/1.1");
    assert_eq!(service.ask(&basic, "").status, 200);
    assert_eq!(ask("GET /_health/ping", "x").status, 403);
    assert_eq!(service.ask("GET /_health/ping HTTP/1.1", "").status, 401);
    service.stop();
    clean(&world);
}

#[test]
fn the_management_api_has_the_codes_and_bodies_of_its_contract() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let management = world.read("state/management_token").trim().to_owned();
    let containers = "GET /arvados/v1/dispatch/containers";
    let ask = |method_path: &str, token: &str| {
        service.ask(
            &format!("{method_path} HTTP/1.1\r\nAuthorization: Bearer {token}"),
            "",
        )
    };

    // Of what waits there is a reason, and a kill of it is for good.
    let vcpus = longshore::provider::this_machine()
        .unwrap()
        .resources()
        .vcpus;
    let all = vcpus.to_string();
    world
        .run(&["submit", "--vcpus", &all, "--", "sleep", "1000"])
        .expect(0);
    world
        .run(&["submit", "--vcpus", &all, "--name", "w", "--", "true"])
        .expect(0);
    let waiting = wait_for("a reason", || {
        let reply = json(&ask(containers, &management).body);
        let items = reply["items"].as_array()?.clone();
        items.into_iter().find(|item| {
            item["scheduling_status"]
                .as_str()
                .unwrap()
                .contains("in line: waiting for room")
        })
    });
    let uuid = waiting["container"]["uuid"].as_str().unwrap();
    assert_eq!(waiting["container"]["state"], "Queued");
    assert_eq!(waiting["instance_types"][0]["VCPUs"], vcpus);
    let one = ask(
        &format!("GET /arvados/v1/dispatch/container?container_uuid={uuid}"),
        &management,
    );
    let one = json(&one.body);
    assert_eq!(one["container"]["uuid"], uuid);
    assert_eq!(one["scheduling_reason"]["reason"], "no_room");
    assert_eq!(one["scheduling_explanation"]["reason"]["reason"], "no_room");
    let instance = wait_for("the instance to run something", || {
        let reply = ask("GET /arvados/v1/dispatch/instances", &management);
        let instance = json(&reply.body)["items"][0].clone();
        (instance["worker_state"] == "running").then_some(instance)
    });
    assert_eq!(
        instance["running_container_uuids"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let id = instance["instance"].as_str().unwrap();

    check_each(&service, &management, uuid, id);
    wait_for("the kill", || {
        let listed = json(&world.run(&["list", "--all", "--name", "w", "--json"]).out);
        (listed[0]["verdict"] == "cancelled").then_some(())
    });
    let form = service.ask(
        &format!("POST /arvados/v1/dispatch/instances/kill HTTP/1.1\r\nAuthorization: Bearer {management}\r\nContent-Type: application/x-www-form-urlencoded"),
        &format!("instance_id={id}&reason=test"),
    );
    assert_eq!(form.status, 200, "{form:?}");

    let metrics = ask("GET /metrics", &management);
    assert!(
        metrics
            .body
            .contains("arvados_dispatchcloud_instances_total{category="),
        "{metrics:?}"
    );
    assert_eq!(
        ask("GET /_health/ping", &management).body,
        r#"{"health":"OK"}"#
    );
    world.run(&["cancel", "sleep"]).expect(0);
    wait_for("the last job to be ended", || {
        json(&world.run(&["list", "--json"]).out)
            .as_array()?
            .is_empty()
            .then_some(())
    });
    service.stop();
    clean(&world);
}

#[test]
fn a_job_that_waits_is_explained() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let vcpus = longshore::provider::this_machine()
        .unwrap()
        .resources()
        .vcpus;
    let all = vcpus.to_string();
    let submit = |name: &str, command: &[&str]| {
        let mut arguments = vec!["submit", "--vcpus", &all, "--name", name, "--"];
        arguments.extend(command);
        world.run(&arguments).expect(0);
    };
    let explain = |name: &str| world.run(&["explain", name]).expect(0).out;
    let explained = |name: &str, wanted: &str| {
        wait_for(wanted, || {
            let text = explain(name);
            text.contains(wanted).then_some(text)
        })
    };

    // It runs; the second finds no room.
    submit("first", &["sleep", "1000"]);
    let text = explained("first", "\nit runs\n");
    assert!(
        text.contains("Its time so far:") && text.contains(" running, from "),
        "{text}"
    );
    submit("second", &["true"]);
    let text = explained("second", "1st of 1 in line: waiting for room");
    for said in [
        "What would unblock it:\n  - wait until something ends on the instance that could run it\n",
        "the driver can have only 1 instance at once: wait until one is given back",
        "has not enough vCPUs left",
        "for room (the driver can have only 1 instance at once)",
    ] {
        assert!(text.contains(said), "{said:?} is missing in\n{text}");
    }
    assert!(!text.contains("raise"), "this machine is one:\n{text}");
    // All that say why it waits say the same.
    let sentence = || explain("second").lines().nth(2).unwrap().to_owned();
    let said_by = |command: &[&str]| world.run(command).expect(0).out;
    let said_alike = |wanted: &str| {
        let sentence = sentence();
        assert!(sentence.contains(wanted), "{sentence}");
        // What is listed is published a moment later.
        wait_for(&sentence, || {
            said_by(&["list"]).contains(&sentence).then_some(())
        });
        assert!(
            said_by(&["show", "second"]).contains(&sentence),
            "{sentence}"
        );
        let why = format!("longshore: second waits: {sentence}\n");
        world.run(&["logs", "second"]).expect(0).complains(&[&why]);
    };
    said_alike("1st of 1 in line: waiting for room");
    let told = json(&world.run(&["explain", "--json", "second"]).expect(0).out);
    assert_eq!(told["reason"]["reason"], "no_room");
    assert_eq!(
        (&told["position"], &told["in_line"]),
        (&1.into(), &1.into())
    );

    // An operator holds the machine: what is on it ends, and nothing follows.
    let id = told["instances"][0]["examples"][0]
        .as_str()
        .unwrap()
        .to_owned();
    world.run(&["instance", "hold", &id]).expect(0);
    let said = world
        .run(&["instance", "hold", "nosuch", &id, "nor-this"])
        .expect(2);
    said.complains(&[
        "there is no instance nosuch",
        &format!("{id} is on hold"),
        "there is no instance nor-this; `longshore instance list` shows them",
    ]);
    explained(
        "second",
        &format!("let {id} take containers again, which is on hold"),
    );
    said_alike(&format!("; {id} is on hold; "));
    world.run(&["cancel", "first"]).expect(0);
    explained("first", "\nit was cancelled\n");
    world.run(&["instance", "run", &id]).expect(0);
    explained("second", "\nit has ended\n");

    // What is not to run says so, there and in the list.
    let token = world.read("state/api_token").trim().to_owned();
    let head = format!(
        "POST /arvados/v1/container_requests HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json"
    );
    let request = r#"{"container_request": {"name": "zero", "state": "Committed", "priority": 0,
        "command": ["true"], "runtime_constraints": {"vcpus": 1, "ram": 1000000}}}"#;
    assert_eq!(service.ask(&head, request).status, 200);
    let zero = "not runnable: its priority is 0; raise it to run it";
    explained("zero", zero);
    let listed = world.run(&["list"]).expect(0).out;
    let line = listed.lines().find(|line| line.contains(" zero ")).unwrap();
    assert!(line.ends_with(zero), "{line}");
    world.run(&["cancel", "zero"]).expect(0);
    world
        .run(&["explain", "third"])
        .expect(2)
        .complains(&["there is no job"]);
    service.stop();
    clean(&world);
}
