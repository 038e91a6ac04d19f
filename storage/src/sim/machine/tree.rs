//! Folders inside folders, with files that are read and written in place.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::media::{Object, ObjectId};
use super::{CallKind, Machine, Operation, SimFolder, SimLock, Verdict};
use crate::directory::FileStamp;
use crate::error::FileError;
use crate::folder::{self, Folder, Locked, Steps};
use crate::tree::{Tree, TreeFile, other_machine};

/// A file that is open, whatever becomes of its names.
#[derive(Debug)]
struct Open {
    machine: Machine,
    object: ObjectId,
}

impl Machine {
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

impl TreeFile for Open {
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

impl SimFolder {
    fn opened(&self, object: ObjectId) -> Arc<dyn TreeFile> {
        Arc::new(Open { machine: self.machine.clone(), object })
    }

    fn at(&self, name: &str, object: ObjectId) -> SimFolder {
        SimFolder { machine: self.machine.clone(), object, path: self.shown(name) }
    }

    fn is_folder(&self, object: ObjectId) -> bool {
        let running = self.machine.running();
        running.seen.objects.get(object).is_some_and(|it| matches!(**it, Object::Folder { .. }))
    }
}

impl Tree for SimFolder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn inside(&self, name: &str) -> Result<Option<Box<dyn Tree>>, FileError> {
        let Some(object) = self.lookup(name) else { return Ok(None) };
        if !self.is_folder(object) {
            return Err(FileError::NotDirectory(self.shown(name)));
        }
        Ok(Some(Box::new(self.at(name, object))))
    }

    fn inside_or_made(&self, name: &str) -> Result<Box<dyn Tree>, FileError> {
        if let Some(there) = Tree::inside(self, name)? {
            return Ok(there);
        }
        let object = self.enter(name, true);
        let object = object.map_err(|error| self.failed("create directory", name, error))?;
        Steps::sync(self)?;
        Ok(Box::new(self.at(name, object)))
    }

    fn open_file(&self, name: &str) -> Result<Option<Arc<dyn TreeFile>>, FileError> {
        match self.lookup(name) {
            Some(object) if self.is_folder(object) => Err(FileError::NotRegular(self.shown(name))),
            found => Ok(found.map(|object| self.opened(object))),
        }
    }

    fn open_file_to_write(&self, name: &str) -> Result<Option<Arc<dyn TreeFile>>, FileError> {
        Tree::open_file(self, name)
    }

    fn create_file(&self, name: &str) -> Result<Arc<dyn TreeFile>, FileError> {
        let failed = |error| self.failed("create", name, error);
        if self.lookup(name).is_some() {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        Ok(self.opened(self.enter(name, false).map_err(failed)?))
    }

    fn create_unnamed(&self) -> Result<(String, Arc<dyn TreeFile>), FileError> {
        let (name, object) = self.enter_temporary()?;
        Ok((name, self.opened(object)))
    }

    fn move_to(&self, from: &str, into: &dyn Tree, to: &str) -> Result<(), FileError> {
        match into.as_any().downcast_ref::<SimFolder>() {
            Some(into) => self.move_into(from, into, to),
            None => Err(other_machine(into, to)),
        }
    }

    fn remove_stale(&self) -> Result<(), FileError> {
        // Whoever made them died with the power.
        for name in Tree::names(self)?.iter().filter(|name| name.starts_with(".tmp-")) {
            self.unlink(name)?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, FileError> {
        Folder::names(self)
    }

    fn stamp(&self, name: &str) -> Result<Option<FileStamp>, FileError> {
        Ok(self.lookup(name).and_then(|object| self.machine.stamp_of(object)))
    }

    fn lock(&self) -> Result<Box<dyn Locked>, FileError> {
        // Nobody else runs here who could give it back.
        let held = || FileError::io("lock", &self.path, io::ErrorKind::WouldBlock);
        Tree::try_lock(self)?.ok_or_else(held)
    }

    fn try_lock(&self) -> Result<Option<Box<dyn Locked>>, FileError> {
        if !self.machine.running().locked.insert(self.object) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { machine: self.machine.clone(), object: self.object })))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        folder::replace(self, name, bytes)
    }
}
