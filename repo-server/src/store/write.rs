//! Changes of the storage: each is durable when its method comes back, and leaves what was before or
//! what is after when it is cut off.

use std::io::Write as _;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use formats::digest::{Algorithm, Digest};
use formats::oci::{Descriptor, RepositoryName, Tag};
use storage::layout::{BlobWriter, Layout as _};

use super::catalog::Repository;
use super::facts::Facts;
use super::held::Stamp;
use super::links::{self, Kind};
use super::{Store, StoreError};
use crate::route::Reference;

impl Store {
    /// Starts a blob; nobody sees it until [`Store::commit_blob`].
    pub fn new_blob(&self, algorithm: Algorithm) -> Result<BlobWriter, StoreError> {
        self.writable()?;
        Ok(self.layout.blob_writer_for(algorithm)?)
    }

    /// Makes a blob durable and visible in a repository, if it has that digest.
    pub fn commit_blob(
        &self,
        name: &RepositoryName,
        writer: BlobWriter,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        writer.commit(Some(digest))?;
        // It was hashed on its way in: what is opened now is what was written.
        if let Some(blob) = self.layout.open_blob(digest)? {
            self.verified.insert(digest.clone(), Stamp::of(&blob).map_err(StoreError::Blob)?);
        }
        self.show_blob(name, digest)
    }

    /// Makes a blob that is stored already visible in a repository.
    pub fn show_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<(), StoreError> {
        let mut state = self.state();
        let linked = state.links.entry(name.clone()).or_default();
        if !linked.blobs.contains(digest) {
            links::add(self.writable()?, name, Kind::Blob, digest, "")?;
            linked.blobs.insert(digest.clone());
        }
        let mut catalog = self.catalog.write().unwrap_or_else(PoisonError::into_inner);
        catalog.repositories.entry(name.clone()).or_default().blobs.insert(digest.clone());
        Ok(())
    }

    /// Stores a manifest under its digest and moves tags to it, all at once (end-7).
    ///
    /// Bytes first, then the link, then the tags in one rename: a crash leaves the old tags or the
    /// new ones, and nothing that is named but missing.
    pub fn put_manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
        tags: &[Tag],
        content_type: Option<&str>,
        bytes: &Bytes,
    ) -> Result<(Digest, Arc<Facts>), StoreError> {
        let links = self.writable()?;
        let facts = Arc::new(Facts::parse(bytes)?);
        let media_type = facts.media_type(content_type)?;
        let digest = match reference {
            Reference::Digest(named) => {
                let mut hasher = named.algorithm().hasher();
                hasher.update(bytes);
                let found = hasher.finish();
                if found != *named {
                    return Err(StoreError::Digest { named: named.clone(), found });
                }
                found
            }
            Reference::Tag(_) => Digest::sha256_of(bytes),
        };
        self.refresh()?;
        let mut state = self.state();
        if let Some(missing) = self
            .with(name, |it| missing(it, &facts))
            .unwrap_or_else(|| missing(&Repository::default(), &facts))
        {
            return Err(StoreError::Incomplete(missing));
        }
        let mut writer = self.layout.blob_writer_for(digest.algorithm())?;
        writer.write_all(bytes).map_err(StoreError::Blob)?;
        writer.commit(Some(&digest))?;
        links::add(links, name, Kind::Manifest, &digest, &media_type)?;
        state.facts.insert(digest.clone(), Arc::clone(&facts));
        let linked = state.links.entry(name.clone()).or_default();
        linked.manifests.insert(digest.clone(), media_type.clone());

        let descriptor = Descriptor::new(&media_type, digest.clone(), facts.len);
        let named = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let moved = named.into_iter().chain(tags);
        let moved: Vec<_> =
            moved.map(|tag| (format!("{name}:{tag}"), Some(descriptor.clone()))).collect();
        if !moved.is_empty() {
            self.layout.set_refs(&moved)?;
        }
        self.rebuild(&mut state)?;
        Ok((digest, facts))
    }

    /// Removes a tag; `false` when there is none (end-9).
    pub fn delete_tag(&self, name: &RepositoryName, tag: &Tag) -> Result<bool, StoreError> {
        self.writable()?;
        let mut state = self.state();
        let mut was_there = false;
        self.layout.update_refs::<StoreError>(|refs| {
            was_there = refs.remove(&format!("{name}:{tag}")).is_some();
            Ok(())
        })?;
        self.rebuild(&mut state)?;
        Ok(was_there)
    }

    /// Removes a manifest and all tags that stand for it; `false` when it is not there (end-9).
    ///
    /// Its bytes stay stored. A manifest that another one of the repository lists is not removed.
    pub fn delete_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let links = self.writable()?;
        self.refresh()?;
        let mut state = self.state();
        match self
            .with(name, |it| (it.manifests.contains_key(digest), it.needed_by(digest).cloned()))
        {
            None | Some((false, _)) => return Ok(false),
            Some((true, Some(parent))) => return Err(StoreError::Needed(parent)),
            Some((true, None)) => {}
        }
        let prefix = format!("{name}:");
        self.layout.update_refs::<StoreError>(|refs| {
            refs.retain(|reference, descriptor| {
                let tag = reference.strip_prefix(&prefix);
                tag.is_none_or(|tag| tag.contains(':')) || descriptor.digest != *digest
            });
            Ok(())
        })?;
        links::remove(links, name, Kind::Manifest, digest)?;
        if let Some(linked) = state.links.get_mut(name) {
            linked.manifests.remove(digest);
        }
        self.rebuild(&mut state)?;
        Ok(true)
    }

    /// Makes a blob invisible in a repository; `false` when it is not there (end-10).
    ///
    /// Its bytes stay stored. A blob that a manifest of the repository names is not removed.
    pub fn delete_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, StoreError> {
        let links = self.writable()?;
        self.refresh()?;
        let mut state = self.state();
        match self.with(name, |it| (it.blobs.contains(digest), it.needed_by(digest).cloned())) {
            None | Some((false, _)) => return Ok(false),
            Some((true, Some(parent))) => return Err(StoreError::Needed(parent)),
            Some((true, None)) => {}
        }
        links::remove(links, name, Kind::Blob, digest)?;
        if let Some(linked) = state.links.get_mut(name) {
            linked.blobs.remove(digest);
        }
        self.rebuild(&mut state)?;
        Ok(true)
    }
}

/// What a manifest names that its repository does not have.
fn missing(repository: &Repository, facts: &Facts) -> Option<Digest> {
    let blobs = facts.blobs.iter().filter(|it| !repository.blobs.contains(*it));
    let manifests = facts.manifests.iter().map(|(digest, _)| digest);
    let manifests = manifests.filter(|it| !repository.manifests.contains_key(*it));
    blobs.chain(manifests).next().cloned()
}
