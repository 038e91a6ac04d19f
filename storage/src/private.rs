//! Files that nobody else may change: configuration, trust root, state. What nobody else may even
//! read is [`secret`](crate::secret)'s.
//!
//! A file is as private as the weakest directory above it: every parent has to belong to root or
//! to the own user and to be writable by nobody else, except where the sticky bit keeps others
//! from replacing what is not theirs (`/tmp`).

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::fstat;
use rustix::process::geteuid;

use crate::directory::Directory;
use crate::error::{FileError, StoreError};
use crate::open::{open_regular, read_at_most};

/// Reads a file that only root and the own user can change: at most `max` bytes.
pub fn read_trusted(path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
    check_parents(path)?;
    let file = open_regular(path).map_err(StoreError::Read)?;
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
    let parent = Directory::open(parent.unwrap_or(Path::new("."))).map_err(StoreError::Write)?;
    parent.sync().map_err(StoreError::Write)
}

/// Refuses an open file or directory that others own or can write to.
pub(crate) fn check_owned(file: impl AsFd, path: &Path) -> Result<(), StoreError> {
    let stat = fstat(file).map_err(|e| StoreError::Read(FileError::io("stat", path, e)))?;
    check_owner(path, stat.st_uid)?;
    if stat.st_mode & 0o022 != 0 {
        return Err(insecure(path, "can be changed by others", "chmod go-w"));
    }
    Ok(())
}

/// Refuses a path that somebody else could make point elsewhere.
pub(crate) fn check_parents(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let parent = parent
        .canonicalize()
        .map_err(|error| StoreError::Read(FileError::io("open", parent, error)))?;
    for above in parent.ancestors() {
        let metadata = above
            .symlink_metadata()
            .map_err(|error| StoreError::Read(FileError::io("stat", above, error)))?;
        check_owner(above, metadata.uid())?;
        let (writable, sticky) = (metadata.mode() & 0o022 != 0, metadata.mode() & 0o1000 != 0);
        if writable && !sticky {
            return Err(insecure(above, "can be changed by others", "chmod go-w"));
        }
    }
    Ok(())
}

fn check_owner(path: &Path, owner: u32) -> Result<(), StoreError> {
    if owner == 0 || owner == geteuid().as_raw() {
        Ok(())
    } else {
        Err(insecure(path, &format!("belongs to user {owner}"), "chown root"))
    }
}

/// With the command that mends it, but for the path.
fn insecure(path: &Path, why: &str, command: &str) -> StoreError {
    let remedy = format!("{command} {}", path.display());
    StoreError::InsecurePerms { path: path.to_owned(), why: why.to_owned(), remedy }
}
