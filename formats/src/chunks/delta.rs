//! What is needed to make one image of another: a delta from an exact base.
//!
//! A delta holds the chunks of the target that the base does not have, in zstd frames. Each frame
//! is compressed with a *prefix*: chunks of the base, put together, that its content resembles. So
//! a node whose slot holds the base copies what it has, and fetches little more than what changed,
//! frame by frame, each verifiable on its own and with memory for one prefix and one content.
//!
//! The delta list is a layer of the signed component manifest, so each of its hashes is signed.
//! Nothing depends on the base for safety: what a frame decompresses to is compared with the
//! target's chunk list, chunk by chunk, before it is written.
//!
//! All numbers are little-endian. There is no padding, and nothing follows the last run.
//!
//! | offset | size | meaning |
//! |---|---|---|
//! | 0 | 8 | `RKLDELT1` |
//! | 8 | 32 | [image id](super::ChunkList::image_id) of the base |
//! | 40 | 32 | image id of the target |
//! | 72 | 32 | SHA-256 of the blob |
//! | 104 | 8 | its length in bytes: that of all frames |
//! | 112 | 4 | number of frames *m* |
//! | 116 | 4 | number of runs *r* |
//! | 120 | 44 × *m* | frames: 4 bytes compressed length, 4 bytes number of content runs, 4 bytes number of prefix runs, 32 bytes SHA-256 of the compressed frame |
//! | … | 8 × *r* | runs, those of each frame in its order, content before prefix: 4 bytes first chunk, 4 bytes number of chunks |
//!
//! Content runs are of the target's chunks, ascending and disjoint over the whole delta; prefix
//! runs are of the base's chunks, ascending and disjoint within a frame.

use super::{
    Chunk, ChunkList, ChunkListError, Content, LIST_LIMIT, ListBytes, StoredList, hash_at, u32_at,
    u64_at,
};
use crate::digest::Sha256;

/// First bytes of a delta list.
pub const MAGIC: &[u8; 8] = b"RKLDELT1";
/// 4 MiB: the most content of one frame, raw.
pub const CONTENT_LIMIT: u64 = 4 << 20;
/// 6 MiB: the most of the base that one frame refers to, raw.
pub const PREFIX_LIMIT: u64 = 6 << 20;
/// Eight deltas of one image: older nodes take the chunks they lack.
pub const DELTAS_LIMIT: usize = 8;

const HEADER: usize = 120;
const FRAME: usize = 44;
const RUN: usize = 8;

/// Why bytes are not a delta between two images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// Not the magic of a delta list.
    #[error("delta list: not a delta list")]
    Magic,
    /// Shorter or longer than its counts say, or over [`LIST_LIMIT`].
    #[error("delta list: {0} bytes are not the length its counts give")]
    Length(u64),
    /// A frame without bytes or content, out of order, or with too much of either.
    #[error("delta list: frame {0} is impossible")]
    Frame(u32),
    /// The frames do not add up to the blob, or the runs not to the frames.
    #[error("delta list: its frames do not add up")]
    Coverage,
    /// It is between other images.
    #[error("delta list: it is a delta between other images")]
    Images,
}

/// Some neighbouring chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index of the first.
    pub first: u32,
    /// How many, at least one.
    pub count: u32,
}

impl Run {
    /// The indexes of its chunks.
    pub fn chunks(self) -> std::ops::Range<u32> {
        // Parsed runs end below 2^32.
        self.first..self.first.saturating_add(self.count)
    }
}

/// One frame of a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaFrame {
    /// Offset in the blob, bytes.
    pub offset: u64,
    /// Compressed length in bytes.
    pub len: u32,
    /// SHA-256 of the compressed frame.
    pub sha256: Sha256,
    /// The chunks of the target it holds, in order.
    pub content: Vec<Run>,
    /// The chunks of the base its prefix consists of, in order.
    pub prefix: Vec<Run>,
}

/// A parsed delta list: every count, order and limit holds that does not need the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaList {
    bytes: Vec<u8>,
    frames: u32,
    /// Of each frame, its offset in the blob and the number of its first run.
    starts: Vec<(u64, u32)>,
}

