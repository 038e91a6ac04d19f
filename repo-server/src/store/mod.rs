//! Content-addressed storage, and which repository shows what of it.
//!
//! | module | does |
//! |---|---|
//! | [`backend`] | what a storage has to do |
//! | [`local`] | that, in a directory: an OCI image layout (the default) |
//! | [`bucket`] | that, in a bucket of an S3-compatible object store, which many servers share |
//! | `shared` | what other servers on the same storage did |
//! | [`catalog`], [`facts`] | links and references → repositories (pure) |
//! | [`gc`] | deletes what nothing refers to |
//! | [`quota`] | how many bytes may be stored, and are |
//!
//! A directory without its `repositories/` and `.tmp/` is a bundle as it stands. One that somebody
//! else writes (`signer publish --repo oci:DIR`) is served at once: a changed `index.json` is
//! noticed with the next request for a tag.
//!
//! Everything here blocks and is called from `spawn_blocking`, except where a method says that it
//! only looks into memory. Of two changes at once, one waits; readers never wait for a disk.

pub mod backend;
pub mod bucket;
pub mod cache;
pub mod catalog;
pub mod facts;
pub mod gc;
mod links;
pub mod local;
pub mod quota;
mod shared;
pub mod write;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use formats::digest::Digest;
use formats::error_chain;
use formats::oci::{Index, MANIFEST_LIMIT, RepositoryName};
use storage::FileError;
use storage::host::{Host, System};
use storage::layout::LayoutError;

use self::backend::{Backend, Blob, LinkKind};
use self::bucket::s3::S3;
use self::cache::{DocumentCache, VerifiedBlobs};
use self::catalog::{Repository, RepositoryLinks, Visible};
use self::facts::{Facts, FactsError};
use self::local::Local;
use self::quota::{Quota, Usage};
pub(crate) use self::shared::RELIST;
use crate::error::ServerError;
use crate::lock::{LockMutex as _, LockRw as _};
use crate::route::Reference;

