//! The machines of the cloud: directories on disk, and processes that outlive whoever made them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use longshore_cloud::{CreateRequest, Tags};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::common::left::children;
use crate::common::witness::{self, Event, Record};
use crate::host;
use crate::network;
use crate::processes;

/// How many hosts there are at a time.
pub(crate) const SLOTS: usize = 8;
/// How long a host may take to come, or to go, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// Whether a machine is there, for whoever asks the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Condition {
    /// As far as the cloud knows; its power may be off.
    Running,
    /// The cloud knows that its power is off.
    Gone,
}

/// A machine, as the cloud keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) slot: usize,
    token: String,
    pub(crate) provider_type: String,
    pub(crate) tags: Tags,
    pub(crate) launched_ms: i64,
    pub(crate) condition: Condition,
}

/// All machines. Every process may have one on the same folder.
#[derive(Clone, Debug)]
pub(crate) struct Yard {
    folder: PathBuf,
    /// Where the end of a host is witnessed.
    witness: PathBuf,
}

/// There is no room for another machine.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("all {SLOTS} places are taken")]
pub(crate) struct Full;

impl Yard {
    /// Those below a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.join("machines"),
            witness: folder.join("witness"),
        }
    }

    /// Where the machines are.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Where a machine is.
    pub(crate) fn directory(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    /// Every machine.
    pub(crate) fn machines(&self) -> Result<Vec<Machine>> {
        let _lock = self.lock()?;
        self.read()
    }

    /// What of a machine is public: its host key, in the one-line form.
    pub(crate) fn host_key(&self, id: &str) -> Result<String> {
        Ok(fs::read_to_string(self.directory(id).join("host_key.pub"))?)
    }

    /// Makes a machine; the same one again for the same token.
    pub(crate) fn make(&self, request: &CreateRequest) -> Result<Machine> {
        let _lock = self.lock()?;
        let machines = self.read()?;
        if let Some(known) = machines.iter().find(|m| m.token == request.token) {
            return Ok(known.clone());
        }
        let taken = |slot: &usize| {
            let running = |m: &&Machine| m.condition == Condition::Running;
            machines.iter().filter(running).any(|m| m.slot == *slot)
        };
        let slot = (0..SLOTS).find(|slot| !taken(slot)).ok_or(Full)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let launched_ms = i64::try_from(now.as_millis())?;
        let machine = Machine {
            id: format!("m{slot}-{launched_ms}"),
            slot,
            token: request.token.clone(),
            provider_type: request.instance_type.provider_type.clone(),
            tags: request.tags.clone(),
            launched_ms,
            condition: Condition::Running,
        };
        let directory = self.directory(&machine.id);
        fill(&directory, request)?;
        self.write(&machine)?;
        boot(&directory, slot)?;
        Ok(machine)
    }

    /// Adds tags.
    pub(crate) fn tag(&self, id: &str, tags: &Tags) -> Result<()> {
        let _lock = self.lock()?;
        let mut machines = self.read()?.into_iter();
        let mut machine = machines
            .find(|machine| machine.id == id)
            .context("there is no such machine")?;
        machine.tags.extend(tags.clone());
        self.write(&machine)
    }

    /// Ends a machine and everything on it, and forgets it.
    pub(crate) fn destroy(&self, id: &str) -> Result<()> {
        let _lock = self.lock()?;
        let machines = self.read()?;
        let Some(machine) = machines.into_iter().find(|machine| machine.id == id) else {
            return Ok(());
        };
        self.cut_power(&machine)?;
        network::unplug(machine.slot)?;
        let directory = self.directory(id);
        // Without this the machine is not there any more, whatever is left of it.
        fs::remove_file(directory.join("record.json"))?;
        Ok(fs::remove_dir_all(directory)?)
    }

    /// Ends everything on a machine at once. The cloud notices, or goes on to call it running.
    pub(crate) fn power_off(&self, id: &str, noticed: bool) -> Result<()> {
        let _lock = self.lock()?;
        let mut machines = self.read()?.into_iter();
        let Some(mut machine) = machines.find(|machine| machine.id == id) else {
            return Ok(());
        };
        self.cut_power(&machine)?;
        if noticed {
            network::unplug(machine.slot)?;
            machine.condition = Condition::Gone;
            self.write(&machine)?;
        }
        Ok(())
    }

    /// Returns when nothing runs there any more, and the witness knows.
    fn cut_power(&self, machine: &Machine) -> Result<()> {
        let directory = self.directory(&machine.id);
        let end = Instant::now() + PATIENCE;
        loop {
            let keepers = processes::keepers(&directory);
            if keepers.is_empty() {
                break;
            }
            processes::signal(&keepers, Signal::SIGKILL);
            ensure!(
                Instant::now() < end,
                "{} does not end: {keepers:?}",
                machine.id
            );
            sleep(LOOK);
        }
        let mut off = Record {
            event: Event::Off,
            uuid: String::new(),
            attempt: 0,
            pid: 0,
            host: machine.id.clone(),
            boot: String::new(),
            time_ms: 0,
            descriptors: Vec::new(),
        };
        witness::append(&self.witness, &mut off)
    }

    /// One at a time, also of several processes.
    fn lock(&self) -> Result<File> {
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.with_extension("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn read(&self) -> Result<Vec<Machine>> {
        let mut machines = Vec::new();
        for directory in children(&self.folder) {
            // Whoever made or removed it was killed at it: it is no machine yet, or no more.
            if let Ok(text) = fs::read(directory.join("record.json")) {
                machines.push(serde_json::from_slice(&text)?);
            }
        }
        Ok(machines)
    }

    fn write(&self, machine: &Machine) -> Result<()> {
        let path = self.directory(&machine.id).join("record.json");
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(machine)?)?;
        Ok(fs::rename(beside, path)?)
    }
}

