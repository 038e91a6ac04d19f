//! Files that nobody else may change: configuration and trust roots. Files that nobody else may
//! read either are read by [`secret`](crate::secret).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::dir::{Dir as _, Directory, Policy};
use crate::error::{FileError, StoreError};
use crate::open::{open_regular, read_at_most};
use crate::owner::{check_owned, check_parents};

/// Reads a file that only root and the own user can change: at most `max` bytes.
pub fn read_trusted(path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
    check_parents(path)?;
    let file = open_regular(path)?;
    check_owned(&file, path)?;
    read_at_most(&file, path, max)
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
