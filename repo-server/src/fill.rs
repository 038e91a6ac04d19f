//! How full a repository is before nothing can be published any more: `index.json`, which lists every tag, and the
//! metadata that lists the releases of the repository that `/metadata` shows.
//!
//! Half is told, in the log, in `/healthz` and by the metrics: the first half took longer than anybody needs to react.
//! Without a trust root of the operator's, the sizes are what was pushed.

use formats::oci::{Manifest, annotation};
use formats::tuf::Role;
use serde::Serialize;
use signer::plan::capacity;
use storage::layout::Room;

use crate::anchor;
use crate::store::{Store, StoreError};
use crate::tuf_tree::TufTree;

/// What fills up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// `index.json`, with every tag of all repositories.
    Index,
    /// The largest metadata that lists releases.
    Targets,
}

/// How full one part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Fill {
    pub part: Part,
    pub bytes: u64,
    /// The most that it may have.
    pub limit: u64,
}

impl Fill {
    /// Whether half is used.
    pub(crate) fn is_short(&self) -> bool {
        self.bytes >= self.limit.div_ceil(2)
    }

    fn advice(&self) -> &'static str {
        match self.part {
            Part::Index => {
                "let signer remove old states (--allow-delete), and unlist old releases with `signer prune`"
            }
            Part::Targets => "move old releases elsewhere with `signer release archive`",
        }
    }
}

/// All parts, and how many tags there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fills {
    pub parts: Vec<Fill>,
    pub tags: u64,
}

impl Fills {
    /// Of the storage, and of the repository that `tuf` shows, if it shows one. Blocks.
    pub(crate) fn look(store: &Store, tuf: &TufTree) -> Result<Self, StoreError> {
        let Room { bytes, limit, tags } = Room::of(&*store.index()?);
        let mut parts = vec![Fill { part: Part::Index, bytes, limit }];
        if let Some(bytes) = targets(store, tuf)? {
            let limit = capacity::largest(&Role::Targets);
            parts.push(Fill { part: Part::Targets, bytes, limit });
        }
        Ok(Fills { parts, tags })
    }

    /// The parts of which half is used.
    pub(crate) fn short(&self) -> impl Iterator<Item = &Fill> {
        self.parts.iter().filter(|part| part.is_short())
    }

    /// Tells the log of what became short since `before`, and of what has room again.
    pub(crate) fn log_changes(&self, before: &Fills) {
        let was_short = |part: Part| before.short().any(|fill| fill.part == part);
        for fill in &self.parts {
            let Fill { part, bytes, limit } = *fill;
            match (was_short(part), fill.is_short()) {
                (false, true) => tracing::warn!(
                    target: "alarm", ?part, bytes, limit,
                    "it is half full, and nothing can be published when it is full: {}", fill.advice()
                ),
                (true, false) => {
                    tracing::info!(target: "alarm", ?part, bytes, limit, "it has room again");
                }
                _ => {}
            }
        }
    }
}

/// The size of the largest metadata with releases in the newest state.
fn targets(store: &Store, tuf: &TufTree) -> Result<Option<u64>, StoreError> {
    let Ok(Some(name)) = tuf.repository(store) else { return Ok(None) };
    let Some(digest) = anchor::newest(store, &name)? else { return Ok(None) };
    let manifest = store.document(&digest)?.and_then(|bytes| Manifest::parse(&bytes).ok());
    Ok(manifest.and_then(|manifest| largest_targets(&manifest)))
}

/// By the sizes that its manifest lists.
fn largest_targets(manifest: &Manifest) -> Option<u64> {
    let lists = manifest
        .layers
        .iter()
        .filter(|layer| layer.annotation(annotation::TUF_FILENAME).is_some_and(holds_targets));
    lists.map(|layer| layer.size).max()
}

/// Whether a file of that name is metadata of targets: `7.targets.json`, `3.history.json`.
fn holds_targets(file: &str) -> bool {
    let versioned = file.split_once('.').filter(|(version, _)| version.parse::<u64>().is_ok());
    let name = versioned.map_or(file, |(_, name)| name);
    name.ends_with(".json") && !matches!(name, "root.json" | "snapshot.json" | "timestamp.json")
}

#[cfg(test)]
mod tests {
    use formats::oci::{Descriptor, media_type};

    use super::*;

    fn layer(file: &str, len: usize) -> Descriptor {
        Descriptor::of("application/json", &vec![b' '; len])
            .annotated(annotation::TUF_FILENAME, file)
    }

    #[test]
    fn the_largest_list_of_releases_counts() {
        let manifest =
            |layers| Manifest::artifact(media_type::TUF_STATE, Descriptor::empty(), layers);
        let all = [("1.root.json", 900), ("timestamp.json", 800), ("4.snapshot.json", 700)];
        let others: Vec<Descriptor> = all.map(|(file, len)| layer(file, len)).into();
        assert_eq!(largest_targets(&manifest(others.clone())), None);
        let with = [others, vec![layer("2.targets.json", 10), layer("7.a.b.json", 20)]].concat();
        assert_eq!(largest_targets(&manifest(with)), Some(20));
        assert!(!holds_targets("targets/demo/channels/stable"), "a document of a channel");
    }

    #[test]
    fn half_is_short() {
        let fill = |bytes| Fill { part: Part::Targets, bytes, limit: 7 };
        assert_eq!([3, 4, 9].map(|bytes| fill(bytes).is_short()), [false, true, true]);
    }
}
