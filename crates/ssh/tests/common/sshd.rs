//! A real OpenSSH server as a child process.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::KeyPair;

pub(crate) struct Sshd {
    child: Child,
    pub(crate) address: String,
    folder: tempfile::TempDir,
}

impl Sshd {
    /// Starts a server that lets the owners of `keys` in; `more` is added to its configuration.
    pub(crate) fn start(keys: &[&KeyPair], more: &str) -> Self {
        let program = Path::new("/usr/sbin/sshd");
        assert!(
            program.exists(),
            "{program:?} is missing: apt-get install -y openssh-server"
        );
        // The server refuses to start without it; creating it may need root.
        if let Err(error) = fs::create_dir_all("/run/sshd") {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
        let folder = tempfile::tempdir().unwrap();
        let host_key = super::generate(&["-t", "ed25519"]);
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let host_key = file("host_key", &host_key.private);
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&host_key, fs::Permissions::from_mode(0o600)).unwrap();
        let keys: String = keys.iter().map(|key| key.public.as_str()).collect();
        let keys = file("authorized_keys", &keys);
        // Nobody else uses this address, so any port below those given to clients is free. Asking
        // for one by binding it would leave copies of that socket in whatever another test starts
        // at that moment, which then listens in the server's place for a while.
        let (ip, port) = (super::own_ip(), 22_022);
        let log = folder.path().join("log");
        let config = format!(
            "{more}\nListenAddress {ip}\nPort {port}\nHostKey {host_key}\n\
             AuthorizedKeysFile {keys}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nMaxStartups 100:30:200\n"
        );
        let config = file("config", &config);
        let child = Command::new(program)
            .args(["-D", "-f", &config, "-E"])
            .arg(&log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("{ip}:{port}");
        let server = Self {
            child,
            address,
            folder,
        };
        let end = Instant::now() + super::PLENTY;
        while !greets(&server.address) {
            assert!(
                Instant::now() < end,
                "sshd does not listen: {}",
                server.log()
            );
            sleep(Duration::from_millis(5));
        }
        server
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Whether an SSH server answers there, and not only something that listens.
fn greets(address: &str) -> bool {
    let greet = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting)?;
        Ok(greeting == *b"SSH-")
    };
    greet().unwrap_or(false)
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