/// What a machine is made of before it is switched on.
fn fill(directory: &Path, request: &CreateRequest) -> Result<()> {
    fs::create_dir_all(directory)?;
    let disk = directory.join(host::DISK);
    fs::DirBuilder::new().mode(0o700).create(disk)?;
    let file = |name: &str, text: &str| fs::write(directory.join(name), text);
    let key = directory.join("host_key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "host", "-f"])
        .arg(&key)
        .stdin(Stdio::null())
        .status()?;
    ensure!(made.success(), "ssh-keygen: {made}");
    file("init.sh", &request.init_script)?;
    file(
        "authorized_keys",
        request.public_key.as_deref().unwrap_or_default(),
    )?;
    let own = directory.display();
    let config = format!(
        "Port 22\nHostKey {own}/host_key\nAuthorizedKeysFile {own}/authorized_keys\n\
         PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
         MaxStartups 100:30:200\nUseDNS no\n"
    );
    file("sshd_config", &config)?;
    // The login shell of root may have a start-up file that is slow.
    let users = fs::read_to_string("/etc/passwd")?;
    let plain = |line: &str| match line.rsplit_once(':') {
        Some((user, _)) if user.starts_with("root:") => format!("{user}:/bin/sh\n"),
        _ => format!("{line}\n"),
    };
    file("passwd", &users.lines().map(plain).collect::<String>())?;
    Ok(())
}

/// Switches a machine on: its processes are nobody's children, and end with the first of them.
fn boot(directory: &Path, slot: usize) -> Result<()> {
    let console = File::create(directory.join("console.log"))?;
    let status = Command::new("setsid")
        .args([
            "--fork", "unshare", "--mount", "--pid", "--net", "--uts", "--ipc",
        ])
        .args(["--propagation", "private", "--fork", "--kill-child"])
        .arg("--mount-proc")
        .arg(std::env::current_exe()?)
        .arg(host::ROLE)
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console)
        .status()?;
    ensure!(status.success(), "setsid: {status}");
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(init) = processes::init_of(directory) {
            return network::plug_in(slot, init);
        }
        if Instant::now() > end {
            let said = fs::read_to_string(directory.join("console.log")).unwrap_or_default();
            bail!("the host does not come: {said}");
        }
        sleep(LOOK);
    }
}
