//! The storage in a directory, which is an OCI image layout.
//!
//! ```text
//!  DIR/oci-layout, index.json, blobs/   the image layout; references are repo:tag
//!  DIR/.tmp/                            documents being written, removed at the next start
//!  DIR/repositories/                    links and uploads, see `links`
//! ```

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use formats::digest::{Algorithm, Digest, Hasher};
use formats::error_chain;
use formats::oci::{Index, RepositoryName};
use storage::FileError;
use storage::dir::{Dir, DirFile, Lock, Policy};
use storage::host::Host;
use storage::layout::{Blob as LayoutBlob, Layout as _, LayoutDir, LayoutError};

use super::backend::{Backend, Blob, Link, LinkKind, Pieces, Refs, StoredBlob, Upload, UploadKey};
use super::cache::BlobStamp;
use super::{StoreError, links};
use crate::error::ServerError;

/// A directory.
#[derive(Debug)]
pub(crate) struct Local {
    layout: LayoutDir,
    /// The same directory.
    root: Arc<dyn Dir>,
    /// Where links and uploads are; `None` when read-only and none were ever made.
    links: Option<Box<dyn Dir>>,
    /// Held for as long as this process may write; a second server must not.
    lock: Option<Lock>,
}

impl Local {
    /// Opens the storage in `dir`; unless `read_only`, makes what is missing there, removes what
    /// killed writers left, and refuses a directory that another server writes.
    pub(crate) fn open_on(
        host: &dyn Host,
        dir: &Path,
        read_only: bool,
    ) -> Result<Self, ServerError> {
        let link_failed = |error: FileError| damaged(dir, LayoutError::Read(error));
        let layout = match read_only {
            true => LayoutDir::open_on(host, dir),
            false => LayoutDir::create_on(host, dir),
        };
        let layout = layout.map_err(|error| damaged(dir, error))?;
        let root = host.open_dir(dir, Policy::Public).map_err(link_failed)?;
        let links = match read_only {
            true => root.subdirectory("repositories"),
            false => root.subdirectory_or_create("repositories").map(Some),
        };
        let links = links.map_err(link_failed)?;
        let lock = match &links {
            Some(links) if !read_only => match links.try_lock().map_err(link_failed)? {
                Some(lock) => Some(lock),
                None => return Err(ServerError::Busy { path: dir.to_owned() }),
            },
            _ => None,
        };
        if let (Some(links), false) = (&links, read_only) {
            links::read_all(links.as_ref(), true).map_err(link_failed)?;
        }
        Ok(Local { layout, root: Arc::from(root), links, lock })
    }

    fn upload(
        &self,
        directory: Box<dyn Dir>,
        key: &UploadKey,
        file: Arc<dyn DirFile>,
        hasher: Option<Hasher>,
        len: u64,
    ) -> LocalUpload {
        let (root, algorithm) = (Arc::clone(&self.root), key.algorithm);
        LocalUpload { root, directory, name: key.id.to_string(), file, algorithm, hasher, len }
    }

    /// The links, if this server may change anything.
    fn writable(&self) -> Result<&dyn Dir, StoreError> {
        match (&self.lock, &self.links) {
            (Some(_), Some(links)) => Ok(links.as_ref()),
            _ => Err(StoreError::ReadOnly),
        }
    }
}

/// The error of a server that starts on an unreadable storage.
pub(super) fn damaged(dir: &Path, error: LayoutError) -> ServerError {
    match error {
        LayoutError::Read(FileError::Io { path, source, .. })
            if path == dir && source.kind() == io::ErrorKind::NotFound =>
        {
            let path = path.display();
            ServerError::Config(format!(
                "there is no {path}; give the repository's directory with --dir"
            ))
        }
        LayoutError::Read(FileError::Io { action, path, source })
        | LayoutError::Write(FileError::Io { action, path, source }) => {
            ServerError::Io { doing: action, path, source }
        }
        LayoutError::Refused(FileError::NotDirectory(path)) if path == dir => {
            let path = path.display();
            ServerError::Config(format!(
                "{path} is not a directory; give the repository's directory with --dir"
            ))
        }
        other => ServerError::Store { path: dir.to_owned(), why: error_chain(&other) },
    }
}

impl Backend for Local {
    fn index(&self) -> Result<Arc<Index>, StoreError> {
        Ok(self.layout.index()?)
    }

    fn update_refs(
        &self,
        edit: &mut dyn FnMut(&mut Refs) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.writable()?;
        self.layout.update_refs(edit)
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<Arc<dyn Blob>>, StoreError> {
        match self.layout.open_blob(digest) {
            Ok(found) => Ok(found.map(|blob| Arc::new(blob) as Arc<dyn Blob>)),
            Err(error @ (LayoutError::Read(_) | LayoutError::Write(_))) => Err(error.into()),
            Err(foreign) => {
                tracing::error!(error = %error_chain(&foreign), "foreign file not served");
                Ok(None)
            }
        }
    }

    fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.writable()?;
        let mut writer = self.layout.blob_writer_for(digest.algorithm())?;
        writer.write_all(bytes).map_err(StoreError::Blob)?;
        writer.commit(Some(digest))?;
        Ok(())
    }

    fn blobs(&self) -> Result<Vec<StoredBlob>, StoreError> {
        let mut all = Vec::new();
        for digest in self.layout.blobs()? {
            // Links and pipes are foreign; nothing of ours is behind them.
            let Ok(Some(blob)) = self.layout.open_blob(&digest) else { continue };
            let modified = Blob::modified(&blob)?;
            all.push(StoredBlob { len: blob.len(), digest, modified });
        }
        Ok(all)
    }

