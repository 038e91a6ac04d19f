//! Where a repository lies, and the few things that are done to it.
//!
//! ```text
//!  docker://host/ns     ─► RegistryClient (HTTP)            ┐
//!  oci:DIR[:ns]         ─► LayoutRepository (storage)       ├─ dyn Registry
//!  oci-archive:FILE.tar ─► LayoutRepository, read only      ┘
//! ```
//!
//! A repository is never trusted: documents are hashed before they are handed out, and what is
//! above them is the caller's to verify. Publishing is a sequence of calls that ends with
//! [`Registry::set_tag`] of `tuf:latest`; before that call no reader sees any of it.

#[cfg(feature = "registry")]
mod client;
mod layout;
mod referrers;
mod rehearsal;
mod tags;

#[cfg(feature = "registry")]
pub use client::{Backoff, Patience, RegistryClient};
pub use layout::LayoutRepository;
pub use referrers::{attach, attach_all, attached, is_list_of};
pub use rehearsal::{Rehearsal, Transfer};
pub use tags::{Beside, Listed, Removal, keep};

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use formats::digest::Digest;
use formats::oci::{Descriptor, NameError, RepositoryName, Tag};
use formats::reason::Reason;
use formats::reference::Reference;
use storage::FileError;
use storage::layout::{Layout, LayoutError, Sweep, Swept};

use crate::progress::Progress;

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

/// What a tag must stand for when it is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Nothing: the tag is new.
    Absent,
    /// This, as it was read before.
    Digest(&'a Digest),
    /// Anything: what it stands for was never visible, or is the same.
    Anything,
}

impl Expect<'_> {
    /// Whether a tag that stands for `found` may be moved.
    fn allows(self, found: Option<&Digest>) -> bool {
        match (self, found) {
            (Expect::Absent, found) => found.is_none(),
            (Expect::Digest(expected), found) => found == Some(expected),
            (Expect::Anything, _) => true,
        }
    }
}

/// A place that holds repositories: blobs and manifests by digest, manifests by tag.
///
/// Crash behaviour: after any call, or in the middle of one, every blob and manifest is there
/// whole or not at all, and every tag stands for its old or its new manifest.
pub trait Registry {
    /// How it is named on command lines.
    fn reference(&self) -> &Reference;

    /// The image layout behind it, if it is one.
    fn layout(&self) -> Option<&dyn Layout> {
        None
    }

    /// The manifest a tag stands for, as received; `None` when there is no such tag or repository.
    fn tagged(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Vec<u8>>, RegistryError>;

    /// The manifest of that digest, verified.
    fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError>;

    /// Whether a blob is there. Says nothing about its bytes.
    fn has_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError>;

    /// The bytes of a blob as they come, **not** verified; the caller hashes and bounds them.
    fn open_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + '_>, RegistryError>;

    /// Begins a blob whose digest is not known yet.
    fn begin_blob(
        &self,
        repository: &RepositoryName,
    ) -> Result<Box<dyn BlobSink + '_>, RegistryError>;

    /// Stores a manifest under its digest. What it refers to must be there, or have been given to
    /// [`BlobSink::finish`]: this waits for it.
    fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Stored, RegistryError>;

    /// Repositories beside the one that is written which may hold the same blobs.
    fn may_mount_from(&self, _repositories: &[RepositoryName]) {}

    /// What is attached to a manifest, as the repository itself lists it, by digest; `None` when it
    /// keeps no such list, see [`attached`].
    fn referrers(
        &self,
        _repository: &RepositoryName,
        _subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        Ok(None)
    }

    /// Makes a tag stand for a stored manifest, if it stands for what is expected. One that stands
    /// for it already is not pushed again; one that the registry keeps where it is, is
    /// [`RegistryError::TagTaken`].
    ///
    /// In a directory this is atomic. The distribution API has no conditional PUT, so at a
    /// registry two publishers within the same second may both succeed; the later one's state is
    /// then what readers see, whole.
    fn set_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        manifest: &Descriptor,
        bytes: &[u8],
        expect: Expect<'_>,
    ) -> Result<(), RegistryError>;

    /// The tags of a repository, in any order; none when there is no such repository.
    fn tags(&self, repository: &RepositoryName) -> Result<Vec<Listed>, RegistryError>;

    /// Removes tags, and nothing that they stand for. One whose manifest is known and is another one
    /// by now stays; one that is gone already is not counted.
    ///
    /// In a directory all of them go in one step, or none. A registry is asked for each: what was
    /// removed before it refused or failed stays removed, see [`Removal::stopped`].
    fn remove_tags(
        &self,
        repository: &RepositoryName,
        tags: &[Listed],
    ) -> Result<Removal, RegistryError>;

