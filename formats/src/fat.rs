//! As much of FAT12, FAT16 and FAT32 as it takes to find where a small file of the root directory lies, for
//! writing it in place. Nothing here changes a file system.
//!
//! | offset | bytes | of the boot sector |
//! |---|---|---|
//! | 11 | 2 | bytes per sector: 512, 1024, 2048 or 4096 |
//! | 13 | 1 | sectors per cluster: a power of two |
//! | 14 | 2 | reserved sectors, the boot sector among them |
//! | 16 | 1 | copies of the allocation table |
//! | 17 | 2 | entries of the root directory; 0 on FAT32 |
//! | 19, 32 | 2, 4 | sectors of the volume; the first one that is not 0 |
//! | 22, 36 | 2, 4 | sectors of an allocation table; the second one on FAT32 |
//! | 44 | 4 | FAT32: first cluster of the root directory |
//! | 510 | 2 | `55 AA` |
//!
//! | offset | bytes | of a directory entry of 32 bytes |
//! |---|---|---|
//! | 0 | 11 | name, padded with spaces; first byte 0: the end, E5: no entry |
//! | 11 | 1 | attributes: 08 label (with 07: a part of a long name), 10 directory |
//! | 20, 26 | 2, 2 | first cluster, its high and its low half |
//! | 28 | 4 | length in bytes |
//!
//! Numbers are little-endian. Source: Microsoft FAT specification, version 1.03. Departs from it: FAT32 is told from
//! the others by its field for the table's length, as Linux does, and not by its number of clusters. There are
//! FAT32 volumes of 1 MiB.

use std::ops::Range;

#[cfg(test)]
mod tests;

/// Bytes of a boot sector that matter.
pub const BOOT_SECTOR: usize = 512;
/// Bytes of a directory entry.
const ENTRY: usize = 32;
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

/// Why bytes are no FAT volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FatError {
    /// No boot sector of a FAT.
    #[error("it is no FAT file system")]
    NotFat,
    /// The volume is longer than what it lies on.
    #[error("its file system has {claimed} bytes and it has {there}")]
    Short {
        /// Bytes by its boot sector.
        claimed: u64,
        /// Bytes there are.
        there: u64,
    },
}

/// Where the parts of a volume lie, in bytes from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    table: u64,
    data: u64,
    cluster: u64,
    clusters: u64,
    root: Root,
}

/// Where the root directory lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// FAT12 and FAT16: in one piece.
    Region(Range<u64>),
    /// FAT32: in the clusters that begin with this one.
    Chain(u32),
}

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry {
    /// Its first cluster; 0 where it has none.
    pub cluster: u32,
    /// Its length in bytes.
    pub len: u32,
}

/// What a piece of a directory says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is this file.
    File(FileEntry),
    /// The directory ends without it.
    End,
    /// It is not in this piece.
    More,
}

impl Volume {
    /// The volume by its boot sector; `len` is what it lies on, in bytes.
    pub fn parse(sector: &[u8; BOOT_SECTOR], len: u64) -> Result<Self, FatError> {
        let u8_at = |at: usize| u64::from(sector.get(at).copied().unwrap_or(0));
        let u16_at = |at: usize| u8_at(at) | u8_at(at + 1) << 8;
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let or = |first: u64, second: u64| if first == 0 { second } else { first };
        let (bytes, per_cluster, reserved) = (u16_at(11), u8_at(13), u16_at(14));
        let (copies, entries, sectors) = (u8_at(16), u16_at(17), or(u16_at(19), u32_at(32)));
        let is_fat32 = u16_at(22) == 0;
        let table = or(u16_at(22), u32_at(36));
        let sane = u16_at(510) == 0xaa55
            && [512, 1024, 2048, 4096].contains(&bytes)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=2).contains(&copies)
            && table > 0;
        if !sane {
            return Err(FatError::NotFat);
        }
        // At most 32 bits times 12 bits: no sum here overflows.
        if sectors * bytes > len {
            return Err(FatError::Short { claimed: sectors * bytes, there: len });
        }
        let root = reserved + copies * table;
        let data = root + (entries * ENTRY as u64).div_ceil(bytes);
        let clusters = sectors.checked_sub(data).ok_or(FatError::NotFat)? / per_cluster;
        if clusters == 0 || is_fat32 != (entries == 0) {
            return Err(FatError::NotFat);
        }
        let root = match is_fat32 {
            true => Root::Chain(u32::try_from(u32_at(44)).unwrap_or(0)),
            false => Root::Region(root * bytes..data * bytes),
        };
        let (table, data, cluster) = (reserved * bytes, data * bytes, per_cluster * bytes);
        Ok(Volume { table, data, cluster, clusters, root })
    }

    /// The root directory.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The bytes of a cluster; none where there is no such cluster.
    pub fn cluster(&self, number: u32) -> Option<Range<u64>> {
        let nth = u64::from(number).checked_sub(2).filter(|nth| *nth < self.clusters)?;
        let start = self.data + nth * self.cluster;
        Some(start..start + self.cluster)
    }

    /// FAT32: where the 4 bytes lie that name the cluster after this one.
    pub fn link(&self, number: u32) -> u64 {
        self.table + u64::from(number) * 4
    }

    /// FAT32: the next cluster by these 4 bytes; none at the end.
    pub fn next(&self, link: [u8; 4]) -> Option<u32> {
        let number = u32::from_le_bytes(link) & 0x0fff_ffff;
        self.cluster(number).map(|_| number)
    }
}

/// Looks a name up in a piece of a directory: 8 and 3 capitals, padded with spaces, as in `b"AUTOBOOTTXT"`.
///
/// A long name that is the same in other capitals has this short one, too.
pub fn find(directory: &[u8], name: &[u8; 11]) -> Found {
    let (entries, _) = directory.as_chunks::<ENTRY>();
    for entry in entries {
        let [first, ..] = entry;
        if *first == 0 {
            return Found::End;
        }
        let attributes = entry[11];
        if entry.starts_with(name) && attributes & (LABEL | DIRECTORY) == 0 {
            let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
            let len = u32::from_le_bytes([entry[28], entry[29], entry[30], entry[31]]);
            return Found::File(FileEntry { cluster: half(20) << 16 | half(26), len });
        }
    }
    Found::More
}
