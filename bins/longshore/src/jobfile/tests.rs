use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use longshore_runner_api::{Engine, Mount, Network};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn machine(vcpus: u32, ram: ByteSize) -> Limits {
    let room = Resources {
        vcpus,
        ram,
        scratch: ByteSize::gib(10),
        gpus: 0,
    };
    Limits {
        machines: vec![Machine::this(room)],
    }
}

fn in_directory(directory: &Path, content: &[u8]) -> Result<JobFile, Vec<Problem>> {
    let path = directory.join("jobs.yml");
    fs::write(&path, content).unwrap();
    load(&path, &machine(2, ByteSize::gib(4)))
}

fn read(content: impl AsRef<[u8]>) -> Result<JobFile, Vec<Problem>> {
    in_directory(TempDir::new().unwrap().path(), content.as_ref())
}

fn jobs(content: &str) -> Vec<Job> {
    read(content)
        .unwrap_or_else(|problems| panic!("{content}: {problems:?}"))
        .jobs
}

/// The problems of a file as `line:column message`.
fn complaints(content: impl AsRef<[u8]>) -> Vec<String> {
    let place = |at: Position| format!("{}:{} ", at.line, at.column);
    let line = |p: Problem| format!("{}{}", p.at.map(place).unwrap_or_default(), p.message);
    let problems = read(content).expect_err("this file should not be accepted");
    problems.into_iter().map(line).collect()
}

#[track_caller]
fn refused(content: impl AsRef<[u8]>, expected: &[&str]) {
    assert_eq!(complaints(content), expected);
}

#[test]
fn a_job_has_sensible_defaults() {
    let file = read("jobs:\n- name: one\n  command: echo hi | cat\n").unwrap();
    assert_eq!(file.name, "jobs");
    assert!(file.path.is_absolute() && file.path.ends_with("jobs.yml"));
    assert_eq!(file.hash.len(), 64);
    let [job] = &file.jobs[..] else {
        panic!("{file:?}")
    };
    assert_eq!(job.name, "one");
    assert_eq!(job.document.command, ["sh", "-c", "echo hi | cat"]);
    assert_eq!(job.document.cwd, None);
    assert_eq!(job.document.time_limit_ms, None);
    assert_eq!(
        (job.request.vcpus, job.request.ram),
        (1, ByteSize::mib(256))
    );
    assert_eq!(
        (job.priority, job.retries, job.keep_output),
        (500, 3, false)
    );
}

#[test]
fn every_key_is_heard() {
    let directory = TempDir::new().unwrap();
    let file = in_directory(
        directory.path(),
        br#"
name: all
defaults:
  env: {A: 1, B: two}
  resources: {vcpus: 2, ram: 1GiB}
  retries: 0
jobs:
  - name: "a job"
    command: [printf, "%s", 1.10, true, ~x]
    env: {B: "3", C: yes}
    cwd: sub/dir
    stdin: /etc/hostname
    resources: {vcpus: 1, scratch: 5G}
    priority: 1000
    time_limit: 1m30s
    keep_output: true
    engine: process
"#,
    )
    .unwrap();
    let real = directory.path().canonicalize().unwrap();
    let job = &file.jobs[0];
    assert_eq!(file.name, "all");
    assert_eq!(job.document.command, ["printf", "%s", "1.10", "true", "~x"]);
    let env: Vec<_> = job
        .document
        .env
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(env, ["A=1", "B=3", "C=yes"]);
    assert_eq!(job.document.cwd.as_deref(), real.join("sub/dir").to_str());
    assert_eq!(job.document.stdin.as_deref(), Some("/etc/hostname"));
    assert_eq!(job.document.time_limit_ms, Some(90_000));
    assert_eq!((job.request.vcpus, job.request.ram), (1, ByteSize::gib(1)));
    assert_eq!(job.request.scratch, ByteSize(5_000_000_000));
    assert_eq!(
        (job.priority, job.retries, job.keep_output),
        (1000, 0, true)
    );
}

#[test]
fn json_anchors_and_marks_are_read() {
    let json = "{\n\t\"jobs\": [\n\t\t{\"name\": \"\\u0061\\ud83d\\ude00\", \"command\": [\"true\"]}\n\t]\n}\n";
    assert_eq!(jobs(json)[0].name, "a😀");
    let yaml = "\u{feff}defaults: &d {env: &e {A: b}}\njobs:\n- {name: x, command: &c [a, b], env: *e}\n- {name: y, command: *c}\n";
    let both = jobs(yaml);
    assert_eq!(both[0].document.command, both[1].document.command);
    assert_eq!(both[0].document.env, both[1].document.env);
}

