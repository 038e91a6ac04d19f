//! How much room there is, in all and for one repository.
//!
//! Blobs count once in all, and once in every repository that shows them. Bytes of uploads under
//! way count from the moment they arrive, so that no number of clients at once gets past a quota.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use formats::digest::Digest;
use formats::oci::RepositoryName;

use super::StoreError;
use crate::lock::LockMutex as _;

/// What may be used, in bytes; no bound without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Of the whole storage.
    pub total: Option<u64>,
    /// Of each repository.
    pub repository: Option<u64>,
}

impl Quota {
    /// Whether there is anything to count.
    pub fn is_set(&self) -> bool {
        self.total.is_some() || self.repository.is_some()
    }
}

/// What is used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    quota: Quota,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    sizes: HashMap<Digest, u64>,
    total: u64,
    repositories: HashMap<RepositoryName, u64>,
    uploading: HashMap<RepositoryName, u64>,
    uploading_total: u64,
}

impl Usage {
    /// Nothing is used yet.
    pub(crate) fn new(quota: Quota) -> Self {
        Usage { quota, used: Mutex::default() }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.locked()
    }

    /// Whether anything is counted.
    pub(crate) fn is_on(&self) -> bool {
        self.quota.is_set()
    }

    /// Bytes of blobs and of uploads under way; `None` when they are not counted.
    pub(crate) fn total(&self) -> Option<u64> {
        let used = self.used();
        self.is_on().then(|| used.total.saturating_add(used.uploading_total))
    }

    /// These blobs are all there are.
    pub(crate) fn set_blobs(&self, blobs: impl IntoIterator<Item = (Digest, u64)>) {
        let mut used = self.used();
        used.sizes = blobs.into_iter().collect();
        used.total = used.sizes.values().sum();
    }

    /// A blob is there, or still there.
    pub(crate) fn add(&self, digest: &Digest, len: u64) {
        let mut used = self.used();
        let before = used.sizes.insert(digest.clone(), len).unwrap_or(0);
        used.total = used.total.saturating_sub(before).saturating_add(len);
    }

    /// A blob is gone.
    pub(crate) fn remove(&self, digest: &Digest) {
        let mut used = self.used();
        let before = used.sizes.remove(digest).unwrap_or(0);
        used.total = used.total.saturating_sub(before);
    }

    /// Its length, if it is known.
    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        self.used().sizes.get(digest).copied()
    }

    /// What each repository shows, in bytes.
    pub(crate) fn set_repositories(&self, repositories: HashMap<RepositoryName, u64>) {
        self.used().repositories = repositories;
    }

    /// A repository shows that much more.
    pub(crate) fn shows(&self, name: &RepositoryName, more: u64) {
        *self.used().repositories.entry(name.clone()).or_default() += more;
    }

    /// Refuses `more` bytes for which there is no room.
    pub(crate) fn expect_room(&self, name: &RepositoryName, more: u64) -> Result<(), StoreError> {
        self.check(&self.used(), name, more)
    }

    fn check(&self, used: &Used, name: &RepositoryName, more: u64) -> Result<(), StoreError> {
        let of = |map: &HashMap<RepositoryName, u64>| map.get(name).copied().unwrap_or(0);
        let total = used.total.saturating_add(used.uploading_total).saturating_add(more);
        if let Some(quota) = self.quota.total.filter(|quota| total > *quota) {
            return Err(StoreError::Quota { of: "the server".to_owned(), quota });
        }
        let here = of(&used.repositories).saturating_add(of(&used.uploading)).saturating_add(more);
        if let Some(quota) = self.quota.repository.filter(|quota| here > *quota) {
            return Err(StoreError::Quota { of: format!("repository {name}"), quota });
        }
        Ok(())
    }

    /// Counts an upload that has `stored` bytes already.
    pub(crate) fn charge(self: &Arc<Self>, name: &RepositoryName, stored: u64) -> Charge {
        let charge = Charge { usage: Arc::clone(self), name: name.clone(), bytes: 0 };
        charge.count(&mut self.used(), stored)
    }
}

/// The bytes of one upload, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    usage: Arc<Usage>,
    name: RepositoryName,
    bytes: u64,
}

impl Charge {
    /// Counts further bytes, or refuses them.
    pub(crate) fn grow(&mut self, more: u64) -> Result<(), StoreError> {
        let usage = Arc::clone(&self.usage);
        let mut used = usage.used();
        usage.check(&used, &self.name, more)?;
        *used.uploading.entry(self.name.clone()).or_default() += more;
        used.uploading_total += more;
        self.bytes += more;
        Ok(())
    }

    fn count(mut self, used: &mut Used, bytes: u64) -> Self {
        *used.uploading.entry(self.name.clone()).or_default() += bytes;
        used.uploading_total += bytes;
        self.bytes += bytes;
        self
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut used = self.usage.used();
        used.uploading_total = used.uploading_total.saturating_sub(self.bytes);
        if let Some(bytes) = used.uploading.get_mut(&self.name) {
            *bytes = bytes.saturating_sub(self.bytes);
            if *bytes == 0 {
                used.uploading.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_count_while_they_last() {
        let name: RepositoryName = "a".parse().unwrap();
        let other: RepositoryName = "b".parse().unwrap();
        let quota = Quota { total: Some(100), repository: Some(60) };
        let usage = Arc::new(Usage::new(quota));
        usage.set_blobs([(Digest::sha256_of(b"x"), 30)]);
        usage.shows(&name, 30);
        let mut one = usage.charge(&name, 10);
        one.grow(20).unwrap();
        assert!(one.grow(1).is_err(), "repository");
        let mut two = usage.charge(&other, 0);
        two.grow(40).unwrap();
        assert!(two.grow(1).is_err(), "total");
        drop(one);
        two.grow(20).unwrap();
        assert_eq!(usage.total(), Some(90));
        drop(two);
        usage.remove(&Digest::sha256_of(b"x"));
        assert_eq!(usage.total(), Some(0));
    }
}
