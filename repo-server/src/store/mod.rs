//! Content-addressed storage: an OCI image layout, and beside it which repository shows what.
//!
//! ```text
//!  DIR/oci-layout, index.json, blobs/   the image layout; refs are repo:tag
//!  DIR/.tmp/                            uploads in progress, removed at the next start
//!  DIR/repositories/                    links, see `links`
//! ```
//!
//! DIR without `repositories/` and `.tmp/` is a bundle as it stands. A DIR that somebody else
//! writes (`signer publish --repo oci:DIR`) is served at once: a changed `index.json` is noticed
//! with the next request for a tag.
//!
//! Everything here blocks and is called from `spawn_blocking`, except where a method says that it
//! only looks into memory. Of two changes at once, one waits; readers never wait for a disk.

pub mod catalog;
pub mod facts;
pub mod held;
mod links;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use formats::digest::Digest;
use formats::oci::{Index, MANIFEST_LIMIT, RepositoryName};
use storage::layout::{Blob, Layout as _, LayoutDir, LayoutError};
use storage::{Directory, FileError};

use self::catalog::{Linked, Repository, Visible};
use self::facts::{Facts, FactsError};
use self::held::{SmallBlobs, Stamp, Verified};
use crate::error::ServerError;
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
    #[error("the repository has no {0}, which the manifest names; push it first")]
    Incomplete(Digest),
    /// What is to be deleted is part of a manifest of the repository.
    #[error("manifest {0} needs it; delete that first")]
    Needed(Digest),
    /// The server was started read-only.
    #[error("this server is read-only")]
    ReadOnly,
}

/// The storage of one server. Shared by all requests.
#[derive(Debug)]
pub struct Store {
    layout: LayoutDir,
    /// Where links are; `None` when read-only and none were ever made.
    links: Option<Directory>,
    /// Held for as long as this process may write; a second server must not.
    lock: Option<File>,
    catalog: RwLock<Catalog>,
    /// Taken by whoever changes something; holds what the catalog is made of.
    state: Mutex<State>,
    verified: Verified,
    small: SmallBlobs,
}

#[derive(Debug)]
struct Catalog {
    index: Arc<Index>,
    repositories: BTreeMap<RepositoryName, Repository>,
}

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<RepositoryName, Linked>,
    /// Manifests read so far; their bytes had their digest.
    facts: HashMap<Digest, Arc<Facts>>,
}

impl Store {
    /// Opens the storage in `dir`; unless `read_only`, makes what is missing there, removes what
    /// killed uploads left, and refuses a directory that another server writes.
    pub fn open(dir: &Path, read_only: bool) -> Result<Self, ServerError> {
        let damaged = |error: LayoutError| match error {
            LayoutError::Read(FileError::Io { action, path, source })
            | LayoutError::Write(FileError::Io { action, path, source }) => {
                ServerError::Io { doing: action, path, source }
            }
            other => ServerError::Store { path: dir.to_owned(), why: chain(&other) },
        };
        let link_failed = |error: FileError| damaged(LayoutError::Read(error));
        let layout = if read_only { LayoutDir::open(dir) } else { LayoutDir::create(dir) };
        let layout = layout.map_err(damaged)?;
        let root = Directory::open(dir).map_err(link_failed)?;
        let links = match read_only {
            true => root.subdirectory("repositories"),
            false => root.subdirectory_or_create("repositories", 0o755.into()).map(Some),
        };
        let links = links.map_err(link_failed)?;
        let lock = match read_only {
            true => None,
            false => Some(lock(&dir.join("repositories"))?),
        };
        let linked = links
            .as_ref()
            .map(|links| links::read_all(links, !read_only))
            .transpose()
            .map_err(link_failed)?;
        let state = State { links: linked.unwrap_or_default(), facts: HashMap::new() };
        let index = layout.index().map_err(damaged)?;
        let store = Store {
            layout,
            links,
            lock,
            catalog: RwLock::new(Catalog { index, repositories: BTreeMap::new() }),
            state: Mutex::new(state),
            verified: Verified::default(),
            small: SmallBlobs::default(),
        };
        store.rebuild(&mut store.state()).map_err(|error| match error {
            StoreError::Layout(error) => damaged(error),
            other => ServerError::Store { path: dir.to_owned(), why: chain(&other) },
        })?;
        Ok(store)
    }

    /// Files in the blob directory whose bytes do not have their digest, after reading all of
    /// them: `(digest, why)`. `progress` is told of each blob before it is read.
    pub fn scrub(
        &self,
        mut progress: impl FnMut(&Digest, u64),
    ) -> Result<(usize, Vec<(Digest, String)>), StoreError> {
        let blobs = self.layout.blobs()?;
        let mut rotten = Vec::new();
        for digest in &blobs {
            let checked = self.layout.open_blob(digest).and_then(|blob| match blob {
                Some(blob) => {
                    progress(digest, blob.len());
                    blob.verify()
                }
                None => Ok(()),
            });
            if let Err(error) = checked {
                rotten.push((digest.clone(), chain(&error)));
            }
        }
        Ok((blobs.len(), rotten))
    }

