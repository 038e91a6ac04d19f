//! OCI image layouts (image-spec §"OCI Image Layout") as a directory or as one tar file.
//!
//! ```text
//!  oci-layout               {"imageLayoutVersion":"1.0.0"}
//!  index.json               tags: descriptors annotated org.opencontainers.image.ref.name
//!  blobs/<algorithm>/<hex>  everything else, by digest
//!  .tmp/                    unfinished blobs (ours; other tools ignore it)
//! ```
//!
//! [`LayoutDir`] reads and writes a directory, [`Archive`] reads a tar in place, and
//! [`Archive::write`] makes one. Nothing here trusts what it reads: names are digests, whole blobs
//! are hashed before they are given out, and parts of blobs ([`Blob::read_at`]) are for callers
//! that check them against a signed digest themselves.

mod archive;
mod archive_writer;
mod blob;
mod dir;
mod garbage;
mod inner;
mod room;
mod sniff;
mod writer;

use std::path::Path;
use std::sync::Arc;

use formats::digest::Digest;
use formats::oci::{Descriptor, Index, NamedManifest, OciError, annotation};
use formats::reason::Reason;
use formats::ustar::UstarError;

pub use archive::{Archive, ENTRY_LIMIT};
pub use blob::Blob;
pub use dir::LayoutDir;
pub use garbage::{Sweep, Swept};
pub use room::Room;
pub use writer::BlobWriter;

use crate::error::FileError;

/// 8 MiB: some 30,000 tags; bounds what a foreign `index.json` makes us hold.
pub const INDEX_LIMIT: u64 = 8 << 20;

/// The content of `oci-layout`.
pub(crate) const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Why an image layout cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The medium cannot be read.
    #[error("read image layout")]
    Read(#[source] FileError),
    /// The medium cannot be written; what was there before still is.
    #[error("write image layout")]
    Write(#[source] FileError),
    /// A symbolic link, pipe, device or directory where a file must be.
    #[error(transparent)]
    Refused(FileError),
    /// `oci-layout` or `index.json` is missing, or `oci-layout` is of another version.
    #[error("{0} is not an OCI image layout of version 1: {1}")]
    NotLayout(String, &'static str),
    /// The medium's file system takes no file this large; what was there before still is.
    #[error(
        "{0} is too large for a file of this medium: FAT32 ends at 4 GiB; use exFAT, ext4 or the directory form"
    )]
    TooLargeForMedium(String),
    /// A pipe or device where a bundle must be.
    #[error(
        "{0} is not a file, and a bundle must be one: write what comes from a pipe to a file, or mount the device and name the file on it"
    )]
    NotFile(String),
    /// A bundle that was compressed on its way.
    #[error("{path} is compressed; unpack it first: {program} {path}")]
    Compressed {
        /// Which file.
        path: String,
        /// What unpacks it.
        program: &'static str,
    },
    /// A file that is no tar at all.
    #[error("{path} is no bundle; it looks like {what}")]
    NotBundle {
        /// Which file.
        path: String,
        /// What it looks like.
        what: &'static str,
    },
    /// A file without content.
    #[error("{0} is empty; copy it again")]
    Empty(String),
    /// A directory that is no layout, with bundles in it.
    #[error("{path} is no bundle, but holds {found}: name one of them")]
    HoldsBundles {
        /// Which directory.
        path: String,
        /// Names of the tar files in it, at most [`SHOWN_LIMIT`].
        found: String,
    },
    /// `index.json` is malformed.
    #[error(transparent)]
    Document(#[from] OciError),
    /// `index.json` is above [`INDEX_LIMIT`].
    #[error("index.json has {0} bytes, more than {INDEX_LIMIT}")]
    IndexTooLarge(u64),
    /// Two entries of `index.json` give one reference to different digests.
    #[error("reference {0:?} stands for two digests in index.json")]
    AmbiguousReference(String),
    /// No blob of that digest.
    #[error("blob {0} is not in the layout; it is incomplete, copy it again")]
    MissingBlob(Digest),
    /// A blob is longer than what the caller takes.
    #[error("blob {digest} has {len} bytes, more than the expected {max}")]
    BlobTooLong {
        /// Which blob.
        digest: Digest,
        /// Its length in bytes.
        len: u64,
        /// The most that was asked for.
        max: u64,
    },
    /// A blob's bytes do not have the digest it is named after.
    #[error("blob {named} has the content of {found}; copy it again")]
    BlobDigest {
        /// The digest asked for.
        named: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// A part of a blob past its end.
    #[error("blob {digest} ends before byte {end}")]
    BlobRange {
        /// Which blob.
        digest: Digest,
        /// Where the wanted part ends.
        end: u64,
    },
    /// The medium gives less of a file than it had when it was opened.
    #[error(
        "{0} became shorter while it was read: was the medium pulled out, or the file written anew?"
    )]
    Shortened(String),
    /// A tar header is not of the form we take.
    #[error("bundle at byte {offset}")]
    Tar {
        /// Where the header begins.
        offset: u64,
        /// What is wrong with it.
        #[source]
        source: UstarError,
    },
    /// The tar is cut off, has an entry past its end or anything after its end marker.
    #[error("bundle is damaged at byte {offset}: {what}; copy it again")]
    Shape {
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// One name twice.
    #[error("bundle holds {0:?} twice")]
    Duplicate(String),
    /// More entries than [`ENTRY_LIMIT`].
    #[error("bundle has more than {ENTRY_LIMIT} entries")]
    TooManyEntries,
    /// A blob that has no place in a tar.
    #[error("blob {digest} cannot be put into a tar")]
    NotForTar {
        /// Which blob.
        digest: Digest,
        /// Why.
        #[source]
        source: UstarError,
    },
}

