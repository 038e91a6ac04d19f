//! The Debian in which packages are installed, upgraded and purged: as debootstrap leaves it, with dpkg and apt.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::{SUITE, TREE_SH, image, sources};
use crate::cmd::{Cmd, which};
use crate::cross::{self, Processor};
use crate::{cache, paths, setup};

/// Beside what every Debian has: what our packages depend on and recommend, so that dpkg alone can install them.
const PACKAGES: &str = "systemd,init-system-helpers,ca-certificates";

/// A Debian without our packages.
pub struct Base {
    /// Its root folder, cached; it must not be changed.
    pub tree: PathBuf,
    /// Its suite.
    pub suite: &'static str,
    /// The archive it came from, as this machine's apt names it.
    pub archive: String,
    /// The proxy to it, if there is one.
    pub proxy: Option<String>,
}

/// Finds it in the cache or makes it; for another processor in ten minutes, because its programs are emulated. Of the
/// suite in which our programs are built: they need its C library or a newer one.
pub fn base(processor: Option<Processor>) -> Result<Base> {
    if let Some(processor) = processor {
        setup::emulation(processor)?;
    }
    let suite = if processor.is_some() { cross::SUITE } else { SUITE };
    let sources = sources::of_host(suite)?;
    let architecture = processor.map_or("", Processor::debian);
    let key = cache::digest(&[suite, architecture, PACKAGES, TREE_SH]);
    let dir = cache::entry(&format!("debian-base-{architecture}{key}"), |work| {
        ensure!(paths::is_root(), "debootstrap needs root: run it with sudo");
        if which("debootstrap").is_none() {
            bail!("debootstrap is not installed: run `cargo xtask setup`");
        }
        eprintln!("building a Debian {suite} for packages (two minutes, once) …");
        fs::write(work.join("tree.sh"), TREE_SH)?;
        image::script(work, &sources, "new", |cmd| {
            cmd.args([suite, &sources.archive, PACKAGES]).env("ARCHITECTURE", architecture)
        })
    })?;
    let proxy = sources.http_proxy().map(str::to_owned);
    Ok(Base { tree: dir.join("tree"), suite, archive: sources.archive, proxy })
}

impl Base {
    /// A copy that may be changed, at `to`, which must not exist.
    pub fn copy(&self, to: &std::path::Path) -> Result<()> {
        let copy = Cmd::new("cp").args(["-a", "--reflink=auto"]).arg(&self.tree).arg(to).run();
        copy.map(drop).with_context(|| format!("copy {}", self.tree.display()))
    }
}
