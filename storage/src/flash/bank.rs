//! A flash as a device of bytes: what is written is collected in whole blocks.
//!
//! ```text
//!  write   its block into memory ─► … another block is needed, or sync ─► same bytes? nothing
//!                                                                         else: erase ─► program ─► read back
//!  first write     the first block is erased, and kept in memory
//!  complete        every other block ─► the first one, with the header by which a boot loader knows the image
//! ```
//!
//! Of the first block of NOR its first 64 bytes go last of all. NAND wants its pages in order: there a
//! cut may leave the first pages of the first block, and what reads them has to check the rest.
//!
//! A bank is bootable for those who look at it only between [`BlockDevice::complete`] and the next
//! write. Blocks that hold what they should are not erased again, so an attempt that fails wears
//! out the first block only.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Flash, Geometry, Kind, failed};
use crate::block::{BlockDevice, DeviceError, check_range};

/// Blocks that are collected at a time; of 256 KiB, 1 MiB.
const OPEN_LIMIT: usize = 4;
/// A change of up to so many bytes that only clears bits of NOR is programmed over them: the flag
/// of a copy of U-Boot's environment is made obsolete without erasing the copy.
const IN_PLACE_LIMIT: usize = 4;

/// Bytes at the beginning of an image by which boot loaders know it: U-Boot's header has 64.
const HEAD: usize = 64;

/// The good blocks of a flash, in order.
#[derive(Debug)]
pub struct Bank<F> {
    flash: F,
    geometry: Geometry,
    /// Which block of the flash each block of the bank is.
    blocks: Vec<u64>,
    /// Whether the first block is held back until the end.
    header_last: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Blocks that were written and not programmed yet.
    open: BTreeMap<usize, Vec<u8>>,
    /// The order in which they were opened.
    order: Vec<usize>,
    /// The first block, while it is held back: what is to be in it.
    header: Option<Vec<u8>>,
    failed: bool,
}

impl<F: Flash> Bank<F> {
    /// The good blocks of a flash, whose first one is written last.
    pub fn new(flash: F) -> Result<Self, DeviceError> {
        Self::open(flash, true)
    }

    /// The good blocks of a flash for other data than an image: no order of blocks.
    pub fn without_header(flash: F) -> Result<Self, DeviceError> {
        Self::open(flash, false)
    }

    fn open(flash: F, header_last: bool) -> Result<Self, DeviceError> {
        let geometry = flash.geometry().check(&flash.describe())?;
        let mut blocks = Vec::new();
        for block in 0..geometry.blocks() {
            match (flash.is_bad(block)?, geometry.kind) {
                (false, _) => blocks.push(block),
                (true, Kind::Nand) => {}
                (true, Kind::Nor) => {
                    let at = block * u64::from(geometry.erase);
                    let why = io::Error::other("a block of NOR is bad: an image cannot skip it");
                    return Err(failed("use", &flash.describe(), at, why));
                }
            }
        }
        let state = Mutex::default();
        Ok(Bank { flash, geometry, blocks, header_last, state })
    }

    /// The flash below.
    pub fn flash(&self) -> &F {
        &self.flash
    }

    /// Blocks that are skipped.
    pub fn bad_blocks(&self) -> u64 {
        self.geometry.blocks() - self.blocks.len() as u64
    }

    fn erase_len(&self) -> usize {
        self.geometry.erase as usize
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str, offset: u64, why: &'static str) -> DeviceError {
        failed(action, &self.flash.describe(), offset, io::Error::other(why))
    }

    /// Where a block begins on the flash.
    fn place(&self, block: usize) -> Result<u64, DeviceError> {
        match self.blocks.get(block) {
            Some(physical) => Ok(physical * u64::from(self.geometry.erase)),
            None => Err(self.failed("find", 0, "the block is past the end")),
        }
    }

