//! What nothing in a layout needs any more, and how it goes.
//!
//! ```text
//!  every entry of index.json ┐
//!  what the caller keeps     ┴─► manifest or index ─► manifests, subject, config, layers
//! ```
//!
//! Everything on these ways is needed. A manifest that is not there, or is none, needs nothing; when
//! one is damaged, what it needs is unknown, and nothing is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use formats::digest::Digest;
use formats::oci::{MANIFEST_LIMIT, References};

use super::{Layout, LayoutDir, LayoutError};

/// Blobs removed while writers of tags wait.
const BATCH: usize = 256;

/// Which blobs are to go.
#[derive(Debug, Clone)]
pub struct Sweep<'a> {
    /// Only some of these; `None`: of all that are there.
    pub among: Option<&'a BTreeSet<Digest>>,
    /// Needed, with what they refer to, although no tag leads there.
    pub keep: &'a [Digest],
    /// What was written at this time or later stays: a writer may be about to refer to it.
    pub before: SystemTime,
}

/// What went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Blobs that were removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that nothing needs and that are too young.
    pub young: u64,
}

impl LayoutDir {
    /// Removes blobs that nothing needs and that were last written before a time.
    ///
    /// Tags are looked at anew, under the lock that every writer of tags holds, before each batch of
    /// removals. So of a blob and a tag that needs it either the tag was first, and the blob stays, or
    /// the blob goes first, and whoever sets the tag can see that it is gone (see
    /// [`LayoutDir::missing`]). Whatever a writer has written since `before`, tagged or not, stays.
    ///
    /// After an error or a cut less was removed, and never anything that is needed.
    pub fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept, LayoutError> {
        let mut needed = Needed::default();
        needed.add(self, sweep.keep.iter().cloned())?;
        needed.add_tagged(self)?;
        let candidates: Vec<Digest> = match sweep.among {
            Some(some) => some.iter().filter(|it| !needed.has(it)).cloned().collect(),
            None => self.blobs()?.into_iter().filter(|it| !needed.has(it)).collect(),
        };
        let mut swept = Swept::default();
        for batch in candidates.chunks(BATCH) {
            let _lock = self.lock()?;
            needed.add_tagged(self)?;
            let garbage: Vec<&Digest> = batch.iter().filter(|it| !needed.has(it)).collect();
            self.remove_old(&garbage, sweep.before, &mut swept)?;
        }
        Ok(swept)
    }

    /// The first blob that is not there of all that a manifest with these bytes refers to, and what
    /// that refers to; not of what it is attached to.
    pub fn missing(&self, manifest: &[u8]) -> Result<Option<Digest>, LayoutError> {
        let mut open = vec![References::parse(manifest)?];
        let mut seen = BTreeSet::new();
        while let Some(References { manifests, blobs, .. }) = open.pop() {
            for blob in blobs {
                if !self.has_blob(&blob)? {
                    return Ok(Some(blob));
                }
            }
            for child in manifests {
                if !seen.insert(child.clone()) {
                    continue;
                }
                match self.references(&child)? {
                    Some(references) => open.push(references),
                    None => return Ok(Some(child)),
                }
            }
        }
        Ok(None)
    }

    /// What the document of that digest refers to; `None` when it is not there.
    fn references(&self, digest: &Digest) -> Result<Option<References>, LayoutError> {
        match self.open_blob(digest)? {
            None => Ok(None),
            // Too large for a manifest.
            Some(blob) if blob.len() > MANIFEST_LIMIT => Ok(Some(References::default())),
            Some(blob) => Ok(Some(References::parse(&blob.read_verified(MANIFEST_LIMIT)?)?)),
        }
    }
}

/// All that is needed. Documents that were followed once are not read again.
#[derive(Debug, Default)]
struct Needed {
    /// Whether what it refers to is needed, too: not so for what is a blob only.
    followed: BTreeMap<Digest, bool>,
}

impl Needed {
    fn has(&self, digest: &Digest) -> bool {
        self.followed.contains_key(digest)
    }

    fn add_tagged(&mut self, layout: &LayoutDir) -> Result<(), LayoutError> {
        let index = layout.index()?;
        self.add(layout, index.manifests.iter().map(|entry| entry.digest.clone()))
    }

    fn add(
        &mut self,
        layout: &LayoutDir,
        roots: impl Iterator<Item = Digest>,
    ) -> Result<(), LayoutError> {
        let mut open: Vec<Digest> = roots.collect();
        while let Some(digest) = open.pop() {
            let followed = self.followed.entry(digest.clone()).or_default();
            if std::mem::replace(followed, true) {
                continue;
            }
            let Some(found) = layout.references(&digest)? else { continue };
            for blob in found.blobs {
                self.followed.entry(blob).or_default();
            }
            open.extend(found.manifests.into_iter().chain(found.subject));
        }
        Ok(())
    }
}
