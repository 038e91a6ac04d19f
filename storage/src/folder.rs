//! The steps that changes of a directory are made of: the seam between the order we choose and a
//! medium that may lose any step that was not made durable.
//!
//! ```text
//!  replace   temporary file ─► write ─► sync ─► rename ─► sync of the directory
//!  remove    unlink ─► sync of the directory
//! ```
//!
//! [`Directory`](crate::Directory) takes these steps on the system's files, `sim::Machine` on files
//! in memory. Both go through the one [`replace`] below.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{FileError, StoreError};

/// A file that is being written and has no lasting name yet.
pub trait NewFile {
    /// Appends all bytes. A crash, or an error, leaves any of them.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable; the name is not.
    fn sync(&mut self) -> io::Result<()>;
}

/// What may be done to the names in a directory. None is durable before [`Steps::sync`], and until
/// then a crash may leave any of them undone, whatever their order.
pub trait Steps {
    /// The path of an entry, for messages.
    fn shown(&self, name: &str) -> PathBuf;

    /// A new file under a name that nothing else uses and that begins with a dot.
    fn create_temporary(&self) -> Result<(String, Box<dyn NewFile>), FileError>;

    /// Gives a file a new name, replacing what has it.
    fn rename(&self, from: &str, to: &str) -> Result<(), FileError>;

    /// Removes a file; whether there was one.
    fn unlink(&self, name: &str) -> Result<bool, FileError>;

    /// Makes renames, new names and removals durable.
    fn sync(&self) -> Result<(), FileError>;
}

/// A private directory of small files.
pub trait Folder: Steps + Debug + Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// All bytes of a file of at most `max` bytes; `None` when there is none.
    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// All names, sorted.
    fn names(&self) -> Result<Vec<String>, FileError>;

    /// A folder inside, made durably when it is missing.
    fn subfolder(&self, name: &str) -> Result<Box<dyn Folder>, StoreError>;

    /// The lock of this folder, held until dropped; `busy` at once when somebody has it.
    fn lock(&self) -> Result<Box<dyn Locked>, StoreError>;
}

/// A lock that is held.
pub trait Locked: Debug + Send + Sync {}

/// Replaces a file's content.
///
/// After a crash the name holds the old bytes or the new ones, whole; a temporary file may be left.
/// An error says that the name holds one of the two as well.
pub fn replace(folder: &(impl Steps + ?Sized), name: &str, bytes: &[u8]) -> Result<(), FileError> {
    let (temporary, mut file) = folder.create_temporary()?;
    let shown = folder.shown(name);
    let written = file
        .write_all(bytes)
        .map_err(|error| FileError::io("write", &shown, error))
        .and_then(|()| file.sync().map_err(|error| FileError::io("sync", &shown, error)))
        .and_then(|()| folder.rename(&temporary, name));
    if let Err(error) = written {
        // The first error is the one to tell; what stays is removed by whoever opens the folder.
        let _ = folder.unlink(&temporary);
        return Err(error);
    }
    folder.sync()
}

/// Removes a file durably, if it is there. A crash leaves it there or not.
pub fn remove(folder: &(impl Steps + ?Sized), name: &str) -> Result<(), FileError> {
    if folder.unlink(name)? { folder.sync() } else { Ok(()) }
}
