//! Parsing a chunk list: every count, sum and limit, wherever its bytes are.

use super::{
    CHUNK, ChunkListError, Content, DATA_CHUNK_LIMIT, ENCODING, Encoding, FRAME, FRAME_LIMIT,
    Frame, HEADER, LIST_LIMIT, MAGIC, ZERO_CHUNK_LIMIT, array_at, chunk_at, entry, hash_at,
    seekable_table_len, u32_at, u64_at,
};
use crate::digest::Sha256;

/// Reads the bytes of a list.
pub(super) trait Access {
    /// The bytes at an offset; `None` past the end.
    fn at<const N: usize>(&mut self, offset: usize) -> Result<Option<[u8; N]>, ChunkListError>;
}

impl Access for &[u8] {
    fn at<const N: usize>(&mut self, offset: usize) -> Result<Option<[u8; N]>, ChunkListError> {
        Ok(array_at(self, offset))
    }
}

/// What a list says beside its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) raw_size: u64,
    pub(super) chunks: u32,
    pub(super) encodings: Vec<Encoding>,
    /// Offset in the image of every [`STRIDE`]-th chunk.
    pub(super) offsets: Vec<u64>,
}

/// So many chunks are walked at most to find where one is: 8 bytes of memory for 1,024 of them.
pub(super) const STRIDE: u32 = 1024;

impl Shape {
    /// Checks a whole list of `length` bytes, of which both read: one the tables, one beside it the
    /// chunks that a frame holds. A list has `least` encodings, or more.
    pub(super) fn read(
        table: &mut impl Access,
        chunks: &mut impl Access,
        length: u64,
        least: u32,
    ) -> Result<Self, ChunkListError> {
        let wrong_length = ChunkListError::Length(length);
        let magic: Option<[u8; 8]> = table.at(0)?;
        if magic.as_ref() != Some(MAGIC) {
            return Err(ChunkListError::Magic);
        }
        if length > LIST_LIMIT {
            return Err(wrong_length);
        }
        let header: [u8; HEADER] = table.at(0)?.ok_or(wrong_length.clone())?;
        let numbers = (u64_at(&header, 8), u32_at(&header, 16), u32_at(&header, 20));
        let (Some(raw_size), Some(count), Some(encodings)) = numbers else {
            return Err(wrong_length);
        };
        if !(least..=4).contains(&encodings) {
            return Err(ChunkListError::Encodings(encodings));
        }
        let mut at = chunk_at(count);
        if at as u64 > length {
            return Err(wrong_length);
        }
        let mut shape = Shape { raw_size, chunks: count, encodings: vec![], offsets: vec![] };
        shape.read_chunks(table)?;
        for number in 0..encodings {
            let bytes: [u8; ENCODING] = table.at(at)?.ok_or(wrong_length.clone())?;
            let encoding = encoding(bytes, at).ok_or(wrong_length.clone())?;
            at = encoding.frame_at(encoding.frames);
            if at as u64 > length {
                return Err(wrong_length);
            }
            shape.check_frames(number, &encoding, table, chunks)?;
            shape.encodings.push(encoding);
        }
        if at as u64 == length { Ok(shape) } else { Err(wrong_length) }
    }

    fn read_chunks(&mut self, table: &mut impl Access) -> Result<(), ChunkListError> {
        let mut sum = 0u64;
        for index in 0..self.chunks {
            if index % STRIDE == 0 {
                self.offsets.push(sum);
            }
            let refused = ChunkListError::Chunk(index);
            let bytes: [u8; CHUNK] = table.at(chunk_at(index))?.ok_or(refused.clone())?;
            let (len, content) = entry(bytes);
            let limit = match content {
                Content::Zero => ZERO_CHUNK_LIMIT,
                Content::Data(_) => DATA_CHUNK_LIMIT,
            };
            let hash_fits = content != Content::Zero || hash_at(&bytes, 4) == Some(Sha256([0; 32]));
            if len == 0 || len > limit || !hash_fits {
                return Err(refused);
            }
            sum += u64::from(len);
        }
        if sum == self.raw_size {
            Ok(())
        } else {
            Err(ChunkListError::ImageSize { found: sum, expected: self.raw_size })
        }
    }

    fn check_frames(
        &self,
        number: u32,
        encoding: &Encoding,
        table: &mut impl Access,
        chunks: &mut impl Access,
    ) -> Result<(), ChunkListError> {
        let (mut size, mut covered, mut raw, mut whole) = (0u64, 0u32, 0u64, 0u32);
        let mut frame = Frame::NONE;
        for index in 0..encoding.frames {
            let refused = ChunkListError::Frame { encoding: number, frame: index };
            let bytes: [u8; FRAME] = table.at(encoding.frame_at(index))?.ok_or(refused.clone())?;
            frame = frame.next(bytes);
            let end = covered.checked_add(frame.chunks).ok_or(refused.clone())?;
            let orphan = frame.continues && index == 0;
            if frame.len == 0 || frame.chunks == 0 || end > self.chunks || orphan {
                return Err(refused);
            }
            if !frame.continues {
                (raw, whole) = (0, whole + 1);
            }
            for chunk in covered..end {
                let bytes: [u8; CHUNK] = chunks.at(chunk_at(chunk))?.ok_or(refused.clone())?;
                raw += u64::from(entry(bytes).0);
            }
            if raw > FRAME_LIMIT {
                return Err(refused);
            }
            size += u64::from(frame.len);
            covered = end;
        }
        let table = seekable_table_len(whole);
        if covered == self.chunks && size.checked_add(table) == Some(encoding.blob_size) {
            Ok(())
        } else {
            Err(ChunkListError::Coverage(number))
        }
    }
}

/// The encoding whose header stands at an offset.
fn encoding(bytes: [u8; ENCODING], at: usize) -> Option<Encoding> {
    let encoding = Encoding {
        blob: hash_at(&bytes, 0)?,
        blob_size: u64_at(&bytes, 32)?,
        frames: u32_at(&bytes, 40)?,
        table: at + ENCODING,
    };
    let reserved = u32_at(&bytes, 44)?;
    (reserved == 0).then_some(encoding)
}
