//! A chunk list that is kept elsewhere, in a file, and read block by block: memory does not depend on
//! the length of the image.
//!
//! What was read from the file once may be other bytes the next time: somebody writes to it, or the
//! medium loses a bit. So all of it is read when it is opened and compared with the signed digest, and
//! the digest of each block is kept, 2 bytes for 1,024 of the list. Whatever is read later comes from a
//! block that was compared with its digest: it is a byte of the list that was signed, or an error.

use super::shape::{Access, STRIDE, Shape};
use super::{
    CHUNK, Chunk, ChunkList, ChunkListError, Encoding, FRAME, Frame, LIST_LIMIT, chunk_at, entry,
};
use crate::digest::{Algorithm, Digest, Sha256};

/// 16 KiB: what is read, hashed and held at once; 455 chunks.
pub const LIST_BLOCK: usize = 16 << 10;

/// Where the bytes of a list are. They may be other bytes each time.
#[expect(clippy::len_without_is_empty, reason = "a length, not a collection")]
pub trait ListBytes: Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Fills `buf` with the bytes at `offset`, or says why not.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), String>;
}

impl ListBytes for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), String> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = self.get(start..start.saturating_add(buf.len()));
        buf.copy_from_slice(from.ok_or("it ends before")?);
        Ok(())
    }
}

/// A chunk list whose bytes are elsewhere: every count, sum and limit holds, and every entry that is
/// read is one of the list with its [`digest`](StoredList::digest).
#[derive(Debug)]
pub struct StoredList<B> {
    bytes: B,
    digest: Sha256,
    blocks: Vec<Sha256>,
    shape: Shape,
}

impl<B: From<Vec<u8>>> From<ChunkList> for StoredList<B> {
    fn from(list: ChunkList) -> Self {
        let (bytes, shape) = (list.bytes, list.shape);
        let blocks = bytes.chunks(LIST_BLOCK).map(Sha256::of).collect();
        StoredList { digest: Sha256::of(&bytes), bytes: bytes.into(), blocks, shape }
    }
}

impl<B: ListBytes> StoredList<B> {
    /// Reads a whole list, refuses one that does not have the signed digest, and parses it.
    pub fn open(bytes: B, signed: Sha256) -> Result<Self, ChunkListError> {
        Self::read(bytes, Some(signed), 1)
    }

    /// A list that was made here, which needs no encoding: nothing signed says what it is.
    pub fn own(bytes: B) -> Result<Self, ChunkListError> {
        Self::read(bytes, None, 0)
    }

    fn read(bytes: B, signed: Option<Sha256>, least: u32) -> Result<Self, ChunkListError> {
        let length = bytes.len();
        if length > LIST_LIMIT {
            return Err(ChunkListError::Length(length));
        }
        let mut hasher = Algorithm::Sha256.hasher();
        let (mut blocks, mut block) = (Vec::new(), Vec::new());
        for offset in (0..length).step_by(LIST_BLOCK) {
            fill(&bytes, offset, &mut block)?;
            hasher.update(&block);
            blocks.push(Sha256::of(&block));
        }
        let Digest::Sha256(digest) = hasher.finish() else {
            unreachable!("the hasher was made for SHA-256")
        };
        // Before anything of it is parsed.
        if signed.is_some_and(|signed| signed != digest) {
            return Err(ChunkListError::Digest);
        }
        let shape = Shape { raw_size: 0, chunks: 0, encodings: vec![], offsets: vec![] };
        let mut list = StoredList { bytes, digest, blocks, shape };
        list.shape = Shape::read(&mut list.reader(), &mut list.reader(), length, least)?;
        Ok(list)
    }

    /// Where its bytes are.
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The digest of all of its bytes, when it was opened.
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// Length of the image in bytes.
    pub fn raw_size(&self) -> u64 {
        self.shape.raw_size
    }

    /// Number of chunks.
    pub fn chunk_count(&self) -> u32 {
        self.shape.chunks
    }

    /// The blobs that hold the image; at least one, unless the list was [made here](Self::own).
    pub fn encodings(&self) -> &[Encoding] {
        &self.shape.encodings
    }

    /// As [`ChunkList::image_id`].
    pub fn image_id(&self) -> Result<Sha256, ChunkListError> {
        let mut hasher = Algorithm::Sha256.hasher();
        let mut reader = self.reader();
        let wrong = || ChunkListError::Length(self.bytes.len());
        hasher.update(&reader.at::<12>(8)?.ok_or_else(wrong)?);
        for index in 0..self.shape.chunks {
            hasher.update(&reader.at::<CHUNK>(chunk_at(index))?.ok_or_else(wrong)?);
        }
        match hasher.finish() {
            Digest::Sha256(hash) => Ok(hash),
            Digest::Sha512(_) => unreachable!("the hasher was made for SHA-256"),
        }
    }