    /// A block as it is on the flash. A page that cannot be read counts as empty: some controllers
    /// fail on pages that were never programmed. What it should hold is decided by a digest later.
    fn load(&self, block: usize) -> Result<Vec<u8>, DeviceError> {
        let place = self.place(block)?;
        let mut bytes = vec![0xff; self.erase_len()];
        if self.flash.read(&mut bytes, place).is_ok() {
            return Ok(bytes);
        }
        let page = (self.geometry.page as usize).max(512).min(bytes.len());
        let mut unread = 0;
        let mut at = place;
        let pages = bytes.len().div_ceil(page);
        for piece in bytes.chunks_mut(page) {
            if self.flash.read(piece, at).is_err() {
                piece.fill(0xff);
                unread += 1;
            }
            at += piece.len() as u64;
        }
        // A block of which nothing can be read, on a flash that does not know emptiness, is broken.
        if unread == pages && self.geometry.kind == Kind::Nor {
            return Err(self.failed("read", place, "no byte of the block can be read"));
        }
        Ok(bytes)
    }

    /// Makes a block hold `bytes`, and finds them there; its first `head` bytes last.
    fn put(&self, block: usize, bytes: &[u8], head: usize) -> Result<(), DeviceError> {
        let physical = *self
            .blocks
            .get(block)
            .ok_or_else(|| self.failed("find", 0, "the block is past the end"))?;
        let place = self.place(block)?;
        let old = self.load(block)?;
        if old == bytes {
            return Ok(());
        }
        if !self.clears_few_bits(&old, bytes)
            && let Err(error) = self.flash.erase(physical)
        {
            return Err(self.gone_bad(physical, error));
        }
        let (first, rest) = bytes.split_at(head.min(bytes.len()));
        let (old_first, old_rest) = old.split_at(first.len());
        let in_place = self.clears_few_bits(&old, bytes);
        self.program(physical, place + first.len() as u64, rest, old_rest, in_place)?;
        self.program(physical, place, first, old_first, in_place)?;
        let mut found = vec![0; bytes.len()];
        self.flash.read(&mut found, place)?;
        if found == bytes {
            Ok(())
        } else {
            Err(self.failed("read back", place, "what was programmed is not there"))
        }
    }

    fn program(
        &self,
        physical: u64,
        place: u64,
        bytes: &[u8],
        old: &[u8],
        in_place: bool,
    ) -> Result<(), DeviceError> {
        let page = self.geometry.page as usize;
        // NOR takes any length; larger pieces are fewer calls.
        let piece = page.max(if in_place { 1 } else { 4096.min(self.erase_len()) });
        let mut at = place;
        for (new, old) in bytes.chunks(piece).zip(old.chunks(piece)) {
            let needed = if in_place { new != old } else { new.iter().any(|byte| *byte != 0xff) };
            if needed && let Err(error) = self.flash.program(new, at) {
                return Err(self.gone_bad(physical, error));
            }
            at += new.len() as u64;
        }
        Ok(())
    }

    fn clears_few_bits(&self, old: &[u8], new: &[u8]) -> bool {
        let changed = old.iter().zip(new).filter(|(old, new)| old != new);
        let clears = old.iter().zip(new).all(|(old, new)| old & new == *new);
        self.geometry.kind == Kind::Nor
            && self.geometry.page == 1
            && clears
            && changed.count() <= IN_PLACE_LIMIT
    }

    /// A block that cannot be erased or programmed is marked. Nothing is moved now: on NAND the
    /// next run finds the bank one block shorter and writes it anew, in its order.
    fn gone_bad(&self, physical: u64, error: DeviceError) -> DeviceError {
        // EIO is what drivers say of a block; a flash that is write-protected is not a bad one.
        let block = match &error {
            DeviceError::Io { source, .. } => source
                .raw_os_error()
                .is_none_or(|code| code == rustix::io::Errno::IO.raw_os_error()),
            _ => false,
        };
        if block
            && self.geometry.kind == Kind::Nand
            && let Err(unmarked) = self.flash.mark_bad(physical)
        {
            return unmarked;
        }
        error
    }

    /// Programs what is collected but the first block.
    fn flush(&self, state: &mut State) -> Result<(), DeviceError> {
        for block in std::mem::take(&mut state.order) {
            if let Some(bytes) = state.open.remove(&block) {
                self.put(block, &bytes, 0)?;
            }
        }
        Ok(())
    }

