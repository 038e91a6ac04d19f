//! Changes of the storage: each is durable when its method comes back, and leaves what was before or
//! what is after when it is cut off.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use formats::digest::Digest;
use formats::oci::{Descriptor, RepositoryName, Tag};
use storage::layout::LayoutError;

use super::backend::{LinkKind, Upload, UploadKey};
use super::catalog::Repository;
use super::facts::{Facts, KNOWN};
use super::{Store, StoreError, WriterState};
use crate::auth::Tagging;
use crate::lock::LockRw as _;
use crate::route::Reference;

/// Where a manifest goes.
#[derive(Debug, Clone)]
pub struct ManifestDestination {
    /// The repository.
    pub name: RepositoryName,
    /// A tag to set, or the digest it must have.
    pub reference: Reference,
    /// Further tags to set.
    pub tags: Vec<Tag>,
    /// Whether tags that stand for something else may be set.
    pub tagging: Tagging,
}

impl Store {
    /// Starts an upload; no client sees it until [`Store::commit_blob`].
    #[doc(hidden)]
    pub fn new_upload(&self, key: &UploadKey) -> Result<Box<dyn Upload>, StoreError> {
        self.writable()?.new_upload(key)
    }

    /// Goes on with an upload that another server began; `None` when it is gone.
    #[doc(hidden)]
    pub fn resume_upload(&self, key: &UploadKey) -> Result<Option<Box<dyn Upload>>, StoreError> {
        self.writable()?.resume_upload(key)
    }

    /// All uploads there are, with their lengths and when they last grew.
    pub(crate) fn uploads(&self) -> Result<Vec<(UploadKey, u64, SystemTime)>, StoreError> {
        self.backend.uploads()
    }

    /// Makes a blob durable and visible in a repository, if it has that digest.
    #[doc(hidden)]
    pub fn commit_blob(
        &self,
        name: &RepositoryName,
        upload: Box<dyn Upload>,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let len = upload.stored();
        // The same bytes may lie here as garbage: from now on they are not.
        self.state().pinned.push(digest.clone());
        let shown = self.commit_pinned(name, upload, digest, len);
        let mut state = self.state();
        if let Some(at) = state.pinned.iter().position(|pinned| pinned == digest) {
            state.pinned.swap_remove(at);
        }
        shown
    }

    fn commit_pinned(
        &self,
        name: &RepositoryName,
        upload: Box<dyn Upload>,
        digest: &Digest,
        len: u64,
    ) -> Result<(), StoreError> {
        upload.commit(digest)?;
        self.usage.add(digest, len);
        // It was hashed on its way in: what is opened now is what was written.
        if let Some(blob) = self.backend.open_blob(digest)? {
            self.verified.insert(digest.clone(), blob.stamp()?);
        }
        self.show_blob(&mut self.state(), name, digest)
    }

    /// Makes a blob that another repository shows (`from`, or any) visible in `to`; `false` when
    /// it is not there (end-11).
    pub(crate) fn mount_blob(
        &self,
        to: &RepositoryName,
        from: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        self.writable()?;
        self.refresh()?;
        let mut state = self.state();
        let there = match from {
            Some(from) => {
                let known = || self.with(from, |it| it.blobs.contains(digest)).unwrap_or(false);
                known() || (self.learn_of_blobs(&mut state, from, digest)?)
            }
            None => self.anywhere(digest),
        };
        let Some(blob) = self.backend.open_blob(digest)?.filter(|_| there) else {
            return Ok(false);
        };
        if !self.with(to, |it| it.blobs.contains(digest)).unwrap_or(false) {
            self.usage.expect_room(to, if self.usage.is_on() { blob.len() } else { 0 })?;
        }
        self.show_blob(&mut state, to, digest)?;
        Ok(true)
    }

    fn show_blob(
        &self,
        state: &mut WriterState,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        // Also when it is linked already: the link becomes young, and a collection spares it.
        self.writable()?.add_link(name, LinkKind::Blob, digest, "")?;
        state.link(name, LinkKind::Blob, digest, "");
        let mut catalog = self.catalog.write_locked();
        let repository = catalog.repositories.entry(name.clone()).or_default();
        if repository.blobs.insert(digest.clone()) && self.usage.is_on() {
            self.usage.shows(name, self.size(digest));
        }
        Ok(())
    }

