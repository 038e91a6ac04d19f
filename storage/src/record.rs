//! Sealed records ([`formats::record`]) in two copies, `NAME.0` and `NAME.1`.
//!
//! ```text
//!  read    both ──► the newest whole one        one damaged: the other   both damaged: store_corrupt
//!  first   both copies, one after the other     one damaged, the other absent: never written
//!  write   sequence + 1 ──► over the older or damaged copy, atomically; the newest stays untouched
//!  remove  older ──► newest                     a stale record never comes back
//! ```
//!
//! [`Files`] already replaces a file whole; the second copy guards against what breaks that
//! promise: media that tear, file systems that lose, and bits that rot.

use formats::record::{OVERHEAD, PAYLOAD_LIMIT, Record, RecordError};

use crate::files::{Files, StoreError};

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The newest whole copy.
    pub record: Record,
    /// What is wrong with the other copy, if it is there and damaged. The next write mends it.
    pub damaged: Option<RecordError>,
}

/// Reads a record; `None` when it was never written.
pub fn read(files: &dyn Files, name: &str) -> Result<Option<Found>, StoreError> {
    Ok(Copies::read(files, name)?.newest(name)?.map(|(_, found)| found))
}

/// Writes a record and gives its sequence number. The first write makes both copies: from then on a
/// copy that is absent tells that the record was never finished.
///
/// A crash or an error leaves the record that was there before, or the new one. When both copies
/// are damaged nothing is written: [`remove`] the record first, on purpose.
///
/// Callers hold the state lock: of two writers at once, one would be lost.
pub fn write(files: &dyn Files, name: &str, payload: &[u8]) -> Result<u64, StoreError> {
    let copies = Copies::read(files, name)?;
    let (targets, sequence): (&[usize], u64) = match copies.newest(name)? {
        Some((1, found)) => (&[0], found.record.sequence.wrapping_add(1)),
        Some((_, found)) => (&[1], found.record.sequence.wrapping_add(1)),
        None => (&[0, 1], 1),
    };
    let too_large = |_| StoreError::TooLarge { name: name.to_owned(), max: PAYLOAD_LIMIT as u64 };
    let record = Record { sequence, payload: payload.to_vec() };
    let bytes = record.to_bytes().map_err(too_large)?;
    for target in targets {
        files.write_atomic(&copy_name(name, *target), &bytes)?;
    }
    Ok(sequence)
}

/// Removes a record, damaged or not. After a crash it is there as it was or gone.
pub fn remove(files: &dyn Files, name: &str) -> Result<(), StoreError> {
    // The older copy first: should the newest go first, a crash would bring back the older one.
    let newest = Copies::read(files, name)?.newest(name).ok().flatten().map_or(1, |(nth, _)| nth);
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
        let record = whole(newest).cloned();
        let damaged = error(1 - newest).cloned();
        Ok(record.map(|record| (newest, Found { record, damaged })))
    }
}

#[cfg(test)]
mod tests;
