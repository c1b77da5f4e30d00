//! Job files that are good.

use std::fs;

use super::world::World;

/// How many vCPUs a job has to ask for to be alone on this machine.
fn all_vcpus() -> u32 {
    longshore::provider::this_machine()
        .unwrap()
        .resources()
        .vcpus
}

#[test]
fn two_jobs_succeed() {
    let world = World::new();
    world.jobs(
        "two",
        "
  - {name: out, command: 'printf \"hello\\n\"'}
  - {name: both, command: [sh, -c, 'echo to-out; echo to-err >&2']}
",
    );
    let said = world.run(&["run", "two"]).expect(0);
    assert_eq!(said.err, "");
    assert!(said.out.starts_with("two: 2 jobs\n"), "{}", said.out);
    assert!(
        said.out.contains("\ntwo: 2 jobs, 2 succeeded in "),
        "{}",
        said.out
    );
    assert!(said.out.ends_with("s\n"), "{}", said.out);
    assert_eq!(said.stream("ok", "out", "stdout"), b"hello\n");
    assert_eq!(said.stream("ok", "both", "stdout"), b"to-out\n");
    assert_eq!(said.stream("ok", "both", "stderr"), b"to-err\n");
    assert!(said.line("ok", "both").contains("exit code 0"));
}

#[test]
fn a_failed_job_comes_first_with_what_it_said_last() {
    let world = World::new();
    world.jobs(
        "mixed",
        "
  - {name: good, command: 'true'}
  - {name: bad, command: 'for i in $(seq 30); do echo line-$i >&2; done; exit 7'}
  - {name: fine, command: 'true'}
",
    );
    let said = world.run(&["run", "mixed"]).expect(1);
    let (_, summary) = said.out.split_once("\nFAILED     bad ").unwrap();
    assert!(summary.contains("exit code 7"), "{summary}");
    assert!(summary.contains("  | line-30\n"), "{summary}");
    assert!(
        summary.contains("  | line-21\n") && !summary.contains("line-20"),
        "{summary}"
    );
    assert!(
        summary.contains("\nok         good"),
        "failed ones come first: {summary}"
    );
    assert!(summary.contains("\nok         fine"), "{summary}");
    assert!(summary.ends_with("s\n") && summary.contains("3 jobs, 1 failed, 2 succeeded in "));
}

