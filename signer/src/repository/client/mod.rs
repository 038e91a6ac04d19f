//! Registries over HTTP: the part of the distribution API that publishing needs. Nothing of the HTTP
//! client or of its runtime leaves this folder.
//!
//! | module | does | I/O |
//! |---|---|---|
//! | `answer` | bodies within bounds, errors and headers of an answer | reads it |
//! | `auth` | challenges, tokens, what goes to whom | asks for tokens |
//! | `backoff` | how long to wait before another try (pure) | no |
//! | `concurrency` | uploads in parallel, or one after another | no |
//! | `connect` | a client from options and environment | reads them |
//! | `credentials`, `files`, `helpers` | tokens, certificates, docker's and podman's files, helpers | yes |
//! | `failure` | what an error means (pure) | no |
//! | `http` | one request, repeated where that may help | yes |
//! | `line` | what is known of the way to a registry | no |
//! | `patience` | when a transfer has stalled | no |
//! | `pulse` | how far a body is, and when it moved last | no |
//! | `referrers` | what is attached to a manifest | yes |
//! | `sink` | blobs that are collected in a file | yes |
//! | `tags` | lists of tags, and their removal | yes |
//! | `transfer` | files and downloads as streams | yes |
//! | `upload` | blobs: mounts, whole uploads, and resuming after a cut | yes |
//! | `upload_plan` | in how many requests a blob goes up, and what is tried after a failure (pure) | no |
//!
//! Manifests travel as the bytes that were signed, never parsed and written again. Blobs go up from
//! a temporary file: the digest has to be known before the upload ends, and a whole image does not
//! fit into memory. They go up several at once while the next one is made; whatever refers to them
//! waits until they are there.

mod answer;
mod auth;
mod backoff;
mod concurrency;
mod connect;
mod credentials;
mod failure;
mod files;
mod helpers;
mod http;
mod line;
mod patience;
mod pulse;
mod referrers;
mod sink;
mod tags;
mod transfer;
mod upload;
mod upload_plan;

use std::future::Future;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use formats::digest::Digest;
use formats::oci::{Descriptor, MANIFEST_LIMIT, RepositoryName, Tag, media_type};
use formats::reference::Reference;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

pub use self::backoff::Backoff;
use self::concurrency::Concurrency;
use self::failure::Failure;
use self::http::Http;
pub use self::patience::Patience;
use self::sink::Upload;
use self::transfer::BlobReader;
use self::upload::push_scope;
use super::{BlobSink, Expect, Listed, Registry, RegistryError, Removal, Stored};

/// A registry.
pub struct RegistryClient {
    reference: Reference,
    authority: String,
    http: Arc<Http>,
    /// Blobs that may lie in temporary files.
    uploads: Arc<Semaphore>,
    crowd: Arc<Concurrency>,
    pending: Mutex<Vec<Pending>>,
    /// Repositories of this registry that may have what is to be uploaded.
    sources: Mutex<Vec<RepositoryName>>,
    runtime: tokio::runtime::Runtime,
}

/// A blob on its way.
struct Pending {
    repository: RepositoryName,
    digest: Digest,
    upload: JoinHandle<Result<(), Failure>>,
}

