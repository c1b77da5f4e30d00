//! A runner directory of its own for each test, and proof at the end that nothing is left of it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot do its part fails at once"
)]

mod groups;

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use longshore_runner_api::{StartDocument, StartReply, report};
use longshore_types::{
    Attempt, ContainerReport, ContainerUuid, Exit, ExitCause, ReportedState, RunnerReport,
};
use nix::fcntl::FcntlArg;

use groups::remove_groups;

pub(crate) const RUNNER: &str = env!("CARGO_BIN_EXE_longshore-run");
/// Far more than anything takes on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

pub(crate) struct Fixture {
    directory: tempfile::TempDir,
    /// Who runs the runner, if not the user of the test.
    user: Option<u32>,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("longshore-run-test-")
            .tempdir()
            .unwrap();
        Self {
            directory,
            user: None,
            variables: Vec::new(),
        }
    }

    /// One whose runner may not make control groups.
    pub(crate) fn ungrouped() -> Self {
        let mut fixture = Self::new();
        if nix::unistd::geteuid().is_root() {
            let nobody = 65534;
            std::os::unix::fs::chown(fixture.directory.path(), Some(nobody), None).unwrap();
            fixture.user = Some(nobody);
        }
        fixture
    }

    /// Sets a variable for the runner.
    pub(crate) fn set(&mut self, name: &'static str, value: PathBuf) {
        self.variables.push((name, value));
    }

    /// Has the runner take this script for Docker; the home of that, where it can leave notes.
    pub(crate) fn have_docker(&mut self, script: &str) -> PathBuf {
        let home = self.path("home");
        std::fs::create_dir(&home).unwrap();
        executable(&home.join("docker"), script);
        self.set("HOME", home.clone());
        self.set("PATH", format!("{}:/usr/bin:/bin", home.display()).into());
        home
    }

    /// Makes the first attempt of a container look as if its supervisor and reaper had died while
    /// Docker ran it.
    pub(crate) fn lose_container(&self, uuid: ContainerUuid) {
        if !self.root().exists() {
            self.report();
        }
        let entry = self.entry(uuid, 1);
        std::fs::create_dir_all(&entry).unwrap();
        let state = format!(
            "{{\"engine\":{{\"program\":\"docker\",\"name\":\"longshore-{uuid}-1\",\"parent\":null}}}}\n"
        );
        std::fs::write(entry.join("state"), state).unwrap();
    }

    /// The runner's directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// A path beside the runner's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(RUNNER);
        command
            .args(arguments)
            .env("LONGSHORE_RUN_DIR", self.root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn spawn_start(&self, uuid: ContainerUuid, attempt: u32) -> Child {
        let attempt = attempt.to_string();
        let arguments = [
            "--detach",
            "--stdin-config",
            "--attempt",
            &attempt,
            uuid.as_str(),
        ];
        self.command(&arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn start_bytes(&self, uuid: ContainerUuid, attempt: u32, bytes: &[u8]) -> Output {
        let mut child = self.spawn_start(uuid, attempt);
        let mut stdin = child.stdin.take().unwrap();
        // The runner need not read all of it.
        let _ = stdin.write_all(bytes);
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    pub(crate) fn try_start(
        &self,
        uuid: ContainerUuid,
        attempt: u32,
        document: &StartDocument,
    ) -> Output {
        self.start_bytes(uuid, attempt, &document.to_json().unwrap())
    }

    /// Starts an attempt; the process id of its supervisor.
    pub(crate) fn start(&self, uuid: ContainerUuid, attempt: u32, document: &StartDocument) -> i32 {
        let output = self.try_start(uuid, attempt, document);
        assert!(output.status.success(), "{output:?}");
        let reply: StartReply = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((reply.uuid, reply.attempt), (uuid, Attempt(attempt)));
        reply.pid.try_into().unwrap()
    }

    pub(crate) fn report_with(&self, arguments: &[&str]) -> RunnerReport {
        let all: Vec<&str> = ["--report"].iter().chain(arguments).copied().collect();
        let output = self.run(&all);
        assert!(output.status.success(), "{output:?}");
        report::parse(&output.stdout).unwrap()
    }

    pub(crate) fn report(&self) -> RunnerReport {
        self.report_with(&[])
    }

    pub(crate) fn reported(&self, uuid: ContainerUuid) -> Option<ContainerReport> {
        let mut containers = self.report().containers.into_iter();
        containers.find(|container| container.uuid == uuid)
    }

    /// Waits until it is told that its process was started.
    pub(crate) fn await_start(&self, uuid: ContainerUuid) {
        eventually("the start", || {
            let started_at = match self.reported(uuid)?.state {
                ReportedState::Running { started_at, .. } => started_at,
                _ => None,
            };
            started_at.map(drop)
        });
    }

    /// Waits, as a dispatcher does, until the attempt has ended.
    pub(crate) fn finished(&self, uuid: ContainerUuid, attempt: u32) -> Exit {
        let mut known = String::new();
        eventually("the end of the container", || {
            let report = self.report_with(&["--wait-ms", "5000", "--known", &known]);
            known.clone_from(&report.digest);
            report.containers.into_iter().find_map(|container| {
                let meant = container.uuid == uuid && container.attempt == Attempt(attempt);
                match container.state {
                    ReportedState::Finished(exit) if meant => Some(exit),
                    _ => None,
                }
            })
        })
    }

    pub(crate) fn cause(&self, uuid: ContainerUuid, attempt: u32) -> ExitCause {
        self.finished(uuid, attempt).cause
    }

    pub(crate) fn kill(&self, signal: u8, uuid: ContainerUuid, attempt: u32) -> Option<i32> {
        let (signal, attempt) = (signal.to_string(), attempt.to_string());
        let output = self.run(&["--kill", &signal, "--attempt", &attempt, uuid.as_str()]);
        output.status.code()
    }

    /// Asks an attempt that was started to end, once, and waits until it has: what has to be written
    /// to disk then may take longer than the command waits.
    pub(crate) fn end(&self, mut signal: u8, uuid: ContainerUuid, attempt: u32) {
        eventually("the end on request", || {
            let code = self.kill(signal, uuid, attempt);
            assert!(matches!(code, Some(0 | 1)), "{code:?}");
            // From now on it only asks whether it has ended.
            signal = 0;
            (code == Some(0)).then_some(())
        });
    }

    pub(crate) fn stdout(&self, uuid: ContainerUuid, attempt: u32) -> String {
        let attempt = attempt.to_string();
        let output = self.run(&["--output", "stdout", "--attempt", &attempt, uuid.as_str()]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn entry(&self, uuid: ContainerUuid, attempt: u32) -> PathBuf {
        self.root()
            .join("spool")
            .join(uuid.as_str())
            .join(attempt.to_string())
    }

    pub(crate) fn lock_file(&self, uuid: ContainerUuid) -> PathBuf {
        self.root().join("lock").join(format!("{uuid}.lock"))
    }

    /// The live processes that came from this fixture: runners by their environment, jobs and
    /// what they left by their environment or an open file.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let needle = self.directory.path().as_os_str().as_encoded_bytes();
        numbers(Path::new("/proc"))
            .into_iter()
            .filter(|pid| *pid != i32::try_from(std::process::id()).unwrap())
            .filter(|pid| {
                let process = PathBuf::from(format!("/proc/{pid}"));
                let environment = std::fs::read(process.join("environ")).unwrap_or_default();
                let inside = |path: PathBuf| {
                    path.read_link()
                        .is_ok_and(|target| target.starts_with(self.directory.path()))
                };
                contains(&environment, needle)
                    || inside(process.join("cwd"))
                    || numbers(&process.join("fd"))
                        .iter()
                        .any(|fd| inside(process.join(format!("fd/{fd}"))))
            })
            .collect()
    }

    /// Waits until no process, lock file or control group is left, and asserts it.
    pub(crate) fn assert_clean(&self, uuids: &[ContainerUuid]) {
        eventually("the end of all processes", || {
            self.processes().is_empty().then_some(())
        });
        // A report removes what nobody holds.
        self.report();
        for uuid in uuids {
            assert!(!self.lock_file(*uuid).exists(), "lock of {uuid}");
            let groups = cgroups(*uuid);
            assert!(groups.is_empty(), "{groups:?}");
        }
        for name in ["trash", "blank"] {
            let left = std::fs::read_dir(self.root().join(name)).unwrap();
            assert_eq!(left.count(), 0, "{name}");
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Only a failed test has any left.
        for pid in self.processes() {
            let _ = signal(pid, libc::SIGKILL);
        }
        if std::thread::panicking() {
            let entries = std::fs::read_dir(self.root().join("spool"));
            let entries = entries.into_iter().flatten().flatten();
            let uuids: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            remove_groups(Path::new("/sys/fs/cgroup"), &|name| {
                uuids.iter().any(|uuid| {
                    name.starts_with(&format!("longshore-run.{}.", uuid.to_string_lossy()))
                })
            });
        }
    }
}

/// Writes a program.
///
/// Another process does it: what other tests start meanwhile would, for a moment, have our file open
/// for writing, and what is open so cannot be executed.
pub(crate) fn executable(path: &Path, script: &str) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}

/// Gives this thread, and what it starts, mounts that nobody else sees and that end with them; says
/// loudly if that is not possible.
pub(crate) fn own_mounts(what: &str) -> bool {
    use nix::mount::{MsFlags, mount};
    let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    let own = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, flags, none));
    if own.is_err() {
        eprintln!("NOT TESTED: {what}; this user cannot mount anything here");
    }
    own.is_ok()
}

/// A UUID that no other test has, nor one of another run: control groups and containers, which are
/// named after it, are seen by other runs on this machine, whose process ids may be the same.
pub(crate) fn uuid() -> ContainerUuid {
    static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("zzzzz-dz642-{:09}{n:06}", *RUN % 1_000_000_000)
        .parse()
        .unwrap()
}

/// A job that has an hour to end when it is asked to: where that is not said otherwise, it never
/// is the grace that ends it.
pub(crate) fn shell(script: &str) -> StartDocument {
    let mut document = StartDocument::new(vec!["sh".into(), "-c".into(), script.into()]);
    document.kill_grace_ms = 3_600_000;
    document
}

/// Asks again and again, for at most [`BOUND`].
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < BOUND, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Waits for a file to have a whole line, and gives its text.
pub(crate) fn line_of(path: &Path) -> String {
    eventually(&format!("a line in {}", path.display()), || {
        let text = std::fs::read_to_string(path).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    })
}

pub(crate) fn pid_of(path: &Path) -> i32 {
    line_of(path).parse().unwrap()
}

pub(crate) fn signal(pid: i32, number: i32) -> nix::Result<()> {
    let signal = nix::sys::signal::Signal::try_from(number)?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal)
}

/// Whether a process is there and no zombie.
pub(crate) fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let after = stat.rsplit_once(") ").map(|(_, after)| after.to_owned());
        after.is_some_and(|after| !after.starts_with(['Z', 'X']))
    })
}

