//! Block devices: real ones, loop devices and plain files, through one trait.
//!
//! ```text
//!  FileDevice (disk, partition, loop, file) ─┐
//!  sim::Disk (memory, power cuts)           ─┴─► BlockDevice ◄── Window (a part of one)
//! ```

mod direct;
pub mod extent;
mod file;
mod in_use;
mod partition;
mod window;

use std::io;
use std::ops::Deref;
use std::path::PathBuf;

use formats::reason::Reason;

pub use direct::Placed;
pub(crate) use file::resolve_dev_link;
pub use file::{Access, FileDevice};
pub use partition::open_partition;
pub use window::Window;

/// Why a device could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device; nothing is ever created in its place.
    #[error("{} does not exist; check the configured disk", .0.display())]
    Missing(PathBuf),
    /// It is reached through a symbolic link that is not one of `/dev`.
    #[error(
        "{} is a symbolic link: name what it leads to, or a link that udev made (/dev/disk/by-id/…)",
        .0.display()
    )]
    Symlink(PathBuf),
    /// It is neither a block device nor a plain file.
    #[error("{} is neither a block device nor a plain file", .0.display())]
    NotDevice(PathBuf),
    /// It is mounted, swapped to, or part of another device.
    #[error("{device} is in use: {by}")]
    InUse {
        /// Which device.
        device: String,
        /// What uses it.
        by: String,
    },
    /// The device has no place for the bytes.
    #[error("{device} has {len} bytes; byte {end} is past its end")]
    Range {
        /// Which device.
        device: String,
        /// One past the last byte wanted.
        end: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// Reading or writing failed.
    #[error("{action} {device} at byte {offset}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which device.
        device: String,
        /// Where.
        offset: u64,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Flushing failed, now or before. What was written since the last good flush may be lost,
    /// even if a later flush succeeds: write everything again through a newly
    /// opened device.
    #[error("flush {device}; what was written must be written again")]
    Sync {
        /// Which device.
        device: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl DeviceError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            DeviceError::InUse { .. } => Reason::SlotActive,
            DeviceError::Range { .. } => Reason::SlotSize,
            DeviceError::Missing(_)
            | DeviceError::Symlink(_)
            | DeviceError::NotDevice(_)
            | DeviceError::Io { .. }
            | DeviceError::Sync { .. } => Reason::SlotIo,
        }
    }
}

/// A device of fixed length whose bytes survive power loss once they are flushed.
///
/// Offsets and lengths are in bytes and need no alignment. All methods may be called from several
/// threads; calls on ranges that do not overlap do not disturb each other.
#[expect(clippy::len_without_is_empty, reason = "a length, not a collection")]
pub trait BlockDevice: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Bytes that the medium writes as one; partition tables count in them.
    fn sector_size(&self) -> u32;

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// Sees everything written before through any handle of the same device, flushed or not.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError>;

    /// The `len` bytes at `offset`, by way of `buffer`, which grows to what it takes. From the medium
    /// itself where the system can read past its memory, and else as [`read_at`](BlockDevice::read_at)
    /// does: for what is long and read once, such as an image that is read back.
    fn read_medium<'b>(
        &self,
        buffer: &'b mut Vec<u8>,
        offset: u64,
        len: usize,
    ) -> Result<&'b [u8], DeviceError> {
        read_into(self, buffer, offset, len)
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// A crash before the next [`sync`](BlockDevice::sync) leaves each sector of the range with its
    /// old or its new bytes, in any combination, also after this returned. An error leaves the
    /// same.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError>;

    /// As [`write_at`](BlockDevice::write_at), past the system's memory where it can: for what is long
    /// and not read soon, such as an image. From memory where they lie as [`Placed`] puts them, bytes
    /// reach the medium without a copy.
    fn write_medium(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        self.write_at(bytes, offset)
    }

    /// Makes `len` bytes from `offset` read as zeros, without writing them where the device can do
    /// that. Crash and error leave the same as for [`write_at`](BlockDevice::write_at).
    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError>;

    /// Makes everything written before durable, through a medium's own cache as well.
    ///
    /// A crash during the call leaves what a crash before it would. After an error every later
    /// call fails too: the system may have forgotten which bytes it could not write.
    fn sync(&self) -> Result<(), DeviceError>;

    /// Whether what is flushed can be read from the medium while more is written, and is then what the medium
    /// has. Not where a device keeps bytes back until [`complete`](BlockDevice::complete), and not in a plain
    /// file: file systems let who reads wait for who writes.
    fn reads_beside_writes(&self) -> bool {
        false
    }

    /// Writes what the device held back until everything else was there, and flushes: the first
    /// block of a flash bank, by which a boot loader knows an image. Called once, after the last
    /// write.
    fn complete(&self) -> Result<(), DeviceError> {
        self.sync()
    }

    /// Asks that later reads of this range come from the medium, not from memory. Only flushed
    /// bytes can be forgotten; a device that cannot forget does nothing.
    fn forget_cached(&self, _offset: u64, _len: u64) {}

    /// What to call it in messages.
    fn describe(&self) -> String;
}

/// What leads to a device is one: `Arc`, `Box`, and those that do something when they are dropped.
impl<P> BlockDevice for P
where
    P: Deref<Target: BlockDevice> + Send + Sync,
{
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn sector_size(&self) -> u32 {
        (**self).sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        (**self).read_at(buf, offset)
    }

    fn read_medium<'b>(
        &self,
        buffer: &'b mut Vec<u8>,
        offset: u64,
        len: usize,
    ) -> Result<&'b [u8], DeviceError> {
        (**self).read_medium(buffer, offset, len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        (**self).write_at(bytes, offset)
    }

    fn write_medium(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        (**self).write_medium(bytes, offset)
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        (**self).zero_range(offset, len)
    }

    fn sync(&self) -> Result<(), DeviceError> {
        (**self).sync()
    }

    fn reads_beside_writes(&self) -> bool {
        (**self).reads_beside_writes()
    }

    fn complete(&self) -> Result<(), DeviceError> {
        (**self).complete()
    }

    fn forget_cached(&self, offset: u64, len: u64) {
        (**self).forget_cached(offset, len);
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// Bytes of a device through a buffer, as [`BlockDevice::read_at`] reads them.
pub(crate) fn read_into<'b>(
    device: &(impl BlockDevice + ?Sized),
    buffer: &'b mut Vec<u8>,
    offset: u64,
    len: usize,
) -> Result<&'b [u8], DeviceError> {
    check_range(device, offset, len as u64)?;
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let bytes = &mut buffer[..len];
    device.read_at(bytes, offset)?;
    Ok(bytes)
}

/// Refuses a range that ends past the device.
pub(crate) fn check_range(
    device: &(impl BlockDevice + ?Sized),
    offset: u64,
    len: u64,
) -> Result<(), DeviceError> {
    match offset.checked_add(len) {
        Some(end) if end <= device.len() => Ok(()),
        end => Err(DeviceError::Range {
            device: device.describe(),
            end: end.unwrap_or(u64::MAX),
            len: device.len(),
        }),
    }
}

#[cfg(test)]
mod tests;
