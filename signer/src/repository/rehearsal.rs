//! A repository to which nothing is written: a dry run counts what would be.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use formats::digest::{Algorithm, Digest, Hasher};
use formats::oci::{Descriptor, RepositoryName, Tag, media_type};
use formats::reference::Reference;
use serde::Serialize;
use storage::layout::Layout;

use super::{BlobSink, Expect, Listed, Registry, RegistryError, Removal, Stored};
use crate::progress::Progress;

/// Blobs and manifests that a run would have stored, each counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Transfer {
    /// Blobs and manifests that the repository does not hold yet.
    pub new_files: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// Blobs and manifests that it, or another repository of the same registry, holds already.
    pub reused_files: u64,
    /// Their bytes.
    pub reused_bytes: u64,
}

/// One file that a run would have stored.
#[derive(Debug, Clone, Copy)]
struct Planned {
    size: u64,
    reused: bool,
}

/// Reads from a repository, and keeps what is written to it only as digests and sizes.
///
/// Crash behaviour: the repository is never changed.
pub struct Rehearsal<'a> {
    inner: &'a dyn Registry,
    neighbours: RefCell<Vec<RepositoryName>>,
    planned: RefCell<BTreeMap<(RepositoryName, Digest), Planned>>,
}

impl<'a> Rehearsal<'a> {
    /// Nothing is planned yet.
    pub fn of(inner: &'a dyn Registry) -> Self {
        Rehearsal { inner, neighbours: RefCell::default(), planned: RefCell::default() }
    }

    /// What would have been stored so far.
    pub fn transfer(&self) -> Transfer {
        let mut sum = Transfer::default();
        for planned in self.planned.borrow().values() {
            let (files, bytes) = match planned.reused {
                true => (&mut sum.reused_files, &mut sum.reused_bytes),
                false => (&mut sum.new_files, &mut sum.new_bytes),
            };
            *files += 1;
            *bytes += planned.size;
        }
        sum
    }

    fn is_planned(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.planned.borrow().contains_key(&(repository.clone(), digest.clone()))
    }

    fn plan(&self, repository: &RepositoryName, digest: Digest, size: u64, reused: bool) {
        let planned = Planned { size, reused };
        self.planned.borrow_mut().entry((repository.clone(), digest)).or_insert(planned);
    }

    /// Plans a blob, unless that was done already.
    fn plan_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<(), RegistryError> {
        if self.is_planned(repository, &blob.digest) {
            return Ok(());
        }
        let neighbours = self.neighbours.borrow().clone();
        let mut reused = false;
        for holder in std::iter::once(repository).chain(&neighbours) {
            reused = reused || self.inner.has_blob(holder, blob)?;
        }
        self.plan(repository, blob.digest.clone(), blob.size, reused);
        Ok(())
    }
}

impl Registry for Rehearsal<'_> {
    fn reference(&self) -> &Reference {
        self.inner.reference()
    }

    fn layout(&self) -> Option<&dyn Layout> {
        self.inner.layout()
    }

    fn tagged(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        self.inner.tagged(repository, tag)
    }

    fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError> {
        self.inner.manifest(repository, digest)
    }

    fn has_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        Ok(self.is_planned(repository, &blob.digest) || self.inner.has_blob(repository, blob)?)
    }

    fn open_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + '_>, RegistryError> {
        self.inner.open_blob(repository, blob)
    }

    fn begin_blob(
        &self,
        repository: &RepositoryName,
    ) -> Result<Box<dyn BlobSink + '_>, RegistryError> {
        let (repository, hasher) = (repository.clone(), Algorithm::Sha256.hasher());
        Ok(Box::new(CountingSink { rehearsal: self, repository, hasher, size: 0 }))
    }

    fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Descriptor,
        _bytes: &[u8],
    ) -> Result<Stored, RegistryError> {
        if !self.is_planned(repository, &manifest.digest) {
            let reused = match self.inner.manifest(repository, &manifest.digest) {
                Ok(_) => true,
                Err(RegistryError::Missing { .. }) => false,
                Err(error) => return Err(error),
            };
            self.plan(repository, manifest.digest.clone(), manifest.size, reused);
        }
        // The list that some repositories want beside it is a few hundred bytes, and not counted.
        Ok(Stored::ReferrersListed)
    }

    fn may_mount_from(&self, repositories: &[RepositoryName]) {
        *self.neighbours.borrow_mut() = repositories.to_vec();
    }

    fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        self.inner.referrers(repository, subject)
    }

    fn set_tag(
        &self,
        _repository: &RepositoryName,
        _tag: &Tag,
        _manifest: &Descriptor,
        _bytes: &[u8],
        _expect: Expect<'_>,
    ) -> Result<(), RegistryError> {
        Ok(())
    }

    fn tags(&self, repository: &RepositoryName) -> Result<Vec<Listed>, RegistryError> {
        self.inner.tags(repository)
    }

    fn remove_tags(
        &self,
        _repository: &RepositoryName,
        _tags: &[Listed],
    ) -> Result<Removal, RegistryError> {
        Ok(Removal::default())
    }

    fn put_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
        _bytes: &[u8],
    ) -> Result<(), RegistryError> {
        self.plan_blob(repository, blob)
    }
}

/// Hashes and counts what passes.
struct CountingSink<'a> {
    rehearsal: &'a Rehearsal<'a>,
    repository: RepositoryName,
    hasher: Hasher,
    size: u64,
}

impl Write for CountingSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobSink for CountingSink<'_> {
    fn finish(self: Box<Self>, _progress: &Progress) -> Result<Digest, RegistryError> {
        let CountingSink { rehearsal, repository, hasher, size } = *self;
        let blob = Descriptor::new(media_type::IMAGE_BLOB, hasher.finish(), size);
        rehearsal.plan_blob(&repository, &blob)?;
        Ok(blob.digest)
    }

    fn failed(&self, source: io::Error) -> RegistryError {
        RegistryError::Spool { path: std::env::temp_dir(), source }
    }
}
