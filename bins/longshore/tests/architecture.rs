//! The architecture, checked: which crate may depend on which, and what a pure crate may not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// The floor of each crate: an arrow may only point to a lower floor.
const FLOORS: &[(&str, u8)] = &[
    ("longshore-types", 0),
    ("longshore-cloud", 1),
    ("longshore-exec", 1),
    ("longshore-runner-api", 1),
    ("longshore-http", 2),
    ("longshore-throttle", 2),
    ("longshore-ssh", 2),
    ("longshore-pool", 2),
    ("longshore-scheduler", 2),
    ("longshore-queue", 2),
    ("longshore-fakecloud", 2),
    ("longshore-conformance", 2),
    ("longshore-driver-loopback", 2),
    ("longshore-dispatch", 3),
    ("longshore-controller", 3),
    ("longshore-sim", 4),
    ("longshore", 5),
    ("longshore-run", 5),
    ("longshore-examples", 5),
    ("longshore-driver-acme", 5),
];

/// Crates that must not learn the time, the environment, a thread, a socket or a random number
/// when built without features.
const PURE: &[&str] = &[
    "longshore-types",
    "longshore-runner-api",
    "longshore-pool",
    "longshore-scheduler",
    "longshore-queue",
    "longshore-fakecloud",
    "longshore-dispatch",
    "longshore-sim",
];

/// What a pure crate must not pull in.
const IMPURE: &[&str] = &[
    "tokio",
    "mio",
    "ssh2",
    "russh",
    "ureq",
    "hyper",
    "axum",
    "rusqlite",
    "getrandom",
    "rand",
    "chrono",
    "time",
    "tracing-subscriber",
    "nix",
    "rustix",
];

/// Crates below the programs that may hold `unsafe` code, with the reason.
const UNSAFE: &[(&str, &str)] = &[(
    "longshore-run",
    "forks, and sets up the child before it becomes the container",
)];

/// Crates whose manifests have lints of their own, `unsafe` code forbidden among them, with the
/// reason.
const OWN_LINTS: &[(&str, &str)] = &[(
    "longshore-driver-acme",
    "a template that is copied out of the workspace, so its manifest leans on nothing here",
)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .expect("cargo metadata works")
}

fn floor(name: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(crate_name, _)| *crate_name == name)
        .map(|(_, floor)| *floor)
}

fn folder(package: &Package) -> PathBuf {
    package
        .manifest_path
        .parent()
        .expect("a manifest lies in a folder")
        .into()
}

#[test]
fn every_crate_has_a_floor_and_points_down() {
    let mut wrong = Vec::new();
    for package in metadata().packages {
        let Some(own) = floor(&package.name) else {
            wrong.push(format!("{} has no floor", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            if let Some(other) = floor(&dependency.name)
                && other >= own
            {
                wrong.push(format!(
                    "{} (floor {own}) depends on {} (floor {other})",
                    package.name, dependency.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_crates_pull_in_nothing_impure() {
    let mut wrong = Vec::new();
    for name in PURE {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "--no-default-features",
                "--edges",
                "normal",
            ])
            .args(["--prefix", "none", "--format", "{p}", "--package", name])
            .current_dir(root())
            .output()
            .expect("cargo tree runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "cargo tree --package {name}: {error}"
        );
        let text = String::from_utf8(output.stdout).expect("names are UTF-8");
        let tree: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert!(
            tree.contains(name),
            "cargo tree does not list {name} itself: {text}"
        );
        let impure = IMPURE.iter().filter(|impure| tree.contains(*impure));
        wrong.extend(impure.map(|impure| format!("{name} pulls in {impure}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_crates_ban_clocks_and_hash_order() {
    for package in metadata()
        .packages
        .iter()
        .filter(|p| PURE.contains(&p.name.as_str()))
    {
        let path = folder(package).join("clippy.toml");
        let text = fs::read_to_string(&path).unwrap_or_default();
        for banned in [
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "std::env::var",
            "std::collections::HashMap",
            "std::collections::HashSet",
        ] {
            assert!(
                text.contains(banned),
                "{} does not ban {banned}",
                path.display()
            );
        }
    }
}

#[test]
fn nothing_below_the_programs_names_a_concrete_driver() {
    for package in metadata().packages {
        let below = floor(&package.name).is_some_and(|floor| floor < 5);
        if !below || package.name.starts_with("longshore-driver-") {
            continue;
        }
        for dependency in &package.dependencies {
            let is_driver = dependency.name.starts_with("longshore-driver-");
            let in_tests = dependency.kind == DependencyKind::Development;
            assert!(
                !is_driver || in_tests,
                "{} names {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints_or_says_why_not() {
    let unsafe_code: BTreeMap<&str, &str> = UNSAFE.iter().copied().collect();
    let own_lints: BTreeMap<&str, &str> = OWN_LINTS.iter().copied().collect();
    for package in metadata().packages {
        let text = fs::read_to_string(&package.manifest_path).expect("the manifest can be read");
        let inherits = text.contains("[lints]\nworkspace = true");
        let name = package.name.as_str();
        let own = ["unsafe_code = \"forbid\"", "missing_docs = \"warn\""];
        let has_own = own.iter().all(|lint| text.contains(lint));
        let excepted = unsafe_code.contains_key(name) || own_lints.contains_key(name) && has_own;
        assert!(
            inherits || excepted,
            "{} does not take the workspace's lints",
            package.name
        );
    }
    let root = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest can be read");
    assert!(root.contains("unsafe_code = \"forbid\""));
    assert!(root.contains("missing_docs = \"warn\""));
}

#[test]
fn the_architecture_page_lists_every_crate() {
    let page = root().join("docs/architecture.md");
    let text = fs::read_to_string(&page).expect("docs/architecture.md can be read");
    for package in metadata().packages {
        let name = format!("`{}`", package.name);
        assert!(
            text.contains(&name),
            "{} does not mention {name}",
            page.display()
        );
    }
}
