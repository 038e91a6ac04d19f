//! Files of the operator's that appear whole.

use std::io::Write as _;
use std::path::Path;

use crate::error::SignerError;

/// A file that appears whole, durable, and never replaces another.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), SignerError> {
    let failed = failed(path);
    let file = temporary(path, bytes, 0o644)?;
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    sync_directory(path)
}

/// A file that appears whole and durable in the place of another.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SignerError> {
    let failed = failed(path);
    temporary(path, bytes, mode)?.persist(path).map_err(|error| failed(error.error))?;
    sync_directory(path)
}

fn temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<tempfile::NamedTempFile, SignerError> {
    let failed = failed(path);
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        .tempfile_in(directory_of(path))
        .map_err(&failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(&failed)?;
    Ok(file)
}

fn sync_directory(path: &Path) -> Result<(), SignerError> {
    std::fs::File::open(directory_of(path)).and_then(|dir| dir.sync_all()).map_err(failed(path))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> SignerError + use<> {
    let path = path.to_owned();
    move |source| SignerError::File { action: "write", path: path.clone(), source }
}
