//! Writing one blob.

use std::io::{self, Write};
use std::sync::Arc;

use formats::digest::{Algorithm, Digest, Hasher};

use super::inner::Inner;
use super::{LayoutError, blob};
use crate::dir::{Dir, DirFile};
use crate::error::FileError;

/// A blob being written: hashed on its way, invisible until [`BlobWriter::commit`].
///
/// It stays under `.tmp/`, mode 0644, and is removed when dropped. What a process leaves when it
/// is killed is removed by the next [`LayoutDir::create`](super::LayoutDir::create).
#[derive(Debug)]
pub struct BlobWriter {
    layout: Arc<Inner>,
    temporary: Box<dyn Dir>,
    name: String,
    file: Arc<dyn DirFile>,
    algorithm: Algorithm,
    hasher: Option<Hasher>,
    len: u64,
    committed: bool,
}

impl BlobWriter {
    pub(super) fn new(layout: Arc<Inner>, algorithm: Algorithm) -> Result<Self, LayoutError> {
        let temporary = layout.temporary().map_err(LayoutError::Write)?;
        let (name, file) = temporary.create_temporary().map_err(LayoutError::Write)?;
        let hasher = Some(algorithm.hasher());
        let (len, committed) = (0, false);
        Ok(BlobWriter { layout, temporary, name, file, algorithm, hasher, len, committed })
    }

    /// Bytes written so far.
    #[expect(clippy::len_without_is_empty, reason = "a length, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Makes the blob visible under its digest, durably: sync, rename, sync of the directory.
    ///
    /// With `expected`, bytes of another digest are refused and deleted. After a crash the
    /// blob is there whole or not at all.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<Digest, LayoutError> {
        let digest = match expected {
            // The algorithm was not known when writing began: hash what was written.
            Some(expected) if expected.algorithm() != self.algorithm => {
                self.rehash(expected.algorithm())?
            }
            _ => self.hasher.take().expect("commit consumes the writer").finish(),
        };
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(LayoutError::BlobDigest { named: expected.clone(), found: digest });
        }
        self.file.sync().map_err(|error| self.failed("sync", error))?;
        let blobs = self.layout.blobs_or_create(digest.algorithm()).map_err(LayoutError::Write)?;
        self.temporary.rename(&self.name, blobs, &digest.hex()).map_err(LayoutError::Write)?;
        self.committed = true;
        blobs.sync().map_err(LayoutError::Write)?;
        Ok(digest)
    }

    fn rehash(&self, algorithm: Algorithm) -> Result<Digest, LayoutError> {
        let mut hasher = algorithm.hasher();
        let mut buf = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            let got = self
                .file
                .read_at(&mut buf, at)
                .map_err(|error| blob::read_failed(&self.temporary.shown(&self.name), error))?;
            if got == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buf[..got]);
            at += got as u64;
        }
    }

    pub(super) fn failed(&self, action: &'static str, error: io::Error) -> LayoutError {
        let path = self.temporary.shown(&self.name);
        match error.kind() {
            io::ErrorKind::FileTooLarge => LayoutError::writing(&path, error),
            _ => LayoutError::Write(FileError::io(action, &path, error)),
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(buf, self.len)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buf);
        }
        self.len += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing refers to it; if this fails, the next writer removes it as stale.
            let _ = self.temporary.unlink(&self.name);
        }
    }
}
