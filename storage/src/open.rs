//! Opening files without following links and without waiting, and reading them within a bound.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{FileError, StoreError};

/// Opens a regular file for reading: once, without following a final symbolic link, and without
/// waiting for a writer when the name turns out to be a pipe.
pub fn open_regular(path: &Path) -> Result<File, FileError> {
    open_regular_at(fs::CWD, path.as_os_str(), path, OFlags::RDONLY)
}

/// Opens what somebody names to be read, whoever owns it: a regular file, also through links, or
/// the pipe behind a descriptor that this process inherited (`/dev/stdin`, `<(…)`).
///
/// Never waits to open: a named pipe, a socket or a device is refused.
pub fn open_input(path: &Path) -> Result<File, FileError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let failed = |errno| FileError::io("open", path, errno);
    let fd = match fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        // A socket, or a device without a driver.
        Err(Errno::NXIO | Errno::NODEV) => return Err(FileError::NotRegular(path.to_owned())),
        Err(errno) => return Err(failed(errno)),
    };
    let inherited = path == Path::new("/dev/stdin")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd");
    match FileType::from_raw_mode(fs::fstat(&fd).map_err(failed)?.st_mode) {
        FileType::RegularFile => {}
        // Its writer may take its time.
        FileType::Fifo if inherited => fs::fcntl_setfl(&fd, OFlags::empty()).map_err(failed)?,
        _ => return Err(FileError::NotRegular(path.to_owned())),
    }
    Ok(File::from(fd))
}

pub(crate) fn open_regular_at(
    at: impl std::os::fd::AsFd,
    name: &OsStr,
    shown: &Path,
    access: OFlags,
) -> Result<File, FileError> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = match fs::openat(at, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::LOOP) => return Err(FileError::Symlink(shown.to_owned())),
        // A socket or a device without a driver; a directory opened for writing.
        Err(Errno::NXIO | Errno::NODEV | Errno::ISDIR) => {
            return Err(FileError::NotRegular(shown.to_owned()));
        }
        Err(errno) => return Err(FileError::io("open", shown, errno)),
    };
    let stat = fs::fstat(&fd).map_err(|errno| FileError::io("stat", shown, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NotRegular(shown.to_owned()));
    }
    Ok(File::from(fd))
}

/// All bytes of an open file, of at most `max` bytes.
pub(crate) fn read_at_most(file: &File, path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| StoreError::Read(FileError::io("read", path, error)))?;
    if bytes.len() as u64 > max {
        return Err(StoreError::TooLarge { name: path.display().to_string(), max });
    }
    Ok(bytes)
}
