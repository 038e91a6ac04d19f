//! Why a repository could not be read or written.

use std::io;
use std::path::{Path, PathBuf};

use formats::digest::Digest;
use formats::oci::{NameError, RepositoryName, Tag};
use formats::reason::Reason;
use storage::FileError;
use storage::layout::LayoutError;

/// Why a repository could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// An image layout could not be read or written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A product or namespace that is no repository name, or a version that is no tag.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A registry answered with an error or not at all.
    #[error("{action} at {registry}: {message}")]
    Client {
        /// What was asked for.
        action: String,
        /// `host:port`.
        registry: String,
        /// The registry's or the network's words.
        message: String,
        /// What kind of failure it was.
        reason: Reason,
        /// What to do next; empty when the message says it.
        hint: String,
    },
    /// A document that another one refers to is not there.
    #[error("{what} {digest} is not in the repository; it is incomplete, publish or copy it again")]
    Missing {
        /// What kind of document.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// A document's bytes do not have the digest it was asked for by.
    #[error("{what} {digest} does not match its digest; copy it again")]
    Digest {
        /// What kind of document.
        what: &'static str,
        /// The digest asked for.
        digest: Digest,
    },
    /// A document is longer than its kind can be.
    #[error("{what} {digest} has {size} bytes, more than {limit}")]
    TooLarge {
        /// What kind of document.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The most it may have.
        limit: u64,
    },
    /// A blob stream broke off.
    #[error("read blob {digest}")]
    Stream {
        /// Which blob.
        digest: Digest,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A blob could not be collected before it was uploaded.
    #[error("write a temporary file in {path}; set TMPDIR to a place with free space")]
    Spool {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A blob could not be written into a repository's directory.
    #[error("write a blob in {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else published in between.
    #[error(
        "{repository}:{tag} was moved by somebody else meanwhile; nothing became visible, run again"
    )]
    Moved {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
    },
    /// A tag stands for something else, and the registry does not let it be moved.
    #[error(
        "{repository}:{tag} refers to another manifest, and the registry does not let it be moved: {said}"
    )]
    TagTaken {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
        /// What the registry says.
        said: String,
    },
    /// A registry that has no room left.
    #[error(
        "{action} at {registry}: {said}; remove old tags and releases there, or raise its quota"
    )]
    Full {
        /// What was asked for.
        action: String,
        /// `host:port`.
        registry: String,
        /// What the registry says.
        said: String,
    },
    /// A registry that removes no tags, or not for us.
    #[error("{registry} removes no tags of {repository}: {said}")]
    KeepsTags {
        /// `host:port`.
        registry: String,
        /// The repository.
        repository: RepositoryName,
        /// What the registry says.
        said: String,
    },
    /// A registry that makes no repository when something is pushed to it.
    #[error("{registry} has no repository {repository} and does not create it: {said}")]
    NoRepository {
        /// `host:port`.
        registry: String,
        /// The repository.
        repository: RepositoryName,
        /// What the registry says.
        said: String,
    },
    /// The transport cannot be written.
    #[error("{0} can only be read; publish to an oci: directory or a registry")]
    ReadOnly(String),
    /// `--plain-http` for another machine.
    #[error("{0} is not this machine: --plain-http is for loopback addresses only")]
    PlainHttp(String),
    /// The file of a token or certificate cannot be used.
    #[error("{what} {path}: {why}")]
    Credential {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        why: String,
        /// What kind of failure it is.
        reason: Reason,
    },
}

impl RegistryError {
    /// The directory or file that a local repository should be in, when there is none.
    pub fn missing_place(&self) -> Option<&Path> {
        match self {
            RegistryError::Layout(LayoutError::Read(FileError::Io { path, source, .. })) => {
                (source.kind() == io::ErrorKind::NotFound).then_some(path)
            }
            _ => None,
        }
    }

    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            // A name that leads nowhere on this machine is a mistake, and not a line that is down.
            RegistryError::Layout(_) if self.missing_place().is_some() => Reason::Config,
            RegistryError::Layout(error) => error.reason(),
            RegistryError::Client { reason, .. } | RegistryError::Credential { reason, .. } => {
                *reason
            }
            RegistryError::Missing { .. } => Reason::BundleFormat,
            RegistryError::Digest { .. } => Reason::HashMismatch,
            RegistryError::TooLarge { .. } => Reason::MetaLimit,
            RegistryError::Stream { .. } => Reason::Unreachable,
            RegistryError::Spool { .. } | RegistryError::Directory { .. } => Reason::StoreIo,
            RegistryError::Moved { .. } => Reason::Busy,
            RegistryError::TagTaken { .. }
            | RegistryError::KeepsTags { .. }
            | RegistryError::Full { .. }
            | RegistryError::NoRepository { .. } => Reason::HttpStatus,
            RegistryError::Name(_) | RegistryError::ReadOnly(_) | RegistryError::PlainHttp(_) => {
                Reason::Config
            }
        }
    }
}
