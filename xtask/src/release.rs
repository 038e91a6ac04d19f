//! `cargo xtask release`: this project's own releases, published with its own `signer`.
//!
//! ```text
//! package, for each processor ── agent-deb, signer-deb, server-deb, doc-deb ─┐
//! dist, with what goes with it ─ programs (an archive) ──────────────────────┼─► signer publish ─► repository
//!                              └ SPDX documents ──────────────── attached ───┘
//! ```
//!
//! Whoever has the trust root of that repository gets a file with `signer download` and need not trust where it came
//! from: docs/install.md.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::cross::Processor;
use racklet_tools::programs::{PROGRAMS, Place};
use racklet_tools::{paths, setup, show};

use crate::package::changelog::Commit;
use crate::package::stage::{Stage, copy};
use crate::package::{Inputs, MAINTAINER, PACKAGES, SHIPPED, sums};
use crate::tracked::tracked_files;

/// The product that a release is one of.
pub(crate) const PRODUCT: &str = "racklet-update";

/// The components with a package each, in the order of [`PACKAGES`].
const COMPONENTS: [&str; 4] = ["agent-deb", "signer-deb", "server-deb", "doc-deb"];

/// The component with the programs and what goes with them.
const ARCHIVE: &str = "programs";

/// Of `cargo xtask release`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also for this processor; may be given several times.
    #[arg(long, value_name = "PROCESSOR")]
    target: Vec<Processor>,
    /// Build the files in target/release-files, and publish nothing.
    #[arg(long, conflicts_with = "signer")]
    no_publish: bool,
    /// What `signer publish` is told: --repo, --keys, --channel, …
    #[arg(last = true, value_name = "SIGNER OPTION", required_unless_present = "no_publish")]
    signer: Vec<OsString>,
}

/// `cargo xtask release`
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::packaging()?;
    let mut places = vec![Place::here()];
    for target in &options.target {
        places.push(Place::cross(*target)?);
    }
    let release = Release::build(places, &paths::target().join("release-files"))?;
    for file in &release.files {
        let size = show::bytes(fs::metadata(&file.path)?.len());
        println!("{size:>10}  {:<11} {:<6} {}", file.component, file.hardware, file.path.display());
    }
    if options.no_publish {
        return Ok(());
    }
    release.publish(&options.signer)?.watch()?;
    println!(
        "to get a file of it: signer download --repo REF --root root.json --product {PRODUCT} --component agent-deb \
         --hw {} -o FILE",
        Processor::own().unwrap_or("amd64")
    );
    Ok(())
}

/// One file of a release.
pub(crate) struct Released {
    pub(crate) component: &'static str,
    /// The architecture, as Debian names it, or `all`.
    pub(crate) hardware: &'static str,
    pub(crate) path: PathBuf,
}

/// All files of a release.
pub(crate) struct Release {
    version: String,
    pub(crate) files: Vec<Released>,
    documents: Vec<PathBuf>,
    signer: PathBuf,
}

impl Release {
    /// Builds everything for each place, the first of which is this machine, into an empty folder.
    pub(crate) fn build(places: Vec<Place>, folder: &Path) -> Result<Self> {
        let commit = Commit::of_head()?;
        let version = commit.version();
        ensure!(!version.contains("+dirty"), "tracked files were changed: commit them first");
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let mut release =
            Self { version, files: Vec::new(), documents: Vec::new(), signer: PathBuf::new() };
        for place in places {
            let inputs = Inputs::build(place)?;
            if release.files.is_empty() {
                release.signer = inputs.shipped.join("signer");
            }
            release.add(&inputs, &commit, folder)?;
        }
        let paths: Vec<PathBuf> = release.files.iter().map(|file| file.path.clone()).collect();
        sums(folder, &paths)?;
        Ok(release)
    }

