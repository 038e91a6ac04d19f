//! Whether anybody else could change a file or directory.
//!
//! A file is as private as the weakest directory above it: every parent has to belong to root or
//! to the own user and to be writable by nobody else, except where the sticky bit keeps others
//! from replacing what is not theirs (`/tmp`).

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::fstat;
use rustix::process::geteuid;

use crate::error::FileError;

/// Refuses an open file or directory that others own or can write to.
pub(crate) fn check_owned(file: impl AsFd, path: &Path) -> Result<(), FileError> {
    let stat = fstat(file).map_err(|errno| FileError::io("stat", path, errno))?;
    check_owner(path, stat.st_uid)?;
    if stat.st_mode & 0o022 != 0 {
        return Err(insecure(path, "can be changed by others", "chmod go-w"));
    }
    Ok(())
}

/// Refuses a path that somebody else could make point elsewhere.
pub(crate) fn check_parents(path: &Path) -> Result<(), FileError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let parent = parent.canonicalize().map_err(|error| FileError::io("open", parent, error))?;
    for above in parent.ancestors() {
        let metadata =
            above.symlink_metadata().map_err(|error| FileError::io("stat", above, error))?;
        check_owner(above, metadata.uid())?;
        let (writable, sticky) = (metadata.mode() & 0o022 != 0, metadata.mode() & 0o1000 != 0);
        if writable && !sticky {
            return Err(insecure(above, "can be changed by others", "chmod go-w"));
        }
    }
    Ok(())
}

fn check_owner(path: &Path, owner: u32) -> Result<(), FileError> {
    if owner == 0 || owner == geteuid().as_raw() {
        Ok(())
    } else {
        Err(insecure(path, &format!("belongs to user {owner}"), "chown root"))
    }
}

/// With the command that mends it, but for the path.
fn insecure(path: &Path, why: &str, command: &str) -> FileError {
    let remedy = format!("{command} {}", path.display());
    FileError::Insecure { path: path.to_owned(), why: why.to_owned(), remedy }
}
