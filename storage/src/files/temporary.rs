//! A file that is too long to be held, written piece by piece before it gets its name.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{PrivateDir, check_name};
use crate::dir::{Dir, DirFile};
use crate::error::{FileError, StoreError};

/// A new file without a name that others know. It is gone when it is dropped, and after a crash with
/// the next [`PrivateDir::create`], unless it was kept.
#[derive(Debug)]
pub struct Temporary {
    dir: Arc<dyn Dir>,
    name: String,
    file: Arc<dyn DirFile>,
    kept: AtomicBool,
}

impl PrivateDir {
    /// A new file that is not one of the directory's yet.
    pub fn temporary(&self) -> Result<Temporary, StoreError> {
        let dir = self.existing().cloned().map_err(StoreError::writing)?;
        let (name, file) = dir.create_temporary().map_err(StoreError::writing)?;
        Ok(Temporary { dir, name, file, kept: AtomicBool::new(false) })
    }

    /// A file to be read in pieces; `None` when there is none.
    pub fn open_file(&self, name: &str) -> Result<Option<Arc<dyn DirFile>>, StoreError> {
        check_name(name)?;
        match &self.dir {
            Some(dir) => dir.open_file(name).map_err(StoreError::Read),
            None => Ok(None),
        }
    }

    /// Makes a file durable that is there, whoever wrote it: its content, and that it is there.
    pub fn make_durable(&self, file: &dyn DirFile) -> Result<(), StoreError> {
        let failed = |error: io::Error| FileError::io("sync", &self.path, error);
        let synced = file.sync().map_err(failed).and_then(|()| self.existing()?.sync());
        synced.map_err(StoreError::writing)
    }
}

impl Temporary {
    /// Writes all bytes at `offset`.
    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| StoreError::writing(FileError::io("write", &self.shown(), error)))
    }

    /// The file: readable before and after it was kept.
    pub fn file(&self) -> &dyn DirFile {
        self.file.as_ref()
    }

    /// Gives it a name in a directory of the same file system, durably, in place of what has it.
    ///
    /// After a crash the name holds what it held before, or all of this file. Once kept, nothing more
    /// happens.
    pub fn keep(&self, into: &PrivateDir, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        if self.kept.load(Ordering::SeqCst) {
            return Ok(());
        }
        let failed = |error: io::Error| FileError::io("sync", &self.shown(), error);
        let renamed = self.file.sync().map_err(failed).and_then(|()| {
            let into = into.existing()?;
            self.dir.rename(&self.name, into.as_ref(), name)?;
            self.kept.store(true, Ordering::SeqCst);
            into.sync()
        });
        renamed.map_err(StoreError::writing)
    }

    fn shown(&self) -> PathBuf {
        self.dir.shown(&self.name)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::SeqCst) {
            // What cannot be removed now is stale for whoever opens the directory next.
            let _ = self.dir.unlink(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use crate::files::Files as _;
    use crate::sim::{Machine, Media};

    use super::*;

    const STATE: &str = "/state";

    fn state(machine: &Machine) -> PrivateDir {
        PrivateDir::create_on(machine, Path::new(STATE)).unwrap()
    }

    #[test]
    fn what_is_not_kept_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("state");
        let dir = PrivateDir::create(&path).unwrap();
        let inside = dir.subdirectory("inside").unwrap();
        let count = || std::fs::read_dir(&path).unwrap().count();
        let temporary = dir.temporary().unwrap();
        temporary.write(b"bc", 1).unwrap();
        temporary.write(b"a", 0).unwrap();
        // Whoever else opens the directory meanwhile spares it.
        PrivateDir::create(&path).unwrap();
        assert_eq!(count(), 2);
        drop(temporary);
        assert_eq!(count(), 1);
        let temporary = dir.temporary().unwrap();
        temporary.write(b"abc", 0).unwrap();
        temporary.keep(&inside, "kept").unwrap();
        temporary.keep(&inside, "again").unwrap();
        let mut read = [0; 3];
        temporary.file().read_exact_at(&mut read, 0).unwrap();
        drop(temporary);
        let found = inside.open_file("kept").unwrap().unwrap();
        inside.make_durable(found.as_ref()).unwrap();
        assert_eq!((&read, inside.list().unwrap()), (b"abc", vec!["kept".to_owned()]));
        assert_eq!(count(), 1);
        assert!(inside.open_file("none").unwrap().is_none());
        assert!(inside.open_file("../lock").is_err() && dir.temporary().is_ok());
    }

    /// The name holds what it held before, or all of the new file, after every crash; and what a crash
    /// leaves beside it is gone once the directory is opened again.
    #[test]
    fn a_file_that_is_kept_is_old_or_new_after_every_crash() {
        let machine = Machine::on(&Media::new().with_folder(STATE), 0);
        state(&machine).subdirectory("in").unwrap().write_atomic("file", &[1; 700]).unwrap();
        let machine = Machine::on(&machine.durable(), 0);
        let dir = state(&machine);
        let temporary = dir.temporary().unwrap();
        for piece in 0..6 {
            temporary.write(&[2; 500], 500 * piece).unwrap();
        }
        temporary.keep(&dir.subdirectory("in").unwrap(), "file").unwrap();
        let recording = machine.recording();
        let cuts = 0..recording.operations().len() + 1;
        let mut seen = BTreeSet::new();
        recording.crashes(cuts, 8, 1, &mut |crash, media| {
            let dir = state(&Machine::on(&media, 0));
            let found = dir.subdirectory("in").unwrap().read("file", 9999).unwrap();
            let found = found.unwrap_or_else(|| panic!("{crash:?}: no file"));
            assert!(found == [1; 700] || found == [2; 3000], "{crash:?}");
            assert_eq!(dir.existing().unwrap().names().unwrap(), ["in"], "{crash:?}");
            seen.insert(found.len());
        });
        assert_eq!(seen.len(), 2);
    }
}
