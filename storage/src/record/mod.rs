//! Sealed records ([`formats::record`]) in two copies, `NAME.0` and `NAME.1`.
//!
//! ```text
//!  read    both ──► the newest whole one        one damaged: the other   both damaged: store_corrupt
//!                   the newest is of a later format version: store_newer, and nothing is written
//!  write   sequence + 1 ──► over the older or damaged copy, atomically ──► over the other one
//!  mend    the newest whole one ──► over a copy that is damaged, behind or absent
//!  remove  older ──► newest                     a stale record never comes back
//! ```
//!
//! [`Files`] already replaces a file whole; the second copy guards against what breaks that
//! promise: media that tear, file systems that lose, and bits that rot. Both copies say the same
//! between two writes, so damage to either changes nothing that is read. Between the two halves of a
//! write one copy is behind; after a cut there it stays behind until [`mend`] or the next write.
//!
//! A copy of a later format version ([`formats::record`]) counts by its sequence number like any other:
//! as the newest it is neither read nor written over, and as the older one it is behind.

use formats::record::{OVERHEAD, PAYLOAD_LIMIT, Record, RecordError, is_ahead};

use crate::error::StoreError;
use crate::files::Files;

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The newest whole copy.
    pub record: Record,
    /// What is wrong with the other copy. [`mend`] and the next write make it good.
    pub flaw: Option<Flaw>,
}

/// What is wrong with one copy of a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its bytes are not what was written.
    #[error("{file} is damaged: {error}")]
    Damaged {
        /// The copy.
        file: String,
        /// What the parser said.
        error: RecordError,
    },
    /// A write was cut before it.
    #[error("{file} is behind the other copy")]
    Behind {
        /// The copy.
        file: String,
    },
    /// It is not there.
    #[error("{file} is missing")]
    Absent {
        /// The copy.
        file: String,
    },
}

/// Reads a record; `None` when it was never written.
///
/// Errors: [`StoreError::Corrupt`] where no copy is whole, [`StoreError::Newer`] where the newest one has a
/// later format version.
pub fn read(files: &dyn Files, name: &str) -> Result<Option<Found>, StoreError> {
    Ok(Copies::read(files, name)?.newest(name)?.map(|(_, found)| found))
}

/// Writes a record, both copies of it, and gives its sequence number.
///
/// A crash or an error leaves the record that was there before, or the new one. When both copies
/// are damaged, or the newest has a later format version, nothing is written: [`remove`] the record first,
/// on purpose. The revision of the format stays.
///
/// Callers hold the state lock: of two writers at once, one would be lost.
pub fn write(files: &dyn Files, name: &str, payload: &[u8]) -> Result<u64, StoreError> {
    let copies = Copies::read(files, name)?;
    let (first, sequence, revision) = match copies.newest(name)? {
        Some((nth, Found { record, .. })) => {
            (1 - nth, record.sequence.wrapping_add(1), record.revision)
        }
        None => (0, 1, 0),
    };
    let too_large = |_| StoreError::TooLarge { name: name.to_owned(), max: PAYLOAD_LIMIT as u64 };
    let record = Record { sequence, revision, payload: payload.to_vec() };
    let bytes = record.to_bytes().map_err(too_large)?;
    // The newest copy stays untouched until the other one is newer.
    for nth in [first, 1 - first] {
        files.write_atomic(&copy_name(name, nth), &bytes)?;
    }
    Ok(sequence)
}

/// Writes a copy with a flaw again, from the newest whole one; gives what was wrong with it.
///
/// The newest copy is not touched. Callers hold the state lock.
pub fn mend(files: &dyn Files, name: &str) -> Result<Option<Flaw>, StoreError> {
    let Some((nth, found)) = Copies::read(files, name)?.newest(name)? else { return Ok(None) };
    let Some(flaw) = found.flaw else { return Ok(None) };
    let too_large = |_| StoreError::TooLarge { name: name.to_owned(), max: PAYLOAD_LIMIT as u64 };
    let bytes = found.record.to_bytes().map_err(too_large)?;
    files.write_atomic(&copy_name(name, 1 - nth), &bytes)?;
    Ok(Some(flaw))
}

