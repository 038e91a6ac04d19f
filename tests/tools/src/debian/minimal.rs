//! The smallest Debian that systemd boots: for guests whose units are the subject, not their size.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{SUITE, TREE_SH, image, sources};
use crate::cmd::{Cmd, which};
use crate::{cache, paths};

/// What every Debian server has of systemd, and a shell's tools in one file.
const PACKAGES: &str = "systemd-sysv,udev,dbus,busybox-static";

/// Nothing reads it in a guest; two thirds of the tree.
const LEFT_OUT: &str = "rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/i18n \
     usr/share/info usr/share/lintian usr/share/bash-completion usr/share/zoneinfo usr/lib/udev/hwdb.* \
     usr/lib/x86_64-linux-gnu/gconv usr/lib/x86_64-linux-gnu/perl-base usr/bin/perl* usr/lib/apt \
     usr/bin/apt* usr/lib/x86_64-linux-gnu/libapt* var/cache/* var/lib/apt var/lib/dpkg var/log/*";

/// The root folder of one, cached; it must not be changed.
pub fn tree() -> Result<PathBuf> {
    let name = format!("debian-minimal-{}", cache::digest(&[PACKAGES, LEFT_OUT, TREE_SH]));
    let dir = cache::entry(&name, |work| {
        if !paths::is_root() {
            bail!("debootstrap needs root: run it with sudo");
        }
        if which("debootstrap").is_none() {
            bail!("debootstrap is not installed: run `cargo xtask setup`");
        }
        eprintln!("building a small Debian {SUITE} (a minute, once) …");
        build(work)
    })?;
    Ok(dir.join("tree"))
}

fn build(work: &Path) -> Result<()> {
    let sources = sources::of_host(SUITE)?;
    fs::write(work.join("tree.sh"), TREE_SH)?;
    image::script(work, &sources, "new", |cmd| cmd.args([SUITE, &sources.archive, PACKAGES]))?;
    Cmd::new("sh")
        .args(["-ec", &format!("cd \"$1\"; {LEFT_OUT}"), "sh"])
        .arg(work.join("tree"))
        .run()?;
    Ok(())
}
