//! What the server believes of the repository that it shows: what chains from the trust root that
//! its operator gave it (`--refresh-root`), and nothing else.
//!
//! ```text
//!  --refresh-root ─┐
//!  latest of [ns/]tuf ─► files, bounded ─► verified as nodes do it ─► alarm, renewal
//! ```
//!
//! A client that may push chooses the bytes. So all of them together are bounded, and none of them says
//! which root they are judged from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use formats::digest::Digest;
use formats::error_chain;
use formats::oci::{Manifest, RepositoryName, annotation, media_type};
use formats::reason::Reason;
use signer::published::Published;
use signer::state::{State, self_signed};

use crate::error::ServerError;
use crate::route::Reference;
use crate::store::{Store, StoreError};

/// 1 MiB: twice what nodes take for a root.
const ROOT_LIMIT: u64 = 1 << 20;

/// 5 MiB: what nodes take for the largest file, targets.
const FILE_LIMIT: u64 = 5 << 20;

/// 32 MiB: ten times the files of the largest repository we plan; bounds what a pusher makes us
/// read and hold at every look.
const STATE_LIMIT: u64 = 32 << 20;

/// Why a state is not believed, with its stable code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) text: String,
}

impl Refused {
    pub(crate) fn new(reason: Reason, text: impl fmt::Display) -> Self {
        Refused { reason, text: text.to_string() }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Refused::new(Reason::StoreIo, error_chain(&error))
    }
}

/// A trust root of the operator's.
#[derive(Clone)]
pub(crate) struct Anchor(Arc<Vec<u8>>);

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor of {} bytes", self.0.len())
    }
}

impl Anchor {
    /// Reads the root, which only root and the server's user may be able to change.
    pub(crate) fn read(path: &Path) -> Result<Self, ServerError> {
        let bytes = storage::private::read_trusted(path, ROOT_LIMIT)
            .map_err(|error| ServerError::trusted("--refresh-root", error))?;
        self_signed(&bytes, "the trust root").map_err(|error| {
            ServerError::Config(format!(
                "--refresh-root {}: {}",
                path.display(),
                error_chain(&error)
            ))
        })?;
        Ok(Anchor(Arc::new(bytes)))
    }

    /// The newest state of a repository, verified from this root. Blocks.
    pub(crate) fn load(&self, store: &Store, name: &RepositoryName) -> Result<Published, Refused> {
        let Some(manifest) = newest(store, name)? else {
            return Err(Refused::new(Reason::TargetNotFound, format!("{name} holds no state yet")));
        };
        let state = state(store, &manifest, Some(self))?;
        Ok(Published { manifest, state })
    }
}

/// The manifest of the newest state of a repository.
pub(crate) fn newest(store: &Store, name: &RepositoryName) -> Result<Option<Digest>, StoreError> {
    let latest = Reference::Tag("latest".parse().expect("is a tag by the grammar"));
    Ok(store.resolve(name, &latest)?.map(|(manifest, _)| manifest))
}

/// A state; without a root of the operator's it is only consistent in itself. Blocks.
pub(crate) fn state(
    store: &Store,
    manifest: &Digest,
    anchor: Option<&Anchor>,
) -> Result<State, Refused> {
    State::verify(&files(store, manifest)?, anchor.map(|anchor| anchor.0.as_slice()))
        .map_err(|error| Refused::new(error.reason(), error_chain(&error)))
}

/// The files of a state by their TUF names, verified against the manifest's digests only.
fn files(store: &Store, manifest: &Digest) -> Result<BTreeMap<String, Vec<u8>>, Refused> {
    let refused = |text: String| Refused::new(Reason::BundleFormat, text);
    let missing = |digest: &Digest| refused(format!("{digest} is missing, damaged or too large"));
    let bytes = store.document(manifest)?.ok_or_else(|| missing(manifest))?;
    let read = Manifest::parse(&bytes).map_err(|error| refused(error_chain(&error)))?;
    if read.artifact_type.as_deref() != Some(media_type::TUF_STATE) {
        return Err(refused("what `latest` stands for is no TUF state".to_owned()));
    }
    let (mut files, mut left) = (BTreeMap::new(), STATE_LIMIT);
    for layer in read.layers {
        let Some(file) = layer.annotation(annotation::TUF_FILENAME) else { continue };
        let bytes = store.bytes(&layer.digest, left.min(FILE_LIMIT))?;
        let bytes = bytes.ok_or_else(|| missing(&layer.digest))?;
        left = left.saturating_sub(bytes.len() as u64);
        if files.insert(file.to_owned(), bytes).is_some() {
            let file: String = file.chars().take(80).collect();
            return Err(refused(format!("the state holds {file:?} twice")));
        }
    }
    Ok(files)
}
