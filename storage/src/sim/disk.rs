//! A disk in memory that loses what was not flushed.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::next_random;
use crate::block::{BlockDevice, DeviceError, check_range};

/// What a disk was asked to do, in order; reads are not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Bytes were written.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Bytes were made zero.
    Zero {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Everything before became durable.
    Sync,
}

/// What goes wrong, counted in recorded operations from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power fails after so many operations: the next one and all later ones fail.
    CutAfter(usize),
    /// This operation fails with EIO and does nothing; the next ones work.
    ErrorAt(usize),
    /// This write says it succeeded and is lost.
    LoseAt(usize),
    /// This write says it succeeded and has one bit flipped.
    FlipAt(usize),
}

/// What happens to writes that were not flushed when the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of them reached the medium.
    Nothing,
    /// None did.
    Everything,
    /// All but the second half of the last one.
    TornLast,
    /// Only the last one.
    OnlyLast,
    /// Any of their sectors, chosen by a seed: lost, torn and reordered.
    Random(u64),
}

/// A disk in memory.
///
/// The unit that is written whole or not at all is the sector.
#[derive(Debug)]
pub struct Disk {
    sector_size: u32,
    beside: bool,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    /// What reads see.
    seen: Vec<u8>,
    /// What survives for sure.
    durable: Vec<u8>,
    /// Written and not flushed, in order.
    pending: Vec<(usize, Vec<u8>)>,
    operations: Vec<Operation>,
    fault: Option<Fault>,
    sync_failed: bool,
    /// An operation found the power off.
    off: bool,
}

impl Disk {
    /// A disk of zeros.
    pub fn new(len: usize, sector_size: u32) -> Self {
        Self::with_content(vec![0; len], sector_size)
    }

    /// A disk that holds these bytes durably.
    pub fn with_content(content: Vec<u8>, sector_size: u32) -> Self {
        let state = State {
            seen: content.clone(),
            durable: content,
            pending: Vec::new(),
            operations: Vec::new(),
            fault: None,
            sync_failed: false,
            off: false,
        };
        Disk { sector_size, beside: true, state: Mutex::new(state) }
    }

    /// The same disk, with this fault to come.
    #[must_use]
    pub fn with_fault(self, fault: Fault) -> Self {
        self.state().fault = Some(fault);
        self
    }

    /// The same disk, of which nothing is read back before all is written.
    #[must_use]
    pub fn read_afterwards(mut self) -> Self {
        self.beside = false;
        self
    }

    /// What was asked of it so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.state().operations.clone()
    }

    /// All bytes as reads see them.
    pub fn content(&self) -> Vec<u8> {
        self.state().seen.clone()
    }

    /// The disk as it is found when the power returns.
    pub fn after_power_loss(&self, loss: Loss) -> Disk {
        let state = self.state();
        let mut content = state.durable.clone();
        let sector = self.sector_size as usize;
        let last = state.pending.len().saturating_sub(1);
        let mut random = match loss {
            Loss::Random(seed) => seed,
            _ => 0,
        };
        for (nth, (offset, bytes)) in state.pending.iter().enumerate() {
            // Pieces end at sector boundaries of the disk.
            let mut at = 0;
            while at < bytes.len() {
                let place = offset + at;
                let piece = (sector - place % sector).min(bytes.len() - at);
                let kept = match loss {
                    Loss::Nothing => true,
                    Loss::Everything => false,
                    Loss::TornLast => nth < last || at < bytes.len() / 2,
                    Loss::OnlyLast => nth == last,
                    Loss::Random(_) => next_random(&mut random) & 1 == 1,
                };
                if kept {
                    content[place..place + piece].copy_from_slice(&bytes[at..at + piece]);
                }
                at += piece;
            }
        }
        Disk::with_content(content, self.sector_size)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str, offset: u64, why: &'static str) -> DeviceError {
        DeviceError::Io { action, device: self.describe(), offset, source: io::Error::other(why) }
    }

    fn write(&self, operation: Operation, bytes: Vec<u8>, offset: u64) -> Result<(), DeviceError> {
        check_range(self, offset, bytes.len() as u64)?;
        let at = usize::try_from(offset).expect("inside a disk in memory");
        let mut state = self.state();
        let nth = state.operations.len();
        let mut bytes = bytes;
        match state.fault {
            Some(Fault::CutAfter(count)) if nth >= count => {
                state.off = true;
                return Err(self.failed("write", offset, "the power failed"));
            }
            Some(Fault::ErrorAt(count)) if nth == count => {
                state.operations.push(operation);
                return Err(self.failed("write", offset, "injected error"));
            }
            Some(Fault::LoseAt(count)) if nth == count => {
                state.operations.push(operation);
                return Ok(());
            }
            Some(Fault::FlipAt(count)) if nth == count => {
                if let Some(byte) = bytes.last_mut() {
                    *byte ^= 1;
                }
            }
            _ => {}
        }
        state.operations.push(operation);
        state.seen[at..at + bytes.len()].copy_from_slice(&bytes);
        state.pending.push((at, bytes));
        Ok(())
    }
}

impl BlockDevice for Disk {
    fn len(&self) -> u64 {
        self.state().seen.len() as u64
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        check_range(self, offset, buf.len() as u64)?;
        let at = usize::try_from(offset).expect("inside a disk in memory");
        let state = self.state();
        if state.off {
            return Err(self.failed("read", offset, "the power failed"));
        }
        buf.copy_from_slice(&state.seen[at..at + buf.len()]);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        self.write(Operation::Write { offset, len: bytes.len() as u64 }, bytes.to_vec(), offset)
    }

    fn reads_beside_writes(&self) -> bool {
        self.beside
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        check_range(self, offset, len)?;
        let zeros = vec![0; usize::try_from(len).expect("inside a disk in memory")];
        self.write(Operation::Zero { offset, len }, zeros, offset)
    }

    fn sync(&self) -> Result<(), DeviceError> {
        let mut state = self.state();
        let nth = state.operations.len();
        let failed =
            |why| DeviceError::Sync { device: self.describe(), source: io::Error::other(why) };
        match state.fault {
            Some(Fault::CutAfter(count)) if nth >= count => {
                state.off = true;
                return Err(failed("the power failed"));
            }
            Some(Fault::ErrorAt(count)) if nth == count => state.sync_failed = true,
            _ => {}
        }
        state.operations.push(Operation::Sync);
        if state.sync_failed {
            return Err(failed("a flush failed"));
        }
        for (at, bytes) in std::mem::take(&mut state.pending) {
            state.durable[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        "simulated disk".to_owned()
    }
}
