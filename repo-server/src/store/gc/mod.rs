//! Garbage: what nothing needs any more is thrown away.
//!
//! ```text
//!  every entry of index.json ┐
//!  links made within grace   ├─► manifest ─► manifests, blobs, subject
//!                            ┘       ▲ └───► TUF metadata ─► the hashes of its targets
//!                                    └────── manifests attached to it (referrers)
//! ```
//!
//! Everything on these ways is needed. Of the rest, what is older than the grace period goes:
//! first the links, so that nobody sees it any more, then the bytes. The grace period is for
//! pushes under way: their blobs come before the manifest that needs them, and their manifests
//! before the tag. A blob that is pushed or mounted again is young again.
//!
//! On a storage that several servers share, bytes go in two steps: condemned by one collection,
//! thrown away by one that finds them condemned and unneeded a grace period later.
//!
//! Every step is one removal, durable by itself: a collection that is cut off anywhere has thrown
//! away less, and the next one does the rest. When a needed manifest or a TUF metadata file
//! cannot be read, nobody knows what it needs; then nothing at all is thrown away. One that can be
//! read and is no TUF metadata, or more than anybody reads as such, names nothing: otherwise whoever
//! may push a blob could stop collections for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::digest::{Algorithm, Digest};
use formats::oci::MANIFEST_LIMIT;
use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::backend::{Kind, Link, Refs, Stored};
use super::facts::Facts;
use super::{Read, State, Store, StoreError};

/// 5 MiB: what nodes take for targets metadata; other clients take less.
const METADATA_LIMIT: u64 = 5 << 20;

/// Blobs removed while writers wait.
const BATCH: usize = 64;

/// What a collection did, or would do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Links removed: manifests and blobs that repositories no longer show.
    pub links: usize,
    /// Blobs removed.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that stay.
    pub kept: usize,
    /// Of those, the ones nothing needs yet or any more, within grace.
    pub young: usize,
}

impl Store {
    /// Throws away what nothing needs and what is older than `grace` at the time `now`; with
    /// `dry`, only counts it.
    pub fn collect(
        &self,
        grace: Duration,
        now: SystemTime,
        dry: bool,
    ) -> Result<Collected, StoreError> {
        if !dry {
            self.writable()?;
        }
        // A time in the future is that of a clock that was set back: young.
        let old = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age > grace);
        let mut done = Collected::default();
        self.relist()?;
        let mut state = self.state();
        let (refs, needed) = self.mark(&mut state, &old)?;
        done.links = self.sweep_links(&mut state, &needed, &old, dry)?;
        drop(state);

