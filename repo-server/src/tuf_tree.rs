//! A classic TUF repository, found in OCI: which bytes `/metadata/<file>` and
//! `/targets/<dir>/<sha256>.<name>` stand for.
//!
//! | asked for | is |
//! |---|---|
//! | `/metadata/<file>` | the layer of `[ns/]tuf:latest` whose `tuf.io/filename` is `<file>` |
//! | `/targets/<dir>/<sha256>.<name>` | the manifest of `[ns/]<dir>` with that digest, else the blob of `[ns/]tuf` with it |
//!
//! Names only select; bytes are found by digest and checked like every other blob.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use formats::digest::{Digest, Sha256};
use formats::error_chain;
use formats::oci::{Manifest, RepositoryName, Tag, annotation, media_type};
use formats::reference::Namespace;
use signer::published::TUF_REPOSITORY;

use crate::error::ServerError;
use crate::lock::LockMutex as _;
use crate::route::Reference;
use crate::store::{Store, StoreError};

/// States before the current one that `/metadata` still knows: clients that began a refresh some
/// publications ago can finish it.
const OLDER_STATES: usize = 32;

/// More than one repository could be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("several namespaces have a TUF repository ({0}); start the server with --namespace")]
pub(crate) struct Ambiguous(String);

type Files = Arc<BTreeMap<String, Digest>>;

/// The TUF tree of one server.
#[derive(Debug)]
pub(crate) struct TufTree {
    /// As configured.
    configured: Option<RepositoryName>,
    /// Where none is configured: the one that was the only one when somebody looked. It stays, so
    /// that a push into another namespace changes nothing.
    chosen: Mutex<Option<RepositoryName>>,
    /// The log knows that several could be meant.
    told: AtomicBool,
    /// File names of states read before, by the state manifest's digest.
    states: Mutex<HashMap<Digest, Files>>,
}

impl TufTree {
    /// The tree of `[namespace/]tuf`, or of the only `tuf` repository there is.
    pub(crate) fn new(namespace: Option<&str>) -> Result<Self, ServerError> {
        let name = |text: &str| text.parse::<Namespace>()?.repository("tuf");
        let configured = namespace.map(name).transpose();
        let configured = configured.map_err(|error| {
            ServerError::Config(format!("--namespace: {}", error_chain(&error)))
        })?;
        let (chosen, told, states) = Default::default();
        Ok(TufTree { configured, chosen, told, states })
    }

    /// The metadata file of that name. Blocks.
    pub(crate) fn metadata(
        &self,
        store: &Store,
        file: &str,
    ) -> Result<Result<Option<Digest>, Ambiguous>, StoreError> {
        store.refresh()?;
        let tuf = match self.repository(store) {
            Ok(Some(tuf)) => tuf,
            Ok(None) => return Ok(Ok(None)),
            Err(error) => return Ok(Err(error)),
        };
        let older = match file {
            // It has no version in its name: only the current one is right.
            "timestamp.json" => 0,
            _ => OLDER_STATES,
        };
        for state in states(store, &tuf, older) {
            if let Some(found) = self.files(store, &tuf, &state)?.get(file) {
                return Ok(Ok(Some(found.clone())));
            }
        }
        Ok(Ok(None))
    }

    /// The target with that hash. Blocks.
    pub(crate) fn target(
        &self,
        store: &Store,
        dir: &str,
        hash: Sha256,
    ) -> Result<Result<Option<Digest>, Ambiguous>, StoreError> {
        store.refresh()?;
        let tuf = match self.repository(store) {
            Ok(Some(tuf)) => tuf,
            Ok(None) => return Ok(Ok(None)),
            Err(error) => return Ok(Err(error)),
        };
        let digest = Digest::from(hash);
        let prefix = tuf.as_str().strip_suffix("tuf").unwrap_or_default();
        let product = format!("{prefix}{dir}").parse::<RepositoryName>();
        if let Ok(product) = product
            && store.with(&product, |it| it.manifests.contains_key(&digest)) == Some(true)
        {
            return Ok(Ok(Some(digest)));
        }
        let shown = store.with(&tuf, |it| it.blobs.contains(&digest)) == Some(true);
        Ok(Ok(shown.then_some(digest)))
    }

    /// The TUF repository that is shown and watched. Looks into memory only.
    pub(crate) fn repository(&self, store: &Store) -> Result<Option<RepositoryName>, Ambiguous> {
        if let Some(configured) = &self.configured {
            return Ok(Some(configured.clone()));
        }
        let mut chosen = self.chosen.locked();
        let is_there = |name: &RepositoryName| store.with(name, |it| !it.tags.is_empty());
        if let Some(name) = chosen.as_ref().filter(|name| is_there(name) == Some(true)) {
            return Ok(Some(name.clone()));
        }
        let all = store.repositories().into_iter();
        let mut found = all.filter(|(name, tags)| *tags > 0 && is_tuf(name.as_str()));
        let first = found.next().map(|(name, _)| name);
        if let (Some(first), Some((second, _))) = (&first, found.next()) {
            let error = Ambiguous(format!("{first}, {second}, …"));
            if !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!(target: "tuf", %error, "none is shown, and no timestamp watched");
            }
            return Err(error);
        }
        if let Some(name) = &first {
            tracing::info!(target: "tuf", repository = %name, "shown; --namespace keeps it so");
        }
        *chosen = first.clone();
        Ok(first)
    }

    fn files(
        &self,
        store: &Store,
        tuf: &RepositoryName,
        state: &Reference,
    ) -> Result<Files, StoreError> {
        let Some((digest, _)) = store.resolve(tuf, state)? else { return Ok(Files::default()) };
        let known = |states: &Mutex<HashMap<Digest, Files>>| states.locked().get(&digest).cloned();
        if let Some(files) = known(&self.states) {
            return Ok(files);
        }
        let manifest = store.document(&digest)?.and_then(|bytes| Manifest::parse(&bytes).ok());
        let layers = manifest.map(|manifest| manifest.layers).unwrap_or_default();
        let files = layers.into_iter().filter(|layer| layer.media_type == media_type::TUF_METADATA);
        let files: Files = Arc::new(
            files
                .filter_map(|layer| {
                    let name = layer.annotation(annotation::TUF_FILENAME)?.to_owned();
                    Some((name, layer.digest))
                })
                .collect(),
        );
        let mut states = self.states.locked();
        if states.len() > 4 * OLDER_STATES {
            states.clear();
        }
        states.insert(digest, Arc::clone(&files));
        Ok(files)
    }
}

/// Whether a repository is one of TUF states, alone or below a namespace.
pub(crate) fn is_tuf(name: &str) -> bool {
    name.rsplit('/').next() == Some(TUF_REPOSITORY)
}

/// `latest`, then `ts-<n>` from the newest down.
fn states(store: &Store, tuf: &RepositoryName, older: usize) -> Vec<Reference> {
    let tags = store.with(tuf, |it| it.tags.keys().cloned().collect::<Vec<Tag>>());
    let mut numbered: Vec<(u64, Tag)> = tags
        .unwrap_or_default()
        .into_iter()
        .filter_map(|tag| Some((tag.as_str().strip_prefix("ts-")?.parse().ok()?, tag)))
        .collect();
    numbered.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    let latest = "latest".parse().expect("is a tag by the grammar");
    let older = numbered.into_iter().take(older).map(|(_, tag)| tag);
    std::iter::once(latest).chain(older).map(Reference::Tag).collect()
}
