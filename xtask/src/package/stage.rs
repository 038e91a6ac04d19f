//! The folder in which debhelper works, and its call.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::paths;

use super::changelog::Commit;
use super::{Inputs, PACKAGES};
use crate::tracked::tracked_files;

/// Where `debian/` lies in the repository.
pub(super) const DEBIAN: &str = "packaging/debian/";

/// Folders and files of the repository that packages take files from.
pub(super) const SOURCES: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/",
    "repo-server/",
    "signer/",
    "update-agent/",
];

/// What becomes packages.
pub(crate) struct Stage<'a> {
    pub(crate) inputs: &'a Inputs,
    pub(crate) commit: &'a Commit,
    pub(crate) maintainer: &'a str,
}

impl Stage<'_> {
    /// Builds packages of this version in `folder`, which must not exist; their files, in the order of [`PACKAGES`].
    pub(crate) fn build(&self, folder: &Path, version: &str) -> Result<Vec<PathBuf>> {
        self.build_with(folder, version, |dpkg| dpkg)
    }

    /// Builds packages of this commit's version where people look for them.
    pub(crate) fn packages(&self) -> Result<Vec<PathBuf>> {
        let folder = self.inputs.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        self.build(&folder, &self.commit.version())
    }

    /// The same, with what must not matter changed.
    pub(crate) fn build_elsewhere(&self, folder: &Path, version: &str) -> Result<Vec<PathBuf>> {
        self.build_with(folder, version, |dpkg| {
            let dpkg = dpkg.env("TZ", "Pacific/Kiritimati").env("LC_ALL", "C.UTF-8");
            dpkg.env("HOME", folder).env("DEB_BUILD_OPTIONS", "parallel=1")
        })
    }

    fn build_with(
        &self,
        folder: &Path,
        version: &str,
        more: impl FnOnce(Cmd) -> Cmd,
    ) -> Result<Vec<PathBuf>> {
        let work = folder.join("work").join("racklet-update");
        self.fill(&work, version)?;
        // -d: what would be needed to compile; -nc: the folder is new.
        let dpkg = match &self.inputs.place.compilers {
            None => {
                let dpkg = Cmd::new("dpkg-buildpackage").current_dir(&work);
                more(dpkg.env("SOURCE_DATE_EPOCH", &self.commit.time))
            }
            // Where the processor's C library is a package, which knows its version.
            Some(there) => {
                let time = ("SOURCE_DATE_EPOCH", self.commit.time.clone().into());
                let dpkg = there.command(&work, &[folder], &[time], "dpkg-buildpackage");
                dpkg.args(["--host-arch", there.processor.debian()])
            }
        };
        let done = dpkg.args(["-b", "-us", "-uc", "-d", "-nc"]).finish()?;
        fs::write(folder.join("build.log"), done.output())?;
        done.expect(0)?;
        let built = collect(&folder.join("work"), folder)?;
        fs::remove_dir_all(folder.join("work"))?;
        Ok(built)
    }

    /// Copies everything there, with `debian/` complete.
    fn fill(&self, work: &Path, version: &str) -> Result<()> {
        for file in tracked_files()? {
            let from = paths::root().join(&file);
            // Removed from the work tree, and not yet from the repository.
            if !from.exists() {
                continue;
            }
            if let Some(inside) = file.strip_prefix(DEBIAN) {
                copy(&from, &work.join("debian").join(inside))?;
            } else if SOURCES.iter().any(|source| file.starts_with(source)) {
                copy(&from, &work.join(&file))?;
            }
        }
        for (from, to) in [(&self.inputs.shipped, "shipped"), (&self.inputs.manual, "")] {
            Cmd::new("cp").args(["-r", "-T"]).arg(from).arg(work.join(to)).run()?;
        }
        let control = work.join("debian/control");
        let text = fs::read_to_string(&control).context("read debian/control")?;
        fs::write(&control, text.replace("@MAINTAINER@", self.maintainer))?;
        let changelog = self.commit.changelog(version, self.maintainer);
        fs::write(work.join("debian/changelog"), changelog).context("write debian/changelog")?;
        // dpkg-deb sets back what is newer, and keeps what is older, such as the time of a checkout.
        let time = format!("--date=@{}", self.commit.time);
        Cmd::new("find").arg(work).args(["-exec", "touch", &time, "{}", "+"]).run().map(drop)
    }
}

/// With modes that do not depend on the caller's umask.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    let executable = fs::metadata(from)?.permissions().mode() & 0o100 != 0;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Moves the packages out of the work folder.
fn collect(work: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(work)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".deb") {
            fs::rename(entry.path(), folder.join(&name))?;
            found.push(name);
        }
    }
    let place =
        |name: &String| PACKAGES.iter().position(|one| name.starts_with(&format!("{one}_")));
    found.sort_by_key(place);
    ensure!(
        found.len() == PACKAGES.len() && found.iter().all(|name| place(name).is_some()),
        "debhelper built {found:?}, not {PACKAGES:?}"
    );
    Ok(found.iter().map(|name| folder.join(name)).collect())
}