#[test]
fn commands_may_hold_anything_but_nul() {
    let tricky = "it's \"quoted\"\nand {item} $(split) \u{1b}[31m";
    let content = serde_json::json!({"jobs": [{"name": "a\nb", "command": [tricky, ""]}]});
    let jobs = jobs(&content.to_string());
    assert_eq!(jobs[0].document.command, [tricky, ""]);
    assert_eq!(jobs[0].name, "a\nb");
    let big = "x".repeat(100_000);
    let content = serde_json::json!({"jobs": [{"name": "a", "command": ["echo", big]}]});
    assert_eq!(self::jobs(&content.to_string())[0].document.command[1], big);
}

#[test]
fn for_each_makes_a_job_of_each_item() {
    let jobs = jobs(concat!(
        "jobs:\n- name: '{index}-{item}'\n  for_each: [a, '{index}', 3]\n",
        "  command: echo {item} ${x} {items} {\n  env: {I: '{item}'}\n  cwd: /d/{item}\n  stdin: '{item}'\n"
    ));
    let names: Vec<_> = jobs.iter().map(|job| &*job.name).collect();
    assert_eq!(names, ["1-a", "2-{index}", "3-3"]);
    assert_eq!(jobs[0].document.command[2], "echo a ${x} {items} {");
    assert_eq!(jobs[1].document.env["I"], "{index}");
    assert_eq!(jobs[2].document.cwd.as_deref(), Some("/d/3"));
    assert!(jobs[2].document.stdin.as_deref().unwrap().ends_with("/3"));
}

#[test]
fn patterns_are_matched_from_the_job_file() {
    let directory = TempDir::new().unwrap();
    for name in [
        "data/b.txt",
        "data/a.txt",
        "data/.hidden.txt",
        "data/c.csv",
        "data/in/d.txt",
    ] {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let content = |pattern: &str| {
        format!(
            "jobs:\n- name: 'n {{item}}'\n  command: [wc, '{{item}}']\n  for_each: '{pattern}'\n"
        )
    };
    let run = |pattern: &str| in_directory(directory.path(), content(pattern).as_bytes()).unwrap();
    let names = |pattern: &str| -> Vec<String> {
        run(pattern).jobs.into_iter().map(|job| job.name).collect()
    };
    let file = run("data/*.txt");
    let real = directory.path().canonicalize().unwrap();
    assert_eq!(file.jobs.len(), 2);
    assert_eq!(file.jobs[0].name, "n data/a.txt");
    assert_eq!(
        file.jobs[0].document.command[1],
        real.join("data/a.txt").to_str().unwrap()
    );
    assert_eq!(
        names("**/*.txt"),
        ["n data/a.txt", "n data/b.txt", "n data/in/d.txt"]
    );
    assert_eq!(names("data/[bc].*"), ["n data/b.txt", "n data/c.csv"]);
    assert_eq!(names("./data/in/../?.csv"), ["n ./data/in/../c.csv"]);

    fs::write(directory.path().join("data/new.txt"), "").unwrap();
    assert_ne!(
        run("data/*.txt").hash,
        file.hash,
        "a new file makes another batch"
    );
    fs::remove_file(directory.path().join("data/new.txt")).unwrap();
    assert_eq!(run("data/*.txt").hash, file.hash);
}

#[test]
fn file_names_are_no_shell_code() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("$(reboot).txt"), "").unwrap();
    let run = |command: &str| {
        let content = format!("jobs:\n- {{name: a, for_each: '*.txt', command: {command}}}\n");
        in_directory(directory.path(), content.as_bytes())
    };
    assert_eq!(
        run("'wc {item}'").unwrap_err()[0].message,
        "the file name \"$(reboot).txt\" has characters that mean something to the shell; \
         pass it as a variable (env: {FILE: \"{item}\"}) and write \"$FILE\""
    );
    assert!(run("[wc, '{item}']").is_ok());
}