    /// Stores a manifest under its digest and moves tags to it, all at once (end-7).
    ///
    /// Bytes first, then the link, then the tags in one rename: a crash leaves the old tags or the
    /// new ones, and nothing that is named but missing.
    #[doc(hidden)]
    pub fn put_manifest(
        &self,
        to: &ManifestDestination,
        content_type: Option<&str>,
        bytes: &Bytes,
    ) -> Result<(Digest, Arc<Facts>), StoreError> {
        let ManifestDestination { name, reference, tags, tagging } = to;
        let backend = self.writable()?;
        let facts = Arc::new(Facts::parse(bytes)?);
        let media_type = facts.media_type(content_type)?;
        let digest = digest_of(reference, bytes)?;
        self.refresh()?;
        let mut state = self.state();
        self.expect_complete(&mut state, name, &facts)?;
        self.expect_room(&state, name, &digest, &facts)?;
        let named = match reference {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        let moved: Vec<&Tag> = named.into_iter().chain(tags).collect();
        if *tagging == Tagging::CreateOnly {
            // Before anything is stored: what is refused leaves nothing.
            self.expect_free(name, &moved, &digest)?;
        }
        let before = Before::of(self, &state, name, &digest)?;
        backend.put_blob(&digest, bytes)?;
        self.usage.add(&digest, facts.len);
        backend.add_link(name, LinkKind::Manifest, &digest, &media_type)?;
        state.facts.insert(digest.clone(), Arc::clone(&facts));
        state.link(name, LinkKind::Manifest, &digest, &media_type);
        let descriptor = Descriptor::new(&media_type, digest.clone(), facts.len);
        let tagged = self.set_tags(name, &moved, &descriptor, *tagging);
        let restored = match &tagged {
            // Refused before anything was written. After a failed write it is unknown which tags count.
            Err(StoreError::TagExists(_) | StoreError::Layout(LayoutError::IndexTooLarge(_))) => {
                before.restore(self, &mut state, name, &digest)
            }
            _ => Ok(()),
        };
        // Also after an error: what was taken back must not be shown.
        self.rebuild(&mut state)?;
        tagged.and(restored).map(|()| (digest, facts))
    }

    /// Refuses a manifest that refers to something that its repository does not have.
    fn expect_complete(
        &self,
        state: &mut WriterState,
        name: &RepositoryName,
        facts: &Facts,
    ) -> Result<(), StoreError> {
        let missing = match self.backend.shared() {
            Some(shared) => self.missing_now(shared, state, name, facts)?,
            None => self
                .with(name, |it| missing(it, facts))
                .unwrap_or_else(|| missing(&Repository::default(), facts)),
        };
        missing.map_or(Ok(()), |missing| Err(StoreError::Incomplete(missing)))
    }

    /// Refuses a manifest for which there is no room, in the quotas or in memory.
    fn expect_room(
        &self,
        state: &WriterState,
        name: &RepositoryName,
        digest: &Digest,
        facts: &Facts,
    ) -> Result<(), StoreError> {
        if self.with(name, |it| it.manifests.contains_key(digest)) != Some(true) {
            self.usage.expect_room(name, facts.len)?;
        }
        if !state.facts.contains_key(digest) {
            let known: usize = state.facts.values().map(|it| it.weight()).sum();
            if known.saturating_add(facts.weight()) > KNOWN {
                return Err(StoreError::TooManyManifests);
            }
        }
        Ok(())
    }

    /// Refuses tags that stand for something else, as far as this server knows.
    fn expect_free(
        &self,
        name: &RepositoryName,
        tags: &[&Tag],
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let held = |it: &Repository| {
            let mut tags = tags.iter();
            tags.find(|tag| it.tags.get(**tag).is_some_and(|there| there != digest)).copied()
        };
        match self.with(name, |it| held(it).cloned()).flatten() {
            Some(tag) => Err(StoreError::TagExists(format!("{name}:{tag}"))),
            None => Ok(()),
        }
    }

    /// Moves tags to a manifest, all at once; where somebody else writes, too, under their lock.
    fn set_tags(
        &self,
        name: &RepositoryName,
        tags: &[&Tag],
        descriptor: &Descriptor,
        tagging: Tagging,
    ) -> Result<(), StoreError> {
        if tags.is_empty() {
            return Ok(());
        }
        let moved: Vec<_> = tags.iter().map(|tag| format!("{name}:{tag}")).collect();
        self.writable()?.update_refs(&mut |refs| {
            let held = |tag: &&String| {
                let there = refs.get(*tag);
                there.is_some_and(|there| there.digest != descriptor.digest)
            };
            if tagging == Tagging::CreateOnly
                && let Some(tag) = moved.iter().find(held)
            {
                return Err(StoreError::TagExists(tag.clone()));
            }
            refs.extend(moved.iter().map(|tag| (tag.clone(), descriptor.clone())));
            Ok(())
        })
    }

    /// Removes a tag; `false` when there is none (end-9).
    pub(crate) fn delete_tag(&self, name: &RepositoryName, tag: &Tag) -> Result<bool, StoreError> {
        let backend = self.writable()?;
        let mut state = self.state();
        let mut was_there = false;
        backend.update_refs(&mut |refs| {
            was_there = refs.remove(&format!("{name}:{tag}")).is_some();
            Ok(())
        })?;
        self.rebuild(&mut state)?;
        Ok(was_there)
    }

    /// Removes a manifest and all tags that stand for it; `false` when it is not there (end-9).
    ///
    /// Its bytes stay until they are collected. A manifest that another one of the repository lists is not removed.
    pub(crate) fn delete_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let backend = self.writable()?;
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
        backend.update_refs(&mut |refs| {
            refs.retain(|reference, descriptor| {
                let tag = reference.strip_prefix(&prefix);
                tag.is_none_or(|tag| tag.contains(':')) || descriptor.digest != *digest
            });
            Ok(())
        })?;
        backend.remove_link(name, LinkKind::Manifest, digest)?;
        state.unlink(name, LinkKind::Manifest, digest);
        self.rebuild(&mut state)?;
        Ok(true)
    }