    fn remove_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        self.writable()?;
        self.layout.remove_blob(digest)?;
        Ok(())
    }

    fn links(&self) -> Result<Vec<Link>, StoreError> {
        let found =
            self.links.as_ref().map(|links| links::read_all(links.as_ref(), false)).transpose()?;
        Ok(found.unwrap_or_default().links)
    }

    fn add_link(
        &self,
        name: &RepositoryName,
        kind: LinkKind,
        digest: &Digest,
        media_type: &str,
    ) -> Result<(), StoreError> {
        Ok(links::add(self.writable()?, name, kind, digest, media_type)?)
    }

    fn remove_link(
        &self,
        name: &RepositoryName,
        kind: LinkKind,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        Ok(links::remove(self.writable()?, name, kind, digest)?)
    }

    fn new_upload(&self, key: &UploadKey) -> Result<Box<dyn Upload>, StoreError> {
        let directory = links::uploads(self.writable()?, &key.name, key.algorithm)?;
        let file = directory.create_file(key.id.as_str())?;
        let hasher = Some(key.algorithm.hasher());
        Ok(Box::new(self.upload(directory, key, file, hasher, 0)))
    }

    fn resume_upload(&self, key: &UploadKey) -> Result<Option<Box<dyn Upload>>, StoreError> {
        let directory = links::uploads(self.writable()?, &key.name, key.algorithm)?;
        let Some(file) = directory.open_file_to_write(key.id.as_str())? else {
            return Ok(None);
        };
        let len = file.stamp().map_err(StoreError::Blob)?.len;
        let hasher = (len == 0).then(|| key.algorithm.hasher());
        Ok(Some(Box::new(self.upload(directory, key, file, hasher, len))))
    }

    fn uploads(&self) -> Result<Vec<(UploadKey, u64, SystemTime)>, StoreError> {
        let found =
            self.links.as_ref().map(|links| links::read_all(links.as_ref(), false)).transpose()?;
        Ok(found.unwrap_or_default().uploads)
    }
}

impl Blob for LayoutBlob {
    fn len(&self) -> u64 {
        LayoutBlob::len(self)
    }

    fn modified(&self) -> Result<SystemTime, StoreError> {
        self.file().0.stamp().map(|stamp| stamp.modified()).map_err(StoreError::Blob)
    }

    fn stamp(&self) -> Result<BlobStamp, StoreError> {
        self.file().0.stamp().map(BlobStamp::File).map_err(StoreError::Blob)
    }

    fn read(&self, from: u64, to: u64) -> Result<Box<dyn Pieces>, StoreError> {
        Ok(Box::new(FilePieces { blob: self.clone(), at: from, end: to }))
    }
}

#[derive(Debug)]
struct FilePieces {
    blob: LayoutBlob,
    at: u64,
    end: u64,
}

impl Pieces for FilePieces {
    fn next(&mut self, most: usize) -> Result<Bytes, StoreError> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(most)];
        self.blob.read_at(&mut piece, self.at)?;
        self.at += piece.len() as u64;
        Ok(Bytes::from(piece))
    }
}

/// A file that grows, and its hash so far; none when a server before this one began it.
struct LocalUpload {
    root: Arc<dyn Dir>,
    directory: Box<dyn Dir>,
    name: String,
    file: Arc<dyn DirFile>,
    algorithm: Algorithm,
    hasher: Option<Hasher>,
    len: u64,
}

impl std::fmt::Debug for LocalUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "upload {} with {} bytes", self.name, self.len)
    }
}

impl LocalUpload {
    fn digest(&mut self, algorithm: Algorithm) -> Result<Digest, StoreError> {
        if let Some(hasher) = self.hasher.take().filter(|_| algorithm == self.algorithm) {
            return Ok(hasher.finish());
        }
        let mut hasher = algorithm.hasher();
        let mut buf = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            match self.file.read_at(&mut buf, at).map_err(StoreError::Blob)? {
                0 => return Ok(hasher.finish()),
                got => {
                    hasher.update(&buf[..got]);
                    at += got as u64;
                }
            }
        }
    }

    fn make_blob(&mut self, digest: &Digest) -> Result<(), StoreError> {
        let found = self.digest(digest.algorithm())?;
        if found != *digest {
            return Err(LayoutError::BlobDigest { named: digest.clone(), found }.into());
        }
        // It may have been written long ago; as a blob it is new, and garbage is told by age.
        self.file.touch().map_err(StoreError::Blob)?;
        self.file.sync().map_err(StoreError::Blob)?;
        let blobs = self.root.subdirectory_or_create("blobs")?;
        let blobs = blobs.subdirectory_or_create(digest.algorithm().name())?;
        self.directory.rename(&self.name, blobs.as_ref(), &digest.hex())?;
        Ok(blobs.sync()?)
    }
}

impl Upload for LocalUpload {
    fn stored(&self) -> u64 {
        self.len
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Err(error) = self.file.write_all_at(bytes, self.len) {
            // What is in the file is no longer what was hashed.
            self.hasher = None;
            self.len = self.file.stamp().map_err(StoreError::Blob)?.len;
            return Err(StoreError::Blob(error));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn pause(&mut self) -> Result<(), StoreError> {
        // The kernel has the bytes. A power cut may take some; the digest tells.
        Ok(())
    }

    fn commit(mut self: Box<Self>, digest: &Digest) -> Result<(), StoreError> {
        let made = self.make_blob(digest);
        if made.is_err() {
            // The first error is the one to tell; what stays here expires.
            let _ = self.abandon();
        }
        made
    }

    fn abandon(self: Box<Self>) -> Result<(), StoreError> {
        self.directory.unlink(&self.name)?;
        Ok(())
    }
}