#[test]
fn what_is_no_job_file_is_refused() {
    let directory = TempDir::new().unwrap();
    let load = |path: &Path| load(path, &Limits::default()).unwrap_err()[0].to_string();
    let missing = directory.path().join("miss\x1b.yml");
    assert_eq!(
        load(&missing),
        format!(
            "{}/miss\\u{{1b}}.yml: there is no such file; check the path",
            directory.path().display()
        )
    );
    assert!(load(directory.path()).ends_with(": is a directory; name a job file in it"));
    assert!(load(Path::new("/dev/zero")).ends_with(": is not a regular file; copy it to one"));
    for empty in ["", " \n", "# nothing\n", "---\n", "null", "~"] {
        refused(empty, &["is empty; a job file has a list of \"jobs\""]);
    }
    refused(
        b"jobs:\n- \xc3\xa4\xff",
        &["2:4 is not UTF-8 text; save it as UTF-8"],
    );
    refused(b"\xff\xfe\0j", &["1:1 is not UTF-8 text; save it as UTF-8"]);
    refused(
        "hello",
        &["1:1 expected a mapping with the key \"jobs\", found the text \"hello\""],
    );
    refused(
        "[1]",
        &["1:1 expected a mapping with the key \"jobs\", found a list"],
    );
    refused(
        "a: b: c",
        &["1:5 is not valid YAML: mapping values are not allowed in this context"],
    );
    refused("jobs: [a", &["1:7 is not valid YAML: unclosed bracket '['"]);
    refused(
        "jobs: *x",
        &["1:7 is not valid YAML: while parsing node, found unknown anchor"],
    );
    refused(
        "jobs: &x [*x]",
        &["1:11 this alias stands inside what it stands for"],
    );
    refused(
        "jobs: !!python/object []",
        &["1:23 tags like !!python/object have no meaning here; remove it"],
    );
    refused("{[a]: b}", &["1:2 a key must be a text, found a list"]);
    refused(
        "jobs: []\n---\njobs: []\n",
        &["2:1 a second document starts here; put it into a file of its own"],
    );
}

#[test]
fn a_binary_file_is_refused() {
    let program = fs::read("/bin/sh").unwrap();
    assert_eq!(complaints(program).len(), 1);
}

#[test]
fn keys_and_types_are_checked_all_at_once() {
    refused(
        r#"
nam: x
command: y
jobs:
  - name: a
    comand: true
    priority: high
    resources: {cpus: 1, ram: lots, vcpus: 1.5, gpus: 1}
  - name: [b]
    command: {a: b}
    retries: -1
    time_limit: 10
    keep_output: "true"
    env: [A]
    vcpus: 2
    for_each: []
  - text
  -
"#,
        &[
            "2:1 unknown key \"nam\"; did you mean \"name\"?",
            "3:1 \"command\" belongs to a job; put it under \"defaults\" to set it for all",
            "6:5 unknown key \"comand\"; did you mean \"command\"?",
            "7:15 expected a whole number from 1 to 1000, found the text \"high\"",
            "8:17 unknown key \"cpus\"; did you mean \"vcpus\"?",
            "8:31 \"lots\" is not a size: expected a number of bytes, or a number with a unit like 512MiB or 2G",
            "8:44 expected a whole number from 1 to 4294967295, found the number 1.5",
            "8:49 \"gpus\" is not supported by this version; remove it",
            "9:11 expected a text, found a list",
            "10:14 expected a text for the shell, or a list of a program and its arguments, found a mapping",
            "11:14 expected a whole number from 0 to 1000, found the number -1",
            "12:17 \"10\" is not a duration: expected a number with a unit like 10s, 1m30s or 24h",
            "13:18 expected true or false, found the text \"true\"",
            "14:10 expected a mapping from names of variables to texts, found a list",
            "15:5 \"vcpus\" belongs under \"resources\"",
            "16:15 \"for_each\" is an empty list, so it makes no job",
            "17:5 expected a mapping with keys like \"name\" and \"command\", found the text \"text\"",
            "18:4 expected a mapping with keys like \"name\" and \"command\", found nothing",
        ],
    );
}

#[test]
fn a_job_has_no_standard_input_of_its_submitter() {
    refused(
        "jobs: [{name: a, command: cat, stdin: '-'}]",
        &[
            "1:39 a job reads no terminal and no pipe of whoever submits it; name a file, ./- for one \
             of that name",
        ],
    );
    let named = &jobs("jobs: [{name: a, command: cat, stdin: ./-}]")[0];
    assert!(named.document.stdin.as_deref().unwrap().ends_with("/-"));
}

