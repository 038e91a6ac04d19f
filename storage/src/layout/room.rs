//! How full `index.json` is, which has to list every tag.

use formats::oci::Index;

use super::{INDEX_LIMIT, reference_of};

/// The room of an `index.json`. Nothing is known of the default one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Its bytes.
    pub bytes: u64,
    /// The most that it may have.
    pub limit: u64,
    /// Tags of all repositories.
    pub tags: u64,
}

impl Room {
    /// Of these entries.
    pub fn of(index: &Index) -> Self {
        let tags = index.manifests.iter().filter(|entry| reference_of(entry).is_some()).count();
        Room { bytes: index.to_bytes().len() as u64, limit: INDEX_LIMIT, tags: tags as u64 }
    }
}
