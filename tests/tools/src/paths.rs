//! Where things are in the work tree.

use std::path::PathBuf;

/// The workspace root: two folders above this crate's.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(PathBuf::from).unwrap_or(here)
}

/// Cargo's target directory, honouring `CARGO_TARGET_DIR`.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Whether this process may mount, chroot and install packages.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
