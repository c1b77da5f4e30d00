//! `longshore logs`: what a job wrote, while it writes it if that is wanted.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::find;
use crate::cli::LogsArgs;
use crate::ending::Ending;
use crate::run::{Interrupts, runtime};
use crate::service::Client;
use crate::service::view::{JobView, OutputView};

/// How long the service waits for more before it answers that there is none.
const WAIT: Duration = Duration::from_secs(5);
/// How long nothing may come before that is said.
const SILENCE: Duration = Duration::from_secs(10);

/// Prints what a job wrote: its standard output to ours, its standard error to ours.
pub fn logs(args: &LogsArgs, state_dir: &Path) -> anyhow::Result<Ending> {
    runtime()?.block_on(async {
        let client = Client::need(state_dir).await?;
        let job = find(&client, &args.job).await?;
        let mut interrupts = Interrupts::listen()?;
        if args.follow && !job.state.is_final() {
            eprintln!("{}", what_it_does(&job));
        }
        let both = !args.stdout && !args.stderr;
        let stdout = async {
            if args.stdout || both {
                let stream = Stream::new(&client, &job, "stdout");
                stream.copy(args.follow, &mut || io::stdout()).await?;
            }
            anyhow::Ok(())
        };
        let stderr = async {
            if args.stderr || both {
                let stream = Stream::new(&client, &job, "stderr");
                stream.copy(args.follow, &mut || io::stderr()).await?;
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
        if args.follow {
            let ended: JobView = client
                .get(&format!("/longshore/v1/jobs/{}", job.uuid))
                .await?;
            if ended.verdict != "ok" {
                let cause = ended.exit.as_ref().map(|exit| exit.cause.to_string());
                let why = ended.error.or(cause).unwrap_or_default();
                eprintln!(
                    "longshore: the job {}: {}",
                    ended.verdict,
                    crate::text::clean(&why)
                );
                return Ok(Ending::Failed);
            }
        }
        Ok(Ending::Succeeded)
    })
}

fn what_it_does(job: &JobView) -> String {
    let name = crate::text::clean(&job.name);
    match (&job.reason, job.verdict.as_str()) {
        (Some(reason), _) => format!("longshore: {name} waits: {}", crate::text::clean(reason)),
        (None, status) => format!("longshore: {name} is {status}"),
    }
}

/// One stream of a job that is being copied.
struct Stream<'a> {
    client: &'a Client,
    uuid: String,
    name: &'static str,
    /// Up to where it was printed, and of which attempt.
    at: u64,
    attempt: u32,
}

impl<'a> Stream<'a> {
    fn new(client: &'a Client, job: &JobView, name: &'static str) -> Self {
        Self {
            client,
            uuid: job.uuid.to_string(),
            name,
            at: 0,
            attempt: 0,
        }
    }

    async fn copy<W: Write>(
        mut self,
        follow: bool,
        to: &mut impl FnMut() -> W,
    ) -> anyhow::Result<()> {
        let wait = if follow { WAIT } else { Duration::ZERO };
        let mut quiet_since = tokio::time::Instant::now();
        loop {
            let part = self
                .client
                .output(&self.uuid, self.name, self.at, wait)
                .await?;
            if part.attempt != self.attempt {
                let again = self.attempt > 0 && part.attempt > 0;
                self.attempt = part.attempt;
                if again {
                    // What came is of another run of it, from the middle.
                    eprintln!("longshore: attempt {} begins", part.attempt);
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
                    quiet_since = tokio::time::Instant::now();
                }
                continue;
            }
            quiet_since = tokio::time::Instant::now();
            self.print(&part, to)?;
        }
    }

    fn print<W: Write>(
        &mut self,
        part: &OutputView,
        to: &mut impl FnMut() -> W,
    ) -> anyhow::Result<()> {
        if part.from > self.at {
            let dropped = part.from - self.at;
            eprintln!(
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
        let path = format!("/longshore/v1/jobs/{}", self.uuid);
        let job: JobView = self.client.get(&path).await?;
        if job.verdict == "waiting" {
            eprintln!("{}", what_it_does(&job));
        }
        Ok(())
    }
}

/// Whether whoever reads what is printed has gone.
fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
