//! The TLS configuration of a source: its CA, and what proves this node, from their files.

use std::path::Path;
use std::sync::Arc;

use registry_auth::tls::{self, Identity, IdentityError, PEM_LIMIT};
use rustls::ClientConfig;
use storage::secret::{self, Readers, Rule};

use super::{HttpError, Options};

/// TLS 1.2 and 1.3, HTTP/2 offered before HTTP/1.1.
///
/// With a CA file, only its certificates are trusted; otherwise the system's. The transport is
/// not what the update's safety rests on, but it keeps tokens and what a node fetches private.
pub(crate) fn client_config(options: &Options) -> Result<Arc<ClientConfig>, HttpError> {
    let roots = match &options.ca {
        Some(path) => {
            // Whoever could change it would be shown the token.
            let pem = read("CA file", path, Readers::Everybody)?;
            tls::certificates(&pem)
                .and_then(tls::roots)
                .map_err(|why| fail("CA file", path, why))?
        }
        None => tls::system_roots().map_err(|why| HttpError::Setup {
            what: "the system's CA certificates".to_owned(),
            why: format!("{why} with `ca`"),
        })?,
    };
    let identity = identity(options)?;
    let config = tls::client_config(roots, identity, &[b"h2", b"http/1.1"]);
    config.map(Arc::new).map_err(|why| match &options.client_key {
        Some(path) => fail("client key", path, why),
        None => HttpError::Setup { what: "TLS".to_owned(), why },
    })
}

fn identity(options: &Options) -> Result<Option<Identity>, HttpError> {
    let (certificate, key) = match (&options.client_cert, &options.client_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => {
            let what = "client certificate".to_owned();
            let why = "client_cert and client_key go together".to_owned();
            return Err(HttpError::Setup { what, why });
        }
    };
    let chain = read("client certificate", certificate, Readers::Everybody)?;
    let secret = read("client key", key, Readers::Group)?;
    tls::identity(&chain, &secret).map(Some).map_err(|error| match error {
        IdentityError::Certificate(why) => fail("client certificate", certificate, why),
        IdentityError::Key(why) => fail("client key", key, why),
    })
}

fn read(
    what: &'static str,
    path: &Path,
    readers: Readers,
) -> Result<impl AsRef<[u8]> + std::ops::Deref<Target = Vec<u8>>, HttpError> {
    secret::read(path, PEM_LIMIT, Rule::of(readers))
        .map_err(|error| HttpError::unread(what, path, error))
}

fn fail(what: &str, path: &Path, why: String) -> HttpError {
    HttpError::Setup { what: format!("{what} {}", path.display()), why }
}
