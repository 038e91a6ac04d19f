//! Whether a slot still holds what the record says of it, by a look that is cheap enough for every command.
//!
//! | of a component | compared with |
//! |---|---|
//! | the GUID of its partition, its length | what was noted when it was written |
//! | its first, its last and one more chunk of data | the chunk list of the release |
//!
//! At most [`SAMPLES`] chunks of at most [`SAMPLE_MAX`] bytes are read: 768 KiB, and 192 KiB of average
//! chunks. The one in the middle follows from the record alone, so that two looks see the same bytes.
//!
//! A system that mounts its root writable changes some of it, the first chunk always. Of such a
//! component, and of one that was written before anything was noted, only content that differs in
//! every sample is another program's.

use std::fmt;

use formats::boot_record::{BootRecord, Slot, SlotComponent};
use formats::chunks::{Chunk, ChunkListError, Content, ListBytes, StoredList};
use formats::digest::Sha256;

/// The first, the last, and one between them.
pub const SAMPLES: usize = 3;
/// 256 KiB: as long as a chunk of data gets when `signer` cuts it. Longer ones are no samples.
pub const SAMPLE_MAX: u32 = 256 << 10;

/// One chunk to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Offset in the component, bytes.
    pub offset: u64,
    /// Length in bytes, at most [`SAMPLE_MAX`].
    pub len: u32,
    /// Its digest.
    pub digest: Sha256,
}

/// The chunks to compare of a component in a slot; none of an image without data.
pub fn samples(
    list: &StoredList<impl ListBytes>,
    component: &SlotComponent,
) -> Result<Vec<Sample>, ChunkListError> {
    let sample = |chunk: Chunk| match chunk.content {
        Content::Data(digest) if chunk.len <= SAMPLE_MAX => {
            Some(Sample { offset: chunk.offset, len: chunk.len, digest })
        }
        _ => None,
    };
    let data = || list.chunks().filter_map(|chunk| chunk.map(sample).transpose());
    let count = data().try_fold(0usize, |count, found| found.map(|_| count + 1))?;
    let Some(last) = count.checked_sub(1) else { return Ok(Vec::new()) };
    let mut wanted = vec![0, drawn(component, last), last];
    wanted.dedup();
    let numbered = data().enumerate().filter(|(number, _)| wanted.contains(number));
    numbered.map(|(_, sample)| sample).collect()
}

/// A chunk between the first and the last, the same whenever the record says the same.
fn drawn(component: &SlotComponent, last: usize) -> usize {
    let seed = Sha256::of(format!("{}\n{}", component.name, component.chunks).as_bytes());
    let (bytes, _) = seed.0.split_first_chunk().expect("a digest has more than eight bytes");
    let between = u64::try_from(last).unwrap_or(u64::MAX).saturating_sub(1).max(1);
    let number = 1 + u64::from_be_bytes(*bytes) % between;
    usize::try_from(number).unwrap_or(last).min(last)
}

/// What was noted of a component when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// The GUID of its partition; `None` for a device of its own.
    pub partition: Option<String>,
    /// Length of the partition or device in bytes.
    pub len: u64,
    /// Whether the system in it was seen to have it mounted writable since.
    pub lived_in: bool,
}

/// What is found now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The GUID of its partition.
    pub partition: Option<String>,
    /// Length of the partition or device in bytes.
    pub len: u64,
    /// Whether it is mounted writable.
    pub lived_in: bool,
    /// Samples that were read.
    pub sampled: usize,
    /// How many of them differ.
    pub differing: usize,
}

/// In what a slot is not what was written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Foreign {
    /// It is another partition of the same label.
    Partition,
    /// Its partition or device has another length.
    Size,
    /// It holds something else.
    Content,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Foreign::Partition => "its partition was made anew",
            Foreign::Size => "its partition or device has another size",
            Foreign::Content => "it holds something else",
        })
    }
}

/// Whether another program wrote a component, and how that shows.
pub fn judge(noted: Option<&Noted>, found: &Found) -> Option<Foreign> {
    if let Some(noted) = noted {
        if noted.partition.is_some() && noted.partition != found.partition {
            return Some(Foreign::Partition);
        }
        if noted.len != found.len {
            return Some(Foreign::Size);
        }
    }
    let untouched = noted.is_some_and(|noted| !noted.lived_in) && !found.lived_in;
    let differs = match untouched {
        true => found.differing > 0,
        false => found.sampled >= SAMPLES && found.differing == found.sampled,
    };
    differs.then_some(Foreign::Content)
}

/// The record of a node whose operator accepts what the slots hold: nothing is known of a slot that
/// another program wrote.
pub(super) fn accept(record: &mut BootRecord, foreign: impl Fn(Slot) -> bool) {
    for slot in Slot::BOTH {
        if foreign(slot) {
            *record.slots.of_mut(slot) = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(partition: Option<&str>, lived_in: bool) -> Noted {
        Noted { partition: partition.map(str::to_owned), len: 7, lived_in }
    }

    fn found(partition: Option<&str>, len: u64, differing: usize) -> Found {
        let partition = partition.map(str::to_owned);
        Found { partition, len, lived_in: false, sampled: 3, differing }
    }

    #[test]
    fn what_another_program_wrote() {
        let (fresh, lived_in) = (noted(Some("g"), false), noted(Some("g"), true));
        let device = noted(None, false);
        let now_mounted = Found { lived_in: true, ..found(Some("g"), 7, 2) };
        let small = Found { sampled: 1, ..found(Some("g"), 7, 1) };
        let rows = [
            ("as it was written", Some(&fresh), found(Some("g"), 7, 0), None),
            ("one sample differs", Some(&fresh), found(Some("g"), 7, 1), Some(Foreign::Content)),
            ("made anew", Some(&fresh), found(Some("h"), 7, 0), Some(Foreign::Partition)),
            ("made anew, longer", Some(&fresh), found(Some("h"), 8, 3), Some(Foreign::Partition)),
            ("grown", Some(&fresh), found(Some("g"), 8, 0), Some(Foreign::Size)),
            ("a device", Some(&device), found(None, 7, 0), None),
            ("a device, shorter", Some(&device), found(None, 6, 3), Some(Foreign::Size)),
            ("a device that differs", Some(&device), found(None, 7, 1), Some(Foreign::Content)),
            ("mounted writable", Some(&fresh), now_mounted, None),
            ("was mounted writable", Some(&lived_in), found(Some("g"), 7, 2), None),
            ("written whole", Some(&lived_in), found(Some("g"), 7, 3), Some(Foreign::Content)),
            ("too little to tell", Some(&lived_in), small.clone(), None),
            ("little, never mounted", Some(&fresh), small, Some(Foreign::Content)),
            ("nothing noted", None, found(Some("h"), 8, 2), None),
            ("nothing noted, written whole", None, found(None, 8, 3), Some(Foreign::Content)),
        ];
        for (name, noted, found, expected) in rows {
            assert_eq!(judge(noted, &found), expected, "{name}");
        }
    }
}
