//! A whole machine in memory: devices and folders under one [`Host`], one record of everything that
//! was asked of them, and every state that a power cut may have left.
//!
//! ```text
//!  Media ──► Machine (runs a program) ──► Recording ──► crash states: Media again, to boot from
//! ```
//!
//! What is promised of a medium, and no more: a sector of 512 bytes is old, new or, when the power
//! fails while it is written, garbage; a flush makes everything asked of that device or file before
//! durable; a rename, a new name or a removal is durable once the folder was flushed, and until then
//! any of them may be lost while others are not; a move to another folder, with the folder it went to.
//! On FAT a rename is two of them.

mod crash;
mod dir;
mod media;
mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

pub use crash::{Crash, Kept, Recording, Tear};
pub use media::{Media, Operation, SECTOR};

use self::media::ObjectId;
use crate::block::extent::{Extent, Medium};
use crate::block::{Access, BlockDevice, DeviceError, Window, check_range};
use crate::dir::{Dir, Policy};
use crate::error::{FileError, StoreError};
use crate::host::Host;
use crate::secret::Rule;
use crate::shared_lock::{SharedLock, SharedLockError};

/// One thing asked of a medium, as a [`Script`] sees it before it happens.
#[derive(Debug)]
pub struct Call<'a> {
    /// How many calls were made before, reads included.
    pub nth: usize,
    /// What kind.
    pub kind: CallKind,
    /// The device, file or folder, by its path.
    pub place: &'a str,
    /// Where on it, for a write.
    pub offset: u64,
    /// The name that begins, is taken or goes.
    pub name: &'a str,
}

/// The kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// Bytes, or a list of names.
    Read,
    /// Bytes of a device or file.
    Write,
    /// A flush of a device, file or folder.
    Sync,
    /// A new name.
    Enter,
    /// Another name.
    Rename,
    /// A name less.
    Unlink,
    /// A file made young.
    Touch,
}

/// What a call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What it should.
    Do,
    /// Success is reported, and nothing happens. Caches show what was written until they are
    /// forgotten.
    Skip,
    /// An error; nothing happens. What a failed flush was to make durable is lost.
    Fail(io::ErrorKind),
    /// An error, and nothing else: the program is dead, what it asked for before is still on its way.
    Dead,
    /// Half of the bytes are written, then an error.
    Short(io::ErrorKind),
    /// Written with one bit flipped; caches show what was meant.
    Flip,
}

/// Decides about each call: faults of media, and faulty programs.
pub trait Script: Send {
    /// What this call comes to.
    fn verdict(&mut self, call: &Call<'_>) -> Verdict;

    /// Whether caches are dropped when a program asks for it.
    fn forgets(&self) -> bool {
        true
    }
}

impl<F: FnMut(&Call<'_>) -> Verdict + Send> Script for F {
    fn verdict(&mut self, call: &Call<'_>) -> Verdict {
        self(call)
    }
}

/// A machine that is switched on. Copies are the same machine.
#[derive(Clone)]
pub struct Machine(Arc<Shared>);

struct Shared {
    running: Mutex<Running>,
    /// Something was flushed.
    flushed: Condvar,
}

struct Running {
    base: Media,
    /// What programs read.
    seen: Media,
    /// What a flush has made durable.
    durable: Media,
    /// Asked and not yet durable.
    pending: Vec<Operation>,
    log: Vec<Operation>,
    calls: usize,
    script: Option<Box<dyn Script>>,
    /// What the medium really has where caches show something else.
    ghosts: Vec<(ObjectId, u64, Vec<u8>)>,
    kernel: BTreeMap<PathBuf, String>,
    locked: BTreeSet<ObjectId>,
    temporaries: u64,
    /// Flushes of each object.
    flushes: BTreeMap<ObjectId, usize>,
    now: u64,
}

impl fmt::Debug for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "simulated machine ({} operations)", self.running().log.len())
    }
}

impl Machine {
    /// Switches a machine on that has these media.
    pub fn on(media: &Media, now: u64) -> Self {
        let media = &media.at(now);
        let running = Mutex::new(Running {
            base: media.clone(),
            seen: media.clone(),
            durable: media.clone(),
            pending: Vec::new(),
            log: Vec::new(),
            calls: 0,
            script: None,
            ghosts: Vec::new(),
            kernel: BTreeMap::new(),
            locked: BTreeSet::new(),
            temporaries: 0,
            flushes: BTreeMap::new(),
            now,
        });
        Machine(Arc::new(Shared { running, flushed: Condvar::new() }))
    }

    /// From now on each call is decided by `script`.
    pub fn follow(&self, script: impl Script + 'static) {
        self.running().script = Some(Box::new(script));
    }

    /// From now on each call does what it should.
    pub fn unscripted(&self) {
        self.running().script = None;
    }

    /// Calls so far, reads included.
    pub fn calls(&self) -> usize {
        self.running().calls
    }

    /// How often a device or folder was flushed.
    pub fn flushes(&self, path: &str) -> usize {
        self.running().flushes_of(path)
    }