impl RegistryClient {
    fn run<T>(
        &self,
        action: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, RegistryError> {
        self.runtime.block_on(work).map_err(|failure| self.failed(action, &failure))
    }

    /// The error of something that was pushed.
    fn refused(&self, action: &str, to: &RepositoryName, failure: &Failure) -> RegistryError {
        if matches!(failure, Failure::Status { status: 507, .. }) {
            let (action, registry) = (action.to_owned(), self.authority.clone());
            return RegistryError::Full { action, registry, said: failure.to_string() };
        }
        if !failure.is_missing_repository() {
            return self.failed(action, failure);
        }
        let (registry, repository) = (self.authority.clone(), to.clone());
        RegistryError::NoRepository { registry, repository, said: failure.to_string() }
    }

    fn failed(&self, action: &str, failure: &Failure) -> RegistryError {
        RegistryError::Client {
            action: action.to_owned(),
            registry: self.authority.clone(),
            message: failure.to_string(),
            reason: failure.reason(),
            hint: failure.hint(&|| self.http.auth.refused(&self.authority)),
        }
    }

    /// The error of a command that only reads: nothing could have become visible.
    fn unread(&self, action: &str, failure: &Failure) -> RegistryError {
        let mut error = self.failed(action, failure);
        if let RegistryError::Client { hint, .. } = &mut error {
            *hint = hint.trim_end_matches(failure::NOTHING_VISIBLE).trim_end().to_owned();
        }
        error
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Vec<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a blob is on its way there.
    fn is_coming(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let coming = |it: &Pending| it.digest == *digest && it.repository == *repository;
        self.pending().iter().any(coming)
    }

    /// Waits until every blob is there, and tells the first error of those that are not.
    fn settle(&self) -> Result<(), RegistryError> {
        let pending = std::mem::take(&mut *self.pending());
        let mut first = Ok(());
        for Pending { repository, digest, upload } in pending {
            let done = self.runtime.block_on(upload);
            let done = done.unwrap_or_else(|panic| Err(Failure::File(io::Error::other(panic))));
            if let (Err(failure), Ok(())) = (done, &first) {
                let action = format!("push blob {digest} to {repository}");
                first = Err(self.refused(&action, &repository, &failure));
            }
        }
        first
    }

    /// A manifest by tag or digest, and no other bytes than are a manifest's.
    fn pull(
        &self,
        action: &str,
        repository: &RepositoryName,
        reference: &str,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let accepted = format!("{}, {}", media_type::MANIFEST, media_type::INDEX);
        let scope = format!("repository:{repository}:pull");
        let pulled = self.run(action, async {
            let url = self.http.url(&format!("{repository}/manifests/{reference}"))?;
            let fill = |request: reqwest::RequestBuilder| request.header(ACCEPT, &accepted);
            let answer = match self.http.send(&scope, Method::GET, url, &fill).await {
                Ok(answer) => answer,
                Err(failure) if failure.is_not_found() => return Ok(None),
                Err(failure) => return Err(failure),
            };
            let limit = usize::try_from(MANIFEST_LIMIT).unwrap_or(usize::MAX);
            answer::read_limited(answer, limit).await.map(Some)
        })?;
        Ok(pulled.map(|bytes| bytes.to_vec()))
    }

    /// A document beside the repositories, as JSON and of at most `limit` bytes; `None` where the server has none.
    pub fn document(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, RegistryError> {
        let read = self.runtime.block_on(async {
            let url = self.http.beside(path)?;
            let fill =
                |request: reqwest::RequestBuilder| request.header(ACCEPT, "application/json");
            let answer = self.http.send("", Method::GET, url, &fill).await?;
            answer::read_limited(answer, limit).await
        });
        match read {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(self.unread(&format!("read /{path}"), &failure)),
        }
    }

    /// Stores a manifest under a tag or its digest, once everything it refers to is there.
    fn push(
        &self,
        repository: &RepositoryName,
        reference: &str,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Result<Stored, Failure>, RegistryError> {
        self.settle()?;
        let body = Bytes::copy_from_slice(bytes);
        Ok(self.runtime.block_on(async {
            let url = self.http.url(&format!("{repository}/manifests/{reference}"))?;
            let fill = |request: reqwest::RequestBuilder| {
                request.header(CONTENT_TYPE, &manifest.media_type).body(body.clone())
            };
            let scope = push_scope(repository);
            let answer = self.http.send(&scope, Method::PUT, url, &fill).await?;
            // distribution-spec §"Pushing Manifests with Subject".
            let listed = answer.headers().contains_key("oci-subject");
            Ok(if listed { Stored::ReferrersListed } else { Stored::ReferrersNotListed })
        }))
    }
}

impl Registry for RegistryClient {
    fn reference(&self) -> &Reference {
        &self.reference
    }

    fn may_mount_from(&self, repositories: &[RepositoryName]) {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = repositories.to_vec();
    }

    fn tagged(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        self.pull(&format!("read {repository}:{tag}"), repository, tag.as_str())
    }

    fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError> {
        let action = format!("read manifest {digest} of {repository}");
        let what = "manifest";
        match self.pull(&action, repository, &digest.to_string())? {
            None => Err(RegistryError::Missing { what, digest: digest.clone() }),
            Some(bytes) if digest.matches(&bytes) => Ok(bytes),
            Some(_) => Err(RegistryError::Digest { what, digest: digest.clone() }),
        }
    }

    fn has_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        let digest = &blob.digest;
        if self.is_coming(repository, digest) {
            return Ok(true);
        }
        let scope = push_scope(repository);
        self.run(&format!("look for blob {digest}"), async {
            match self.http.has_blob(&scope, repository, digest).await {
                Ok(true) => Ok(true),
                // One that does not answer who looks may answer who reads.
                Ok(false) | Err(Failure::Status { .. }) => {
                    Ok(self.http.open(&scope, repository, digest).await?.is_some())
                }
                Err(failure) => Err(failure),
            }
        })
    }

    fn open_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + '_>, RegistryError> {
        self.settle()?;
        let digest = blob.digest.clone();
        let action = format!("read blob {digest} of {repository}");
        let scope = format!("repository:{repository}:pull");
        let opened = self.run(&action, self.http.open(&scope, repository, &digest))?;
        match opened {
            Some(answer) => {
                // Where it is now, not the storage that its address led to for a while.
                let url = self.http.url(&format!("{repository}/blobs/{digest}"));
                let url = url.map_err(|failure| self.failed(&action, &failure))?;
                let (runtime, http) = (&self.runtime, &self.http);
                Ok(Box::new(BlobReader::new(runtime, http, action, scope, answer, url)))
            }
            None => Err(RegistryError::Missing { what: "blob", digest }),
        }
    }

    fn begin_blob(
        &self,
        repository: &RepositoryName,
    ) -> Result<Box<dyn BlobSink + '_>, RegistryError> {
        Ok(Box::new(Upload::new(self, repository)?))
    }

    fn put_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        // The sink looks whether it is there.
        super::store_blob(self, repository, blob, bytes)
    }

    fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<Stored, RegistryError> {
        let reference = manifest.digest.to_string();
        self.push(repository, &reference, manifest, bytes)?.or_else(|failure| {
            // One that is there already, and is refused for it.
            match self.pull("look again", repository, &reference) {
                Ok(Some(found)) if found == bytes => Ok(Stored::ReferrersNotListed),
                _ => Err(self.refused(&format!("push manifest {reference}"), repository, &failure)),
            }
        })
    }

    fn set_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        manifest: &Descriptor,
        bytes: &[u8],
        expect: Expect<'_>,
    ) -> Result<(), RegistryError> {
        let found = self.tagged(repository, tag)?.map(|bytes| Digest::sha256_of(&bytes));
        if !expect.allows(found.as_ref()) {
            let (repository, tag) = (repository.clone(), tag.clone());
            return Err(RegistryError::Moved { repository, tag });
        }
        if found.as_ref() == Some(&manifest.digest) {
            return Ok(());
        }
        let Err(failure) = self.push(repository, tag.as_str(), manifest, bytes)? else {
            return Ok(());
        };
        let error = self.refused(&format!("push {repository}:{tag}"), repository, &failure);
        if !matches!(failure, Failure::Status { .. }) {
            return Err(error);
        }
        // An answer was lost and the request repeated, or the tag cannot be moved.
        match self.tagged(repository, tag)? {
            Some(there) if manifest.digest.matches(&there) => Ok(()),
            Some(_) => {
                let (repository, tag, said) =
                    (repository.clone(), tag.clone(), failure.to_string());
                Err(RegistryError::TagTaken { repository, tag, said })
            }
            None => Err(error),
        }
    }

    fn tags(&self, repository: &RepositoryName) -> Result<Vec<Listed>, RegistryError> {
        self.list_tags(repository)
    }

    fn remove_tags(
        &self,
        repository: &RepositoryName,
        tags: &[Listed],
    ) -> Result<Removal, RegistryError> {
        Ok(self.remove_each(repository, tags))
    }

    fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        self.list_referrers(repository, subject)
    }
}

impl Drop for RegistryClient {
    fn drop(&mut self) {
        // Nobody waits for these any more: what they carry is not referred to.
        for pending in self.pending().drain(..) {
            pending.upload.abort();
        }
    }
}