    fn add(&mut self, inputs: &Inputs, commit: &Commit, folder: &Path) -> Result<()> {
        let hardware = match &inputs.place.compilers {
            None => Processor::own().context("no package is built for this machine's processor")?,
            Some(there) => there.processor.debian(),
        };
        let stage = Stage { inputs, commit, maintainer: MAINTAINER };
        for (component, package) in COMPONENTS.into_iter().zip(stage.packages()?) {
            let name = package.file_name().context("a package has a name")?;
            let everywhere = name.to_string_lossy().ends_with("_all.deb");
            if everywhere && self.files.iter().any(|file| file.component == component) {
                continue;
            }
            let path = folder.join(name);
            copy(&package, &path)?;
            let hardware = if everywhere { "all" } else { hardware };
            self.files.push(Released { component, hardware, path });
        }
        let name = format!("{PRODUCT}-{}-{hardware}", self.version);
        let path = folder.join(format!("{name}.tar.gz"));
        archive(&inputs.shipped, commit, &name, &path)?;
        self.files.push(Released { component: ARCHIVE, hardware, path });
        for program in PROGRAMS {
            let path = folder.join(format!("{program}-{hardware}.spdx.json"));
            copy(&inputs.shipped.join(format!("{program}.spdx.json")), &path)?;
            self.documents.push(path);
        }
        Ok(())
    }

    /// Our signer, as it is shipped.
    pub(crate) fn signer(&self) -> Cmd {
        Cmd::new(&self.signer)
    }

    /// The command that publishes it; with `options`, which say where and with which keys.
    pub(crate) fn publish(&self, options: &[OsString]) -> Result<Cmd> {
        ensure!(COMPONENTS.len() == PACKAGES.len(), "each package is a component");
        let mut signer = self.signer().args(["publish", "--product", PRODUCT]);
        signer = signer.args(["--version", &self.version]);
        for file in &self.files {
            let (component, path) = (file.component, file.path.display());
            let component = format!("{component}={path},hw={}", file.hardware);
            signer = signer.args(["--component", &component]);
        }
        for component in COMPONENTS {
            signer = signer.args(["--raw", &format!("{component}=a Debian package")]);
        }
        signer = signer.args(["--raw", &format!("{ARCHIVE}=an archive of programs")]);
        for document in &self.documents {
            signer = signer.arg("--sbom").arg(document);
        }
        Ok(signer.args(options))
    }
}

/// The programs and their documents in `bin`, and beside it what packages put beside them, as the repository has it; all
/// below one folder. The same sources give the same bytes.
fn archive(shipped: &Path, commit: &Commit, name: &str, to: &Path) -> Result<()> {
    let temp = tempfile::tempdir()?;
    let tree = temp.path().join(name);
    fs::create_dir(&tree).with_context(|| format!("make {}", tree.display()))?;
    // Not beside the other files: those of the program `signer` are in a folder of that name.
    Cmd::new("cp").args(["-r", "-T"]).arg(shipped).arg(tree.join("bin")).run()?;
    for file in tracked_files()? {
        if SHIPPED.iter().any(|start| file.starts_with(start)) {
            copy(&paths::root().join(&file), &tree.join(&file))?;
        }
    }
    let time = format!("--mtime=@{}", commit.time);
    let tar = temp.path().join("tar");
    let same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=ustar"];
    Cmd::new("tar")
        .args(same)
        .args([time.as_str(), "--mode=u=rwX,go=rX", "-C"])
        .arg(temp.path())
        .arg("-cf")
        .arg(&tar)
        .arg(name)
        .run()?;
    Cmd::new("gzip").args(["-n", "-9"]).arg(&tar).run()?;
    copy(&temp.path().join("tar.gz"), to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_the_folders_of_their_files_have_places_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        let shipped = temp.path().join("shipped");
        fs::create_dir(&shipped).unwrap();
        for program in PROGRAMS {
            fs::write(shipped.join(program), program).unwrap();
        }
        let commit = Commit::of_head().unwrap();
        let archives = ["one.tar.gz", "two.tar.gz"].map(|name| temp.path().join(name));
        for path in &archives {
            archive(&shipped, &commit, "racklet", path).unwrap();
        }
        let [one, two] = archives;
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        let listed = Cmd::new("tar").arg("-tzf").arg(&one).read().unwrap();
        let files: Vec<&str> = listed.lines().collect();
        for program in PROGRAMS {
            assert!(files.contains(&format!("racklet/bin/{program}").as_str()), "{files:?}");
        }
        for file in [
            "README.md",
            "signer/boards/generic-uefi.toml",
            "update-agent/systemd/update-agent.service",
        ] {
            assert!(files.contains(&format!("racklet/{file}").as_str()), "{files:?}");
        }
    }
}
