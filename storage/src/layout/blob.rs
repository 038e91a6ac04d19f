//! One blob, opened: a file of its own, or a part of a tar.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::digest::Digest;

use super::LayoutError;
use crate::dir::DirFile;
use crate::error::FileError;

/// An opened blob. Reading it never opens anything again, so the bytes verified through it are
/// bytes of the same file that is read later (S13).
#[derive(Debug, Clone)]
pub struct Blob {
    digest: Digest,
    file: Arc<dyn DirFile>,
    path: Arc<PathBuf>,
    offset: u64,
    len: u64,
}

impl Blob {
    pub(super) fn new(
        digest: Digest,
        file: Arc<dyn DirFile>,
        path: Arc<PathBuf>,
        offset: u64,
        len: u64,
    ) -> Self {
        Blob { digest, file, path, offset, len }
    }

    /// The digest it is named after.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its length in bytes when it was opened.
    #[expect(clippy::len_without_is_empty, reason = "a length, not a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The file it lies in and where it begins there.
    pub fn file(&self) -> (&dyn DirFile, u64) {
        (self.file.as_ref(), self.offset)
    }

    /// Fills `buf` from `offset` on. The bytes are **not** verified.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), LayoutError> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.len {
            return Err(LayoutError::BlobRange { digest: self.digest.clone(), end });
        }
        match self.file.read_exact_at(buf, self.offset.saturating_add(offset)) {
            // The file was cut while we read it: a fault of the medium, not of the signature.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(LayoutError::Shortened(self.path.display().to_string()))
            }
            Err(error) => Err(read_failed(&self.path, error)),
            Ok(()) => Ok(()),
        }
    }

    /// All bytes, at most `max`, verified against the digest.
    pub fn read_verified(&self, max: u64) -> Result<Vec<u8>, LayoutError> {
        let too_long =
            || LayoutError::BlobTooLong { digest: self.digest.clone(), len: self.len, max };
        if self.len > max {
            return Err(too_long());
        }
        let mut bytes = vec![0; usize::try_from(self.len).map_err(|_| too_long())?];
        self.read_at(&mut bytes, 0)?;
        let mut hasher = self.digest.algorithm().hasher();
        hasher.update(&bytes);
        self.expect_digest(hasher.finish())?;
        Ok(bytes)
    }

    /// Hashes all bytes in pieces and compares with the digest.
    pub fn verify(&self) -> Result<(), LayoutError> {
        let mut hasher = self.digest.algorithm().hasher();
        self.for_each_piece(|piece| {
            hasher.update(piece);
            Ok(())
        })?;
        self.expect_digest(hasher.finish())
    }

    /// Sets the time of the file's last change to now, so that a concurrent garbage collection
    /// keeps it until something refers to it. A file of another owner keeps its time.
    pub(super) fn touch(&self) -> Result<(), LayoutError> {
        match self.file.touch() {
            Ok(()) => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(LayoutError::Write(FileError::io("touch", &self.path, error))),
        }
    }

    /// A reader of all bytes from the start. They are **not** verified.
    pub fn reader(&self) -> impl Read + Send + use<> {
        BlobReader { blob: self.clone(), at: 0 }
    }

    /// All bytes in order, in pieces of at most 1 MiB.
    pub(super) fn for_each_piece(
        &self,
        mut take: impl FnMut(&[u8]) -> Result<(), LayoutError>,
    ) -> Result<(), LayoutError> {
        let mut buf = vec![0; usize::try_from(self.len.min(1 << 20)).unwrap_or(1 << 20)];
        let mut at = 0;
        while at < self.len {
            let piece =
                usize::try_from(self.len - at).map_or(buf.len(), |left| left.min(buf.len()));
            let piece = &mut buf[..piece];
            self.read_at(piece, at)?;
            take(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    pub(super) fn expect_digest(&self, found: Digest) -> Result<(), LayoutError> {
        if found == self.digest {
            Ok(())
        } else {
            Err(LayoutError::BlobDigest { named: self.digest.clone(), found })
        }
    }
}

struct BlobReader {
    blob: Blob,
    at: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.blob.len - self.at).unwrap_or(usize::MAX);
        let want = buf.len().min(left);
        let got = self.blob.file.read_at(&mut buf[..want], self.blob.offset + self.at)?;
        if got == 0 && want != 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += got as u64;
        Ok(got)
    }
}

pub(super) fn read_failed(path: &Path, error: io::Error) -> LayoutError {
    LayoutError::Read(FileError::io("read", path, error))
}
