//! The key that we log in with.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::raw;

/// A text that is not a private key that can be used.
///
/// ```
/// let error = longshore_ssh::PrivateKey::parse("").unwrap_err();
/// assert_eq!(error.reason, "it does not begin with -----BEGIN");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("not a usable private key: {reason}")]
#[non_exhaustive]
pub struct KeyError {
    /// What is wrong with it. It never shows any of the text.
    pub reason: String,
}

/// A private key in memory. It is never shown.
///
/// ```
/// use longshore_ssh::PrivateKey;
/// assert!(PrivateKey::parse("ssh-ed25519 AAAA this is the public half").is_err());
/// ```
#[derive(Clone)]
pub struct PrivateKey(Arc<str>);

impl PrivateKey {
    /// Takes an ed25519, ECDSA or RSA key in OpenSSH or PEM form without a passphrase.
    ///
    /// The key is tried at once, so that a bad one is an error here and not at the first login.
    ///
    /// # Errors
    ///
    /// If libssh2 cannot read it, or it needs a passphrase.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = format!("{}\n", text.replace("\r\n", "\n").trim());
        if !text.starts_with("-----BEGIN ") || text.contains('\0') {
            return Err(KeyError {
                reason: "it does not begin with -----BEGIN".to_owned(),
            });
        }
        try_out(&text)?;
        Ok(Self(text.into()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

/// Lets libssh2 begin a login that goes nowhere: it reads the key before it sends anything.
fn try_out(text: &str) -> Result<(), KeyError> {
    let failed = |reason: String| KeyError { reason };
    let (ours, _theirs) = UnixStream::pair().map_err(|e| failed(e.to_string()))?;
    let mut session = ssh2::Session::new().map_err(|e| failed(e.to_string()))?;
    session.set_blocking(false);
    session.set_tcp_stream(ours);
    // Tells libssh2 its socket; it then waits for a banner that never comes.
    match session.handshake() {
        Err(error) if raw::would_block(&error) => {}
        Err(error) => return Err(failed(error.to_string())),
        Ok(()) => return Err(failed("the trial did not work".to_owned())),
    }
    match session.userauth_pubkey_memory("nobody", None, text, None) {
        Err(error) if !raw::would_block(&error) => Err(failed(error.message().to_owned())),
        _ => Ok(()),
    }
}
