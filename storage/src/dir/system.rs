//! Directories of the system: every file below one is opened relative to its descriptor, never
//! through a symbolic link, and only if it is a regular file.
//!
//! A path is walked once, when the directory is opened. Renaming, mounting over or replacing any
//! part of it afterwards does not change which directory is used.

use std::any::Any;
use std::ffi::OsStr;
use std::fs::{File, FileTimes};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Dir, DirFile, FileStamp, Lock, LockGuard, Policy, TEMPORARY, other_machine};
use crate::error::{FileError, StoreError};
use crate::open::{open_regular_at, read_at_most};
use crate::owner::{check_owned, check_parents};

impl Policy {
    fn dir_mode(self) -> Mode {
        Mode::from_bits_truncate(if self == Policy::Private { 0o700 } else { 0o755 })
    }

    fn file_mode(self) -> Mode {
        Mode::from_bits_truncate(if self == Policy::Private { 0o600 } else { 0o644 })
    }

    fn check(self, opened: impl AsFd, path: &Path) -> Result<(), FileError> {
        if self == Policy::Private { check_owned(opened, path) } else { Ok(()) }
    }
}

/// A directory of the system.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    /// For messages only.
    path: PathBuf,
    policy: Policy,
}

impl Directory {
    /// Opens a directory; a final symbolic link is refused.
    pub(crate) fn open(path: &Path, policy: Policy) -> Result<Self, FileError> {
        if policy == Policy::Private {
            check_parents(path)?;
        }
        Self::open_at(fs::CWD, path.as_os_str(), path, policy)
    }

    /// The same, made durably (not its parents) when there is nothing of that name.
    pub(crate) fn open_or_create(path: &Path, policy: Policy) -> Result<Self, FileError> {
        if policy == Policy::Private {
            check_parents(path)?;
        }
        match fs::mkdir(path, policy.dir_mode()) {
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
        Self::open_at(fs::CWD, path.as_os_str(), path, policy)
    }

    fn open_at(
        at: impl AsFd,
        name: &OsStr,
        shown: &Path,
        policy: Policy,
    ) -> Result<Self, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&at, name, flags, Mode::empty()) {
            Ok(fd) => {
                policy.check(&fd, shown)?;
                Ok(Directory { fd, path: shown.to_owned(), policy })
            }
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

    fn inside(&self, name: &str) -> Result<Directory, FileError> {
        Self::open_at(&self.fd, OsStr::new(name), &self.shown(name), self.policy)
    }

    fn open_regular(&self, name: &str, access: OFlags) -> Result<Option<File>, FileError> {
        found(open_regular_at(&self.fd, OsStr::new(name), &self.shown(name), access))
    }

    /// A file that the policy accepts.
    fn file(&self, name: &str, access: OFlags) -> Result<Option<File>, FileError> {
        let file = self.open_regular(name, access)?;
        if let Some(file) = &file {
            self.policy.check(file, &self.shown(name))?;
        }
        Ok(file)
    }

    fn create(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&self.fd, name, flags, self.policy.file_mode())
    }

    /// A new file under a name that no other process uses, locked for as long as it is open.
    pub(crate) fn temporary_file(&self) -> Result<(String, File), FileError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{TEMPORARY}{}-{count}", std::process::id());
            let failed = |errno: Errno| FileError::io("create", &self.shown(&name), errno);
            let fd = match self.create(&name) {
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

    /// The file that carries the lock: of a private directory the file `lock`, with the holder's
    /// process id; of a public one the directory itself.
    fn open_lock(&self) -> Result<(File, PathBuf), FileError> {
        // A descriptor of its own: the lock belongs to the open file description.
        if self.policy == Policy::Public {
            let own = self.inside(".")?;
            return Ok((File::from(own.fd), self.path.clone()));
        }
        let path = self.shown("lock");
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, "lock", flags, self.policy.file_mode())
            .map_err(|errno| FileError::io("open", &path, errno))?;
        check_owned(&fd, &path)?;
        Ok((File::from(fd), path))
    }

    /// `None` when somebody has the lock and `operation` does not wait.
    fn lock_by(&self, operation: FlockOperation) -> Result<Option<Lock>, FileError> {
        let (file, path) = self.open_lock()?;
        loop {
            match fs::flock(&file, operation) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(FileError::io("lock", &path, errno)),
            }
        }
        if self.policy == Policy::Private {
            // Only for messages: a full disk must not keep an agent from working.
            let _ = name_holder(&file);
        }
        Ok(Some(Lock::new(Flocked(file))))
    }
}

