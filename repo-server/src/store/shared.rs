//! What other servers on the same storage did: found out when something is asked for that this one
//! does not know, when it is about to rely on what it knows, and now and then.
//!
//! | they | this server sees it |
//! |---|---|
//! | pushed a blob or a manifest | when it is asked for |
//! | moved a tag | within a second |
//! | attached a referrer | when referrers are listed |
//! | deleted a blob or a manifest | within [`RELIST`]; until then it is still served |
//!
//! For a storage with one server, everything here does nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use formats::digest::Digest;
use formats::oci::RepositoryName;

use super::backend::{Link, LinkKind, SharedBackend};
use super::facts::Facts;
use super::{Store, StoreError, WriterState};
use crate::lock::{LockMutex as _, LockRw as _};
use crate::route::Reference;

/// How often everything is listed anew.
pub(crate) const RELIST: Duration = Duration::from_secs(60);

/// Links younger than this are not made young again: grace periods are longer.
const YOUNG: Duration = Duration::from_secs(600);

/// Manifests read at once when a server starts: each is a request to the object store.
const READERS: usize = 16;

impl Store {
    /// Whether other servers write here, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.backend.shared().is_some()
    }

    /// Takes links, and sizes where they count, as they are now.
    pub(crate) fn relist(&self) -> Result<(), StoreError> {
        let Some(shared) = self.backend.shared() else { return Ok(()) };
        // What is pushed while this is under way must not be forgotten: one after the other.
        let mut state = self.state();
        let links = self.backend.links()?;
        if self.usage.is_on() {
            let blobs = self.backend.blobs()?;
            self.usage.set_blobs(blobs.into_iter().map(|it| (it.digest, it.len)));
        }
        state.links.clear();
        for link in links {
            state.link(&link.name, link.kind, &link.digest, &link.media_type);
        }
        shared.forget_index();
        self.read_ahead(&mut state)?;
        self.rebuild(&mut state)
    }

    /// Reads the manifests of all links, several at once: a start would take minutes otherwise.
    pub(super) fn read_ahead(&self, state: &mut WriterState) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let linked = state.links.values().flat_map(|linked| linked.manifests.keys());
        let index = self.backend.index()?;
        let tagged = index.manifests.iter().map(|entry| &entry.digest);
        let mut wanted: Vec<Digest> = linked.chain(tagged).cloned().collect();
        wanted.retain(|digest| !state.facts.contains_key(digest));
        wanted.sort_unstable();
        wanted.dedup();
        let todo = Mutex::new(wanted);
        let read: Mutex<Vec<(Digest, Arc<Facts>)>> = Mutex::default();
        std::thread::scope(|scope| {
            let work = || {
                loop {
                    let next = todo.locked().pop();
                    let Some(digest) = next else { return };
                    if let Some(facts) = self.facts(&digest) {
                        let mut read = read.locked();
                        read.push((digest, Arc::new(facts)));
                    }
                }
            };
            for _ in 1..READERS {
                // With fewer of them it takes longer; this thread works in any case.
                if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        state.facts.extend(read.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Looks for a manifest that is not known here; whether anything was learnt.
    pub(super) fn learn_of_manifest(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<bool, StoreError> {
        let Some(shared) = self.backend.shared() else { return Ok(false) };
        match reference {
            Reference::Tag(_) => {
                shared.forget_index();
                self.refresh()?;
                Ok(true)
            }
            Reference::Digest(digest) => {
                let found = shared.find_links(name, &[(LinkKind::Manifest, digest.clone())])?;
                let links: Vec<Link> = found.into_iter().flatten().collect();
                self.learn(&mut self.state(), &links)
            }
        }
    }

    /// The same for a blob.
    pub(super) fn learn_of_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        if !self.is_shared() {
            return Ok(false);
        }
        self.learn_of_blobs(&mut self.state(), name, digest)
    }

    /// The same, for a caller that holds the lock.
    pub(super) fn learn_of_blobs(
        &self,
        state: &mut WriterState,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        let Some(shared) = self.backend.shared() else { return Ok(false) };
        let found = shared.find_links(name, &[(LinkKind::Blob, digest.clone())])?;
        if found.iter().all(Option::is_none) {
            return Ok(false);
        }
        state.link(name, LinkKind::Blob, digest, "");
        let mut catalog = self.catalog.write_locked();
        catalog.repositories.entry(name.clone()).or_default().blobs.insert(digest.clone());
        Ok(true)
    }

    /// All manifests of a repository as they are now: referrers may have been attached elsewhere.
    pub(crate) fn relist_manifests(&self, name: &RepositoryName) -> Result<(), StoreError> {
        let Some(shared) = self.backend.shared() else { return Ok(()) };
        let links = shared.manifest_links(name)?;
        self.learn(&mut self.state(), &links).map(drop)
    }

    fn learn(&self, state: &mut WriterState, links: &[Link]) -> Result<bool, StoreError> {
        let mut news = false;
        for Link { name, kind, digest, media_type, .. } in links {
            let known = state.links.get(name).and_then(|linked| linked.manifests.get(digest));
            if known != Some(media_type) {
                state.link(name, *kind, digest, media_type);
                news = true;
            }
        }
        if news {
            self.rebuild(state)?;
        }
        Ok(news)
    }

    /// What a manifest names that its repository does not have, as the storage stands now. Links
    /// that a collection on another server may be about to remove become young again.
    pub(super) fn missing_now(
        &self,
        shared: &dyn SharedBackend,
        state: &mut WriterState,
        name: &RepositoryName,
        facts: &Facts,
    ) -> Result<Option<Digest>, StoreError> {
        let blobs = facts.blobs.iter().map(|digest| (LinkKind::Blob, digest.clone()));
        let manifests = facts.manifests.iter().map(|(it, _)| (LinkKind::Manifest, it.clone()));
        let wanted: Vec<_> = blobs.chain(manifests).collect();
        let found = shared.find_links(name, &wanted)?;
        for ((kind, digest), link) in wanted.into_iter().zip(found) {
            let young = |time: SystemTime| {
                // A time in the future is that of another clock: young.
                SystemTime::now().duration_since(time).map_or(true, |age| age < YOUNG)
            };
            let media_type = match (&link, kind) {
                (Some(link), _) => link.media_type.clone(),
                (None, LinkKind::Blob) => String::new(),
                (None, LinkKind::Manifest) => {
                    let named = facts.manifests.iter().find(|(it, _)| *it == digest);
                    named.map(|(_, media_type)| media_type.clone()).unwrap_or_default()
                }
            };
            if link.is_none() {
                // Shown without a link of its own: a manifest that is shown names it.
                let shown = self.with(name, |it| match kind {
                    LinkKind::Blob => it.blobs.contains(&digest),
                    LinkKind::Manifest => it.manifests.contains_key(&digest),
                });
                if shown != Some(true) || self.backend.open_blob(&digest)?.is_none() {
                    return Ok(Some(digest));
                }
            }
            if !link.is_some_and(|link| young(link.modified)) {
                self.writable()?.add_link(name, kind, &digest, &media_type)?;
            }
            state.link(name, kind, &digest, &media_type);
        }
        Ok(None)
    }
}
