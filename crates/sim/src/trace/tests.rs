use longshore_types::Preemptible;

use super::*;

const HEAD: &str = "time,count,vcpus,ram,duration,priority\n";

fn jobs_of(rows: &str) -> Vec<Job> {
    let text = format!("{HEAD}{rows}");
    parse_trace(&text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The first problem as `line:column message`.
#[track_caller]
fn refused(text: &str, at: (u32, u32), words: &[&str]) {
    let problems = parse_trace(text).expect_err("this trace should not be accepted");
    let first = &problems[0];
    assert_eq!((first.line, first.column), at, "{first}");
    for word in words {
        assert!(first.message.contains(word), "{first}");
    }
}

#[track_caller]
fn row_refused(row: &str, column: u32, words: &[&str]) {
    refused(&format!("{HEAD}{row}\n"), (2, column), words);
}

#[test]
fn rows_become_containers_in_the_order_of_their_times() {
    let jobs = jobs_of("1h,2,4,8GiB,10m,900\n30.5,1,1,512MiB,90,500\n1h,1,1,1GB,1s,1\n");
    let seconds: Vec<f64> = jobs.iter().map(|job| job.at.as_secs_f64()).collect();
    assert_eq!(seconds, [30.5, 3600.0, 3600.0, 3600.0]);
    assert_eq!(jobs[0].runtime, Duration::from_secs(90));
    assert_eq!((jobs[1].vcpus, jobs[1].priority), (4, 900));
    assert_eq!(jobs[1].ram, ByteSize::gib(8));
    assert_eq!(
        jobs[3].priority, 1,
        "the order of the file where times are equal"
    );
}

#[test]
fn dates_count_from_the_earliest() {
    let jobs =
        jobs_of("2026-01-05T09:00:00Z,1,1,1GiB,5m,500\n2026-01-05T08:00:00Z,1,1,1GiB,5m,500\n");
    assert_eq!(jobs[0].at, Duration::ZERO);
    assert_eq!(jobs[1].at, Duration::from_secs(3600));
    // Times from the beginning do not: they wait for the first one.
    assert_eq!(jobs_of("60,1,1,1GiB,5m,500")[0].at, Duration::from_secs(60));
}

#[test]
fn what_spreadsheets_do_to_a_table_is_understood() {
    let table = "\u{feff}# exported\r\n\r\nPriority, time ,\"count\",ram,vcpus,duration,supervisor,scratch,preemptible\r\n\
                 500,0,\"2\", 512MiB,1,5m,true,10GB,TRUE\r\n  \r\n  # note\r\n500,0,1,512MiB,1,5m,,,\r\n";
    let jobs = parse_trace(table).unwrap();
    assert_eq!(jobs.len(), 3);
    assert!(jobs[0].supervisor && !jobs[2].supervisor);
    assert_eq!(jobs[0].preemptible, Preemptible::Only);
    assert_eq!(jobs[2].preemptible, Preemptible::Never);
    assert_eq!(jobs[0].scratch, "10GB".parse().unwrap());
}

#[test]
fn preemptible_machines_may_be_preferred() {
    let head = HEAD.trim_end();
    let table = |value| format!("{head},preemptible\n0,1,1,1GiB,5m,500,{value}\n");
    let jobs = parse_trace(&table("Prefer")).unwrap();
    assert_eq!(jobs[0].preemptible, Preemptible::Prefer);
    let problem = "none of true, false and prefer";
    refused(&table("maybe"), (2, 19), &["preemptible", problem]);
}

#[test]
fn what_is_no_table_is_refused() {
    refused("", (1, 1), &["empty", "time,count"]);
    refused("\n# nothing\n", (1, 1), &["empty"]);
    refused(HEAD, (1, 1), &["no containers"]);
    refused(
        &format!("{HEAD}0,0,1,1GiB,5m,500\n"),
        (2, 1),
        &["no containers"],
    );
    refused(
        "time,count,vcpus,ram,duration\n",
        (1, 1),
        &["lacks priority"],
    );
    refused(
        "time;count;vcpus\n1;2;3\n",
        (1, 1),
        &["no column \"time;count;vcpus\""],
    );
    refused(
        "time,count,vcpu,ram,duration,priority\n",
        (1, 12),
        &["\"vcpu\"", "vcpus"],
    );
    refused(
        "time,time,count,vcpus,ram,duration,priority\n",
        (1, 6),
        &["twice"],
    );
    refused(
        "0,1,1,1GiB,5m,500\n",
        (1, 1),
        &["first line names the columns"],
    );
    row_refused("0,1,1,1GiB,5m", 12, &["5 values", "6 columns"]);
    row_refused("0,1,1,1GiB,5m,500,", 19, &["7 values"]);
    row_refused("0,1,\"1,1GiB\n,5m,500", 1, &["quote"]);
}

#[test]
fn wrong_values_are_told_with_their_place() {
    row_refused("-5,1,1,1GiB,5m,500", 1, &["time", "negative"]);
    row_refused("NaN,1,1,1GiB,5m,500", 1, &["\"NaN\" is not a time"]);
    row_refused("inf,1,1,1GiB,5m,500", 1, &["not a time"]);
    row_refused("1e300,1,1,1GiB,5m,500", 1, &["not a time"]);
    row_refused(
        "1769846400,1,1,1GiB,5m,500",
        1,
        &["more than a year", "write dates"],
    );
    row_refused(
        "9999999999999999999999,1,1,1GiB,5m,500",
        1,
        &["more than a year"],
    );
    row_refused(",1,1,1GiB,5m,500", 1, &["nothing is not a time"]);
    row_refused("0,-1,1,1GiB,5m,500", 3, &["count", "0 to 1000000"]);
    row_refused("0,1.5,1,1GiB,5m,500", 3, &["whole number"]);
    row_refused("0,1,0,1GiB,5m,500", 5, &["vcpus", "1 to 10000"]);
    row_refused("0,1,1,512,5m,500", 7, &["ram", "write a unit"]);
    row_refused("0,1,1,lots,5m,500", 7, &["not a size"]);
    row_refused("0,1,1,,5m,500", 7, &["nothing"]);
    row_refused("0,1,1,1GiB,-5m,500", 12, &["duration"]);
    row_refused("0,1,1,1GiB,9999h,500", 12, &["longer than a year"]);
    row_refused("0,1,1,1GiB,5m,0", 15, &["priority", "1 to 1000"]);
    row_refused(" 0, \"1\" ,\"x\" ,1GiB,5m,500", 10, &["vcpus", "\"x\""]);
    let mixed = format!("{HEAD}\r\n# x\n0,1,1,1GiB,5m,500\n2026-01-31T08:00:00Z,1,1,1GiB,5m,500\n");
    refused(&mixed, (5, 1), &["line 4", "use one kind"]);
    let far = "2026-01-31T08:00:00Z,1,1,1GiB,5m,500\n2028-01-31T08:00:00Z,1,1,1GiB,5m,500\n";
    refused(&format!("{HEAD}{far}"), (1, 1), &["366 days"]);
}

#[test]
fn there_are_bounds() {
    let most = format!("{HEAD}0,1000000,1,1GiB,5m,500\n");
    assert_eq!(parse_trace(&most).unwrap().len(), CONTAINERS_MAX);
    refused(
        &format!("{most}5,1,1,1GiB,5m,500\n"),
        (3, 3),
        &["more than 1000000"],
    );
    let bad = "x,1,1,1GiB,5m,500\n".repeat(100);
    assert_eq!(parse_trace(&format!("{HEAD}{bad}")).unwrap_err().len(), 10);
}
