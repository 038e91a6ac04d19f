//! A state directory that is not there: everything in it is as on a new node, and nothing is made.

use std::io;
use std::path::{Path, PathBuf};

use storage::FileError;
use storage::files::StoreError;
use storage::folder::{Folder, Locked, NewFile, Steps};

/// A directory that may be missing for good.
#[derive(Debug)]
pub(crate) struct Absent(pub(crate) PathBuf);

impl Absent {
    fn missing(&self) -> FileError {
        let source = io::Error::from(io::ErrorKind::NotFound);
        FileError::Io { action: "open", path: self.0.clone(), source }
    }
}

impl Steps for Absent {
    fn shown(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn create_temporary(&self) -> Result<(String, Box<dyn NewFile>), FileError> {
        Err(self.missing())
    }

    fn rename(&self, _: &str, _: &str) -> Result<(), FileError> {
        Err(self.missing())
    }

    fn unlink(&self, _: &str) -> Result<bool, FileError> {
        Ok(false)
    }

    fn sync(&self) -> Result<(), FileError> {
        Err(self.missing())
    }
}

impl Folder for Absent {
    fn path(&self) -> &Path {
        &self.0
    }

    fn read(&self, _: &str, _: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn names(&self) -> Result<Vec<String>, FileError> {
        Ok(Vec::new())
    }

    fn subfolder(&self, _: &str) -> Result<Box<dyn Folder>, StoreError> {
        Err(StoreError::Read(self.missing()))
    }

    fn lock(&self) -> Result<Box<dyn Locked>, StoreError> {
        Err(StoreError::Read(self.missing()))
    }
}
