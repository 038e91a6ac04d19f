//! Repositories in an OCI image layout: a directory, or a tar for reading.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use formats::digest::Digest;
use formats::oci::{
    Descriptor, MANIFEST_LIMIT, Manifest, RepositoryName, Tag, annotation, media_type,
};
use formats::reference::Reference;
use storage::host::{Host, System};
use storage::layout::{
    Archive, BlobWriter, Layout, LayoutDir, LayoutError, Sweep, Swept, reference_of,
};

use super::{BlobSink, Expect, Listed, Move, Registry, RegistryError, Removal, Stored, referrers};
use crate::progress::Progress;

/// A layout whose references read `[ns/]repository:tag`.
pub struct LayoutRepository {
    reference: Reference,
    kind: Kind,
}

enum Kind {
    /// Opened for writing.
    Writable(LayoutDir),
    /// Opened for reading.
    ReadOnly(Box<dyn Layout>),
}

impl LayoutRepository {
    /// Opens a directory for writing; makes it when it is missing, but not its parents.
    pub fn create(reference: Reference) -> Result<Self, RegistryError> {
        Self::create_on(&System, reference)
    }

    /// The same on another kind of machine.
    pub fn create_on(host: &dyn Host, reference: Reference) -> Result<Self, RegistryError> {
        let kind = Kind::Writable(LayoutDir::create_on(host, path_of(&reference))?);
        Ok(LayoutRepository { reference, kind })
    }

    /// Opens a directory or a tar for reading.
    pub fn open(reference: Reference) -> Result<Self, RegistryError> {
        let path = path_of(&reference);
        let layout: Box<dyn Layout> = match &reference {
            Reference::Archive { .. } => Box::new(Archive::open(path)?),
            _ => storage::layout::open(path)?,
        };
        Ok(LayoutRepository { kind: Kind::ReadOnly(layout), reference })
    }

    fn inner(&self) -> &dyn Layout {
        match &self.kind {
            Kind::Writable(dir) => dir,
            Kind::ReadOnly(layout) => layout.as_ref(),
        }
    }

    fn writable(&self) -> Result<&LayoutDir, RegistryError> {
        match &self.kind {
            Kind::Writable(dir) => Ok(dir),
            Kind::ReadOnly(_) => Err(RegistryError::ReadOnly(self.reference.to_string())),
        }
    }

    /// The one TUF state of a layout whose references were shortened on the way: `skopeo copy`
    /// into a layout without naming a reference writes `latest` or nothing.
    fn only_tuf_state(&self) -> Result<Option<Vec<u8>>, RegistryError> {
        let mut found: Option<(Digest, Vec<u8>)> = None;
        for (name, descriptor) in self.inner().refs()? {
            if name != "latest" && !name.ends_with("/tuf:latest") {
                continue;
            }
            let bytes = self.inner().read_blob(&descriptor.digest, MANIFEST_LIMIT)?;
            let is_state = Manifest::parse(&bytes).is_ok_and(|manifest| {
                manifest.artifact_type.as_deref() == Some(media_type::TUF_STATE)
            });
            match &found {
                _ if !is_state => {}
                Some((digest, _)) if *digest != descriptor.digest => {
                    return Err(LayoutError::AmbiguousReference("tuf:latest".to_owned()).into());
                }
                _ => found = Some((descriptor.digest, bytes)),
            }
        }
        Ok(found.map(|(_, bytes)| bytes))
    }
}

fn path_of(reference: &Reference) -> &Path {
    match reference {
        Reference::Layout { path, .. } | Reference::Archive { path, .. } => path,
        Reference::Registry { authority, .. } => Path::new(authority),
    }
}

fn full_name(repository: &RepositoryName, tag: &Tag) -> String {
    format!("{repository}:{tag}")
}

/// Moves a tag. To be called under the lock, which whoever removes garbage holds, too: what becomes visible
/// is whole.
fn move_tag(
    dir: &LayoutDir,
    refs: &mut BTreeMap<String, Descriptor>,
    one: &Move<'_>,
) -> Result<(), RegistryError> {
    let name = full_name(one.repository, one.tag);
    let found = refs.get(&name).map(|found| &found.digest);
    if !one.expect.allows(found) {
        let (repository, tag) = (one.repository.clone(), one.tag.clone());
        return Err(RegistryError::Moved { repository, tag });
    }
    // A list of what is attached may name what is gone.
    if found != Some(&one.manifest.digest)
        && !referrers::is_list(one.tag)
        && let Some(digest) = dir.missing(one.bytes)?
    {
        return Err(RegistryError::Missing { what: "blob", digest });
    }
    let mut plain = one.manifest.clone();
    plain.annotations.retain(|key, _| key != annotation::REF_NAME);
    refs.insert(name, plain);
    Ok(())
}

