//! From an address to a TCP connection.

use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpStream, lookup_host};

use crate::error::SshError;
use crate::settings::Settings;

/// Connects to the first answering address of a host.
pub(crate) async fn dial(address: &str, settings: &Settings) -> Result<TcpStream, SshError> {
    let (host, port) =
        split(address, settings.port).ok_or_else(|| SshError::Address(address.to_owned()))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(tcp) => {
                prepare(&tcp, settings)?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// Sends small packets at once, and notices a host that is gone.
fn prepare(tcp: &TcpStream, settings: &Settings) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let silence = u32::try_from(settings.keepalive.as_secs()).unwrap_or(u32::MAX);
    let silence = silence.clamp(1, 32_767);
    // Zero would be the system's own, and the system knows no more than 31 bits.
    let patience = settings.unacknowledged.as_millis().clamp(1, 1 << 31);
    let patience = u32::try_from(patience)
        .unwrap_or(u32::MAX)
        .min(i32::MAX.cast_unsigned());
    setsockopt(tcp, sockopt::KeepAlive, &true)?;
    setsockopt(tcp, sockopt::TcpKeepIdle, &silence)?;
    setsockopt(tcp, sockopt::TcpKeepInterval, &silence)?;
    setsockopt(tcp, sockopt::TcpUserTimeout, &patience)?;
    Ok(())
}

/// Host and port of `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
fn split(address: &str, default_port: u16) -> Option<(&str, u16)> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return None,
        }
    } else {
        match address.split_once(':') {
            Some((_, rest)) if rest.contains(':') => (address, None),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default_port,
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn addresses_with_and_without_a_port() {
        assert_eq!(split("10.0.0.1", 22), Some(("10.0.0.1", 22)));
        assert_eq!(split("host:2222", 22), Some(("host", 2222)));
        assert_eq!(split("[::1]:2222", 22), Some(("::1", 2222)));
        assert_eq!(split("[::1]", 22), Some(("::1", 22)));
        assert_eq!(split("fe80::1", 22), Some(("fe80::1", 22)));
        for bad in [
            "",
            ":22",
            "host:",
            "host:x",
            "host:70000",
            "[::1]22",
            "[::1",
        ] {
            assert_eq!(split(bad, 22), None, "{bad}");
        }
    }
}
