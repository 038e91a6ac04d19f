//! The server's side of TLS: 1.3 and 1.2 through rustls with ring, HTTP/2 and HTTP/1.1 by ALPN.

use std::io::ErrorKind;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use storage::FileError;
use storage::StoreError;
use storage::secret::{self, Readers, Rule};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::error::ServerError;

/// 1 MiB: four times the largest collection of public roots.
const FILE_LIMIT: u64 = 1 << 20;

/// The ALPN name of HTTP/2.
pub(crate) const H2: &[u8] = b"h2";

/// Reads certificate and key and makes what accepts connections.
pub(crate) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, ServerError> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| ServerError::Tls {
        path: path.to_owned(),
        why: why.to_string(),
    };
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key, "TLS key")?)
        .map_err(|error| wrong(&files.key, &error))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.certificate, &error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| wrong(path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            ServerError::TlsPair { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        error => wrong(&files.certificate, &error),
    })?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(|error| wrong(&files.key, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificates of a file, as those that vouch for others.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, ServerError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| ServerError::Tls { path: path.to_owned(), why: error.to_string() })?;
    }
    Ok(roots)
}

/// No other user may be able to change these. Who may read the key is up to its owner: certificate tools and
/// Kubernetes leave it at various modes.
fn read(path: &Path, what: &'static str) -> Result<impl Deref<Target = Vec<u8>>, ServerError> {
    let read = secret::read(path, FILE_LIMIT, Rule::of(Readers::Everybody));
    read.map_err(|error| match error {
        StoreError::Read(FileError::Io { source, .. }) if source.kind() != ErrorKind::NotFound => {
            ServerError::Tls { path: path.to_owned(), why: source.to_string() }
        }
        error => ServerError::unread(what, path, error),
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let wrong = |why: String| ServerError::Tls { path: path.to_owned(), why };
    let pem = read(path, "certificate file")?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong("there is no certificate in it".to_owned())),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(error.to_string())),
    }
}
