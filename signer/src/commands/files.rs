//! Files of the operator's that appear whole.

use std::io::{self, Write as _};
use std::path::Path;

use crate::error::SignerError;
use crate::new_file::NewFile;

/// A file that appears whole, durable, and never replaces another.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SignerError> {
    written(path, bytes, 0o644).and_then(NewFile::appear).map_err(failed(path))
}

/// A file that appears whole and durable in the place of another.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SignerError> {
    written(path, bytes, mode).and_then(NewFile::replace).map_err(failed(path))
}

fn written(path: &Path, bytes: &[u8], mode: u32) -> io::Result<NewFile> {
    let mut new = NewFile::of(path, mode)?;
    new.file().write_all(bytes)?;
    Ok(new)
}

/// The error of a file that could not be written.
pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> SignerError + use<> {
    let path = path.to_owned();
    move |source| SignerError::File { action: "write", path: path.clone(), source }
}
