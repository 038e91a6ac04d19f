//! Locks that other programs take, too: flock(2) on a file or device that both know.
//!
//! | lock | taken by | around |
//! |---|---|---|
//! | the whole disk | systemd and its tools, `sfdisk` and others with `--lock` | changes of its partition table |
//! | `/var/lock/fw_printenv.lock` | `fw_printenv` and `fw_setenv` | each look at U-Boot's environment |
//!
//! The first is systemd's convention ("Locking Block Device Access"). Both end with the process.

use std::fs::{self as std_fs, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::FileError;

/// 10 s: others hold these locks for milliseconds, udev while it looks at a new table.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts: flock(2) has no time limit of its own.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum SharedLockError {
    /// Somebody has held it all the time.
    #[error(
        "{} has been locked for {} s{}",
        path.display(),
        PATIENCE.as_secs(),
        holder.as_ref().map_or(String::new(), |holder| format!(" by {holder}"))
    )]
    Held {
        /// What is locked.
        path: PathBuf,
        /// The process, where the kernel tells.
        holder: Option<String>,
    },
    /// It cannot be opened or locked.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A lock, until it is dropped.
#[derive(Debug)]
pub struct SharedLock(File);

impl Drop for SharedLock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that is just being started.
        let _ = fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl SharedLock {
    /// Locks a disk or the plain file that stands for one. Waits at most ten seconds.
    pub fn of_disk(path: &Path) -> Result<Self, SharedLockError> {
        let path = crate::block::resolve_dev_link(path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::open(&path, flags, Mode::empty());
        Self::wait(File::from(fd.map_err(|errno| FileError::io("lock", &path, errno))?), &path)
    }

    /// Locks a file that exists for nothing else, making it where it is missing. Waits likewise.
    ///
    /// `None` where it neither exists nor can be made: nobody else can have it either.
    pub fn of_lock_file(path: &Path) -> Result<Option<Self>, SharedLockError> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Reading is enough for a lock, also where the directory is read-only here. The kernel refuses
        // O_CREAT for a file of somebody else in a directory for all (fs.protected_regular).
        let fd = match fs::open(path, flags | OFlags::RDONLY, Mode::empty()) {
            Err(Errno::NOENT) => {
                let made = flags | OFlags::RDONLY | OFlags::CREATE;
                match fs::open(path, made, Mode::from_raw_mode(0o666)) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::ROFS | Errno::ACCESS) => {
                        return Ok(None);
                    }
                    made => made,
                }
            }
            found => found,
        };
        let file = File::from(fd.map_err(|errno| FileError::io("lock", path, errno))?);
        Self::wait(file, path).map(Some)
    }

    fn wait(file: File, path: &Path) -> Result<Self, SharedLockError> {
        let began = Instant::now();
        loop {
            match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(SharedLock(file)),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if began.elapsed() < PATIENCE => sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => {
                    return Err(SharedLockError::Held {
                        path: path.to_owned(),
                        holder: holder(&file),
                    });
                }
                Err(errno) => return Err(FileError::io("lock", path, errno).into()),
            }
        }
    }
}

/// `process 1234 (fw_setenv)`, by `/proc/locks`.
fn holder(file: &File) -> Option<String> {
    let own = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(own.dev()), rustix::fs::minor(own.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", own.ino());
    let locks = std_fs::read_to_string("/proc/locks").ok()?;
    let pid = holder_in(&locks, &place)?;
    let name = std_fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(match name.trim() {
        "" => format!("process {pid}"),
        name => format!("process {pid} ({name})"),
    })
}

/// The process that holds a place by flock(2); lines with `->` wait for it.
fn holder_in(locks: &str, place: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, found, ..] if found == place => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_the_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:01:12 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 08:01:13 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 08:01:13 0 EOF\n";
        assert_eq!(holder_in(locks, "08:01:13"), Some(8));
        assert_eq!(holder_in(locks, "08:01:12"), None);
        assert_eq!(holder_in("", "08:01:13"), None);
    }

    #[test]
    fn a_lock_file_is_made_once_and_had_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("it.lock");
        let first = SharedLock::of_lock_file(&path).unwrap().unwrap();
        let again = File::open(&path).unwrap();
        let taken = || fs::flock(&again, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(taken(), Err(Errno::WOULDBLOCK));
        let own = format!("process {}", std::process::id());
        let said = holder(&again);
        assert!(said.is_none_or(|said| said.starts_with(&own)));
        drop(first);
        assert_eq!(taken(), Ok(()));
        assert!(SharedLock::of_lock_file(&dir.path().join("none/it.lock")).unwrap().is_none());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(SharedLock::of_lock_file(&link).is_err());
    }
}
