//! Files that a user names.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::problem::{Position, Problems};

/// The real path and content of a regular file; `what` it is to be, for messages.
pub(crate) fn read(path: &Path, what: &str, bytes_max: u64) -> Result<(PathBuf, Vec<u8>), String> {
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; check the path".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let real_path = path.canonicalize().map_err(cannot)?;
    if real_path.to_str().is_none() {
        return Err("its full path is not UTF-8; move it elsewhere".into());
    }
    let kind = real_path.metadata().map_err(cannot)?;
    if kind.is_dir() {
        return Err(format!("is a directory; name {what} in it"));
    }
    if !kind.is_file() {
        return Err("is not a regular file; copy it to one".into());
    }
    let file = File::open(&real_path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > bytes_max {
        let most = bytes_max / 1_000_000;
        return Err(format!(
            "has more than {most} MB, the most that {what} may have; split it"
        ));
    }
    Ok((real_path, bytes))
}

/// The text of a file, without a byte-order mark.
pub(crate) fn decode<'a>(bytes: &'a [u8], problems: &mut Problems) -> Option<&'a str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let line_start = good.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
            let count = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().count();
            let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let at = Position {
                line: small(1 + good.iter().filter(|&&b| b == b'\n').count()),
                column: small(1 + count(&good[line_start..])),
            };
            problems.add(at, "is not UTF-8 text; save it as UTF-8");
            return None;
        }
    };
    Some(text.strip_prefix('\u{feff}').unwrap_or(text))
}
