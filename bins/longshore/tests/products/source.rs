//! The sources of a crate, parsed.

use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Meta};

/// A parsed file of a crate.
pub(crate) struct Source {
    /// Folder of the crate and name of the file.
    pub(crate) place: String,
    /// The folder that the file is in.
    pub(crate) folder: PathBuf,
    pub(crate) file: syn::File,
}

/// Every file of a crate's library.
pub(crate) fn sources(product: &str) -> Vec<Source> {
    let parse = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file can be read");
        let name = path.file_name().unwrap_or_default();
        Source {
            place: format!("{product}/{}", name.display()),
            folder: path.parent().map(Path::to_owned).unwrap_or_default(),
            file: syn::parse_file(&text).expect("a source file can be parsed"),
        }
    };
    files(&folder(product)).into_iter().map(parse).collect()
}

fn folder(product: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates")
        .join(product)
        .join("src")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of a crate can be read") {
        let path = entry.expect("the folder of a crate can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Whether something is there for unit tests only.
pub(crate) fn is_test(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| {
        attr.path().is_ident("cfg")
            && matches!(&attr.meta, Meta::List(list) if list.tokens.to_string() == "test")
    })
}
