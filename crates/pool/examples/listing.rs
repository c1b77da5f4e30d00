//! What a very long listing costs: time and memory until 100,000 instances are known, until all of
//! them wait for work, until the same listing was seen again, while all of them fail, and when
//! most of them are gone.
//!
//! `cargo run --release -p longshore-pool --example listing [INSTANCES]` prints one line for each
//! figure: name, value, unit. Memory is read from `/proc`, so only on Linux.

#![expect(clippy::print_stdout, reason = "its purpose")]
#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::time::{Duration, Instant as Wall};

use longshore_cloud::{CreateRequest, Instance, InstanceState};
use longshore_pool::{Config, Core, Effect, EffectAction, HostFailure, Outcome};
use longshore_types::{Instant, RunnerReport};

fn main() {
    let argument = std::env::args().nth(1);
    let count = argument.and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(100_000);
    let listing = listing(count);
    let before = resident_kib();
    let now = Instant::ZERO;
    let types = vec![CreateRequest::example().instance_type];
    let mut config = Config::new("set", types);
    config.timeout_idle = Duration::from_secs(100_000);
    let mut core = Core::new(config, [0; 32], now);

    figure("first listing", || answer_lists(&mut core, &listing, now));
    assert_eq!(core.states().count(), count);
    if let (Some(before), Some(after)) = (before, resident_kib()) {
        let bytes = after.saturating_sub(before) * 1024 / count as u64;
        println!("memory per instance\t{bytes}\tB");
    }
    figure("every worker boots and says what it runs", || {
        boot_all(&mut core, count, now);
    });
    if let (Some(before), Some(after)) = (before, resident_kib()) {
        let bytes = after.saturating_sub(before) * 1024 / count as u64;
        println!("memory per worker that waits for work\t{bytes}\tB");
    }
    let later = now + Duration::from_secs(61);
    figure("same listing again", || {
        core.handle_timeout(later);
        answer_lists(&mut core, &listing, later);
    });
    figure("snapshot", || drop(core.snapshot(later)));
    figure("every report fails once", || {
        fail_all(&mut core, count, later);
    });
    let boot = now + Duration::from_secs(700);
    figure("all are looked at for silence", || {
        core.handle_timeout(boot)
    });
    // Half of them are missing, at first in doubt, then without.
    for round in 0..12 {
        let at = boot + Duration::from_secs(61 * (round + 1));
        core.handle_timeout(at);
        let name = format!("listing {round} without half of them");
        figure(&name, || answer_lists(&mut core, &listing[..count / 3], at));
    }
    println!("workers left\t{}\tworkers", core.states().count());
}

fn listing(count: usize) -> Vec<Instance> {
    let one = |n: usize| {
        let tags = [
            ("ArvadosInstanceSetID", "set".to_owned()),
            ("ArvadosInstanceType", "small".to_owned()),
            ("ArvadosIdleBehavior", "run".to_owned()),
            ("ArvadosInstanceSecret", format!("secret-{n}")),
        ]
        .map(|(key, value)| (key.to_owned(), value));
        let mut one = Instance::new(format!("i-{n}"), "s1", InstanceState::Running, tags.into());
        one.address = Some("10.0.0.1:22".into());
        one
    };
    (0..count).map(one).collect()
}

fn answer_lists(core: &mut Core, listing: &[Instance], now: Instant) {
    let effects: Vec<Effect> = std::iter::from_fn(|| core.poll_effect()).collect();
    for effect in effects {
        let outcome = match &effect.action {
            EffectAction::List(_) => Outcome::listed(listing.to_vec()),
            EffectAction::Boot(_) => failed(),
            action => action.lost("not answered here"),
        };
        core.handle_outcome(effect.id, outcome, now);
    }
    while core.poll_event().is_some() {}
    while core.poll_changed().is_some() {}
}

fn boot_all(core: &mut Core, count: usize, now: Instant) {
    // Of each three commands, the last of which waits.
    for _ in 0..3 * count {
        let Some(effect) = core.poll_effect() else {
            return;
        };
        let outcome = match &effect.action {
            EffectAction::Boot(_) => Outcome::Booted(Ok(())),
            EffectAction::Deploy(..) => Outcome::Deployed(Ok(())),
            EffectAction::Report(_, options) if options.wait.is_zero() => {
                let digest = "a0b1c2d3e4f5a6b7".into();
                Outcome::Reported(Ok(RunnerReport {
                    digest,
                    ..RunnerReport::default()
                }))
            }
            _ => continue,
        };
        core.handle_outcome(effect.id, outcome, now);
        while core.poll_changed().is_some() {}
    }
}

fn fail_all(core: &mut Core, count: usize, now: Instant) {
    for _ in 0..count {
        if let Some(effect) = core.poll_effect() {
            core.handle_outcome(effect.id, failed(), now);
        }
    }
    while core.poll_changed().is_some() {}
}

fn failed() -> Outcome {
    Outcome::Booted(Err(HostFailure {
        unreachable: true,
        ours: false,
        error: "connection refused".into(),
    }))
}

fn figure(name: &str, work: impl FnOnce()) {
    let began = Wall::now();
    work();
    println!("{name}\t{:.1}\tms", began.elapsed().as_secs_f64() * 1e3);
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
