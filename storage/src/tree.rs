//! Folders inside folders, with files of any size: what image layouts and a server's store are made
//! of, at the same seam as [`folder`].
//!
//! ```text
//!  blob      temporary file ─► write … ─► sync ─► move ─► sync of the folder it went to
//!  document  folder::replace
//!  folder    made ─► sync of the folder around it
//! ```
//!
//! [`PublicFolder`] takes these steps on the system's files, `sim::Machine` on files in memory.
//! Big files are read and written in place, at offsets, by callers who bring their own buffers:
//! nothing is copied on the way, and a file that is open stays the same file whatever becomes of
//! its name.

use std::any::Any;
use std::fmt::Debug;
use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::Mode;

use crate::directory::Directory;
pub use crate::directory::FileStamp;
use crate::error::FileError;
use crate::folder::{self, Locked, NewFile, Steps};

/// A regular file that is open.
pub trait TreeFile: Debug + Send + Sync {
    /// What it is now.
    fn stamp(&self) -> io::Result<FileStamp>;

    /// Reads into `buf` from `offset` on; how many bytes, 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at `offset`. A crash, or an error, leaves any of them.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the content durable; the name is not.
    fn sync(&self) -> io::Result<()>;

    /// Makes it as young as one just written.
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

/// A folder that is open. Names inside are single path components, given by callers, never by
/// strangers; links and whatever else is no plain file are refused.
///
/// New names, moves and removals are durable after [`Steps::sync`] of the folder they happened in; a
/// move, after that of the folder it went to. Made folders are durable at once.
pub trait Tree: Steps + Debug + Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// A folder inside, if there is one.
    fn inside(&self, name: &str) -> Result<Option<Box<dyn Tree>>, FileError>;

    /// A folder inside, made durably when it is missing.
    fn inside_or_made(&self, name: &str) -> Result<Box<dyn Tree>, FileError>;

    /// A file inside, opened for reading, if there is one.
    fn open_file(&self, name: &str) -> Result<Option<Arc<dyn TreeFile>>, FileError>;

    /// A file inside, opened for reading and writing, if there is one.
    fn open_file_to_write(&self, name: &str) -> Result<Option<Arc<dyn TreeFile>>, FileError>;

    /// A new file inside, opened for reading and writing; refused when there is anything of that
    /// name.
    fn create_file(&self, name: &str) -> Result<Arc<dyn TreeFile>, FileError>;

    /// A new file under a name that no other process uses and that [`Tree::remove_stale`] spares for
    /// as long as it is open.
    fn create_unnamed(&self) -> Result<(String, Arc<dyn TreeFile>), FileError>;

    /// Moves a file into another folder of the same file system, replacing what has that name.
    fn move_to(&self, from: &str, into: &dyn Tree, to: &str) -> Result<(), FileError>;

    /// Removes temporary files whose owner is gone.
    fn remove_stale(&self) -> Result<(), FileError>;

    /// All names, sorted.
    fn names(&self) -> Result<Vec<String>, FileError>;

    /// What the file of that name is now; `None` when there is none.
    fn stamp(&self, name: &str) -> Result<Option<FileStamp>, FileError>;

    /// Waits for the lock on this folder.
    fn lock(&self) -> Result<Box<dyn Locked>, FileError>;

    /// The lock on this folder; `None` when somebody has it.
    fn try_lock(&self) -> Result<Option<Box<dyn Locked>>, FileError>;

    /// Itself, so that a move finds the folder it goes to.
    fn as_any(&self) -> &dyn Any;

    /// Replaces a small file's content by [`folder::replace`].
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FileError>;
}

const DIR_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);

/// A folder of the system that everybody may read: new folders have mode 0755, new files 0644.
#[derive(Debug)]
pub struct PublicFolder(Directory);

impl PublicFolder {
    /// Opens a folder; a final symbolic link is refused.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Directory::open(path).map(PublicFolder)
    }

    /// The same, made durably (not its parents) when there is nothing of that name.
    pub fn open_or_create(path: &Path) -> Result<Self, FileError> {
        Directory::open_or_create(path, DIR_MODE).map(PublicFolder)
    }
}

impl Steps for PublicFolder {
    fn shown(&self, name: &str) -> PathBuf {
        self.0.shown(name)
    }

    fn create_temporary(&self) -> Result<(String, Box<dyn NewFile>), FileError> {
        let (name, file) = self.0.create_temporary(FILE_MODE)?;
        Ok((name, Box::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        self.0.rename(from, &self.0, to)
    }

    fn unlink(&self, name: &str) -> Result<bool, FileError> {
        self.0.remove(name)
    }

    fn sync(&self) -> Result<(), FileError> {
        self.0.sync()
    }
}

impl Tree for PublicFolder {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn inside(&self, name: &str) -> Result<Option<Box<dyn Tree>>, FileError> {
        let inside = self.0.subdirectory(name)?;
        Ok(inside.map(|inside| Box::new(PublicFolder(inside)) as Box<dyn Tree>))
    }

    fn inside_or_made(&self, name: &str) -> Result<Box<dyn Tree>, FileError> {
        Ok(Box::new(PublicFolder(self.0.subdirectory_or_create(name, DIR_MODE)?)))
    }

    fn open_file(&self, name: &str) -> Result<Option<Arc<dyn TreeFile>>, FileError> {
        Ok(self.0.open_file(name)?.map(|file| Arc::new(file) as Arc<dyn TreeFile>))
    }

    fn open_file_to_write(&self, name: &str) -> Result<Option<Arc<dyn TreeFile>>, FileError> {
        Ok(self.0.open_file_to_write(name)?.map(|file| Arc::new(file) as Arc<dyn TreeFile>))
    }

    fn create_file(&self, name: &str) -> Result<Arc<dyn TreeFile>, FileError> {
        Ok(Arc::new(self.0.create_file(name, FILE_MODE)?))
    }

    fn create_unnamed(&self) -> Result<(String, Arc<dyn TreeFile>), FileError> {
        let (name, file) = self.0.create_temporary(FILE_MODE)?;
        Ok((name, Arc::new(file)))
    }

    fn move_to(&self, from: &str, into: &dyn Tree, to: &str) -> Result<(), FileError> {
        match into.as_any().downcast_ref::<PublicFolder>() {
            Some(into) => self.0.rename(from, &into.0, to),
            None => Err(other_machine(into, to)),
        }
    }

    fn remove_stale(&self) -> Result<(), FileError> {
        self.0.remove_stale()
    }

    fn names(&self) -> Result<Vec<String>, FileError> {
        self.0.names()
    }

    fn stamp(&self, name: &str) -> Result<Option<FileStamp>, FileError> {
        self.0.stamp(name)
    }

    fn lock(&self) -> Result<Box<dyn Locked>, FileError> {
        Ok(Box::new(self.0.lock()?))
    }

    fn try_lock(&self) -> Result<Option<Box<dyn Locked>>, FileError> {
        Ok(self.0.try_lock()?.map(|lock| Box::new(lock) as Box<dyn Locked>))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        folder::replace(self, name, bytes)
    }
}

/// A move between a folder of the system and a simulated one.
pub(crate) fn other_machine(into: &dyn Tree, to: &str) -> FileError {
    FileError::io("rename to", &into.shown(to), io::ErrorKind::CrossesDevices)
}

impl TreeFile for File {
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
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn touch(&self) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }
}
