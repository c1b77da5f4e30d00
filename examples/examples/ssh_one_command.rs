//! Runs one command over SSH, on a host whose key is checked first.
//!
//! `cargo run -p longshore-examples --example ssh_one_command -- [USER@HOST[:PORT]] [KEYFILE] COMMAND...`
//!
//! The host's key must be in `~/.ssh/known_hosts`, and `KEYFILE` be a private key without a
//! passphrase (`~/.ssh/id_ed25519` if none is given). The program exits as the command did.
//!
//! Without a host it starts an OpenSSH server of its own on a loopback address, from a temporary
//! directory, and runs the command there. Without a command, too, it runs one whose end is known,
//! shows that a host with another key is refused, and exits with 1 if anything is not as expected.
#![expect(clippy::print_stdout, reason = "it is a program that shows something")]

use std::error::Error;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use async_trait::async_trait;
use longshore_exec::{
    Collected, Command, ExecError, ExecutorExt as _, ExitStatus, HostKey, HostKeyVerdict,
    HostKeyVerifier, Identity, Phase, Target,
};
use longshore_ssh::{PrivateKey, Settings, SshExecutor};
use longshore_types::InstanceId;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// From the first packet to the end of the command.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The most that is kept of each of its streams.
const LIMIT_BYTES: usize = 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ssh_one_command: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[String]) -> Result<ExitCode> {
    match arguments {
        [] => demonstrate().await.map(|()| ExitCode::SUCCESS),
        [destination, rest @ ..] if destination.contains('@') => there(destination, rest).await,
        words => here(&words.join(" ")).await,
    }
}

/// Runs a command on a host that somebody else runs.
async fn there(destination: &str, rest: &[String]) -> Result<ExitCode> {
    let (user, address) = destination.split_once('@').ok_or("no user")?;
    let home = PathBuf::from(std::env::var("HOME")?);
    let (key, words) = match rest {
        [file, words @ ..] if is_key(file) => (PathBuf::from(file), words),
        words => (home.join(".ssh/id_ed25519"), words),
    };
    if words.is_empty() {
        return Err("usage: ssh_one_command [USER@HOST[:PORT]] [KEYFILE] COMMAND...".into());
    }
    let key = fs::read_to_string(&key).map_err(|e| format!("{}: {e}", key.display()))?;
    let keys = known_keys(address, &home.join(".ssh/known_hosts"))?;
    let executor = SshExecutor::new(PrivateKey::parse(&key)?, Settings::default());
    let target = target(address, user, keys);
    finish(exec(&executor, &target, &words.join(" ")).await)
}

/// Runs a command on a server of our own.
async fn here(line: &str) -> Result<ExitCode> {
    let server = Server::start()?;
    let target = target(&server.address, &server.user, vec![server.host_key.clone()]);
    finish(exec(&server.executor()?, &target, line).await)
}

/// Runs a command whose end is known, and shows that a host with another key is refused.
async fn demonstrate() -> Result<()> {
    let server = Server::start()?;
    let executor = server.executor()?;
    let right = target(&server.address, &server.user, vec![server.host_key.clone()]);
    let done = exec(&executor, &right, "printf out; printf err >&2; exit 3").await?;
    show(&done);
    expect("output", &done.stdout[..] == b"out")?;
    expect("errors", done.stderr.ends_with(b"err"))?;
    expect("status", done.status == Some(ExitStatus::Code(3)))?;

    let another = server.another_key()?;
    let wrong = target(&server.address, &server.user, vec![another]);
    // Connections are kept, and this one was believed: the host is to be asked for its key again.
    longshore_exec::Executor::disconnect(&executor, &wrong.instance).await;
    let mark = server.folder.path().join("must-not-be-there");
    match exec(&executor, &wrong, &format!("touch {}", mark.display())).await {
        Ok(_) => return Err("a host with another key was believed".into()),
        Err(error) => {
            println!("another host key: {}", error.chain());
            expect("phase", error.phase == Phase::HostIdentity)?;
            expect("that it did not run", !error.may_have_run)?;
            expect("no file", !mark.exists())?;
        }
    }
    println!("everything was as expected");
    Ok(())
}

fn expect(what: &str, holds: bool) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(format!("not as expected: {what}").into()),
    }
}

/// Runs a line and says so.
async fn exec(
    executor: &SshExecutor,
    target: &Target,
    line: &str,
) -> std::result::Result<Collected, ExecError> {
    println!("{}@{} runs: {line}", target.user, target.address);
    let command = Command::new(line);
    executor
        .exec(target, &command, &[], TIMEOUT, LIMIT_BYTES)
        .await
}

/// Shows how it ended; the program ends likewise.
fn finish(done: std::result::Result<Collected, ExecError>) -> Result<ExitCode> {
    let done = done.map_err(|error| error.chain())?;
    show(&done);
    Ok(match done.status {
        Some(ExitStatus::Code(code)) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        _ => ExitCode::FAILURE,
    })
}