impl Registry for LayoutRepository {
    fn reference(&self) -> &Reference {
        &self.reference
    }

    fn layout(&self) -> Option<&dyn Layout> {
        Some(self.inner())
    }

    fn tagged(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let name = full_name(repository, tag);
        match self.inner().resolve(&name)? {
            Some(found) => Ok(Some(self.inner().read_blob(&found.digest, MANIFEST_LIMIT)?)),
            None if name == "tuf:latest" && matches!(self.kind, Kind::ReadOnly(_)) => {
                self.only_tuf_state()
            }
            None => Ok(None),
        }
    }

    fn manifest(
        &self,
        _repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError> {
        match self.inner().read_blob(digest, MANIFEST_LIMIT) {
            Err(LayoutError::MissingBlob(digest)) => {
                Err(RegistryError::Missing { what: "manifest", digest })
            }
            other => Ok(other?),
        }
    }

    fn has_blob(
        &self,
        _repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        Ok(self.inner().blob_len(&blob.digest)? == Some(blob.size))
    }

    fn open_blob(
        &self,
        _repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + '_>, RegistryError> {
        match self.inner().open_blob(&blob.digest)? {
            Some(found) => Ok(Box::new(found.reader())),
            None => Err(RegistryError::Missing { what: "blob", digest: blob.digest.clone() }),
        }
    }

    fn begin_blob(
        &self,
        _repository: &RepositoryName,
    ) -> Result<Box<dyn BlobSink + '_>, RegistryError> {
        let dir = self.writable()?;
        Ok(Box::new(LayoutSink { writer: dir.blob_writer()?, path: dir.path().to_owned() }))
    }

    fn put_manifest(
        &self,
        _repository: &RepositoryName,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Stored, RegistryError> {
        let stored = self.writable()?.put_blob(bytes)?;
        debug_assert_eq!(stored, manifest.digest);
        Ok(Stored::ReferrersNotListed)
    }

    fn set_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        manifest: &Descriptor,
        bytes: &[u8],
        expect: Expect<'_>,
    ) -> Result<(), RegistryError> {
        let dir = self.writable()?;
        dir.update_refs(|refs| {
            move_tag(dir, refs, &Move { repository, tag, manifest, bytes, expect })
        })
    }

    fn set_together(&self, moves: &[Move<'_>]) -> Option<Result<(), RegistryError>> {
        let dir = match self.writable() {
            Ok(dir) => dir,
            Err(error) => return Some(Err(error)),
        };
        Some(dir.update_refs(|refs| moves.iter().try_for_each(|one| move_tag(dir, refs, one))))
    }

    fn tags(&self, repository: &RepositoryName) -> Result<Vec<Listed>, RegistryError> {
        let index = self.inner().index()?;
        let tag = |reference: &str| {
            let (name, tag) = reference.rsplit_once(':')?;
            (name == repository.as_str()).then(|| tag.parse().ok()).flatten()
        };
        let entries = index.manifests.iter();
        let listed = entries.filter_map(|entry| {
            let manifest = Some(entry.digest.clone());
            Some(Listed { tag: tag(reference_of(entry)?)?, manifest })
        });
        Ok(listed.collect())
    }

    fn remove_tags(
        &self,
        repository: &RepositoryName,
        tags: &[Listed],
    ) -> Result<Removal, RegistryError> {
        let mut removed = 0;
        self.writable()?.update_refs(|refs| {
            for Listed { tag, manifest } in tags {
                let name = full_name(repository, tag);
                let there = refs.get(&name).map(|found| &found.digest);
                let moved = manifest.is_some() && there != manifest.as_ref();
                if there.is_some() && !moved {
                    refs.remove(&name);
                    removed += 1;
                }
            }
            Ok::<_, RegistryError>(())
        })?;
        Ok(Removal { removed, stopped: None })
    }

    fn sweep(&self, sweep: &Sweep<'_>) -> Result<Option<Swept>, RegistryError> {
        let dir = self.writable()?;
        if dir.is_served()? {
            return Ok(None);
        }
        Ok(Some(dir.sweep(sweep)?))
    }

    fn put_blob(
        &self,
        _repository: &RepositoryName,
        blob: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        // One that is there already is young again, and is no garbage before it is referred to.
        let stored = self.writable()?.put_blob(bytes)?;
        debug_assert_eq!(stored, blob.digest);
        Ok(())
    }
}

struct LayoutSink {
    writer: BlobWriter,
    path: PathBuf,
}

impl Write for LayoutSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl BlobSink for LayoutSink {
    fn finish(self: Box<Self>, _progress: &Progress) -> Result<Digest, RegistryError> {
        Ok(self.writer.commit(None)?)
    }

    fn failed(&self, source: io::Error) -> RegistryError {
        RegistryError::Directory { path: self.path.clone(), source }
    }
}
