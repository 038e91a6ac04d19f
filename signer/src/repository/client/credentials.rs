//! Certificates and tokens from the files that options and registries name.

use std::ffi::OsString;
use std::path::Path;

use formats::reason::Reason;
use registry_auth::certs_d;
use registry_auth::tls::{self, Identity, IdentityError, PEM_LIMIT};
use registry_auth::{Credential, Secret};
use storage::FileError;
use storage::StoreError;
use storage::secret::{self, Readers, Rule};
use zeroize::Zeroizing;

use super::super::{ClientOptions, RegistryError};

/// A credential and the file it is from.
#[derive(Debug, Clone)]
pub(super) struct FoundCredential {
    pub(super) credential: Credential,
    pub(super) file: String,
}

/// 16 KiB: larger than any token we know of; bounds what a wrong path makes us read.
const TOKEN_LIMIT: u64 = 16 << 10;

const CA: &str = "certificate file";
const CERT: &str = "client certificate";
const KEY: &str = "client key";

/// The token of `--token-file`.
pub(super) fn read_token(path: &Path) -> Result<FoundCredential, RegistryError> {
    let what = "token file";
    let rule = Rule::of(Readers::Group).or_pipe();
    let bytes = secret::read(path, TOKEN_LIMIT, rule).map_err(|error| unread(what, path, error))?;
    let token = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed(what, path, "holds no token".to_owned()));
    }
    let credential = Credential::Bearer(Secret::new(token));
    Ok(FoundCredential { credential, file: path.display().to_string() })
}

/// TLS with a registry: as the options say, else with what lies in its folder of `certs.d`.
pub(super) fn tls_config(
    options: &ClientOptions,
    authority: &str,
) -> Result<rustls::ClientConfig, RegistryError> {
    let setup = |what, why: String| failed(what, Path::new(authority), why);
    let found = match options.plain_http {
        true => certs_d::Files::default(),
        false => certs_of(authority)?,
    };
    let mut roots = match &options.ca {
        Some(path) => tls::roots(certificates(CA, path)?).map_err(|why| failed(CA, path, why))?,
        None => match tls::system_roots() {
            Ok(roots) => roots,
            // Where no certificate is looked at, or others are there, they are not needed.
            Err(_) if options.plain_http || !found.cas.is_empty() => rustls::RootCertStore::empty(),
            Err(why) => {
                return Err(setup("the system's CA certificates", format!("{why} with --ca")));
            }
        },
    };
    if options.ca.is_none() {
        for path in &found.cas {
            let further = tls::roots(certificates(CA, path)?);
            roots.extend(further.map_err(|why| failed(CA, path, why))?.roots);
        }
    }
    let client = options.client_cert.clone().zip(options.client_key.clone()).or(found.client);
    let identity = match &client {
        Some((certificate, key)) => Some(identity(certificate, key)?),
        None => None,
    };
    // One request on a connection: what registries and the proxies before them are used to.
    tls::client_config(roots, identity, &[b"http/1.1"]).map_err(|why| match &client {
        Some((_, key)) => failed(KEY, key, why),
        None => setup("TLS", why),
    })
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, RegistryError> {
    let chain = read(CERT, certificate, Readers::Everybody)?;
    let secret = read(KEY, key, Readers::Group)?;
    tls::identity(&chain, &secret).map_err(|error| match error {
        IdentityError::Certificate(why) => failed(CERT, certificate, why),
        IdentityError::Key(why) => failed(KEY, key, why),
    })
}

/// What the first folder of `certs.d` for this registry holds.
fn certs_of(authority: &str) -> Result<certs_d::Files, RegistryError> {
    for directory in certs_d::directories(authority, |name| std::env::var_os(name)) {
        // A folder that is not there, or not for us, holds nothing for us.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        return certs_d::sort_out(&directory, &names)
            .map_err(|why| failed("certificate folder", &directory, why));
    }
    Ok(certs_d::Files::default())
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, RegistryError> {
    // Whoever could change it would be shown the token.
    let pem = read(what, path, Readers::Everybody)?;
    tls::certificates(&pem).map_err(|why| failed(what, path, why))
}

fn read(
    what: &'static str,
    path: &Path,
    readers: Readers,
) -> Result<Zeroizing<Vec<u8>>, RegistryError> {
    secret::read(path, PEM_LIMIT, Rule::of(readers)).map_err(|error| unread(what, path, error))
}

fn failed(what: &'static str, path: &Path, why: String) -> RegistryError {
    RegistryError::Credential { what, path: path.to_owned(), why, reason: Reason::Config }
}

/// What kept a file from being read, with the command that mends it.
pub(super) fn unread(what: &'static str, path: &Path, error: StoreError) -> RegistryError {
    let (path, why, reason) = match error {
        StoreError::InsecurePerms { path, why, remedy } => {
            (path, format!("{why}; run `{remedy}`"), Reason::InsecurePerms)
        }
        StoreError::Read(FileError::Io { source, .. }) => {
            (path.to_owned(), source.to_string(), Reason::Config)
        }
        StoreError::Read(FileError::NotRegular(_)) => {
            (path.to_owned(), "it is not a regular file".to_owned(), Reason::Config)
        }
        other => (path.to_owned(), other.to_string(), Reason::Config),
    };
    RegistryError::Credential { what, path, why, reason }
}
