//! Builds the static runner that the program carries to instances, so that one binary is enough.
//!
//! A nested cargo builds it, in a target directory of its own: the outer cargo holds the lock of
//! the usual one while it waits for this script. Debug and release builds share the result, which
//! is always a release build.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const PACKAGE: &str = "longshore-run";

/// What the runner is made of, from the root of the workspace.
const INPUTS: &[&str] = &[
    "bins/longshore-run",
    "crates/types",
    "crates/runner-api",
    "Cargo.toml",
    "Cargo.lock",
];

/// Settings of the outer build that must not reach the nested one: it has flags of its own, and
/// under `cargo clippy` the compiler is not a compiler.
const UNWANTED: &[&str] = &["CLIPPY_ARGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"];

/// Beginnings and ends of those `CARGO_` settings that the nested build needs: where things are
/// downloaded from and kept, the linker, and the outer build's share of processors.
const WANTED_PREFIXES: &[&str] = &[
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
];
const WANTED_SUFFIXES: &[&str] = &["_AR", "_LINKER"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = package.join("../..").canonicalize()?;
    println!("cargo::rerun-if-changed=build.rs");
    for input in INPUTS {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let target = variable("TARGET")?;
    if !target.contains("linux") {
        return Err(format!("longshore runs on Linux; it cannot be built for {target}").into());
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let directory = nested_target_directory(&out, &target);
    run_cargo(&root, &target, &directory)?;
    let built = directory.join(&target).join("release").join(PACKAGE);
    std::fs::copy(&built, out.join(PACKAGE))
        .map_err(|error| format!("{} cannot be copied: {error}", built.display()))?;
    Ok(())
}

/// A directory beside those of the profiles, found from `target/[TRIPLE/]PROFILE/build/…/out`.
fn nested_target_directory(out: &Path, target: &str) -> PathBuf {
    let name = "longshore-run-static";
    let build = out
        .ancestors()
        .find(|a| a.file_name() == Some(OsStr::new("build")));
    let above = build.and_then(Path::parent).and_then(Path::parent);
    match above {
        Some(triple) if triple.ends_with(target) => triple.with_file_name(name),
        Some(top) => top.join(name),
        None => out.join(name),
    }
}

fn run_cargo(root: &Path, target: &str, directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(root)
        .args(["build", "--release", "--locked", "--package", PACKAGE])
        .args(["--target", target, "--target-dir"])
        .arg(directory);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_unwanted) {
            cargo.env_remove(name);
        }
    }
    let flags = ["-Ctarget-feature=+crt-static", "-Cstrip=symbols"].join("\x1f");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
    let output = cargo
        .output()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{said}\nthe static runner {PACKAGE} cannot be built; {}",
        advice(&said)
    )
    .into())
}

fn advice(said: &str) -> &'static str {
    if said.contains("unable to find library") || said.contains("cannot find -l") {
        "the static C library is missing (Debian: apt-get install libc6-dev)"
    } else if said.contains("linker `cc` not found") {
        "a C compiler is missing (Debian: apt-get install build-essential)"
    } else if said.contains("--locked") {
        "Cargo.lock is out of date (run cargo build -p longshore-run once)"
    } else {
        "what cargo says is above"
    }
}

fn is_unwanted(name: &str) -> bool {
    UNWANTED.contains(&name)
        || name.starts_with("CARGO")
            && !WANTED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
            && !WANTED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
