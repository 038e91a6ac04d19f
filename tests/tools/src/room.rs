//! Room on the disk for what a build and the tests write, asked before anything is built.
//!
//! A disk that is full in the middle of a build says so after ten minutes, by a message of the linker.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{paths, show};

/// What a command writes below the target directory, in bytes.
pub struct Need {
    /// From a fresh clone.
    clean: u64,
    /// When the programs are built already.
    built: u64,
}

/// `cargo xtask test` and `prove`: programs and tests of two builds, the disks of machines.
pub const TESTS: Need = Need { clean: 16 << 30, built: 6 << 30 };
/// `cargo xtask demo`: the programs, three Debian systems, a repository with them, two disks.
pub const DEMO: Need = Need { clean: 10 << 30, built: 5 << 30 };

/// Checks that the disk of the target directory has room for it.
pub fn check(need: &Need) -> Result<()> {
    let target = paths::target();
    let there = target.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let needed = if target.join("debug/deps").exists() { need.built } else { need.clean };
    enough(&target, free(there)?, needed)
}

/// Bytes that are free for a folder.
pub fn free(folder: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(folder)
        .with_context(|| format!("cannot ask for the free space of {}", folder.display()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether `free` bytes are enough, with a clear error where not.
fn enough(target: &Path, free: u64, needed: u64) -> Result<()> {
    ensure!(
        free >= needed,
        "{} are free for {}, and this needs {}: make room, or set CARGO_TARGET_DIR to a folder on a larger disk",
        show::bytes(free),
        target.display(),
        show::bytes(needed),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_told_before_anything_is_built() {
        let target = Path::new("/somewhere/target");
        let error = enough(target, 7 << 30, 16 << 30).unwrap_err().to_string();
        for word in ["7.0 GiB", "16.0 GiB", "/somewhere/target", "CARGO_TARGET_DIR"] {
            assert!(error.contains(word), "{error}");
        }
        assert!(enough(target, 6 << 30, 6 << 30).is_ok());
    }

    #[test]
    fn what_is_built_needs_no_room_again() {
        assert!([TESTS, DEMO].iter().all(|need| need.built < need.clean));
    }
}
