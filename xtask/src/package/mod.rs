//! `cargo xtask package`: Debian packages of what `cargo xtask dist` builds.
//!
//! ```text
//! dist ──────────── programs, SPDX, licences ─┐
//! racklet-manual ── manual pages, completions ├─► a folder with packaging/debian ─► debhelper ─► *.deb
//! the repository ── units, examples, docs ────┘
//! ```
//!
//! `packaging/debian` says which file goes where, in debhelper's own words; a test in `contents.rs` compares that with what the
//! repository has. The same sources give the same packages: all times are that of the commit.

pub(crate) mod changelog;
#[cfg(test)]
mod contents;
pub(crate) mod judge;
pub(crate) mod stage;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::cross::Processor;
use racklet_tools::programs::Place;
use racklet_tools::{paths, setup, show};

use crate::dist;
use changelog::Commit;
use stage::Stage;

/// The packages, as `packaging/debian/control` lists them.
pub(crate) const PACKAGES: [&str; 4] =
    ["racklet-update-agent", "racklet-signer", "racklet-repo-server", "racklet-update-doc"];

/// Which files of the repository belong into packages and archives, by the beginning of their names.
pub(crate) const SHIPPED: [&str; 13] = [
    "docs/",
    "README.md",
    "CHANGELOG.md",
    "update-agent/systemd/",
    "update-agent/boot/",
    "update-agent/hooks/",
    "update-agent/openrc/",
    "update-agent/update-agent.example.toml",
    "signer/systemd/",
    "signer/signer.example.toml",
    "signer/boards/",
    "signer/images/",
    "repo-server/systemd/",
];

/// Of `cargo xtask package`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build the packages once more, in another folder, time zone and language, and compare.
    #[arg(long)]
    reproduce: bool,
    /// For another processor, into target/packages-PROCESSOR; needs what `cargo xtask dist --target` needs.
    #[arg(long, value_name = "PROCESSOR")]
    target: Option<Processor>,
    /// Who is asked about these packages.
    #[arg(long, value_name = "NAME <MAIL>", default_value = MAINTAINER)]
    maintainer: String,
}

/// Of packages that nobody has published; the domain exists nowhere.
pub(crate) const MAINTAINER: &str = "Racklet Update <packages@racklet.invalid>";

/// `cargo xtask package`
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::packaging()?;
    let place = options.target.map_or_else(|| Ok(Place::here()), Place::cross)?;
    let inputs = Inputs::build(place)?;
    let commit = Commit::of_head()?;
    let stage = Stage { inputs: &inputs, commit: &commit, maintainer: &options.maintainer };
    let packages = stage.packages()?;
    for package in &packages {
        let size = show::bytes(fs::metadata(package)?.len());
        println!("{size:>10}  {}", package.display());
    }
    let folder = inputs.folder();
    print!("{}", sums(&folder, &packages)?);
    if options.reproduce {
        same_again(&stage, &packages)?;
        println!("built again elsewhere: the same bytes");
    }
    Ok(())
}

/// Writes `SHA256SUMS` of files in a folder, as `sha256sum --check` reads it; its text.
pub(crate) fn sums(folder: &Path, files: &[PathBuf]) -> Result<String> {
    let mut text = String::new();
    for file in files {
        let name = file.file_name().context("a file has a name")?;
        text += &format!("{}  {}\n", dist::sha256(file)?, name.display());
    }
    fs::write(folder.join("SHA256SUMS"), &text).context("write SHA256SUMS")?;
    Ok(text)
}

/// Everything that is built before debhelper begins.
pub(crate) struct Inputs {
    /// Programs, their SPDX documents and licences.
    pub(crate) shipped: PathBuf,
    /// Manual pages and completions.
    manual: PathBuf,
    /// Where the programs were built, and for which processor.
    pub(crate) place: Place,
}

impl Inputs {
    /// Builds the programs as they are shipped, and their pages.
    pub(crate) fn build(place: Place) -> Result<Self> {
        let shipped = dist::build_for(&place)?;
        let manual = paths::target().join("manual");
        if manual.exists() {
            fs::remove_dir_all(&manual).with_context(|| format!("remove {}", manual.display()))?;
        }
        let date = Commit::of_head()?.date;
        let cargo = Cmd::cargo().args(["run", "--locked", "--bin", "racklet-manual", "--"]);
        cargo.arg(&manual).args(["--date", &date]).watch()?;
        Ok(Self { shipped, manual, place })
    }

    /// Where packages of it go.
    fn folder(&self) -> PathBuf {
        let processor = self.place.compilers.as_ref().map(|there| there.processor.name());
        let name = processor.map_or_else(String::new, |name| format!("-{name}"));
        paths::target().join(format!("packages{name}"))
    }
}

/// Builds the packages in another place and compares their bytes.
fn same_again(stage: &Stage<'_>, packages: &[PathBuf]) -> Result<()> {
    let temp = tempfile::tempdir()?;
    let elsewhere = temp.path().join("another folder");
    let again = stage.build_elsewhere(&elsewhere, &stage.commit.version())?;
    ensure!(again.len() == packages.len(), "another number of packages: {again:?}");
    for (one, other) in packages.iter().zip(&again) {
        ensure!(fs::read(one)? == fs::read(other)?, "two builds of {} differ", one.display());
    }
    Ok(())
}
