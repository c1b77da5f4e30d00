//! Telling systemd how the service is, where it started this and wants to know.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use longshore_dispatch::runtime::Handle;

/// What systemd wants to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Systemd {
    socket: Option<OsString>,
    /// After how much silence it gives this process up.
    watchdog: Option<Duration>,
}

impl Systemd {
    /// What the environment says of it.
    pub(super) fn from_environment() -> Self {
        let watchdog = watchdog(|name| std::env::var(name).ok(), std::process::id());
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog,
        }
    }

    /// Tells it something, such as `READY=1`.
    pub(super) fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, what)
        {
            tracing::warn!(%error, "systemd cannot be told");
        }
    }

    /// Says again and again that the service is alive, as long as its dispatcher answers.
    pub(super) async fn feed_watchdog(&self, dispatcher: Handle) -> Infallible {
        let Some(patience) = self.watchdog else {
            return std::future::pending().await;
        };
        // Half of it, as systemd advises: what is late once is not too late.
        let pause = patience / 2;
        loop {
            match tokio::time::timeout(pause, dispatcher.measure()).await {
                Ok(Ok(_)) => self.tell("WATCHDOG=1"),
                _ => tracing::warn!("the dispatcher does not answer"),
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// `WATCHDOG_USEC`, if it is meant for this process and longer than nothing.
fn watchdog(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    let meant = |text: String| text.trim().parse() == Ok(pid);
    if !variable("WATCHDOG_PID").is_none_or(meant) {
        return None;
    }
    let microseconds = variable("WATCHDOG_USEC")?.trim().parse().ok()?;
    Some(Duration::from_micros(microseconds)).filter(|patience| !patience.is_zero())
}

fn send(socket: &OsStr, what: &str) -> io::Result<()> {
    let from = UnixDatagram::unbound()?;
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => {
            let address = SocketAddr::from_abstract_name(name)?;
            from.send_to_addr(what.as_bytes(), &address)?;
        }
        None => {
            from.send_to(what.as_bytes(), socket)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_of_this_process_or_none() {
        let watch = |usec: Option<&str>, pid: Option<&str>| {
            let (usec, pid) = (usec.map(str::to_owned), pid.map(str::to_owned));
            let variable = |name: &str| match name {
                "WATCHDOG_USEC" => usec.clone(),
                "WATCHDOG_PID" => pid.clone(),
                _ => None,
            };
            watchdog(variable, 7)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(watch(Some("1000000"), None), second);
        assert_eq!(watch(Some("1000000"), Some("7")), second);
        assert_eq!(watch(Some("1000000"), Some("8")), None);
        assert_eq!(watch(Some("0"), None), None);
        assert_eq!(watch(Some("soon"), None), None);
        assert_eq!(watch(None, Some("7")), None);
    }

    #[test]
    fn sockets_with_and_without_a_path_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let with_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("longshore-test-{}", path.display());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let without = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, given) in [
            (with_path, path.into_os_string()),
            (without, format!("@{name}").into()),
        ] {
            let systemd = Systemd {
                socket: Some(given),
                watchdog: None,
            };
            systemd.tell("READY=1");
            let mut told = [0; 64];
            let length = socket.recv(&mut told).unwrap();
            assert_eq!(&told[..length], b"READY=1");
        }
    }
}
