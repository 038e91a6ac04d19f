//! Registries over HTTP, through `oci-client`. Its types and its runtime stay in this file.
//!
//! Manifests travel as the bytes that were signed, never parsed and written again. Blobs go up in
//! one streamed request each, from a temporary file: the digest has to be known before the upload
//! ends, and a whole image does not fit into memory.

use std::error::Error as _;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use formats::digest::Digest;
use formats::oci::{Descriptor, RepositoryName, Tag, media_type};
use formats::reason::Reason;
use formats::reference::Reference;
use futures_core::Stream;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as ImageReference};

use super::{BlobSink, Expect, Registry, RegistryError};
use crate::progress::Progress;

/// 1 MiB per body frame: smaller ones cost throughput (`oci.md` §1).
const PART: usize = 1 << 20;
/// A registry that is silent for this long is gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than any handshake over a bad line.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// 16 KiB: larger than any token we know of; bounds what a wrong path makes us read.
const TOKEN_LIMIT: u64 = 16 << 10;

/// How registries are reached. Does nothing for directories and archives.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Trust only the certificates of this PEM file instead of the system's.
    pub ca: Option<PathBuf>,
    /// A file with a bearer token; its owner's only.
    pub token_file: Option<PathBuf>,
    /// HTTP without TLS; loopback addresses only.
    pub plain_http: bool,
}

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
        Ok(Box::new(Upload { registry: self, repository: repository.clone(), file }))
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
}

impl Write for Upload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobSink for Upload<'_> {
    fn finish(
        mut self: Box<Self>,
        blob: &Descriptor,
        progress: &Progress,
    ) -> Result<(), RegistryError> {
        if self.registry.has_blob(&self.repository, blob)? {
            return Ok(());
        }
        self.file.rewind().map_err(spool)?;
        let registry = self.registry;
        let image = registry.by_digest(&self.repository, &blob.digest);
        let digest = blob.digest.to_string();
        // The registry compares the bytes with the digest and refuses others.
        let stream = FileStream { file: self.file, left: blob.size, progress: progress.clone() };
        let push = registry.client.push_blob_stream(&image, stream, &digest, Some(blob.size));
        registry.run(&format!("push blob {digest} to {}", self.repository), push)?;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> RegistryError {
        spool(source)
    }
}

fn spool(source: io::Error) -> RegistryError {
    RegistryError::Spool { path: std::env::temp_dir(), source }
}

/// The first `left` bytes of a file. Reads block; nothing else runs on this runtime.
struct FileStream {
    file: File,
    left: u64,
    progress: Progress,
}

impl Stream for FileStream {
    type Item = Result<Bytes, OciDistributionError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut part = Vec::with_capacity(PART);
        let limit = self.left.min(PART as u64);
        if let Err(error) = (&self.file).take(limit).read_to_end(&mut part) {
            return Poll::Ready(Some(Err(error.into())));
        }
        if part.len() as u64 != limit {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())));
        }
        self.left -= limit;
        self.progress.add(limit);
        Poll::Ready(Some(Ok(part.into())))
    }
}

/// A download as a blocking reader.
struct BlobReader<'a, S> {
    runtime: &'a tokio::runtime::Runtime,
    stream: S,
    rest: Bytes,
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Read for BlobReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let stream = &mut self.stream;
            let next = std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context));
            match self.runtime.block_on(next) {
                Some(part) => self.rest = part?,
                None => return Ok(0),
            }
        }
        let part = self.rest.split_to(buffer.len().min(self.rest.len()));
        if let Some(space) = buffer.get_mut(..part.len()) {
            space.copy_from_slice(&part);
        }
        Ok(part.len())
    }
}

/// `localhost`, 127.0.0.0/8 and ::1, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn read_ca(path: &Path) -> Result<Certificate, RegistryError> {
    let failed = |why: String| RegistryError::Credential {
        what: "certificate file",
        path: path.to_owned(),
        why,
        reason: Reason::Config,
    };
    let data = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    if !data.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(failed("holds no PEM certificate".to_owned()));
    }
    Ok(Certificate { encoding: CertificateEncoding::Pem, data })
}

fn read_token(path: &Path) -> Result<String, RegistryError> {
    let failed = |why: String, reason| RegistryError::Credential {
        what: "token file",
        path: path.to_owned(),
        why,
        reason,
    };
    let open = |error: io::Error| failed(error.to_string(), Reason::Config);
    let file = File::open(path).map_err(open)?;
    let stat = rustix::fs::fstat(&file).map_err(|error| open(error.into()))?;
    if stat.st_mode & 0o007 != 0 {
        let why = format!("open to everybody (mode {:03o}); chmod 600", stat.st_mode & 0o777);
        return Err(failed(why, Reason::InsecurePerms));
    }
    let mut text = String::new();
    file.take(TOKEN_LIMIT).read_to_string(&mut text).map_err(open)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed("holds no token".to_owned(), Reason::Config));
    }
    Ok(token.to_owned())
}

fn is_not_found(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => {
            !envelope.errors.is_empty()
                && envelope.errors.iter().all(|error| {
                    matches!(
                        error.code,
                        OciErrorCode::ManifestUnknown
                            | OciErrorCode::NameUnknown
                            | OciErrorCode::BlobUnknown
                            | OciErrorCode::NotFound
                    )
                })
        }
        _ => false,
    }
}

fn reason_of(error: &OciDistributionError) -> Reason {
    match error {
        OciDistributionError::DigestError(_) => Reason::HashMismatch,
        OciDistributionError::RequestError(error) if error.is_timeout() => Reason::Timeout,
        OciDistributionError::RequestError(error) if error.is_redirect() => Reason::RedirectRefused,
        OciDistributionError::RequestError(error) if is_tls(error) => Reason::Tls,
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => {
            Reason::Unreachable
        }
        _ => Reason::HttpStatus,
    }
}

fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        next = match error.downcast_ref::<io::Error>() {
            // An io::Error names its content's source as its own and hides the content.
            Some(error) => error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    false
}

/// An error with its causes; each part once.
fn chain(error: &OciDistributionError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for (authority, loopback) in [
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("localhost:80", true),
            ("[::1]:5000", true),
            ("192.0.2.1:5000", false),
            ("127.0.0.1.example:5000", false),
            ("registry.example", false),
            ("[2001:db8::1]", false),
        ] {
            assert_eq!(is_loopback(authority), loopback, "{authority}");
        }
    }
}
