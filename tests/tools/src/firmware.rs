//! Two real firmware blobs: two builds of SeaBIOS from Debian's package, unpacked, not installed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::cmd::Cmd;
use crate::{apt, cache, paths};

/// Files of the package `seabios` that stand for firmware 1 and 2.
const FILES: [&str; 2] = ["usr/share/seabios/bios.bin", "usr/share/seabios/bios-256k.bin"];

/// Finds the blobs in the cache or fetches the package. Without a network two slices of this
/// program take their place, and a line says so.
pub fn blobs() -> Result<[PathBuf; 2]> {
    match package("seabios") {
        Ok(dir) => {
            let files = FILES.map(|file| dir.join(file));
            let there = files.iter().all(|file| file.is_file());
            ensure!(there, "the package seabios has other files now");
            Ok(files)
        }
        Err(error) => {
            eprintln!("NOTE: no firmware package ({error:#}); using slices of this program");
            slices(&paths::target())
        }
    }
}

/// A package of Debian, unpacked into the cache; nothing is installed. Its folder.
pub fn package(name: &str) -> Result<PathBuf> {
    cache::entry(&package_entry(name), |dir| unpack(name, dir))
}

/// The name of [`package`] in the cache.
pub(crate) fn package_entry(name: &str) -> String {
    format!("package-{name}")
}

/// Unpacks a package of Debian into a folder; nothing is installed.
fn unpack(package: &str, dir: &std::path::Path) -> Result<()> {
    // Root would drop to a user that may not write here.
    let sandbox = ["-o", "APT::Sandbox::User=root"];
    let download =
        || Cmd::new("apt-get").args(sandbox).args(["-q", "download", package]).current_dir(dir);
    if download().finish()?.code != 0 {
        // A new machine has no package lists yet, an old one has outdated ones.
        if paths::is_root() {
            apt::update()?;
        }
        download().run()?;
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            Cmd::new("dpkg").arg("-x").arg(&path).arg(dir).run()?;
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn slices(dir: &std::path::Path) -> Result<[PathBuf; 2]> {
    let program = fs::read(std::env::current_exe()?)?;
    let files = [dir.join("slice-1.bin"), dir.join("slice-2.bin")];
    for (file, piece) in files.iter().zip(program.chunks(256 << 10)) {
        fs::write(file, piece)?;
    }
    Ok(files)
}
