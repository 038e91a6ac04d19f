//! A layout in a directory, for reading and writing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use formats::digest::{Algorithm, Digest};
use formats::oci::{Descriptor, Index, annotation};
use rustix::fs::{self, AtFlags, Mode};

use super::blob::{Blob, read_failed};
use super::writer::BlobWriter;
use super::{INDEX_LIMIT, LAYOUT_FILE, Layout, LayoutError, check_layout_file, reference_of};
use crate::directory::{Directory, FileError};

const DIR_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);

/// An image layout in a directory. Cheap to clone; may be shared between threads and processes.
///
/// Blobs appear whole or not at all. All tags move in one rename of `index.json`, under an
/// exclusive lock on the directory, so of two writers neither loses the other's tags.
#[derive(Debug, Clone)]
pub struct LayoutDir(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    root: Directory,
    sha256: OnceLock<Directory>,
    sha512: OnceLock<Directory>,
    cached: Mutex<Option<CachedIndex>>,
}

/// `index.json` as last read. The file is kept open, so that its inode number cannot be given to
/// another file while we compare with it.
#[derive(Debug)]
struct CachedIndex {
    stamp: Stamp,
    _file: File,
    index: Arc<Index>,
}

/// Device, inode, length, modification and change time of a file.
type Stamp = (u64, u64, i64, (i64, u64), (i64, u64));