impl LayoutError {
    /// An error of writing, with a word of its own for files that a medium cannot hold.
    pub(crate) fn writing(path: &Path, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::FileTooLarge => {
                LayoutError::TooLargeForMedium(path.display().to_string())
            }
            _ => LayoutError::Write(FileError::io("write", path, error)),
        }
    }

    /// An error of opening: what is not a file is refused, the rest is a failure to read.
    pub(crate) fn opening(error: FileError) -> Self {
        match error {
            FileError::Io { .. } => LayoutError::Read(error),
            _ => LayoutError::Refused(error),
        }
    }

    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            LayoutError::Read(_) | LayoutError::Shortened(_) => Reason::Unreachable,
            LayoutError::Write(_) | LayoutError::TooLargeForMedium(_) => Reason::StoreIo,
            LayoutError::Refused(_) | LayoutError::NotFile(_) => Reason::PathRefused,
            LayoutError::Tar { source: UstarError::Name(_), .. } => Reason::PathRefused,
            LayoutError::BlobDigest { .. } => Reason::HashMismatch,
            LayoutError::BlobTooLong { .. } | LayoutError::BlobRange { .. } => {
                Reason::LengthMismatch
            }
            LayoutError::IndexTooLarge(_) | LayoutError::TooManyEntries => Reason::MetaLimit,
            LayoutError::NotLayout(..)
            | LayoutError::Compressed { .. }
            | LayoutError::NotBundle { .. }
            | LayoutError::Empty(_)
            | LayoutError::HoldsBundles { .. }
            | LayoutError::Document(_)
            | LayoutError::AmbiguousReference(_)
            | LayoutError::MissingBlob(_)
            | LayoutError::Tar { .. }
            | LayoutError::Shape { .. }
            | LayoutError::Duplicate(_)
            | LayoutError::NotForTar { .. } => Reason::BundleFormat,
        }
    }
}

/// Anything that holds an image layout and can be read.
pub trait Layout: Send + Sync {
    /// `index.json` as it stands now.
    fn index(&self) -> Result<Arc<Index>, LayoutError>;

    /// The named manifests of `index.json` as it stands now, in its order: all that a reader of a
    /// foreign layout needs, in a tenth of the memory of [`Layout::index`].
    fn named(&self) -> Result<Vec<NamedManifest>, LayoutError>;