        let mut garbage = Vec::new();
        for stored in self.backend.blobs()? {
            if needed.contains(&stored.digest) {
                done.kept += 1;
            } else if old(stored.modified) {
                garbage.push(stored);
            } else {
                (done.kept, done.young) = (done.kept + 1, done.young + 1);
            }
        }
        if self.is_shared() && !dry {
            let (spared, waiting) = self.judge(&mut garbage, &old)?;
            (done.kept, done.young) = (done.kept + waiting, done.young + waiting);
            for digest in spared {
                self.backend.spare(&digest)?;
            }
        }
        for batch in garbage.chunks(BATCH) {
            if dry {
                done.blobs += batch.len();
                done.bytes += batch.iter().map(|it| it.len).sum::<u64>();
                continue;
            }
            let state = self.state();
            // Under the lock of the references: who moves a tag beside us does it before or after.
            self.backend.update_refs(&mut |now| {
                if *now != refs {
                    // Somebody published: what is garbage has to be found out anew, next time.
                    return Ok(());
                }
                for stored in batch {
                    let wanted = state.pinned.contains(&stored.digest)
                        || self.shown_anywhere(&stored.digest)
                        || !self.is_still(&stored.digest, &old)?;
                    if !wanted {
                        self.backend.remove_blob(&stored.digest)?;
                        self.backend.spare(&stored.digest)?;
                        self.verified.remove(&stored.digest);
                        self.usage.remove(&stored.digest);
                        done.blobs += 1;
                        done.bytes += stored.len;
                    }
                }
                Ok(())
            })?;
        }
        Ok(done)
    }

    /// On a storage that others write, too: leaves in `garbage` what was condemned a grace period
    /// ago, and condemns the rest; gives those that are garbage no more, and how many wait.
    ///
    /// A server beside this one may have looked at a blob just before it was unlinked here, and
    /// accept a manifest that names it just after. The next collection sees that manifest.
    fn judge(
        &self,
        garbage: &mut Vec<Stored>,
        old: &dyn Fn(SystemTime) -> bool,
    ) -> Result<(Vec<Digest>, usize), StoreError> {
        let mut condemned: BTreeMap<Digest, SystemTime> =
            self.backend.condemned()?.into_iter().collect();
        let mut due = Vec::new();
        let mut waiting = 0;
        for stored in garbage.drain(..) {
            match condemned.remove(&stored.digest) {
                Some(since) if old(since) => due.push(stored),
                Some(_) => waiting += 1,
                None => {
                    self.backend.condemn(&stored.digest)?;
                    waiting += 1;
                }
            }
        }
        *garbage = due;
        Ok((condemned.into_keys().collect(), waiting))
    }

    /// The references, and everything they, young links and referrers need.
    fn mark(
        &self,
        state: &mut State,
        old: &dyn Fn(SystemTime) -> bool,
    ) -> Result<(Refs, BTreeSet<Digest>), StoreError> {
        let links = self.backend.links()?;
        let mut refs = Refs::new();
        let mut named = Vec::new();
        self.rebuild(state)?;
        let index = self.backend.index()?;
        for entry in &index.manifests {
            named.push(entry.digest.clone());
            if let Some(reference) = storage::layout::reference_of(entry) {
                refs.insert(reference.to_owned(), entry.clone());
            }
        }
        let mut marks = Marks::new(self);
        for link in links.iter().filter(|link| link.kind == Kind::Manifest) {
            let facts = match marks.facts(state, &link.digest) {
                // Damaged, it is attached to nothing; if it is needed, that is found out below.
                Err(StoreError::Unknowable(_)) => None,
                // The medium did not say: what it is attached to may be needed.
                facts => facts?,
            };
            if let Some(facts) = facts
                && let Some(subject) = &facts.subject
            {
                let attached = marks.attached.entry(subject.clone()).or_default();
                attached.push(link.digest.clone());
            }
        }
        for link in links.iter().filter(|link| !old(link.modified)) {
            match link.kind {
                Kind::Manifest => named.push(link.digest.clone()),
                Kind::Blob => marks.blob(&link.digest, &mut named),
            }
        }
        marks.mark(state, named)?;
        Ok((refs, marks.needed))
    }

    fn sweep_links(
        &self,
        state: &mut State,
        needed: &BTreeSet<Digest>,
        old: &dyn Fn(SystemTime) -> bool,
        dry: bool,
    ) -> Result<usize, StoreError> {
        let links = self.backend.links()?;
        let garbage = |link: &&Link| old(link.modified) && !needed.contains(&link.digest);
        let mut removed = 0;
        let mut swept = Ok(());
        for link in links.iter().filter(garbage) {
            if !dry {
                swept = self.backend.remove_link(&link.name, link.kind, &link.digest).map(drop);
                if swept.is_err() {
                    break;
                }
                state.unlink(&link.name, link.kind, &link.digest);
                state.facts.remove(&link.digest);
            }
            removed += 1;
        }
        // Also after an error: what was removed must not be shown.
        if !dry {
            self.rebuild(state)?;
        }
        swept.map(|()| removed)
    }

    fn shown_anywhere(&self, digest: &Digest) -> bool {
        let catalog = self.catalog.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut repositories = catalog.repositories.values();
        repositories.any(|it| it.blobs.contains(digest) || it.manifests.contains_key(digest))
    }

    /// Whether the blob is as old as it was.
    fn is_still(
        &self,
        digest: &Digest,
        old: &dyn Fn(SystemTime) -> bool,
    ) -> Result<bool, StoreError> {
        let Some(blob) = self.backend.open_blob(digest)? else { return Ok(false) };
        Ok(old(blob.modified()?))
    }
}

