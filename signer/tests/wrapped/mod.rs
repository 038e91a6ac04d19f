//! A registry that something happens to: it fails at a chosen call, or somebody else publishes at one.
//!
//! [`Wrapped`] passes every call on; an [`Interference`] decides about those that change something.
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

/// A call that changes a registry, or begins to.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    BeginBlob,
    FinishBlob,
    PutManifest,
    SetTag(&'a Tag),
    RemoveTags,
    Sweep,
}

/// What happens to the calls of a registry. By default, nothing.
pub trait Interference {
    /// Called before the registry is; after an error the registry is not called.
    fn before(&self, _call: Call<'_>) -> Result<(), RegistryError> {
        Ok(())
    }

    /// Called after the call has had its effect; an error takes the place of the answer.
    fn after(&self, _call: Call<'_>) -> Result<(), RegistryError> {
        Ok(())
    }

    /// Called before each piece of a blob.
    fn piece(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A registry around another one.
pub struct Wrapped<'a, I> {
    pub inner: &'a dyn Registry,
    pub interference: I,
}

impl<I: Interference> Wrapped<'_, I> {
    fn call<T>(
        &self,
        call: Call<'_>,
        effect: impl FnOnce() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        self.interference.before(call)?;
        let answer = effect()?;
        self.interference.after(call)?;
        Ok(answer)
    }
}

struct WrappedSink<'a, I> {
    registry: &'a Wrapped<'a, I>,
    inner: Box<dyn BlobSink + 'a>,
}

impl<I: Interference> Write for WrappedSink<'_, I> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.registry.interference.piece()?;
        self.inner.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<I: Interference> BlobSink for WrappedSink<'_, I> {
    fn finish(self: Box<Self>, progress: &Progress) -> Result<Digest, RegistryError> {
        let WrappedSink { registry, inner } = *self;
        registry.call(Call::FinishBlob, || inner.finish(progress))
    }
    fn failed(&self, source: io::Error) -> RegistryError {
        self.inner.failed(source)
    }
}

impl<I: Interference> Registry for Wrapped<'_, I> {
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
        let inner = self.call(Call::BeginBlob, || self.inner.begin_blob(repository))?;
        Ok(Box::new(WrappedSink { registry: self, inner }))
    }
    fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Stored, RegistryError> {
        self.call(Call::PutManifest, || self.inner.put_manifest(repository, manifest, bytes))
    }
    fn may_mount_from(&self, repositories: &[RepositoryName]) {
        self.inner.may_mount_from(repositories);
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
        repository: &RepositoryName,
        tag: &Tag,
        manifest: &Descriptor,
        bytes: &[u8],
        expect: Expect<'_>,
    ) -> Result<(), RegistryError> {
        let set = || self.inner.set_tag(repository, tag, manifest, bytes, expect);
        self.call(Call::SetTag(tag), set)
    }
    fn tags(&self, repository: &RepositoryName) -> Result<Vec<Listed>, RegistryError> {
        self.inner.tags(repository)
    }
    fn remove_tags(
        &self,
        repository: &RepositoryName,
        tags: &[Listed],
    ) -> Result<Removal, RegistryError> {
        self.call(Call::RemoveTags, || self.inner.remove_tags(repository, tags))
    }
    fn sweep(&self, sweep: &Sweep<'_>) -> Result<Option<Swept>, RegistryError> {
        self.call(Call::Sweep, || self.inner.sweep(sweep))
    }
}

/// Whether the call that fails has its effect: a request that was lost, or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Before,
    After,
    /// Not a call fails, but every byte of a blob: the disk is full.
    Full,
}

/// The call after so many changing ones fails.
pub struct Failing {
    left: Cell<usize>,
    cut: Cut,
    /// Whether the call under way is the one.
    now: Cell<bool>,
}

/// A registry whose `n`th changing call fails, counted from 0.
pub fn failing(inner: &dyn Registry, n: usize, cut: Cut) -> Wrapped<'_, Failing> {
    let (left, now) = (Cell::new(n), Cell::new(false));
    Wrapped { inner, interference: Failing { left, cut, now } }
}

impl Failing {
    fn fails_if(&self, cut: bool) -> Result<(), RegistryError> {
        if !(cut && self.now.get()) {
            return Ok(());
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

impl Interference for Failing {
    fn before(&self, call: Call<'_>) -> Result<(), RegistryError> {
        // It changes nothing yet.
        if matches!(call, Call::BeginBlob) {
            self.now.set(false);
            return Ok(());
        }
        let left = self.left.get();
        self.left.set(left.wrapping_sub(1));
        self.now.set(left == 0);
        self.fails_if(self.cut != Cut::After)
    }

    fn after(&self, _call: Call<'_>) -> Result<(), RegistryError> {
        self.fails_if(self.cut == Cut::After)
    }

    fn piece(&self) -> io::Result<()> {
        match self.cut {
            Cut::Full => Err(io::ErrorKind::StorageFull.into()),
            Cut::Before | Cut::After => Ok(()),
        }
    }
}
