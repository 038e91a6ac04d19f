//! A directory of small private files, each replaced whole.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::directory::Directory;
use crate::error::FileError;
pub use crate::error::StoreError;
use crate::folder::{self, Folder, Locked, NewFile, Steps};
use crate::open::read_at_most;
use crate::{lock, private};

/// Named files that are read and replaced as a whole.
///
/// A name has 1 to 200 bytes, no `/`, and does not begin with a dot.
pub trait Files: Send + Sync {
    /// All bytes of a file of at most `max` bytes; `None` when there is none.
    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces a file's bytes, durably.
    ///
    /// A crash in the middle leaves the old bytes (or no file) or the new ones, whole. An error
    /// leaves one of the two as well, and a disk that is full the old ones.
    fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Removes a file, durably, if it is there. A crash leaves it there or not.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// All names, sorted.
    fn list(&self) -> Result<Vec<String>, StoreError>;
}

const DIR_MODE: Mode = Mode::from_bits_truncate(0o700);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o600);

/// A private directory of files: of the system, mode 0700 and its files 0600, or of a simulated
/// machine.
///
/// Refused when anybody but root and the own user could change it, one of its parents, or a file
/// that is read. Held open: replacing a part of its path later changes nothing.
#[derive(Debug)]
pub struct FsDir(Box<dyn Folder>);

impl FsDir {
    /// Opens a directory that exists.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        private::check_parents(path)?;
        let directory = Directory::open(path).map_err(StoreError::Read)?;
        Ok(FsDir(Box::new(PrivateDir::checked(directory)?)))
    }

    /// Opens a directory, making it (not its parents) when it is missing, and removes what killed
    /// writers left in it.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        private::check_parents(path)?;
        let directory = Directory::open_or_create(path, DIR_MODE).map_err(StoreError::Write)?;
        let opened = PrivateDir::checked(directory)?;
        // A read-only state directory is still read: `status` has to work on it.
        let _ = opened.0.remove_stale();
        Ok(FsDir(Box::new(opened)))
    }

    /// The directory of another kind of machine.
    pub fn over(folder: Box<dyn Folder>) -> Self {
        FsDir(folder)
    }

    /// A directory inside, made when it is missing.
    pub fn subdirectory(&self, name: &str) -> Result<FsDir, StoreError> {
        check_name(name)?;
        self.0.subfolder(name).map(FsDir)
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remove_stale(&self) {
        let stale = |name: &String| name.starts_with(".tmp-");
        for name in self.0.names().unwrap_or_default().iter().filter(|name| stale(name)) {
            let _ = self.0.unlink(name);
        }
    }

    pub(crate) fn lock(&self) -> Result<Box<dyn Locked>, StoreError> {
        self.0.lock()
    }
}

impl Files for FsDir {
    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        self.0.read(name, max)
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_name(name)?;
        folder::replace(self.0.as_ref(), name, bytes).map_err(StoreError::Write)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        folder::remove(self.0.as_ref(), name).map_err(StoreError::Write)
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut names = self.0.names().map_err(StoreError::Read)?;
        names.retain(|name| check_name(name).is_ok());
        Ok(names)
    }
}

/// A directory of the system that others can neither read nor change.
#[derive(Debug)]
struct PrivateDir(Directory);

impl PrivateDir {
    fn checked(directory: Directory) -> Result<Self, StoreError> {
        private::check_owned(directory.fd(), directory.path())?;
        Ok(PrivateDir(directory))
    }
}

impl Steps for PrivateDir {
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

impl Folder for PrivateDir {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.0.open_file(name).map_err(StoreError::Read)? else {
            return Ok(None);
        };
        let path = self.0.shown(name);
        private::check_owned(&file, &path)?;
        read_at_most(&file, &path, max).map(Some)
    }

    fn names(&self) -> Result<Vec<String>, FileError> {
        self.0.names()
    }

    fn subfolder(&self, name: &str) -> Result<Box<dyn Folder>, StoreError> {
        let inside = self.0.subdirectory_or_create(name, DIR_MODE).map_err(StoreError::Write)?;
        Ok(Box::new(Self::checked(inside)?))
    }

    fn lock(&self) -> Result<Box<dyn Locked>, StoreError> {
        lock::take(&self.0)
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |c: char| c != '/' && !c.is_control();
    if (1..=200).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain) {
        Ok(())
    } else {
        Err(StoreError::Name(name.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests;
