//! The directories of a layout, opened once, and its `index.json`, parsed once.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use formats::digest::Algorithm;
use formats::oci::Index;

use super::blob::read_failed;
use super::{INDEX_LIMIT, LayoutError};
use crate::dir::{Dir, DirFile, FileStamp};
use crate::error::FileError;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) root: Box<dyn Dir>,
    sha256: OnceLock<Box<dyn Dir>>,
    sha512: OnceLock<Box<dyn Dir>>,
    cached: Mutex<Option<CachedIndex>>,
}

/// The bytes of `index.json`, which file they are of, and that file.
type IndexFile = (Vec<u8>, FileStamp, Arc<dyn DirFile>);

/// `index.json` as last read. The file is kept open, so that its inode number cannot be given to
/// another file while we compare with it.
#[derive(Debug)]
struct CachedIndex {
    stamp: FileStamp,
    _file: Arc<dyn DirFile>,
    index: Arc<Index>,
}

impl Inner {
    pub(super) fn new(root: Box<dyn Dir>) -> Self {
        let (sha256, sha512) = (OnceLock::new(), OnceLock::new());
        Inner { root, sha256, sha512, cached: Mutex::new(None) }
    }

    /// `.tmp/`, made when it is missing.
    pub(super) fn temporary(&self) -> Result<Box<dyn Dir>, FileError> {
        self.root.subdirectory_or_create(".tmp")
    }

    /// `blobs/<algorithm>/`, opened once.
    pub(super) fn blobs(&self, algorithm: Algorithm) -> Result<Option<&dyn Dir>, FileError> {
        let once = self.once(algorithm);
        if once.get().is_none() {
            let Some(blobs) = self.root.subdirectory("blobs")? else { return Ok(None) };
            let Some(named) = blobs.subdirectory(algorithm.name())? else { return Ok(None) };
            let _ = once.set(named);
        }
        Ok(once.get().map(Box::as_ref))
    }

    /// The same, made when it is missing.
    pub(super) fn blobs_or_create(&self, algorithm: Algorithm) -> Result<&dyn Dir, FileError> {
        if self.blobs(algorithm)?.is_none() {
            let blobs = self.root.subdirectory_or_create("blobs")?;
            let named = blobs.subdirectory_or_create(algorithm.name())?;
            let _ = self.once(algorithm).set(named);
        }
        Ok(self.once(algorithm).get().expect("set above, here or by another thread").as_ref())
    }

    /// Makes all names durable, whoever made them.
    pub(super) fn sync_names(&self) -> Result<(), FileError> {
        if let Some(blobs) = self.root.subdirectory("blobs")? {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                if let Some(named) = self.blobs(algorithm)? {
                    named.sync()?;
                }
            }
            blobs.sync()?;
        }
        self.root.sync()
    }

    fn once(&self, algorithm: Algorithm) -> &OnceLock<Box<dyn Dir>> {
        match algorithm {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }

    /// `index.json`, parsed again only when it is another file than last time.
    pub(super) fn index(&self) -> Result<Arc<Index>, LayoutError> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(cached), Ok(Some(stamp))) = (cached.as_ref(), self.root.stamp("index.json"))
            && cached.stamp == stamp
        {
            return Ok(Arc::clone(&cached.index));
        }
        let (bytes, stamp, file) = self.read_index()?;
        let index = Arc::new(Index::parse_layout(&bytes)?);
        *cached = Some(CachedIndex { stamp, _file: file, index: Arc::clone(&index) });
        Ok(index)
    }

    /// The index was just written, by us and under the lock: it need not be parsed again. Somebody who takes
    /// no lock may have written it meanwhile, so the bytes are compared.
    pub(super) fn replaced(&self, index: Index, bytes: &[u8]) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        *cached = match self.read_index() {
            Ok((found, stamp, file)) if found == bytes => {
                Some(CachedIndex { stamp, _file: file, index: Arc::new(index) })
            }
            _ => None,
        };
    }

    /// `index.json` as it stands now, and which file that was.
    pub(super) fn read_index(&self) -> Result<IndexFile, LayoutError> {
        let path = self.root.shown("index.json");
        let missing = || {
            let root = self.root.path().display().to_string();
            LayoutError::NotLayout(root, "there is no index.json")
        };
        let file = self.root.open_file("index.json").map_err(LayoutError::opening)?;
        let file = file.ok_or_else(missing)?;
        let stamp = file.stamp().map_err(|error| read_failed(&path, error))?;
        let bytes = read_limited(file.as_ref(), &path, INDEX_LIMIT)?;
        Ok((bytes, stamp, file))
    }
}

/// The whole of a small file.
pub(super) fn read_limited(
    file: &dyn DirFile,
    path: &Path,
    limit: u64,
) -> Result<Vec<u8>, LayoutError> {
    let failed = |error| read_failed(path, error);
    // In one piece: growing takes three times as much.
    let len = file.stamp().map_or(0, |stamp| stamp.len).min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + (16 << 10));
    // It may be replaced while it is read, but not changed: a writer in place is caught by the limit.
    loop {
        let at = bytes.len();
        bytes.resize(at + (16 << 10), 0);
        let got = file.read_at(&mut bytes[at..], at as u64).map_err(failed)?;
        bytes.truncate(at + got);
        if bytes.len() as u64 > limit {
            let len = file.stamp().map_or(limit + 1, |stamp| stamp.len);
            return Err(LayoutError::IndexTooLarge(len));
        }
        if got == 0 {
            return Ok(bytes);
        }
    }
}
