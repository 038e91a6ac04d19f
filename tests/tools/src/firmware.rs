//! Two real firmware blobs: two builds of SeaBIOS from Debian's package, unpacked, not installed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cmd::Cmd;
use crate::paths;

/// Files of the package `seabios` that stand for firmware 1 and 2.
const FILES: [&str; 2] = ["usr/share/seabios/bios.bin", "usr/share/seabios/bios-256k.bin"];

/// Finds the blobs in the cache or fetches the package. Without a network two slices of this
/// program take their place, and a line says so.
pub fn blobs() -> Result<[PathBuf; 2]> {
    let dir = paths::cache().join("firmware");
    let files = FILES.map(|file| dir.join(file));
    if files.iter().all(|file| file.is_file()) {
        return Ok(files);
    }
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let fetched = unpack("seabios", &dir);
    if let Err(error) = fetched {
        eprintln!("NOTE: no firmware package ({error:#}); using slices of this program");
        return slices(&dir);
    }
    ensure!(files.iter().all(|file| file.is_file()), "the package seabios has other files now");
    Ok(files)
}

/// Unpacks a package of Debian into a folder; nothing is installed.
pub fn unpack(package: &str, dir: &std::path::Path) -> Result<()> {
    // Root would drop to a user that may not write here.
    let sandbox = ["-o", "APT::Sandbox::User=root"];
    let download =
        || Cmd::new("apt-get").args(sandbox).args(["-q", "download", package]).current_dir(dir);
    if download().finish()?.code != 0 {
        // A new machine has no package lists yet, an old one has outdated ones.
        if paths::is_root() {
            Cmd::new("apt-get").args(["-q", "update"]).run()?;
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
