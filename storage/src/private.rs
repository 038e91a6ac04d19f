//! Files that nobody else may change: configuration and trust roots, read as [`secret`] reads all
//! that decides whom a program believes; and files that nobody else may read either, from their first
//! moment on.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::dir::{Dir as _, Directory, Policy};
use crate::error::{FileError, StoreError};
use crate::owner::check_parents;
use crate::secret::{self, Readers, Rule};

/// Reads a file that everybody may read and only root and the own user can change: at most `max`
/// bytes. The rule of [`secret`] for CA files, too.
pub fn read_trusted(path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
    Ok(secret::read(path, max, Rule::of(Readers::Everybody))?.to_vec())
}

/// Writes a new file of mode 0600, durably; refuses to replace one. At no moment can others read
/// it. A crash leaves no file, or one that is empty, cut off or whole: callers make the secret
/// count only once this has returned.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let failed = |action, error| StoreError::Write(FileError::io(action, path, error));
    check_parents(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed("create", error))?;
    file.write_all(bytes).map_err(|error| failed("write", error))?;
    file.sync_all().map_err(|error| failed("sync", error))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let parent = Directory::open(parent, Policy::Public).map_err(StoreError::Write)?;
    parent.sync().map_err(StoreError::Write)
}
