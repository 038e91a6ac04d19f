//! Sealed records: opaque bytes with a sequence number and a checksum.
//!
//! A record is kept twice, and a writer replaces the older copy, so one good copy is there at any
//! moment. All numbers are little-endian:
//!
//! | offset | size | meaning |
//! |---|---|---|
//! | 0 | 8 | magic `racklet` NUL |
//! | 8 | 2 | format version, 1 |
//! | 10 | 2 | revision of that version, 0: readers read every revision, and writers keep it |
//! | 12 | 4 | length of the payload in bytes, at most [`PAYLOAD_LIMIT`] |
//! | 16 | 8 | sequence number: the copy that is ahead is the newer one |
//! | 24 | n | payload |
//! | 24 + n | 32 | SHA-256 of everything before |
//!
//! Nothing follows. The checksum finds damage, torn writes and mixed-up files; it is no
//! signature. An erased copy (zeros, 0xff, no bytes) has no magic and is invalid.
//!
//! # Later versions
//!
//! What every format version keeps: magic, version, revision, the sequence number where it is, and the
//! SHA-256 of everything before as the last 32 bytes. So a reader tells a copy of a later version from a
//! damaged one, and knows which of two copies is the newer. It does not read such a copy, does not
//! take an older one for it, and does not write over it.
//!
//! A change that older agents can ignore, or carry along ([`crate::carry`]), needs no new format version:
//! new members, new values, new records. A new format version stops every older agent that a revert
//! brings back. So it is written only by the release after the one that first reads it.

use crate::digest::Sha256;

/// 32 MiB: the trusted metadata of a node is the largest payload (root, snapshot, targets and kept
/// delegated roles at their limits); bounds a damaged length.
pub const PAYLOAD_LIMIT: usize = 32 << 20;

/// Bytes of a record around its payload.
pub const OVERHEAD: usize = HEADER + SUM;

const MAGIC: &[u8; 8] = b"racklet\0";
const VERSION: u16 = 1;
const HEADER: usize = 24;
const SUM: usize = 32;

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another file, or an erased or empty one.
    #[error("not a record")]
    Magic,
    /// Whole, and written by a later agent in a form this one does not know.
    #[error("record of format version {version}, this agent reads version {VERSION}")]
    Version {
        /// The format version.
        version: u16,
        /// Counts the writes.
        sequence: u64,
    },
    /// Longer or shorter than it says.
    #[error("record is torn: {found} bytes instead of {expected}")]
    Length {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// The checksum does not hold.
    #[error("record checksum is wrong")]
    Sum,
    /// The payload is above [`PAYLOAD_LIMIT`], when writing.
    #[error("a record of {0} bytes is above the limit of {PAYLOAD_LIMIT}")]
    TooLarge(usize),
}

/// A record that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counts the writes.
    pub sequence: u64,
    /// Revision of the format; 0 unless a later agent wrote the record.
    pub revision: u16,
    /// What was sealed.
    pub payload: Vec<u8>,
}

impl Record {
    /// Parses one copy.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let (head, rest) = bytes.split_at_checked(HEADER).ok_or(RecordError::Magic)?;
        if !head.starts_with(MAGIC) {
            return Err(RecordError::Magic);
        }
        let version = u16::from_le_bytes(field(head, 8));
        let sequence = u64::from_le_bytes(field(head, 16));
        if version != VERSION {
            return Err(match is_sealed(bytes) {
                true => RecordError::Version { version, sequence },
                false => RecordError::Sum,
            });
        }
        let len = u32::from_le_bytes(field(head, 12));
        let expected = u64::from(len) + OVERHEAD as u64;
        let found = bytes.len() as u64;
        let whole = found == expected && len as usize <= PAYLOAD_LIMIT;
        let torn = RecordError::Length { found, expected };
        let (payload, sum) = rest.split_at_checked(len as usize).filter(|_| whole).ok_or(torn)?;
        if Sha256::of(&bytes[..HEADER + payload.len()]).0 != sum {
            return Err(RecordError::Sum);
        }
        let revision = u16::from_le_bytes(field(head, 10));
        Ok(Record { sequence, revision, payload: payload.to_vec() })
    }

    /// The bytes of one copy.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RecordError> {
        if self.payload.len() > PAYLOAD_LIMIT {
            return Err(RecordError::TooLarge(self.payload.len()));
        }
        let mut bytes = Vec::with_capacity(self.payload.len() + OVERHEAD);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.revision.to_le_bytes());
        bytes.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        let sum = Sha256::of(&bytes);
        bytes.extend_from_slice(&sum.0);
        Ok(bytes)
    }

    /// Whether this copy was written after the other. Right across the wrap of the counter: the
    /// two copies are never more than one write apart.
    pub fn is_newer_than(&self, other: &Record) -> bool {
        is_ahead(self.sequence, other.sequence)
    }
}