/// Writes the id of this process into its lock. A daemon takes its lock at every poll, so what is there already is not
/// written again: on flash that would be the only write of a poll without news.
fn name_holder(file: &File) -> io::Result<()> {
    let own = format!("{}\n", std::process::id());
    let mut said = [0; 20];
    let len = FileExt::read_at(file, &mut said, 0)?;
    if said.get(..len) == Some(own.as_bytes()) {
        return Ok(());
    }
    file.set_len(0)?;
    FileExt::write_all_at(file, own.as_bytes(), 0)
}

/// An open file with a lock of flock(2).
#[derive(Debug)]
struct Flocked(File);

impl LockGuard for Flocked {}

impl Drop for Flocked {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that is just being started and has
        // not closed its copy of the descriptor yet. An error means that there is no lock.
        let _ = fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Dir for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn subdirectory(&self, name: &str) -> Result<Option<Box<dyn Dir>>, FileError> {
        Ok(found(self.inside(name))?.map(|inside| Box::new(inside) as Box<dyn Dir>))
    }

    fn subdirectory_or_create(&self, name: &str) -> Result<Box<dyn Dir>, FileError> {
        if let Some(there) = self.subdirectory(name)? {
            return Ok(there);
        }
        match fs::mkdirat(&self.fd, name, self.policy.dir_mode()) {
            Ok(()) => self.sync()?,
            // Somebody else was faster.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(FileError::io("create directory", &self.shown(name), errno)),
        }
        Ok(Box::new(self.inside(name)?))
    }

    fn open_file(&self, name: &str) -> Result<Option<Arc<dyn DirFile>>, FileError> {
        Ok(self.file(name, OFlags::RDONLY)?.map(|file| Arc::new(file) as Arc<dyn DirFile>))
    }

    fn open_file_to_write(&self, name: &str) -> Result<Option<Arc<dyn DirFile>>, FileError> {
        Ok(self.file(name, OFlags::RDWR)?.map(|file| Arc::new(file) as Arc<dyn DirFile>))
    }

    fn create_file(&self, name: &str) -> Result<Arc<dyn DirFile>, FileError> {
        let failed = |errno| FileError::io("create", &self.shown(name), errno);
        Ok(Arc::new(File::from(self.create(name).map_err(failed)?)))
    }

    fn create_temporary(&self) -> Result<(String, Arc<dyn DirFile>), FileError> {
        let (name, file) = self.temporary_file()?;
        Ok((name, Arc::new(file)))
    }

    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.file(name, OFlags::RDONLY)? else { return Ok(None) };
        read_at_most(&file, &self.shown(name), max).map(Some)
    }

    fn rename(&self, from: &str, into: &dyn Dir, to: &str) -> Result<(), FileError> {
        let Some(into) = into.as_any().downcast_ref::<Directory>() else {
            return Err(other_machine(into, to));
        };
        fs::renameat(&self.fd, from, &into.fd, to)
            .map_err(|errno| FileError::io("rename to", &into.shown(to), errno))?;
        into.sync_moved_on_fat(to)
    }

    fn unlink(&self, name: &str) -> Result<bool, FileError> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(FileError::io("remove", &self.shown(name), errno)),
        }
    }

    fn sync(&self) -> Result<(), FileError> {
        fs::fsync(&self.fd).map_err(|errno| FileError::io("sync", &self.path, errno))
    }

    fn remove_stale(&self) -> Result<(), FileError> {
        for name in self.names()?.iter().filter(|name| name.starts_with(TEMPORARY)) {
            let Ok(Some(file)) = self.open_regular(name, OFlags::RDONLY) else { continue };
            if fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                self.unlink(name)?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, FileError> {
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

    #[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
    fn stamp(&self, name: &str) -> Result<Option<FileStamp>, FileError> {
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

    fn try_lock(&self) -> Result<Option<Lock>, FileError> {
        self.lock_by(FlockOperation::NonBlockingLockExclusive)
    }

    fn lock(&self) -> Result<Lock, FileError> {
        let held = || FileError::io("lock", &self.path, io::ErrorKind::WouldBlock);
        self.lock_by(FlockOperation::LockExclusive)?.ok_or_else(held)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl DirFile for File {
    fn stamp(&self) -> io::Result<FileStamp> {
        let stat = self.metadata()?;
        Ok(FileStamp {
            file: (stat.dev(), stat.ino()),
            len: stat.len(),
            modified: (stat.mtime(), stat.mtime_nsec()),
            changed: (stat.ctime(), stat.ctime_nsec()),
        })
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn touch(&self) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }
}

/// Nothing of that name is an answer, not an error.
fn found<T>(result: Result<T, FileError>) -> Result<Option<T>, FileError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
