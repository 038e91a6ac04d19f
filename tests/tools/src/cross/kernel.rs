//! A kernel for firmware of ARMv8: Debian's sources, with `kexec_file_load`, which Debian's own kernels for ARMv8
//! leave out, and with pages of 64 KiB, the largest there are. Every driver that a machine of QEMU needs is built in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{SUITE, TREE_SH, namespaced, tree};
use crate::{cache, paths};

const KERNEL_SH: &str = include_str!("kernel.sh");
/// What it has beyond the smallest kernel.
const CONFIG: &str = include_str!("kernel.config");
/// Sources and what builds them.
const PACKAGES: [&str; 9] = [
    "linux-source-6.12",
    "make",
    "gcc",
    "libc6-dev",
    "gcc-aarch64-linux-gnu",
    "flex",
    "bison",
    "bc",
    "xz-utils",
];

/// A folder with `boot/vmlinuz-RELEASE` and `lib/modules/RELEASE`, from the cache or made: as root, in ten minutes.
///
/// # Errors
///
/// Not root, no package, or a kernel that cannot be built with this configuration.
pub fn with_kexec() -> Result<PathBuf> {
    let key = cache::digest(&[SUITE, &PACKAGES.join(" "), TREE_SH, KERNEL_SH, CONFIG]);
    cache::entry(&format!("kernel-aarch64-{key}"), |work| {
        ensure!(
            paths::is_root(),
            "a Debian to build a kernel in is entered with chroot: run it with sudo"
        );
        eprintln!("building a kernel for ARMv8 that has kexec_file_load (ten minutes, once) …");
        make(work)
    })
}

fn make(work: &Path) -> Result<()> {
    let packages = PACKAGES.map(str::to_owned);
    tree(work, super::Processor::Aarch64, &packages)?;
    fs::write(work.join("kernel.config"), CONFIG).context("write kernel.config")?;
    let seen = work.display().to_string();
    let log = work.join("kernel.log");
    let done = namespaced(work)
        .arg("run")
        .arg(work.join("tree"))
        .arg(work)
        .env("SEEN", seen)
        .args(["env", "-i", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"])
        .args(["sh", "-c", KERNEL_SH])
        .finish()?;
    fs::write(&log, done.output()).with_context(|| format!("write {}", log.display()))?;
    ensure!(done.code == 0, "building it ended with {}: see {}", done.code, log.display());
    // The mount of `work` below the tree ended with its namespace.
    fs::remove_dir_all(work.join("tree")).context("remove the Debian that built it")
}
