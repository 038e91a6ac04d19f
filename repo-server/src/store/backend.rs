//! What a storage has to do, whatever it is made of: a directory ([`super::local`]), a bucket
//! ([`super::bucket`]).
//!
//! ```text
//!  Store ─► Backend ─► blobs by digest     whole or not there
//!                   ─► index.json          references move all at once
//!                   ─► links               which repository shows what
//!                   ─► uploads             bytes that are no blob yet; they outlive the server
//! ```
//!
//! Everything here blocks. A method that came back without an error is durable; one that was cut
//! off has happened or has not, and nothing in between can be seen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use formats::digest::{Algorithm, Digest};
use formats::oci::{Descriptor, Index, RepositoryName};

use super::StoreError;
use super::cache::BlobStamp;
use crate::route::SessionId;

/// References of `index.json` and what they stand for.
pub(crate) type Refs = BTreeMap<String, Descriptor>;

/// A place where a repository is kept. Shared by all requests.
pub(crate) trait Backend: fmt::Debug + Send + Sync {
    /// `index.json` as it stands now; the same `Arc` for as long as it has not changed.
    fn index(&self) -> Result<Arc<Index>, StoreError>;

    /// Changes references, all of them in one step and none when `edit` fails. `edit` sees them as
    /// they stand, and may be called again when somebody else was faster.
    fn update_refs(
        &self,
        edit: &mut dyn FnMut(&mut Refs) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// A blob, opened; `None` when it is not there or is not a plain file of ours.
    fn open_blob(&self, digest: &Digest) -> Result<Option<Arc<dyn Blob>>, StoreError>;

    /// Stores a small blob whose digest the caller has computed.
    fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError>;

    /// All blobs.
    fn blobs(&self) -> Result<Vec<StoredBlob>, StoreError>;

    /// Deletes a blob. A reader that has it open can read on.
    fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError>;

    /// All links.
    fn links(&self) -> Result<Vec<Link>, StoreError>;

    /// Shows a blob or a manifest in a repository.
    fn add_link(
        &self,
        name: &RepositoryName,
        kind: LinkKind,
        digest: &Digest,
        media_type: &str,
    ) -> Result<(), StoreError>;

    /// Takes that back; `false` when it was not so.
    fn remove_link(
        &self,
        name: &RepositoryName,
        kind: LinkKind,
        digest: &Digest,
    ) -> Result<bool, StoreError>;

    /// Begins an upload.
    fn new_upload(&self, key: &UploadKey) -> Result<Box<dyn Upload>, StoreError>;

    /// Goes on with one; `None` when it is gone.
    fn resume_upload(&self, key: &UploadKey) -> Result<Option<Box<dyn Upload>>, StoreError>;

    /// All uploads under way, also those that a server before this one began.
    fn uploads(&self) -> Result<Vec<(UploadKey, u64, SystemTime)>, StoreError>;

    /// What else a storage can do that several servers write at once; `None` for one with a single
    /// writer, of which what is in memory is always up to date.
    fn shared(&self) -> Option<&dyn SharedBackend> {
        None
    }
}

/// A storage that several servers write at once: what is in memory may be behind, and what is here
/// answers for the other servers.
pub(crate) trait SharedBackend: Backend {
    /// The next [`Backend::index`] asks the storage, however recently it was asked.
    fn forget_index(&self);

    /// The links to these as they stand now, one answer for each, in the same order.
    fn find_links(
        &self,
        name: &RepositoryName,
        wanted: &[(LinkKind, Digest)],
    ) -> Result<Vec<Option<Link>>, StoreError>;

    /// The links to manifests of one repository as they stand now.
    fn manifest_links(&self, name: &RepositoryName) -> Result<Vec<Link>, StoreError>;

    /// Garbage that was condemned, and when.
    fn condemned(&self) -> Result<Vec<(Digest, SystemTime)>, StoreError>;

    /// Notes that a blob is garbage from now on.
    fn condemn(&self, digest: &Digest) -> Result<(), StoreError>;

    /// Takes that back.
    fn spare(&self, digest: &Digest) -> Result<(), StoreError>;
}

/// A blob that is open: later changes of its name change nothing here.
pub trait Blob: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When it was written, or written again.
    fn modified(&self) -> Result<SystemTime, StoreError>;

    /// Tells these bytes from others that had the same name.
    fn stamp(&self) -> Result<BlobStamp, StoreError>;

    /// The bytes from `from` to `to`, which lie inside it, in order. They are **not** verified.
    fn read(&self, from: u64, to: u64) -> Result<Box<dyn Pieces>, StoreError>;
}

/// The bytes of a blob, piece by piece.
pub trait Pieces: fmt::Debug + Send {
    /// The next piece, of at most `most` bytes; empty at the end and never before.
    fn next(&mut self, most: usize) -> Result<Bytes, StoreError>;
}

/// Bytes that are no blob yet. Dropping it leaves them: another server goes on with them.
pub trait Upload: fmt::Debug + Send {
    /// Bytes stored so far.
    fn stored(&self) -> u64;

    /// Adds bytes at the end.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// A request has ended: what it sent has to outlive this process.
    fn pause(&mut self) -> Result<(), StoreError>;

    /// Whether no other server has gone on with it since it was paused.
    fn is_current(&mut self) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Makes a blob of them if they have that digest, and throws them away if not.
    fn commit(self: Box<Self>, digest: &Digest) -> Result<(), StoreError>;

    /// Throws them away.
    fn abandon(self: Box<Self>) -> Result<(), StoreError>;
}

/// What names an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadKey {
    /// The repository it is for.
    pub name: RepositoryName,
    /// The session.
    pub id: SessionId,
    /// What its digest will probably be made with.
    pub algorithm: Algorithm,
}

/// The kind of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LinkKind {
    /// A repository shows a blob.
    Blob,
    /// A repository shows a manifest.
    Manifest,
}

/// One link.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// The repository.
    pub name: RepositoryName,
    /// What it shows.
    pub kind: LinkKind,
    /// Which.
    pub digest: Digest,
    /// The media type a manifest was pushed as; empty for a blob.
    pub media_type: String,
    /// When it was made, or made again.
    pub modified: SystemTime,
}

/// One blob of the storage.
#[derive(Debug, Clone)]
pub(crate) struct StoredBlob {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub len: u64,
    /// When it was written, or written again.
    pub modified: SystemTime,
}
