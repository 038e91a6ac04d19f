//! Why bytes could not be had.

use std::path::PathBuf;

use formats::digest::Digest;
use formats::oci::{NameError, OciError};
use formats::reason::Reason;
use formats::reference::ReferenceError;
use storage::layout::LayoutError;

use crate::http::HttpError;

/// Why a [`super::Source`] could not give what was asked for. Another source may.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The place is not written as one.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A path that leads nowhere.
    #[error("{} does not exist: is the name right, and the medium mounted?", .0.display())]
    NoSuchPlace(PathBuf),
    /// Something that can be read once, from its beginning to its end.
    #[error(
        "{} is not a file, and a bundle must be one: write what comes from a pipe to a file, or mount \
         the device and name the file on it", .0.display()
    )]
    NotFile(PathBuf),
    /// The product has no possible repository.
    #[error("product: {0}")]
    Product(#[from] NameError),
    /// The exchange over HTTP failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The directory or bundle failed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No TUF state in a directory or bundle.
    #[error("{place} holds no {wanted}: it is no repository of ours, or it was copied in part")]
    NoState {
        /// Which layout.
        place: String,
        /// The reference looked for.
        wanted: String,
    },
    /// Several TUF states in a directory or bundle.
    #[error("{place} holds several TUF states ({found}): name one with oci:DIR:NS")]
    ManyStates {
        /// Which layout.
        place: String,
        /// Their references.
        found: String,
    },
    /// A document is not what OCI makes of it.
    #[error("{what}")]
    Document {
        /// Which document.
        what: String,
        /// What is wrong with it.
        #[source]
        source: OciError,
    },
    /// A document that is well-formed OCI, but not ours.
    #[error("{what}: {why}")]
    Form {
        /// Which document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bytes have another digest than the one they were asked for by.
    #[error("{what} has the digest {found}: the copy there is damaged or forged")]
    Hash {
        /// What was asked for, with its digest.
        what: String,
        /// The digest of what came.
        found: Digest,
    },
    /// The bytes have another length than the descriptor says.
    #[error(
        "{what} has {found} bytes where {expected} belong: the copy there is damaged or forged"
    )]
    Length {
        /// What was asked for.
        what: String,
        /// The length in the descriptor.
        expected: u64,
        /// The length of what is there.
        found: u64,
    },
    /// The descriptor claims more than the caller takes.
    #[error("{what} is said to have {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The length in the descriptor.
        size: u64,
        /// The caller's limit.
        limit: u64,
    },
}

impl FetchError {
    /// The stable reason code.
    pub fn reason(&self) -> Reason {
        match self {
            FetchError::Reference(_) => Reason::Usage,
            FetchError::NotFile(_) => Reason::PathRefused,
            FetchError::NoSuchPlace(_) => Reason::Unreachable,
            FetchError::Product(_) => Reason::Config,
            FetchError::Http(error) => error.reason(),
            FetchError::Layout(error) => error.reason(),
            FetchError::NoState { .. } | FetchError::ManyStates { .. } => Reason::BundleFormat,
            FetchError::Document { source: OciError::TooLarge { .. }, .. } => Reason::MetaLimit,
            FetchError::Document { .. } | FetchError::Form { .. } => Reason::BundleFormat,
            FetchError::Hash { .. } => Reason::HashMismatch,
            FetchError::Length { .. } => Reason::LengthMismatch,
            FetchError::TooLarge { .. } => Reason::MetaLimit,
        }
    }

    pub(super) fn document(what: &str) -> impl FnOnce(OciError) -> FetchError {
        let what = what.to_owned();
        move |source| FetchError::Document { what, source }
    }
}

/// Refuses a descriptor that claims more than the caller takes.
pub(super) fn check_limit(what: &str, size: u64, limit: u64) -> Result<(), FetchError> {
    if size > limit {
        return Err(FetchError::TooLarge { what: what.to_owned(), size, limit });
    }
    Ok(())
}

/// Refuses bytes that have another digest.
pub(super) fn check_digest(what: &str, digest: &Digest, bytes: &[u8]) -> Result<(), FetchError> {
    let mut hasher = digest.algorithm().hasher();
    hasher.update(bytes);
    let found = hasher.finish();
    if found == *digest {
        return Ok(());
    }
    Err(FetchError::Hash { what: what.to_owned(), found })
}
