//! The directories and files of a simulated machine.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::media::{Object, ObjectId};
use super::{CallKind, Machine, Operation, Verdict};
use crate::dir::{Dir, DirFile, FileStamp, Lock, LockGuard, TEMPORARY, other_machine};
use crate::error::{FileError, StoreError};

/// A directory that is open. It has no owner and no mode: nobody else is on this machine.
#[derive(Debug)]
struct SimDir {
    machine: Machine,
    object: ObjectId,
    path: PathBuf,
}

/// A file that is open, whatever becomes of its names.
#[derive(Debug)]
struct SimFile {
    machine: Machine,
    object: ObjectId,
}

#[derive(Debug)]
struct SimLock {
    machine: Machine,
    object: ObjectId,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.machine.running().locked.remove(&self.object);
    }
}

impl Machine {
    pub(super) fn dir(&self, path: &Path) -> Result<Box<dyn Dir>, FileError> {
        let running = self.running();
        let found = running.seen.find(path).filter(|id| running.seen.entries(*id).is_some());
        let missing = || FileError::io("open", path, io::ErrorKind::NotFound);
        let object = found.ok_or_else(missing)?;
        Ok(Box::new(SimDir { machine: self.clone(), object, path: path.to_owned() }))
    }

    fn stamp_of(&self, object: ObjectId) -> Option<FileStamp> {
        let running = self.running();
        let pages = running.seen.pages(object)?;
        let modified = i64::try_from(pages.modified).unwrap_or(i64::MAX);
        Some(FileStamp {
            file: (0, object as u64),
            len: pages.len(),
            modified: (modified, 0),
            // Other bytes are another change, however fast they came.
            changed: (i64::from_ne_bytes(pages.hash().to_ne_bytes()), 0),
        })
    }
}

impl DirFile for SimFile {
    fn stamp(&self) -> io::Result<FileStamp> {
        self.machine.stamp_of(self.object).ok_or_else(|| io::ErrorKind::IsADirectory.into())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut running = self.machine.running();
        running.read(self.object)?;
        let Some(pages) = running.seen.pages(self.object) else { return Ok(0) };
        let left = usize::try_from(pages.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let got = left.min(buf.len());
        pages.read(offset, &mut buf[..got]);
        Ok(got)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.machine.running().write(self.object, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.machine.running().sync(self.object)
    }

    fn touch(&self) -> io::Result<()> {
        let mut running = self.machine.running();
        match running.decide(CallKind::Touch, self.object, 0, "") {
            Verdict::Fail(kind) | Verdict::Short(kind) => Err(kind.into()),
            Verdict::Dead => Err(super::dead()),
            Verdict::Skip => Ok(()),
            Verdict::Do | Verdict::Flip => {
                running.record(Operation::Touch { object: self.object });
                Ok(())
            }
        }
    }
}

impl SimDir {
    fn failed(&self, action: &'static str, name: &str, error: io::Error) -> FileError {
        FileError::io(action, &self.shown(name), error)
    }

    fn lookup(&self, name: &str) -> Option<ObjectId> {
        let running = self.machine.running();
        running.seen.entries(self.object)?.0.get(name).copied()
    }

    fn is_folder(&self, object: ObjectId) -> bool {
        let running = self.machine.running();
        running.seen.objects.get(object).is_some_and(|it| matches!(**it, Object::Folder { .. }))
    }

    fn inside(&self, name: &str, object: ObjectId) -> Box<dyn Dir> {
        Box::new(SimDir { machine: self.machine.clone(), object, path: self.shown(name) })
    }

    fn file(&self, object: ObjectId) -> Arc<dyn DirFile> {
        Arc::new(SimFile { machine: self.machine.clone(), object })
    }

    /// A new file or folder under that name, not yet durable.
    fn enter(&self, name: &str, is_folder: bool) -> io::Result<ObjectId> {
        let mut running = self.machine.running();
        let object = running.seen.objects.len();
        let folder = self.object;
        let enter = Operation::Enter { folder, name: name.to_owned(), object, is_folder };
        running.change(CallKind::Enter, vec![enter])?;
        Ok(object)
    }
}

impl Dir for SimDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn subdirectory(&self, name: &str) -> Result<Option<Box<dyn Dir>>, FileError> {
        match self.lookup(name) {
            Some(object) if !self.is_folder(object) => {
                Err(FileError::NotDirectory(self.shown(name)))
            }
            found => Ok(found.map(|object| self.inside(name, object))),
        }
    }

    fn subdirectory_or_create(&self, name: &str) -> Result<Box<dyn Dir>, FileError> {
        if let Some(there) = self.subdirectory(name)? {
            return Ok(there);
        }
        let object = self.enter(name, true);
        let object = object.map_err(|error| self.failed("create directory", name, error))?;
        self.sync()?;
        Ok(self.inside(name, object))
    }

    fn open_file(&self, name: &str) -> Result<Option<Arc<dyn DirFile>>, FileError> {
        match self.lookup(name) {
            Some(object) if self.is_folder(object) => Err(FileError::NotRegular(self.shown(name))),
            found => Ok(found.map(|object| self.file(object))),
        }
    }

    fn open_file_to_write(&self, name: &str) -> Result<Option<Arc<dyn DirFile>>, FileError> {
        self.open_file(name)
    }

    fn create_file(&self, name: &str) -> Result<Arc<dyn DirFile>, FileError> {
        let failed = |error| self.failed("create", name, error);
        if self.lookup(name).is_some() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        Ok(self.file(self.enter(name, false).map_err(failed)?))
    }

    fn create_temporary(&self) -> Result<(String, Arc<dyn DirFile>), FileError> {
        let name = loop {
            let name = {
                let mut running = self.machine.running();
                running.temporaries += 1;
                format!("{TEMPORARY}{}", running.temporaries - 1)
            };
            if self.lookup(&name).is_none() {
                break name;
            }
        };
        let object = self.enter(&name, false);
        let object = object.map_err(|error| self.failed("create", &name, error))?;
        Ok((name, self.file(object)))
    }

    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(object) = self.lookup(name) else { return Ok(None) };
        let mut running = self.machine.running();
        let failed = |error| StoreError::Read(self.failed("read", name, error));
        running.read(object).map_err(failed)?;
        let pages = running.seen.pages(object);
        let pages = pages.ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
        if pages.len() > max {
            return Err(StoreError::TooLarge { name: self.shown(name).display().to_string(), max });
        }
        Ok(Some(pages.to_vec()))
    }

