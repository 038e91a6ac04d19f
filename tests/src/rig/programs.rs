//! Our own programs, as Cargo builds them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::must;
use super::run::{Run, workspace};

/// The packages, each with a program of its own name.
const PACKAGES: [&str; 3] = ["signer", "repo-server", "update-agent"];

/// A program of ours, built when it is missing or older than its source.
///
/// `cargo test --workspace` builds them before any test runs; only `cargo test -p racklet-tests`
/// leaves them to us.
#[track_caller]
pub fn program(name: &str) -> Run {
    match programs().get(name) {
        Some(path) => Run::new(path),
        None => panic!("{name} is not one of {PACKAGES:?}"),
    }
}

/// Where each of our programs lies, by its name; built as by [`program`].
#[track_caller]
pub fn programs() -> &'static BTreeMap<&'static str, PathBuf> {
    static PROGRAMS: OnceLock<BTreeMap<&'static str, PathBuf>> = OnceLock::new();
    PROGRAMS.get_or_init(build_if_stale)
}

fn build_if_stale() -> BTreeMap<&'static str, PathBuf> {
    let test = must(std::env::current_exe(), "where this test is");
    // target/<profile>/deps/<test>
    let profile = test.ancestors().nth(2).expect("a test lies two folders below target").to_owned();
    if PACKAGES.iter().any(|name| is_stale(&profile, name)) {
        build(&profile);
    }
    PACKAGES.iter().map(|name| (*name, profile.join(name))).collect()
}

/// Older than a file it was built of. Cargo writes their list beside the program.
fn is_stale(profile: &Path, name: &str) -> bool {
    let Some(built) = modified(&profile.join(name)) else { return true };
    let Ok(list) = fs::read_to_string(profile.join(format!("{name}.d"))) else { return true };
    let Some((_, sources)) = list.split_once(": ") else { return true };
    sources.split_whitespace().any(|source| modified(Path::new(source)).is_none_or(|at| at > built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn build(profile: &Path) {
    let target = profile.parent().expect("the profile's folder lies in the target folder");
    let mut cargo = Run::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--locked", "--bins", "--target-dir"])
        .arg(target)
        .arg("--manifest-path")
        .arg(workspace().join("Cargo.toml"));
    if profile.file_name().is_some_and(|name| name == "release") {
        cargo = cargo.arg("--release");
    }
    for package in PACKAGES {
        cargo = cargo.args(["-p", package]);
    }
    // A build from nothing takes minutes.
    let done = cargo.start().finish_within(Duration::from_secs(900));
    assert_eq!(done.code, 0, "build our programs:\n{}", done.output());
}
