//! Opening a repository, and how registries are reached.

use std::path::PathBuf;

use formats::reference::Reference;

#[cfg(feature = "registry")]
use super::{Backoff, Patience, RegistryClient};
use super::{LayoutRepository, Registry, RegistryError};

/// How registries are reached. Does nothing for directories and archives.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Trust only the certificates of this PEM file instead of the system's.
    pub ca: Option<PathBuf>,
    /// A file with a bearer token; its owner's only.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificate that proves this client to the registry, and its chain.
    pub client_cert: Option<PathBuf>,
    /// A PEM file with its key; its owner's only.
    pub client_key: Option<PathBuf>,
    /// The host of the registry's token server, when it is another one.
    pub token_host: Option<String>,
    /// HTTP without TLS; loopback addresses only.
    pub plain_http: bool,
    /// How failures that pass are waited for.
    #[cfg(feature = "registry")]
    pub backoff: Backoff,
    /// When a transfer is abandoned.
    #[cfg(feature = "registry")]
    pub patience: Patience,
    /// Blobs of more bytes go up in pieces of so many; absent: whole, until that is refused.
    pub chunk_size: Option<u64>,
    /// Receives a line for every wait and retry; absent: they are silent.
    pub tell: Option<fn(&str)>,
}

/// What a repository is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading: also of archives, and of layouts whose references other tools shortened.
    Read,
    /// Publishing: a directory is made when it is missing.
    Write,
    /// Publishing to what is there: nothing is made for a name that was mistyped.
    Update,
}

/// Opens a repository.
pub fn open(
    reference: &Reference,
    access: Access,
    options: &ClientOptions,
) -> Result<Box<dyn Registry>, RegistryError> {
    match (reference, access) {
        #[cfg(feature = "registry")]
        (Reference::Registry { .. }, _) => {
            Ok(Box::new(RegistryClient::connect(reference.clone(), options)?))
        }
        #[cfg(not(feature = "registry"))]
        (Reference::Registry { .. }, _) => {
            let ClientOptions { .. } = options;
            Err(RegistryError::ReadOnly(reference.to_string()))
        }
        (Reference::Layout { .. }, Access::Write) => {
            Ok(Box::new(LayoutRepository::create(reference.clone())?))
        }
        (Reference::Layout { .. }, Access::Update) => {
            // Refuses what is no layout, and is closed again.
            LayoutRepository::open(reference.clone())?;
            Ok(Box::new(LayoutRepository::create(reference.clone())?))
        }
        (Reference::Archive { .. }, Access::Write | Access::Update) => {
            Err(RegistryError::ReadOnly(reference.to_string()))
        }
        (_, Access::Read) => Ok(Box::new(LayoutRepository::open(reference.clone())?)),
    }
}

/// A document that a server has beside its repositories, as JSON and of at most `limit` bytes.
pub fn document(
    server: &Reference,
    path: &str,
    limit: usize,
    options: &ClientOptions,
) -> Result<Option<Vec<u8>>, RegistryError> {
    #[cfg(feature = "registry")]
    return RegistryClient::connect(server.clone(), options)?.document(path, limit);
    #[cfg(not(feature = "registry"))]
    {
        let (ClientOptions { .. }, _, _) = (options, path, limit);
        Err(RegistryError::ReadOnly(server.to_string()))
    }
}