    /// Makes a blob invisible in a repository; `false` when it is not there (end-10).
    ///
    /// Its bytes stay until they are collected. A blob that a manifest of the repository names is not removed.
    pub(crate) fn delete_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let backend = self.writable()?;
        self.refresh()?;
        let mut state = self.state();
        match self.with(name, |it| (it.blobs.contains(digest), it.needed_by(digest).cloned())) {
            None | Some((false, _)) => return Ok(false),
            Some((true, Some(parent))) => return Err(StoreError::Needed(parent)),
            Some((true, None)) => {}
        }
        backend.remove_link(name, LinkKind::Blob, digest)?;
        state.unlink(name, LinkKind::Blob, digest);
        self.rebuild(&mut state)?;
        Ok(true)
    }
}

/// What there was of a manifest before it was pushed: what a refused push goes back to.
struct Before {
    linked: bool,
    stored: bool,
}

impl Before {
    fn of(
        store: &Store,
        state: &WriterState,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Self, StoreError> {
        let linked = state.links.get(name).is_some_and(|it| it.manifests.contains_key(digest));
        Ok(Before { linked, stored: store.backend.open_blob(digest)?.is_some() })
    }

    /// Under the lock of the state. On a storage that others write, too, the bytes stay: somebody may
    /// have linked them, and they are garbage else.
    fn restore(
        &self,
        store: &Store,
        state: &mut WriterState,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        if !self.linked {
            store.backend.remove_link(name, LinkKind::Manifest, digest)?;
            state.unlink(name, LinkKind::Manifest, digest);
        }
        if !self.stored && !store.is_shared() && !state.pinned.contains(digest) {
            store.backend.remove_blob(digest)?;
            state.facts.remove(digest);
            store.usage.remove(digest);
        }
        Ok(())
    }
}

/// The digest of a manifest, which must be the one that the client named, if it did.
fn digest_of(reference: &Reference, bytes: &Bytes) -> Result<Digest, StoreError> {
    let Reference::Digest(named) = reference else { return Ok(Digest::sha256_of(bytes)) };
    let mut hasher = named.algorithm().hasher();
    hasher.update(bytes);
    let found = hasher.finish();
    match found == *named {
        true => Ok(found),
        false => Err(StoreError::Digest { named: named.clone(), found }),
    }
}

/// What a manifest names that its repository does not have.
fn missing(repository: &Repository, facts: &Facts) -> Option<Digest> {
    let blobs = facts.blobs.iter().filter(|it| !repository.blobs.contains(*it));
    let manifests = facts.manifests.iter().map(|(digest, _)| digest);
    let manifests = manifests.filter(|it| !repository.manifests.contains_key(*it));
    blobs.chain(manifests).next().cloned()
}
