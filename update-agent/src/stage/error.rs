//! Why an image was not staged.

use std::io;

use formats::chunks::ChunkListError;
use formats::reason::Reason;
use formats::release::ComponentName;
use storage::StoreError;
use storage::block::DeviceError;
use update_core::image::ReadBackError;

use super::frame::FrameError;
use crate::list;
use crate::source::FetchError;

/// Why an image was not written, or is not what was written. The slot stays cleared.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The image is longer than the slot; nothing was written.
    #[error("{component} has {needed} bytes, {device} has room for {len}")]
    SlotSize {
        /// Which component.
        component: ComponentName,
        /// The slot's device.
        device: String,
        /// Length of the image.
        needed: u64,
        /// Length of the device.
        len: u64,
    },
    /// The image has no bytes: the slot would keep what it holds; nothing was written.
    #[error("{component} is an image of 0 bytes: its slot would keep the system it has")]
    Empty {
        /// Which component.
        component: ComponentName,
    },
    /// The blob to be fetched is not the one its chunk list describes.
    #[error("{component}: encoding {encoding} of its chunk list is not a blob of its manifest")]
    Encoding {
        /// Which component.
        component: ComponentName,
        /// Index of the encoding.
        encoding: usize,
    },
    /// Reading, writing or flushing the slot failed.
    #[error("{component}")]
    Device {
        /// Which component.
        component: ComponentName,
        /// What failed.
        #[source]
        source: DeviceError,
    },
    /// The slot does not hold what was written to it.
    #[error(
        "{component} on {device} reads back wrong; apply again, and replace the medium if it does"
    )]
    ReadBack {
        /// Which component.
        component: ComponentName,
        /// The slot's device.
        device: String,
        /// Which chunk.
        #[source]
        source: ReadBackError,
    },
    /// A source gave other bytes than the signed ones. They were neither decompressed nor written.
    #[error("{component}: byte {offset} of the blob and on is not what was signed ({from})")]
    FrameHash {
        /// Which component.
        component: ComponentName,
        /// Where the frame begins in the blob.
        offset: u64,
        /// Who gave it.
        from: String,
    },
    /// A signed frame holds another chunk than the signed one: every source gives the same.
    #[error("{component}: chunk {chunk} does not have the signed digest; publish it again")]
    ChunkHash {
        /// Which component.
        component: ComponentName,
        /// Index of the chunk.
        chunk: u32,
    },
    /// A signed frame is not one zstd frame of the signed length.
    #[error("{component}: frame at byte {offset} of the blob")]
    Frame {
        /// Which component.
        component: ComponentName,
        /// Where the frame begins in the blob.
        offset: u64,
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
    /// A source failed.
    #[error("fetch {component} from {from}")]
    Fetch {
        /// Which component.
        component: ComponentName,
        /// Which source.
        from: String,
        /// How it failed.
        #[source]
        source: Box<FetchError>,
    },
    /// A source gave less than it was asked for, or other ranges, and called it done.
    #[error("{from} left out byte {offset} of the blob of {component}")]
    LeftOut {
        /// Which component.
        component: ComponentName,
        /// Which source.
        from: String,
        /// The first byte that did not come.
        offset: u64,
    },
    /// Something is to be fetched, and there is nobody to ask.
    #[error("{component} is not complete, and there is no source to fetch the rest from")]
    NoSource {
        /// Which component.
        component: ComponentName,
    },
    /// What might have been reused cannot be read.
    #[error("read {what}")]
    Seed {
        /// A slot or a seed.
        what: String,
        /// What failed.
        #[source]
        source: DeviceError,
    },
    /// What might have been reused is too large to be indexed.
    #[error("index it")]
    Index(#[source] ChunkListError),
    /// The index of what might be reused cannot be put anywhere.
    #[error("keep an index of what there is")]
    IndexStore(#[source] StoreError),
    /// Its chunk list cannot be read any more, or was changed.
    #[error("{component}")]
    List {
        /// Which component.
        component: ComponentName,
        /// What is wrong with it.
        #[source]
        source: ChunkListError,
    },
    /// The system starts no thread that the work needs.
    #[error("the system starts no more threads")]
    Thread(#[source] io::Error),
    /// The progress could not be recorded.
    #[error("record how far the slot is written")]
    Journal(#[source] StoreError),
}

impl StageError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            StageError::SlotSize { .. } => Reason::SlotSize,
            StageError::Encoding { .. } | StageError::Empty { .. } => Reason::BundleFormat,
            StageError::Device { source, .. } | StageError::Seed { source, .. } => source.reason(),
            StageError::Index(_) => Reason::MetaLimit,
            StageError::List { source, .. } => list::reason(source),
            StageError::ReadBack { .. } => Reason::Readback,
            StageError::FrameHash { .. } | StageError::ChunkHash { .. } => Reason::HashMismatch,
            StageError::Frame { source, .. } => source.reason(),
            StageError::Fetch { source, .. } => source.reason(),
            StageError::LeftOut { .. } => Reason::LengthMismatch,
            StageError::NoSource { .. } => Reason::Unreachable,
            StageError::Thread(_) => Reason::ResourceLimit,
            StageError::Journal(error) | StageError::IndexStore(error) => error.reason(),
        }
    }
}