    /// The blob of that digest, opened; `None` when there is none. Its bytes are not checked.
    fn open_blob(&self, digest: &Digest) -> Result<Option<Blob>, LayoutError>;

    /// The descriptor a reference (`tuf:latest`, `racklet/demo:1.1.0`) stands for.
    fn resolve(&self, reference: &str) -> Result<Option<Descriptor>, LayoutError> {
        let index = self.index()?;
        let mut named =
            index.manifests.iter().filter(|entry| reference_of(entry) == Some(reference));
        let Some(first) = named.next() else { return Ok(None) };
        if named.any(|other| other.digest != first.digest) {
            return Err(LayoutError::AmbiguousReference(reference.to_owned()));
        }
        Ok(Some(first.clone()))
    }

    /// All references and what they stand for, in the order of `index.json`.
    fn refs(&self) -> Result<Vec<(String, Descriptor)>, LayoutError> {
        let index = self.index()?;
        let named = index.manifests.iter();
        Ok(named
            .filter_map(|entry| Some((reference_of(entry)?.to_owned(), entry.clone())))
            .collect())
    }

    /// A blob's length in bytes; `None` when there is no such blob.
    fn blob_len(&self, digest: &Digest) -> Result<Option<u64>, LayoutError> {
        Ok(self.open_blob(digest)?.map(|blob| blob.len()))
    }

    /// A whole blob of at most `max` bytes, verified against its digest.
    fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, LayoutError> {
        let blob = self.open_blob(digest)?;
        blob.ok_or_else(|| LayoutError::MissingBlob(digest.clone()))?.read_verified(max)
    }

    /// Fills `buf` from a blob's bytes at `offset`. They are **not** verified.
    fn read_blob_at(
        &self,
        digest: &Digest,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<(), LayoutError> {
        let blob = self.open_blob(digest)?;
        blob.ok_or_else(|| LayoutError::MissingBlob(digest.clone()))?.read_at(buf, offset)
    }
}

/// 8 names: enough to see what lies in a directory.
pub const SHOWN_LIMIT: usize = 8;

/// Opens a layout for reading: a directory, or else a tar file.
///
/// Errors: as [`LayoutDir::open`] and [`Archive::open`]; [`LayoutError::HoldsBundles`] for a
/// directory with tar files in it that is no layout itself.
pub fn open(path: &Path) -> Result<Box<dyn Layout>, LayoutError> {
    if !path.is_dir() {
        return Ok(Box::new(Archive::open(path)?));
    }
    match LayoutDir::open(path) {
        Ok(layout) => Ok(Box::new(layout)),
        Err(error @ LayoutError::NotLayout(..)) => Err(holds_bundles(path).unwrap_or(error)),
        Err(error) => Err(error),
    }
}

/// The tar files of a directory, in the order of their names.
fn holds_bundles(path: &Path) -> Option<LayoutError> {
    let entries = std::fs::read_dir(path).ok()?.take(1024).flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".tar")).collect();
    names.sort();
    names.truncate(SHOWN_LIMIT);
    let path = path.display().to_string();
    (!names.is_empty()).then(|| LayoutError::HoldsBundles { path, found: names.join(", ") })
}

/// The reference an entry of `index.json` has.
pub fn reference_of(entry: &Descriptor) -> Option<&str> {
    entry.annotation(annotation::REF_NAME)
}

/// Refuses an `oci-layout` of another version.
pub(crate) fn check_layout_file(shown: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct LayoutFile {
        image_layout_version: String,
    }
    let refuse = |why| LayoutError::NotLayout(shown.display().to_string(), why);
    let file: LayoutFile = serde_json::from_slice(bytes)
        .map_err(|_| refuse("oci-layout has no imageLayoutVersion"))?;
    // 1.0.0 is the only version there is; a later 1.x may add to it but not change it.
    if file.image_layout_version.starts_with("1.") {
        Ok(())
    } else {
        Err(refuse("oci-layout is of another version"))
    }
}

#[cfg(test)]
mod tests;
