//! Jobs that misbehave.

use super::world::World;

#[test]
fn strange_arguments_arrive_as_they_are() {
    let world = World::new();
    let long = "x".repeat(100_000);
    let strange = r#"a'b"c\d $HOME `id` ; & | < > * ? \n {x} é 漢字 😀"#;
    let quoted = serde_json::to_string(&format!("{strange}\n\tline two\r\n")).unwrap();
    world.jobs(
        "strange",
        &format!(
            "
  - {{name: argument, command: [printf, '%s', {quoted}]}}
  - {{name: variable, env: {{X: {quoted}}}, command: 'printf %s \"$X\"'}}
  - {{name: long, keep_output: true, command: [printf, '%s', {long}]}}
  - {{name: many, command: [sh, -c, 'echo $#', x{}]}}
  - {{name: {quoted}, command: 'true'}}
",
            ", y".repeat(25_000)
        ),
    );
    let said = world.run(&["run", "strange"]).expect(0);
    let expected = format!("{strange}\n\tline two\r\n");
    assert_eq!(said.stream("ok", "argument", "stdout"), expected.as_bytes());
    assert_eq!(said.stream("ok", "variable", "stdout"), expected.as_bytes());
    assert_eq!(said.stream("ok", "long", "stdout"), long.as_bytes());
    assert_eq!(said.stream("ok", "many", "stdout"), b"25000\n");
    assert!(said.out.contains("😀\\n\\tline two\\r\\n"), "{}", said.out);
}

#[test]
fn much_output_goes_to_disk_and_its_end_is_kept() {
    let world = World::new();
    world.jobs(
        "much",
        "
  - name: much
    output_limit: 1GiB
    command: 'head -c 300000000 /dev/zero; echo the-end'
",
    );
    let said = world.run(&["run", "much"]).expect(0);
    assert!(said.peak_memory > 1 << 20, "it was measured");
    assert!(
        said.peak_memory < 200 << 20,
        "{} bytes of memory",
        said.peak_memory
    );
    let kept = said.stream("ok", "much", "stdout");
    let end_of_line = kept.iter().position(|byte| *byte == b'\n').unwrap();
    let dropped = 300_000_008 - (1 << 20);
    let mark = format!("[longshore: {dropped} bytes before this were dropped]");
    assert_eq!(String::from_utf8_lossy(&kept[..end_of_line]), mark);
    assert_eq!(kept.len() - end_of_line - 1, 1 << 20);
    assert!(kept.ends_with(b"\0the-end\n"));
}

#[test]
fn output_that_is_to_be_kept_is_kept_whole() {
    let world = World::new();
    world.jobs(
        "keep",
        "
  - name: keep
    keep_output: true
    command: 'seq 6500000 | head -c 50000000 | tee $W/copy'
",
    );
    let said = world.run(&["run", "keep"]).expect(0);
    let (kept, copy) = (
        said.stream("ok", "keep", "stdout"),
        std::fs::read(world.path("copy")).unwrap(),
    );
    assert_eq!(copy.len(), 50_000_000);
    assert!(
        kept == copy,
        "{} bytes differ from what was written",
        kept.len()
    );
}