#[test]
fn files_run_one_after_the_other() {
    let world = World::new();
    world.jobs(
        "first",
        "
  - {name: a, command: 'echo a >> $W/order'}
  - {name: b, command: 'until test -s $W/order; do sleep 0.05; done; sleep 0.5; echo b >> $W/order'}
",
    );
    world.jobs(
        "second",
        "
  - {name: c, command: 'echo c >> $W/order'}
",
    );
    let said = world.run(&["run", "first", "second"]).expect(0);
    assert_eq!(world.read("order"), "a\nb\nc\n");
    assert!(
        said.out.contains("first: 2 jobs, 2 succeeded"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("second: 1 job, 1 succeeded"),
        "{}",
        said.out
    );
}

#[test]
fn the_second_file_is_not_run_if_the_first_fails() {
    let world = World::new();
    world.jobs("first", "  - {name: a, command: 'false'}\n");
    world.jobs("second", "  - {name: c, command: 'touch $W/ran'}\n");
    world
        .run(&["run", "first", "second"])
        .expect(1)
        .complains(&["not run", "second"]);
    assert!(!world.exists("ran"));
}

#[test]
fn a_job_for_each_item_and_file() {
    let world = World::new();
    fs::create_dir(world.path("data")).unwrap();
    for name in ["one", "two"] {
        fs::write(world.path(&format!("data/{name}.txt")), name).unwrap();
    }
    world.jobs(
        "each",
        "
  - {name: 'item-{item}', for_each: [x, y, z], command: ['printf', '%s %s', '{item}', '{index}']}
  - {name: 'file-{index}', for_each: 'data/*.txt', command: [cat, '{item}']}
",
    );
    let said = world.run(&["run", "each"]).expect(0);
    assert!(
        said.out.contains("each: 5 jobs, 5 succeeded"),
        "{}",
        said.out
    );
    assert_eq!(said.stream("ok", "item-y", "stdout"), b"y 2");
    assert_eq!(said.stream("ok", "file-1", "stdout"), b"one");
    assert_eq!(said.stream("ok", "file-2", "stdout"), b"two");
}

#[test]
fn variables_directory_and_input_are_given() {
    let world = World::new();
    fs::create_dir(world.path("there")).unwrap();
    fs::write(world.path("there/here"), "").unwrap();
    fs::write(world.path("input"), "from a file\n").unwrap();
    world.jobs(
        "given",
        "
  - {name: env, env: {COLOUR: 'blue and $HOME'}, command: 'printf %s \"$COLOUR\"'}
  - {name: cwd, cwd: there, command: 'ls'}
  - {name: stdin, stdin: input, command: [cat]}
  - {name: no-stdin, command: 'cat; echo end'}
  - {name: fresh, command: 'ls -A; echo x > file; cat file'}
",
    );
    let said = world.run(&["run", "given"]).expect(0);
    let out = |job| String::from_utf8(said.stream("ok", job, "stdout")).unwrap();
    assert_eq!(out("env"), "blue and $HOME");
    assert_eq!(out("cwd"), "here\n");
    assert_eq!(out("stdin"), "from a file\n");
    assert_eq!(out("no-stdin"), "end\n");
    assert_eq!(out("fresh"), "x\n");
}

#[test]
fn higher_priorities_run_first() {
    let world = World::new();
    let vcpus = all_vcpus();
    let job = |name: &str, priority: u32| {
        format!(
            "  - {{name: {name}, priority: {priority}, resources: {{vcpus: {vcpus}}}, \
             command: 'echo {name} >> $W/order'}}\n"
        )
    };
    let jobs = [
        job("low", 1),
        job("usual", 500),
        job("high", 1000),
        job("second", 999),
    ];
    world.jobs("priorities", &jobs.concat());
    world.run(&["run", "priorities"]).expect(0);
    assert_eq!(world.read("order"), "high\nsecond\nusual\nlow\n");
}

#[test]
fn jobs_that_do_not_fit_wait_for_their_turn() {
    let world = World::new();
    let vcpus = all_vcpus();
    world.jobs(
        "turns",
        &format!(
            "
  - name: 'turn-{{item}}'
    for_each: [a, b, c, d]
    resources: {{vcpus: {vcpus}}}
    command: 'mkdir $W/busy || exit 1; sleep 0.2; rmdir $W/busy'
"
        ),
    );
    world.run(&["run", "turns"]).expect(0);
}

#[test]
fn a_time_limit_ends_a_job() {
    let world = World::new();
    world.jobs(
        "limit",
        "  - {name: slow, time_limit: 1s, command: 'echo begun; sleep 600'}\n",
    );
    let said = world.run(&["run", "limit"]).expect(1);
    assert!(
        said.line("FAILED", "slow").contains("time limit reached"),
        "{}",
        said.out
    );
    assert_eq!(said.stream("FAILED", "slow", "stdout"), b"begun\n");
}

#[test]
fn a_lost_supervisor_costs_a_retry_and_an_exit_code_does_not() {
    let world = World::new();
    // What supervises a container bears the end of its uuid as its name.
    let lose = "for p in /proc/[0-9]*; do if grep -qx ${LONGSHORE_CONTAINER_UUID##*-} $p/comm 2>/dev/null; \
                then kill -9 ${p#/proc/}; fi; done";
    world.jobs(
        "retries",
        &format!(
            r#"
  - name: lost
    command: |
      echo $LONGSHORE_ATTEMPT >> $W/attempts
      test $LONGSHORE_ATTEMPT -gt 1 && exit 0
      {lose}
      sleep 600
  - name: wrong
    command: 'echo x >> $W/wrong; exit 1'
"#,
        ),
    );
    let said = world.run(&["run", "retries"]).expect(1);
    assert_eq!(world.read("attempts"), "1\n2\n");
    assert_eq!(world.read("wrong"), "x\n");
    assert!(
        said.line("ok", "lost").contains("attempt 2"),
        "{}",
        said.out
    );
}

#[test]
fn without_retries_a_lost_supervisor_is_a_failure() {
    let world = World::new();
    world.jobs(
        "none",
        "
  - {name: lost, retries: 0, command: 'echo x >> $W/attempts; kill -9 $PPID; sleep 600'}
",
    );
    let said = world.run(&["run", "none"]).expect(1);
    assert_eq!(world.read("attempts"), "x\n");
    assert!(
        said.line("FAILED", "lost").contains("supervisor was lost"),
        "{}",
        said.out
    );
}

#[test]
fn two_runs_with_their_own_state_go_on_at_once() {
    let (one, two) = (World::new(), World::new());
    // Each waits for the other.
    let meet = |own: &World, other: &World| {
        let (own, other) = (own.path("here"), other.path("here"));
        format!(
            "  - {{name: meet, time_limit: 100s, command: 'touch {}; until test -e {}; do sleep 0.05; done'}}\n",
            own.display(),
            other.display()
        )
    };
    one.jobs("one", &meet(&one, &two));
    two.jobs("two", &meet(&two, &one));
    let (first, second) = (one.start(&["run", "one"]), two.start(&["run", "two"]));
    first.end().expect(0);
    second.end().expect(0);
}

#[test]
fn a_finished_file_runs_anew() {
    let world = World::new();
    world.jobs("again", "  - {name: a, command: 'echo x >> $W/witness'}\n");
    world.run(&["run", "again"]).expect(0);
    world.run(&["run", "again"]).expect(0);
    assert_eq!(world.read("witness"), "x\nx\n");
}

#[test]
fn a_failed_file_runs_anew() {
    let world = World::new();
    world.jobs(
        "again",
        "  - {name: a, command: 'echo x >> $W/witness; exit 1'}\n",
    );
    world.run(&["run", "again"]).expect(1);
    world.run(&["run", "again"]).expect(1);
    assert_eq!(world.read("witness"), "x\nx\n");
}
