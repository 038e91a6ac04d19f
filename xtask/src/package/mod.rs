//! `cargo xtask package`: Debian packages of what `cargo xtask dist` builds.
//!
//! ```text
//! dist ──────────── programs, SPDX, licences ─┐
//! racklet-manual ── manual pages, completions ├─► a folder with packaging/debian ─► debhelper ─► *.deb
//! the repository ── units, examples, docs ────┘
//! ```
//!
//! `packaging/debian` says which file goes where, in debhelper's own words; [`contents`] compares that with what the
//! repository has. The same sources give the same packages: all times are that of the commit.

mod changelog;
#[cfg(test)]
mod contents;
pub(crate) mod judge;
mod stage;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::{paths, setup, show};

use crate::dist;
use changelog::Commit;
use stage::Stage;

/// The packages, as `packaging/debian/control` lists them.
pub(crate) const PACKAGES: [&str; 4] =
    ["racklet-update-agent", "racklet-signer", "racklet-repo-server", "racklet-update-doc"];

/// Of `cargo xtask package`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build the packages once more, in another folder, time zone and language, and compare.
    #[arg(long)]
    reproduce: bool,
    /// Who is asked about these packages.
    #[arg(long, value_name = "NAME <MAIL>", default_value = MAINTAINER)]
    maintainer: String,
}

/// Of packages that nobody has published; the domain exists nowhere.
pub(crate) const MAINTAINER: &str = "Racklet Update <packages@racklet.invalid>";

/// `cargo xtask package`
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::packaging()?;
    let inputs = Inputs::build()?;
    let commit = Commit::of_head()?;
    let stage = Stage { inputs: &inputs, commit: &commit, maintainer: &options.maintainer };
    let folder = paths::target().join("packages");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    let packages = stage.build(&folder, &commit.version())?;
    for package in &packages {
        let size = show::bytes(fs::metadata(package)?.len());
        println!("{size:>10}  {}", package.display());
    }
    let sums =
        Cmd::new("sha256sum").args(packages.iter().filter_map(|package| package.file_name()));
    let sums = sums.current_dir(&folder).read()? + "\n";
    print!("{sums}");
    fs::write(folder.join("SHA256SUMS"), sums)?;
    if options.reproduce {
        same_again(&stage, &packages)?;
        println!("built again elsewhere: the same bytes");
    }
    Ok(())
}

/// Everything that is built before debhelper begins.
pub(crate) struct Inputs {
    /// Programs, their SPDX documents and licences.
    shipped: PathBuf,
    /// Manual pages and completions.
    manual: PathBuf,
}

impl Inputs {
    /// Builds the programs as they are shipped, and their pages.
    pub(crate) fn build() -> Result<Self> {
        let shipped = dist::build()?;
        let manual = paths::target().join("manual");
        if manual.exists() {
            fs::remove_dir_all(&manual).with_context(|| format!("remove {}", manual.display()))?;
        }
        let date = Commit::of_head()?.date;
        let cargo = Cmd::cargo().args(["run", "--locked", "--bin", "racklet-manual", "--"]);
        cargo.arg(&manual).args(["--date", &date]).watch()?;
        Ok(Self { shipped, manual })
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
