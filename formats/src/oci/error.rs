//! Why bytes are not an OCI document.

use crate::digest::Digest;

/// Why bytes are not an OCI document of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    /// Not JSON, or a field is missing or of another type.
    #[error("{what}: {why}")]
    Form {
        /// Which document.
        what: &'static str,
        /// What the parser said.
        why: String,
    },
    /// `schemaVersion` is not 2.
    #[error("{what}: schemaVersion {found} is not 2")]
    SchemaVersion {
        /// Which document.
        what: &'static str,
        /// The number found.
        found: u64,
    },
    /// The `mediaType` field names another kind of document.
    #[error("{what}: mediaType {found:?} is another kind of document")]
    MediaType {
        /// Which document.
        what: &'static str,
        /// The media type found.
        found: String,
    },
    /// One document with both `manifests` and `layers` (CVE-2021-41190).
    #[error("{what}: has both manifests and layers or config")]
    Ambiguous {
        /// Which document.
        what: &'static str,
    },
    /// More entries than [`ENTRIES_LIMIT`](super::ENTRIES_LIMIT), a document over [`MANIFEST_LIMIT`](super::MANIFEST_LIMIT), or one that takes
    /// more memory than [`TREE_LIMIT`](crate::json::TREE_LIMIT), as very many annotations do.
    #[error("{what}: larger than the limit")]
    TooLarge {
        /// Which document.
        what: &'static str,
    },
    /// Two entries with one digest but different sizes.
    #[error("{what}: {digest} is listed with two sizes")]
    Contradiction {
        /// Which document.
        what: &'static str,
        /// The digest listed twice.
        digest: Digest,
    },
}
