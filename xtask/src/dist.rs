//! `cargo xtask dist`: the programs as they are shipped.
//!
//! `update-agent` is one static file, built for size: nodes may have little flash, no C library of
//! ours, and start it as `/init`. `signer` and `repo-server` are linked as the machine they run on is.
//! The same sources give the same bytes, wherever and by whomever they are built ([`reproduce`]).
//! With `--target` they are built for another processor, by compilers in a Debian of their own
//! (`racklet_tools::cross`), and started once by an emulator.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::cross::{Compilers, Processor};
use racklet_tools::programs::{PROGRAMS, Place, is_static};
use racklet_tools::show;
use sha2::{Digest as _, Sha256};

use crate::{licences, sbom};

pub(crate) mod reproduce;

/// The checksums of everything beside it, as `sha256sum --check` reads them.
const SUMS: &str = "SHA256SUMS";

/// Start of the name of every fault-injection switch. Written in two parts, so that this file is
/// not a finding of its own.
pub(crate) const MARKER: &str = concat!("RACKLET_", "FAIL");

/// Of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build for another processor, into target/shipped-PROCESSOR. Needs root and debootstrap; the first
    /// time it makes a Debian 13 with compilers (three minutes, 2 GB in the cache).
    #[arg(long, value_name = "PROCESSOR")]
    target: Option<Processor>,
    /// Build everything once more in another directory with another home, and compare.
    #[arg(long)]
    reproduce: bool,
}

/// `cargo xtask dist`
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = options.target.map_or_else(|| Ok(Place::here()), Place::cross)?;
    let dir = build_for(&place)?;
    for program in PROGRAMS {
        let file = dir.join(program);
        let kind = if is_static(&file)? { "static" } else { "dynamic" };
        let size = fs::metadata(&file)?.len();
        println!("{program:<13} {:>10}, {kind}  {}", show::bytes(size), file.display());
    }
    print!("{}", fs::read_to_string(dir.join(SUMS))?);
    if options.reproduce {
        let faults = reproduce::all(&place, &dir)?;
        ensure!(faults.is_empty(), "{}", faults.join("; "));
        println!("built again elsewhere: the same bytes");
    }
    Ok(())
}

/// [`build_for`], for this machine.
pub(crate) fn build() -> Result<PathBuf> {
    build_for(&Place::here())
}

/// Builds all of them; the folder where they lie, with their checksums and what they are made of.
pub(crate) fn build_for(place: &Place) -> Result<PathBuf> {
    let dir = place.shipped_folder();
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    for (from, program) in place.others()?.into_iter().chain([(place.agent()?, "update-agent")]) {
        copy(&from, &dir.join(program))?;
    }
    for program in PROGRAMS {
        if let Some(breach) = look(&dir.join(program))? {
            bail!("{breach}: never ship it");
        }
        if let Some(compilers) = &place.compilers {
            starts(compilers, &dir, program)?;
        }
    }
    describe(place, &dir)?;
    Ok(dir)
}

/// A kernel for another processor may have pages of 64 KiB, and the emulator runs it far enough to say its version.
fn starts(compilers: &Compilers, dir: &Path, program: &str) -> Result<()> {
    let headers = Cmd::new("readelf").arg("-Wl").arg(dir.join(program)).read()?;
    let mut segments = headers.lines().filter(|line| line.trim_start().starts_with("LOAD"));
    let large = segments.all(|line| line.ends_with("0x10000"));
    ensure!(large, "{program} does not start on a kernel with pages of 64 KiB:\n{headers}");
    let emulator = compilers.processor.emulator();
    let said = compilers.command(dir, &[dir], &[], emulator);
    let said = said.arg(dir.join(program)).arg("--version").read()?;
    ensure!(said.starts_with(program), "{emulator} {program} --version said {said:?}");
    Ok(())
}

/// Beside the programs: an SPDX document and the licences of each, and [`SUMS`] of all files.
fn describe(place: &Place, dir: &Path) -> Result<()> {
    let (mut sums, target) = (String::new(), place.rust_target()?);
    for program in PROGRAMS {
        let sha256 = sha256(&dir.join(program))?;
        sums += &format!("{sha256}  {program}\n");
        let document =
            sbom::document(&sbom::Subject { program, sha256: &sha256, target: &target })?;
        let licences = licences::texts(program, &target)?;
        for (end, text) in [("spdx.json", document), ("licences.txt", licences)] {
            let name = format!("{program}.{end}");
            fs::write(dir.join(&name), text).with_context(|| format!("write {name}"))?;
            sums += &format!("{}  {name}\n", self::sha256(&dir.join(&name))?);
        }
    }
    fs::write(dir.join(SUMS), sums).with_context(|| format!("write {SUMS}"))
}

/// SHA-256 of a file, hexadecimal.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
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
