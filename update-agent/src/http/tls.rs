//! The TLS configuration: who may sign a server's certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use storage::files::StoreError;
use storage::secret::{self, Readers, Rule};

use super::HttpError;

/// 1 MiB: four times the largest collection of public roots.
const CA_LIMIT: u64 = 1 << 20;

/// TLS 1.2 and 1.3, HTTP/2 offered before HTTP/1.1.
///
/// With a CA file, only its certificates are trusted; otherwise the system's. The transport is
/// not what the update's safety rests on, but it keeps tokens and what a node fetches private.
pub(crate) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, HttpError> {
    let roots = match ca {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring implements the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, HttpError> {
    let fail = |why: String| HttpError::Setup { what: format!("CA file {}", path.display()), why };
    // Whoever could change it would be shown the token.
    let pem =
        secret::read(path, CA_LIMIT, Rule::of(Readers::Everybody)).map_err(
            |error| match error {
                StoreError::TooLarge { .. } => {
                    fail("larger than 1 MiB: name only the CA of this repository".to_owned())
                }
                error => HttpError::unread("CA file", path, error),
            },
        )?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| fail(format!("not PEM: {error:?}")))?;
        roots.add(certificate).map_err(|error| fail(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fail("holds no `BEGIN CERTIFICATE` block".to_owned()));
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, HttpError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry the odd certificate that webpki refuses; the others still count.
    let (added, _refused) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(HttpError::Setup {
            what: "the system's CA certificates".to_owned(),
            why: format!("none found{why}: install ca-certificates, or name a file with `ca`"),
        });
    }
    Ok(roots)
}

/// What a failed handshake means to the operator.
pub(crate) fn explain(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    let hint = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            ": name the repository's CA with `ca`"
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => ": check this node's clock, then the server's certificate",
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => ": the certificate belongs to another host",
        Error::InvalidMessage(_) => {
            ": the server may speak plain HTTP on this port (plain_http = true; loopback only)"
        }
        // webpki's own words, which rustls hands on as a debug text.
        Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            return "the server's certificate is a CA itself: sign a server certificate with it, \
                    see docs/server.md"
                .to_owned();
        }
        _ => "",
    };
    format!("{error}{hint}")
}
