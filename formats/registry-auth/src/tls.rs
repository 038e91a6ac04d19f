//! TLS with a registry: who may sign its certificate, and what proves this client.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// 1 MiB: four times the largest collection of public roots; the most to read of a PEM file.
pub const PEM_LIMIT: u64 = 1 << 20;

/// A client's certificate chain, leaf first, and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificates of a PEM file; at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    if pem.len() as u64 > PEM_LIMIT {
        return Err("is larger than 1 MiB: name only the CA of this repository".to_owned());
    }
    // A SEQUENCE of DER begins so, and no PEM does.
    if pem.starts_with(&[0x30, 0x82]) {
        return Err("is DER: `openssl x509 -inform der` makes PEM of it".to_owned());
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("is not PEM: {error:?}"))?;
    if found.is_empty() {
        return Err("holds no `BEGIN CERTIFICATE` block".to_owned());
    }
    Ok(found)
}

/// The roots of these certificates, which all must be fit for it.
pub fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// The system's roots. Reads them from its store, with `SSL_CERT_FILE` and `SSL_CERT_DIR`.
pub fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry the odd certificate that webpki refuses; the others still count.
    let (added, _refused) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!("none found{why}: install ca-certificates, or name a CA file"));
    }
    Ok(roots)
}

/// The chain of a client certificate's PEM file, and the key of another or the same one.
pub fn identity(certificate: &[u8], key: &[u8]) -> Result<Identity, IdentityError> {
    let chain = certificates(certificate).map_err(IdentityError::Certificate)?;
    if key.len() as u64 > PEM_LIMIT {
        return Err(IdentityError::Key("is larger than 1 MiB".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        IdentityError::Key(match error {
            rustls_pki_types::pem::Error::NoItemsFound => {
                "holds no unencrypted private key in PEM".to_owned()
            }
            // Its text quotes no key.
            error => format!("is not PEM: {error:?}"),
        })
    })?;
    Ok((chain, key))
}

/// Which of the two files is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificate.
    Certificate(String),
    /// The key.
    Key(String),
}

/// TLS 1.2 and 1.3 with these roots; `alpn` in order of preference.
///
/// Fails when the key is none that ring signs with, or not that of the certificate.
pub fn client_config(
    roots: RootCertStore,
    identity: Option<Identity>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring implements the default versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    "is not the key of the client certificate".to_owned()
                }
                error => error.to_string(),
            })?
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn files_that_hold_no_certificate_say_so() {
        let (certificate, key) = pair();
        assert_eq!(certificates(certificate.as_bytes()).unwrap().len(), 1);
        for (pem, wanted) in [
            (&b""[..], "BEGIN CERTIFICATE"),
            (b"hello", "BEGIN CERTIFICATE"),
            (key.as_bytes(), "BEGIN CERTIFICATE"),
            (b"0\x82\x01\x02", "DER"),
            (&vec![b' '; 2 << 20], "1 MiB"),
        ] {
            let why = certificates(pem).unwrap_err();
            assert!(why.contains(wanted), "{why}");
        }
        let broken = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        assert!(certificates(broken).and_then(roots).is_err());
    }

    #[test]
    fn a_client_certificate_needs_its_own_key() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        let config = |key: &str| {
            let identity = identity(certificate.as_bytes(), key.as_bytes()).unwrap();
            client_config(RootCertStore::empty(), Some(identity), &[]).map(drop)
        };
        assert_eq!(config(&key), Ok(()));
        assert!(config(&other).is_err());
        for (certificate, key) in [("x", key.as_str()), (&certificate, "x"), (&certificate, "")] {
            assert!(identity(certificate.as_bytes(), key.as_bytes()).is_err());
        }
    }
}
