//! Writing a layout as one tar file.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use formats::digest::Digest;
use formats::oci::Index;
use formats::ustar::{BLOCK, Header, Kind, UstarError, padding};

use super::dir::blob_path;
use super::{Archive, Blob, LAYOUT_FILE, Layout, LayoutError};
use crate::dir::{Dir as _, Directory, Policy};
use crate::error::FileError;
use crate::interrupt::Cleanup;

impl Archive {
    /// Writes a tar at `path`: `index` and the blobs of those digests, verified on their way.
    ///
    /// The same content gives the same bytes: `oci-layout`, `index.json`, then the blobs by length
    /// and digest, so that metadata come first and images last; owner, time and mode are fixed.
    /// The file appears under its name whole and durable, or not at all. `progress` is told the
    /// bytes of blobs as they are written; together they are the lengths of the blobs. Gives the tar's
    /// length in bytes.
    pub fn write(
        path: &Path,
        source: &dyn Layout,
        index: &Index,
        blobs: &[Digest],
        mut progress: impl FnMut(u64),
    ) -> Result<u64, LayoutError> {
        let opened = opened(source, blobs)?;
        let (parent, name) = split(path)?;
        let directory = Directory::open(parent, Policy::Public).map_err(LayoutError::Write)?;
        let (temporary, file) = directory.temporary_file().map_err(LayoutError::Write)?;
        let _cleanup = Cleanup::path(&parent.join(&temporary));
        let written = write_all(path, &mut &file, index, &opened, &mut progress)
            .and_then(|len| match file.sync_all() {
                Ok(()) => Ok(len),
                Err(error) => Err(LayoutError::Write(FileError::io("sync", path, error))),
            })
            .and_then(|len| {
                directory.rename(&temporary, &directory, name).map_err(LayoutError::Write)?;
                Ok(len)
            });
        if written.is_err() {
            // The first error is the one to tell.
            let _ = directory.unlink(&temporary);
        } else {
            directory.sync().map_err(LayoutError::Write)?;
        }
        written
    }

    /// Writes the same bytes to a stream, say a pipe; `shown` is its name in messages. A reader of a
    /// stream that was cut off sees a tar without its end.
    pub fn write_to(
        mut out: impl Write,
        shown: &Path,
        source: &dyn Layout,
        index: &Index,
        blobs: &[Digest],
        mut progress: impl FnMut(u64),
    ) -> Result<u64, LayoutError> {
        write_all(shown, &mut out, index, &opened(source, blobs)?, &mut progress)
    }
}

/// The blobs in the order of the tar, each once.
fn opened(source: &dyn Layout, blobs: &[Digest]) -> Result<Vec<Blob>, LayoutError> {
    let mut opened = Vec::new();
    for digest in blobs {
        let blob = source.open_blob(digest)?;
        opened.push(blob.ok_or_else(|| LayoutError::MissingBlob(digest.clone()))?);
    }
    opened.sort_by(|a, b| (a.len(), a.digest()).cmp(&(b.len(), b.digest())));
    opened.dedup_by(|a, b| a.digest() == b.digest());
    Ok(opened)
}

/// The directory and the name in it.
fn split(path: &Path) -> Result<(&Path, &str), LayoutError> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        let why = io::Error::new(io::ErrorKind::InvalidInput, "not a file name");
        LayoutError::Write(FileError::io("write", path, why))
    })?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")), name))
}

fn write_all(
    path: &Path,
    out: &mut dyn Write,
    index: &Index,
    blobs: &[Blob],
    progress: &mut dyn FnMut(u64),
) -> Result<u64, LayoutError> {
    let mut tar = Tar { path, out: BufWriter::with_capacity(1 << 18, out), len: 0, progress };
    tar.small("oci-layout", LAYOUT_FILE)?;
    tar.small("index.json", &index.to_bytes())?;
    for blob in blobs {
        tar.blob(blob)?;
    }
    tar.zeros(2 * BLOCK as u64)?;
    tar.out.flush().map_err(|error| LayoutError::writing(path, error))?;
    Ok(tar.len)
}

struct Tar<'a> {
    path: &'a Path,
    out: BufWriter<&'a mut dyn Write>,
    len: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Tar<'_> {
    fn small(&mut self, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
        let offset = self.len;
        let header = header(name.to_owned(), bytes.len() as u64)
            .map_err(|source| LayoutError::Tar { offset, source })?;
        self.put(&header)?;
        self.put(bytes)?;
        self.zeros(padding(bytes.len() as u64))
    }

    fn blob(&mut self, blob: &Blob) -> Result<(), LayoutError> {
        let digest = blob.digest();
        let name = blob_path(digest).display().to_string();
        let header = header(name, blob.len())
            .map_err(|source| LayoutError::NotForTar { digest: digest.clone(), source })?;
        self.put(&header)?;
        let mut hasher = digest.algorithm().hasher();
        blob.for_each_piece(|piece| {
            hasher.update(piece);
            self.put(piece)?;
            (self.progress)(piece.len() as u64);
            Ok(())
        })?;
        blob.expect_digest(hasher.finish())?;
        self.zeros(padding(blob.len()))
    }

    fn zeros(&mut self, len: u64) -> Result<(), LayoutError> {
        const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
        self.put(&ZEROS[..usize::try_from(len).unwrap_or(ZEROS.len()).min(ZEROS.len())])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), LayoutError> {
        self.out.write_all(bytes).map_err(|error| LayoutError::writing(self.path, error))?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

fn header(name: String, size: u64) -> Result<[u8; BLOCK], UstarError> {
    Header { name, kind: Kind::File, size }.to_block()
}
