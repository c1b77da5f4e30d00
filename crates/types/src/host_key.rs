//! SSH host keys.

use std::fmt;

/// The public key that an SSH server presented.
///
/// Prints as OpenSSH writes it in `known_hosts`: algorithm, blank, base64.
///
/// ```
/// use longshore_types::HostKey;
/// let key = HostKey { algorithm: "ssh-ed25519".into(), blob: vec![0, 0, 0, 11] };
/// assert_eq!(key.to_string(), "ssh-ed25519 AAAACw==");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostKey {
    /// Name of the algorithm, such as `ssh-ed25519`.
    pub algorithm: String,
    /// The key in the SSH wire form (RFC 4253 section 6.6).
    pub blob: Vec<u8>,
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        write!(f, "{} ", self.algorithm)?;
        for chunk in self.blob.chunks(3) {
            let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for i in 0..4 {
                let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
                let shown = if i <= chunk.len() {
                    char::from(digit)
                } else {
                    '='
                };
                write!(f, "{shown}")?;
            }
        }
        Ok(())
    }
}

/// What somebody who knows an instance says of a host key that it presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the three answers there can be")]
pub enum HostKeyVerdict {
    /// It is this instance's key.
    Match,
    /// It is not this instance's key: refuse the connection.
    Mismatch,
    /// Not known; identify the host in another way.
    Unsupported,
}
