//! What the service tells of itself: `/metrics`, `/metrics.json`, `/_inspect/requests`.

use super::service::{Service, clean, json};
use super::world::{World, wait_for};

const PREFIX: &str = "arvados_dispatchcloud_";

/// The value of a line of the metrics that begins so, if there is one.
fn found(text: &str, begin: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(begin))?;
    Some(line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn metric(text: &str, begin: &str) -> f64 {
    found(text, begin).unwrap_or_else(|| panic!("no {begin} in\n{text}"))
}

/// One container runs on all of the machine, and one waits for it.
fn check_values(text: &str, vcpus: f64) {
    for (name, value) in [
        ("containers_running", 1.0),
        ("containers_allocated_not_started", 0.0),
        ("containers_not_allocated_over_quota", 1.0),
        ("last_503_time", 0.0),
        ("max_concurrent_containers", 0.0),
        ("at_quota", 0.0),
        (
            "instances_total{category=\"inuse\",instance_type=\"localhost\"}",
            1.0,
        ),
        (
            "instances_total{category=\"hold\",instance_type=\"localhost\"}",
            0.0,
        ),
        ("vcpus_total{category=\"inuse\"}", vcpus),
        ("instances_price{category=\"inuse\"}", 1.0),
        (
            "queue_entries{state=\"Running\",instance_type=\"localhost\"}",
            1.0,
        ),
        (
            "queue_entries{state=\"Queued\",instance_type=\"localhost\"}",
            1.0,
        ),
        ("boot_outcomes{outcome=\"success\"}", 1.0),
        ("boot_outcomes{outcome=\"failure\"}", 0.0),
        ("instances_disappeared{state=\"running\"}", 0.0),
        ("driver_operations{operation=\"Create\",error=\"0\"}", 1.0),
        ("driver_operations{operation=\"Destroy\",error=\"1\"}", 0.0),
        (
            "containers_time_from_queue_to_crunch_run_seconds_count",
            1.0,
        ),
    ] {
        assert_eq!(metric(text, &format!("{PREFIX}{name}")), value, "{name}");
    }
    for name in [
        "containers_longest_wait_time_seconds",
        "probe_age_seconds_max",
        "memory_bytes_total{category=\"inuse\"}",
        "containers_time_from_queue_to_crunch_run_seconds{quantile=\"0.95\"}",
        "instances_run_probe_duration_seconds_count{outcome=\"success\"}",
    ] {
        assert!(metric(text, &format!("{PREFIX}{name}")) > 0.0, "{name}");
    }
    assert!(
        text.contains(&format!("# TYPE {PREFIX}boot_outcomes counter\n")),
        "{text}"
    );
    assert_eq!(metric(text, "arvados_version_running{"), 1.0);
    assert_eq!(
        metric(text, "arvados_concurrent_requests{"),
        1.0,
        "this one"
    );
}

#[test]
fn metrics_have_their_names_and_say_what_is_so() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let management = world.read("state/management_token").trim().to_owned();
    let get = |path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {management}");
        let reply = service.ask(&head, "");
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    };
    let vcpus = longshore::provider::this_machine()
        .unwrap()
        .resources()
        .vcpus;
    let all = vcpus.to_string();
    let submit = ["submit", "--vcpus", &all, "--name"];
    for (name, seconds) in [("runs", "1000"), ("waits", "0")] {
        world
            .run(&[&submit[..], &[name, "--", "sleep", seconds]].concat())
            .expect(0);
    }
    let text = wait_for("one that runs and one that waits", || {
        let text = get("/metrics");
        // What is counted at different moments: by the pool, by the queue once the controller has
        // taken it, and by the dispatcher when it was asked, before the pool was looked at.
        let counts = [
            "containers_running",
            "containers_not_allocated_over_quota",
            "queue_entries{state=\"Running\"",
            "containers_time_from_queue_to_crunch_run_seconds_count",
            "boot_outcomes{outcome=\"success\"}",
        ];
        let is_counted = |name: &&str| found(&text, &format!("{PREFIX}{name}")) > Some(0.0);
        counts.iter().all(is_counted).then_some(text)
    });
    check_values(&text, f64::from(vcpus));
    let answered = "request_duration_seconds_count{code=\"200\",method=\"get\"}";
    assert!(metric(&get("/metrics"), answered) >= 1.0);

    let families = json(&get("/metrics.json"));
    let families = families.as_array().unwrap();
    let family = |name: &str| {
        families
            .iter()
            .find(|family| family["name"] == name)
            .unwrap()
    };
    let running = family(&format!("{PREFIX}containers_running"));
    assert_eq!(
        (&running["type"], &running["metric"][0]["gauge"]["value"]),
        (&"GAUGE".into(), &1.0.into())
    );
    let asked = json(&get("/_inspect/requests?api_token=secret"));
    assert_eq!(asked[0]["path"], "/_inspect/requests");
    assert!(!asked.to_string().contains("secret"));
    let nobody = service.ask("GET /_inspect/requests HTTP/1.1", "");
    assert_eq!(nobody.status, 401);

    world.run(&["cancel", "runs"]).expect(0);
    wait_for("the jobs to end", || {
        json(&world.run(&["list", "--json"]).out)
            .as_array()?
            .is_empty()
            .then_some(())
    });
    service.stop();
    clean(&world);
}
