//! `autoboot.txt` on its FAT partition, changed in place.
//!
//! The file is found by reading the file system, and its only sector is written: one write, which a medium does as
//! a whole or not at all. No directory entry, no allocation table and no mark of a mount changes with it, so there
//! is nothing that a power cut could leave in two states. That is why this does not go through a mounted file
//! system: a new file that replaces the old one takes several sectors, and FAT cannot rename in one of them.
//!
//! For the same reason the file must not grow: it keeps its length, which is that of whoever made it. 256 bytes are
//! enough. The partition must not be mounted meanwhile; whoever opens the device claims it.

use formats::autoboot::{Autoboot, AutobootError, FILE_LIMIT};
use formats::fat::{self, BOOT_SECTOR, FatError, FileEntry, Found, Root, Volume};
use formats::reason::Reason;

use crate::block::{BlockDevice, DeviceError};

#[cfg(test)]
mod tests;

/// Its name in a directory of a FAT.
const NAME: &[u8; 11] = b"AUTOBOOTTXT";
/// 512 bytes: what is written, the least sector of any medium.
const SECTOR: usize = FILE_LIMIT;
/// 64 KiB: 2048 entries, more than a partition for one file has.
const DIRECTORY_LIMIT: u64 = 64 << 10;

/// Why the file could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AutobootStoreError {
    /// It lies on no FAT.
    #[error("{device}: {source}")]
    Fat {
        /// Where.
        device: String,
        /// Why not.
        source: FatError,
    },
    /// There is no such file, or it has no cluster.
    #[error("{0} has no autoboot.txt in its root directory")]
    Missing(String),
    /// It is none that may be changed.
    #[error("autoboot.txt of {device}: {source}")]
    File {
        /// Where.
        device: String,
        /// Why not.
        source: AutobootError,
    },
    /// What was read back is not what was written.
    #[error("autoboot.txt of {0} reads back differently; check the medium")]
    Readback(String),
    /// The medium failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl AutobootStoreError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            AutobootStoreError::Fat { .. }
            | AutobootStoreError::Missing(_)
            | AutobootStoreError::File { .. } => Reason::BootRecord,
            AutobootStoreError::Readback(_) => Reason::Readback,
            AutobootStoreError::Device(error) => error.reason(),
        }
    }
}

/// The bytes of the file, as the boot loader reads them.
pub fn read(device: &dyn BlockDevice) -> Result<Vec<u8>, AutobootStoreError> {
    let (offset, len) = place(device)?;
    let mut bytes = vec![0; len];
    device.read_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// The file.
pub fn load(device: &dyn BlockDevice) -> Result<Autoboot, AutobootStoreError> {
    let wrong = |source| AutobootStoreError::File { device: device.describe(), source };
    Autoboot::parse(&read(device)?).map_err(wrong)
}

/// Changes the file and gives what was read back. Nothing is written when `change` changes nothing.
///
/// A crash in the middle leaves the old file or the new one, on a medium that writes a sector as a whole. On one that
/// leaves garbage in it there is no second copy: the boot loader knows none.
pub fn edit(
    device: &dyn BlockDevice,
    change: impl FnOnce(&mut Autoboot) -> Result<(), AutobootError>,
) -> Result<Autoboot, AutobootStoreError> {
    let wrong = |source| AutobootStoreError::File { device: device.describe(), source };
    let (offset, len) = place(device)?;
    let mut sector = [0; SECTOR];
    device.read_at(&mut sector, offset)?;
    let before = sector;
    let (text, _) = sector.split_at_mut(len);
    let mut wanted = Autoboot::parse(text).map_err(wrong)?;
    let found = wanted.clone();
    change(&mut wanted).map_err(wrong)?;
    if wanted == found {
        return Ok(found);
    }
    text.copy_from_slice(&wanted.encode(len).map_err(wrong)?);
    if sector == before {
        return Ok(wanted);
    }
    // Once more where it reads back differently: what is there then may name no partition at all.
    for _ in 0..2 {
        device.write_at(&sector, offset)?;
        device.sync()?;
        device.forget_cached(offset, SECTOR as u64);
        let mut there = [0; SECTOR];
        device.read_at(&mut there, offset)?;
        if there == sector {
            return Ok(wanted);
        }
    }
    Err(AutobootStoreError::Readback(device.describe()))
}

/// Where the file begins, and its length: within its first sector.
fn place(device: &dyn BlockDevice) -> Result<(u64, usize), AutobootStoreError> {
    let fat = |source| AutobootStoreError::Fat { device: device.describe(), source };
    let missing = || AutobootStoreError::Missing(device.describe());
    if device.len() < BOOT_SECTOR as u64 {
        return Err(fat(FatError::NotFat));
    }
    let mut sector = [0; BOOT_SECTOR];
    device.read_at(&mut sector, 0)?;
    let volume = Volume::parse(&sector, device.len()).map_err(fat)?;
    let FileEntry { cluster, len } = find(device, &volume)?.ok_or_else(missing)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len == 0 || len > FILE_LIMIT {
        let source = AutobootError::Size(len);
        return Err(AutobootStoreError::File { device: device.describe(), source });
    }
    Ok((volume.cluster(cluster).ok_or_else(missing)?.start, len))
}

fn find(device: &dyn BlockDevice, volume: &Volume) -> Result<Option<FileEntry>, DeviceError> {
    let mut looked_at = 0;
    let mut piece = match volume.root() {
        Root::Region(range) => Some((range.clone(), None)),
        Root::Chain(first) => volume.cluster(*first).map(|range| (range, Some(*first))),
    };
    while let Some((range, cluster)) = piece {
        // A chain that leads back into itself ends here, too.
        looked_at += range.end - range.start;
        let Ok(len) = usize::try_from(range.end - range.start) else { return Ok(None) };
        if looked_at > DIRECTORY_LIMIT {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        device.read_at(&mut bytes, range.start)?;
        match fat::find(&bytes, NAME) {
            Found::File(file) => return Ok(Some(file)),
            Found::End => return Ok(None),
            Found::More => {}
        }
        piece = match cluster {
            None => None,
            Some(cluster) => {
                let mut link = [0; 4];
                device.read_at(&mut link, volume.link(cluster))?;
                let next = volume.next(link);
                next.and_then(|next| Some((volume.cluster(next)?, Some(next))))
            }
        };
    }
    Ok(None)
}
