//! Small files, each replaced whole, and the private directory that holds them.

mod temporary;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::temporary::Temporary;

use crate::dir::{Dir, Lock, Policy};
use crate::error::{FileError, StoreError};
use crate::host::{Host, System};

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

/// A private directory of small files, held open: replacing a part of its path later changes
/// nothing. See [`Policy::Private`] for what is refused.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    /// `None` when there is no such directory: nothing is in it, and it takes nothing.
    dir: Option<Arc<dyn Dir>>,
}

impl PrivateDir {
    /// Opens a directory that exists.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_on(&System, path)
    }

    /// The same on another kind of machine.
    pub fn open_on(host: &dyn Host, path: &Path) -> Result<Self, StoreError> {
        Ok(Self::over(host.open_dir(path, Policy::Private)?))
    }

    /// Opens a directory, or stands for one that is missing: it reads as empty, and a write is an
    /// error. Nothing is made.
    pub fn open_or_missing_on(host: &dyn Host, path: &Path) -> Result<Self, StoreError> {
        match host.open_dir(path, Policy::Private) {
            Ok(dir) => Ok(Self::over(dir)),
            Err(error) if error.is_missing() => Ok(PrivateDir { path: path.to_owned(), dir: None }),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory, making it (not its parents) when it is missing, and removes
    /// temporary files of writers that were killed.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        Self::create_on(&System, path)
    }

    /// The same on another kind of machine.
    pub fn create_on(host: &dyn Host, path: &Path) -> Result<Self, StoreError> {
        let dir = host.create_dir(path, Policy::Private)?;
        // A read-only state directory is still read: `status` has to work on it.
        let _ = dir.remove_stale();
        Ok(Self::over(dir))
    }

    fn over(dir: Box<dyn Dir>) -> Self {
        PrivateDir { path: dir.path().to_owned(), dir: Some(dir.into()) }
    }

    /// A directory inside, made when it is missing.
    pub fn subdirectory(&self, name: &str) -> Result<PrivateDir, StoreError> {
        check_name(name)?;
        let inside = self.existing().and_then(|dir| dir.subdirectory_or_create(name));
        inside.map(Self::over).map_err(StoreError::writing)
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the exclusive lock of this directory, the file `lock` in it, or says at once who has
    /// it. The process id in that file is for the message only; the lock itself decides.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let dir = self.existing()?;
        dir.try_lock().map_err(StoreError::writing)?.ok_or_else(|| {
            let text = dir.read("lock", 20).ok().flatten().unwrap_or_default();
            let holder = str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            StoreError::Busy { path: dir.shown("lock"), holder }
        })
    }

    fn existing(&self) -> Result<&Arc<dyn Dir>, FileError> {
        let missing = || FileError::io("open", &self.path, io::ErrorKind::NotFound);
        self.dir.as_ref().ok_or_else(missing)
    }
}

impl Files for PrivateDir {
    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        self.dir.as_ref().map_or(Ok(None), |dir| dir.read(name, max))
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_name(name)?;
        self.existing().and_then(|dir| dir.replace(name, bytes)).map_err(StoreError::writing)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        self.dir.as_ref().map_or(Ok(()), |dir| dir.remove(name)).map_err(StoreError::writing)
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut names = self.dir.as_ref().map_or(Ok(Vec::new()), |dir| dir.names())?;
        names.retain(|name| check_name(name).is_ok());
        Ok(names)
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