impl DeltaList {
    /// Parses a list completely.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, DeltaError> {
        let length = bytes.len() as u64;
        if bytes.get(..8) != Some(MAGIC) {
            return Err(DeltaError::Magic);
        }
        let counts = u32_at(&bytes, 112).zip(u32_at(&bytes, 116));
        let (frames, runs) = counts.ok_or(DeltaError::Length(length))?;
        let due = HEADER as u64 + FRAME as u64 * u64::from(frames) + RUN as u64 * u64::from(runs);
        if due != length || length > LIST_LIMIT {
            return Err(DeltaError::Length(length));
        }
        let mut list = DeltaList { bytes, frames, starts: Vec::new() };
        list.starts = list.check(runs)?;
        Ok(list)
    }

    /// The image id of the base.
    pub fn base(&self) -> Sha256 {
        hash_at(&self.bytes, 8).expect("a parsed list has a header")
    }

    /// The image id of the target.
    pub fn target(&self) -> Sha256 {
        hash_at(&self.bytes, 40).expect("a parsed list has a header")
    }

    /// SHA-256 of the blob.
    pub fn blob(&self) -> Sha256 {
        hash_at(&self.bytes, 72).expect("a parsed list has a header")
    }

    /// Length of the blob in bytes.
    pub fn blob_size(&self) -> u64 {
        u64_at(&self.bytes, 104).expect("a parsed list has a header")
    }

    /// The bytes of the list, as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The frames in the order of the blob.
    pub fn frames(&self) -> impl Iterator<Item = DeltaFrame> + '_ {
        (0..self.starts.len()).map_while(|index| self.frame(index))
    }

    /// How many frames it has.
    pub fn frame_count(&self) -> usize {
        self.starts.len()
    }

    /// One of the frames.
    pub fn frame(&self, index: usize) -> Option<DeltaFrame> {
        let (offset, run) = *self.starts.get(index)?;
        self.frame_at(index, offset, run as usize)
    }

    fn frame_at(&self, index: usize, offset: u64, run: usize) -> Option<DeltaFrame> {
        let at = HEADER + FRAME * index;
        let len = u32_at(&self.bytes, at)?;
        let content = self.runs(run, u32_at(&self.bytes, at + 4)?)?;
        let prefix = self.runs(run + content.len(), u32_at(&self.bytes, at + 8)?)?;
        let sha256 = hash_at(&self.bytes, at + 12)?;
        Some(DeltaFrame { offset, len, sha256, content, prefix })
    }

    /// Refuses a delta that is not between these two images, or holds more than its limits.
    pub fn check_against(&self, base: &ChunkList, target: &ChunkList) -> Result<(), DeltaError> {
        let ids = [base.image_id(), target.image_id()];
        self.check_images(ids, |index| base.entry(index), |index| target.entry(index))
    }

    /// The same with lists that are kept elsewhere. One that cannot be read is another image's.
    pub fn check_stored(
        &self,
        base: &StoredList<impl ListBytes>,
        target: &StoredList<impl ListBytes>,
    ) -> Result<(), DeltaError> {
        let id = |found: Result<Sha256, ChunkListError>| found.map_err(|_| DeltaError::Images);
        let ids = [id(base.image_id())?, id(target.image_id())?];
        let (mut base, mut target) = (base.entries(), target.entries());
        let entry = |chunk: Chunk| (chunk.len, chunk.content);
        self.check_images(
            ids,
            |index| base.chunk(index).ok().flatten().map(entry),
            |index| target.chunk(index).ok().flatten().map(entry),
        )
    }

    fn check_images(
        &self,
        [base, target]: [Sha256; 2],
        mut in_base: impl FnMut(u32) -> Option<(u32, Content)>,
        mut in_target: impl FnMut(u32) -> Option<(u32, Content)>,
    ) -> Result<(), DeltaError> {
        if self.base() != base || self.target() != target {
            return Err(DeltaError::Images);
        }
        for (index, frame) in (0u32..).zip(self.frames()) {
            let content = length_of(&frame.content, &mut in_target);
            let prefix = length_of(&frame.prefix, &mut in_base);
            let fits = content.is_some_and(|len| len <= CONTENT_LIMIT)
                && prefix.is_some_and(|len| len <= PREFIX_LIMIT);
            if !fits {
                return Err(DeltaError::Frame(index));
            }
        }
        Ok(())
    }

    fn runs(&self, first: usize, count: u32) -> Option<Vec<Run>> {
        let start = HEADER + FRAME * self.frames as usize + RUN * first;
        let bytes = self.bytes.get(start..start.checked_add(RUN * count as usize)?)?;
        let run = |bytes: &[u8]| Some(Run { first: u32_at(bytes, 0)?, count: u32_at(bytes, 4)? });
        bytes.chunks_exact(RUN).map(run).collect()
    }

    /// Where each frame begins.
    fn check(&self, runs: u32) -> Result<Vec<(u64, u32)>, DeltaError> {
        let (mut size, mut used, mut next) = (0u64, 0u32, 0u64);
        let mut starts = Vec::new();
        for index in 0..self.frames {
            let frame = self.frame_at(index as usize, size, used as usize);
            let frame = frame.ok_or(DeltaError::Coverage)?;
            let refused = DeltaError::Frame(index);
            if frame.len == 0 || frame.content.is_empty() {
                return Err(refused);
            }
            next = ascending(&frame.content, next).ok_or(refused.clone())?;
            ascending(&frame.prefix, 0).ok_or(refused)?;
            starts.push((size, used));
            // No more than the list has bytes.
            used += u32::try_from(frame.content.len() + frame.prefix.len()).unwrap_or(u32::MAX);
            size += u64::from(frame.len);
        }
        if used == runs && size == self.blob_size() {
            Ok(starts)
        } else {
            Err(DeltaError::Coverage)
        }
    }
}

