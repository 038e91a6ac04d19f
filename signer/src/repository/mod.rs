//! Where a repository lies, and the few things that are done to it.
//!
//! ```text
//!  docker://host/ns     ─► RegistryClient (HTTP)            ┐
//!  oci:DIR[:ns]         ─► LayoutRepository (storage)       ├─ dyn Registry
//!  oci-archive:FILE.tar ─► LayoutRepository, read only      ┘
//! ```
//!
//! A repository is never trusted: documents are hashed before they are handed out, and what is
//! above them is the caller's to verify. Publishing is a sequence of calls that ends with
//! [`Registry::set_together`] or [`Registry::set_tag`] of `tuf:latest`; before that call no reader sees any of it.

#[cfg(feature = "registry")]
mod client;
mod error;
mod layout;
mod open;
mod referrers;
mod rehearsal;
mod tags;

#[cfg(feature = "registry")]
pub use client::{Backoff, Patience, RegistryClient};
pub use error::RegistryError;
pub use layout::LayoutRepository;
pub use open::{Access, ClientOptions, document, open};
pub use referrers::{attach, attach_all, attached, is_list_of};
pub use rehearsal::{Rehearsal, Transfer};
pub use tags::{Beside, Listed, Move, Removal, keep};

use std::io::{self, Read, Write};

use formats::digest::Digest;
use formats::oci::{Descriptor, RepositoryName, Tag};
use formats::reference::Reference;
use storage::layout::{Layout, Sweep, Swept};

use crate::progress::Progress;

/// What a tag must stand for when it is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Nothing: the tag is new.
    Absent,
    /// This, as it was read before.
    Digest(&'a Digest),
    /// Anything: what it stands for was never visible, or is the same.
    Anything,
}

impl Expect<'_> {
    /// Whether a tag that stands for `found` may be moved.
    fn allows(self, found: Option<&Digest>) -> bool {
        match (self, found) {
            (Expect::Absent, found) => found.is_none(),
            (Expect::Digest(expected), found) => found == Some(expected),
            (Expect::Anything, _) => true,
        }
    }
}

/// A place that holds repositories: blobs and manifests by digest, manifests by tag.
///
/// Crash behaviour: after any call, or in the middle of one, every blob and manifest is there
/// whole or not at all, and every tag stands for its old or its new manifest.
pub trait Registry {
    /// How it is named on command lines.
    fn reference(&self) -> &Reference;

    /// The image layout behind it, if it is one.
    fn layout(&self) -> Option<&dyn Layout> {
        None
    }

    /// The manifest a tag stands for, as received; `None` when there is no such tag or repository.
    fn tagged(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Vec<u8>>, RegistryError>;

    /// The manifest of that digest, verified.
    fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError>;

    /// Whether a blob is there. Says nothing about its bytes.
    fn has_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError>;

    /// The bytes of a blob as they come, **not** verified; the caller hashes and bounds them.
    fn open_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + '_>, RegistryError>;

    /// Begins a blob whose digest is not known yet.
    fn begin_blob(
        &self,
        repository: &RepositoryName,
    ) -> Result<Box<dyn BlobSink + '_>, RegistryError>;

    /// Stores a manifest under its digest. What it refers to must be there, or have been given to
    /// [`BlobSink::finish`]: this waits for it.
    fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Stored, RegistryError>;

    /// Repositories beside the one that is written which may hold the same blobs.
    fn may_mount_from(&self, _repositories: &[RepositoryName]) {}

    /// What is attached to a manifest, as the repository itself lists it, by digest; `None` when it
    /// keeps no such list, see [`attached`].
    fn referrers(
        &self,
        _repository: &RepositoryName,
        _subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        Ok(None)
    }

    /// Makes a tag stand for a stored manifest, if it stands for what is expected. One that stands
    /// for it already is not pushed again; one that the registry keeps where it is, is
    /// [`RegistryError::TagTaken`].
    ///
    /// In a directory this is atomic. The distribution API has no conditional PUT, so at a
    /// registry two publishers within the same second may both succeed; the later one's state is
    /// then what readers see, whole.
    fn set_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        manifest: &Descriptor,
        bytes: &[u8],
        expect: Expect<'_>,
    ) -> Result<(), RegistryError>;

    /// The same for several tags in one step: all of them move, or none. `None` where that cannot be had;
    /// then nothing was done.
    fn set_together(&self, _moves: &[Move<'_>]) -> Option<Result<(), RegistryError>> {
        None
    }

    /// The tags of a repository, in any order; none when there is no such repository.
    fn tags(&self, repository: &RepositoryName) -> Result<Vec<Listed>, RegistryError>;

    /// Removes tags, and nothing that they stand for. One whose manifest is known and is another one
    /// by now stays; one that is gone already is not counted.
    ///
    /// In a directory all of them go in one step, or none. A registry is asked for each: what was
    /// removed before it refused or failed stays removed, see [`Removal::stopped`].
    fn remove_tags(
        &self,
        repository: &RepositoryName,
        tags: &[Listed],
    ) -> Result<Removal, RegistryError>;

    /// Removes blobs that nothing needs, see [`LayoutDir::sweep`](storage::layout::LayoutDir::sweep);
    /// `None` where that is somebody else's business: registries and servers collect by themselves.
    fn sweep(&self, _sweep: &Sweep<'_>) -> Result<Option<Swept>, RegistryError> {
        Ok(None)
    }

    /// The bytes of a small blob, verified; at most `limit` bytes.
    fn blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
        what: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let digest = blob.digest.clone();
        if blob.size > limit {
            return Err(RegistryError::TooLarge { what, digest, size: blob.size, limit });
        }
        let mut bytes = Vec::new();
        self.open_blob(repository, blob)?
            .take(blob.size + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| RegistryError::Stream { digest: digest.clone(), source })?;
        if bytes.len() as u64 == blob.size && digest.matches(&bytes) {
            Ok(bytes)
        } else {
            Err(RegistryError::Digest { what, digest })
        }
    }

    /// Stores a small blob unless it is there.
    fn put_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        if self.has_blob(repository, blob)? {
            return Ok(());
        }
        store_blob(self, repository, blob, bytes)
    }
}

/// Stores a small blob.
fn store_blob<R: Registry + ?Sized>(
    registry: &R,
    repository: &RepositoryName,
    blob: &Descriptor,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    let mut sink = registry.begin_blob(repository)?;
    sink.write_all(bytes).map_err(|error| sink.failed(error))?;
    let stored = sink.finish(&Progress::default())?;
    if stored == blob.digest {
        return Ok(());
    }
    Err(RegistryError::Digest { what: "blob", digest: blob.digest.clone() })
}

/// What a repository does for a manifest that is attached to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Lists it by itself (`OCI-Subject`).
    ReferrersListed,
    /// Nothing, so that whoever attaches it keeps the list.
    ReferrersNotListed,
}

/// A blob on its way, hashed as it passes. Dropped unfinished, nothing of it remains.
pub trait BlobSink: Write {
    /// Gives its SHA-256 digest. In a directory the blob is durable then; on its way to a registry it
    /// may take until the next manifest is stored, which fails when the blob did not get there.
    fn finish(self: Box<Self>, progress: &Progress) -> Result<Digest, RegistryError>;

    /// The error of a failed write.
    fn failed(&self, source: io::Error) -> RegistryError;
}
