//! How long one command on an open connection takes, against blocking libssh2 in turn.
//!
//! The server is in this process and answers at once. Prints `name value unit` lines:
//! `cargo run --release -p longshore-ssh --example latency [ROUNDS [COMMANDS_PER_ROUND]]`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "it prints figures, and has nobody to report an error to"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::server::{Behaviour, TestServer};
use common::{PLENTY, client_key, executor, target};
use longshore_exec::{Command, ExecutorExt, Target};
use longshore_ssh::SshExecutor;

/// What our executor sends for `true`, so that the server has the same work with both.
const LINE: &str = "(eval ' true');s=$?;printf '0123456789abcdef0123456789abcdef:%d;' \"$s\" >&2";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let argument = |index, default| {
        let given = std::env::args().nth(index);
        given.map_or(default, |text| text.parse().unwrap())
    };
    let (rounds, commands): (usize, usize) = (argument(1, 10), argument(2, 1000));
    let server = TestServer::start(Behaviour::Instant).await;
    let address = server.address();
    let executor = Arc::new(executor());
    let target = target("i", &address);
    let mut session = tokio::task::spawn_blocking(move || log_in(&address))
        .await
        .unwrap();
    let (mut ours, mut blocking) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        // As a task, like callers are, and not on the thread that waits for it.
        let one = run_ours(Arc::clone(&executor), target.clone(), commands);
        let one = tokio::spawn(one).await.unwrap();
        let (back, other) = tokio::task::spawn_blocking(move || {
            let times = run_blocking(&session, commands);
            (session, times)
        })
        .await
        .unwrap();
        session = back;
        // The first round warms up.
        if round > 0 {
            ours.extend(one);
            blocking.extend(other);
        }
    }
    let [our_p50, our_p99] = percentiles(&mut ours);
    let [their_p50, their_p99] = percentiles(&mut blocking);
    println!("ssh_command_p50 {our_p50:.1} us");
    println!("ssh_command_p99 {our_p99:.1} us");
    println!("ssh_command_blocking_libssh2_p50 {their_p50:.1} us");
    println!("ssh_command_blocking_libssh2_p99 {their_p99:.1} us");
    println!(
        "ssh_command_p50_to_blocking {:.2} ratio",
        our_p50 / their_p50
    );
    println!(
        "ssh_command_p99_to_blocking {:.2} ratio",
        our_p99 / their_p99
    );
    println!("ssh_connections {} count", server.connections());
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
fn percentiles(times: &mut [Duration]) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        let time = times[(times.len() - 1) * percent / 100];
        time.as_secs_f64() * 1e6
    })
}
