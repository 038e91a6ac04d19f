//! The header (UEFI 2.10 §5.3.2), all numbers little-endian:
//!
//! | offset | size | meaning | what is accepted |
//! |---|---|---|---|
//! | 0 | 8 | signature | `EFI PART` |
//! | 8 | 4 | revision | 0x00010000 |
//! | 12 | 4 | header size in bytes | 92 up to one sector |
//! | 16 | 4 | CRC-32 of the header, this field as 0 | the sum |
//! | 20 | 4 | reserved | kept as it is |
//! | 24 | 8 | LBA of this header | where it was read |
//! | 32 | 8 | LBA of the other header | backup: behind the usable range and on the disk; primary: 1 |
//! | 40 | 8 | first usable LBA | behind the primary array |
//! | 48 | 8 | last usable LBA | not before the first, before the backup array |
//! | 56 | 16 | GUID of the disk | any |
//! | 72 | 8 | LBA of this copy's entry array | outside of the usable range, on this header's side |
//! | 80 | 4 | number of entries | 1 to 1024 |
//! | 84 | 4 | bytes of an entry | 128 · 2ⁿ up to 4096; the array at most 1 MiB |
//! | 88 | 4 | CRC-32 of the array | the sum |
//! | 92 | – | up to the header size: reserved, kept as it is | |
//!
//! On an erased disk all of it is zero or 0xff, and no signature is found.

use std::ops::RangeInclusive;

use super::{ARRAY_LIMIT, ENTRY_COUNT_LIMIT, Geometry, GptError, Guid, TableCopy, entry};

/// Bytes of the fields that have a meaning.
pub const SIZE: usize = 92;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
/// The primary header's place.
const PRIMARY_LBA: u64 = 1;

/// A header whose checksum holds and whose fields fit the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `header size` bytes, at least [`SIZE`].
    bytes: Vec<u8>,
    copy: TableCopy,
}

impl Header {
    /// Parses a header read from `lba`. `sector` is the whole sector.
    pub fn parse(
        geometry: Geometry,
        copy: TableCopy,
        lba: u64,
        sector: &[u8],
    ) -> Result<Self, GptError> {
        if sector.len() != geometry.sector_size as usize || !sector.starts_with(SIGNATURE) {
            return Err(GptError::Signature);
        }
        // A sector has at least 512 bytes, so the fields below exist.
        let header = Header { bytes: sector.to_vec(), copy };
        let refuse = |field, value| Err(GptError::Field { field, value });
        if header.u32(8) != REVISION {
            return refuse("revision", u64::from(header.u32(8)));
        }
        let size = header.u32(12) as usize;
        let Some(bytes) = sector.get(..size).filter(|bytes| bytes.len() >= SIZE) else {
            return refuse("header size", size as u64);
        };
        let header = Header { bytes: bytes.to_vec(), copy };
        if header.crc() != header.u32(16) {
            return Err(GptError::HeaderCrc);
        }
        header.check(geometry, lba)?;
        Ok(header)
    }

    fn check(&self, geometry: Geometry, lba: u64) -> Result<(), GptError> {
        let count = self.u32(80);
        let size = self.u32(84);
        let array_lba = self.array_lba();
        let (first, last) = (self.first_usable(), self.last_usable());
        let expect = |field, value: u64, good: bool| {
            if good { Ok(()) } else { Err(GptError::Field { field, value }) }
        };
        let power = size.is_power_of_two() && (entry::SIZE as u32..=4096).contains(&size);
        expect("entry size", u64::from(size), power)?;
        let fits = u64::from(count) * u64::from(size) <= ARRAY_LIMIT;
        expect(
            "number of entries",
            u64::from(count),
            fits && (1..=ENTRY_COUNT_LIMIT).contains(&count),
        )?;
        expect("own LBA", self.lba(), self.lba() == lba)?;
        expect("first usable LBA", first, first > PRIMARY_LBA && first <= last)?;
        expect("last usable LBA", last, last < geometry.last_lba())?;
        let backup = self.backup_lba();
        expect("backup LBA", backup, backup > last && backup <= geometry.last_lba())?;
        // Numbers up to 2^64 from the disk: no sum may overflow.
        let array_end = array_lba.checked_add(geometry.sectors_of(self.array_len()));
        let (after, until) = match self.copy {
            TableCopy::Primary => (PRIMARY_LBA, first),
            TableCopy::Backup => (last, backup),
        };
        let placed = array_lba > after && array_end.is_some_and(|end| end <= until);
        expect("entry array LBA", array_lba, placed)?;
        // Without room for the other copy's array, writing it would overwrite a partition.
        let sectors = geometry.sectors_of(self.array_len());
        expect("first usable LBA", first, PRIMARY_LBA + 1 + sectors <= first)?;
        expect("last usable LBA", last, backup - last > sectors)?;
        let other = self.u64(32);
        expect("other LBA", other, self.copy == TableCopy::Primary || other == PRIMARY_LBA)
    }