/// Whether the copy with the first sequence number was written after that with the second; see
/// [`Record::is_newer_than`].
pub fn is_ahead(sequence: u64, other: u64) -> bool {
    let ahead = sequence.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 63
}

/// Whether the last bytes are the checksum of all others, as in every format version.
fn is_sealed(bytes: &[u8]) -> bool {
    let split = bytes.len().checked_sub(SUM).filter(|start| *start >= HEADER);
    split.is_some_and(|start| Sha256::of(&bytes[..start]).0 == bytes[start..])
}

fn field<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    head[at..at + N].try_into().expect("every field ends inside the header")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(sequence: u64, payload: &[u8]) -> Record {
        Record { sequence, revision: 0, payload: payload.to_vec() }
    }

    /// The same copy with another number as its format version.
    fn of_version(bytes: &[u8], version: u16) -> Vec<u8> {
        let mut other = bytes[..bytes.len() - SUM].to_vec();
        other[8..10].copy_from_slice(&version.to_le_bytes());
        let sum = Sha256::of(&other);
        other.extend_from_slice(&sum.0);
        other
    }

    #[test]
    fn the_format_stays() {
        let bytes = record(0x0102, b"hi").to_bytes().unwrap();
        let golden = "7261636b6c65740001000000020000000201000000000000\
                      6869\
                      d5484b3c2cee3ec40ba443fce48794325b9ad657aafa3b4f16ca85077127209d";
        assert_eq!(crate::digest::hex(&bytes), golden);
    }

    #[test]
    fn damage_is_found() {
        let good = record(7, b"payload").to_bytes().unwrap();
        for len in 0..good.len() {
            assert!(Record::parse(&good[..len]).is_err(), "cut to {len} bytes");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::parse(&bad).is_err(), "bit {bit}");
        }
        let mut long = good.clone();
        long.push(0);
        assert!(matches!(Record::parse(&long), Err(RecordError::Length { .. })));
        for erased in [vec![], vec![0; 100], vec![0xff; 100]] {
            assert_eq!(Record::parse(&erased), Err(RecordError::Magic));
        }
        let mut later = good;
        later[8] = 2;
        assert_eq!(Record::parse(&later), Err(RecordError::Sum), "damage, and no later version");
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let good = record(7, b"payload").to_bytes().unwrap();
        for version in [0, 2, 0xffff] {
            let later = of_version(&good, version);
            let found = Record::parse(&later);
            assert_eq!(found, Err(RecordError::Version { version, sequence: 7 }));
            let longer = of_version(&[&good[..], &[0; 9]].concat(), version);
            assert_eq!(Record::parse(&longer), found);
            let mut damaged = later;
            damaged[20] ^= 1;
            assert_eq!(Record::parse(&damaged), Err(RecordError::Sum));
        }
    }

    #[test]
    fn a_revision_is_read_and_kept() {
        let later = Record { revision: 3, ..record(7, b"payload") };
        assert_eq!(Record::parse(&later.to_bytes().unwrap()), Ok(later));
    }

    #[test]
    fn the_counter_may_wrap() {
        for (old, new) in [(0, 1), (u64::from(u32::MAX), 1 << 32), (u64::MAX, 0)] {
            assert!(record(new, b"").is_newer_than(&record(old, b"")), "{old} → {new}");
            assert!(!record(old, b"").is_newer_than(&record(new, b"")), "{old} → {new}");
        }
        assert!(!record(5, b"").is_newer_than(&record(5, b"")));
    }

    #[test]
    fn a_large_payload_is_not_written() {
        let large = record(1, &vec![0; PAYLOAD_LIMIT + 1]);
        assert_eq!(large.to_bytes(), Err(RecordError::TooLarge(PAYLOAD_LIMIT + 1)));
        assert!(record(1, &vec![0; PAYLOAD_LIMIT]).to_bytes().is_ok());
    }

    proptest! {
        #[test]
        fn records_read_back(sequence: u64, revision: u16, payload: Vec<u8>) {
            let record = Record { sequence, revision, payload };
            prop_assert_eq!(Record::parse(&record.to_bytes().unwrap()), Ok(record));
        }

        #[test]
        fn a_new_record_torn_over_an_old_one_is_found(
            old in proptest::collection::vec(any::<u8>(), 0..80),
            new in proptest::collection::vec(any::<u8>(), 0..80),
            at in 0..160usize,
        ) {
            let (old, new) = (record(1, &old), record(2, &new));
            let (before, after) = (old.to_bytes().unwrap(), new.to_bytes().unwrap());
            let at = at.min(after.len());
            let mut torn = after[..at].to_vec();
            torn.extend_from_slice(before.get(at..).unwrap_or_default());
            if let Ok(found) = Record::parse(&torn) {
                prop_assert!(found == old || found == new);
            }
        }
    }
}