    fn rename(&self, from: &str, into: &dyn Dir, to: &str) -> Result<(), FileError> {
        let Some(into) = into.as_any().downcast_ref::<SimDir>() else {
            return Err(other_machine(into, to));
        };
        let object = self.lookup(from);
        let missing = || into.failed("rename to", to, io::ErrorKind::NotFound.into());
        let object = object.ok_or_else(missing)?;
        let mut running = self.machine.running();
        let (folder, into_id) = (self.object, into.object);
        let fat = running.seen.entries(into_id).is_some_and(|(_, fat)| fat);
        let (from, to_name) = (from.to_owned(), to.to_owned());
        let steps = if fat {
            vec![
                Operation::Enter { folder: into_id, name: to_name, object, is_folder: false },
                Operation::Unlink { folder, name: from },
            ]
        } else {
            vec![Operation::Rename { folder, from, into: into_id, to: to_name, object }]
        };
        let done = running.change(CallKind::Rename, steps);
        done.map_err(|error| into.failed("rename to", to, error))
    }

    fn unlink(&self, name: &str) -> Result<bool, FileError> {
        if self.lookup(name).is_none() {
            return Ok(false);
        }
        let unlink = Operation::Unlink { folder: self.object, name: name.to_owned() };
        let done = self.machine.running().change(CallKind::Unlink, vec![unlink]);
        done.map(|()| true).map_err(|error| self.failed("remove", name, error))
    }

    fn sync(&self) -> Result<(), FileError> {
        let done = self.machine.running().sync(self.object);
        self.machine.0.flushed.notify_all();
        done.map_err(|error| FileError::io("sync", &self.path, error))
    }

    fn remove_stale(&self) -> Result<(), FileError> {
        // Whoever made them died with the power.
        for name in self.names()?.iter().filter(|name| name.starts_with(TEMPORARY)) {
            self.unlink(name)?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, FileError> {
        let mut running = self.machine.running();
        running.read(self.object).map_err(|error| FileError::io("list", &self.path, error))?;
        let entries = running.seen.entries(self.object);
        Ok(entries.map(|(entries, _)| entries.keys().cloned().collect()).unwrap_or_default())
    }

    fn stamp(&self, name: &str) -> Result<Option<FileStamp>, FileError> {
        Ok(self.lookup(name).and_then(|object| self.machine.stamp_of(object)))
    }

    fn try_lock(&self) -> Result<Option<Lock>, FileError> {
        if !self.machine.running().locked.insert(self.object) {
            return Ok(None);
        }
        Ok(Some(Lock::new(SimLock { machine: self.machine.clone(), object: self.object })))
    }

    fn lock(&self) -> Result<Lock, FileError> {
        // Nobody else runs here who could release it.
        let held = || FileError::io("lock", &self.path, io::ErrorKind::WouldBlock);
        self.try_lock()?.ok_or_else(held)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
