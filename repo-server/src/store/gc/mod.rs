//! Garbage collection: deletes what nothing needs any more.
//!
//! | module | does |
//! |---|---|
//! | [`plan`] | what is needed, what is kept and why, what is deleted (pure) |
//! | `targets` | the hashes that TUF metadata gives its targets (pure) |
//! | here | gathers what the plan is made from, and carries it out |
//!
//! Links are removed first, so that no client sees what is about to go, then the bytes. The grace period
//! is for pushes under way: their blobs come before the manifest that needs them, and their manifests
//! before the tag. A blob that is pushed or mounted again is young again.
//!
//! On a storage that several servers share, bytes go in two steps: condemned by one collection,
//! deleted by one that finds them condemned and unneeded a grace period later. A server next to this
//! one may have looked at a blob just before it was unlinked here, and accept a manifest that names
//! it just after; the next collection sees that manifest.
//!
//! Every step is one removal, durable by itself: a collection that is cut off anywhere has deleted
//! less, and the next one does the rest. When a needed manifest or TUF metadata file is damaged, what
//! it needs is unknown; then nothing at all is deleted. One that can be read and is no TUF metadata,
//! or is larger than any client reads as such, names nothing: otherwise anyone who may push a blob could
//! stop collections permanently.

pub(crate) mod plan;
mod targets;

#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::digest::Digest;
use formats::oci::{Descriptor, MANIFEST_LIMIT, RepositoryName};
use signer::plan::Retention;
use storage::layout::reference_of;

use self::plan::{Age, Inventory, Keep, Mark, Plan, Question};
use super::backend::{Link, LinkKind, Refs, StoredBlob};
use super::facts::Facts;
use super::retire::audits;
use super::{ReadOutcome, Store, StoreError, WriterState};
use crate::lock::LockRw as _;

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
    /// Of those, the ones that nothing needs yet or any more, within the grace period.
    pub young: usize,
}

impl Plan {
    /// What a collection does that carries this out in full.
    pub fn outcome(&self) -> Collected {
        let waiting = self.condemn.len() + self.waiting.len();
        let young = self.kept.values().filter(|keep| **keep == Keep::Young).count();
        Collected {
            links: self.links.len(),
            blobs: self.blobs.len(),
            bytes: self.blobs.iter().map(|stored| stored.len).sum(),
            kept: self.kept.len() + waiting,
            young: young + waiting,
        }
    }

    /// All garbage: the same, with what a storage that several servers share deletes later.
    pub fn garbage(&self) -> Collected {
        let outcome = self.outcome();
        let waiting = self.condemn.iter().chain(&self.waiting);
        Collected {
            blobs: outcome.blobs + waiting.clone().count(),
            bytes: outcome.bytes + waiting.clone().map(|stored| stored.len).sum::<u64>(),
            kept: outcome.kept - waiting.clone().count(),
            young: outcome.young - waiting.count(),
            ..outcome
        }
    }

    /// The links that would be removed: repository and digest.
    pub fn links(&self) -> impl Iterator<Item = (&RepositoryName, &Digest)> {
        self.links.iter().map(|link| (&link.name, &link.digest))
    }

    /// The blobs that are garbage, with their length in bytes.
    pub fn blobs(&self) -> impl Iterator<Item = (&Digest, u64)> {
        let all = self.blobs.iter().chain(&self.condemn).chain(&self.waiting);
        all.map(|stored| (&stored.digest, stored.len))
    }
}

/// The grace period, at one moment.
#[derive(Debug, Clone, Copy)]
struct Clock {
    now: SystemTime,
    grace: Duration,
}

impl Clock {
    fn age(self, time: SystemTime) -> Age {
        match self.now.duration_since(time) {
            Ok(age) if age > self.grace => Age::Old,
            _ => Age::Young,
        }
    }

    fn aged<T>(self, all: Vec<T>, modified: impl Fn(&T) -> SystemTime) -> Vec<(T, Age)> {
        let with_age = |it| {
            let age = self.age(modified(&it));
            (it, age)
        };
        all.into_iter().map(with_age).collect()
    }
}

impl Store {
    /// What [`Store::collect`] would do. Changes nothing.
    pub fn plan_collection(
        &self,
        grace: Duration,
        now: SystemTime,
        retention: Retention,
    ) -> Result<Plan, StoreError> {
        let (clock, blobs) = (Clock { now, grace }, self.listed()?);
        self.plan(&mut self.state(), clock, retention, blobs).map(|(_, plan)| plan)
    }

