//! Why documents do not form a release.

use crate::oci::OciError;

/// Why documents do not form a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The OCI document itself is malformed.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// The index or manifest is another kind of artifact.
    #[error("{what}: artifact type {found:?} is not {expected:?}")]
    ArtifactType {
        /// Which document.
        what: &'static str,
        /// The type found, empty when absent.
        found: String,
        /// The type wanted.
        expected: &'static str,
    },
    /// A component has no name, an unusable one, or the release has none or too many.
    #[error("release index: {0}")]
    Components(String),
    /// A layer is missing, doubled or of a kind we do not know.
    #[error("component manifest: {0}")]
    Layers(&'static str),
    /// A JSON document does not have the form it should.
    #[error("{what}: {why}")]
    Form {
        /// Which document.
        what: &'static str,
        /// What the parser said.
        why: String,
    },
    /// Two signed documents say different things.
    #[error("{what} differs between the signed target and the release")]
    Contradiction {
        /// What differs.
        what: String,
    },
}
