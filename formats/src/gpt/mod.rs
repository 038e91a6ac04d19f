//! GUID partition tables (UEFI 2.10 §5.3), read strictly and written back without loss.
//!
//! ```text
//!  LBA 0         protective MBR (never touched)
//!  LBA 1         primary header ──► primary entry array, before the first usable LBA
//!  …             partitions, between the first and the last usable LBA
//!  after them    backup entry array ◄── backup header, usually the last LBA
//! ```
//!
//! Both copies say the same, each with a CRC over its header and one over its array. A copy is
//! valid when both sums hold and nothing in it contradicts the disk; [`choose`] decides between
//! two. Whoever finds a valid primary copy uses it, as boot loaders do: the loser is rewritten.
//!
//! A [`Table`] keeps header and entries as received, so bits, names and entries that we do not
//! know come back byte for byte. See [`header`] and [`entry`] for the layouts.

mod choice;
pub mod entry;
mod guid;
pub mod header;

pub use choice::{Choice, CopyRead, NoTable, choose, choose_by};
pub use entry::Partition;
pub use guid::{Guid, GuidError};
use header::Header;

/// The most entries a table may have here; 128 is usual, no tool makes more than some hundred.
pub const ENTRY_COUNT_LIMIT: u32 = 1024;

/// 1 MiB: the longest entry array; bounds what a hostile header makes us read.
pub const ARRAY_LIMIT: u64 = 1 << 20;

/// Why bytes are no partition table we use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// There is no `EFI PART` where the header must be.
    #[error("no GPT header")]
    Signature,
    /// A header field has a value that is not allowed or contradicts the disk.
    #[error("GPT header field {field} has the value {value}, which is refused")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The header's checksum does not hold.
    #[error("GPT header checksum is wrong")]
    HeaderCrc,
    /// The entry array's checksum does not hold.
    #[error("GPT entry array checksum is wrong")]
    ArrayCrc,
    /// A partition ends before it begins or reaches out of the usable range.
    #[error("partition {number} (LBA {first} to {last}) is outside of the usable range")]
    Bounds {
        /// Which partition, from 1.
        number: u32,
        /// Its first LBA.
        first: u64,
        /// Its last LBA.
        last: u64,
    },
    /// Two partitions share sectors.
    #[error("partitions {0} and {1} overlap")]
    Overlap(u32, u32),
    /// No partition of that label.
    #[error("there is no partition with the label {0:?}")]
    NoLabel(String),
    /// Two partitions of that label, or two of its GUID.
    #[error("partition {0:?} is not unique: another has the same label or GUID")]
    Ambiguous(String),
    /// No partition of that number.
    #[error("there is no partition {0}")]
    NoNumber(u32),
    /// The table to be made does not fit the disk.
    #[error("the partitions do not fit a disk of {0} sectors")]
    NoRoom(u64),
}

/// What a table is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes per sector, a power of two from 512 to 4096.
    pub sector_size: u32,
    /// Sectors of the disk.
    pub sectors: u64,
}

impl Geometry {
    /// The geometry of a disk of `len` bytes; refuses sector sizes no disk has and disks with no
    /// room for a table.
    pub fn new(len: u64, sector_size: u32) -> Result<Self, GptError> {
        if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
            return Err(GptError::Field { field: "sector size", value: u64::from(sector_size) });
        }
        let sectors = len / u64::from(sector_size);
        if sectors < 6 {
            Err(GptError::NoRoom(sectors))
        } else {
            Ok(Geometry { sector_size, sectors })
        }
    }

    /// The last LBA.
    pub fn last_lba(self) -> u64 {
        self.sectors.saturating_sub(1)
    }

    /// Where an LBA begins, in bytes. Exact for every LBA of the disk.
    pub fn offset(self, lba: u64) -> u64 {
        lba.saturating_mul(u64::from(self.sector_size))
    }

    /// Sectors that `bytes` fill.
    fn sectors_of(self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.sector_size))
    }
}

/// One of the two copies of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableCopy {
    /// At the start of the disk; wins when it is valid.
    Primary,
    /// At the end of the disk.
    Backup,
}

