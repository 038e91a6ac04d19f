//! A layout in a directory, for reading and writing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use formats::digest::{Algorithm, Digest};
use formats::oci::{Descriptor, Index, NamedManifest, annotation};

use super::blob::{Blob, read_failed};
use super::inner::{Inner, read_limited};
use super::writer::BlobWriter;
use super::{
    INDEX_LIMIT, LAYOUT_FILE, Layout, LayoutError, Swept, check_layout_file, reference_of,
};
use crate::dir::{Lock, Policy};
use crate::error::FileError;
use crate::host::{Host, System};

/// An image layout in a directory. Cheap to clone; may be shared between threads and processes.
///
/// Blobs appear whole or not at all. All tags move in one rename of `index.json`, under an
/// exclusive lock on the directory, so of two writers neither loses the other's tags.
#[derive(Debug, Clone)]
pub struct LayoutDir(Arc<Inner>);

impl LayoutDir {
    /// Opens an existing layout. Every file below is opened relative to this directory, so moving
    /// or mounting over its path later changes nothing.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        Self::open_on(&System, path)
    }

    /// The same on another kind of machine.
    pub fn open_on(host: &dyn Host, path: &Path) -> Result<Self, LayoutError> {
        let inner = Inner::new(host.open_dir(path, Policy::Public).map_err(LayoutError::opening)?);
        let file = inner.root.open_file("oci-layout").map_err(LayoutError::opening)?;
        let missing =
            || LayoutError::NotLayout(path.display().to_string(), "there is no oci-layout");
        let bytes = read_limited(file.ok_or_else(missing)?.as_ref(), path, 4096)?;
        check_layout_file(path, &bytes)?;
        Ok(LayoutDir(Arc::new(inner)))
    }

    /// Opens a layout for writing, making the directory (not its parents), `oci-layout` and an
    /// empty `index.json` where they are missing, and removing temporary files of writers that were killed.
    pub fn create(path: &Path) -> Result<Self, LayoutError> {
        Self::create_on(&System, path)
    }

    /// The same on another kind of machine.
    pub fn create_on(host: &dyn Host, path: &Path) -> Result<Self, LayoutError> {
        let root = host.create_dir(path, Policy::Public).map_err(|error| match error {
            FileError::Io { .. } => LayoutError::Write(error),
            _ => LayoutError::Refused(error),
        })?;
        let inner = Inner::new(root);
        {
            let _lock = inner.root.lock().map_err(LayoutError::Write)?;
            let put = |name: &str, bytes: &[u8]| match inner.root.open_file(name) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => inner.root.replace(name, bytes).map_err(LayoutError::Write),
                Err(error) => Err(LayoutError::opening(error)),
            };
            put("index.json", &Index::new(None, Vec::new()).to_bytes())?;
            put("oci-layout", LAYOUT_FILE)?;
            inner.root.remove_stale().map_err(LayoutError::Write)?;
            inner.temporary().and_then(|dir| dir.remove_stale()).map_err(LayoutError::Write)?;
            // A writer that was killed may have made names that are not durable yet: what is built on
            // them from now on must not outlive them.
            inner.sync_names().map_err(LayoutError::Write)?;
        }
        Self::open_on(host, path)
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

    /// Removes a blob; whether it was there. A reader that has it open can continue.
    pub fn remove_blob(&self, digest: &Digest) -> Result<bool, LayoutError> {
        let Some(blobs) = self.0.blobs(digest.algorithm()).map_err(LayoutError::opening)? else {
            return Ok(false);
        };
        let removed = blobs.unlink(&digest.hex()).map_err(LayoutError::Write)?;
        blobs.sync().map_err(LayoutError::Write)?;
        Ok(removed)
    }

    /// Whether a server keeps links and uploads of its own in this directory: then it alone knows
    /// which blobs are needed.
    pub fn is_served(&self) -> Result<bool, LayoutError> {
        let found = self.0.root.subdirectory("repositories").map_err(LayoutError::opening)?;
        Ok(found.is_some())
    }

    /// The lock that every writer of tags holds.
    pub(super) fn lock(&self) -> Result<Lock, LayoutError> {
        self.0.root.lock().map_err(LayoutError::Write)
    }

    /// Removes those of these blobs that were last written before a time, durably, and counts them.
    pub(super) fn remove_old(
        &self,
        digests: &[&Digest],
        before: SystemTime,
        swept: &mut Swept,
    ) -> Result<(), LayoutError> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let Some(blobs) = self.0.blobs(algorithm).map_err(LayoutError::opening)? else {
                continue;
            };
            let mut removed = 0;
            for digest in digests.iter().filter(|it| it.algorithm() == algorithm) {
                let hex = digest.hex();
                let Some(stamp) = blobs.stamp(&hex).map_err(LayoutError::Read)? else { continue };
                if stamp.modified() >= before {
                    swept.young += 1;
                    continue;
                }
                blobs.unlink(&hex).map_err(LayoutError::Write)?;
                removed += 1;
                swept.blobs += 1;
                swept.bytes += stamp.len;
            }
            if removed > 0 {
                blobs.sync().map_err(LayoutError::Write)?;
            }
        }
        Ok(())
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
        let named = || before.manifests.iter().filter_map(|it| Some((reference_of(it)?, it)));
        let mut refs = BTreeMap::new();
        for (reference, descriptor) in named() {
            match refs.insert(reference.to_owned(), descriptor.clone()) {
                Some(other) if other.digest != descriptor.digest => {
                    return Err(LayoutError::AmbiguousReference(reference.to_owned()).into());
                }
                _ => {}
            }
        }
        edit(&mut refs)?;
        let kept: BTreeMap<&str, &Descriptor> = named().collect();
        let unnamed = before.manifests.iter().filter(|entry| reference_of(entry).is_none());
        let mut after = Index {
            schema_version: before.schema_version,
            media_type: before.media_type.clone(),
            artifact_type: before.artifact_type.clone(),
            manifests: unnamed.cloned().collect(),
            subject: before.subject.clone(),
            annotations: before.annotations.clone(),
        };
        after.manifests.reserve(refs.len());
        for (reference, descriptor) in refs {
            // A tag that does not change is not checked: one lost manifest must not keep the others
            // from moving, nor its own tag from being deleted.
            let stays = kept.get(reference.as_str()).is_some_and(|known| **known == descriptor);
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
            inner.root.replace("index.json", &bytes).map_err(LayoutError::Write)?;
            inner.replaced(after, &bytes);
        }
        Ok(())
    }
}

impl Layout for LayoutDir {
    fn index(&self) -> Result<Arc<Index>, LayoutError> {
        self.0.index()
    }

    fn named(&self) -> Result<Vec<NamedManifest>, LayoutError> {
        let (bytes, _, _) = self.0.read_index()?;
        Ok(NamedManifest::parse_layout(&bytes)?)
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
        let len = file.stamp().map_err(|error| read_failed(&path, error))?.len;
        Ok(Some(Blob::new(digest.clone(), file, Arc::new(path), 0, len)))
    }
}

/// The path of a blob inside a layout.
pub(super) fn blob_path(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm().name()).join(digest.hex())
}
