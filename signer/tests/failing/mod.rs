//! A registry that fails at a chosen call.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::cell::Cell;
use std::io::{self, Read, Write};

use formats::digest::Digest;
use formats::oci::{Descriptor, RepositoryName, Tag};
use formats::reason::Reason;
use formats::reference::Reference;
use signer::progress::Progress;
use signer::repository::{BlobSink, Expect, Listed, Registry, RegistryError, Removal, Stored};
use storage::layout::{Layout, Sweep, Swept};

/// Whether the call that fails has its effect: a request that was lost, or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Before,
    After,
    /// Not a call fails, but every byte of a blob: the disk is full.
    Full,
}

/// A registry whose `n`th changing call fails.
pub struct Failing<'a> {
    pub inner: &'a dyn Registry,
    pub left: Cell<usize>,
    pub cut: Cut,
}

impl Failing<'_> {
    fn step<T>(
        &self,
        effect: impl FnOnce() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let left = self.left.get();
        self.left.set(left.wrapping_sub(1));
        if left != 0 {
            return effect();
        }
        if self.cut == Cut::After {
            effect()?;
        }
        Err(RegistryError::Client {
            action: "test".to_owned(),
            registry: "test".to_owned(),
            message: "cut".to_owned(),
            reason: Reason::Unreachable,
            hint: String::new(),
        })
    }
}

struct FailingSink<'a> {
    registry: &'a Failing<'a>,
    inner: Box<dyn BlobSink + 'a>,
}

impl Write for FailingSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.registry.cut {
            Cut::Full => Err(io::ErrorKind::StorageFull.into()),
            _ => self.inner.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl BlobSink for FailingSink<'_> {
    fn finish(self: Box<Self>, progress: &Progress) -> Result<Digest, RegistryError> {
        let FailingSink { registry, inner } = *self;
        registry.step(|| inner.finish(progress))
    }
    fn failed(&self, source: io::Error) -> RegistryError {
        self.inner.failed(source)
    }
}

impl Registry for Failing<'_> {
    fn reference(&self) -> &Reference {
        self.inner.reference()
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
        self.inner.has_blob(repository, blob)
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
        let inner = self.inner.begin_blob(repository)?;
        Ok(Box::new(FailingSink { registry: self, inner }))
    }
    fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Stored, RegistryError> {
        self.step(|| self.inner.put_manifest(repository, manifest, bytes))
    }
    fn set_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        manifest: &Descriptor,
        bytes: &[u8],
        expect: Expect<'_>,
    ) -> Result<(), RegistryError> {
        self.step(|| self.inner.set_tag(repository, tag, manifest, bytes, expect))
    }
    fn layout(&self) -> Option<&dyn Layout> {
        self.inner.layout()
    }
    fn tags(&self, repository: &RepositoryName) -> Result<Vec<Listed>, RegistryError> {
        self.inner.tags(repository)
    }
    fn remove_tags(
        &self,
        repository: &RepositoryName,
        tags: &[Listed],
    ) -> Result<Removal, RegistryError> {
        self.step(|| self.inner.remove_tags(repository, tags))
    }
    fn sweep(&self, sweep: &Sweep<'_>) -> Result<Option<Swept>, RegistryError> {
        self.step(|| self.inner.sweep(sweep))
    }
}
