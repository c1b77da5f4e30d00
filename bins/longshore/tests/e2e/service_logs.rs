//! `longshore logs` of jobs that write more than is kept.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::service::{Service, clean};
use super::world::{Said, World, wait_for};

/// How many bytes the lines from 1 to this number have.
fn bytes_of_lines(last: u64) -> u64 {
    (1..=last).map(|n| n.to_string().len() as u64 + 1).sum()
}

/// How many bytes it says that it left out.
fn left_out(err: &str) -> u64 {
    let lines = err
        .lines()
        .filter(|line| line.ends_with("were left out here"));
    let numbers = lines.filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
    numbers.sum()
}

/// Every byte of the lines 1 to `last` was printed once, or is said to be missing.
fn check(said: &Said, last: u64) {
    let bytes = said.out.len() as u64 + left_out(&said.err);
    assert_eq!(bytes, bytes_of_lines(last), "{}", said.err);
    let mut before = 0;
    for line in said.out.lines() {
        // The lines on both sides of a gap lack a part, and may be one.
        let Ok(number) = line.parse::<u64>() else {
            continue;
        };
        let is_cut = number < before && left_out(&said.err) > 0;
        assert!(number > before || is_cut, "{number} after {before}");
        before = number;
    }
    assert!(said.out.ends_with(&format!("\n{}\n{last}\n", last - 1)));
}

/// The file that the only container there writes its standard output to.
fn file_of_output(world: &World) -> PathBuf {
    let instances = world.instances();
    let spool = world
        .state()
        .join("loopback")
        .join(&instances[0])
        .join("run/spool");
    let mut containers = fs::read_dir(spool).unwrap();
    containers.next().unwrap().unwrap().path().join("1/stdout")
}

/// A job that floods its output twice, and waits for `more` and `end` in between.
const FLOODS: &str = "
    output_limit: 1MiB
    command: >-
      seq 1 1000000; touch $W/flooded; until test -e $W/more; do sleep 0.01; done;
      seq 1000001 1500000; touch $W/again; until test -e $W/end; do sleep 0.01; done;
      seq 1500001 1500010
";

/// Waits until what is above the limit was given back to the disk.
fn wait_for_cut(world: &World, marker: &str) {
    wait_for(marker, || world.exists(marker).then_some(()));
    let path = file_of_output(world);
    wait_for("the output to be cut", || {
        let used = path.metadata().unwrap().blocks() * 512;
        (used < 1_200_000).then_some(())
    });
}

fn followed(more: &str) {
    let world = World::new();
    let service = Service::start(&world, &[]);
    world.jobs("floods", &format!("  - name: floods{FLOODS}{more}\n"));
    world.run(&["submit", "floods"]).expect(0);
    wait_for_cut(&world, "flooded");

    let follower = world.start(&["logs", "-f", "floods"]);
    wait_for("the first flood", || {
        follower.out().ends_with("\n1000000\n").then_some(())
    });
    assert!(left_out(&follower.err()) > 4_000_000, "{}", follower.err());
    world.touch("more");
    wait_for_cut(&world, "again");
    wait_for("the second flood", || {
        follower.out().ends_with("\n1500000\n").then_some(())
    });
    // Somebody who comes late sees as much as there is.
    let late = world.run(&["logs", "floods"]).expect(0);
    check(&late, 1_500_000);

    world.touch("end");
    let said = follower.end().expect(0);
    check(&said, 1_500_010);
    check(&world.run(&["logs", "floods"]).expect(0), 1_500_010);
    check(&world.run(&["logs", "-f", "floods"]).expect(0), 1_500_010);
    service.stop();
    clean(&world);
}

#[test]
fn output_that_is_cut_is_followed_to_its_end() {
    followed("");
}

#[test]
fn output_that_is_cut_and_kept_is_followed_to_its_end() {
    followed("    keep_output: true\n");
}

#[test]
fn whoever_follows_goes_on_at_the_next_service() {
    let world = World::new();
    let service = Service::start(&world, &[]);
    let script = "echo one; until test -e go; do sleep 0.01; done; echo two";
    let submit = ["submit", "--name", "talks", "--", "sh", "-c", script];
    world.run(&submit).expect(0);
    let log = world.start(&["logs", "-f", "talks"]);
    let list = world.start(&["list", "--watch"]);
    wait_for("the first line", || (log.out() == "one\n").then_some(()));
    wait_for("the list", || list.out().contains("talks").then_some(()));

    service.kill();
    for follower in [&log, &list] {
        wait_for("the death to be noticed", || {
            follower.err().contains("does not answer").then_some(())
        });
    }
    // Whoever does not follow is told at once.
    let said = world.run(&["logs", "talks"]).expect(2);
    assert!(said.err.contains("no service runs"), "{}", said.err);

    let service = Service::start(&world, &[]);
    world.touch("go");
    assert_eq!(log.end().expect(0).out, "one\ntwo\n");
    wait_for("the end in the list", || {
        list.err().contains("no jobs wait or run").then_some(())
    });
    list.signal(Signal::SIGINT);
    list.end().expect(130);
    service.stop();
    clean(&world);
}