#[test]
fn what_comes_later_is_said_to_come_later() {
    refused(
        "jobs: [{name: a, command: b, outputs: [a]}]",
        &["1:30 \"outputs\" is not supported by this version; remove it"],
    );
    refused(
        "defaults: {engine: singularity}\njobs: [{name: a, command: b}]",
        &[
            "1:20 the engine \"singularity\" is not supported by this version; \
           there are process, podman, docker",
        ],
    );
    refused(
        "jobs: [{name: a, command: b, engine: dcoker, <<: {}}]",
        &[
            "1:38 there is no engine \"dcoker\"; did you mean \"docker\"?",
            "1:46 merging with \"<<\" is not supported; use \"defaults\"",
        ],
    );
}

#[test]
fn a_container_has_an_image_mounts_and_a_network() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let content = "defaults: {engine: podman, image: 'busybox:1', mounts: ['.:/here:rw', \
                   '/etc:/e']}\njobs: [{name: a, command: b, cwd: /here, network: host, \
                   process_limit: 9, output_limit: 2MiB}, {name: c, command: d, image: e}]";
    let file = in_directory(directory.path(), content.as_bytes()).unwrap();
    let document = &file.jobs[0].document;
    assert_eq!(document.image.as_deref(), Some("busybox:1"));
    assert_eq!(
        (document.engine, document.network),
        (Engine::Podman, Network::Host)
    );
    assert_eq!(document.cwd.as_deref(), Some("/here"));
    assert_eq!(document.process_limit, 9);
    assert_eq!(document.output_limit, ByteSize::mib(2));
    let mount = |source: String, target: &str, writable| Mount {
        source,
        target: target.into(),
        writable,
    };
    assert_eq!(
        document.mounts,
        [
            mount(format!("{}/.", root.display()), "/here", true),
            mount("/etc".into(), "/e", false)
        ]
    );
    let other = &file.jobs[1].document;
    assert_eq!(other.image.as_deref(), Some("e"));
    assert_eq!(
        (other.network, &other.mounts),
        (Network::None, &document.mounts)
    );
}

#[test]
fn what_a_container_cannot_be_is_refused() {
    let with = |keys: &str| format!("jobs: [{{name: a, command: b, {keys}}}]");
    refused(
        with("engine: podman"),
        &["1:38 this engine needs an \"image\""],
    );
    refused(
        with("image: x"),
        &["1:37 only a container has this; say which engine runs it: podman or docker"],
    );
    refused(
        with("engine: docker, image: --privileged"),
        &["1:53 \"--privileged\" cannot be the name of an image"],
    );
    refused(
        with("engine: docker, image: x, network: hots"),
        &["1:65 there is no network \"hots\"; did you mean \"host\"?"],
    );
    refused(
        with("output_limit: 1000"),
        &["1:44 an output limit must be at least 1 MiB"],
    );
    refused(
        with("engine: docker, image: x, cwd: y"),
        &["1:61 this is a path in the container; begin it with a slash"],
    );
    for mount in ["/a", "/a:b", ":/b", "/a:/b:rx", "/a:/b:rw:z"] {
        let [complaint] = &complaints(with(&format!(
            "engine: docker, image: x, mounts: ['{mount}']"
        )))[..] else {
            panic!("{mount}")
        };
        assert!(
            complaint.contains("is no mount; write SOURCE:/TARGET"),
            "{complaint}"
        );
    }
}