/// Where ascending, disjoint, non-empty runs from `next` on end.
fn ascending(runs: &[Run], mut next: u64) -> Option<u64> {
    for run in runs {
        let end = u64::from(run.first) + u64::from(run.count);
        if u64::from(run.first) < next || run.count == 0 || end > u64::from(u32::MAX) {
            return None;
        }
        next = end;
    }
    Some(next)
}

/// The length of data chunks in bytes; `None` when one is zeros or not there.
fn length_of(runs: &[Run], mut entry: impl FnMut(u32) -> Option<(u32, Content)>) -> Option<u64> {
    let mut sum = 0u64;
    for index in runs.iter().flat_map(|run| run.chunks()) {
        match entry(index)? {
            (len, Content::Data(_)) => sum += u64::from(len),
            (_, Content::Zero) => return None,
        }
    }
    Some(sum)
}

/// One frame of a delta to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaFrameEntry {
    /// Compressed length in bytes.
    pub len: u32,
    /// SHA-256 of the compressed frame.
    pub sha256: Sha256,
    /// The chunks of the target it holds.
    pub content: Vec<Run>,
    /// The chunks of the base its prefix consists of.
    pub prefix: Vec<Run>,
}

/// Writes a delta list; checked against both images, so that nothing is published that a node
/// would refuse.
pub fn build(
    base: &ChunkList,
    target: &ChunkList,
    blob: Sha256,
    frames: &[DeltaFrameEntry],
) -> Result<DeltaList, DeltaError> {
    let size: u64 = frames.iter().map(|frame| u64::from(frame.len)).sum();
    let runs: usize = frames.iter().map(|frame| frame.content.len() + frame.prefix.len()).sum();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + FRAME * frames.len() + RUN * runs);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&base.image_id().0);
    bytes.extend_from_slice(&target.image_id().0);
    bytes.extend_from_slice(&blob.0);
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&count(frames.len()).to_le_bytes());
    bytes.extend_from_slice(&count(runs).to_le_bytes());
    for frame in frames {
        bytes.extend_from_slice(&frame.len.to_le_bytes());
        bytes.extend_from_slice(&count(frame.content.len()).to_le_bytes());
        bytes.extend_from_slice(&count(frame.prefix.len()).to_le_bytes());
        bytes.extend_from_slice(&frame.sha256.0);
    }
    for run in frames.iter().flat_map(|frame| frame.content.iter().chain(&frame.prefix)) {
        bytes.extend_from_slice(&run.first.to_le_bytes());
        bytes.extend_from_slice(&run.count.to_le_bytes());
    }
    let list = DeltaList::parse(bytes)?;
    list.check_against(base, target)?;
    Ok(list)
}

