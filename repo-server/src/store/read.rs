//! Reading: references, documents and blobs. Nothing leaves here under a digest that it does not have,
//! except the bytes of an open blob, which the caller verifies first.

use std::sync::Arc;

use bytes::Bytes;
use formats::digest::Digest;
use formats::error_chain;
use formats::oci::{MANIFEST_LIMIT, RepositoryName};
use storage::layout::LayoutError;

use super::backend::Blob;
use super::catalog::Visible;
use super::{Store, StoreError};
use crate::route::Reference;

/// 128 KiB: read at a time where bytes do not leave the server.
const PIECE: usize = 128 << 10;

/// What is behind a digest.
pub(super) enum ReadOutcome {
    Bytes(Vec<u8>),
    Missing,
    /// Other bytes than the digest says, or more than were asked for.
    Damaged,
}

impl Store {
    /// The manifest a reference stands for now.
    pub(crate) fn resolve(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<(Digest, Visible)>, StoreError> {
        if let Some(found) = self.resolve_known(name, reference) {
            return Ok(Some(found));
        }
        self.refresh()?;
        if let Some(found) = self.find_manifest(name, reference) {
            return Ok(Some(found));
        }
        let learnt = self.learn_of_manifest(name, reference)?;
        Ok(if learnt { self.find_manifest(name, reference) } else { None })
    }

    /// Looks into memory only: the same, where memory is known to be up to date; `None` elsewhere.
    pub(crate) fn resolve_known(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Option<(Digest, Visible)> {
        let known = match reference {
            Reference::Tag(_) => self.looked.is_fresh(self.looked.now()),
            // A digest never stands for anything else.
            Reference::Digest(_) => true,
        };
        if known { self.find_manifest(name, reference) } else { None }
    }

    fn find_manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Option<(Digest, Visible)> {
        self.with(name, |repository| {
            let digest = match reference {
                Reference::Tag(tag) => repository.tags.get(tag)?,
                Reference::Digest(digest) => digest,
            };
            Some((digest.clone(), repository.manifests.get(digest)?.clone()))
        })
        .flatten()
    }

    /// Whether the repository shows that blob now.
    pub(crate) fn shows_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let look = || self.with(name, |it| it.blobs.contains(digest)).unwrap_or(false);
        if look() {
            return Ok(true);
        }
        self.refresh()?;
        Ok(look() || self.learn_of_blob(name, digest)?)
    }

    /// Looks into memory only: verified bytes of a small blob that was read before.
    pub(crate) fn small(&self, digest: &Digest) -> Option<Bytes> {
        self.small.find(digest)
    }

    /// All bytes of a manifest or another document, verified; `None` when it is not there or
    /// damaged.
    pub(crate) fn document(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if let Some(bytes) = self.small.find(digest) {
            return Ok(Some(bytes));
        }
        let ReadOutcome::Bytes(bytes) = self.read(digest, MANIFEST_LIMIT)? else { return Ok(None) };
        let bytes = Bytes::from(bytes);
        self.small.keep(digest.clone(), &bytes);
        Ok(Some(bytes))
    }

    /// The bytes of a blob of at most `max` bytes, verified; `None` when it is not there, damaged or
    /// longer. Keeps nothing in memory.
    pub(crate) fn bytes(&self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(match self.read(digest, max)? {
            ReadOutcome::Bytes(bytes) => Some(bytes),
            ReadOutcome::Missing | ReadOutcome::Damaged => None,
        })
    }

    /// A whole blob of at most `max` bytes, verified.
    pub(super) fn read(&self, digest: &Digest, max: u64) -> Result<ReadOutcome, StoreError> {
        let Some(blob) = self.backend.open_blob(digest)? else { return Ok(ReadOutcome::Missing) };
        let told = |error: &dyn std::error::Error| {
            tracing::error!(error = %error_chain(error), "damaged blob not served");
            Ok(ReadOutcome::Damaged)
        };
        if blob.len() > max {
            let (digest, len) = (digest.clone(), blob.len());
            return told(&LayoutError::BlobTooLong { digest, len, max });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(blob.len()).unwrap_or(0));
        let mut pieces = blob.read(0, blob.len())?;
        loop {
            match pieces.next(PIECE) {
                Ok(piece) if piece.is_empty() => break,
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(
                    error @ StoreError::Layout(
                        LayoutError::BlobRange { .. } | LayoutError::Shortened(_),
                    ),
                ) => {
                    return told(&error);
                }
                Err(error) => return Err(error),
            }
        }
        let mut hasher = digest.algorithm().hasher();
        hasher.update(&bytes);
        match hasher.finish() {
            found if found == *digest => Ok(ReadOutcome::Bytes(bytes)),
            found => told(&LayoutError::BlobDigest { named: digest.clone(), found }),
        }
    }

    /// Opens a blob. Its bytes may not have been verified.
    #[doc(hidden)]
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<Arc<dyn Blob>>, StoreError> {
        self.backend.open_blob(digest)
    }

    /// Whether the bytes of an open blob are known to have its digest. Looks into memory only.
    pub(crate) fn is_verified(&self, digest: &Digest, blob: &dyn Blob) -> Result<bool, StoreError> {
        Ok(self.verified.holds(digest, &blob.stamp()?))
    }

    /// Hashes an open blob; `false`, and a line in the log, when it does not have its digest.
    #[doc(hidden)]
    pub fn verify(&self, digest: &Digest, blob: &dyn Blob) -> Result<bool, StoreError> {
        let stamp = blob.stamp()?;
        match hashed(digest, blob) {
            Ok(()) => {
                self.verified.insert(digest.clone(), stamp);
                Ok(true)
            }
            Err(
                error @ StoreError::Layout(
                    LayoutError::BlobDigest { .. }
                    | LayoutError::BlobRange { .. }
                    | LayoutError::Shortened(_),
                ),
            ) => {
                tracing::error!(error = %error_chain(&error), "damaged blob not served");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Blobs whose bytes do not have their digest, after reading all of them: `(digest, why)`.
    /// `progress` is told of each blob before it is read.
    pub fn scrub(
        &self,
        mut progress: impl FnMut(&Digest, u64),
    ) -> Result<(usize, Vec<(Digest, String)>), StoreError> {
        let blobs = self.backend.blobs()?;
        let mut rotten = Vec::new();
        for stored in &blobs {
            let Some(blob) = self.backend.open_blob(&stored.digest)? else { continue };
            progress(&stored.digest, blob.len());
            if let Err(error) = hashed(&stored.digest, &*blob) {
                rotten.push((stored.digest.clone(), error_chain(&error)));
            }
        }
        Ok((blobs.len(), rotten))
    }
}

/// Reads all of a blob and compares it with its digest.
fn hashed(digest: &Digest, blob: &dyn Blob) -> Result<(), StoreError> {
    let mut hasher = digest.algorithm().hasher();
    let mut pieces = blob.read(0, blob.len())?;
    loop {
        let piece = pieces.next(PIECE)?;
        if piece.is_empty() {
            break;
        }
        hasher.update(&piece);
    }
    match hasher.finish() {
        found if found == *digest => Ok(()),
        found => Err(LayoutError::BlobDigest { named: digest.clone(), found }.into()),
    }
}
