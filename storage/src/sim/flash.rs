//! A flash in memory that holds the rules of the real ones, fails, and loses its power.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::next_random;
use crate::block::DeviceError;
use crate::flash::{Flash as _, Geometry, Kind, failed};

/// What goes wrong, counted in erases and programs from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashFault {
    /// The power fails during this operation, which is left half done; all later ones fail.
    CutDuring(usize),
    /// This operation fails, and every later one on its block.
    WearOutAt(usize),
    /// This operation says it succeeded; one bit of its block is not as it should be.
    FlipAt(usize),
}

/// A flash in memory. Clones share nothing.
#[derive(Debug)]
pub struct Flash {
    geometry: Geometry,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    cells: Vec<u8>,
    /// Pages that were programmed since their block was erased.
    programmed: BTreeSet<u64>,
    bad: BTreeSet<u64>,
    worn: BTreeSet<u64>,
    /// Erases of each block.
    erases: Vec<u32>,
    operations: usize,
    fault: Option<FlashFault>,
    off: bool,
    /// Pages that were never programmed cannot be read.
    empty_fails: bool,
    random: u64,
}

impl Flash {
    /// An erased flash.
    pub fn new(geometry: Geometry) -> Self {
        let len = usize::try_from(geometry.len).expect("fits memory");
        let blocks = usize::try_from(geometry.blocks()).expect("fits memory");
        let state = State {
            cells: vec![0xff; len],
            programmed: BTreeSet::new(),
            bad: BTreeSet::new(),
            worn: BTreeSet::new(),
            erases: vec![0; blocks],
            operations: 0,
            fault: None,
            off: false,
            empty_fails: false,
            random: 1,
        };
        Flash { geometry, state: Mutex::new(state) }
    }

    /// The same flash with this fault to come; operations are counted from 0 again.
    #[must_use]
    pub fn with_fault(self, fault: FlashFault) -> Self {
        self.state().fault = Some(fault);
        self.state().operations = 0;
        self
    }

    /// The same flash with bad blocks from the factory.
    #[must_use]
    pub fn with_bad(self, blocks: impl IntoIterator<Item = u64>) -> Self {
        self.state().bad.extend(blocks);
        self
    }

    /// The same flash on a controller that fails on pages that were never programmed.
    #[must_use]
    pub fn failing_when_empty(self) -> Self {
        self.state().empty_fails = true;
        self
    }

    /// The same flash, where what a cut leaves is drawn from this seed.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        self.state().random = seed;
        self
    }

    /// The flash as it is found when the power returns. Wear stays.
    #[must_use]
    pub fn after_power_loss(&self) -> Flash {
        let state = State { fault: None, off: false, operations: 0, ..self.state().clone() };
        Flash { geometry: self.geometry, state: Mutex::new(state) }
    }

    /// Erases and programs so far.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// How often each block was erased.
    pub fn erases(&self) -> Vec<u32> {
        self.state().erases.clone()
    }

    /// Blocks that are marked bad.
    pub fn bad(&self) -> Vec<u64> {
        self.state().bad.iter().copied().collect()
    }

    /// All bytes.
    pub fn cells(&self) -> Vec<u8> {
        self.state().cells.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, action: &'static str, at: u64, why: &'static str) -> DeviceError {
        failed(action, &self.describe(), at, io::Error::other(why))
    }

    /// Does `change` to a copy of the bytes at `at`, as far as the fault lets it.
    fn operate(
        &self,
        action: &'static str,
        at: u64,
        len: usize,
        change: impl Fn(&mut [u8]),
    ) -> Result<(), DeviceError> {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let block = at / u64::from(self.geometry.erase);
        let mut state = self.state();
        if state.off {
            return Err(self.refused(action, at, "the power failed"));
        }
        let nth = state.operations;
        state.operations += 1;
        let State { cells, random, worn, fault, off, .. } = &mut *state;
        let Some(cells) = start.checked_add(len).and_then(|end| cells.get_mut(start..end)) else {
            return Err(self.refused(action, at, "past the end"));
        };
        let before = cells.to_vec();
        change(cells);
        let half_done = |cells: &mut [u8], random: &mut u64| {
            for (cell, old) in cells.iter_mut().zip(&before) {
                // Each bit is on its old or its new side.
                let mask = next_random(random).to_le_bytes()[0];
                *cell = *cell & mask | old & !mask;
            }
        };
        match *fault {
            Some(FlashFault::CutDuring(count)) if nth == count => {
                half_done(cells, random);
                *off = true;
                Err(self.refused(action, at, "the power failed"))
            }
            Some(FlashFault::WearOutAt(count)) if nth == count => {
                half_done(cells, random);
                worn.insert(block);
                Err(self.refused(action, at, "the block is worn out"))
            }
            _ if worn.contains(&block) => {
                half_done(cells, random);
                Err(self.refused(action, at, "the block is worn out"))
            }
            Some(FlashFault::FlipAt(count)) if nth == count => {
                if let Some(cell) = cells.last_mut() {
                    *cell ^= 1;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn pages(&self, at: u64, len: u64) -> std::ops::Range<u64> {
        let page = u64::from(self.geometry.page);
        at / page..(at + len).div_ceil(page)
    }
}

impl crate::flash::Flash for Flash {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn is_bad(&self, block: u64) -> Result<bool, DeviceError> {
        Ok(self.state().bad.contains(&block))
    }

    fn mark_bad(&self, block: u64) -> Result<(), DeviceError> {
        let mut state = self.state();
        if state.off {
            return Err(self.refused("mark", block, "the power failed"));
        }
        state.bad.insert(block);
        Ok(())
    }

    fn erase(&self, block: u64) -> Result<(), DeviceError> {
        let erase = self.geometry.erase;
        let at = block * u64::from(erase);
        assert!(!self.state().bad.contains(&block), "a bad block is erased");
        let pages = self.pages(at, u64::from(erase));
        {
            let mut state = self.state();
            state.programmed.retain(|page| !pages.contains(page));
            if let Some(count) = state.erases.get_mut(usize::try_from(block).unwrap_or(usize::MAX))
            {
                *count += 1;
            }
        }
        self.operate("erase", at, erase as usize, |cells| cells.fill(0xff))
    }

    fn program(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        let page = u64::from(self.geometry.page);
        let len = bytes.len() as u64;
        assert!(
            offset.is_multiple_of(page) && len.is_multiple_of(page),
            "half a page is programmed"
        );
        if self.geometry.kind == Kind::Nand {
            let mut state = self.state();
            for page in self.pages(offset, len) {
                assert!(state.programmed.insert(page), "page {page} is programmed twice");
            }
        } else {
            self.state().programmed.extend(self.pages(offset, len));
        }
        self.operate("program", offset, bytes.len(), |cells| {
            for (cell, byte) in cells.iter_mut().zip(bytes) {
                *cell &= byte;
            }
        })
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        let state = self.state();
        if state.off {
            return Err(self.refused("read", offset, "the power failed"));
        }
        let mut pages = self.pages(offset, buf.len() as u64);
        if state.empty_fails && pages.any(|page| !state.programmed.contains(&page)) {
            return Err(self.refused("read", offset, "an empty page"));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(buf.len()).and_then(|end| state.cells.get(start..end));
        match found {
            Some(found) => {
                buf.copy_from_slice(found);
                Ok(())
            }
            None => Err(self.refused("read", offset, "past the end")),
        }
    }

    fn describe(&self) -> String {
        "simulated flash".to_owned()
    }
}
