//! Writing a chunk list.

use super::{CHUNK, CONTINUES_FLAG, ChunkList, ChunkListError, Content, HEADER, MAGIC, ZERO_FLAG};
use crate::digest::Sha256;

/// Collects chunks, then encodings, and writes the list.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    raw_size: u64,
    chunks: Vec<u8>,
    count: u32,
    encodings: Vec<u8>,
    encoding_count: u32,
}

/// One frame of an encoding to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEntry {
    /// Compressed length in bytes.
    pub len: u32,
    /// How many chunks it holds.
    pub chunks: u32,
    /// SHA-256 of its compressed bytes.
    pub sha256: Sha256,
}

/// The first bytes of a list.
pub fn header(raw_size: u64, chunks: u32, encodings: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&raw_size.to_le_bytes());
    bytes[16..20].copy_from_slice(&chunks.to_le_bytes());
    bytes[20..].copy_from_slice(&encodings.to_le_bytes());
    bytes
}

/// The entry of a chunk.
pub fn chunk_entry(len: u32, content: Content) -> [u8; CHUNK] {
    let (word, hash) = match content {
        Content::Zero => (len | ZERO_FLAG, Sha256([0; 32])),
        Content::Data(hash) => (len, hash),
    };
    let mut bytes = [0; CHUNK];
    bytes[..4].copy_from_slice(&word.to_le_bytes());
    bytes[4..].copy_from_slice(&hash.0);
    bytes
}

impl Builder {
    /// Adds the next chunk of the image.
    pub fn chunk(&mut self, len: u32, content: Content) {
        self.chunks.extend_from_slice(&chunk_entry(len, content));
        self.raw_size += u64::from(len);
        self.count += 1;
    }

    /// Adds a blob that holds all chunks, each of its frames whole.
    pub fn encoding(&mut self, blob: Sha256, blob_size: u64, frames: &[FrameEntry]) {
        self.encoding_in_parts(blob, blob_size, frames.iter().map(|frame| (*frame, false)));
    }

    /// The same with frames in parts; each says whether it goes on with the frame of the one
    /// before.
    pub fn encoding_in_parts(
        &mut self,
        blob: Sha256,
        blob_size: u64,
        parts: impl ExactSizeIterator<Item = (FrameEntry, bool)>,
    ) {
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        self.encodings.extend_from_slice(&blob.0);
        self.encodings.extend_from_slice(&blob_size.to_le_bytes());
        self.encodings.extend_from_slice(&count.to_le_bytes());
        self.encodings.extend_from_slice(&[0; 4]);
        for (part, continues) in parts {
            let flag = if continues { CONTINUES_FLAG } else { 0 };
            self.encodings.extend_from_slice(&part.len.to_le_bytes());
            self.encodings.extend_from_slice(&(part.chunks | flag).to_le_bytes());
            self.encodings.extend_from_slice(&part.sha256.0);
        }
        self.encoding_count += 1;
    }

    /// The finished list; parsed again, so that nothing is published that a node would refuse.
    pub fn finish(self) -> Result<ChunkList, ChunkListError> {
        let mut bytes = Vec::with_capacity(HEADER + self.chunks.len() + self.encodings.len());
        bytes.extend_from_slice(&header(self.raw_size, self.count, self.encoding_count));
        bytes.extend_from_slice(&self.chunks);
        bytes.extend_from_slice(&self.encodings);
        ChunkList::parse(bytes)
    }
}