    /// Removes blobs that nothing needs, see [`LayoutDir::sweep`](storage::layout::LayoutDir::sweep);
    /// `None` where that is somebody else's business: registries and servers collect by themselves.
    fn sweep(&self, _sweep: &Sweep<'_>) -> Result<Option<Swept>, RegistryError> {
        Ok(None)
    }

    /// The bytes of a small blob, verified; at most `limit` bytes.
    fn blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
        what: &'static str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let digest = blob.digest.clone();
        if blob.size > limit {
            return Err(RegistryError::TooLarge { what, digest, size: blob.size, limit });
        }
        let mut bytes = Vec::new();
        self.open_blob(repository, blob)?
            .take(blob.size + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| RegistryError::Stream { digest: digest.clone(), source })?;
        if bytes.len() as u64 == blob.size && digest.matches(&bytes) {
            Ok(bytes)
        } else {
            Err(RegistryError::Digest { what, digest })
        }
    }

    /// Stores a small blob unless it is there.
    fn put_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        if self.has_blob(repository, blob)? {
            return Ok(());
        }
        store_blob(self, repository, blob, bytes)
    }
}

/// Stores a small blob.
fn store_blob<R: Registry + ?Sized>(
    registry: &R,
    repository: &RepositoryName,
    blob: &Descriptor,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    let mut sink = registry.begin_blob(repository)?;
    sink.write_all(bytes).map_err(|error| sink.failed(error))?;
    let stored = sink.finish(&Progress::default())?;
    if stored == blob.digest {
        return Ok(());
    }
    Err(RegistryError::Digest { what: "blob", digest: blob.digest.clone() })
}

/// What a repository does for a manifest that is attached to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Lists it by itself (`OCI-Subject`).
    ReferrersListed,
    /// Nothing, so that whoever attaches it keeps the list.
    ReferrersNotListed,
}

/// A blob on its way, hashed as it passes. Dropped unfinished, nothing of it remains.
pub trait BlobSink: Write {
    /// Gives its SHA-256 digest. In a directory the blob is durable then; on its way to a registry it
    /// may take until the next manifest is stored, which fails when the blob did not get there.
    fn finish(self: Box<Self>, progress: &Progress) -> Result<Digest, RegistryError>;

    /// The error of a failed write.
    fn failed(&self, source: io::Error) -> RegistryError;
}

/// How registries are reached. Does nothing for directories and archives.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Trust only the certificates of this PEM file instead of the system's.
    pub ca: Option<PathBuf>,
    /// A file with a bearer token; its owner's only.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificate that proves this client to the registry, and its chain.
    pub client_cert: Option<PathBuf>,
    /// A PEM file with its key; its owner's only.
    pub client_key: Option<PathBuf>,
    /// The host of the registry's token server, when it is another one.
    pub token_host: Option<String>,
    /// HTTP without TLS; loopback addresses only.
    pub plain_http: bool,
    /// How failures that pass are waited for.
    #[cfg(feature = "registry")]
    pub backoff: Backoff,
    /// When a transfer is abandoned.
    #[cfg(feature = "registry")]
    pub patience: Patience,
    /// Blobs of more bytes go up in pieces of so many; absent: whole, until that is refused.
    pub chunk_size: Option<u64>,
    /// Receives a line for every wait and retry; absent: they are silent.
    pub tell: Option<fn(&str)>,
}

/// What a repository is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading: also of archives, and of layouts whose references other tools shortened.
    Read,
    /// Publishing: a directory is made when it is missing.
    Write,
    /// Publishing to what is there: nothing is made for a name that was mistyped.
    Update,
}

/// Opens a repository.
pub fn open(
    reference: &Reference,
    access: Access,
    options: &ClientOptions,
) -> Result<Box<dyn Registry>, RegistryError> {
    match (reference, access) {
        #[cfg(feature = "registry")]
        (Reference::Registry { .. }, _) => {
            Ok(Box::new(RegistryClient::connect(reference.clone(), options)?))
        }
        #[cfg(not(feature = "registry"))]
        (Reference::Registry { .. }, _) => {
            let ClientOptions { .. } = options;
            Err(RegistryError::ReadOnly(reference.to_string()))
        }
        (Reference::Layout { .. }, Access::Write) => {
            Ok(Box::new(LayoutRepository::create(reference.clone())?))
        }
        (Reference::Layout { .. }, Access::Update) => {
            // Refuses what is no layout, and is closed again.
            LayoutRepository::open(reference.clone())?;
            Ok(Box::new(LayoutRepository::create(reference.clone())?))
        }
        (Reference::Archive { .. }, Access::Write | Access::Update) => {
            Err(RegistryError::ReadOnly(reference.to_string()))
        }
        (_, Access::Read) => Ok(Box::new(LayoutRepository::open(reference.clone())?)),
    }
}