#[test]
fn bad_values_are_refused() {
    let job = |rest: &str| format!("jobs: [{{name: a, command: b, {rest}}}]");
    for (rest, expected) in [
        (
            "priority: 0",
            "1:40 expected a whole number from 1 to 1000, found the number 0",
        ),
        (
            "priority: 1001",
            "1:40 expected a whole number from 1 to 1000, found the number 1001",
        ),
        ("time_limit: 0", "1:42 a time limit must be at least 1ms"),
        (
            "time_limit: 5 apples",
            "1:42 \"5 apples\" is not a duration: expected a number with a unit like 10s, 1m30s or 24h",
        ),
        (
            "resources: {vcpus: 0}",
            "1:49 expected a whole number from 1 to 4294967295, found the number 0",
        ),
        (
            "resources: {ram: 4}",
            "1:47 4 B of RAM is less than 1 MiB; write a unit, like 512MiB",
        ),
        (
            "resources: {ram: 1e3}",
            "1:47 \"1e3\" is not a size: expected a number of bytes, or a number with a unit like 512MiB or 2G",
        ),
        (
            "env: {A=B: c}",
            "1:36 \"A=B\" cannot be the name of a variable",
        ),
        ("env: {A: [c]}", "1:39 expected a text, found a list"),
        ("env: {A: }", "1:37 expected a text, found nothing"),
        ("cwd: ''", "1:35 \"\" cannot be a path"),
        (
            "cwd: \"\\0\"",
            "1:35 has a NUL byte, which nothing here can hold; remove it",
        ),
        (
            "stdin: true, stdin: false",
            "1:43 the key \"stdin\" is here twice; keep one",
        ),
    ] {
        refused(job(rest), &[expected]);
    }
    for command in ["''", "' '", "[]", "['']"] {
        let content = format!("jobs: [{{name: a, command: {command}}}]");
        refused(
            content,
            &["1:27 the command is empty; say what the job runs"],
        );
    }
    refused(
        "jobs: [{command: b}]",
        &["1:8 this job has no \"name\"; give it one that no other job has"],
    );
    refused(
        "jobs: [{name: ' ', command: b}]",
        &["1:15 a name has 1 to 1024 bytes, \" \" does not"],
    );
    refused(
        "jobs: []",
        &["1:7 \"jobs\" is empty; describe at least one job"],
    );
    refused(
        "name: x",
        &["1:1 there is no key \"jobs\"; it holds the list of jobs"],
    );
    refused("jobs:", &["1:5 expected a list of jobs, found nothing"]);
    refused(
        "defaults: {name: a, for_each: [b]}\njobs: [{name: a, command: b}]",
        &[
            "1:12 \"name\" cannot be a default; give it to each job",
            "1:21 \"for_each\" cannot be a default; give it to each job",
        ],
    );
}

#[test]
fn names_must_be_unique() {
    refused(
        "jobs:\n- {name: a, command: b}\n- {name: b, command: b}\n- {name: a, command: b}\n",
        &["4:10 the name \"a\" is taken by the job at line 2; choose another"],
    );
    refused(
        "jobs: [{name: a, command: b, for_each: [x, y]}]",
        &[
            "1:15 this name is the same for every item of \"for_each\"; put {item} or {index} into it",
        ],
    );
    refused(
        "jobs: [{name: 'a{item}', command: b, for_each: [x, y, x]}]",
        &["1:15 the name \"ax\" is taken by the job at line 1; choose another"],
    );
}

#[test]
fn what_no_machine_has_is_refused() {
    refused(
        "defaults: {resources: {ram: 8GiB}}\njobs:\n- {name: a, command: b}\n\
         - {name: b, command: b}\n- {name: c, command: b, resources: {vcpus: 64, ram: 1MiB}}\n",
        &[
            "1:29 needs 8 GiB RAM, this machine has 4 GiB; ask for less",
            "5:44 needs 64 vCPUs, this machine has 2; ask for less",
        ],
    );
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.yml");
    let of = |name, vcpus, ram| {
        let mut limits = machine(vcpus, ram);
        limits.machines[0].name = format!("the instance type {name}");
        limits.machines
    };
    let mut machines = of("wide", 8, ByteSize::gib(1));
    machines.extend(of("deep", 1, ByteSize::gib(64)));
    let limits = Limits { machines };
    let message = |resources: &str| {
        fs::write(
            &path,
            format!("jobs: [{{name: a, command: b, resources: {resources}}}]"),
        )
        .unwrap();
        load(&path, &limits)
            .map_err(|problems| problems[0].message.clone())
            .map(|_| ())
    };
    for (resources, expected) in [
        (
            "{vcpus: 9, ram: 1GiB}",
            "needs 9 vCPUs, the instance type wide has 8; ask for less",
        ),
        (
            "{vcpus: 7, ram: 64GiB}",
            "needs 64 GiB RAM, the instance type wide has 1 GiB; ask for less",
        ),
        (
            "{vcpus: 1, ram: 65GiB}",
            "needs 65 GiB RAM, the instance type wide has 1 GiB; ask for less",
        ),
        (
            "{vcpus: 9, ram: 65GiB}",
            "needs 9 vCPUs and 65 GiB RAM, the instance type wide has 8 and 1 GiB; ask for less",
        ),
    ] {
        assert_eq!(message(resources).unwrap_err(), expected);
    }
    assert_eq!(message("{vcpus: 8, ram: 1GiB}"), Ok(()));
}

