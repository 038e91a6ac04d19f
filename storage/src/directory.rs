//! Directories held open: every file below one is opened relative to its descriptor, never through
//! a symbolic link, and only if it is a regular file.
//!
//! A path is walked once, when the directory is opened. Renaming, mounting over or replacing any
//! part of it afterwards moves nothing under our hands.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::FileError;
use crate::folder::{self, NewFile, Steps};
use crate::open::open_regular_at;

/// A directory held open. Names inside are single path components, given by callers, never by
/// strangers.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

/// Tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Which file: its file system and its number there.
    pub file: (u64, u64),
    /// Its length in bytes.
    pub len: u64,
    /// When its bytes were last written: Unix seconds and nanoseconds.
    pub modified: (i64, i64),
    /// When anything about it was last changed.
    pub changed: (i64, i64),
}

impl FileStamp {
    /// When its bytes were last written.
    pub fn modified(&self) -> SystemTime {
        let (seconds, nanos) = self.modified;
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let time =
            if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        time.unwrap_or(UNIX_EPOCH) + Duration::from_nanos(nanos.unsigned_abs())
    }
}

/// An exclusive lock, given back when dropped or when the process dies.
#[derive(Debug)]
pub struct Locked(OwnedFd);

impl folder::Locked for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        // A child process that is just being started may still have a copy of the descriptor.
        let _ = fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Directory {
    /// Opens a directory; a final symbolic link is refused.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::open_at(fs::CWD, path.as_os_str(), path)
    }

    /// Makes a directory (not its parents) durably when there is nothing of that name, and opens it.
    pub fn open_or_create(path: &Path, mode: Mode) -> Result<Self, FileError> {
        match fs::mkdir(path, mode) {
            Ok(()) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                // The parent may be reached through a link: it is the operator's own path.
                File::open(parent)
                    .and_then(|parent| parent.sync_all())
                    .map_err(|error| FileError::io("sync", parent, error))?;
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(FileError::io("create directory", path, errno)),
        }
        Self::open(path)
    }

    fn open_at(at: impl std::os::fd::AsFd, name: &OsStr, shown: &Path) -> Result<Self, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&at, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Directory { fd, path: shown.to_owned() }),
            // With O_DIRECTORY a symbolic link, too, is "not a directory".
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
                let link = stat.is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_symlink());
                let error = if link { FileError::Symlink } else { FileError::NotDirectory };
                Err(error(shown.to_owned()))
            }
            Err(errno) => Err(FileError::io("open", shown, errno)),
        }
    }

    /// The path it was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry, for messages.
    pub fn shown(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The descriptor.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// A directory inside, if there is one.
    pub fn subdirectory(&self, name: &str) -> Result<Option<Directory>, FileError> {
        found(Self::open_at(&self.fd, OsStr::new(name), &self.shown(name)))
    }

    /// A directory inside, made durable when it was not there.
    pub fn subdirectory_or_create(&self, name: &str, mode: Mode) -> Result<Directory, FileError> {
        if let Some(there) = self.subdirectory(name)? {
            return Ok(there);
        }
        match fs::mkdirat(&self.fd, name, mode) {
            Ok(()) => self.sync()?,
            // Somebody else was faster.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(FileError::io("create directory", &self.shown(name), errno)),
        }
        Self::open_at(&self.fd, OsStr::new(name), &self.shown(name))
    }

    /// A regular file inside, opened for reading, if there is one.
    pub fn open_file(&self, name: &str) -> Result<Option<File>, FileError> {
        let file = open_regular_at(&self.fd, OsStr::new(name), &self.shown(name), OFlags::RDONLY);
        found(file)
    }

    /// A regular file inside, opened for reading and writing, if there is one.
    pub fn open_file_to_write(&self, name: &str) -> Result<Option<File>, FileError> {
        let file = open_regular_at(&self.fd, OsStr::new(name), &self.shown(name), OFlags::RDWR);
        found(file)
    }

    /// A new file inside, opened for reading and writing; refused when there is anything of that
    /// name. Durable after [`Directory::sync`].
    pub fn create_file(&self, name: &str, mode: Mode) -> Result<File, FileError> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.fd, name, flags, mode)
            .map(File::from)
            .map_err(|errno| FileError::io("create", &self.shown(name), errno))
    }

    /// A new file under a name that no other process uses, locked for as long as it is open.
    pub fn create_temporary(&self, mode: Mode) -> Result<(String, File), FileError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{TEMPORARY}{}-{count}", std::process::id());
            let failed = |errno: Errno| FileError::io("create", &self.shown(&name), errno);
            let fd = match fs::openat(&self.fd, name.as_str(), flags, mode) {
                Ok(fd) => fd,
                // Left behind by an earlier process of this id.
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(failed(errno)),
            };
            // The lock tells `remove_stale` that its owner lives. Between the two calls above
            // and below the file can be taken for a stale one and lose its name.
            match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if fs::fstat(&fd).map_err(failed)?.st_nlink != 0 => {
                    return Ok((name, File::from(fd)));
                }
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// Removes temporary files whose owner is gone.
    pub fn remove_stale(&self) -> Result<(), FileError> {
        for name in self.names()? {
            if !name.starts_with(TEMPORARY) {
                continue;
            }
            let Ok(Some(file)) = self.open_file(&name) else { continue };
            if fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Replaces a file's content by [`folder::replace`].
    pub fn replace(&self, name: &str, bytes: &[u8], mode: Mode) -> Result<(), FileError> {
        folder::replace(&WithMode(self, mode), name, bytes)
    }

    /// Moves a file, replacing what has the new name. Durable after [`Directory::sync`] of `to`.
    pub fn rename(&self, from: &str, to: &Directory, name: &str) -> Result<(), FileError> {
        fs::renameat(&self.fd, from, &to.fd, name)
            .map_err(|errno| FileError::io("rename to", &to.shown(name), errno))?;
        to.sync_moved_on_fat(name)
    }

    /// On FAT a moved file's length and first cluster are written into its new entry only when the
    /// file itself is flushed again: a sync of the directory alone leaves an empty file after a cut
    /// (seen in a machine with an ESP, `cargo xtask vm --cell systemd-boot`).
    fn sync_moved_on_fat(&self, name: &str) -> Result<(), FileError> {
        /// `MSDOS_SUPER_MAGIC`
        const FAT: u64 = 0x4d44;
        let failed = |errno: Errno| FileError::io("sync", &self.shown(name), errno);
        if u64::try_from(fs::fstatfs(&self.fd).map_err(failed)?.f_type) != Ok(FAT) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.fd, name, flags, Mode::empty()).map_err(failed)?;
        fs::fsync(&file).map_err(failed)
    }

    /// Removes a file; whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, FileError> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(FileError::io("remove", &self.shown(name), errno)),
        }
    }

    /// The names inside, sorted; names that are not UTF-8 are left out, none of ours is.
    pub fn names(&self) -> Result<Vec<String>, FileError> {
        let failed = |errno: Errno| FileError::io("list", &self.path, errno);
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if let Some(name) = name.to_str().filter(|name| !matches!(*name, "." | "..")) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes renames, new names and removals inside durable.
    pub fn sync(&self) -> Result<(), FileError> {
        fs::fsync(&self.fd).map_err(|errno| FileError::io("sync", &self.path, errno))
    }

    /// What the file of that name is now; `None` when there is none. A link is not followed.
    #[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
    pub fn stamp(&self, name: &str) -> Result<Option<FileStamp>, FileError> {
        let stat = match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(FileError::io("stat", &self.shown(name), errno)),
        };
        Ok(Some(FileStamp {
            file: (stat.st_dev as u64, stat.st_ino as u64),
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }))
    }

    /// The lock on the directory itself; `None` when somebody has it.
    pub fn try_lock(&self) -> Result<Option<Locked>, FileError> {
        let own = Self::open_at(&self.fd, OsStr::new("."), &self.path)?;
        loop {
            match fs::flock(&own.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Locked(own.fd))),
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(FileError::io("lock", &self.path, errno)),
            }
        }
    }

    /// Waits for the lock on the directory itself.
    pub fn lock(&self) -> Result<Locked, FileError> {
        // A descriptor of its own: the lock belongs to the open file description.
        let own = Self::open_at(&self.fd, OsStr::new("."), &self.path)?;
        loop {
            match fs::flock(&own.fd, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Locked(own.fd)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(FileError::io("lock", &self.path, errno)),
            }
        }
    }
}

/// A directory whose new files get a mode.
struct WithMode<'a>(&'a Directory, Mode);

impl Steps for WithMode<'_> {
    fn shown(&self, name: &str) -> PathBuf {
        self.0.shown(name)
    }

    fn create_temporary(&self) -> Result<(String, Box<dyn NewFile>), FileError> {
        let (name, file) = self.0.create_temporary(self.1)?;
        Ok((name, Box::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        self.0.rename(from, self.0, to)
    }

    fn unlink(&self, name: &str) -> Result<bool, FileError> {
        self.0.remove(name)
    }

    fn sync(&self) -> Result<(), FileError> {
        self.0.sync()
    }
}

impl NewFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// How names of temporary files begin.
const TEMPORARY: &str = ".tmp-";

/// Nothing of that name is an answer, not an error.
fn found<T>(result: Result<T, FileError>) -> Result<Option<T>, FileError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
