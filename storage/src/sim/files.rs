//! Files in memory that can be cut off from their power.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{FileError, StoreError};
use crate::files::{Files, check_name};

/// What goes wrong, counted in writes and removals from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesFault {
    /// The power fails during this operation: it and all later ones fail.
    CutDuring(usize),
    /// The disk is full for this operation only.
    FullAt(usize),
}

/// What became of the operation during which the power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// It did not happen.
    Before,
    /// It happened.
    After,
    /// So many bytes of the new content stand before the rest of the old: what a file system or
    /// medium leaves that breaks its promises.
    Torn(usize),
}

/// A directory of files in memory. Every operation is durable once it has returned.
#[derive(Debug, Default)]
pub struct MemFiles(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    fault: Option<FilesFault>,
    operations: usize,
    /// Name and new content of the operation that was cut; `None` for a removal.
    interrupted: Option<(String, Option<Vec<u8>>)>,
}

impl MemFiles {
    /// An empty directory.
    pub fn new() -> Self {
        MemFiles::default()
    }

    /// The same files, with this fault to come.
    #[must_use]
    pub fn with_fault(self, fault: FilesFault) -> Self {
        self.state().fault = Some(fault);
        self
    }

    /// The files as they are found when the power returns.
    pub fn after_power_loss(&self, interrupted: Interrupted) -> MemFiles {
        let state = self.state();
        let mut files = state.files.clone();
        if let Some((name, new)) = &state.interrupted {
            let new = match (interrupted, new) {
                (Interrupted::Before, _) => files.get(name).cloned(),
                (_, None) => None,
                (Interrupted::After, Some(new)) => Some(new.clone()),
                (Interrupted::Torn(len), Some(new)) => {
                    let old = files.get(name).cloned().unwrap_or_default();
                    let torn = new.iter().take(len).chain(old.iter().skip(len));
                    Some(torn.copied().collect())
                }
            };
            match new {
                Some(new) => files.insert(name.clone(), new),
                None => files.remove(name),
            };
        }
        MemFiles(Mutex::new(State { files, ..State::default() }))
    }

    /// Writes and removals so far.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, name: &str, new: Option<&[u8]>) -> Result<(), StoreError> {
        check_name(name)?;
        let failed = |error| StoreError::Write(FileError::io("write", Path::new(name), error));
        let mut state = self.state();
        let nth = state.operations;
        state.operations += 1;
        match state.fault {
            Some(FilesFault::CutDuring(count)) if nth >= count => {
                if nth == count {
                    state.interrupted = Some((name.to_owned(), new.map(<[u8]>::to_vec)));
                }
                return Err(failed(io::Error::other("the power failed")));
            }
            Some(FilesFault::FullAt(count)) if nth == count => {
                return Err(failed(io::ErrorKind::StorageFull.into()));
            }
            _ => {}
        }
        match new {
            Some(bytes) => state.files.insert(name.to_owned(), bytes.to_vec()),
            None => state.files.remove(name),
        };
        Ok(())
    }
}

impl Files for MemFiles {
    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        match self.state().files.get(name) {
            Some(bytes) if bytes.len() as u64 > max => {
                Err(StoreError::TooLarge { name: name.to_owned(), max })
            }
            found => Ok(found.cloned()),
        }
    }

    fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.change(name, Some(bytes))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.change(name, None)
    }

    fn list(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.state().files.keys().cloned().collect())
    }
}
