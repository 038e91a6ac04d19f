//! `cargo xtask dist`: the programs as they are shipped.
//!
//! `update-agent` is one static file, built for size: nodes may have little flash, no C library of
//! ours, and start it as `/init`. `signer` and `repo-server` are linked as the machine they run on is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::cmd::Cmd;
use crate::{paths, show};

/// What is shipped.
pub(crate) const PROGRAMS: [&str; 3] = ["signer", "repo-server", "update-agent"];

/// Start of the name of every fault-injection switch. Written in two parts, so that this file is
/// not a finding of its own.
pub(crate) const MARKER: &str = concat!("RACKLET_", "FAIL");

/// `cargo xtask dist`
pub(crate) fn run() -> Result<()> {
    let dir = build()?;
    for program in PROGRAMS {
        let file = dir.join(program);
        let kind = if is_static(&file)? { "static" } else { "dynamic" };
        let size = fs::metadata(&file)?.len();
        println!("{program:<13} {:>10}, {kind}  {}", show::bytes(size), file.display());
    }
    Ok(())
}

/// Where they lie once built.
pub(crate) fn folder() -> PathBuf {
    paths::target().join("shipped")
}

/// Builds all of them; the folder where they lie.
pub(crate) fn build() -> Result<PathBuf> {
    let dir = folder();
    let others = ["-p", "signer", "-p", "repo-server"];
    Cmd::cargo().args(["build", "--release", "--locked", "--bins"]).args(others).watch()?;
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let release = paths::target().join("release");
    for (from, program) in
        [(release.join("signer"), "signer"), (release.join("repo-server"), "repo-server")]
    {
        copy(&from, &dir.join(program))?;
    }
    copy(&agent()?, &dir.join("update-agent"))?;
    for program in PROGRAMS {
        if let Some(breach) = look(&dir.join(program))? {
            bail!("{breach}: never ship it");
        }
    }
    Ok(dir)
}

/// Every program, test and example as tests want them: soon built, with checked arithmetic, and fast where it
/// has to be. The folder of the programs. What else CI does takes them from there, so that CI compiles
/// everything once.
pub(crate) fn for_tests() -> Result<PathBuf> {
    Cmd::cargo().args(["build", "--locked", "--workspace", "--all-targets"]).watch()?;
    Ok(tests_folder())
}

/// Of [`for_tests`] what is shipped. With `--workspace` and `--examples` (there are none) cargo chooses the crates'
/// features as it does for tests; without them a tenth of the crates would be compiled twice.
pub(crate) fn programs() -> Cmd {
    let bins = PROGRAMS.iter().flat_map(|program| ["--bin", program]);
    Cmd::cargo().args(["build", "--locked", "--workspace", "--examples"]).args(bins)
}

/// Where [`for_tests`] and [`programs`] leave them.
pub(crate) fn tests_folder() -> PathBuf {
    paths::target().join("debug")
}

/// The static agent as it is shipped.
pub(crate) fn agent() -> Result<PathBuf> {
    // With the target named, build scripts and macros are built without its flags.
    Cmd::cargo()
        .args(["build", "--locked", "-p", "update-agent", "--profile", "dist"])
        .args(["--target", &host()?])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .watch()?;
    let file = agent_file()?;
    ensure!(is_static(&file)?, "{} asks for a dynamic loader", file.display());
    Ok(file)
}

/// Where [`agent`] leaves it.
pub(crate) fn agent_file() -> Result<PathBuf> {
    Ok(paths::target().join(host()?).join("dist/update-agent"))
}

/// The target of this toolchain, as rustc names it.
fn host() -> Result<String> {
    let text = Cmd::new("rustc").arg("-vV").current_dir(&paths::root()).read()?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names its host")?.to_owned())
}

/// Whether a program needs no other file to start: its ELF program headers name no interpreter.
pub(crate) fn is_static(file: &Path) -> Result<bool> {
    let headers = Cmd::new("readelf").args(["-Wl"]).arg(file).read()?;
    Ok(!headers.contains("INTERP"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

/// What a program must not hold.
pub(crate) fn look(program: &Path) -> Result<Option<String>> {
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let found = contains(&bytes, MARKER.as_bytes());
    Ok(found.then(|| format!("{} contains {MARKER}", program.display())))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_marker_in_a_binary_is_found() {
        assert!(super::contains(b"\0xRACKLET_FAIL_AT\0", b"RACKLET_FAIL"));
        assert!(!super::contains(b"\0RACKLET_FA\0IL", b"RACKLET_FAIL"));
    }
}
