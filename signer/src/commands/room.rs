//! How full a repository in a directory is: without room for another tag, nothing is published or
//! refreshed any more.

use formats::oci::Index;
use formats::reason::Reason;
use serde::Serialize;
use storage::layout;

use super::bytes;
use crate::plan::{Finding, Level};
use crate::repository::{Registry, RegistryError};

/// From here on it is said aloud: half of the room took longer than anybody needs to react.
const WARN_PERCENT: u64 = 50;

/// The room of an `index.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Room {
    /// Tags of all repositories.
    tags: u64,
    /// Bytes of `index.json`.
    index_bytes: u64,
    /// The most that it may have.
    index_limit: u64,
    /// The one in percent of the other, rounded down.
    percent: u64,
}

impl Room {
    /// Of a directory or archive; registries do not say.
    pub(super) fn of(registry: &dyn Registry) -> Result<Option<Self>, RegistryError> {
        let Some(layout) = registry.layout() else { return Ok(None) };
        Ok(Some(Room::in_index(&*layout.index()?)))
    }

    fn in_index(index: &Index) -> Self {
        let layout::Room { bytes, limit, tags } = layout::Room::of(index);
        Room { tags, index_bytes: bytes, index_limit: limit, percent: bytes * 100 / limit }
    }

    /// `312 tags, 68.0 KiB of 8.0 MiB (0 %)`.
    pub(super) fn line(&self) -> String {
        let Room { tags, index_bytes, index_limit, percent } = *self;
        let (used, limit) = (bytes(index_bytes), bytes(index_limit));
        format!("{tags} tags in {used} of {limit} ({percent} %)")
    }

    /// What is to be said of it, if anything.
    pub(super) fn finding(&self) -> Option<Finding> {
        let text = format!(
            "index.json is full by {} %, and nothing can be published or refreshed at 100: let \
             `[retention] states` of signer.toml remove old states, or move old releases elsewhere",
            self.percent
        );
        let reason = Reason::MetaLimit;
        (self.percent >= WARN_PERCENT).then_some(Finding { level: Level::Warning, reason, text })
    }
}

#[cfg(test)]
mod tests {
    use formats::oci::{Descriptor, annotation};
    use storage::layout::INDEX_LIMIT;

    use super::*;

    #[test]
    fn half_of_the_room_is_a_warning() {
        let tagged = |n: u64| {
            let entry = Descriptor::of("application/x", &n.to_be_bytes());
            entry.annotated(annotation::REF_NAME, &format!("racklet/tuf:ts-{n:08}"))
        };
        let room = |tags: u64| Room::in_index(&Index::new(None, (0..tags).map(tagged).collect()));
        let each = room(2).index_bytes - room(1).index_bytes;
        let half = INDEX_LIMIT / 2 / each;
        let full = room(half + 1);
        assert_eq!((full.tags, full.percent, full.index_limit), (half + 1, 50, INDEX_LIMIT));
        assert!(full.finding().unwrap().text.contains("full by 50 %"));
        assert_eq!(room(half - 1).finding(), None);
        // An entry without a name is no tag.
        let unnamed = Index::new(None, vec![Descriptor::of("application/x", b"")]);
        assert_eq!(Room::in_index(&unnamed).tags, 0);
    }
}
