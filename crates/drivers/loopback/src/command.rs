//! Running one command for a client.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use crate::environment::Environment;
use crate::server::Shared;
use crate::stdin::Stdin;

/// The most bytes of output in one message.
const OUTPUT_CHUNK: usize = 32 << 10;
/// How long the client may take to close the channel of a command that has ended.
const CLOSE_PATIENCE: Duration = Duration::from_millis(250);
/// SSH's number for standard error.
const STDERR: u32 = 1;

/// What the client sees of a command: the two ways into its channel.
pub(crate) struct Client {
    pub(crate) channel: ChannelWriteHalf<Msg>,
    pub(crate) session: Handle,
}

/// The session is gone, so nobody is there to be told anything.
#[derive(Debug)]
struct Gone;

impl From<russh::Error> for Gone {
    fn from(_: russh::Error) -> Self {
        Self
    }
}

/// Runs `line` to its end, or until the client closes the channel, which kills it.
pub(crate) async fn run(line: Vec<u8>, shared: &Shared, client: Client, stdin: &Stdin) {
    match shared.start(|| start(&line, &shared.environment)) {
        Ok(child) => accompany(child, &client, stdin).await,
        Err(error) => {
            tracing::warn!(%error, "cannot start a command");
            // Without an exit status, which would be a statement about the command.
            let text = format!("cannot start a shell: {error}\n");
            let _ = client
                .channel
                .extended_data_bytes(STDERR, text.into_bytes())
                .await;
        }
    }
    stdin.abandon();
    // Whatever is closed by us first stays in the SSH library's memory until the connection ends:
    // it ignores the client's answer, and with it forgets to forget the channel.
    let closed = tokio::time::timeout(CLOSE_PATIENCE, stdin.closed()).await;
    if closed.is_err() {
        let _ = client.channel.close().await;
    }
}

/// Starts a shell in a process group of its own.
///
/// A session of its own would take a program in between (`setsid`) or unsafe code; a group is
/// enough to end it and everything that it did not detach, and lets the standard library use
/// `posix_spawn`.
pub(crate) fn start(line: &[u8], environment: &Environment) -> io::Result<Child> {
    let line = line.strip_prefix(b"sudo ").unwrap_or(line);
    tokio::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(OsStr::from_bytes(line))
        .env_clear()
        .envs(environment.variables.iter().map(|(k, v)| (k, v)))
        .current_dir(&environment.home)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

async fn accompany(mut child: Child, client: &Client, stdin: &Stdin) {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = pipes else {
        return;
    };
    let feeding = async {
        feed(input, stdin).await;
        std::future::pending::<()>().await;
    };
    let talking = async {
        forward(output, errors, client).await?;
        let status = child.wait().await;
        report(status, client).await
    };
    let gone = tokio::select! {
        () = stdin.closed() => true,
        result = talking => result.is_err(),
        () = feeding => false,
    };
    if gone {
        end(&mut child).await;
    }
}

/// Hands the command what the client sends, until either has had enough.
async fn feed(mut input: ChildStdin, stdin: &Stdin) {
    loop {
        match stdin.next().await {
            Ok(Some(bytes)) => {
                if input.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "cannot read back what a client sent");
                stdin.close();
                break;
            }
        }
    }
    stdin.abandon();
}

/// Hands the client what the command prints, as fast as it grants room, until both streams end.
async fn forward(
    mut output: ChildStdout,
    mut errors: ChildStderr,
    client: &Client,
) -> Result<(), Gone> {
    let mut buffers = (vec![0; OUTPUT_CHUNK], vec![0; OUTPUT_CHUNK]);
    let (mut more_output, mut more_errors) = (true, true);
    while more_output || more_errors {
        tokio::select! {
            read = output.read(&mut buffers.0), if more_output => {
                let bytes = &buffers.0[..read.unwrap_or(0)];
                more_output = !bytes.is_empty();
                client.channel.data_bytes(bytes.to_vec()).await?;
            }
            read = errors.read(&mut buffers.1), if more_errors => {
                let bytes = &buffers.1[..read.unwrap_or(0)];
                more_errors = !bytes.is_empty();
                client.channel.extended_data_bytes(STDERR, bytes.to_vec()).await?;
            }
        }
    }
    Ok(())
}

/// Tells the client how the command ended; nothing if that is not known.
async fn report(status: io::Result<ExitStatus>, client: &Client) -> Result<(), Gone> {
    client.channel.eof().await?;
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            tracing::error!(%error, "cannot learn how a command ended");
            return Ok(());
        }
    };
    if let Some(code) = status.code() {
        client
            .channel
            .exit_status(u32::try_from(code).unwrap_or(u32::MAX))
            .await?;
    } else if let Some(number) = status.signal() {
        client
            .session
            .exit_signal_request(
                client.channel.id(),
                signal_name(number),
                status.core_dumped(),
                String::new(),
                String::new(),
            )
            .await
            .map_err(|()| Gone)?;
    }
    Ok(())
}

/// Kills the command and everything in its group.
async fn end(child: &mut Child) {
    // The id is there until the child was waited for, so the group cannot be another's.
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = child.wait().await;
}

fn signal_name(number: i32) -> Sig {
    match Signal::try_from(number) {
        Ok(Signal::SIGABRT) => Sig::ABRT,
        Ok(Signal::SIGALRM) => Sig::ALRM,
        Ok(Signal::SIGFPE) => Sig::FPE,
        Ok(Signal::SIGHUP) => Sig::HUP,
        Ok(Signal::SIGILL) => Sig::ILL,
        Ok(Signal::SIGINT) => Sig::INT,
        Ok(Signal::SIGKILL) => Sig::KILL,
        Ok(Signal::SIGPIPE) => Sig::PIPE,
        Ok(Signal::SIGQUIT) => Sig::QUIT,
        Ok(Signal::SIGSEGV) => Sig::SEGV,
        Ok(Signal::SIGTERM) => Sig::TERM,
        Ok(Signal::SIGUSR1) => Sig::USR1,
        Ok(other) => Sig::Custom(other.as_str().trim_start_matches("SIG").to_owned()),
        Err(_) => Sig::Custom(format!("{number}@longshore")),
    }
}
