//! Registries over HTTP, through `oci-client`. Its types and its runtime stay in this file.
//!
//! Manifests travel as the bytes that were signed, never parsed and written again. Blobs go up in
//! one streamed request each, from a temporary file: the digest has to be known before the upload
//! ends, and a whole image does not fit into memory.

mod credentials;
mod failure;
mod transfer;

use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, Write};
use std::time::Duration;

use bytes::Bytes;
use formats::digest::{Algorithm, Digest, Hasher};
use formats::oci::{Descriptor, RepositoryName, Tag, media_type};
use formats::reason::Reason;
use formats::reference::Reference;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as ImageReference};

use self::credentials::{is_loopback, read_ca, read_token};
use self::failure::{chain, is_not_found, reason_of};
use self::transfer::{BlobReader, FileStream};
use super::{BlobSink, ClientOptions, Expect, Registry, RegistryError};
use crate::progress::Progress;

/// A registry that is silent for this long is gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any handshake over a bad line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A registry.
pub struct RegistryClient {
    reference: Reference,
    authority: String,
    client: Client,
    auth: RegistryAuth,
    runtime: tokio::runtime::Runtime,
}

impl RegistryClient {
    /// Prepares a client; connects only when it is used.
    pub fn connect(reference: Reference, options: &ClientOptions) -> Result<Self, RegistryError> {
        let Reference::Registry { authority, .. } = &reference else {
            return Err(RegistryError::ReadOnly(reference.to_string()));
        };
        let authority = authority.clone();
        if options.plain_http && !is_loopback(&authority) {
            return Err(RegistryError::PlainHttp(authority));
        }
        // Fails when another part of the program chose a provider already; that one is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = options.ca.as_deref().map(read_ca).transpose()?;
        let auth = match options.token_file.as_deref() {
            Some(path) => RegistryAuth::Bearer(read_token(path)?),
            None => RegistryAuth::Anonymous,
        };
        let failed = |message: String| RegistryError::Client {
            action: "prepare the client".to_owned(),
            registry: authority.clone(),
            message,
            reason: Reason::Config,
        };
        let config = ClientConfig {
            protocol: if options.plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
            use_monolithic_push: true,
            tls_certs_only: ca.into_iter().collect(),
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: concat!("racklet-signer/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| failed(chain(&error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        Ok(RegistryClient { reference, authority, client, auth, runtime })
    }

    fn run<T>(
        &self,
        action: &str,
        work: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, RegistryError> {
        self.runtime.block_on(work).map_err(|error| self.failed(action, &error))
    }

    /// `None` when the registry says that there is no such thing, and only then.
    fn run_optional<T>(
        &self,
        action: &str,
        work: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<Option<T>, RegistryError> {
        match self.runtime.block_on(work) {
            Ok(value) => Ok(Some(value)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(self.failed(action, &error)),
        }
    }

    fn failed(&self, action: &str, error: &OciDistributionError) -> RegistryError {
        RegistryError::Client {
            action: action.to_owned(),
            registry: self.authority.clone(),
            message: chain(error),
            reason: reason_of(error),
        }
    }

    fn by_tag(&self, repository: &RepositoryName, tag: &str) -> ImageReference {
        ImageReference::with_tag(
            self.authority.clone(),
            repository.as_str().to_owned(),
            tag.to_owned(),
        )
    }

    fn by_digest(&self, repository: &RepositoryName, digest: &Digest) -> ImageReference {
        ImageReference::with_digest(
            self.authority.clone(),
            repository.as_str().to_owned(),
            digest.to_string(),
        )
    }

    /// Blob calls take no credentials; this is what stores them.
    fn authenticate(&self) {
        self.runtime.block_on(self.client.store_auth_if_needed(&self.authority, &self.auth));
    }

    fn push(
        &self,
        image: &ImageReference,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        self.authenticate();
        let action = format!("push manifest {}", manifest.digest);
        let content_type = manifest.media_type.parse().map_err(|_| RegistryError::Client {
            action: action.clone(),
            registry: self.authority.clone(),
            message: format!("{:?} is not a media type", manifest.media_type),
            reason: Reason::BundleFormat,
        })?;
        let body = Bytes::copy_from_slice(bytes);
        self.run(&action, self.client.push_manifest_raw(image, body, content_type))?;
        Ok(())
    }
}

impl Registry for RegistryClient {
    fn reference(&self) -> &Reference {
        &self.reference
    }

    fn tagged(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let image = self.by_tag(repository, tag.as_str());
        let action = format!("read {repository}:{tag}");
        let accepted = [media_type::MANIFEST, media_type::INDEX];
        let pull = self.client.pull_manifest_raw(&image, &self.auth, &accepted);
        Ok(self.run_optional(&action, pull)?.map(|(bytes, _)| bytes.to_vec()))
    }

    fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<u8>, RegistryError> {
        let image = self.by_digest(repository, digest);
        let action = format!("read manifest {digest} of {repository}");
        let accepted = [media_type::MANIFEST, media_type::INDEX];
        let pull = self.client.pull_manifest_raw(&image, &self.auth, &accepted);
        let what = "manifest";
        match self.run_optional(&action, pull)? {
            None => Err(RegistryError::Missing { what, digest: digest.clone() }),
            Some((bytes, _)) if digest.matches(&bytes) => Ok(bytes.to_vec()),
            Some(_) => Err(RegistryError::Digest { what, digest: digest.clone() }),
        }
    }

    fn has_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        self.authenticate();
        let image = self.by_digest(repository, &blob.digest);
        let digest = blob.digest.to_string();
        self.run(&format!("look for blob {digest}"), self.client.blob_exists(&image, &digest))
    }

    fn open_blob(
        &self,
        repository: &RepositoryName,
        blob: &Descriptor,
    ) -> Result<Box<dyn Read + '_>, RegistryError> {
        self.authenticate();
        let image = self.by_digest(repository, &blob.digest);
        let digest = blob.digest.to_string();
        let action = format!("read blob {digest} of {repository}");
        let pull = self.client.pull_blob_stream(&image, digest.as_str());
        match self.run_optional(&action, pull)? {
            Some(stream) => {
                let (stream, rest) = (stream.stream, Bytes::new());
                Ok(Box::new(BlobReader { runtime: &self.runtime, stream, rest }))
            }
            None => Err(RegistryError::Missing { what: "blob", digest: blob.digest.clone() }),
        }
    }

    fn begin_blob(
        &self,
        repository: &RepositoryName,
    ) -> Result<Box<dyn BlobSink + '_>, RegistryError> {
        let file = tempfile::tempfile().map_err(spool)?;
        let (repository, hasher) = (repository.clone(), Algorithm::Sha256.hasher());
        Ok(Box::new(Upload { registry: self, repository, file, hasher, len: 0 }))
    }

    fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        // As a tag that reads like a digest: the request is the same, and oci-client 0.18 panics
        // on a digest reference when the registry's answer has no Location.
        self.push(&self.by_tag(repository, &manifest.digest.to_string()), manifest, bytes)
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
        self.push(&self.by_tag(repository, tag.as_str()), manifest, bytes)
    }
}

/// A blob in a file without a name, until it is uploaded.
struct Upload<'a> {
    registry: &'a RegistryClient,
    repository: RepositoryName,
    file: File,
    hasher: Hasher,
    len: u64,
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
        let blob = Descriptor::new(media_type::IMAGE_BLOB, digest.clone(), len);
        if registry.has_blob(&repository, &blob)? {
            return Ok(digest);
        }
        file.rewind().map_err(spool)?;
        let image = registry.by_digest(&repository, &digest);
        let text = digest.to_string();
        // The registry compares the bytes with the digest and refuses others.
        let stream = FileStream { file, left: len, progress: progress.clone() };
        let push = registry.client.push_blob_stream(&image, stream, &text, Some(len));
        registry.run(&format!("push blob {text} to {repository}"), push)?;
        Ok(digest)
    }

    fn failed(&self, source: io::Error) -> RegistryError {
        spool(source)
    }
}

fn spool(source: io::Error) -> RegistryError {
    RegistryError::Spool { path: std::env::temp_dir(), source }
}
