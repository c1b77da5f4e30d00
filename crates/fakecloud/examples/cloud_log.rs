//! Prints the log of a cloud on which a lot goes wrong; the same seed prints the same bytes.
//!
//! `cargo run -p longshore-fakecloud --example cloud_log -- 7`

use std::io::{self, Write};
use std::time::Duration;

use longshore_cloud::{Capabilities, CreateRequest, Tags};
use longshore_fakecloud::{Call, Cloud, FaultPlan, Reply, Settings};
use longshore_types::{InstanceId, Instant};

fn main() -> io::Result<()> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok());
    write_log(seed.unwrap_or(0), &mut io::stdout().lock())
}

/// Writes what happens in the cloud of a seed.
pub(crate) fn write_log(seed: u64, out: &mut impl Write) -> io::Result<()> {
    let settings = Settings::default()
        .with_capabilities(Capabilities::new().with_idempotent_create())
        .with_zone("a")
        .with_zone("b")
        .with_plan(FaultPlan::wild());
    let mut cloud = Cloud::new(settings, seed);
    let mut now = Instant::ZERO;
    let mut made: Vec<InstanceId> = Vec::new();
    for step in 0..600 {
        let mut request = CreateRequest::example();
        request.token = format!("token-{step}");
        request.instance_type.preemptible = step % 2 == 0;
        let call = match step % 4 {
            0 | 1 => Call::Create(request),
            2 => Call::List(Tags::new()),
            _ => Call::Destroy(made.pop().into_iter().collect()),
        };
        cloud.handle_call(call, Duration::from_secs(30), now);
        now = now + Duration::from_secs(20);
        cloud.handle_timeout(now);
        while let Some((call, reply)) = cloud.poll_reply() {
            writeln!(out, "{call}: {reply:?}")?;
            if let Reply::Created(Ok(instance)) = reply {
                made.push(instance.id);
            }
        }
        while let Some(event) = cloud.poll_event() {
            writeln!(out, "{event}")?;
        }
    }
    writeln!(out, "{:?}", cloud.total_usage(now))
}
