//! One image of a release, as it is given.

use std::path::PathBuf;

use formats::release::ComponentName;

use crate::error::SignerError;
use crate::image::{ImageError, RawReason};
use crate::repository::BlobSink;

/// One image of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentInput {
    /// Which component.
    pub name: ComponentName,
    /// The image: a file or a block device.
    pub path: PathBuf,
    /// Hardware ids it is for.
    pub compatible: Vec<String>,
    /// Whether a dm-verity tree is appended and its root hash signed.
    pub verity: bool,
    /// Why it is published whatever kind of file it is; absent: it must be a raw image.
    pub raw: Option<RawReason>,
}

impl ComponentInput {
    /// A raw image for these hardware ids.
    pub fn new(name: ComponentName, path: PathBuf, hardware: &[&str]) -> Self {
        let compatible = hardware.iter().map(|id| (*id).to_owned()).collect();
        ComponentInput { name, path, compatible, verity: false, raw: None }
    }
}

/// The error of an image whose blob could not be written names the place.
pub(super) fn of_sink(error: ImageError, sink: &dyn BlobSink) -> SignerError {
    match error {
        ImageError::Write(source) => sink.failed(source).into(),
        error => error.into(),
    }
}
