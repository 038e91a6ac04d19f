//! `fleet`: what nodes report, asked of the server that collects it. The server's words are another machine's:
//! shown on one line each, without control characters.

mod affected;
mod locks;
mod status;

pub use affected::{AffectedReport, AffectedRequest, fleet_affected};
pub use status::{FleetReport, fleet_status};

use formats::error_chain;
use formats::reason::Reason;
use formats::reference::Reference;

use crate::error::SignerError;
use crate::repository::{ClientOptions, RegistryError, document};

/// Digits of a node's name, as `repo-server fleet approve` takes them.
const DIGITS: usize = 12;

/// A document of a server, of at most `limit` bytes.
fn asked(
    server: &Reference,
    path: &str,
    limit: usize,
    options: &ClientOptions,
) -> Result<Vec<u8>, SignerError> {
    let said = document(server, path, limit, options)?;
    said.ok_or_else(|| {
        let message = "this server keeps no reports of nodes".to_owned();
        let hint = "turn that on with `repo-server serve --fleet DIR`; docs/fleet.md has the steps";
        failed(server, path, message, hint)
    })
}

/// An answer that is not a repo-server's.
fn odd_answer(server: &Reference, path: &str, error: &serde_json::Error) -> SignerError {
    let message = format!("this is not what a repo-server says: {}", error_chain(error));
    failed(server, path, message, "")
}

fn failed(server: &Reference, path: &str, message: String, hint: &str) -> SignerError {
    let (action, registry) = (format!("read /{path}"), authority(server));
    let (reason, hint) = (Reason::HttpStatus, hint.to_owned());
    RegistryError::Client { action, registry, message, reason, hint }.into()
}

/// `HOST:PORT`
fn authority(server: &Reference) -> String {
    match server {
        Reference::Registry { authority, .. } => authority.clone(),
        other => other.to_string(),
    }
}
