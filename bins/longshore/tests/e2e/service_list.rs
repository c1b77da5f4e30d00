//! Long lists.

use serde_json::Value;

use crate::service::{Service, clean, json};
use crate::world::World;

/// More than two parts of a list.
const COUNT: usize = 2_500;
const PART: usize = 1_000;

#[test]
fn a_long_list_is_given_and_asked_for_in_parts() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let vcpus = longshore::provider::this_machine()
        .unwrap()
        .resources()
        .vcpus;
    let items: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    world.jobs(
        "many",
        &format!(
            "  - {{name: busy, command: sleep 1000, priority: 2, resources: {{vcpus: {vcpus}}}}}\n  \
             - {{name: 'w-{{item}}', for_each: [{}], priority: 1, command: 'true', resources: {{vcpus: {vcpus}}}}}\n",
            items.join(", ")
        ),
    );
    world.run(&["submit", "many"]).expect(0);

    // Whoever asks for all of it gets a part, and where it goes on.
    let token = world.read("state/api_token").trim().to_owned();
    let (mut names, mut parts, mut place) = (Vec::new(), Vec::new(), String::new());
    loop {
        let path = format!("/longshore/v1/jobs?limit=100000{place}");
        let head = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}");
        let part = json(&service.ask(&head, "").body);
        let found = part["items"].as_array().unwrap();
        parts.push(found.len());
        names.extend(found.iter().map(name));
        match part["next"].as_u64() {
            Some(next) => place = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(parts, [PART, PART, COUNT + 1 - 2 * PART]);
    let expected = (0..COUNT).rev().map(|n| format!("w-{n}"));
    let expected: Vec<String> = expected.chain(["busy".to_owned()]).collect();
    assert_eq!(names, expected);

    // The command puts the parts together, as far as they are wanted.
    let listed = |arguments: &[&str]| -> Vec<String> {
        let arguments = [&["list", "--json"], arguments].concat();
        let listed = json(&world.run(&arguments).expect(0).out);
        listed.as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(listed(&["--limit", "100000"]), expected);
    assert_eq!(listed(&["--limit", "1001"]), expected[..1001]);
    assert_eq!(listed(&["--limit", "1000"]), expected[..1000]);
    // What is meant may be far from the beginning.
    assert_eq!(listed(&["--name", "busy"]), ["busy"]);
    assert_eq!(listed(&["--name", "no such"]), [""; 0]);
    let said = world.run(&["list", "--limit", "2000"]).expect(0);
    assert_eq!(said.out.lines().count(), 1 + 2000, "one heading");
    assert!(said.err.contains("the newest 2000 only"), "{}", said.err);

    world.run(&["cancel", "--batch", "1"]).expect(0);
    service.stop();
    clean(&world);
}

fn name(job: &Value) -> String {
    job["name"].as_str().unwrap().to_owned()
}
