//! The chunk list of an image: what makes every range of it verifiable on its own.
//!
//! An image is a sequence of chunks. An *encoding* of it is one blob: zstd frames in order, each
//! holding one or more whole chunks, then the zstd seekable table, so that `zstd -d` restores the
//! image. One list serves several encodings (small frames for reuse, large ones for full
//! installs). The list's own digest is in the signed component manifest, so each of its hashes is
//! signed.
//!
//! A large frame is listed in *parts*, each of whole chunks: every part is verified by itself, and
//! what it holds follows from it and the parts before, so a reader holds one part at a time and an
//! interrupted one keeps what it has.
//!
//! All numbers are little-endian. There is no padding, and nothing follows the last frame.
//!
//! | offset | size | meaning |
//! |---|---|---|
//! | 0 | 8 | `RKLCHNK1` |
//! | 8 | 8 | length of the image in bytes |
//! | 16 | 4 | number of chunks *n* |
//! | 20 | 4 | number of encodings, 1 to 4 |
//! | 24 | 36 × *n* | chunks: 4 bytes length (bit 31 set: the chunk is all zeros), 32 bytes SHA-256 (zeros for a zero chunk) |
//! | … | 48 | per encoding: 32 bytes SHA-256 of the blob, 8 bytes its length, 4 bytes number of parts *m*, 4 bytes zero |
//! | … | 40 × *m* | parts of that encoding's frames: 4 bytes compressed length, 4 bytes number of chunks (bit 31 set: it goes on with the frame of the part before), 32 bytes SHA-256 of the compressed bytes |
//!
//! A parsed list ([`ChunkList`]) keeps its bytes and reads entries from them, so it costs its own size
//! in memory and nothing more. A node keeps the list of a large image in a file and reads it block by
//! block ([`StoredList`]).

mod builder;
pub mod delta;
mod seekable;
mod shape;
mod stored;

pub use builder::{Builder, FrameEntry, chunk_entry, header};
pub use seekable::{seekable_table, seekable_table_len};
pub use stored::{Entries, LIST_BLOCK, ListBytes, StoredList};

use self::shape::Shape;
use crate::digest::{Algorithm, Digest, Sha256};

/// First bytes of a chunk list.
pub const MAGIC: &[u8; 8] = b"RKLCHNK1";
/// 1 MiB: four times the largest chunk we cut; bounds a worker's buffer.
pub const DATA_CHUNK_LIMIT: u32 = 1 << 20;
/// 16 MiB: bounds the raw length of one zero frame for readers that do decompress it.
pub const ZERO_CHUNK_LIMIT: u32 = 16 << 20;
/// 64 MiB: bounds the raw length of one frame.
pub const FRAME_LIMIT: u64 = 64 << 20;
/// 64 MiB of list describe about 50 GiB of incompressible data in 64 KiB chunks.
pub const LIST_LIMIT: u64 = 64 << 20;

const HEADER: usize = 24;
const CHUNK: usize = 36;
const ENCODING: usize = 48;
const FRAME: usize = 40;
const ZERO_FLAG: u32 = 1 << 31;
const CONTINUES_FLAG: u32 = 1 << 31;

