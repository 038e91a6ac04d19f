//! Certificates of a CA made for one test, and clients that trust it.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use repo_server::TlsFiles;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A CA, a server certificate for 127.0.0.1 and a client certificate, in files.
pub struct Keys {
    pub ca: CertificateDer<'static>,
    pub client: (CertificateDer<'static>, PrivateKeyDer<'static>),
    pub files: TlsFiles,
}

pub fn keys(dir: &Path) -> Keys {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::from_params(&params, &ca_key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (server, server_key) = issue("127.0.0.1");
    let (client, client_key) = issue("node-1");
    let files = TlsFiles {
        certificate: dir.join("server.pem"),
        key: dir.join("server.key"),
        client_ca: Some(dir.join("ca.pem")),
    };
    std::fs::write(&files.certificate, server.pem()).unwrap();
    super::write_private(&files.key, &server_key.serialize_pem());
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    let client_key = PrivateKeyDer::try_from(client_key.serialize_der()).unwrap();
    Keys { ca: ca.der().clone(), client: (client.der().clone(), client_key), files }
}

pub fn client(
    keys: &Keys,
    versions: &[&'static SupportedProtocolVersion],
    with_certificate: bool,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(keys.ca.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
    if with_certificate {
        let (certificate, key) = &keys.client;
        builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap()
    } else {
        builder.with_no_client_auth()
    }
}