#[test]
fn what_a_job_leaves_behind_is_ended() {
    let world = World::new();
    world.jobs("leave", "
  - {name: children, command: 'for i in 1 2 3 4 5; do sleep 600 & done; echo done'}
  - {name: daemon, command: 'setsid sh -c \"trap : TERM HUP; touch $W/daemon; while :; do sleep 1; done\" & until test -e $W/daemon; do sleep 0.05; done'}
  - {name: twice, command: '(setsid sh -c \"setsid sleep 600 &\" &); sleep 0.2'}
");
    let said = world.run(&["run", "leave"]).expect(0);
    world.check_nothing_is_left();
    assert_eq!(said.stream("ok", "children", "stdout"), b"done\n");
}

#[test]
fn jobs_that_cut_off_what_they_stand_on() {
    let world = World::new();
    world.jobs(
        "cut",
        "
  - {name: closes, command: 'echo before; exec >&- 2>&-; sleep 0.3; exit 5'}
  - {name: deletes, command: 'd=$PWD; cd /; rm -r \"$d\"; echo gone; test ! -e \"$d\"'}
  - {name: itself, command: 'kill -9 $$'}
  - {name: ends-by-term, command: 'kill -TERM $$'}
",
    );
    let said = world.run(&["run", "cut"]).expect(1);
    assert!(
        said.line("FAILED", "closes").contains("exit code 5"),
        "{}",
        said.out
    );
    assert_eq!(said.stream("FAILED", "closes", "stdout"), b"before\n");
    assert_eq!(said.stream("ok", "deletes", "stdout"), b"gone\n");
    assert!(
        said.line("FAILED", "itself").contains("signal 9"),
        "{}",
        said.out
    );
    assert!(
        said.line("FAILED", "ends-by-term").contains("signal 15"),
        "{}",
        said.out
    );
}

#[test]
fn a_job_that_ignores_term_ends_at_its_time_limit() {
    let world = World::new();
    world.jobs(
        "stubborn",
        "
  - name: stubborn
    time_limit: 1s
    command: 'trap \"\" TERM INT HUP; echo begun; while :; do sleep 1; done'
",
    );
    let said = world.run(&["run", "stubborn"]).expect(1);
    assert!(
        said.line("FAILED", "stubborn")
            .contains("time limit reached"),
        "{}",
        said.out
    );
    assert_eq!(said.stream("FAILED", "stubborn", "stdout"), b"begun\n");
}

#[test]
fn a_job_that_kills_its_parents_is_lost_and_tried_again() {
    let world = World::new();
    world.jobs(
        "parents",
        "
  - name: parents
    retries: 2
    command: 'echo x >> $W/attempts; kill -9 $PPID; sleep 600'
",
    );
    let said = world.run(&["run", "parents"]).expect(1);
    assert_eq!(world.read("attempts"), "x\nx\nx\n");
    assert!(
        said.line("FAILED", "parents")
            .contains("no retries are left"),
        "{}",
        said.out
    );
}

#[test]
fn what_cannot_be_started_says_why() {
    let world = World::new();
    world.touch("not-executable");
    world.jobs(
        "unstartable",
        "
  - {name: nowhere, command: [no-such-program-anywhere]}
  - {name: forbidden, command: [./not-executable], cwd: .}
  - {name: no-cwd, cwd: missing/folder, command: [pwd]}
  - {name: no-stdin, stdin: missing-input, command: [cat]}
  - {name: in-shell, command: no-such-program-anywhere}
",
    );
    let said = world.run(&["run", "unstartable"]).expect(1);
    for (job, words) in [
        (
            "nowhere",
            &["exit code 127", "no-such-program-anywhere"][..],
        ),
        ("forbidden", &["exit code 126", "not-executable"]),
        (
            "no-cwd",
            &["exit code 126", "missing/folder", "no such file"],
        ),
        (
            "no-stdin",
            &["exit code 126", "missing-input", "no such file"],
        ),
        ("in-shell", &["exit code 127"]),
    ] {
        let line = said.line("FAILED", job);
        assert!(
            words.iter().all(|word| line.contains(word)),
            "{words:?} in {line}"
        );
        assert!(
            !line.contains("retries"),
            "trying again is of no use: {line}"
        );
    }
    assert!(
        said.out.contains("not found"),
        "the shell's own words: {}",
        said.out
    );
}

#[test]
fn a_hundred_jobs_of_one_file() {
    let world = World::new();
    let items: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    world.jobs(
        "many",
        &format!(
            "
  - {{name: 'job-{{item}}', for_each: [{}], command: 'echo {{item}} >> $W/witness'}}
",
            items.join(", ")
        ),
    );
    let said = world.run(&["run", "many"]).expect(0);
    assert!(
        said.out.contains("many: 100 jobs, 100 succeeded"),
        "{}",
        said.out
    );
    let witness = world.read("witness");
    let mut seen: Vec<&str> = witness.lines().collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((seen.len(), witness.lines().count()), (100, 100));
}