/// Why bytes are not a chunk list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkListError {
    /// Not the magic of a chunk list.
    #[error("chunk list: not a chunk list")]
    Magic,
    /// Shorter or longer than its counts say, or over [`LIST_LIMIT`].
    #[error("chunk list: {0} bytes are not the length its counts give")]
    Length(u64),
    /// A chunk of length zero, over the limit, or a zero chunk with a hash.
    #[error("chunk list: chunk {0} has an impossible length or hash")]
    Chunk(u32),
    /// The chunks do not add up to the image.
    #[error("chunk list: the chunks add up to {found} bytes, the image has {expected}")]
    ImageSize {
        /// Sum of the chunks.
        found: u64,
        /// Length in the header.
        expected: u64,
    },
    /// No encoding or more than four.
    #[error("chunk list: {0} encodings, 1 to 4 are possible")]
    Encodings(u32),
    /// A frame with no chunk, no bytes, or too many, or one that continues nothing.
    #[error("chunk list: frame {frame} of encoding {encoding} is impossible")]
    Frame {
        /// Index of the encoding.
        encoding: u32,
        /// Index of the frame.
        frame: u32,
    },
    /// The frames of an encoding do not cover all chunks or do not add up to its blob.
    #[error("chunk list: the frames of encoding {0} do not add up")]
    Coverage(u32),
    /// It does not have the digest that is signed.
    #[error("chunk list: it does not have the signed digest")]
    Digest,
    /// It cannot be read where it is kept.
    #[error("chunk list: read it: {0}")]
    Read(String),
    /// Bytes of it are not what they were when all of it had its digest.
    #[error("chunk list: byte {0} and on changed while it was used")]
    Changed(u64),
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Zero bytes only: never fetched.
    Zero,
    /// Data with this SHA-256.
    Data(Sha256),
}

/// One chunk of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the list.
    pub index: u32,
    /// Offset in the image, bytes.
    pub offset: u64,
    /// Length in bytes, never zero.
    pub len: u32,
    /// What it holds.
    pub content: Content,
}

/// One frame of an encoding, or one part of a large one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Offset in the blob, bytes.
    pub offset: u64,
    /// Compressed length in bytes.
    pub len: u32,
    /// Index of the first chunk it holds.
    pub first_chunk: u32,
    /// How many chunks it holds, at least one.
    pub chunks: u32,
    /// It goes on with the zstd frame of the one before, and is decompressed after it. The zstd
    /// frame ends before the next one that does not.
    pub continues: bool,
    /// SHA-256 of its compressed bytes.
    pub sha256: Sha256,
}

impl Frame {
    /// The indexes of its chunks.
    pub fn chunks(&self) -> std::ops::Range<u32> {
        // Parsed frames end with the list at the latest.
        self.first_chunk..self.first_chunk.saturating_add(self.chunks)
    }
}

/// One blob that holds the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// SHA-256 of the blob.
    pub blob: Sha256,
    /// Length of the blob in bytes, seekable table included.
    pub blob_size: u64,
    /// Number of frames, or parts of them.
    pub frames: u32,
    /// Where its frames begin in the list's bytes.
    table: usize,
}

/// A parsed chunk list: every count, sum and limit holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkList {
    bytes: Vec<u8>,
    shape: Shape,
}

impl ChunkList {
    /// Parses a list completely.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ChunkListError> {
        let (length, table) = (bytes.len() as u64, bytes.as_slice());
        let shape = Shape::read(&mut { table }, &mut { table }, length, 1)?;
        Ok(ChunkList { bytes, shape })
    }

    /// Length of the image in bytes.
    pub fn raw_size(&self) -> u64 {
        self.shape.raw_size
    }

    /// Number of chunks.
    pub fn chunk_count(&self) -> u32 {
        self.shape.chunks
    }

    /// The bytes of the list, as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the image is, however it is encoded: SHA-256 over its length, the number of its chunks
    /// and their entries. Two lists of the same image, cut the same way, have the same.
    pub fn image_id(&self) -> Sha256 {
        let mut hasher = Algorithm::Sha256.hasher();
        let entries = HEADER..HEADER + CHUNK * self.shape.chunks as usize;
        for part in [self.bytes.get(8..20), self.bytes.get(entries)].into_iter().flatten() {
            hasher.update(part);
        }
        match hasher.finish() {
            Digest::Sha256(hash) => hash,
            Digest::Sha512(_) => unreachable!("the hasher was made for SHA-256"),
        }
    }

    /// The blobs that hold the image; at least one.
    pub fn encodings(&self) -> &[Encoding] {
        &self.shape.encodings
    }

    /// The chunks in the order of the image.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        let mut offset = 0u64;
        (0..self.shape.chunks).map_while(move |index| {
            let (len, content) = self.entry(index)?;
            let chunk = Chunk { index, offset, len, content };
            offset += u64::from(len);
            Some(chunk)
        })
    }

    /// The frames of one encoding in the order of its blob.
    pub fn frames<'a>(&'a self, encoding: &'a Encoding) -> impl Iterator<Item = Frame> + 'a {
        let mut after = Frame::NONE;
        (0..encoding.frames).map_while(move |index| {
            after = after.next(array_at(&self.bytes, encoding.frame_at(index))?);
            Some(after)
        })
    }

    /// Length and content of a chunk.
    pub fn entry(&self, index: u32) -> Option<(u32, Content)> {
        if index >= self.shape.chunks {
            return None;
        }
        array_at(&self.bytes, chunk_at(index)).map(entry)
    }
}