    /// The bytes of a block that are collected in memory, opened when it is not.
    fn open_block<'a>(
        &self,
        state: &'a mut State,
        block: usize,
    ) -> Result<&'a mut Vec<u8>, DeviceError> {
        if self.header_last && state.header.is_none() {
            let header = self.load(0)?;
            // From here on no boot loader takes the bank for an image.
            if header.iter().any(|byte| *byte != 0xff)
                && let Some(physical) = self.blocks.first()
                && let Err(error) = self.flash.erase(*physical)
            {
                return Err(self.gone_bad(*physical, error));
            }
            state.header = Some(header);
        }
        if block == 0 && state.header.is_some() {
            return state.header.as_mut().ok_or_else(|| self.failed("hold", 0, "no first block"));
        }
        if !state.open.contains_key(&block) {
            if state.order.len() >= OPEN_LIMIT {
                let oldest = state.order.remove(0);
                if let Some(bytes) = state.open.remove(&oldest) {
                    self.put(oldest, &bytes, 0)?;
                }
            }
            state.open.insert(block, self.load(block)?);
            state.order.push(block);
        }
        state.open.get_mut(&block).ok_or_else(|| self.failed("hold", 0, "no such block"))
    }

    fn write(
        &self,
        offset: u64,
        len: u64,
        fill: impl Fn(u64, &mut [u8]),
    ) -> Result<(), DeviceError> {
        check_range(self, offset, len)?;
        let mut state = self.state();
        if state.failed {
            return Err(self.failed("write", offset, "an earlier write failed; open it again"));
        }
        let result = self.pieces(offset, len).try_for_each(|(block, start, end, at)| {
            let bytes = self.open_block(&mut state, block)?;
            if let Some(part) = bytes.get_mut(start..end) {
                fill(at, part);
            }
            Ok(())
        });
        state.failed = result.is_err();
        result
    }

    /// The parts of a range: block, first and last byte in it, and how far into the range.
    fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = (usize, usize, usize, u64)> {
        let erase = u64::from(self.geometry.erase);
        let end = offset + len;
        let mut at = offset;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let (block, start) = (at / erase, at % erase);
                let stop = (start + (end - at)).min(erase);
                let piece = (block as usize, start as usize, stop as usize, at - offset);
                at += stop - start;
                piece
            })
        })
    }
}

impl<F: Flash> BlockDevice for Bank<F> {
    fn len(&self) -> u64 {
        self.blocks.len() as u64 * u64::from(self.geometry.erase)
    }

    fn sector_size(&self) -> u32 {
        self.geometry.page.max(512)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        check_range(self, offset, buf.len() as u64)?;
        let state = self.state();
        for (block, start, end, at) in self.pieces(offset, buf.len() as u64) {
            let held = state.open.get(&block).or(state.header.as_ref().filter(|_| block == 0));
            let loaded;
            let bytes = match held {
                Some(bytes) => bytes,
                None => {
                    loaded = self.load(block)?;
                    &loaded
                }
            };
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let target = buf.get_mut(at..).and_then(|rest| rest.get_mut(..end - start));
            if let (Some(target), Some(source)) = (target, bytes.get(start..end)) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        self.write(offset, bytes.len() as u64, |at, part| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            if let Some(source) = bytes.get(at..).and_then(|rest| rest.get(..part.len())) {
                part.copy_from_slice(source);
            }
        })
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        self.write(offset, len, |_, part| part.fill(0))
    }

    /// Programs what was written, but the first block of an image: [`BlockDevice::complete`] does.
    fn sync(&self) -> Result<(), DeviceError> {
        let mut state = self.state();
        if state.failed {
            let source = io::Error::other("an earlier write failed");
            return Err(DeviceError::Sync { device: self.flash.describe(), source });
        }
        let result = self.flush(&mut state);
        state.failed = result.is_err();
        result
    }

    fn complete(&self) -> Result<(), DeviceError> {
        self.sync()?;
        let mut state = self.state();
        let Some(header) = state.header.take() else { return Ok(()) };
        let head = match self.geometry.kind {
            Kind::Nor => HEAD.next_multiple_of(self.geometry.page as usize),
            Kind::Nand => 0,
        };
        let result = self.put(0, &header, head);
        state.failed = result.is_err();
        result
    }

    fn describe(&self) -> String {
        self.flash.describe()
    }
}
