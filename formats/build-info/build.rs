//! Tells the crate its commit and its target.
//!
//! Only release builds ask git: in every other build, each commit would compile the programs and all their tests
//! again. `RACKLET_COMMIT`, in the form of [`commit::of`], takes precedence: for sources that are no work tree, such
//! as a tarball, and for builds that must be the same everywhere.

mod commit;

use std::env;
use std::path::Path;
use std::process::Command;

const GIVEN: &str = "RACKLET_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=commit.rs");
    println!("cargo::rerun-if-env-changed={GIVEN}");
    let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let found = match (env::var(GIVEN), env::var("PROFILE").as_deref()) {
        (Ok(given), _) if !given.trim().is_empty() => Some(given.trim().to_owned()),
        (_, Ok("release")) => {
            watch(here.as_ref());
            commit::of(here.as_ref())
        }
        _ => None,
    };
    println!("cargo::rustc-env=BUILD_COMMIT={}", found.unwrap_or_else(|| "unknown".to_owned()));
    println!("cargo::rustc-env=BUILD_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// Runs this script again when another commit is checked out or made.
fn watch(here: &Path) {
    let path = ["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"];
    let Ok(done) = Command::new("git").args(path).current_dir(here).output() else { return };
    let log = String::from_utf8_lossy(&done.stdout);
    if Path::new(log.trim()).is_file() {
        println!("cargo::rerun-if-changed={}", log.trim());
    }
}