    /// Deletes what nothing needs and what is older than `grace` at the time `now`. What a TUF state lists
    /// is needed as long as `retention` keeps it: older states are kept for audits, with their metadata.
    ///
    /// After an error or a cut, less has been deleted: never anything that is needed, and of the
    /// rest never a blob that is still shown.
    pub fn collect(
        &self,
        grace: Duration,
        now: SystemTime,
        retention: Retention,
    ) -> Result<Collected, StoreError> {
        self.writable()?;
        let (clock, blobs) = (Clock { now, grace }, self.listed()?);
        let mut state = self.state();
        let (refs, plan) = self.plan(&mut state, clock, retention, blobs)?;
        let links = self.remove_links(&mut state, &plan.links, clock)?;
        drop(state);
        if let Some(shared) = self.backend.shared() {
            plan.condemn.iter().try_for_each(|stored| shared.condemn(&stored.digest))?;
            plan.spare.iter().try_for_each(|digest| shared.spare(digest))?;
        }
        let mut done = Collected { links, blobs: 0, bytes: 0, ..plan.outcome() };
        for batch in plan.blobs.chunks(BATCH) {
            self.remove_blobs(batch, &refs, clock, &mut done)?;
        }
        Ok(done)
    }

    /// All blobs, and links as they are now. Writers do not wait for it: what is pushed meanwhile is
    /// not among them, or young when it is looked at again.
    fn listed(&self) -> Result<Vec<StoredBlob>, StoreError> {
        self.relist()?;
        self.backend.blobs()
    }

    /// The references as they stand, and what is to be done.
    fn plan(
        &self,
        state: &mut WriterState,
        clock: Clock,
        retention: Retention,
        blobs: Vec<StoredBlob>,
    ) -> Result<(Refs, Plan), StoreError> {
        let links = self.backend.links()?;
        self.rebuild(state)?;
        let (index, refs) = (self.backend.index()?, self.refs()?);
        let unnamed = index.manifests.iter().filter(|it| reference_of(it).is_none());
        let audits = audits(&refs, unnamed.map(|entry| &entry.digest), retention);
        let condemned = self.backend.shared().map(|shared| shared.condemned()).transpose()?;
        let condemned = condemned.map(|found| {
            found.into_iter().map(|(digest, since)| (digest, clock.age(since))).collect()
        });
        let mut mark = Mark::new(Inventory {
            tagged: index.manifests.iter().map(|entry| entry.digest.clone()).collect(),
            audits,
            attached: self.attached(state, &links)?,
            links: clock.aged(links, |link| link.modified),
            blobs: clock.aged(blobs, |blob| blob.modified),
            condemned,
        });
        while let Some(question) = mark.next() {
            match question {
                Question::Manifest(digest) => {
                    if let Some(facts) = self.references(state, &digest)? {
                        mark.manifest(&facts);
                    }
                }
                Question::Metadata(digest) => mark.metadata(self.targets(&digest)?),
            }
        }
        Ok((refs, mark.plan()))
    }

    /// The references as they stand now.
    pub(super) fn refs(&self) -> Result<Refs, StoreError> {
        let index = self.backend.index()?;
        let named = |entry: &Descriptor| Some((reference_of(entry)?.to_owned(), entry.clone()));
        Ok(index.manifests.iter().filter_map(named).collect())
    }

    /// Linked manifests by what they are attached to.
    fn attached(
        &self,
        state: &WriterState,
        links: &[Link],
    ) -> Result<BTreeMap<Digest, Vec<Digest>>, StoreError> {
        let mut attached: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for link in links.iter().filter(|link| link.kind == LinkKind::Manifest) {
            let facts = match self.references(state, &link.digest) {
                // Damaged, it is attached to nothing; if it is needed, that is found out later.
                Err(StoreError::UnreadableReferences(_)) => None,
                // The medium did not say: what it is attached to may be needed.
                facts => facts?,
            };
            if let Some(subject) = facts.as_ref().and_then(|facts| facts.subject.as_ref()) {
                attached.entry(subject.clone()).or_default().push(link.digest.clone());
            }
        }
        Ok(attached)
    }