pub(crate) fn children(pid: i32) -> Vec<i32> {
    let parent = |child: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map(|(_, after)| after.to_owned());
        after.and_then(|after| after.split(' ').nth(1)?.parse::<i32>().ok())
    };
    let mut all = numbers(Path::new("/proc"));
    all.retain(|child| parent(child) == Some(pid));
    all
}

/// The reaper of a supervisor.
pub(crate) fn reaper_of(supervisor: i32) -> i32 {
    eventually("the reaper", || children(supervisor).first().copied())
}

/// The control groups of a container.
pub(crate) fn cgroups(uuid: ContainerUuid) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(path) = left.pop() {
        for name in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            if name.file_type().is_ok_and(|kind| kind.is_dir()) {
                if name.file_name().to_string_lossy().contains(uuid.as_str()) {
                    found.push(name.path());
                }
                left.push(name.path());
            }
        }
    }
    found
}

/// The lock of the first byte of a file, held as a runner does.
pub(crate) struct Held(File);

/// Takes the lock of a file.
pub(crate) fn hold(path: &Path) -> Held {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    nix::fcntl::fcntl(&file, FcntlArg::F_OFD_SETLK(&first_byte())).unwrap();
    Held(file)
}

impl Held {
    /// Returns when nobody holds it any more: what other tests start meanwhile has the file, too,
    /// until it is another program.
    pub(crate) fn release(self, path: &Path) {
        let again = File::open(path).unwrap();
        drop(self);
        eventually("the lock to be free", || {
            let mut found = first_byte();
            nix::fcntl::fcntl(&again, FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
            (found.l_type == libc::F_UNLCK as libc::c_short).then_some(())
        });
    }
}

fn first_byte() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    }
}

/// How long a guard may at most have heard of nobody.
pub(crate) struct Gaps {
    /// Just before the last contact, or what may have been the last.
    contact: Instant,
    longest: Duration,
}

impl Gaps {
    /// To be made before the first contact.
    pub(crate) fn new() -> Self {
        Self {
            contact: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    /// Has somebody come.
    pub(crate) fn contact(&mut self, come: impl FnOnce()) {
        let began = Instant::now();
        come();
        self.longest = self.longest();
        self.contact = began;
    }

    /// Until now.
    pub(crate) fn longest(&self) -> Duration {
        self.longest.max(self.contact.elapsed())
    }
}

fn numbers(path: &Path) -> Vec<i32> {
    let names = std::fs::read_dir(path).into_iter().flatten().flatten();
    names
        .filter_map(|name| name.file_name().to_str()?.parse().ok())
        .collect()
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}
