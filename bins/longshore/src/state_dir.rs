//! The state directory: where queue, results and logs are kept.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::ending::UsageError;
use crate::state::StateError;

/// Where the state directory is: what the user said, else `$XDG_STATE_HOME/longshore`, else
/// `$HOME/.local/state/longshore`. `variable` reads the environment.
pub fn locate(
    said: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, UsageError> {
    if let Some(path) = said {
        if path.as_os_str().is_empty() {
            return Err(UsageError::new("the state directory is empty; name one"));
        }
        return std::path::absolute(path)
            .map_err(|error| UsageError::new(format!("the state directory: {error}")));
    }
    // Relative values are invalid by the XDG specification and ignored.
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    if let Some(path) = absolute("XDG_STATE_HOME") {
        return Ok(path.join("longshore"));
    }
    absolute("HOME")
        .map(|home| home.join(".local/state/longshore"))
        .ok_or_else(|| {
            UsageError::new("HOME is not set; say where to keep the state with --state-dir DIR")
        })
}

/// Makes the directory, for its owner only, unless it is there.
pub fn create(path: &Path) -> Result<(), StateError> {
    let result = DirBuilder::new().recursive(true).mode(0o700).create(path);
    result.map_err(|source| StateError::unusable(path, "making it", source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_places_are_tried_in_order() {
        let variables = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = pairs.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| OsString::from(value))
            }
        };
        let all = variables(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]);
        assert_eq!(locate(Some(Path::new("/s")), all), Ok("/s".into()));
        assert_eq!(locate(None, all), Ok("/x/longshore".into()));
        let relative = variables(&[("XDG_STATE_HOME", "x"), ("HOME", "/h")]);
        assert_eq!(
            locate(None, relative),
            Ok("/h/.local/state/longshore".into())
        );
        assert!(locate(None, variables(&[])).is_err());
        assert!(locate(Some(Path::new("")), all).is_err());
        assert!(locate(Some(Path::new("s")), all).unwrap().is_absolute());
    }

    #[test]
    fn it_is_private_and_errors_name_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        create(&path).unwrap();
        create(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let file = path.join("file");
        std::fs::write(&file, "").unwrap();
        let error = create(&file).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
}