    /// Waits until a device or folder was flushed that often, at most for `patience`.
    pub fn wait_for_flushes(&self, path: &str, count: usize, patience: Duration) {
        let running = self.running();
        let waited = self
            .0
            .flushed
            .wait_timeout_while(running, patience, |running| running.flushes_of(path) < count);
        drop(waited);
    }

    /// What was asked so far.
    pub fn recording(&self) -> Recording {
        let running = self.running();
        Recording::new(running.base.clone(), running.log.clone())
    }

    /// What programs read now: what an orderly shutdown leaves.
    pub fn media(&self) -> Media {
        self.running().seen.clone()
    }

    /// What certainly survives a power cut now.
    pub fn durable(&self) -> Media {
        self.running().durable.clone()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn flushes_of(&self, path: &str) -> usize {
        let object = self.seen.find(Path::new(path));
        object.and_then(|object| self.flushes.get(&object)).copied().unwrap_or(0)
    }

    fn decide(&mut self, kind: CallKind, object: ObjectId, offset: u64, name: &str) -> Verdict {
        let nth = self.calls;
        self.calls += 1;
        let Some(mut script) = self.script.take() else { return Verdict::Do };
        let place = self.seen.name_of(object);
        let verdict = script.verdict(&Call { nth, kind, place: &place, offset, name });
        self.script = Some(script);
        verdict
    }

    fn record(&mut self, operation: Operation) {
        self.seen.apply(&operation);
        self.pending.push(operation.clone());
        self.log.push(operation);
    }

    fn read(&mut self, object: ObjectId) -> io::Result<()> {
        match self.decide(CallKind::Read, object, 0, "") {
            Verdict::Fail(kind) | Verdict::Short(kind) => Err(kind.into()),
            Verdict::Dead => Err(dead()),
            _ => Ok(()),
        }
    }

    fn write(&mut self, object: ObjectId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let operation = |bytes: &[u8]| Operation::Write { object, offset, bytes: bytes.into() };
        match self.decide(CallKind::Write, object, offset, "") {
            Verdict::Do => self.record(operation(bytes)),
            Verdict::Fail(kind) => return Err(kind.into()),
            Verdict::Dead => return Err(dead()),
            Verdict::Short(kind) => {
                self.record(operation(&bytes[..bytes.len() / 2]));
                return Err(kind.into());
            }
            Verdict::Skip => {
                let mut old = vec![0; bytes.len()];
                if let Some(pages) = self.seen.pages(object) {
                    pages.read(offset, &mut old);
                }
                self.ghosts.push((object, offset, old));
                self.seen.apply(&operation(bytes));
            }
            Verdict::Flip => {
                let mut flipped = bytes.to_vec();
                let middle = flipped.len() / 2;
                if let Some(byte) = flipped.get_mut(middle) {
                    *byte ^= 0x10;
                }
                self.record(operation(&flipped));
                self.ghosts.push((object, offset, flipped));
                self.seen.apply(&operation(bytes));
            }
        }
        Ok(())
    }

    fn sync(&mut self, object: ObjectId) -> io::Result<()> {
        match self.decide(CallKind::Sync, object, 0, "") {
            Verdict::Skip => return Ok(()),
            Verdict::Dead => return Err(dead()),
            Verdict::Fail(kind) | Verdict::Short(kind) => {
                // The system forgets what it could not write, and later flushes succeed.
                let forget = |operation: &Operation| operation.medium() == object;
                self.pending.retain(|operation| !forget(operation));
                let flushed = self.log.iter().rposition(
                    |operation| matches!(operation, Operation::Sync { object: of } if *of == object),
                );
                let mut nth = 0;
                self.log.retain(|operation| {
                    nth += 1;
                    flushed.is_some_and(|flushed| nth <= flushed) || !forget(operation)
                });
                self.seen.copy_object(object, &self.durable);
                return Err(kind.into());
            }
            Verdict::Do | Verdict::Flip => {}
        }
        let (now, later) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|operation| operation.medium() == object);
        self.pending = later;
        let now: Vec<Operation> = now;
        now.iter().for_each(|operation| self.durable.apply(operation));
        self.log.push(Operation::Sync { object });
        *self.flushes.entry(object).or_default() += 1;
        Ok(())
    }

    fn change(&mut self, kind: CallKind, operations: Vec<Operation>) -> io::Result<()> {
        let Some(first) = operations.first() else { return Ok(()) };
        let name = match first {
            Operation::Enter { name, .. } | Operation::Unlink { name, .. } => name.clone(),
            Operation::Rename { to, .. } => to.clone(),
            _ => String::new(),
        };
        match self.decide(kind, first.medium(), 0, &name) {
            Verdict::Do | Verdict::Flip => operations.into_iter().for_each(|op| self.record(op)),
            Verdict::Skip => operations.iter().for_each(|op| self.seen.apply(op)),
            Verdict::Fail(kind) => return Err(kind.into()),
            Verdict::Dead => return Err(dead()),
            Verdict::Short(kind) => {
                self.record(first.clone());
                return Err(kind.into());
            }
        }
        Ok(())
    }