    pub(super) fn create(
        geometry: Geometry,
        disk_guid: Guid,
        usable: RangeInclusive<u64>,
        entry_count: u32,
    ) -> Self {
        let mut header = Header { bytes: vec![0; SIZE], copy: TableCopy::Primary };
        header.bytes[..8].copy_from_slice(SIGNATURE);
        header.put(8, &REVISION.to_le_bytes());
        header.put(12, &(SIZE as u32).to_le_bytes());
        header.put(24, &PRIMARY_LBA.to_le_bytes());
        header.put(32, &geometry.last_lba().to_le_bytes());
        header.put(40, &usable.start().to_le_bytes());
        header.put(48, &usable.end().to_le_bytes());
        header.put(56, &disk_guid.0);
        header.put(72, &(PRIMARY_LBA + 1).to_le_bytes());
        header.put(80, &entry_count.to_le_bytes());
        header.put(84, &(entry::SIZE as u32).to_le_bytes());
        header
    }

    /// Which copy it is the header of.
    pub fn copy(&self) -> TableCopy {
        self.copy
    }

    /// The LBA it says it lies at.
    pub fn lba(&self) -> u64 {
        self.u64(24)
    }

    /// Where the backup header lies.
    pub fn backup_lba(&self) -> u64 {
        match self.copy {
            TableCopy::Primary => self.u64(32),
            TableCopy::Backup => self.lba(),
        }
    }

    /// The first LBA a partition may have.
    pub fn first_usable(&self) -> u64 {
        self.u64(40)
    }

    /// The last LBA a partition may have.
    pub fn last_usable(&self) -> u64 {
        self.u64(48)
    }

    /// The disk's GUID.
    pub fn disk_guid(&self) -> Guid {
        Guid(self.field(56))
    }

    /// Where the entry array begins.
    pub fn array_lba(&self) -> u64 {
        self.u64(72)
    }

    /// Bytes of the entry array, at most [`ARRAY_LIMIT`].
    pub fn array_len(&self) -> u64 {
        u64::from(self.u32(80)) * u64::from(self.u32(84))
    }

    /// Bytes of an entry.
    pub(super) fn entry_size(&self) -> u32 {
        self.u32(84)
    }

    pub(super) fn array_crc(&self) -> u32 {
        self.u32(88)
    }

    /// The usual place of a copy's array of `sectors`: directly behind the primary header, or
    /// directly before the backup header. There is room: `check` or `create` saw to it.
    pub(super) fn usual_array_lba(&self, copy: TableCopy, sectors: u64) -> u64 {
        match copy {
            TableCopy::Primary => PRIMARY_LBA + 1,
            TableCopy::Backup => self.backup_lba().saturating_sub(sectors),
        }
    }

    /// The header of one copy, for an array at that place with that checksum.
    pub(super) fn placed(&self, copy: TableCopy, array: u64, array_crc: u32) -> Header {
        let (own, other) = match copy {
            TableCopy::Primary => (PRIMARY_LBA, self.backup_lba()),
            TableCopy::Backup => (self.backup_lba(), PRIMARY_LBA),
        };
        let mut header = Header { bytes: self.bytes.clone(), copy };
        header.put(24, &own.to_le_bytes());
        header.put(32, &other.to_le_bytes());
        header.put(72, &array.to_le_bytes());
        header.put(88, &array_crc.to_le_bytes());
        let crc = header.crc();
        header.put(16, &crc.to_le_bytes());
        header
    }

    /// What both copies have in common: everything but places and checksums.
    pub(super) fn canonical(&self) -> Vec<u8> {
        let mut header = self.clone();
        for place in [24, 32, 72] {
            header.put(place, &[0; 8]);
        }
        header.put(16, &[0; 4]);
        header.put(88, &[0; 4]);
        header.bytes
    }

    pub(super) fn to_sector(&self, geometry: Geometry) -> Vec<u8> {
        let mut sector = self.bytes.clone();
        sector.resize(geometry.sector_size as usize, 0);
        sector
    }

    fn crc(&self) -> u32 {
        let mut zeroed = self.clone();
        zeroed.put(16, &[0; 4]);
        crc32fast::hash(&zeroed.bytes)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("at least 92 bytes, and every field ends there")
    }
}