#[test]
fn what_the_kernel_refuses_is_refused_here() {
    let file = |job: serde_json::Value| serde_json::json!({ "jobs": [job] }).to_string();
    let (fits, long) = ("x".repeat(131_071), "x".repeat(131_072));
    assert!(
        read(file(
            serde_json::json!({"name": "a", "command": ["echo", fits]})
        ))
        .is_ok()
    );
    for job in [
        serde_json::json!({"name": "a", "command": ["echo", long]}),
        serde_json::json!({"name": "a", "command": long}),
        serde_json::json!({"name": "a", "command": "b", "env": {"A": fits}}),
    ] {
        let complaints = complaints(file(job));
        assert_eq!(complaints.len(), 1);
        assert!(
            complaints[0].ends_with("the kernel takes 131071 in one piece; put it into a file"),
            "{complaints:?}"
        );
    }
    let many = vec!["x".repeat(100_000); 21];
    let complaints = complaints(file(serde_json::json!({"name": "a", "command": many})));
    assert!(
        complaints[0].ends_with("2031616 are possible; put them into a file"),
        "{complaints:?}"
    );
}

#[test]
fn patterns_that_find_nothing_useful_are_refused() {
    let directory = TempDir::new().unwrap();
    let message = |pattern: &str| {
        let content = format!("jobs: [{{name: '{{item}}', command: b, for_each: '{pattern}'}}]");
        in_directory(directory.path(), content.as_bytes()).unwrap_err()[0]
            .message
            .clone()
    };
    let real = directory.path().canonicalize().unwrap();
    assert_eq!(
        message("*.csv"),
        format!("\"*.csv\" matches no file (relative to {})", real.display())
    );
    assert_eq!(
        message("/"),
        "the pattern is empty; write one like \"data/*.csv\""
    );
    assert_eq!(
        message("[a"),
        "is not a pattern of file names: invalid range pattern"
    );
    let bad = std::ffi::OsStr::from_bytes(b"\xff.csv");
    fs::write(directory.path().join(bad), "").unwrap();
    assert_eq!(
        message("*.csv"),
        "the pattern matches \"\u{fffd}.csv\", whose name is not UTF-8; rename it"
    );
}

#[test]
fn there_is_a_limit_to_everything() {
    let items: Vec<String> = (0..=MAX_JOBS).map(|i| i.to_string()).collect();
    let file = |items: &[String]| {
        format!(
            "jobs: [{{name: '{{item}}', command: b, for_each: [{}]}}]",
            items.join(",")
        )
    };
    assert_eq!(jobs(&file(&items[1..])).len(), MAX_JOBS);
    refused(
        file(&items),
        &["1:8 makes more than 100000 jobs; split the file"],
    );

    let long = "y".repeat(100_000);
    let wide = format!(
        "jobs: [{{name: '{{item}}', command: '{long}', for_each: [{}]}}]",
        items.join(",")
    );
    refused(
        wide,
        &["1:8 the jobs together have more than 256 MiB of text; put data into files"],
    );

    let wrong = format!("jobs: [{}]", vec!["{}"; 1000].join(", "));
    let complaints = complaints(wrong);
    assert_eq!(complaints.len(), 51);
    assert!(
        complaints
            .iter()
            .any(|c| c == "1950 more problems are not shown")
    );
}

#[test]
fn what_aliases_stand_for_counts_each_time() {
    let words = format!("[a{}]", ",a".repeat(1_000_000));
    let file = |jobs: usize| {
        let jobs: String = (0..jobs)
            .map(|i| format!("- {{name: j{i}, command: *c}}\n"))
            .collect();
        format!("defaults: {{command: &c {words}}}\njobs:\n{jobs}")
    };
    says(
        &file(6),
        "with what its aliases stand for this is more than 5000000 values",
    );
    // These are fewer, though too many for a command.
    says(&file(1), "arguments and variables have");
}

#[test]
fn defaults_that_no_job_can_have_are_not_looked_at_for_ever() {
    let words = format!("[a{}]", ",a".repeat(1_500_000));
    let jobs: String = (0..20_000).map(|i| format!("- {{name: j{i}}}\n")).collect();
    let file = format!("defaults: {{command: {words}}}\njobs:\n{jobs}");
    says(&file, "too many arguments and variables");
}

