//! Why the storage did not do what was asked.

use std::io;

use formats::digest::Digest;
use storage::FileError;
use storage::layout::LayoutError;

use super::facts::{self, FactsError};

/// Why the storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing the image layout failed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Reading or writing a link failed.
    #[error(transparent)]
    Link(#[from] FileError),
    /// Reading or writing a blob failed.
    #[error("blob")]
    Blob(#[source] io::Error),
    /// The manifest cannot be stored as such.
    #[error(transparent)]
    Manifest(#[from] FactsError),
    /// The bytes do not have the digest the client named.
    #[error("the manifest has digest {found}, not {named}")]
    Digest {
        /// In the request.
        named: Digest,
        /// Of the bytes.
        found: Digest,
    },
    /// The manifest names something the repository does not have.
    #[error("the manifest refers to {0}, which is not in the repository; push it first")]
    Incomplete(Digest),
    /// What is to be deleted is part of a manifest of the repository.
    #[error("manifest {0} refers to it; delete that manifest first")]
    Needed(Digest),
    /// The tag stands for something else, and the client may not move tags.
    #[error("tag {0} already exists; this token is create-only")]
    TagExists(String),
    /// A quota of the operator's is used up.
    #[error("{of} has used its quota of {quota} bytes; delete something first")]
    Quota {
        /// What the quota is for.
        of: String,
        /// In bytes.
        quota: u64,
    },
    /// The references of all manifests take all the memory they may.
    #[error("the references of all manifests already take {} MiB of memory", facts::KNOWN >> 20)]
    TooManyManifests,
    /// A needed manifest or TUF metadata file is damaged, so a collection cannot know what it needs.
    #[error(
        "{0} is damaged and its references cannot be read; nothing was deleted. Push it again, or delete its tag"
    )]
    UnreadableReferences(Digest),
    /// The object store did not do what was asked.
    #[error("{doing} {key} in the bucket")]
    Bucket {
        /// What was tried.
        doing: &'static str,
        /// The object's name.
        key: String,
        /// What came of it.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Another server changed the same thing first.
    #[error("{0}")]
    Conflict(&'static str),
    /// The server was started read-only.
    #[error("this server is read-only")]
    ReadOnly,
}