/// A valid table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    geometry: Geometry,
    /// Of the copy it was read from.
    header: Header,
    /// The array as it stands on the disk, `entry_count × entry_size` bytes.
    entries: Vec<u8>,
    /// Where the other copy's array lies, if its header told.
    other_array: Option<u64>,
}

/// The bytes of one copy and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where the array goes, in bytes.
    pub array_offset: u64,
    /// The entry array, whole sectors.
    pub array: Vec<u8>,
    /// Where the header goes, in bytes.
    pub header_offset: u64,
    /// The header, one sector.
    pub header: Vec<u8>,
}

impl Table {
    /// Checks an entry array against its header.
    ///
    /// `array` has exactly [`Header::array_len`] bytes.
    pub fn parse(geometry: Geometry, header: Header, array: &[u8]) -> Result<Self, GptError> {
        if array.len() as u64 != header.array_len() {
            return Err(GptError::Field { field: "array length", value: array.len() as u64 });
        }
        if crc32fast::hash(array) != header.array_crc() {
            return Err(GptError::ArrayCrc);
        }
        let table = Table { geometry, header, entries: array.to_vec(), other_array: None };
        table.check_entries()?;
        Ok(table)
    }

    fn check_entries(&self) -> Result<(), GptError> {
        let usable = self.header.first_usable()..=self.header.last_usable();
        let mut taken: Vec<(u64, u64, u32)> = Vec::new();
        for Partition { number, first_lba: first, last_lba: last, .. } in self.partitions() {
            if first > last || !usable.contains(&first) || !usable.contains(&last) {
                return Err(GptError::Bounds { number, first, last });
            }
            taken.push((first, last, number));
        }
        taken.sort_unstable();
        match taken.windows(2).find(|pair| pair[1].0 <= pair[0].1) {
            Some(pair) => Err(GptError::Overlap(pair[0].2, pair[1].2)),
            None => Ok(()),
        }
    }

    /// What it was checked against.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// First byte that a partition may have, and one past the last.
    pub fn usable(&self) -> (u64, u64) {
        let (first, last) = (self.header.first_usable(), self.header.last_usable());
        (self.geometry.offset(first), self.geometry.offset(last.saturating_add(1)))
    }

    /// The disk's GUID.
    pub fn disk_guid(&self) -> Guid {
        self.header.disk_guid()
    }