    /// Reads come from the medium again.
    fn forget(&mut self, object: ObjectId, offset: u64, len: u64) {
        if self.script.as_ref().is_some_and(|script| !script.forgets()) {
            return;
        }
        let touched = |(id, at, bytes): &(ObjectId, u64, Vec<u8>)| {
            *id == object && *at < offset + len && offset < at + bytes.len() as u64
        };
        let ghosts = std::mem::take(&mut self.ghosts);
        let (gone, kept) = ghosts.into_iter().partition(touched);
        self.ghosts = kept;
        let gone: Vec<(ObjectId, u64, Vec<u8>)> = gone;
        for (object, offset, bytes) in gone {
            self.seen.apply(&Operation::Write { object, offset, bytes: bytes.into() });
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the program was killed")
}

// ---- the machine as a host ---------------------------------------------------------------------

impl Host for Machine {
    /// Nobody else writes here.
    fn lock_disk(&self, _: &Path) -> Result<Option<SharedLock>, SharedLockError> {
        Ok(None)
    }

    fn lock_file(&self, _: &Path) -> Result<Option<SharedLock>, SharedLockError> {
        Ok(None)
    }

    /// Every path is a thing of its own here.
    fn extents(&self, path: &Path) -> Vec<Extent> {
        vec![Extent::whole(Medium::Named(path.to_owned()))]
    }

    fn mounted(&self) -> Vec<(PathBuf, Vec<Extent>)> {
        Vec::new()
    }

    fn open_device(&self, path: &Path, _: Access) -> Result<Box<dyn BlockDevice>, DeviceError> {
        let running = self.running();
        let missing = || DeviceError::Missing(path.to_owned());
        let object = running.seen.find(path).ok_or_else(missing)?;
        let pages =
            running.seen.pages(object).ok_or_else(|| DeviceError::NotDevice(path.into()))?;
        let len = pages.len();
        let machine = self.clone();
        let sync_failed = Mutex::new(false);
        Ok(Box::new(Device { machine, object, len, path: path.to_owned(), sync_failed }))
    }

    fn open_partition(
        &self,
        disk: &Path,
        number: u32,
        start: u64,
        len: u64,
        access: Access,
    ) -> Result<Box<dyn BlockDevice>, DeviceError> {
        let whole = self.open_device(disk, access)?;
        Ok(Box::new(Window::new(whole, start, len, &format!("partition {number}"))?))
    }

    fn open_dir(&self, path: &Path, _: Policy) -> Result<Box<dyn Dir>, FileError> {
        self.dir(path)
    }

    fn create_dir(&self, path: &Path, _: Policy) -> Result<Box<dyn Dir>, FileError> {
        self.dir(path)
    }

    fn read_trusted(&self, path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
        let mut running = self.running();
        let failed = |kind: io::Error| StoreError::Read(FileError::io("read", path, kind));
        let object =
            running.seen.find(path).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        running.read(object).map_err(failed)?;
        let pages =
            running.seen.pages(object).ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
        if pages.len() > max {
            return Err(StoreError::TooLarge { name: path.display().to_string(), max });
        }
        Ok(pages.to_vec())
    }

    /// A simulated file has no mode: nobody else is on this machine.
    fn read_secret(
        &self,
        path: &Path,
        max: u64,
        _rule: Rule,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        self.read_trusted(path, max).map(Zeroizing::new)
    }

    fn read_kernel(&self, path: &Path) -> io::Result<String> {
        let running = self.running();
        running.kernel.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write_kernel(&self, path: &Path, text: &str) -> io::Result<()> {
        self.running().kernel.insert(path.to_owned(), text.to_owned());
        Ok(())
    }

    fn now(&self) -> u64 {
        self.running().now
    }
}

#[derive(Debug)]
struct Device {
    machine: Machine,
    object: ObjectId,
    len: u64,
    path: PathBuf,
    sync_failed: Mutex<bool>,
}

impl Device {
    fn failed(&self, action: &'static str, offset: u64, source: io::Error) -> DeviceError {
        DeviceError::Io { action, device: self.describe(), offset, source }
    }
}

impl BlockDevice for Device {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        u32::try_from(SECTOR).expect("a small number")
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        check_range(self, offset, buf.len() as u64)?;
        let mut running = self.machine.running();
        running.read(self.object).map_err(|error| self.failed("read", offset, error))?;
        if let Some(pages) = running.seen.pages(self.object) {
            pages.read(offset, buf);
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        check_range(self, offset, bytes.len() as u64)?;
        let done = self.machine.running().write(self.object, offset, bytes);
        done.map_err(|error| self.failed("write", offset, error))
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        check_range(self, offset, len)?;
        let zeros = vec![0; usize::try_from(len).expect("in memory")];
        self.write_at(&zeros, offset)
    }

    fn sync(&self) -> Result<(), DeviceError> {
        let failed = |source| DeviceError::Sync { device: self.describe(), source };
        let mut before = self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *before {
            return Err(failed(io::Error::other("an earlier flush failed")));
        }
        self.machine.running().sync(self.object).map_err(|error| {
            *before = true;
            failed(error)
        })
    }

    fn forget_cached(&self, offset: u64, len: u64) {
        self.machine.running().forget(self.object, offset, len);
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests;