impl LayoutDir {
    /// Opens an existing layout. Every file below is opened relative to this directory, so moving
    /// or mounting over its path later changes nothing.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let inner = Inner::new(Directory::open(path).map_err(LayoutError::opening)?);
        let file = inner.root.open_file("oci-layout").map_err(LayoutError::opening)?;
        let missing =
            || LayoutError::NotLayout(path.display().to_string(), "there is no oci-layout");
        let bytes = read_limited(&file.ok_or_else(missing)?, path, 4096)?;
        check_layout_file(path, &bytes)?;
        Ok(LayoutDir(Arc::new(inner)))
    }

    /// Opens a layout for writing, making the directory (not its parents), `oci-layout` and an
    /// empty `index.json` where they are missing, and removing what killed writers left.
    pub fn create(path: &Path) -> Result<Self, LayoutError> {
        let root = Directory::open_or_create(path, DIR_MODE).map_err(|error| match error {
            FileError::Io { .. } => LayoutError::Write(error),
            _ => LayoutError::Refused(error),
        })?;
        let inner = Inner::new(root);
        {
            let _lock = inner.root.lock().map_err(LayoutError::Write)?;
            let put = |name: &str, bytes: &[u8]| match inner.root.open_file(name) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => inner.root.replace(name, bytes, FILE_MODE).map_err(LayoutError::Write),
                Err(error) => Err(LayoutError::opening(error)),
            };
            put("index.json", &Index::new(None, Vec::new()).to_bytes())?;
            put("oci-layout", LAYOUT_FILE)?;
            inner.root.remove_stale().map_err(LayoutError::Write)?;
            inner.temporary().and_then(|dir| dir.remove_stale()).map_err(LayoutError::Write)?;
        }
        Self::open(path)
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        self.0.root.path()
    }

    /// Whether there is a blob of that digest.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, LayoutError> {
        Ok(self.open_blob(digest)?.is_some())
    }

    /// Starts a blob that is hashed with SHA-256.
    pub fn blob_writer(&self) -> Result<BlobWriter, LayoutError> {
        self.blob_writer_for(Algorithm::Sha256)
    }

    /// Starts a blob that is hashed with `algorithm`.
    pub fn blob_writer_for(&self, algorithm: Algorithm) -> Result<BlobWriter, LayoutError> {
        BlobWriter::new(Arc::clone(&self.0), algorithm)
    }

    /// Stores a small blob durably and gives its SHA-256 digest. Nothing is written when the same
    /// bytes are there already.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, LayoutError> {
        let digest = Digest::sha256_of(bytes);
        if let Some(there) = self.open_blob(&digest)?
            && there.len() == bytes.len() as u64
            && there.verify().is_ok()
        {
            there.touch()?;
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(|error| writer.failed("write", error))?;
        writer.commit(Some(&digest))
    }

    /// Copies a blob from another layout, verified on its way; nothing happens when it is here
    /// with the same length.
    pub fn copy_blob(&self, from: &dyn Layout, digest: &Digest) -> Result<(), LayoutError> {
        let blob =
            from.open_blob(digest)?.ok_or_else(|| LayoutError::MissingBlob(digest.clone()))?;
        if let Some(there) = self.open_blob(digest)?.filter(|there| there.len() == blob.len()) {
            return there.touch();
        }
        let mut writer = self.blob_writer_for(digest.algorithm())?;
        blob.for_each_piece(|piece| {
            writer.write_all(piece).map_err(|error| writer.failed("write", error))
        })?;
        writer.commit(Some(digest)).map(drop)
    }

    /// Removes a blob; whether it was there. Who has it open can read on.
    pub fn remove_blob(&self, digest: &Digest) -> Result<bool, LayoutError> {
        let Some(blobs) = self.0.blobs(digest.algorithm()).map_err(LayoutError::opening)? else {
            return Ok(false);
        };
        let removed = blobs.remove(&digest.hex()).map_err(LayoutError::Write)?;
        blobs.sync().map_err(LayoutError::Write)?;
        Ok(removed)
    }

    /// All blobs, sorted by algorithm and digest.
    pub fn blobs(&self) -> Result<Vec<Digest>, LayoutError> {
        let mut all = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let Some(blobs) = self.0.blobs(algorithm).map_err(LayoutError::opening)? else {
                continue;
            };
            let names = blobs.names().map_err(LayoutError::Read)?;
            let digest = |hex: &String| format!("{}:{hex}", algorithm.name()).parse().ok();
            all.extend(names.iter().filter_map(digest));
        }
        Ok(all)
    }

    /// Moves tags: each reference to its descriptor, or away when `None`. All of them move in one
    /// rename: a reader, or a crash, sees every change or none.
    ///
    /// The blobs pointed at must be there.
    pub fn set_refs(&self, changes: &[(String, Option<Descriptor>)]) -> Result<(), LayoutError> {
        self.update_refs(|refs| {
            for (reference, descriptor) in changes {
                match descriptor {
                    Some(descriptor) => refs.insert(reference.clone(), descriptor.clone()),
                    None => refs.remove(reference),
                };
            }
            Ok(())
        })
    }

    /// As [`LayoutDir::set_refs`], deciding on the tags as they stand: `edit` runs under the lock,
    /// and its error leaves everything as it was. Entries without a reference are kept.
    pub fn update_refs<E: From<LayoutError>>(
        &self,
        edit: impl FnOnce(&mut BTreeMap<String, Descriptor>) -> Result<(), E>,
    ) -> Result<(), E> {
        let inner = &self.0;
        let _lock = inner.root.lock().map_err(LayoutError::Write)?;
        let before = inner.index()?;
        let mut after = Index::clone(&before);
        let mut refs = BTreeMap::new();
        for (reference, descriptor) in self.refs()? {
            match refs.insert(reference.clone(), descriptor.clone()) {
                Some(other) if other.digest != descriptor.digest => {
                    return Err(LayoutError::AmbiguousReference(reference).into());
                }
                _ => {}
            }
        }
        let kept = refs.clone();
        edit(&mut refs)?;
        after.manifests.retain(|entry| reference_of(entry).is_none());
        for (reference, descriptor) in refs {
            // What stays as it was is not ours to judge: one lost manifest must not keep the others
            // from moving, nor its own tag from being deleted.
            let stays = kept.get(&reference) == Some(&descriptor);
            if !stays && !self.has_blob(&descriptor.digest)? {
                return Err(LayoutError::MissingBlob(descriptor.digest).into());
            }
            after.manifests.push(descriptor.annotated(annotation::REF_NAME, &reference));
        }
        let bytes = after.to_bytes();
        if bytes.len() as u64 > INDEX_LIMIT {
            return Err(LayoutError::IndexTooLarge(bytes.len() as u64).into());
        }
        if after != *before {
            inner.root.replace("index.json", &bytes, FILE_MODE).map_err(LayoutError::Write)?;
        }
        Ok(())
    }
}

