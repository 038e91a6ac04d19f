//! Directories held open, and the steps that changes in them are made of: the seam between the order
//! we choose and a medium that may lose any step that was not made durable.
//!
//! ```text
//!  replace    temporary file ─► write ─► sync ─► rename ─► sync of the directory
//!  big file   temporary file ─► write … ─► sync ─► rename ─► sync of the directory it went to
//!  remove     unlink ─► sync of the directory
//!  directory  made ─► sync of the directory around it
//! ```
//!
//! [`System`](crate::host::System) opens those of the system, `sim::Machine` those of a machine in
//! memory. Big files are read and written in place, at offsets, by callers who bring their own
//! buffers: nothing is copied on the way, and a file that is open stays the same file whatever
//! becomes of its name.

mod system;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use system::Directory;

use crate::error::{FileError, StoreError};

/// Who may use a directory and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Root and the own user: new directories have mode 0700, new files 0600. The directory, its
    /// parents and each file that is opened are refused when anybody else could change them.
    Private,
    /// Everybody may read: new directories have mode 0755, new files 0644.
    Public,
}

/// How names of temporary files begin.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A directory that is open. Names inside are single path components chosen by the caller, never
/// taken from outside; links and everything else that is not a plain file are refused.
///
/// New names, moves and removals are durable after [`Dir::sync`] of the directory they happened in;
/// a move, after that of the directory it went to. Until then a crash may leave any of them undone,
/// whatever their order. New directories are durable at once.
pub trait Dir: Debug + Send + Sync {
    /// The path it was opened by, for messages.
    fn path(&self) -> &Path;

    /// A directory inside, if there is one.
    fn subdirectory(&self, name: &str) -> Result<Option<Box<dyn Dir>>, FileError>;

    /// A directory inside, made durably when it is missing.
    fn subdirectory_or_create(&self, name: &str) -> Result<Box<dyn Dir>, FileError>;

    /// A file inside, opened for reading, if there is one.
    fn open_file(&self, name: &str) -> Result<Option<Arc<dyn DirFile>>, FileError>;

    /// A file inside, opened for reading and writing, if there is one.
    fn open_file_to_write(&self, name: &str) -> Result<Option<Arc<dyn DirFile>>, FileError>;

    /// A new file inside, opened for reading and writing; refused when there is anything of that
    /// name.
    fn create_file(&self, name: &str) -> Result<Arc<dyn DirFile>, FileError>;

    /// A new file under a name that no other process uses, that begins with a dot, and that
    /// [`Dir::remove_stale`] spares for as long as it is open.
    fn create_temporary(&self) -> Result<(String, Arc<dyn DirFile>), FileError>;

    /// All bytes of a file of at most `max` bytes; `None` when there is none.
    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Moves a file to a directory of the same file system, replacing what has the new name.
    fn rename(&self, from: &str, into: &dyn Dir, to: &str) -> Result<(), FileError>;

    /// Removes a file; whether there was one.
    fn unlink(&self, name: &str) -> Result<bool, FileError>;

    /// Makes renames, new names and removals durable.
    fn sync(&self) -> Result<(), FileError>;

    /// Removes temporary files whose owner is gone.
    fn remove_stale(&self) -> Result<(), FileError>;

    /// All names, sorted. Names that are not UTF-8 are left out: none of ours is.
    fn names(&self) -> Result<Vec<String>, FileError>;

    /// What the file of that name is now; `None` when there is none. A link is not followed.
    fn stamp(&self, name: &str) -> Result<Option<FileStamp>, FileError>;

    /// The exclusive lock of this directory; `None` when somebody has it.
    fn try_lock(&self) -> Result<Option<Lock>, FileError>;

    /// Waits for the exclusive lock of this directory.
    fn lock(&self) -> Result<Lock, FileError>;

    /// Itself, so that a move finds the directory it goes to.
    fn as_any(&self) -> &dyn Any;

    /// The path of an entry, for messages.
    fn shown(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl dyn Dir + '_ {
    /// Replaces a small file's content.
    ///
    /// After a crash the name holds the old bytes or the new ones, whole; a temporary file may be
    /// left. After an error, too, the name holds one of the two.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let (temporary, file) = self.create_temporary()?;
        let shown = self.shown(name);
        let written = file
            .write_all_at(bytes, 0)
            .map_err(|error| FileError::io("write", &shown, error))
            .and_then(|()| file.sync().map_err(|error| FileError::io("sync", &shown, error)))
            .and_then(|()| self.rename(&temporary, self, name));
        if let Err(error) = written {
            // The first error is the one to tell; whoever creates the directory removes what stays.
            let _ = self.unlink(&temporary);
            return Err(error);
        }
        self.sync()
    }

    /// Removes a file durably, if it is there. A crash leaves it there or not.
    pub fn remove(&self, name: &str) -> Result<(), FileError> {
        if self.unlink(name)? { self.sync() } else { Ok(()) }
    }
}

/// A regular file that is open.
pub trait DirFile: Debug + Send + Sync {
    /// What it is now.
    fn stamp(&self) -> io::Result<FileStamp>;

    /// Reads into `buf` from `offset` on; how many bytes, 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at `offset`. A crash, or an error, leaves any of them.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the content durable; the name is not.
    fn sync(&self) -> io::Result<()>;

    /// Sets the time of its last change to now.
    fn touch(&self) -> io::Result<()>;

    /// Fills `buf` from `offset` on, or says that the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => done += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
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

/// The exclusive lock of a directory, released when dropped.
///
/// The kernel releases it when the process that holds it ends, also when that is killed.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "dropping it releases the lock")] Box<dyn LockGuard>);

/// What releases a lock when it is dropped.
pub(crate) trait LockGuard: Debug + Send + Sync {}

impl Lock {
    pub(crate) fn new(guard: impl LockGuard + 'static) -> Self {
        Lock(Box::new(guard))
    }
}

/// A move between a directory of the system and a simulated one.
pub(crate) fn other_machine(into: &dyn Dir, to: &str) -> FileError {
    FileError::io("rename to", &into.shown(to), io::ErrorKind::CrossesDevices)
}