    /// The partitions in use, in the order of their numbers.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
        let entries = self.entries.chunks_exact(self.header.entry_size() as usize);
        (1..).zip(entries).filter_map(|(number, bytes)| Partition::parse(number, bytes))
    }

    /// The partition of that number, from 1.
    pub fn partition(&self, number: u32) -> Result<Partition, GptError> {
        self.partitions()
            .find(|partition| partition.number == number)
            .ok_or(GptError::NoNumber(number))
    }

    /// The only partition of that label. Refused when another has its label or its GUID: nobody
    /// could say which one a boot loader or a kernel means.
    pub fn find(&self, label: &str) -> Result<Partition, GptError> {
        let found = self.partitions().find(|partition| partition.label() == Some(label));
        let found = found.ok_or_else(|| GptError::NoLabel(label.to_owned()))?;
        self.unique(found)
    }

    /// The only partition of that GUID (`root=PARTUUID=…`), if there is one; refused as in
    /// [`Table::find`].
    pub fn find_guid(&self, guid: Guid) -> Result<Option<Partition>, GptError> {
        let found = self.partitions().find(|partition| partition.guid == guid);
        found.map(|found| self.unique(found)).transpose()
    }

    fn unique(&self, found: Partition) -> Result<Partition, GptError> {
        let twin = |other: &Partition| {
            let label = other.label().is_some() && other.label() == found.label();
            other.number != found.number && (label || other.guid == found.guid)
        };
        if self.partitions().any(|other| twin(&other)) {
            let label = found.label().map_or_else(|| found.guid.to_string(), str::to_owned);
            return Err(GptError::Ambiguous(label));
        }
        Ok(found)
    }

    /// The same table with other attributes of some partitions, and not one other byte of any
    /// entry changed.
    pub fn with_attributes(&self, changes: &[(u32, u64)]) -> Result<Table, GptError> {
        let mut table = self.clone();
        for (number, attributes) in changes {
            self.partition(*number)?;
            let size = self.header.entry_size() as usize;
            let start = (*number as usize - 1) * size;
            entry::set_attributes(&mut table.entries[start..start + size], *attributes);
        }
        Ok(table)
    }

    /// Whether two copies say the same, wherever they lie.
    pub fn same_content(&self, other: &Table) -> bool {
        self.entries == other.entries
            && self.header.canonical() == other.header.canonical()
            && self.backup_lba() == other.backup_lba()
    }

    /// Where the backup header lies.
    pub fn backup_lba(&self) -> u64 {
        self.header.backup_lba()
    }

    /// The bytes of one copy. An array goes where its copy has it, as far as that could be read;
    /// else where every tool puts it, directly behind the primary or before the backup header.
    pub fn image(&self, copy: TableCopy) -> Image {
        let geometry = self.geometry;
        let mut array = self.entries.clone();
        let array_crc = crc32fast::hash(&array);
        let sectors = geometry.sectors_of(array.len() as u64);
        array.resize(geometry.offset(sectors) as usize, 0);
        let own = (copy == self.header.copy()).then(|| self.header.array_lba());
        let known = own.or(self.other_array);
        let place = known.unwrap_or_else(|| self.header.usual_array_lba(copy, sectors));
        let header = self.header.placed(copy, place, array_crc);
        Image {
            array_offset: geometry.offset(header.array_lba()),
            array,
            header_offset: geometry.offset(header.lba()),
            header: header.to_sector(geometry),
        }
    }

    /// A new table for tools and tests: 128 entries of 128 bytes, and the partitions one after
    /// the other, each beginning at a whole MiB or at its own place.
    ///
    /// Errors: no room on the disk, or two partitions that overlap.
    pub fn create(
        geometry: Geometry,
        disk_guid: Guid,
        partitions: &[NewPartition<'_>],
    ) -> Result<Table, GptError> {
        const COUNT: u32 = 128;
        let no_room = GptError::NoRoom(geometry.sectors);
        let sectors = geometry.sectors_of(u64::from(COUNT) * entry::SIZE as u64);
        if geometry.sectors < 2 * sectors + 4 {
            return Err(no_room);
        }
        let usable = 2 + sectors..=geometry.last_lba() - 1 - sectors;
        let header = Header::create(geometry, disk_guid, usable.clone(), COUNT);
        let aligned = u64::from((1 << 20) / geometry.sector_size);
        let mut entries = Vec::new();
        let mut free = *usable.start();
        for new in partitions {
            let first = match new.at {
                Some(at) => geometry.sectors_of(at),
                None => free.next_multiple_of(aligned),
            };
            let len = geometry.sectors_of(new.len);
            let last = first.checked_add(len).and_then(|end| end.checked_sub(1));
            let last = last.filter(|last| *last >= first && usable.contains(last));
            let last = last.ok_or_else(|| no_room.clone())?;
            entries.extend_from_slice(&entry::to_bytes(new, first, last));
            free = last + 1;
        }
        if partitions.len() > COUNT as usize {
            return Err(no_room);
        }
        entries.resize(COUNT as usize * entry::SIZE, 0);
        let table = Table { geometry, header, entries, other_array: None };
        table.check_entries()?;
        Ok(table)
    }
}

/// A partition to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewPartition<'a> {
    /// At most 36 UTF-16 units; what is longer is cut.
    pub label: &'a str,
    /// Of which kind.
    pub type_guid: Guid,
    /// Its own GUID.
    pub guid: Guid,
    /// Where it begins, in bytes, rounded up to whole sectors; `None`: at the next whole MiB behind the one before.
    pub at: Option<u64>,
    /// Its length in bytes, rounded up to whole sectors.
    pub len: u64,
    /// Its attribute bits.
    pub attributes: u64,
}

/// The protective MBR of a disk (UEFI 2.10 §5.2.3): one partition of type 0xEE over all of it.
pub fn protective_mbr(geometry: Geometry) -> [u8; 512] {
    let mut mbr = [0; 512];
    let len = u32::try_from(geometry.last_lba()).unwrap_or(u32::MAX);
    mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    mbr[458..462].copy_from_slice(&len.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

#[cfg(test)]
mod tests;
