//! What is remembered of blobs: which files were hashed and matched, and small ones' bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;
use formats::digest::Digest;
use storage::dir::FileStamp;

use crate::lock::LockMutex as _;

/// Tells one state of a stored blob from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobStamp {
    /// What a file is.
    File(FileStamp),
    /// The tag that an object store gave it.
    Object(String),
}

/// Blobs whose bytes had their digest when last read whole.
///
/// Nothing is believed across a restart: a file is hashed before it is first served, and again
/// when it is another file than the one hashed.
#[derive(Debug, Default)]
pub(crate) struct VerifiedBlobs(Mutex<HashMap<Digest, BlobStamp>>);

impl VerifiedBlobs {
    /// Whether this very state of the file was verified.
    pub(crate) fn holds(&self, digest: &Digest, stamp: &BlobStamp) -> bool {
        self.0.locked().get(digest) == Some(stamp)
    }

    /// Forgets a blob that is gone.
    pub(crate) fn remove(&self, digest: &Digest) {
        self.0.locked().remove(digest);
    }

    /// Remembers a verified file.
    pub(crate) fn insert(&self, digest: Digest, stamp: BlobStamp) {
        self.0.locked().insert(digest, stamp);
    }
}

/// 64 KiB: TUF metadata, manifests and channel documents, what every poll asks for.
pub(crate) const SMALL: u64 = 64 << 10;

/// 8 MiB: some thousand small documents; bounds memory.
const CACHED: usize = 8 << 20;

/// Verified bytes of small blobs, first in, first out. A digest always names the same bytes, so
/// nothing here can be out of date; whether a repository still shows them is asked elsewhere.
#[derive(Debug, Default)]
pub(crate) struct DocumentCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bytes: HashMap<Digest, Bytes>,
    order: VecDeque<Digest>,
    total: usize,
}

impl DocumentCache {
    /// The bytes, when they are kept.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Bytes> {
        self.0.locked().bytes.get(digest).cloned()
    }

    /// Keeps verified bytes; larger ones than [`SMALL`] are not kept.
    pub(crate) fn keep(&self, digest: Digest, bytes: &Bytes) {
        if bytes.len() as u64 > SMALL {
            return;
        }
        let mut kept = self.0.locked();
        if kept.bytes.insert(digest.clone(), bytes.clone()).is_none() {
            kept.order.push_back(digest);
            kept.total += bytes.len();
        }
        while kept.total > CACHED {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(bytes) = kept.bytes.remove(&oldest) {
                kept.total -= bytes.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_bound() {
        let cache = DocumentCache::default();
        for i in 0..1000_u32 {
            let bytes = Bytes::from(vec![0; SMALL as usize]);
            cache.keep(Digest::sha256_of(&i.to_le_bytes()), &bytes);
        }
        let kept = cache.0.lock().unwrap();
        assert!(kept.total <= CACHED && kept.bytes.len() == kept.order.len());
        drop(kept);
        assert!(cache.find(&Digest::sha256_of(&999_u32.to_le_bytes())).is_some());
        assert!(cache.find(&Digest::sha256_of(&0_u32.to_le_bytes())).is_none());
    }
}