/// Where a chunk's entry begins.
fn chunk_at(index: u32) -> usize {
    HEADER + CHUNK * index as usize
}

/// What an entry says: length and content of its chunk.
fn entry(bytes: [u8; CHUNK]) -> (u32, Content) {
    let (word, hash) = bytes.split_first_chunk().expect("an entry is longer than a word");
    let word = u32::from_le_bytes(*word);
    let hash = Sha256(hash.try_into().expect("the rest of an entry is a digest"));
    let content = if word & ZERO_FLAG != 0 { Content::Zero } else { Content::Data(hash) };
    (word & !ZERO_FLAG, content)
}

impl Encoding {
    fn frame_at(&self, index: u32) -> usize {
        self.table + FRAME * index as usize
    }
}

impl Frame {
    /// What is before the first one.
    const NONE: Frame = Frame {
        offset: 0,
        len: 0,
        first_chunk: 0,
        chunks: 0,
        continues: false,
        sha256: Sha256([0; 32]),
    };

    /// The frame of the entry that follows.
    fn next(&self, bytes: [u8; FRAME]) -> Frame {
        let (len, bytes) = bytes.split_first_chunk().expect("an entry is longer than a word");
        let (word, hash) = bytes.split_first_chunk().expect("an entry is longer than two words");
        let word = u32::from_le_bytes(*word);
        Frame {
            // Sums are checked against the totals when a list is parsed.
            offset: self.offset.saturating_add(u64::from(self.len)),
            len: u32::from_le_bytes(*len),
            first_chunk: self.first_chunk.saturating_add(self.chunks),
            chunks: word & !CONTINUES_FLAG,
            continues: word & CONTINUES_FLAG != 0,
            sha256: Sha256(hash.try_into().expect("the rest of an entry is a digest")),
        }
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

fn hash_at(bytes: &[u8], at: usize) -> Option<Sha256> {
    array_at(bytes, at).map(Sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two data chunks around a zero run; one frame per chunk, one frame for all, and one in parts.
    fn sample() -> ChunkList {
        let mut builder = Builder::default();
        builder.chunk(5, Content::Data(Sha256::of(b"first")));
        builder.chunk(4096, Content::Zero);
        builder.chunk(6, Content::Data(Sha256::of(b"second")));
        let frame = |len, chunks| FrameEntry { len, chunks, sha256: Sha256::of(&[len as u8]) };
        let small = [frame(10, 1), frame(11, 1), frame(12, 1)];
        builder.encoding(Sha256::of(b"small"), 33 + seekable_table_len(3), &small);
        builder.encoding(Sha256::of(b"solid"), 20 + seekable_table_len(1), &[frame(20, 3)]);
        let parts = [(frame(6, 1), false), (frame(7, 1), true), (frame(8, 1), false)];
        let size = 21 + seekable_table_len(2);
        builder.encoding_in_parts(Sha256::of(b"parts"), size, parts.into_iter());
        builder.finish().unwrap()
    }

    #[test]
    fn offsets_follow_from_lengths() {
        let list = sample();
        let offsets: Vec<u64> = list.chunks().map(|chunk| chunk.offset).collect();
        assert_eq!(offsets, [0, 5, 4101]);
        assert_eq!(list.raw_size(), 4107);
        let frames: Vec<_> = list
            .frames(&list.encodings()[0])
            .map(|frame| (frame.offset, frame.len, frame.first_chunk, frame.chunks))
            .collect();
        assert_eq!(frames, [(0, 10, 0, 1), (10, 11, 1, 1), (21, 12, 2, 1)]);
        assert_eq!(list.frames(&list.encodings()[1]).count(), 1);
        let parts: Vec<_> = list
            .frames(&list.encodings()[2])
            .map(|part| (part.offset, part.chunks(), part.continues))
            .collect();
        assert_eq!(parts, [(0, 0..1, false), (6, 1..2, true), (13, 2..3, false)]);
    }

    #[test]
    fn an_empty_image_has_no_chunks() {
        let mut builder = Builder::default();
        builder.encoding(Sha256::of(b""), seekable_table_len(0), &[]);
        let list = builder.finish().unwrap();
        assert_eq!((list.raw_size(), list.chunk_count(), list.chunks().count()), (0, 0, 0));
    }

    #[test]
    fn impossible_lists_are_refused() {
        let good = sample().as_bytes().to_vec();
        let change = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            ChunkList::parse(bad)
        };
        let first_encoding = HEADER + 3 * CHUNK;
        let first_frame = first_encoding + ENCODING;
        let rows: &[(&str, Result<ChunkList, ChunkListError>)] = &[
            ("magic", change(0, b"X")),
            ("raw size", change(8, &1u64.to_le_bytes())),
            ("chunk count", change(16, &u32::MAX.to_le_bytes())),
            ("no encoding", change(20, &0u32.to_le_bytes())),
            ("five encodings", change(20, &5u32.to_le_bytes())),
            ("empty chunk", change(HEADER, &0u32.to_le_bytes())),
            ("huge chunk", change(HEADER, &(DATA_CHUNK_LIMIT + 1).to_le_bytes())),
            ("zero chunk with a hash", change(HEADER + CHUNK + 4, &[1])),
            ("blob size", change(first_encoding + 32, &1u64.to_le_bytes())),
            ("frame count", change(first_encoding + 40, &u32::MAX.to_le_bytes())),
            ("reserved", change(first_encoding + 44, &[1])),
            ("empty frame", change(first_frame, &0u32.to_le_bytes())),
            ("frame without chunks", change(first_frame + 4, &0u32.to_le_bytes())),
            ("frame with too many chunks", change(first_frame + 4, &u32::MAX.to_le_bytes())),
            (
                "a first frame that continues",
                change(first_frame + 4, &(1 | 1u32 << 31).to_le_bytes()),
            ),
            ("trailing byte", ChunkList::parse([&good[..], &[0]].concat())),
        ];
        for (name, result) in rows {
            assert!(result.is_err(), "{name} was accepted");
        }
        for end in 0..good.len() {
            assert!(ChunkList::parse(good[..end].to_vec()).is_err(), "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn lists_round_trip(lens in prop::collection::vec((1u32..=DATA_CHUNK_LIMIT, any::<bool>()), 0..40)) {
            let mut builder = Builder::default();
            let mut frames = Vec::new();
            for (len, zero) in &lens {
                let hash = Sha256::of(&len.to_le_bytes());
                builder.chunk(*len, if *zero { Content::Zero } else { Content::Data(hash) });
                frames.push(FrameEntry { len: *len, chunks: 1, sha256: hash });
            }
            let size: u64 = lens.iter().map(|(len, _)| u64::from(*len)).sum();
            let blob = size + seekable_table_len(frames.len() as u32);
            builder.encoding(Sha256::of(b"blob"), blob, &frames);
            let list = builder.finish().unwrap();
            prop_assert_eq!(list.raw_size(), size);
            let again = ChunkList::parse(list.as_bytes().to_vec()).unwrap();
            prop_assert_eq!(&again, &list);
            let found: Vec<_> = again.chunks().map(|c| (c.len, c.content == Content::Zero)).collect();
            prop_assert_eq!(found, lens);
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(MAGIC);
            }
            let _ = ChunkList::parse(bytes);
        }
    }
}
