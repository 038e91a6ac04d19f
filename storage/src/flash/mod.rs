//! Raw flash: NOR and NAND, whose bytes are erased in blocks and programmed once.
//!
//! ```text
//!  MtdFlash (/dev/mtdN)  ─┐
//!  FileFlash (plain file) ├─► Flash: erase, program, read, bad blocks ─► Bank: a BlockDevice
//!  sim::Flash (memory)   ─┘
//! ```
//!
//! | | NOR | NAND |
//! |---|---|---|
//! | erased | all bits of a block 1 | all bits of a block 1 |
//! | programmed | clears bits, any number of bytes | whole pages, each once after an erase |
//! | bad blocks | none; a block that fails is the end of the bank | skipped and marked, from the factory on |
//! | where byte n of an image lies | at byte n | at byte n of the good blocks, as `nandwrite` and U-Boot's `nand read` do it |
//!
//! A cut in an erase leaves anything in that block; a cut in a program leaves some of its bits.

mod bank;
mod file;
mod mtd;

use std::io;

use crate::block::DeviceError;

pub use bank::Bank;
pub use file::FileFlash;
pub use mtd::{MtdFlash, is_mtd};

/// How a flash may be programmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, whose bits may be cleared one after the other.
    Nor,
    /// Whole pages, once after each erase; blocks go bad.
    Nand,
}

/// How a flash is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// How it may be programmed.
    pub kind: Kind,
    /// Bytes in all; whole blocks.
    pub len: u64,
    /// Bytes that are erased as one: 512 to 4 MiB.
    pub erase: u32,
    /// Bytes that are programmed as one; 1 on most NOR.
    pub page: u32,
}

impl Geometry {
    /// Refuses an impossible geometry before anything is computed with it.
    pub fn check(self, device: &str) -> Result<Self, DeviceError> {
        let Geometry { len, erase, page, .. } = self;
        let whole = (512..=4 << 20).contains(&erase)
            && (1..=erase).contains(&page)
            && erase.is_multiple_of(page)
            && len > 0
            && len.is_multiple_of(u64::from(erase));
        if whole {
            return Ok(self);
        }
        let why = format!("{len} bytes in blocks of {erase} and pages of {page} are no flash");
        Err(failed("measure", device, 0, io::Error::other(why)))
    }

    /// Number of blocks.
    pub fn blocks(self) -> u64 {
        self.len / u64::from(self.erase)
    }
}

/// A flash, as its driver gives it.
///
/// Offsets are in bytes. What is out of range is refused as an error of the device.
pub trait Flash: Send + Sync {
    /// How it is divided.
    fn geometry(&self) -> Geometry;

    /// Whether a block must not be used.
    fn is_bad(&self, block: u64) -> Result<bool, DeviceError>;

    /// Marks a block as bad, permanently.
    fn mark_bad(&self, block: u64) -> Result<(), DeviceError>;

    /// Makes all bits of a block 1. A crash leaves anything in it; an error, too.
    fn erase(&self, block: u64) -> Result<(), DeviceError>;

    /// Clears the bits that are 0 in `bytes`; `offset` and length are whole pages. A crash or an
    /// error leaves some of them cleared.
    fn program(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError>;

    /// Fills `buf`. Pages that were never programmed may fail on some controllers.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError>;

    /// What to call it in messages.
    fn describe(&self) -> String;
}

/// An error of a flash.
pub(crate) fn failed(
    action: &'static str,
    device: &str,
    offset: u64,
    source: io::Error,
) -> DeviceError {
    DeviceError::Io { action, device: device.to_owned(), offset, source }
}

#[cfg(test)]
mod tests;
