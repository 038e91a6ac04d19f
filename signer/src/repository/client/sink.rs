//! A blob that is collected in a file, and goes up while the next one is made.

use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::sync::{Arc, PoisonError};

use formats::digest::{Algorithm, Digest, Hasher};
use formats::oci::RepositoryName;

use super::super::{BlobSink, RegistryError};
use super::failure::Failure;
use super::http::Http;
use super::transfer::Content;
use super::upload::push_scope;
use super::{Pending, RegistryClient};
use crate::progress::Progress;

/// 64 KiB: looking for a smaller blob elsewhere costs as much as sending it.
const WORTH_A_MOUNT: u64 = 64 << 10;

/// Repositories that are asked for a blob before it is uploaded.
const SOURCES: usize = 8;

/// A blob in a file without a name, until it is uploaded.
pub(super) struct Upload<'a> {
    registry: &'a RegistryClient,
    repository: RepositoryName,
    file: File,
    hasher: Hasher,
    len: u64,
}

impl<'a> Upload<'a> {
    /// Begins with no bytes.
    pub(super) fn new(
        registry: &'a RegistryClient,
        repository: &RepositoryName,
    ) -> Result<Self, RegistryError> {
        let file = tempfile::tempfile().map_err(spool)?;
        let (repository, hasher) = (repository.clone(), Algorithm::Sha256.hasher());
        Ok(Upload { registry, repository, file, hasher, len: 0 })
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobSink for Upload<'_> {
    fn finish(self: Box<Self>, progress: &Progress) -> Result<Digest, RegistryError> {
        let Upload { registry, repository, mut file, hasher, len } = *self;
        let digest = hasher.finish();
        if registry.is_coming(&repository, &digest) {
            return Ok(digest);
        }
        let scope = push_scope(&repository);
        let look = registry.http.need_not_send(&scope, &repository, &digest);
        if registry.runtime.block_on(look) {
            return Ok(digest);
        }
        file.rewind().map_err(spool)?;
        let content = Content::new(file, len, progress.clone());
        let sources = registry.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (http, crowd) = (Arc::clone(&registry.http), Arc::clone(&registry.crowd));
        // Here, not in the task: so many files wait on disk, and no more.
        let place = registry.runtime.block_on(Arc::clone(&registry.uploads).acquire_owned());
        let (to, named) = (repository.clone(), digest.clone());
        let upload = registry.runtime.spawn(async move {
            let _place = place;
            let from = match len >= WORTH_A_MOUNT {
                true => source(&http, &sources, &to, &named).await,
                false => None,
            };
            // The registry compares the bytes with the digest and refuses others.
            let upload = || http.push_blob(&to, &named, &content, from.as_ref());
            let say = |failure: &Failure| {
                let text = format!("push blob {named} to {to}: {failure}, trying again alone");
                http.line.say(&text);
            };
            crowd.upload(upload, say).await
        });
        registry.pending().push(Pending { repository, digest: digest.clone(), upload });
        Ok(digest)
    }

    fn failed(&self, source: io::Error) -> RegistryError {
        spool(source)
    }
}

fn spool(source: io::Error) -> RegistryError {
    RegistryError::Spool { path: std::env::temp_dir(), source }
}

/// A repository of this registry, other than `to`, that has the blob.
async fn source(
    http: &Http,
    sources: &[RepositoryName],
    to: &RepositoryName,
    digest: &Digest,
) -> Option<RepositoryName> {
    for from in sources.iter().filter(|from| *from != to).take(SOURCES) {
        let scope = format!("repository:{from}:pull");
        // A repository that we may not read has nothing for us.
        if http.has_blob(&scope, from, digest).await.unwrap_or(false) {
            return Some(from.clone());
        }
    }
    None
}
