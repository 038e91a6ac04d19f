//! `cargo xtask dist`: the programs as they are shipped.
//!
//! `update-agent` is one static file, built for size: nodes may have little flash, no C library of
//! ours, and start it as `/init`. `signer` and `repo-server` are linked as the machine they run on is.
//! The same sources give the same bytes, wherever and by whomever they are built ([`reproduce`]).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::cmd::Cmd;
use crate::{paths, sbom, show};

pub(crate) mod reproduce;

/// What is shipped.
pub(crate) const PROGRAMS: [&str; 3] = ["signer", "repo-server", "update-agent"];

/// The checksums of everything beside it, as `sha256sum --check` reads them.
const SUMS: &str = "SHA256SUMS";

/// Start of the name of every fault-injection switch. Written in two parts, so that this file is
/// not a finding of its own.
pub(crate) const MARKER: &str = concat!("RACKLET_", "FAIL");

/// Of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build everything once more in another directory with another home, and compare.
    #[arg(long)]
    reproduce: bool,
}

/// `cargo xtask dist`
pub(crate) fn run(options: &Options) -> Result<()> {
    let dir = build()?;
    for program in PROGRAMS {
        let file = dir.join(program);
        let kind = if is_static(&file)? { "static" } else { "dynamic" };
        let size = fs::metadata(&file)?.len();
        println!("{program:<13} {:>10}, {kind}  {}", show::bytes(size), file.display());
    }
    print!("{}", fs::read_to_string(dir.join(SUMS))?);
    if options.reproduce {
        let faults = reproduce::all(&dir)?;
        ensure!(faults.is_empty(), "{}", faults.join("; "));
        println!("built again elsewhere: the same bytes");
    }
    Ok(())
}

/// Where they lie once built.
pub(crate) fn folder() -> PathBuf {
    paths::target().join("shipped")
}

/// Builds all of them; the folder where they lie, with their checksums and what they are made of.
pub(crate) fn build() -> Result<PathBuf> {
    let dir = folder();
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let place = Place::here();
    for (from, program) in place.others()?.into_iter().chain([(place.agent()?, "update-agent")]) {
        copy(&from, &dir.join(program))?;
    }
    for program in PROGRAMS {
        if let Some(breach) = look(&dir.join(program))? {
            bail!("{breach}: never ship it");
        }
    }
    describe(&dir)?;
    Ok(dir)
}

/// Beside the programs: an SPDX document of each, and [`SUMS`] of all files.
fn describe(dir: &Path) -> Result<()> {
    let (mut sums, target) = (String::new(), host()?);
    for program in PROGRAMS {
        let sha256 = sha256(&dir.join(program))?;
        let name = format!("{program}.spdx.json");
        let document =
            sbom::document(&sbom::Subject { program, sha256: &sha256, target: &target })?;
        fs::write(dir.join(&name), document).with_context(|| format!("write {name}"))?;
        let of_document = self::sha256(&dir.join(&name))?;
        sums += &format!("{sha256}  {program}\n{of_document}  {name}\n");
    }
    fs::write(dir.join(SUMS), sums).with_context(|| format!("write {SUMS}"))
}

/// SHA-256 of a file, hexadecimal.
fn sha256(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
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
    Place::here().agent()
}

/// Where [`agent`] leaves it.
pub(crate) fn agent_file() -> Result<PathBuf> {
    Place::here().agent_file()
}

/// A copy of the sources, the home of cargo's crates, and where the outputs go. None of the three is to be seen
/// in what is built.
pub(crate) struct Place {
    pub(crate) sources: PathBuf,
    pub(crate) cargo_home: PathBuf,
    pub(crate) target: PathBuf,
}

impl Place {
    pub(crate) fn here() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo_home =
            std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        Self { sources: paths::root(), cargo_home, target: paths::target() }
    }

    /// cargo with the compilers told to write other names for our folders (`RUSTFLAGS` cannot hold a space).
    fn cargo(&self, flags: &[&str]) -> Cmd {
        let names = [(&self.cargo_home, "/cargo"), (&self.sources, "/racklet-update")];
        let rust = names.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
        let c = names.map(|(from, to)| format!("'-ffile-prefix-map={}={to}'", from.display()));
        let rust: Vec<&str> =
            rust.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        Cmd::cargo()
            .current_dir(&self.sources)
            .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"))
            .env("CFLAGS", c.join(" "))
            .env("CC_SHELL_ESCAPED_FLAGS", "1")
            .env("CARGO_HOME", &self.cargo_home)
            .env("CARGO_TARGET_DIR", &self.target)
    }

    /// `signer` and `repo-server`.
    pub(crate) fn others(&self) -> Result<[(PathBuf, &'static str); 2]> {
        let args =
            ["build", "--release", "--locked", "--bins", "-p", "signer", "-p", "repo-server"];
        self.cargo(&[]).args(args).args(["--target", &host()?]).watch()?;
        let release = self.target.join(host()?).join("release");
        Ok(["signer", "repo-server"].map(|program| (release.join(program), program)))
    }

    /// `update-agent`, without a dynamic loader.
    pub(crate) fn agent(&self) -> Result<PathBuf> {
        // With the target named, build scripts and macros are built without its flags.
        self.cargo(&["-C", "target-feature=+crt-static"])
            .args(["build", "--locked", "-p", "update-agent", "--profile", "dist"])
            .args(["--target", &host()?])
            .watch()?;
        let file = self.agent_file()?;
        ensure!(is_static(&file)?, "{} asks for a dynamic loader", file.display());
        Ok(file)
    }

    fn agent_file(&self) -> Result<PathBuf> {
        Ok(self.target.join(host()?).join("dist/update-agent"))
    }
}

/// The target of this toolchain, as rustc names it.
pub(crate) fn host() -> Result<String> {
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
