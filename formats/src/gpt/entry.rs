//! Partition entries (UEFI 2.10 §5.3.3), all numbers little-endian:
//!
//! | offset | size | meaning | when not in use |
//! |---|---|---|---|
//! | 0 | 16 | type GUID | all zero |
//! | 16 | 16 | GUID of the partition | 0 |
//! | 32 | 8 | first LBA | 0 |
//! | 40 | 8 | last LBA, inclusive | 0 |
//! | 48 | 8 | attributes: 0–2 common, 48–63 of the type ([`crate::gpt_attrs`]) | 0 |
//! | 56 | 72 | label, UTF-16, ended by NUL or by the field | 0 |
//! | 128 | – | up to the entry size: reserved, kept as it is | 0 |

use super::{Geometry, Guid, NewPartition};

/// Bytes of an entry that have a meaning; entries are this long or a power of two longer.
pub const SIZE: usize = 128;

/// UTF-16 units of a label.
pub const LABEL_UNITS: usize = 36;

/// A partition in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1: the place of its entry.
    pub number: u32,
    /// Its kind.
    pub type_guid: Guid,
    /// Its own GUID (`PARTUUID`).
    pub guid: Guid,
    /// Its first LBA.
    pub first_lba: u64,
    /// Its last LBA, inclusive.
    pub last_lba: u64,
    /// Its attribute bits.
    pub attributes: u64,
    label: Option<String>,
}

impl Partition {
    /// An entry of at least [`SIZE`] bytes; `None` when it is not in use.
    pub(super) fn parse(number: u32, bytes: &[u8]) -> Option<Self> {
        let type_guid = Guid(field(bytes, 0)?);
        if type_guid == Guid::ZERO {
            return None;
        }
        let word = |at| field(bytes, at).map(u64::from_le_bytes);
        Some(Partition {
            number,
            type_guid,
            guid: Guid(field(bytes, 16)?),
            first_lba: word(32)?,
            last_lba: word(40)?,
            attributes: word(48)?,
            label: label(bytes.get(56..SIZE)?),
        })
    }

    /// Its label; `None` when it is not valid UTF-16.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Where it begins, in bytes.
    pub fn offset(&self, geometry: Geometry) -> u64 {
        geometry.offset(self.first_lba)
    }

    /// Its length in bytes.
    pub fn len(&self, geometry: Geometry) -> u64 {
        geometry.offset((self.last_lba - self.first_lba).saturating_add(1))
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn label(bytes: &[u8]) -> Option<String> {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).ok()
}

pub(super) fn set_attributes(entry: &mut [u8], attributes: u64) {
    entry[48..56].copy_from_slice(&attributes.to_le_bytes());
}

pub(super) fn to_bytes(new: &NewPartition<'_>, first_lba: u64, last_lba: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..16].copy_from_slice(&new.type_guid.0);
    bytes[16..32].copy_from_slice(&new.guid.0);
    bytes[32..40].copy_from_slice(&first_lba.to_le_bytes());
    bytes[40..48].copy_from_slice(&last_lba.to_le_bytes());
    set_attributes(&mut bytes, new.attributes);
    let units = new.label.encode_utf16().take(LABEL_UNITS);
    for (place, unit) in bytes[56..].chunks_exact_mut(2).zip(units) {
        place.copy_from_slice(&unit.to_le_bytes());
    }
    bytes
}