/// What was found to be needed so far.
struct Marks<'a> {
    store: &'a Store,
    needed: BTreeSet<Digest>,
    /// Manifests by what they are attached to.
    attached: BTreeMap<Digest, Vec<Digest>>,
    /// TUF metadata that was read, each once however often it is named.
    read: BTreeSet<Digest>,
}

impl<'a> Marks<'a> {
    fn new(store: &'a Store) -> Self {
        let (needed, attached, read) = Default::default();
        Marks { store, needed, attached, read }
    }

    fn mark(&mut self, state: &mut State, mut open: Vec<Digest>) -> Result<(), StoreError> {
        while let Some(digest) = open.pop() {
            if !self.needed.insert(digest.clone()) {
                continue;
            }
            if let Some(attached) = self.attached.get(&digest) {
                open.extend(attached.iter().cloned());
            }
            let Some(facts) = self.facts(state, &digest)? else { continue };
            open.extend(facts.manifests.iter().map(|(child, _)| child.clone()));
            open.extend(facts.subject.iter().cloned());
            for metadata in &facts.metadata {
                if self.read.insert(metadata.clone()) {
                    open.extend(self.targets(metadata)?);
                }
            }
            for blob in &facts.blobs {
                self.blob(blob, &mut open);
            }
        }
        Ok(())
    }

    /// A needed blob. It needs nothing itself, so it is not read.
    fn blob(&mut self, blob: &Digest, open: &mut Vec<Digest>) {
        if self.needed.contains(blob) {
            return;
        }
        match self.attached.contains_key(blob) {
            // Somebody uses the bytes of a manifest as a blob as well.
            true => open.push(blob.clone()),
            false => {
                self.needed.insert(blob.clone());
            }
        }
    }

    /// What a manifest refers to; `None` when it is not there, or is no manifest.
    fn facts(&self, state: &mut State, digest: &Digest) -> Result<Option<Arc<Facts>>, StoreError> {
        if let Some(known) = state.facts.get(digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(blob) = self.store.backend.open_blob(digest)? else { return Ok(None) };
        if blob.len() > MANIFEST_LIMIT {
            // A target or a linked blob: too large to be a manifest.
            return Ok(None);
        }
        match self.store.read(digest, MANIFEST_LIMIT)? {
            Read::Bytes(bytes) => Ok(Facts::parse(&bytes).ok().map(Arc::new)),
            Read::Missing => Ok(None),
            Read::Damaged => Err(StoreError::Unknowable(digest.clone())),
        }
    }

    /// The hashes that a TUF metadata file gives its targets; none when it is no such file.
    /// Signatures do not matter: here, a stranger's word only keeps more.
    fn targets(&self, metadata: &Digest) -> Result<Vec<Digest>, StoreError> {
        let Some(blob) = self.store.backend.open_blob(metadata)? else {
            // It cannot be served either, so nobody follows it.
            return Ok(Vec::new());
        };
        if blob.len() > METADATA_LIMIT {
            return Ok(Vec::new());
        }
        match self.store.read(metadata, METADATA_LIMIT)? {
            Read::Bytes(bytes) => Ok(targets_of(&bytes)),
            Read::Missing => Ok(Vec::new()),
            Read::Damaged => Err(StoreError::Unknowable(metadata.clone())),
        }
    }
}

/// Every digest that stands under the name of its algorithm, as the hashes of targets do. What is
/// odd or not JSON takes nothing away from what stands before it. Keeps nothing else in memory.
fn targets_of(bytes: &[u8]) -> Vec<Digest> {
    let mut found = Vec::new();
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let walked = Walk { name: "", found: &mut found }.deserialize(&mut document);
    if let Err(error) = walked {
        tracing::debug!(%error, "pushed as TUF metadata, and is none");
    }
    found
}

/// A value of a JSON document, and the member's name that it has.
struct Walk<'a> {
    name: &'a str,
    found: &'a mut Vec<Digest>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if Algorithm::from_name(self.name).is_ok()
            && let Ok(digest) = format!("{}:{text}", self.name).parse()
        {
            self.found.push(digest);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Walk { name: "", found: &mut *self.found })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(Walk { name: &name, found: &mut *self.found })?;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