    /// The chunks in the order of the image, up to an error.
    pub fn chunks(&self) -> impl Iterator<Item = Result<Chunk, ChunkListError>> + Send + '_ {
        let mut entries = self.entries();
        (0..self.shape.chunks).map_while(move |index| entries.chunk(index).transpose())
    }

    /// The frames of one of its encodings in the order of its blob, up to an error.
    pub fn frames<'a>(
        &'a self,
        encoding: &'a Encoding,
    ) -> impl Iterator<Item = Result<Frame, ChunkListError>> + 'a {
        let (mut reader, mut frame) = (self.reader(), Frame::NONE);
        (0..encoding.frames).map_while(move |index| {
            let next = reader.at::<FRAME>(encoding.frame_at(index)).transpose()?;
            Some(next.map(|bytes| {
                frame = frame.next(bytes);
                frame
            }))
        })
    }

    /// For chunks in any order; fast where they ascend.
    pub fn entries(&self) -> Entries<'_, B> {
        Entries { reader: self.reader(), next: (0, 0), shape: &self.shape }
    }

    fn reader(&self) -> Reader<'_, B> {
        Reader { bytes: &self.bytes, blocks: &self.blocks, block: Vec::new(), at: usize::MAX }
    }
}

/// Finds chunks of a list; holds one block of it.
#[derive(Debug)]
pub struct Entries<'a, B> {
    reader: Reader<'a, B>,
    /// A chunk whose offset is known: the one after the last that was asked for.
    next: (u32, u64),
    shape: &'a Shape,
}

impl<B: ListBytes> Entries<'_, B> {
    /// A chunk of the list; `None` past the last one.
    pub fn chunk(&mut self, index: u32) -> Result<Option<Chunk>, ChunkListError> {
        if index >= self.shape.chunks {
            return Ok(None);
        }
        let known = index / STRIDE * STRIDE;
        if !(known..=index).contains(&self.next.0) {
            let offset = self.shape.offsets.get((index / STRIDE) as usize);
            self.next = (known, offset.copied().unwrap_or(u64::MAX));
        }
        loop {
            let (at, offset) = self.next;
            let bytes: Option<[u8; CHUNK]> = self.reader.at(chunk_at(at))?;
            let Some((len, content)) = bytes.map(entry) else { return Ok(None) };
            // Sums were checked when the list was parsed.
            self.next = (at + 1, offset.saturating_add(u64::from(len)));
            if at == index {
                return Ok(Some(Chunk { index, offset, len, content }));
            }
        }
    }
}

/// Reads a list, one block after the other, each compared with its digest.
#[derive(Debug)]
struct Reader<'a, B> {
    bytes: &'a B,
    blocks: &'a [Sha256],
    block: Vec<u8>,
    /// Which block is held.
    at: usize,
}

impl<B: ListBytes> Reader<'_, B> {
    /// The bytes of a block; none past the last one.
    fn block(&mut self, number: usize) -> Result<&[u8], ChunkListError> {
        if number != self.at {
            self.at = usize::MAX;
            self.block.clear();
            let Some(digest) = self.blocks.get(number) else { return Ok(&[]) };
            let offset = number as u64 * LIST_BLOCK as u64;
            fill(self.bytes, offset, &mut self.block)?;
            if Sha256::of(&self.block) != *digest {
                return Err(ChunkListError::Changed(offset));
            }
            self.at = number;
        }
        Ok(&self.block)
    }
}

impl<B: ListBytes> Access for Reader<'_, B> {
    fn at<const N: usize>(&mut self, offset: usize) -> Result<Option<[u8; N]>, ChunkListError> {
        let (mut found, mut done) = ([0; N], 0);
        while done < N {
            let at = offset.saturating_add(done);
            let bytes = self.block(at / LIST_BLOCK)?.get(at % LIST_BLOCK..).unwrap_or_default();
            let count = bytes.len().min(N - done);
            if count == 0 {
                return Ok(None);
            }
            found[done..done + count].copy_from_slice(&bytes[..count]);
            done += count;
        }
        Ok(Some(found))
    }
}

/// The block that begins at an offset.
fn fill(bytes: &impl ListBytes, offset: u64, block: &mut Vec<u8>) -> Result<(), ChunkListError> {
    let left = bytes.len().saturating_sub(offset).min(LIST_BLOCK as u64);
    block.resize(usize::try_from(left).unwrap_or(LIST_BLOCK), 0);
    bytes.read(block, offset).map_err(ChunkListError::Read)
}

#[cfg(test)]
mod tests;