impl Layout for LayoutDir {
    fn index(&self) -> Result<Arc<Index>, LayoutError> {
        self.0.index()
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<Blob>, LayoutError> {
        let hex = digest.hex();
        let Some(blobs) = self.0.blobs(digest.algorithm()).map_err(LayoutError::opening)? else {
            return Ok(None);
        };
        let Some(file) = blobs.open_file(&hex).map_err(LayoutError::opening)? else {
            return Ok(None);
        };
        let path = blobs.shown(&hex);
        let len = file.metadata().map_err(|error| read_failed(&path, error))?.len();
        Ok(Some(Blob::new(digest.clone(), Arc::new(file), Arc::new(path), 0, len)))
    }
}

impl Inner {
    fn new(root: Directory) -> Self {
        let (sha256, sha512) = (OnceLock::new(), OnceLock::new());
        Inner { root, sha256, sha512, cached: Mutex::new(None) }
    }

    /// `.tmp/`, made when it is missing.
    pub(super) fn temporary(&self) -> Result<Directory, FileError> {
        self.root.subdirectory_or_create(".tmp", DIR_MODE)
    }

    /// `blobs/<algorithm>/`, opened once.
    fn blobs(&self, algorithm: Algorithm) -> Result<Option<&Directory>, FileError> {
        let once = self.once(algorithm);
        if once.get().is_none() {
            let Some(blobs) = self.root.subdirectory("blobs")? else { return Ok(None) };
            let Some(named) = blobs.subdirectory(algorithm.name())? else { return Ok(None) };
            let _ = once.set(named);
        }
        Ok(once.get())
    }

    /// The same, made when it is missing.
    pub(super) fn blobs_or_create(&self, algorithm: Algorithm) -> Result<&Directory, FileError> {
        if self.blobs(algorithm)?.is_none() {
            let blobs = self.root.subdirectory_or_create("blobs", DIR_MODE)?;
            let named = blobs.subdirectory_or_create(algorithm.name(), DIR_MODE)?;
            let _ = self.once(algorithm).set(named);
        }
        Ok(self.once(algorithm).get().expect("set above, here or by another thread"))
    }

    fn once(&self, algorithm: Algorithm) -> &OnceLock<Directory> {
        match algorithm {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }

    /// `index.json`, parsed again only when it is another file than last time.
    fn index(&self) -> Result<Arc<Index>, LayoutError> {
        let path = self.root.shown("index.json");
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let there = fs::statat(self.root.fd(), "index.json", AtFlags::SYMLINK_NOFOLLOW);
        if let (Some(cached), Ok(stat)) = (cached.as_ref(), there)
            && cached.stamp == stamp(&stat)
        {
            return Ok(Arc::clone(&cached.index));
        }
        let missing = || {
            let root = self.root.path().display().to_string();
            LayoutError::NotLayout(root, "there is no index.json")
        };
        let file = self.root.open_file("index.json").map_err(LayoutError::opening)?;
        let file = file.ok_or_else(missing)?;
        let stat = fs::fstat(&file).map_err(|errno| read_failed(&path, errno.into()))?;
        let bytes = read_limited(&file, &path, INDEX_LIMIT)?;
        let index = Arc::new(Index::parse_layout(&bytes)?);
        *cached = Some(CachedIndex { stamp: stamp(&stat), _file: file, index: Arc::clone(&index) });
        Ok(index)
    }
}

#[expect(clippy::unnecessary_cast, reason = "field types differ between architectures")]
fn stamp(stat: &fs::Stat) -> Stamp {
    (
        stat.st_dev as u64,
        stat.st_ino as u64,
        stat.st_size as i64,
        (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        (stat.st_ctime as i64, stat.st_ctime_nsec as u64),
    )
}

/// The whole of a small file.
pub(super) fn read_limited(file: &File, path: &Path, limit: u64) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| read_failed(path, error))?;
    if bytes.len() as u64 > limit {
        let len = file.metadata().map_or(limit + 1, |metadata| metadata.len());
        return Err(LayoutError::IndexTooLarge(len));
    }
    Ok(bytes)
}

/// The path of a blob inside a layout.
pub(super) fn blob_path(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
}
