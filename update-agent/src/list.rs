//! Chunk lists of this node: where their bytes are.
//!
//! ```text
//!  source ──► Spool ──► few bytes: held ────────────┐
//!                       more: a file of the state ──┼─► List: every block compared when it is read
//!  state/chunks/DIGEST ─────────────────────────────┘
//! ```
//!
//! A list is 2 KB for each MiB of data, so that of a large image is not held. Its file is nobody's
//! proof: see [`StoredList`].

use std::sync::Arc;

use formats::chunks::{
    ChunkListError, Content, LIST_LIMIT, ListBytes, StoredList, chunk_entry, header,
};
use formats::oci::Descriptor;
use formats::reason::Reason;
use storage::StoreError;
use storage::dir::DirFile;
use storage::files::{PrivateDir, Temporary};

use crate::error::AgentError;
use crate::source::Source;

/// 256 KiB: the list of 130 MiB of data. Less is held, and needs no file.
pub(crate) const HELD_MAX: u64 = 256 << 10;

/// The chunk list of an image.
pub type List = StoredList<ListFile>;

/// Where the bytes of a chunk list are.
#[derive(Debug)]
pub enum ListFile {
    /// In memory.
    Held(Vec<u8>),
    /// In a file without a name, and how many.
    Temporary(Temporary, u64),
    /// In a file of the state, and how many.
    Kept(Arc<dyn DirFile>, u64),
}

impl From<Vec<u8>> for ListFile {
    fn from(bytes: Vec<u8>) -> Self {
        ListFile::Held(bytes)
    }
}

impl ListBytes for ListFile {
    fn len(&self) -> u64 {
        match self {
            ListFile::Held(bytes) => ListBytes::len(bytes),
            ListFile::Temporary(_, len) | ListFile::Kept(_, len) => *len,
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), String> {
        let file = match self {
            ListFile::Held(bytes) => return bytes.read(buf, offset),
            ListFile::Temporary(temporary, _) => temporary.file(),
            ListFile::Kept(file, _) => file.as_ref(),
        };
        file.read_exact_at(buf, offset).map_err(|error| error.to_string())
    }
}

/// The stable reason why a list is of no use.
pub(crate) fn reason(error: &ChunkListError) -> Reason {
    match error {
        ChunkListError::Digest => Reason::HashMismatch,
        ChunkListError::Read(_) => Reason::StoreIo,
        ChunkListError::Changed(_) => Reason::StoreCorrupt,
        _ => Reason::BundleFormat,
    }
}

impl From<ChunkListError> for AgentError {
    fn from(error: ChunkListError) -> Self {
        AgentError::new(reason(&error), error.to_string())
    }
}

/// Fetches a list and compares it with its digest before anything of it is used.
pub(crate) fn fetch(
    dir: &PrivateDir,
    product: &str,
    source: &dyn Source,
    blob: &Descriptor,
) -> Result<List, AgentError> {
    let signed = blob.digest.as_sha256().ok_or_else(|| {
        AgentError::new(Reason::BundleFormat, "the chunk list is not named by sha256")
    })?;
    if blob.size <= HELD_MAX || blob.size > LIST_LIMIT {
        let bytes = source.blob(product, blob, LIST_LIMIT)?;
        return Ok(List::open(ListFile::Held(bytes), signed)?);
    }
    let (mut spool, mut failed) = (Spool::new(dir), None);
    let all = 0..blob.size;
    source.ranges(product, blob, std::slice::from_ref(&all), &mut |_, bytes| match spool
        .push(bytes)
    {
        Ok(()) => std::ops::ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            std::ops::ControlFlow::Break(())
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(List::open(spool.finish()?, signed)?),
    }
}

/// Takes bytes in their order: held while they are few, and else in a file of the state.
pub(crate) struct Spool<'a> {
    dir: &'a PrivateDir,
    held: Vec<u8>,
    file: Option<(Temporary, u64)>,
}

impl<'a> Spool<'a> {
    pub(crate) fn new(dir: &'a PrivateDir) -> Self {
        Spool { dir, held: Vec::new(), file: None }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.held.extend_from_slice(bytes);
        if self.held.len() as u64 > HELD_MAX { self.write() } else { Ok(()) }
    }

    /// Writes what is held.
    fn write(&mut self) -> Result<(), StoreError> {
        let (temporary, len) = match &mut self.file {
            Some(file) => file,
            none => none.insert((self.dir.temporary()?, 0)),
        };
        temporary.write(&self.held, *len)?;
        *len += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }

    /// Replaces the first bytes.
    fn put_first(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match &self.file {
            Some((temporary, _)) => temporary.write(bytes, 0),
            None => {
                self.held.splice(..bytes.len().min(self.held.len()), bytes.iter().copied());
                Ok(())
            }
        }
    }

    pub(crate) fn finish(mut self) -> Result<ListFile, StoreError> {
        if self.file.is_some() {
            self.write()?;
        }
        Ok(match self.file {
            Some((temporary, len)) => ListFile::Temporary(temporary, len),
            None => ListFile::Held(self.held),
        })
    }
}

/// A list that is made of what a device holds, chunk by chunk. It has no encoding: nobody fetches it.
pub(crate) struct Found<'a> {
    spool: Spool<'a>,
    raw_size: u64,
    chunks: u32,
}

impl<'a> Found<'a> {
    pub(crate) fn new(dir: &'a PrivateDir) -> Result<Self, StoreError> {
        let mut spool = Spool::new(dir);
        spool.push(&header(0, 0, 0))?;
        Ok(Found { spool, raw_size: 0, chunks: 0 })
    }

    /// Takes the next chunk.
    pub(crate) fn take(&mut self, len: u32, content: Content) -> Result<(), StoreError> {
        self.raw_size += u64::from(len);
        self.chunks += 1;
        self.spool.push(&chunk_entry(len, content))
    }

    pub(crate) fn finish(mut self) -> Result<ListFile, StoreError> {
        self.spool.put_first(&header(self.raw_size, self.chunks, 0))?;
        self.spool.finish()
    }
}

#[cfg(test)]
mod tests;
