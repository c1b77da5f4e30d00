//! A place of its own for each test, which notices what is left behind.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::groups::remove_groups;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
/// How long what was killed may need to disappear.
const VANISHING: Duration = Duration::from_secs(20);

/// A directory with job files, a state directory and whatever the jobs write (`$W`).
pub(crate) struct World {
    directory: TempDir,
}

/// How a program ended and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    /// The most memory that it was seen to take, in bytes; 0 if it was not seen.
    pub(crate) peak_memory: u64,
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    peak_memory: u64,
}

/// Looks again and again until there is something, which must be soon.
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_long(look).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// The same for those who say themselves what is wrong if there is nothing.
pub(crate) fn wait_long<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if begun.elapsed() >= PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("longshore-e2e-")
            .tempdir()
            .unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// What a job wrote into a file.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    /// A job file with these jobs, each of which knows this place as `$W`.
    pub(crate) fn jobs(&self, name: &str, jobs: &str) {
        let place = self.directory.path().display();
        let text = format!("name: {name}\ndefaults: {{env: {{W: \"{place}\"}}}}\njobs:\n{jobs}");
        fs::write(self.path(name), text).unwrap();
    }

    /// The program, with its state here.
    pub(crate) fn longshore(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
        command.args(arguments);
        self.prepare(&mut command);
        command
    }

    /// Makes any command run here.
    pub(crate) fn prepare(&self, command: &mut Command) {
        command
            .current_dir(self.directory.path())
            .env_remove("LONGSHORE_LOG")
            .env("LONGSHORE_STATE_DIR", self.state())
            .stdin(Stdio::null());
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.start(arguments).end()
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.spawn(self.longshore(arguments))
    }

    pub(crate) fn spawn(&self, mut command: Command) -> Running {
        let file = |kind: &str| {
            let numbered = (0..).map(|n| self.path(&format!("said.{n}.{kind}")));
            numbered.into_iter().find(|path| !path.exists()).unwrap()
        };
        let (out, err) = (file("out"), file("err"));
        command
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap());
        let child = command.spawn().unwrap();
        Running {
            child,
            out,
            err,
            peak_memory: 0,
        }
    }

    /// The log of the program.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.state().join("longshore.log")).unwrap_or_default()
    }

    /// What the driver's directory holds beside its lock: the instances.
    pub(crate) fn instances(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.state().join("loopback")) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lock").collect()
    }

    /// Everything that runs and has to do with this place: process ids and command lines.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let place = self.directory.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            let text = |name: &str| {
                let mut bytes = Vec::new();
                // It may end at any moment; then it is not there.
                let _ = File::open(entry.path().join(name))
                    .and_then(|f| f.take(4 << 20).read_to_end(&mut bytes));
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let (line, environment) = (text("cmdline"), text("environ"));
            if line.contains(place) || environment.contains(place) {
                found.push((pid, line.chars().take(200).collect()));
            }
        }
        found
    }

    /// The processor time that everything here has taken until now, children that ended included.
    pub(crate) fn processor_time(&self) -> Duration {
        let ticks: u64 = self.processes().iter().map(|(pid, _)| ticks(*pid)).sum();
        // USER_HZ is 100 on every Linux that Rust runs on.
        Duration::from_millis(ticks * 10)
    }

    /// Lets other users come here.
    pub(crate) fn open_to_all(&self) {
        set_mode(self.directory.path(), 0o755);
    }

    pub(crate) fn make_read_only(&self, name: &str) {
        set_mode(&self.path(name), 0o555);
    }

    /// Panics if anything of the run is left.
    pub(crate) fn check_nothing_is_left(&self) {
        let begun = Instant::now();
        loop {
            let left = (self.processes(), self.groups(), self.instances());
            if left.0.is_empty() && left.1.is_empty() && left.2.is_empty() {
                return;
            }
            assert!(begun.elapsed() < VANISHING, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Control groups of containers of this place.
    fn groups(&self) -> Vec<String> {
        let log = self.log();
        let uuids = log.split("container_uuid=").skip(1);
        let uuids: Vec<&str> = uuids
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mounts = mounts.lines().filter(|line| line.starts_with("cgroup2 "));
        let roots = mounts.filter_map(|line| line.split_whitespace().nth(1));
        roots
            .flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| uuids.iter().any(|uuid| name.contains(uuid)))
            .collect()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The processor time of a process and of its children that ended, in ticks.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, which may hold anything, ends at the last parenthesis; field 3 follows.
    let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
    let fields = rest.split_whitespace().skip(11).take(4);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check_nothing_is_left();
            return;
        }
        eprintln!("the log of the program:\n{}", self.log());
        // Only what this test started has this place in its environment or command line.
        for _ in 0..20 {
            for (pid, _) in self.processes() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let log = self.log();
        let uuids: Vec<&str> = log.split("container_uuid=").skip(1).collect();
        remove_groups(Path::new("/sys/fs/cgroup"), &|name| {
            uuids.iter().any(|uuid| {
                let uuid = uuid.split_whitespace().next();
                uuid.is_some_and(|uuid| name.starts_with(&format!("longshore-run.{uuid}.")))
            })
        });
    }
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// What it has written to standard output until now.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap()).into_owned()
    }

    /// What it has written to standard error until now.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(Path::new(&path)).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok());
        self.peak_memory = self.peak_memory.max(kib.unwrap_or(0) * 1024);
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.has_ended() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("it does not end; it said {}\n{}", self.out(), self.err());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        Said {
            code: status.code(),
            out: self.out(),
            err: self.err(),
            peak_memory: self.peak_memory,
        }
    }
}

impl Said {
    /// Panics with everything that was said unless it ended so.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Panics unless standard error has all of these.
    #[track_caller]
    pub(crate) fn complains(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} in {self:#?}");
        }
        self
    }

    /// The line of the summary about a job, which is the last one that names it.
    #[track_caller]
    pub(crate) fn line(&self, verdict: &str, job: &str) -> &str {
        let mut lines = self.out.lines().rev();
        let found = lines.find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(verdict) && words.next() == Some(job)
        });
        found.unwrap_or_else(|| panic!("no {verdict} {job} in {self:#?}"))
    }

    /// What is in the file of a job's stream, which the summary names.
    #[track_caller]
    pub(crate) fn stream(&self, verdict: &str, job: &str, stream: &str) -> Vec<u8> {
        let line = self.line(verdict, job);
        let path = line.split_whitespace().last().unwrap();
        let directory = Path::new(path).parent().unwrap();
        let named = path.ends_with(stream) || path.ends_with("{stdout,stderr}");
        assert!(named, "{line}");
        fs::read(directory.join(stream)).unwrap()
    }
}