fn show(done: &Collected) {
    println!("output: {}", String::from_utf8_lossy(&done.stdout));
    println!("errors: {}", String::from_utf8_lossy(&done.stderr));
    if done.truncated {
        println!("there was more of it");
    }
    match &done.status {
        Some(status) => println!("ended with {status}"),
        None => println!("the host did not say how it ended"),
    }
}

/// A host that must have one of `keys`. Nothing runs on it before that was checked.
fn target(address: &str, user: &str, keys: Vec<String>) -> Target {
    let identity = Identity::Checked {
        verifier: Arc::new(Known(keys)),
        secret: None,
        secret_path: String::new(),
    };
    Target::new(address, address, user, identity)
}

/// The keys of a host, as `known_hosts` writes them.
#[derive(Debug)]
struct Known(Vec<String>);

#[async_trait]
impl HostKeyVerifier for Known {
    async fn verify(&self, _: &InstanceId, key: &HostKey) -> HostKeyVerdict {
        let shown = key.to_string();
        let same_kind = |known: &String| known.split(' ').next() == Some(&key.algorithm);
        let verdict = match self.0.contains(&shown) {
            true => HostKeyVerdict::Match,
            false if self.0.iter().any(same_kind) => HostKeyVerdict::Mismatch,
            // There is no secret to ask for, so this is refused as well.
            false => HostKeyVerdict::Unsupported,
        };
        println!("the host's key is {shown}: {verdict:?}");
        verdict
    }
}

/// What `known_hosts` has for an address.
fn known_keys(address: &str, file: &Path) -> Result<Vec<String>> {
    let name = match address.rsplit_once(':') {
        Some((host, "22")) => host.to_owned(),
        Some((host, port)) if !host.contains(':') => format!("[{host}]:{port}"),
        _ => address.to_owned(),
    };
    let found = Program::new("ssh-keygen")
        .args(["-F", &name, "-f"])
        .arg(file)
        .output()?;
    let found = String::from_utf8(found.stdout)?;
    let keys: Vec<_> = found.lines().filter_map(algorithm_and_key).collect();
    match keys.is_empty() {
        true => Err(format!("{} has no key of {name}", file.display()).into()),
        false => Ok(keys),
    }
}

/// `algorithm base64` of a line `names algorithm base64 comment`.
fn algorithm_and_key(line: &str) -> Option<String> {
    let mut words = line.split(' ').filter(|_| !line.starts_with(['#', '@']));
    let (_, algorithm, key) = (words.next()?, words.next()?, words.next()?);
    Some(format!("{algorithm} {key}"))
}

fn is_key(file: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.starts_with("-----BEGIN "))
}

/// An OpenSSH server of our own.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    address: String,
    user: String,
    host_key: String,
}

impl Server {
    fn start() -> Result<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() {
            return Err("there is no sshd: apt-get install -y openssh-server".into());
        }
        // Where it is missing and we may not make it, the server says so itself.
        let _ = fs::create_dir_all("/run/sshd");
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let host_key = generate(&path("host_key"))?;
        generate(&path("client_key"))?;
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let (ip, port) = (format!("127.{a}.{b}.{}", c.clamp(1, 254)), 22_023);
        let config = format!(
            "ListenAddress {ip}\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n",
            path("host_key").display(),
            path("client_key.pub").display(),
        );
        fs::write(path("config"), config)?;
        let child = Program::new(program)
            .args(["-D", "-e", "-f"])
            .arg(path("config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(path("log"))?)
            .spawn()?;
        let user = Program::new("id").arg("-un").output()?.stdout;
        let mut server = Self {
            child,
            address: format!("{ip}:{port}"),
            user: String::from_utf8(user)?.trim().to_owned(),
            host_key,
            folder,
        };
        server.wait()?;
        println!("an OpenSSH server listens at {}", server.address);
        Ok(server)
    }

    /// Until it listens.
    fn wait(&mut self) -> Result<()> {
        let begun = Instant::now();
        while std::net::TcpStream::connect(&self.address).is_err() {
            let ended = self.child.try_wait()?.is_some();
            if ended || begun.elapsed() > TIMEOUT {
                let log = fs::read_to_string(self.folder.path().join("log"))?;
                return Err(format!("sshd does not listen: {log}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn executor(&self) -> Result<SshExecutor> {
        let key = fs::read_to_string(self.folder.path().join("client_key"))?;
        let key = PrivateKey::parse(&key)?;
        Ok(SshExecutor::new(key, Settings::default()))
    }

    fn another_key(&self) -> Result<String> {
        generate(&self.folder.path().join("another_key"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a key pair; returns the public half, `algorithm base64`.
fn generate(path: &Path) -> Result<String> {
    let made = Program::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(path)
        .status()?;
    expect("ssh-keygen", made.success())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let public = fs::read_to_string(path.with_extension("pub"))?;
    Ok(public.trim().to_owned())
}
