//! `longshore logs`: what a job wrote, while it writes it if that is wanted.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use longshore_runner_api::StartDocument;
use serde_json::Value;
use tokio::time::Instant;

use super::find;
use crate::cli::LogsArgs;
use crate::ending::Ending;
use crate::run::{Interrupts, runtime};
use crate::service::Client;
use crate::service::follower::Follower;
use crate::service::view::{JobView, OutputView};
use crate::tell;

/// How long the service waits for more before it answers that there is none.
const WAIT: Duration = Duration::from_secs(5);
/// How long nothing may come before that is said.
const SILENCE: Duration = Duration::from_secs(10);

/// The pauses that are made for a job that writes faster than it can be followed.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so long without a gap there are no pauses any more.
const CALM: Duration = Duration::from_secs(15);

/// Prints what a job wrote: its standard output to ours, its standard error to ours.
pub fn logs(args: &LogsArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        let job = find(&client, &args.job).await?;
        let service = Follower::new(state_dir, client, args.follow);
        let mut interrupts = Interrupts::listen()?;
        // Of what waits there is nothing to print.
        if job.verdict == "waiting" || args.follow && !job.state.is_final() {
            tell!("{}", what_it_does(&job));
        }
        let most = match args.follow || job.state.is_final() {
            true => u64::MAX,
            false => most_of(&details(&service, &job).await?)?,
        };
        let source = Job {
            service: &service,
            uuid: job.uuid.to_string(),
        };
        let both = !args.stdout && !args.stderr;
        let stdout = async {
            if args.stdout || both {
                let stream = Stream::new(&source, "stdout");
                stream.copy(args.follow, most, &mut || io::stdout()).await?;
            }
            anyhow::Ok(())
        };
        let stderr = async {
            if args.stderr || both {
                let stream = Stream::new(&source, "stderr");
                stream.copy(args.follow, most, &mut || io::stderr()).await?;
            }
            anyhow::Ok(())
        };
        let wanted = async { tokio::try_join!(stdout, stderr) };
        tokio::select! {
            copied = wanted => match copied {
                Err(error) if is_closed(&error) => return Ok(Ending::Succeeded),
                copied => { copied?; }
            },
            () = interrupts.next() => return Ok(Ending::Interrupted),
        }
        let now: JobView = serde_json::from_value(details(&service, &job).await?)?;
        if let Some(lost) = now.row().lost_output() {
            tell!("longshore: {lost}");
        }
        if args.follow && now.verdict != "ok" {
            let cause = now.exit.as_ref().map(|exit| exit.cause.to_string());
            let why = now.error.or(cause).unwrap_or_default();
            let why = crate::text::clean(&why);
            tell!("longshore: the job {}: {why}", now.verdict);
            return Ok(Ending::Failed);
        }
        Ok(Ending::Succeeded)
    })
}

/// A job and its start document, as they are now.
async fn details(service: &Follower, job: &JobView) -> anyhow::Result<Value> {
    let path = format!("/longshore/v1/jobs/{}", job.uuid);
    service
        .ask(async |client| Ok(client.get(&path).await?))
        .await
}

/// How much of a stream of a job that runs is printed at most: what is there when it begins is far
/// less, for a job that writes faster than it can be read would have no end.
fn most_of(details: &Value) -> anyhow::Result<u64> {
    let document: StartDocument = serde_json::from_value(details["document"].clone())?;
    Ok(document.output_limit.0.saturating_mul(2))
}

fn what_it_does(job: &JobView) -> String {
    let name = crate::text::clean(&job.name);
    let reason = job.reason.as_deref().map(crate::text::clean);
    match (reason, job.verdict.as_str()) {
        (Some(reason), "waiting") => format!("longshore: {name} waits: {reason}"),
        (Some(reason), status) => format!("longshore: {name} is {status}: {reason}"),
        (None, status) => format!("longshore: {name} is {status}"),
    }
}

/// Where what a job writes is read, and why it waits.
trait Source {
    async fn output(&self, stream: &str, from: u64, wait: Duration) -> anyhow::Result<OutputView>;
    async fn job(&self) -> anyhow::Result<JobView>;
}

/// A job of the service.
struct Job<'a> {
    service: &'a Follower,
    uuid: String,
}

impl Source for Job<'_> {
    async fn output(&self, stream: &str, from: u64, wait: Duration) -> anyhow::Result<OutputView> {
        let output = async |client: &Client| {
            let output = client.output(&self.uuid, stream, from, wait);
            Ok(output.await?)
        };
        self.service.ask(output).await
    }

    async fn job(&self) -> anyhow::Result<JobView> {
        let path = format!("/longshore/v1/jobs/{}", self.uuid);
        let job = async |client: &Client| Ok(client.get(&path).await?);
        self.service.ask(job).await
    }
}

/// One stream of a job that is being copied.
struct Stream<'a, S> {
    source: &'a S,
    name: &'static str,
    /// Up to where it was printed, and of which attempt.
    at: u64,
    attempt: u32,
    gaps: Gaps,
}

impl<'a, S: Source> Stream<'a, S> {
    fn new(source: &'a S, name: &'static str) -> Self {
        Self {
            source,
            name,
            at: 0,
            attempt: 0,
            gaps: Gaps::default(),
        }
    }