    /// Looks into memory only: the repository as last known.
    pub fn with<T>(&self, name: &RepositoryName, look: impl FnOnce(&Repository) -> T) -> Option<T> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.repositories.get(name).map(look)
    }

    /// Looks into memory only: whether any repository shows this blob.
    pub fn anywhere(&self, digest: &Digest) -> bool {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.repositories.values().any(|repository| repository.blobs.contains(digest))
    }

    /// Looks into memory only: the names of all repositories and how many tags each has.
    pub fn repositories(&self) -> Vec<(RepositoryName, usize)> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner);
        catalog.repositories.iter().map(|(name, it)| (name.clone(), it.tags.len())).collect()
    }

    /// Notices what other processes did to `index.json` since.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let index = self.layout.index()?;
        let current = |catalog: &Catalog| Arc::ptr_eq(&catalog.index, &index);
        if !current(&self.catalog.read().unwrap_or_else(PoisonError::into_inner)) {
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
        Ok(find())
    }

    /// Whether the repository shows that blob now.
    pub fn shows_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let look = || self.with(name, |it| it.blobs.contains(digest)).unwrap_or(false);
        if look() {
            return Ok(true);
        }
        self.refresh()?;
        Ok(look())
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
        match self.layout.read_blob(digest, MANIFEST_LIMIT) {
            Ok(bytes) => {
                let bytes = Bytes::from(bytes);
                self.small.keep(digest.clone(), &bytes);
                Ok(Some(bytes))
            }
            Err(error) => Ok(absent(error)?),
        }
    }

    /// Opens a blob; with `true` when these very bytes are known to have their digest.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<(Blob, bool)>, StoreError> {
        let blob = self.layout.open_blob(digest).or_else(absent)?;
        let Some(blob) = blob else { return Ok(None) };
        let stamp = Stamp::of(&blob).map_err(StoreError::Blob)?;
        let verified = self.verified.holds(digest, stamp);
        Ok(Some((blob, verified)))
    }

    /// Hashes an open blob; `false`, and a line in the log, when it does not have its digest.
    pub fn verify(&self, blob: &Blob) -> Result<bool, StoreError> {
        let stamp = Stamp::of(blob).map_err(StoreError::Blob)?;
        match blob.verify() {
            Ok(()) => {
                self.verified.insert(blob.digest().clone(), stamp);
                Ok(true)
            }
            Err(error) => Ok(absent::<()>(error)?.is_some()),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The links, if this server may change anything.
    fn writable(&self) -> Result<&Directory, StoreError> {
        match (&self.lock, &self.links) {
            (Some(_), Some(links)) => Ok(links),
            _ => Err(StoreError::ReadOnly),
        }
    }

    /// Makes the catalog anew from `index.json` as it stands now and from the links. Manifests
    /// that were read before are not read again.
    fn rebuild(&self, state: &mut State) -> Result<(), StoreError> {
        let index = self.layout.index()?;
        let State { links, facts } = state;
        let repositories = catalog::repositories(&index, links, |digest| {
            if let Some(known) = facts.get(digest) {
                return Some(Arc::clone(known));
            }
            let read = Arc::new(self.facts(digest)?);
            facts.insert(digest.clone(), Arc::clone(&read));
            Some(read)
        });
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) =
            Catalog { index, repositories };
        Ok(())
    }

    fn facts(&self, digest: &Digest) -> Option<Facts> {
        match self.layout.read_blob(digest, MANIFEST_LIMIT) {
            Ok(bytes) => Facts::parse(&bytes)
                .inspect_err(|error| tracing::warn!(%digest, %error, "not shown: not a manifest"))
                .ok(),
            Err(error) => {
                tracing::warn!(%digest, error = %chain(&error), "manifest not shown");
                None
            }
        }
    }
}

/// Damaged, foreign and missing files are not there, and the log says so; failing disks are errors.
fn absent<T>(error: LayoutError) -> Result<Option<T>, LayoutError> {
    match error {
        LayoutError::MissingBlob(_) => Ok(None),
        LayoutError::Read(_) | LayoutError::Write(_) => Err(error),
        damaged => {
            tracing::error!(error = %chain(&damaged), "not served");
            Ok(None)
        }
    }
}

fn lock(path: &Path) -> Result<File, ServerError> {
    let file = File::open(path).map_err(ServerError::io("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ServerError::Config(format!(
            "{}: another repo-server writes there; stop it, or add --read-only",
            path.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(ServerError::io("lock", path)(error)),
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