/// Puts ascending chunk indexes together to runs.
///
/// ```
/// # use formats::chunks::delta::{Run, runs};
/// let found = runs([1, 2, 3, 7]);
/// assert_eq!(found, [Run { first: 1, count: 3 }, Run { first: 7, count: 1 }]);
/// ```
pub fn runs(indexes: impl IntoIterator<Item = u32>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some(run) if run.chunks().end == index => run.count += 1,
            _ => runs.push(Run { first: index, count: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, FrameEntry};
    use super::*;
    use proptest::prelude::*;

    fn image(parts: &[&[u8]]) -> ChunkList {
        let mut builder = Builder::default();
        for part in parts {
            let zero = part.iter().all(|byte| *byte == 0);
            let content = if zero { Content::Zero } else { Content::Data(Sha256::of(part)) };
            builder.chunk(part.len() as u32, content);
        }
        let chunks = parts.len() as u32;
        let frames = [FrameEntry { len: 9, chunks, sha256: Sha256::of(b"frame") }];
        builder.encoding(Sha256::of(b"blob"), 9 + super::super::seekable_table_len(1), &frames);
        builder.finish().unwrap()
    }

    fn images() -> (ChunkList, ChunkList) {
        let base = image(&[b"one", b"two", &[0; 50], b"three", b"four"]);
        (base, image(&[b"one", b"2", b"3", &[0; 50], b"4"]))
    }

    fn entries() -> Vec<DeltaFrameEntry> {
        let frame = |len: u32, content: &[u32], prefix: &[u32]| DeltaFrameEntry {
            len,
            sha256: Sha256::of(&[len as u8]),
            content: runs(content.iter().copied()),
            prefix: runs(prefix.iter().copied()),
        };
        vec![frame(5, &[1, 2], &[0, 1, 3]), frame(6, &[4], &[])]
    }

    #[test]
    fn a_delta_round_trips() {
        let (base, target) = images();
        let list = build(&base, &target, Sha256::of(b"delta"), &entries()).unwrap();
        let again = DeltaList::parse(list.as_bytes().to_vec()).unwrap();
        assert_eq!(again, list);
        assert_eq!((again.blob(), again.blob_size()), (Sha256::of(b"delta"), 11));
        let frames: Vec<_> = again.frames().collect();
        assert_eq!(frames[0].content, [Run { first: 1, count: 2 }]);
        assert_eq!(frames[0].prefix, [Run { first: 0, count: 2 }, Run { first: 3, count: 1 }]);
        assert_eq!((frames[1].offset, frames[1].len), (5, 6));
        again.check_against(&base, &target).unwrap();
        assert_eq!(again.check_against(&target, &base), Err(DeltaError::Images));
    }

    #[test]
    fn impossible_frames_are_refused() {
        let (base, target) = images();
        let run = |first, count| Run { first, count };
        type Change = fn(&mut Vec<DeltaFrameEntry>, fn(u32, u32) -> Run);
        // (name, change)
        let rows: &[(&str, Change)] = &[
            ("no bytes", |frames, _| frames[0].len = 0),
            ("no content", |frames, _| frames[0].content.clear()),
            ("an empty run", |frames, run| frames[0].content = vec![run(1, 0)]),
            ("content twice", |frames, run| frames[1].content = vec![run(2, 1)]),
            ("content descending", |frames, run| frames[0].content = vec![run(2, 1), run(1, 1)]),
            ("content past the image", |frames, run| frames[1].content = vec![run(4, 2)]),
            ("content past 2^32", |frames, run| frames[1].content = vec![run(u32::MAX, 1)]),
            ("zeros as content", |frames, run| frames[1].content = vec![run(3, 1)]),
            ("prefix past the base", |frames, run| frames[0].prefix = vec![run(5, 1)]),
            ("zeros as prefix", |frames, run| frames[0].prefix = vec![run(2, 1)]),
            ("prefix overlaps", |frames, run| frames[0].prefix = vec![run(0, 2), run(1, 1)]),
        ];
        for (name, change) in rows {
            let mut frames = entries();
            change(&mut frames, run);
            let built = build(&base, &target, Sha256::of(b"delta"), &frames);
            assert!(matches!(built, Err(DeltaError::Frame(_))), "{name}: {built:?}");
        }
    }

    #[test]
    fn limits_of_content_and_prefix_hold() {
        let megabyte = vec![7u8; 1 << 20];
        let parts = |count| image(&vec![megabyte.as_slice(); count]);
        let (base, target) = (parts(8), parts(6));
        let frame = |content, prefix| DeltaFrameEntry {
            len: 1,
            sha256: Sha256::of(b""),
            content: vec![Run { first: 0, count: content }],
            prefix: vec![Run { first: 0, count: prefix }],
        };
        let built =
            |content, prefix| build(&base, &target, Sha256([0; 32]), &[frame(content, prefix)]);
        assert!(built(4, 6).is_ok());
        assert_eq!(built(5, 6), Err(DeltaError::Frame(0)));
        assert_eq!(built(4, 7), Err(DeltaError::Frame(0)));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused_or_changes_the_list(at in 0usize..1000, bit in 0u8..8) {
            let (base, target) = images();
            let list = build(&base, &target, Sha256::of(b"delta"), &entries()).unwrap();
            let mut bytes = list.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(other) = DeltaList::parse(bytes) {
                prop_assert_ne!(&other, &list);
                let _ = other.check_against(&base, &target);
            }
        }

        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for (to, from) in bytes.iter_mut().zip(MAGIC) {
                *to = *from;
            }
            if let Ok(list) = DeltaList::parse(bytes) {
                list.frames().count();
            }
        }
    }
}
