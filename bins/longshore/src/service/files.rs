//! What a service keeps in the state directory for those who talk to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use longshore_http::Token;
use serde::{Deserialize, Serialize};

use super::client::ServiceKind;
use crate::state::StateError;

/// The token of the management API.
pub(super) const MANAGEMENT_TOKEN: &str = "management_token";
/// The token of the API for jobs.
pub(super) const API_TOKEN: &str = "api_token";
/// The socket on which the service answers.
const SOCKET: &str = "service.sock";
/// Who answers there.
const ABOUT: &str = "service.json";
/// The longest token that is read.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Who answers on the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// Its process id.
    pub(super) pid: u32,
    pub(super) kind: ServiceKind,
    /// Its address on TCP, if it has one.
    pub(super) url: Option<String>,
    /// The version of the program.
    pub(super) version: String,
}

/// A path of the socket that is short enough for the kernel, however long the directory's is; the
/// directory is kept open as long as this is.
#[derive(Debug)]
pub(super) struct SocketPath {
    _directory: File,
    pub(super) path: PathBuf,
}

pub(super) fn socket(state_dir: &Path) -> io::Result<SocketPath> {
    use std::os::fd::AsRawFd as _;
    let directory = File::open(state_dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    Ok(SocketPath {
        _directory: directory,
        path: path.into(),
    })
}

pub(super) fn remove_socket(socket: &Path) -> io::Result<()> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn write_about(state_dir: &Path, about: &About) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(about)?;
    write_whole(&state_dir.join(ABOUT), &text)
}

pub(super) fn read_about(state_dir: &Path) -> io::Result<About> {
    let bytes = fs::read(state_dir.join(ABOUT))?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// A token, made at first use (mode 0600): 50 characters of `[a-z0-9]`, 258 bits.
pub(super) fn token(state_dir: &Path, name: &str) -> Result<Token, StateError> {
    let failed = |what: String| {
        let path = state_dir.to_owned();
        move |source| StateError::unusable(&path, what, source)
    };
    match read_token(state_dir, name) {
        Ok(token) if !token.is_empty() => return Ok(token),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(format!("reading {name}"))(error)),
    }
    let making = format!("making {name}");
    let text = random_text().map_err(failed(making.clone()))?;
    write_whole(&state_dir.join(name), format!("{text}\n").as_bytes()).map_err(failed(making))?;
    Ok(Token::new(text))
}

pub(super) fn read_token(state_dir: &Path, name: &str) -> io::Result<Token> {
    let mut text = String::new();
    let file = File::open(state_dir.join(name))?;
    file.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    Ok(Token::new(text.trim()))
}

fn random_text() -> io::Result<String> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::new();
    while text.len() < 50 {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        // Bytes beyond a multiple of 36 are left out: each character is as likely as another.
        let usable = bytes.iter().filter(|byte| **byte < 252);
        text.extend(usable.map(|byte| char::from(ALPHABET[usize::from(byte % 36)])));
    }
    text.truncate(50);
    Ok(text)
}

/// Writes a file (mode 0600) that is either complete or not there.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    let mut file = options.mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tokens_are_made_once_private_and_differ() {
        let folder = tempfile::tempdir().unwrap();
        let first = token(folder.path(), API_TOKEN).unwrap();
        assert_eq!(first.reveal().len(), 50);
        assert_eq!(token(folder.path(), API_TOKEN).unwrap(), first);
        assert_ne!(token(folder.path(), MANAGEMENT_TOKEN).unwrap(), first);
        let mode = fs::metadata(folder.path().join(API_TOKEN))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        // A file that a full disk left empty is no token that lets anybody in.
        fs::write(folder.path().join(API_TOKEN), "").unwrap();
        assert_eq!(token(folder.path(), API_TOKEN).unwrap().reveal().len(), 50);
    }
}