/// Why the storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing the image layout failed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Reading or writing a link failed.
    #[error(transparent)]
    Link(#[from] FileError),
    /// Reading or writing a blob failed.
    #[error("blob")]
    Blob(#[source] io::Error),
    /// The manifest cannot be stored as such.
    #[error(transparent)]
    Manifest(#[from] FactsError),
    /// The bytes do not have the digest the client named.
    #[error("the manifest has digest {found}, not {named}")]
    Digest {
        /// In the request.
        named: Digest,
        /// Of the bytes.
        found: Digest,
    },
    /// The manifest names something the repository does not have.
    #[error("the manifest refers to {0}, which is not in the repository; push it first")]
    Incomplete(Digest),
    /// What is to be deleted is part of a manifest of the repository.
    #[error("manifest {0} refers to it; delete that manifest first")]
    Needed(Digest),
    /// The tag stands for something else, and the client may not move tags.
    #[error("tag {0} already exists; this token is create-only")]
    TagExists(String),
    /// A quota of the operator's is used up.
    #[error("{of} has used its quota of {quota} bytes; delete something first")]
    Quota {
        /// What the quota is for.
        of: String,
        /// In bytes.
        quota: u64,
    },
    /// The references of all manifests take all the memory they may.
    #[error("the references of all manifests already take {} MiB of memory", facts::KNOWN >> 20)]
    TooManyManifests,
    /// A needed manifest or TUF metadata file is damaged, so a collection cannot know what it needs.
    #[error(
        "{0} is damaged and its references cannot be read; nothing was deleted. Push it again, or delete its tag"
    )]
    UnreadableReferences(Digest),
    /// The object store did not do what was asked.
    #[error("{doing} {key} in the bucket")]
    Bucket {
        /// What was tried.
        doing: &'static str,
        /// The object's name.
        key: String,
        /// What came of it.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Another server changed the same thing first.
    #[error("{0}")]
    Conflict(&'static str),
    /// The server was started read-only.
    #[error("this server is read-only")]
    ReadOnly,
}

/// The storage of one server. Shared by all requests.
#[derive(Debug)]
pub struct Store {
    backend: Box<dyn Backend>,
    read_only: bool,
    catalog: RwLock<Catalog>,
    /// Locked by every change; holds what the catalog is made from.
    state: Mutex<WriterState>,
    verified: VerifiedBlobs,
    small: DocumentCache,
    usage: Arc<Usage>,
}

#[derive(Debug)]
struct Catalog {
    index: Arc<Index>,
    repositories: BTreeMap<RepositoryName, Repository>,
}

#[derive(Debug, Default)]
struct WriterState {
    links: BTreeMap<RepositoryName, RepositoryLinks>,
    /// Manifests read so far; their bytes had their digest.
    facts: HashMap<Digest, Arc<Facts>>,
    /// Blobs about to be linked: not garbage yet.
    pinned: Vec<Digest>,
}

/// 128 KiB: read at a time where bytes do not leave the server.
const PIECE: usize = 128 << 10;

/// What is behind a digest.
enum ReadOutcome {
    Bytes(Vec<u8>),
    Missing,
    /// Other bytes than the digest says, or more than were asked for.
    Damaged,
}

impl Store {
    /// Opens the storage in `dir`, see [`Local::open`].
    pub fn open(dir: &Path, read_only: bool) -> Result<Self, ServerError> {
        Self::open_with(dir, read_only, Quota::default())
    }

    /// The same, with quotas.
    pub fn open_with(dir: &Path, read_only: bool, quota: Quota) -> Result<Self, ServerError> {
        Self::open_on(&System, dir, read_only, quota)
    }

    /// The same on another kind of machine.
    pub fn open_on(
        host: &dyn Host,
        dir: &Path,
        read_only: bool,
        quota: Quota,
    ) -> Result<Self, ServerError> {
        let backend = Box::new(Local::open_on(host, dir, read_only)?);
        Self::over(backend, read_only, quota).map_err(|error| match error {
            StoreError::Layout(error) => local::damaged(dir, error),
            StoreError::Link(error) => local::damaged(dir, LayoutError::Read(error)),
            other => ServerError::Store { path: dir.to_owned(), why: error_chain(&other) },
        })
    }

    /// Opens the storage in a bucket, with quotas.
    pub fn open_bucket(place: &S3, read_only: bool, quota: Quota) -> Result<Self, ServerError> {
        let backend = Box::new(place.open(read_only)?);
        Self::over(backend, read_only, quota).map_err(|error| place.failed(&error))
    }

    /// Reads what a storage of any kind shows.
    pub fn over(
        backend: Box<dyn Backend>,
        read_only: bool,
        quota: Quota,
    ) -> Result<Self, StoreError> {
        let mut state = WriterState::default();
        for link in backend.links()? {
            state.link(&link.name, link.kind, &link.digest, &link.media_type);
        }
        let usage = Usage::new(quota);
        if usage.is_on() {
            let blobs = backend.blobs()?;
            usage.set_blobs(blobs.into_iter().map(|it| (it.digest, it.len)));
        }
        let catalog = Catalog { index: backend.index()?, repositories: BTreeMap::new() };
        let store = Store {
            backend,
            read_only,
            catalog: RwLock::new(catalog),
            state: Mutex::new(state),
            verified: VerifiedBlobs::default(),
            small: DocumentCache::default(),
            usage: Arc::new(usage),
        };
        let mut state = store.state();
        store.read_ahead(&mut state)?;
        store.rebuild(&mut state)?;
        drop(state);
        Ok(store)
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

    /// What is used of the quotas.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Looks into memory only: the repository as last known.
    pub fn with<T>(&self, name: &RepositoryName, look: impl FnOnce(&Repository) -> T) -> Option<T> {
        let catalog = self.catalog.read_locked();
        catalog.repositories.get(name).map(look)
    }

    /// Looks into memory only: whether any repository shows this blob.
    pub fn anywhere(&self, digest: &Digest) -> bool {
        let catalog = self.catalog.read_locked();
        catalog.repositories.values().any(|repository| repository.blobs.contains(digest))
    }

    /// Looks into memory only: the names of all repositories and how many tags each has.
    pub fn repositories(&self) -> Vec<(RepositoryName, usize)> {
        let catalog = self.catalog.read_locked();
        catalog.repositories.iter().map(|(name, it)| (name.clone(), it.tags.len())).collect()
    }

    /// Notices what other processes did to `index.json` since.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let index = self.backend.index()?;
        let current = |catalog: &Catalog| Arc::ptr_eq(&catalog.index, &index);
        if !current(&self.catalog.read_locked()) {
            self.rebuild(&mut self.state())?;
        }
        Ok(())
    }

    /// The manifest a reference stands for now.
    pub fn resolve(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<(Digest, Visible)>, StoreError> {
        let find = || {
            self.with(name, |repository| {
                let digest = match reference {
                    Reference::Tag(tag) => repository.tags.get(tag)?,
                    Reference::Digest(digest) => digest,
                };
                Some((digest.clone(), repository.manifests.get(digest)?.clone()))
            })
            .flatten()
        };
        if let (Reference::Digest(_), Some(found)) = (reference, find()) {
            return Ok(Some(found));
        }
        self.refresh()?;
        if let Some(found) = find() {
            return Ok(Some(found));
        }
        Ok(if self.learn_of_manifest(name, reference)? { find() } else { None })
    }

    /// Whether the repository shows that blob now.
    pub fn shows_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let look = || self.with(name, |it| it.blobs.contains(digest)).unwrap_or(false);
        if look() {
            return Ok(true);
        }
        self.refresh()?;
        Ok(look() || self.learn_of_blob(name, digest)?)
    }

    /// Looks into memory only: verified bytes of a small blob that was read before.
    pub fn small(&self, digest: &Digest) -> Option<Bytes> {
        self.small.find(digest)
    }

    /// All bytes of a manifest or another document, verified; `None` when it is not there or
    /// damaged.
    pub fn document(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
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
    fn read(&self, digest: &Digest, max: u64) -> Result<ReadOutcome, StoreError> {
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
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<Arc<dyn Blob>>, StoreError> {
        self.backend.open_blob(digest)
    }

    /// Whether the bytes of an open blob are known to have its digest. Looks into memory only.
    pub fn is_verified(&self, digest: &Digest, blob: &dyn Blob) -> Result<bool, StoreError> {
        Ok(self.verified.holds(digest, &blob.stamp()?))
    }

    /// Hashes an open blob; `false`, and a line in the log, when it does not have its digest.
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

    fn state(&self) -> std::sync::MutexGuard<'_, WriterState> {
        self.state.locked()
    }

    fn writable(&self) -> Result<&dyn Backend, StoreError> {
        if self.read_only { Err(StoreError::ReadOnly) } else { Ok(&*self.backend) }
    }

    /// Makes the catalog anew from `index.json` as it stands now and from the links. Manifests
    /// that were read before are not read again.
    fn rebuild(&self, state: &mut WriterState) -> Result<(), StoreError> {
        let index = self.backend.index()?;
        let WriterState { links, facts, .. } = state;
        let repositories = catalog::repositories(&index, links, |digest| {
            if let Some(known) = facts.get(digest) {
                return Some(Arc::clone(known));
            }
            let read = Arc::new(self.facts(digest)?);
            facts.insert(digest.clone(), Arc::clone(&read));
            Some(read)
        });
        if self.usage.is_on() {
            let used = |it: &Repository| {
                let blobs: u64 = it.blobs.iter().map(|digest| self.size(digest)).sum();
                blobs + it.manifests.values().map(|manifest| manifest.facts.len).sum::<u64>()
            };
            let used = repositories.iter().map(|(name, it)| (name.clone(), used(it)));
            self.usage.set_repositories(used.collect());
        }
        *self.catalog.write_locked() = Catalog { index, repositories };
        Ok(())
    }

    /// A blob's length, for the quotas; what cannot be opened has none.
    fn size(&self, digest: &Digest) -> u64 {
        if let Some(known) = self.usage.size(digest) {
            return known;
        }
        let len = self.backend.open_blob(digest).ok().flatten().map_or(0, |blob| blob.len());
        self.usage.add(digest, len);
        len
    }

    fn facts(&self, digest: &Digest) -> Option<Facts> {
        match self.read(digest, MANIFEST_LIMIT) {
            Ok(ReadOutcome::Bytes(bytes)) => Facts::parse(&bytes)
                .inspect_err(|error| tracing::warn!(%digest, %error, "not a manifest; hidden"))
                .ok(),
            Ok(ReadOutcome::Missing | ReadOutcome::Damaged) => {
                tracing::warn!(%digest, "manifest missing or damaged; hidden");
                None
            }
            Err(error) => {
                tracing::warn!(%digest, error = %error_chain(&error), "manifest unreadable; hidden");
                None
            }
        }
    }
}

impl WriterState {
    fn link(&mut self, name: &RepositoryName, kind: LinkKind, digest: &Digest, media_type: &str) {
        let linked = self.links.entry(name.clone()).or_default();
        match kind {
            LinkKind::Blob => {
                linked.blobs.insert(digest.clone());
            }
            LinkKind::Manifest => {
                linked.manifests.insert(digest.clone(), media_type.to_owned());
            }
        }
    }

    fn unlink(&mut self, name: &RepositoryName, kind: LinkKind, digest: &Digest) {
        let Some(linked) = self.links.get_mut(name) else { return };
        match kind {
            LinkKind::Blob => {
                linked.blobs.remove(digest);
            }
            LinkKind::Manifest => {
                linked.manifests.remove(digest);
            }
        }
        if *linked == RepositoryLinks::default() {
            self.links.remove(name);
        }
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