#[track_caller]
fn says(content: &str, expected: &str) {
    let complaints = complaints(content);
    let found = complaints.iter().any(|line| line.contains(expected));
    assert!(found, "{complaints:?}");
}

/// Ten megabytes of each kind of nonsense that has hurt a YAML parser.
#[test]
fn nonsense_is_refused_and_takes_no_more_than_it_is_large() {
    let size = usize::try_from(MAX_FILE_BYTES).unwrap();
    let fill = |unit: &str| unit.repeat(size / unit.len());
    let bomb: String = (0..12)
        .map(|i| {
            format!(
                "a{i}: &a{i} [{}]\n",
                vec![format!("*a{}", i - 1_i32); 9].join(",")
            )
        })
        .collect();
    let bomb = bomb.replacen("*a-1", "x", 9);
    for (what, content) in [
        ("too long", "x".repeat(size + 1)),
        ("one word", fill("x")),
        ("brackets", fill("[")),
        ("braces", fill("{a: ")),
        ("dashes", fill("- ")),
        ("questions", fill("? ")),
        ("colons", fill(": ")),
        ("anchors", fill("&a ")),
        (
            "aliases",
            format!("jobs: [&a x{}]", ",*a".repeat(size / 3 - 10)),
        ),
        ("alias bomb", format!("{bomb}jobs: *a11\n")),
        (
            "numbers",
            format!("jobs: [{}0]", "1,".repeat(size / 2 - 10)),
        ),
        (
            "keys",
            (0..size / 10).map(|i| format!("{i:08}:\n")).collect(),
        ),
        ("same key", fill("a: b\n")),
        ("quotes", fill("\"")),
        ("open quote", format!("\"{}", "\\x41".repeat(size / 4 - 1))),
        ("block", format!("|\n{}", " x\n".repeat(size / 3 - 1))),
        ("blanks", fill(" ")),
        ("tabs", fill("\t")),
        ("newlines", fill("\n")),
        ("comments", fill("#\n")),
        ("documents", fill("---\n")),
        (
            "indents",
            (0..4000)
                .map(|i| format!("{}a:\n", " ".repeat(i)))
                .collect(),
        ),
    ] {
        let begin = own_time();
        let complaints = complaints(&content);
        let took = own_time() - begin;
        // What takes a square of the size takes hours; nothing else takes more than seconds.
        assert!(took.as_secs() < 60, "{what} took {took:?}");
        assert!(!complaints.is_empty() && complaints.len() <= 51, "{what}");
        assert!(
            complaints.iter().all(|c| c.len() < 400),
            "{what}: {complaints:?}"
        );
        eprintln!("{what}: {took:?} {}", complaints[0]);
    }
}

/// The time that processors have spent on this thread: whoever else uses them does not matter.
fn own_time() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    time.unwrap().into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_answered(
        unit in proptest::collection::vec(any::<u8>(), 1..200),
        times in 1usize..5000,
    ) {
        let mut bytes = unit.repeat(times);
        bytes.truncate(1 << 20);
        let _ = read(bytes);
    }

    #[test]
    fn any_almost_yaml_is_answered(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "jobs:", "\n", "  ", "- ", "name: a", "command: b", "for_each: ", "[", "]", "{",
                "}", ",", "&x ", "*x", "'", "\"", "|", ">", "#", "? ", ": ", "env:", "resources:",
                "{item}", "\t", "ram: 1G", "---", "~", "!t ", "defaults:", "%", "\\0", "ü",
            ]),
            0..60,
        ),
        times in 1usize..200,
    ) {
        match read(parts.concat().repeat(times)) {
            Ok(file) => prop_assert!(!file.jobs.is_empty()),
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}

#[test]
fn preemptible_is_true_false_or_prefer() {
    let text = "
defaults: {preemptible: prefer}
jobs:
  - {name: a, command: b}
  - {name: c, command: d, preemptible: false}
  - {name: e, command: f, preemptible: true}
";
    let asked: Vec<String> = jobs(text)
        .iter()
        .map(|job| job.request.preemptible.to_string())
        .collect();
    assert_eq!(asked, ["prefer", "false", "true"]);
    refused(
        "jobs: [{name: a, command: b, preemptible: sometimes}]",
        &["1:43 expected true, false or prefer, found the text \"sometimes\""],
    );
}