    /// Prints it to its end, or what is there unless it is followed, about `most` bytes then.
    async fn copy<W: Write>(
        mut self,
        follow: bool,
        most: u64,
        to: &mut impl FnMut() -> W,
    ) -> anyhow::Result<()> {
        let wait = if follow { WAIT } else { Duration::ZERO };
        let mut quiet_since = Instant::now();
        let mut printed = 0;
        loop {
            let part = self.source.output(self.name, self.at, wait).await?;
            if part.attempt != self.attempt {
                let again = self.attempt > 0 && part.attempt > 0;
                self.attempt = part.attempt;
                if again {
                    // What came is of another run of it, from the middle.
                    tell!(
                        "longshore: {} of attempt {} begins",
                        self.name,
                        part.attempt
                    );
                    self.at = 0;
                    continue;
                }
            }
            if part.complete || (!follow && part.bytes.is_empty()) {
                return Ok(());
            }
            if part.bytes.is_empty() {
                if quiet_since.elapsed() >= SILENCE && self.name == "stdout" {
                    self.tell_why().await?;
                    quiet_since = Instant::now();
                }
                continue;
            }
            quiet_since = Instant::now();
            let has_gap = part.from > self.at;
            self.print(&part, to)?;
            printed += part.bytes.len() as u64;
            if printed >= most {
                tell!(
                    "longshore: it writes more {} than can be read; `longshore logs -f` follows it",
                    self.name
                );
                return Ok(());
            }
            if follow && has_gap {
                tokio::time::sleep(self.gaps.pause_after(Instant::now())).await;
            }
        }
    }

    fn print<W: Write>(
        &mut self,
        part: &OutputView,
        to: &mut impl FnMut() -> W,
    ) -> anyhow::Result<()> {
        if part.from > self.at {
            let dropped = part.from - self.at;
            tell!(
                "longshore: {dropped} bytes of {} were left out here",
                self.name
            );
        }
        let mut out = to();
        out.write_all(&part.bytes)?;
        out.flush()?;
        self.at = part.from + part.bytes.len() as u64;
        Ok(())
    }

    /// Says what is waited for while a job that does not run yet is followed.
    async fn tell_why(&self) -> anyhow::Result<()> {
        let job = self.source.job().await?;
        if job.verdict == "waiting" {
            tell!("{}", what_it_does(&job));
        }
        Ok(())
    }
}

/// The gaps in what is printed of a job that writes faster than it can be followed.
///
/// Whoever reads on at once is overtaken at once, and has many small pieces with a gap after each.
/// With pauses that grow there are as few gaps as if less was asked for: one in
/// [`LONGEST_PAUSE`] at last, and one piece of all that is there after each.
#[derive(Debug, Default)]
struct Gaps {
    last: Option<Instant>,
    pause: Duration,
}

impl Gaps {
    /// How long to wait before the next read after a gap, of which the first is left to chance.
    fn pause_after(&mut self, now: Instant) -> Duration {
        let again = self.last.is_some_and(|last| now - last < CALM);
        self.last = Some(now);
        self.pause = if again {
            (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
        } else {
            Duration::ZERO
        };
        self.pause
    }
}

/// Whether whoever reads what is printed has gone.
fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job that writes whenever it is looked at.
    struct Endless;

    impl Source for Endless {
        async fn output(&self, _: &str, from: u64, _: Duration) -> anyhow::Result<OutputView> {
            Ok(OutputView {
                attempt: 1,
                from,
                bytes: vec![b'x'; 1000],
                complete: false,
            })
        }

        async fn job(&self) -> anyhow::Result<JobView> {
            anyhow::bail!("nobody asks")
        }
    }

    #[derive(Clone, Copy)]
    struct Counted<'a>(&'a std::cell::Cell<usize>);

    impl Write for Counted<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.set(self.0.get() + bytes.len());
            // Whoever reads gives up some time, as whoever runs this test.
            match self.0.get() {
                0..100_000 => Ok(bytes.len()),
                _ => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_a_job_has_written_has_an_end_though_the_job_has_none() {
        let printed = std::cell::Cell::new(0);
        let stream = Stream::new(&Endless, "stdout");
        let copied = stream.copy(false, 10_000, &mut || Counted(&printed)).await;
        copied.unwrap();
        assert_eq!(printed.get(), 10_000);
    }

    #[test]
    fn whoever_is_outrun_sees_few_gaps() {
        let (begin, hour) = (Instant::now(), Duration::from_secs(3600));
        let (mut gaps, mut now, mut count) = (Gaps::default(), begin, 0);
        while now - begin < hour {
            now += Duration::from_millis(1) + gaps.pause_after(now);
            count += 1;
        }
        assert!((700..730).contains(&count), "{count} gaps in an hour");
    }

    #[test]
    fn a_gap_now_and_then_delays_nobody() {
        let (mut gaps, mut now) = (Gaps::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(gaps.pause_after(now), Duration::ZERO);
            now += CALM;
        }
        assert_eq!(gaps.pause_after(now), Duration::ZERO);
        assert_eq!(gaps.pause_after(now), FIRST_PAUSE);
        assert_eq!(gaps.pause_after(now), FIRST_PAUSE * 2);
        assert_eq!(
            gaps.pause_after(now + CALM),
            Duration::ZERO,
            "it is calm again"
        );
    }
}