/// The names of the records among a directory's files, each once, in order.
pub fn names(files: &dyn Files) -> Result<Vec<String>, StoreError> {
    let record = |file: &String| {
        file.strip_suffix(".0").or_else(|| file.strip_suffix(".1")).map(str::to_owned)
    };
    let mut names: Vec<String> = files.list()?.iter().filter_map(record).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Removes a record, whether it can be read or not. After a crash it is there as it was or gone.
pub fn remove(files: &dyn Files, name: &str) -> Result<(), StoreError> {
    // The older copy first: should the newest go first, a crash would bring back the older one.
    let copies = Copies::read(files, name)?;
    let later = || matches!(copies.0[0], Some(Err(RecordError::Version { .. })));
    let newest = match copies.newest(name) {
        Ok(Some((nth, _))) => nth,
        _ => usize::from(!later()),
    };
    for nth in [1 - newest, newest] {
        files.remove(&copy_name(name, nth))?;
    }
    Ok(())
}

fn copy_name(name: &str, nth: usize) -> String {
    format!("{name}.{nth}")
}

/// What is in the two files; `None` for a file that is not there.
struct Copies([Option<Result<Record, RecordError>>; 2]);

impl Copies {
    fn read(files: &dyn Files, name: &str) -> Result<Self, StoreError> {
        let max = (PAYLOAD_LIMIT + OVERHEAD) as u64;
        let copy = |nth| match files.read(&copy_name(name, nth), max) {
            Ok(bytes) => Ok(bytes.map(|bytes| Record::parse(&bytes))),
            // A file that grew is a damaged copy. One that the medium does not give is an error:
            // taking the older copy for it would quietly go back.
            Err(StoreError::TooLarge { max, .. }) => {
                Ok(Some(Err(RecordError::Length { found: max + 1, expected: max })))
            }
            Err(error) => Err(error),
        };
        Ok(Copies([copy(0)?, copy(1)?]))
    }

    /// The number of the newest copy, and what to tell of it.
    fn newest(&self, name: &str) -> Result<Option<(usize, Found)>, StoreError> {
        let whole = |nth: usize| self.0[nth].as_ref().and_then(|copy| copy.as_ref().ok());
        let error = |nth: usize| self.0[nth].as_ref().and_then(|copy| copy.as_ref().err());
        self.refuse_later(name)?;
        let newest = match (whole(0), whole(1)) {
            (Some(first), Some(second)) => usize::from(second.is_newer_than(first)),
            (Some(_), None) => 0,
            (None, Some(_)) => 1,
            // One damaged and no other: the first write of all was cut on a medium that tears.
            (None, None) if self.0.iter().any(Option::is_none) => return Ok(None),
            (None, None) => {
                let damage = |nth| error(nth).cloned().unwrap_or(RecordError::Magic);
                let (first, second) = (damage(0), damage(1));
                return Err(StoreError::Corrupt { name: name.to_owned(), first, second });
            }
        };
        let file = copy_name(name, 1 - newest);
        let flaw = match (error(1 - newest), whole(1 - newest)) {
            (Some(RecordError::Version { .. }), _) => Some(Flaw::Behind { file }),
            (Some(error), _) => Some(Flaw::Damaged { file, error: error.clone() }),
            (None, None) => Some(Flaw::Absent { file }),
            (None, other) if other != whole(newest) => Some(Flaw::Behind { file }),
            _ => None,
        };
        Ok(whole(newest).cloned().map(|record| (newest, Found { record, flaw })))
    }

    /// An error where a copy of a later format version is not behind one that can be read.
    fn refuse_later(&self, name: &str) -> Result<(), StoreError> {
        for nth in [0, 1] {
            let Some(Err(RecordError::Version { version, sequence })) = &self.0[nth] else {
                continue;
            };
            let behind = match &self.0[1 - nth] {
                Some(Ok(other)) => is_ahead(other.sequence, *sequence),
                _ => false,
            };
            if !behind {
                return Err(StoreError::Newer { name: name.to_owned(), version: *version });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