    /// What a manifest refers to; `None` when it is not there, or is no manifest.
    fn references(
        &self,
        state: &WriterState,
        digest: &Digest,
    ) -> Result<Option<Arc<Facts>>, StoreError> {
        if let Some(known) = state.facts.get(digest) {
            return Ok(Some(Arc::clone(known)));
        }
        // What is longer is a target or a linked blob: too large to be a manifest.
        let bytes = self.read_needed(digest, MANIFEST_LIMIT)?;
        Ok(bytes.and_then(|bytes| Facts::parse(&bytes).ok()).map(Arc::new))
    }

    /// The hashes that a TUF metadata file gives its targets; none when it is no such file.
    /// Signatures do not matter: here, what a stranger pushed only keeps more.
    fn targets(&self, metadata: &Digest) -> Result<Vec<Digest>, StoreError> {
        // One that is not there cannot be served either, so no client follows it.
        let bytes = self.read_needed(metadata, METADATA_LIMIT)?;
        Ok(bytes.map(|bytes| targets::targets_of(&bytes)).unwrap_or_default())
    }

    /// The bytes of a document of at most `max` bytes; `None` when it is missing or longer, and an
    /// error when it is damaged.
    fn read_needed(&self, digest: &Digest, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        match self.backend.open_blob(digest)? {
            Some(blob) if blob.len() <= max => {}
            _ => return Ok(None),
        }
        match self.read(digest, max)? {
            ReadOutcome::Bytes(bytes) => Ok(Some(bytes)),
            ReadOutcome::Missing => Ok(None),
            ReadOutcome::Damaged => Err(StoreError::UnreadableReferences(digest.clone())),
        }
    }

    /// Removes links that are as old as they were; how many.
    fn remove_links(
        &self,
        state: &mut WriterState,
        planned: &[Link],
        clock: Clock,
    ) -> Result<usize, StoreError> {
        let name = |link: &Link| (link.name.clone(), link.kind, link.digest.clone());
        let planned: HashSet<_> = planned.iter().map(name).collect();
        let mut removed = 0;
        let mut swept = Ok(());
        // Listed anew: a server next to this one may have made some of them young again.
        for link in self.backend.links()? {
            if clock.age(link.modified) == Age::Young || !planned.contains(&name(&link)) {
                continue;
            }
            swept = self.backend.remove_link(&link.name, link.kind, &link.digest).map(drop);
            if swept.is_err() {
                break;
            }
            state.unlink(&link.name, link.kind, &link.digest);
            state.facts.remove(&link.digest);
            removed += 1;
        }
        // Also after an error: what was removed must not be shown.
        self.rebuild(state)?;
        swept.map(|()| removed)
    }

    /// Removes blobs that are still garbage, while writers wait.
    fn remove_blobs(
        &self,
        batch: &[StoredBlob],
        refs: &Refs,
        clock: Clock,
        done: &mut Collected,
    ) -> Result<(), StoreError> {
        let state = self.state();
        // Under the lock of the references: another process moves a tag before or after it.
        self.backend.update_refs(&mut |now| {
            if now != refs {
                // Something was published: the next collection finds out what is garbage now.
                return Ok(());
            }
            for stored in batch {
                let wanted = state.pinned.contains(&stored.digest)
                    || self.shown_anywhere(&stored.digest)
                    || !self.is_still_old(&stored.digest, clock)?;
                if !wanted {
                    self.backend.remove_blob(&stored.digest)?;
                    if let Some(shared) = self.backend.shared() {
                        shared.spare(&stored.digest)?;
                    }
                    self.verified.remove(&stored.digest);
                    self.usage.remove(&stored.digest);
                    done.blobs += 1;
                    done.bytes += stored.len;
                }
            }
            Ok(())
        })
    }

    fn shown_anywhere(&self, digest: &Digest) -> bool {
        let catalog = self.catalog.read_locked();
        let mut repositories = catalog.repositories.values();
        repositories.any(|it| it.blobs.contains(digest) || it.manifests.contains_key(digest))
    }

    /// Whether the blob is as old as it was; not so when it is gone.
    fn is_still_old(&self, digest: &Digest, clock: Clock) -> Result<bool, StoreError> {
        let Some(blob) = self.backend.open_blob(digest)? else { return Ok(false) };
        Ok(clock.age(blob.modified()?) == Age::Old)
    }
}
