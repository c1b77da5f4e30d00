//! How long one command on an open connection takes, and how many go over many connections, each
//! against blocking libssh2 in turn.
//!
//! The server answers every command at once, in this process or in another one, on the same
//! processors. Prints `name value unit` lines, medians over the rounds:
//! `cargo run --release -p longshore-ssh --example rate [ROUNDS [COMMANDS_PER_ROUND]]`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints figures, and has nobody to report an error to"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::server::{Behaviour, TestServer};
use common::{PLENTY, client_key, executor, target};
use longshore_exec::{Command, ExecutorExt, Target};
use longshore_ssh::SshExecutor;
use tokio::task::spawn_blocking;

/// What our executor sends for `true`, so that the server has the same work with both.
const LINE: &str = "(eval ' true');s=$?;printf '0123456789abcdef0123456789abcdef:%d;' \"$s\" >&2";
/// How many connections there are in the second part.
const CONNECTIONS: usize = 100;
/// How many callers share a connection there.
const CALLERS: usize = 4;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("serve").is_some() {
        let server = TestServer::start(Behaviour::Instant).await;
        println!("{}", server.address());
        // Ends with whoever started it.
        let wait = || std::io::stdin().read_to_end(&mut Vec::new());
        spawn_blocking(wait).await.unwrap().unwrap();
        return;
    }
    let mut argument = |default| {
        arguments
            .next()
            .map_or(default, |text| text.parse().unwrap())
    };
    let (rounds, commands): (usize, usize) = (argument(10), argument(1000));
    let near = TestServer::start(Behaviour::Instant).await;
    latency("same_process", &near.address(), rounds, commands).await;
    let far = Far::start();
    latency("other_process", &far.address, rounds, commands).await;
    throughput(&far.address, rounds, commands).await;
}

/// A server in another process.
struct Far {
    child: Child,
    address: String,
}

impl Far {
    fn start() -> Self {
        let mut child = Program::new(std::env::current_exe().unwrap())
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        Self { child, address }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// One command after the other on one connection.
async fn latency(place: &str, address: &str, rounds: usize, commands: usize) {
    let executor = Arc::new(executor());
    let target = target("i", address);
    let address = address.to_owned();
    let mut session = spawn_blocking(move || log_in(&address)).await.unwrap();
    let (mut ours, mut blocking) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        // As a task, like callers are, and not on the thread that waits for it.
        let one = run_ours(Arc::clone(&executor), target.clone(), commands);
        let one = tokio::spawn(one).await.unwrap();
        let both = spawn_blocking(move || {
            let times = run_blocking(&session, commands);
            (session, times)
        });
        let other;
        (session, other) = both.await.unwrap();
        // The first round warms up.
        if round > 0 {
            ours.push(percentiles(one));
            blocking.push(percentiles(other));
        }
    }
    for (index, name) in ["p50", "p99"].into_iter().enumerate() {
        let pick = |all: &[[f64; 2]]| median(all.iter().map(|both| both[index]));
        let (our, their) = (pick(&ours), pick(&blocking));
        println!("ssh_command_{place}_{name} {our:.1} us");
        println!("ssh_command_{place}_blocking_{name} {their:.1} us");
        println!(
            "ssh_command_{place}_{name}_to_blocking {:.2} ratio",
            our / their
        );
    }
}

/// Many commands over many connections.
async fn throughput(address: &str, rounds: usize, commands: usize) {
    let executor = Arc::new(executor());
    let each = commands.div_ceil(10);
    let log_ins: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let address = address.to_owned();
            spawn_blocking(move || log_in(&address))
        })
        .collect();
    let mut sessions = Vec::new();
    for log_in in log_ins {
        sessions.push(log_in.await.unwrap());
    }
    let (mut alone, mut shared, mut blocking) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let one = rate_ours(&executor, address, 1, each).await;
        let (back, two) = rate_blocking(sessions, each).await;
        sessions = back;
        let three = rate_ours(&executor, address, CALLERS, each / CALLERS).await;
        if round > 0 {
            alone.push(one);
            blocking.push(two);
            shared.push(three);
        }
    }
    let (alone, shared) = (median(alone), median(shared));
    let blocking = median(blocking);
    println!("ssh_commands_{CONNECTIONS}_connections {alone:.0} per_s");
    println!("ssh_commands_{CONNECTIONS}_connections_{CALLERS}_callers {shared:.0} per_s");
    println!("ssh_commands_{CONNECTIONS}_connections_blocking {blocking:.0} per_s");
    println!(
        "ssh_commands_{CONNECTIONS}_connections_to_blocking {:.2} ratio",
        alone / blocking
    );
}

async fn rate_ours(executor: &Arc<SshExecutor>, address: &str, callers: usize, each: usize) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..CONNECTIONS * callers)
        .map(|i| {
            let target = target_of(i % CONNECTIONS, address);
            tokio::spawn(run_ours(Arc::clone(executor), target, each))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    (CONNECTIONS * callers * each) as f64 / begun.elapsed().as_secs_f64()
}

/// Without asking the system for the user's name each time.
fn target_of(number: usize, address: &str) -> Target {
    let identity = longshore_exec::Identity::Unchecked;
    Target::new(format!("i-{number}"), address, "root", identity)
}

/// A thread for each session.
async fn rate_blocking(sessions: Vec<ssh2::Session>, each: usize) -> (Vec<ssh2::Session>, f64) {
    let begun = Instant::now();
    let tasks: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            spawn_blocking(move || {
                run_blocking(&session, each);
                session
            })
        })
        .collect();
    let mut sessions = Vec::new();
    for task in tasks {
        sessions.push(task.await.unwrap());
    }
    let rate = (sessions.len() * each) as f64 / begun.elapsed().as_secs_f64();
    (sessions, rate)
}

async fn run_ours(executor: Arc<SshExecutor>, target: Target, commands: usize) -> Vec<Duration> {
    let line = Command::new("true");
    let mut times = Vec::with_capacity(commands);
    for _ in 0..commands {
        let begun = Instant::now();
        let done = executor
            .exec(&target, &line, &[], PLENTY, 1024)
            .await
            .unwrap();
        times.push(begun.elapsed());
        assert!(done.succeeded());
    }
    times
}

fn log_in(address: &str) -> ssh2::Session {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut session = ssh2::Session::new().unwrap();
    session.set_tcp_stream(tcp);
    session.handshake().unwrap();
    let key = &client_key().private;
    session
        .userauth_pubkey_memory("root", None, key, None)
        .unwrap();
    session
}

fn run_blocking(session: &ssh2::Session, commands: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(commands);
    for _ in 0..commands {
        let begun = Instant::now();
        let mut channel = session.channel_session().unwrap();
        channel.exec(LINE).unwrap();
        channel.send_eof().unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        channel.read_to_string(&mut stdout).unwrap();
        channel.stderr().read_to_string(&mut stderr).unwrap();
        channel.wait_close().unwrap();
        assert_eq!(channel.exit_status().unwrap(), 0);
        channel.close().unwrap();
        times.push(begun.elapsed());
        assert!(stderr.ends_with(":0;"));
    }
    times
}

/// The 50th and the 99th, in microseconds.
fn percentiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        let time = times[(times.len() - 1) * percent / 100];
        time.as_secs_f64() * 1e6
    })
}

fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
