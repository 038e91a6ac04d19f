//! Content-addressed storage, and which repository shows what of it.
//!
//! | module | does |
//! |---|---|
//! | [`backend`] | what a storage has to do |
//! | `error` | why something was not done |
//! | `read`, [`write`] | what clients read and change |
//! | [`local`] | that, in a directory: an OCI image layout (the default) |
//! | [`bucket`] | that, in a bucket of an S3-compatible object store, which many servers share |
//! | `shared` | what other servers on the same storage did |
//! | `fresh` | whether what is in memory may answer without a look at the storage |
//! | [`catalog`], [`facts`] | links and references → repositories (pure) |
//! | [`gc`] | deletes what nothing refers to |
//! | [`quota`] | how many bytes may be stored, and are |
//!
//! A directory without its `repositories/` and `.tmp/` is a bundle as it stands. One that somebody
//! else writes (`signer publish --repo oci:DIR`) is served at once: a request for a tag notices a
//! changed `index.json` when nobody looked at it for 10 ms.
//!
//! Everything here blocks and is called from `spawn_blocking`, except where a method says that it
//! only looks into memory. Of two changes at once, one waits; readers never wait for a disk.

pub(crate) mod backend;
pub(crate) mod bucket;
pub(crate) mod cache;
pub(crate) mod catalog;
pub(crate) mod error;
pub(crate) mod facts;
mod fresh;
pub(crate) mod gc;
mod links;
pub(crate) mod local;
pub(crate) mod quota;
mod read;
mod retire;
mod shared;
pub(crate) mod write;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use formats::digest::Digest;
use formats::error_chain;
use formats::oci::{Index, MANIFEST_LIMIT, RepositoryName};
use storage::host::{Host, System};
use storage::layout::LayoutError;

use self::backend::{Backend, LinkKind};
use self::bucket::s3::S3;
use self::cache::{DocumentCache, VerifiedBlobs};
use self::catalog::{Repository, RepositoryLinks};
pub use self::error::StoreError;
use self::facts::Facts;
use self::fresh::LastLook;
use self::local::Local;
use self::quota::{Quota, Usage};
use self::read::ReadOutcome;
pub(crate) use self::shared::RELIST;
use crate::error::ServerError;
use crate::lock::{LockMutex as _, LockRw as _};

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
    /// When `index.json` was last compared with the catalog.
    looked: LastLook,
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

impl Store {
    /// Opens the storage in `dir`, which is created unless `read_only`.
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
    pub(crate) fn over(
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
            looked: LastLook::default(),
        };
        let mut state = store.state();
        store.read_ahead(&mut state)?;
        store.rebuild(&mut state)?;
        drop(state);
        Ok(store)
    }

    /// `index.json` as it stands now.
    pub(crate) fn index(&self) -> Result<Arc<formats::oci::Index>, StoreError> {
        self.backend.index()
    }

    /// What is used of the quotas.
    pub(crate) fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Looks into memory only: the repository as last known.
    #[doc(hidden)]
    pub fn with<T>(&self, name: &RepositoryName, look: impl FnOnce(&Repository) -> T) -> Option<T> {
        let catalog = self.catalog.read_locked();
        catalog.repositories.get(name).map(look)
    }

    /// Looks into memory only: whether any repository shows this blob.
    pub(crate) fn anywhere(&self, digest: &Digest) -> bool {
        let catalog = self.catalog.read_locked();
        catalog.repositories.values().any(|repository| repository.blobs.contains(digest))
    }

    /// Looks into memory only: the names of all repositories and how many tags each has.
    #[doc(hidden)]
    pub fn repositories(&self) -> Vec<(RepositoryName, usize)> {
        let catalog = self.catalog.read_locked();
        catalog.repositories.iter().map(|(name, it)| (name.clone(), it.tags.len())).collect()
    }

    /// Notices what other processes did to `index.json` since.
    pub(crate) fn refresh(&self) -> Result<(), StoreError> {
        // What is written while this looks is not seen yet.
        let began = self.looked.now();
        let index = self.backend.index()?;
        let current = |catalog: &Catalog| Arc::ptr_eq(&catalog.index, &index);
        if !current(&self.catalog.read_locked()) {
            self.rebuild(&mut self.state())?;
        }
        self.looked.set(began);
        Ok(())
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
