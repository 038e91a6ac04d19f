//! Image files to component artifacts: cut, compressed, hashed in one pass.
//!
//! ```text
//!           ┌─ reader ─┐  bounded   ┌─ workers ─┐   in order   ┌──── writer ────┐
//!  file ──► │ read,    │ ─ pieces ► │ sha256,   │ ─ frames ──► │ sha256 of raw  │ ──► fine blob
//!           │ cut      │            │ zstd      │              │ in order       │     solid blob
//!           └──────────┘            │           │ ◄─ groups ── │ gathers 16 MiB │     chunk list
//!                                   └───────────┘ ── frames ─► └────────────────┘
//! ```
//!
//! The fine blob has a frame for each chunk: what a node lacks that has most of them. The solid one
//! has frames of many chunks, for nodes that have nothing; measured, it is a fifth smaller.
//!
//! The reader queues each piece twice: for whichever worker is free, and, as a promise of the
//! result, for the writer. The writer keeps the promises in the order of the image, so the number
//! of threads changes nothing in the bytes. Both queues are bounded; memory does not depend on the
//! size of the image.

mod build;
pub mod delta;
mod disk;
mod frame;
pub mod kind;
mod pack;
pub mod probe;
mod raw;
mod reuse;
mod source;

pub use build::{BuiltImage, Options, Sinks, Written, build};
pub use raw::{RawReason, RawReasonError};
pub use reuse::{Known, ReadAt};
pub use source::Source;
pub use update_core::cut;

use std::io;
use std::path::PathBuf;

use formats::chunks::ChunkListError;
use formats::chunks::delta::DeltaError;
use formats::reason::Reason;

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file is missing or cannot be opened.
    #[error("open image {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A directory, socket or pipe: its length is not known beforehand.
    #[error("image {path} is neither a file nor a block device")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// It has no bytes.
    #[error("image {path} is empty: a node that installs it keeps the old system in that slot")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is a file of another kind.
    #[error("image {path} is {what}; a slot takes the raw image of one partition")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to run.
        mend: String,
    },
    /// Its length is what it was, its time of change is not.
    #[error("image {path} was written to while it was read; run again when nothing writes to it")]
    Rewritten {
        /// The file.
        path: PathBuf,
    },
    /// The system starts no thread that the work needs.
    #[error("cannot start a thread")]
    Threads(#[source] io::Error),
    /// Reading failed in the middle.
    #[error("read image at byte {offset}")]
    Read {
        /// Bytes read so far.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file grew or shrank while it was read: the result would be an image that never existed.
    #[error(
        "the image changed while it was read: {found} bytes instead of {expected}; run again when nothing writes to it"
    )]
    Changed {
        /// Length when it was opened.
        expected: u64,
        /// Bytes read.
        found: u64,
    },
    /// An image a delta is to be from cannot be read.
    #[error("read the base image of a delta")]
    ReadBase {
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It is not what its chunk list says.
    #[error("the base image of a delta does not match its chunk list; copy it again")]
    Base,
    /// The image is not any more what it was when it was built.
    #[error(
        "the image changed after it was read, at byte {offset}; run again when nothing writes to it"
    )]
    Altered {
        /// Where the chunk begins that differs.
        offset: u64,
    },
    /// A delta could not be listed.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// The blob could not be written.
    #[error("write image blob")]
    Write(#[source] io::Error),
    /// A temporary file could not be written or read again.
    #[error("write a temporary file in {path}; set TMPDIR to a place with free space")]
    Temporary {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// zstd refused.
    #[error("compress chunk {chunk}")]
    Compress {
        /// Number of the chunk.
        chunk: usize,
        /// What zstd said.
        #[source]
        source: io::Error,
    },
    /// Too large for one chunk list.
    #[error(transparent)]
    ChunkList(#[from] ChunkListError),
}

impl ImageError {
    fn temporary(source: io::Error) -> Self {
        ImageError::Temporary { path: std::env::temp_dir(), source }
    }

    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            ImageError::Write(_) | ImageError::Temporary { .. } => Reason::StoreIo,
            ImageError::Threads(_) => Reason::ResourceLimit,
            ImageError::ChunkList(_) | ImageError::Delta(_) => Reason::MetaLimit,
            ImageError::ReadBase { .. } => Reason::StoreIo,
            ImageError::Base => Reason::HashMismatch,
            ImageError::Empty { .. } | ImageError::Refused { .. } => Reason::ImageRefused,
            _ => Reason::Config,
        }
    }

    /// What to do next, where the code alone does not say it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ImageError::Kind { .. } => Some(
                "a pipe or directory has no length: write the image to a file first".to_owned(),
            ),
            ImageError::Empty { .. } => Some("make the image again: its build failed".to_owned()),
            ImageError::Refused { mend, .. } => {
                Some(format!("run {mend}; if it is right as it is: --raw NAME=REASON"))
            }
            _ => None,
        }
    }
}
