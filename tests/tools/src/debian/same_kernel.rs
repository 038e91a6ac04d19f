//! The other successor of v1: the same security updates, but the kernel stays.
//!
//! A new kernel is most of what changes in `v2`; without one an update is mostly reuse. Benchmarks
//! want both. Made from v1's own file system, on demand, beside the images of the same recipe.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::image::release_files;
use super::{HEALTH_SH, Images, SUITE, TREE_SH, sources};
use crate::cache;
use crate::cmd::Cmd;

/// Runs `tree.sh upgrade` with every kernel package held, then `tree.sh image`.
const SCRIPT: &str = r#"
set -eu
work=$1 v1=$2 out=$3
mkdir "$work/v1"
mount -o ro,loop,noload "$v1" "$work/v1"
cp -a "$work/v1" "$work/tree"
umount "$work/v1"
# Held are installed packages: names that others only mention cannot be.
installed() { chroot "$work/tree" dpkg-query -Wf "\${db:Status-Abbrev} \${Package}\n" "linux-image-*" | sed -n "s/^[ih]i *//p"; }
hold() { chroot "$work/tree" apt-mark "$1" $(installed); }
hold hold
sh "$work/tree.sh" upgrade "$work/tree" <"$work/sources.list"
hold unhold
rm -rf "$work/tree/lost+found"
cp -a "$work/files/." "$work/tree/"
"#;

/// What `image.rs` gives `mke2fs`, so that the two pairs differ in packages alone.
const UUID: &str = "7261636b-6c65-4074-9000-6f732d736c6f";
const EPOCH: &str = "1735689600";

/// Finds or builds the image; needs root and the machine's apt sources.
pub(super) fn image(images: &Images) -> Result<PathBuf> {
    let dir = cache::entry(&format!("{}-same-kernel", images.name()), |work| {
        eprintln!("building v2 without a new kernel (a minute or two, once) …");
        let file = build(work, &images.path("v1"))?;
        fs::remove_dir_all(work.join("tree"))?;
        Ok(fs::rename(file, work.join(NAME))?)
    })?;
    Ok(dir.join(NAME))
}

/// The image in its folder.
const NAME: &str = "v2-same-kernel.ext4";

fn build(work: &Path, v1: &Path) -> Result<PathBuf> {
    let sources = sources::of_host(SUITE)?;
    fs::write(work.join("tree.sh"), TREE_SH)?;
    fs::write(work.join("sources.list"), sources.list(SUITE))?;
    release_files(&work.join("files"), HEALTH_SH, "1.0.1")?;
    let file = work.join("image");
    namespaced()
        .arg("-c")
        .arg(SCRIPT)
        .arg("same-kernel")
        .arg(work)
        .arg(v1)
        .arg(&file)
        .env("APT_OPTIONS", &sources.options)
        .run()?;
    let seed = format!("hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0");
    namespaced()
        .arg(work.join("tree.sh"))
        .arg("image")
        .arg(work.join("tree"))
        .arg(EPOCH)
        .arg(&file)
        .args(["-L", "racklet-os", "-U", UUID, "-m", "0", "-E", &seed])
        .run()?;
    Ok(file)
}

/// `sh` in namespaces of its own: no mount and no daemon outlives it.
fn namespaced() -> Cmd {
    Cmd::new("unshare").args(["--mount", "--pid", "--fork", "--kill-child", "sh"])
}
