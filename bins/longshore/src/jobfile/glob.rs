//! Patterns of file names.
//!
//! The walk is our own, so that names that are not UTF-8 and directories that cannot be read are
//! errors instead of silently leaving jobs out, and so that it ends.

use std::io;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::text::excerpt;

/// How many directory entries a pattern may visit.
const MAX_VISITED: usize = 1_000_000;
/// How many parts between slashes a pattern may have.
const MAX_PARTS: usize = 256;

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The paths that match `pattern`, sorted; relative ones (to `directory`) if the pattern is.
pub(super) fn matches(directory: &Path, pattern: &str) -> Result<Vec<String>, String> {
    let mut walk = Walk::default();
    let (start, shown) = match pattern.strip_prefix('/') {
        Some(_) => (PathBuf::from("/"), "/".to_owned()),
        None => (directory.to_owned(), String::new()),
    };
    let parts = parts(pattern)?;
    walk.visit(&start, &shown, &parts)?;
    walk.found.sort();
    walk.found.dedup();
    Ok(walk.found)
}

fn parts(pattern: &str) -> Result<Vec<Part>, String> {
    let mut texts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    // Any number of directories, twice, is any number of directories.
    texts.dedup_by(|part, before| part == before && *part == "**");
    if texts.is_empty() {
        return Err("the pattern is empty; write one like \"data/*.csv\"".into());
    }
    if texts.len() > MAX_PARTS {
        let found = texts.len();
        return Err(format!(
            "the pattern has {found} parts between slashes, {MAX_PARTS} are possible"
        ));
    }
    texts.into_iter().map(Part::new).collect()
}

enum Part {
    Literal(String),
    Pattern(Pattern),
    /// `**`: any number of directories.
    AnyDepth,
}

impl Part {
    fn new(text: &str) -> Result<Self, String> {
        if text == "**" {
            return Ok(Self::AnyDepth);
        }
        if !text.contains(['*', '?', '[']) {
            return Ok(Self::Literal(text.to_owned()));
        }
        let error = |e: glob::PatternError| format!("is not a pattern of file names: {}", e.msg);
        Pattern::new(text).map(Self::Pattern).map_err(error)
    }
}

#[derive(Default)]
struct Walk {
    found: Vec<String>,
    visited: usize,
}

impl Walk {
    /// Follows `parts` from a directory; `shown` is its path as the result has it.
    fn visit(&mut self, directory: &Path, shown: &str, parts: &[Part]) -> Result<(), String> {
        let Some((first, rest)) = parts.split_first() else {
            return Ok(());
        };
        match first {
            Part::Literal(name) => self.step(directory, shown, name, rest),
            Part::Pattern(pattern) => {
                for name in self.names(directory, |name| {
                    pattern.matches_with(&name.to_string_lossy(), OPTIONS)
                })? {
                    self.step(directory, shown, &name, rest)?;
                }
                Ok(())
            }
            Part::AnyDepth => {
                self.visit(directory, shown, rest)?;
                let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
                for name in self.names(directory, |name| {
                    // Links are not followed, so that the walk has an end.
                    !hidden(name)
                        && directory
                            .join(name)
                            .symlink_metadata()
                            .is_ok_and(|entry| entry.is_dir())
                })? {
                    let inner = format!("{shown}{name}/");
                    self.visit(&directory.join(&name), &inner, parts)?;
                }
                Ok(())
            }
        }
    }

    fn step(
        &mut self,
        directory: &Path,
        shown: &str,
        name: &str,
        rest: &[Part],
    ) -> Result<(), String> {
        let path = directory.join(name);
        if rest.is_empty() {
            if path.symlink_metadata().is_ok() {
                self.found.push(format!("{shown}{name}"));
            }
        } else if path.is_dir() {
            self.visit(&path, &format!("{shown}{name}/"), rest)?;
        }
        Ok(())
    }

    /// The chosen names in a directory, sorted.
    fn names(
        &mut self,
        directory: &Path,
        chosen: impl Fn(&std::ffi::OsStr) -> bool,
    ) -> Result<Vec<String>, String> {
        let unreadable = |error: io::Error| {
            let path = excerpt(&directory.to_string_lossy());
            format!("the pattern leads to the directory {path:?}, which cannot be read: {error}")
        };
        let mut names = Vec::new();
        for entry in directory.read_dir().map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            self.visited += 1;
            if self.visited > MAX_VISITED {
                return Err(format!(
                    "the pattern visits more than {MAX_VISITED} files; make it narrower"
                ));
            }
            if chosen(&name) {
                names.push(name.into_string().map_err(|name| {
                    let name = excerpt(&name.to_string_lossy());
                    format!("the pattern matches {name:?}, whose name is not UTF-8; rename it")
                })?);
            }
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_any_length_have_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/c.csv"), "").unwrap();
        let repeated = format!("{}*.csv", "**/".repeat(100_000));
        assert_eq!(matches(folder.path(), &repeated).unwrap(), ["a/b/c.csv"]);
        let long = format!("{}*.csv", "**/a/".repeat(100_000));
        let error = matches(folder.path(), &long).unwrap_err();
        assert!(error.contains("256 are possible"), "{error}");
    }
}
