//! The TUF state in a repository: one manifest under `tuf:latest`, one layer per file.
//!
//! ```text
//! [ns/]tuf:latest      artifactType application/vnd.racklet.tuf.v1, empty config
//!      :ts-<version>   the same manifest, for audits and as a root for garbage collection, until
//!                      `crate::retention` removes it
//!   layers             1.root.json … N.root.json, timestamp.json, S.snapshot.json, T.targets.json,
//!                      <v>.<role>.json, targets/<product>/channels/<name>.json
//! ```
//!
//! A reader sees one manifest, so it sees one state: moving `latest` is the moment of publishing.

use std::collections::BTreeMap;

use formats::digest::Digest;
use formats::oci::{
    Descriptor, EMPTY_CONFIG, MANIFEST_LIMIT, Manifest, OciError, RepositoryName, Tag, annotation,
    media_type,
};
use formats::reason::Reason;
use formats::tuf::OFFLINE_LIMIT;
use update_core::trust::Limits;

use crate::repository::{Beside, Expect, Move, Registry, RegistryError, keep};
use crate::state::{DOCUMENT_PREFIX, State, StateError};

/// Name of the repository that holds the metadata, below the namespace.
pub const TUF_REPOSITORY: &str = "tuf";
/// The tag readers poll.
pub const LATEST: &str = "latest";

/// Why the state of a repository cannot be read or moved.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// The repository failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What `tuf:latest` stands for is no manifest.
    #[error("tuf:latest")]
    Manifest(#[from] OciError),
    /// It is a manifest of something else.
    #[error("tuf:latest of {0} is not a TUF state; is it the right repository?")]
    OtherArtifact(String),
    /// Two layers of one name.
    #[error("tuf:latest holds {0:?} twice")]
    Twice(String),
    /// The metadata are not trustworthy.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is nothing yet.
    #[error("{0} holds no repository yet; make one with `signer init`")]
    Nothing(String),
}

impl PublishedError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            PublishedError::Registry(error) => error.reason(),
            PublishedError::State(error) => error.reason(),
            PublishedError::Manifest(_)
            | PublishedError::OtherArtifact(_)
            | PublishedError::Twice(_) => Reason::BundleFormat,
            PublishedError::Nothing(_) => Reason::TargetNotFound,
        }
    }
}

/// The files of a TUF state, verified only against the manifest's digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Digest of the manifest `tuf:latest` stood for.
    pub manifest: Digest,
    /// Contents by TUF file name.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Reads the files of the newest state; `None` when there is no repository yet.
pub fn fetch(registry: &dyn Registry) -> Result<Option<Files>, PublishedError> {
    fetch_tag(registry, &tag(LATEST)?)
}

/// Reads the files of the state that a tag stands for: `latest`, or `ts-N` for an older one.
pub fn fetch_tag(registry: &dyn Registry, tag: &Tag) -> Result<Option<Files>, PublishedError> {
    let repository = tuf_repository(registry)?;
    match registry.tagged(&repository, tag)? {
        Some(bytes) => files_of(registry, &repository, &bytes).map(Some),
        None => Ok(None),
    }
}

/// The reference of a bundle's offline statement.
pub const OFFLINE_REFERENCE: &str = "tuf:offline";

/// The offline statement of a bundle, not verified; a registry has none.
pub fn offline_statement(registry: &dyn Registry) -> Result<Option<Vec<u8>>, PublishedError> {
    let Some(layout) = registry.layout() else { return Ok(None) };
    let found = layout.resolve(OFFLINE_REFERENCE).map_err(RegistryError::from)?;
    let Some(found) = found else { return Ok(None) };
    let read = |digest, max| layout.read_blob(digest, max).map_err(RegistryError::from);
    let manifest = Manifest::parse(&read(&found.digest, MANIFEST_LIMIT)?)?;
    match manifest.layers.as_slice() {
        [only] => Ok(Some(read(&only.digest, OFFLINE_LIMIT)?)),
        _ => Err(PublishedError::OtherArtifact(registry.reference().to_string())),
    }
}

/// Reads the files of a state by the digest of its manifest.
pub fn fetch_digest(registry: &dyn Registry, digest: &Digest) -> Result<Files, PublishedError> {
    let repository = tuf_repository(registry)?;
    let bytes = registry.manifest(&repository, digest)?;
    files_of(registry, &repository, &bytes)
}

/// Digest of what `latest` stands for.
pub fn latest_digest(registry: &dyn Registry) -> Result<Option<Digest>, PublishedError> {
    let bytes = registry.tagged(&tuf_repository(registry)?, &tag(LATEST)?)?;
    Ok(bytes.map(|bytes| Digest::sha256_of(&bytes)))
}

fn files_of(
    registry: &dyn Registry,
    repository: &RepositoryName,
    bytes: &[u8],
) -> Result<Files, PublishedError> {
    let manifest = Manifest::parse(bytes)?;
    if manifest.artifact_type.as_deref() != Some(media_type::TUF_STATE) {
        return Err(PublishedError::OtherArtifact(registry.reference().to_string()));
    }
    let mut files = BTreeMap::new();
    for layer in &manifest.layers {
        let Some(name) = layer.annotation(annotation::TUF_FILENAME) else { continue };
        let bytes = registry.blob(repository, layer, "metadata file", limit_of(name))?;
        if files.insert(name.to_owned(), bytes).is_some() {
            return Err(PublishedError::Twice(name.chars().take(80).collect()));
        }
    }
    Ok(Files { manifest: Digest::sha256_of(bytes), files })
}

/// What is published, verified from a trust root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Digest of the manifest `tuf:latest` stood for.
    pub manifest: Digest,
    /// The metadata.
    pub state: State,
}

/// Reads and verifies the newest state. Without a trust root it is only consistent in itself.
pub fn load(
    registry: &dyn Registry,
    trust_root: Option<&[u8]>,
) -> Result<Published, PublishedError> {
    let nothing = || PublishedError::Nothing(registry.reference().to_string());
    let Files { manifest, files } = fetch(registry)?.ok_or_else(nothing)?;
    Ok(Published { manifest, state: State::verify(&files, trust_root)? })
}

/// The same, knowing what was loaded before from that trust root: what has not changed is not verified
/// again.
pub(crate) fn load_again(
    registry: &dyn Registry,
    trust_root: &[u8],
    known: Option<&Published>,
) -> Result<Published, PublishedError> {
    let nothing = || PublishedError::Nothing(registry.reference().to_string());
    let repository = tuf_repository(registry)?;
    let bytes = registry.tagged(&repository, &tag(LATEST)?)?.ok_or_else(nothing)?;
    if let Some(known) = known.filter(|known| known.manifest == Digest::sha256_of(&bytes)) {
        return Ok(known.clone());
    }
    let Files { manifest, files } = files_of(registry, &repository, &bytes)?;
    let known = known.map(|known| &known.state);
    Ok(Published { manifest, state: State::verify_again(&files, Some(trust_root), known)? })
}

/// A release index to be tagged right before the state that lists it becomes visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseTag {
    /// Its repository.
    pub repository: RepositoryName,
    /// Its version.
    pub tag: Tag,
    /// The index's descriptor.
    pub descriptor: Descriptor,
    /// The index's bytes.
    pub bytes: Vec<u8>,
}

/// What became visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// Digest of the manifest that `latest` stands for.
    pub manifest: Digest,
    /// Tags that are others than usual: the registry lets none be moved.
    pub beside: Vec<Beside>,
    /// The tag that keeps this state: `ts-N`, or one beside it.
    pub alias: Tag,
}

/// Stores a state and makes it the newest, in this order: layers, manifest, release tag, `ts-N`,
/// `latest`. In a directory the three tags move in one step.
///
/// Readers see the old state until the last step. `previous` is what `latest` stood for when the
/// state was planned; if it stands for something else now, nothing becomes visible.
pub fn publish(
    registry: &dyn Registry,
    previous: Option<&Digest>,
    state: &State,
    release: Option<&ReleaseTag>,
) -> Result<Visible, PublishedError> {
    let repository = tuf_repository(registry)?;
    let latest = tag(LATEST)?;
    let config = Descriptor::empty();
    registry.put_blob(&repository, &config, EMPTY_CONFIG)?;
    let mut layers = Vec::new();
    for (name, bytes) in state.files() {
        let layer = layer_of(&name, bytes);
        registry.put_blob(&repository, &layer, bytes)?;
        layers.push(layer);
    }
    let bytes = Manifest::artifact(media_type::TUF_STATE, config, layers).to_bytes();
    let manifest = Descriptor::of(media_type::MANIFEST, &bytes);
    registry.put_manifest(&repository, &manifest, &bytes)?;

    // Somebody who published meanwhile is noticed before any tag of theirs is moved.
    let there = registry.tagged(&repository, &latest)?.map(|bytes| Digest::sha256_of(&bytes));
    if there.as_ref() != previous {
        return Err(RegistryError::Moved { repository, tag: latest }.into());
    }
    let alias = alias(state)?;
    let expect = previous.map_or(Expect::Absent, Expect::Digest);
    let newest =
        Move { repository: &repository, tag: &latest, manifest: &manifest, bytes: &bytes, expect };
    let (beside, alias) = move_tags(registry, release, alias, newest)?;
    Ok(Visible { manifest: manifest.digest, beside, alias })
}

/// Moves the tags of a release and of a state, `latest` the last, where it can be in one step. Which others
/// they got instead, and that of the state.
fn move_tags(
    registry: &dyn Registry,
    release: Option<&ReleaseTag>,
    mut alias: Tag,
    newest: Move<'_>,
) -> Result<(Vec<Beside>, Tag), RegistryError> {
    let of_release =
        release.map(|it| Move::keeping(&it.repository, &it.tag, &it.descriptor, &it.bytes));
    let of_state = Move::keeping(newest.repository, &alias, newest.manifest, newest.bytes);
    let all: Vec<Move<'_>> = of_release.into_iter().chain([of_state, newest]).collect();
    if let Some(moved) = registry.set_together(&all) {
        return moved.map(|()| (Vec::new(), alias));
    }
    let mut beside = Vec::new();
    if let Some(it) = of_release {
        beside.extend(keep(registry, it.repository, it.tag, it.manifest, it.bytes)?);
    }
    let Move { repository, tag, manifest, bytes, expect } = newest;
    if let Some(other) = keep(registry, repository, &alias, manifest, bytes)? {
        alias = other.given.clone();
        beside.push(other);
    }
    registry.set_tag(repository, tag, manifest, bytes, expect)?;
    Ok((beside, alias))
}

/// The tag that only ever stands for this state: `ts-<timestamp version>`.
pub fn alias(state: &State) -> Result<Tag, RegistryError> {
    tag(&format!("ts-{}", state.timestamp.data.header.version))
}

/// The repository of the metadata.
pub fn tuf_repository(registry: &dyn Registry) -> Result<RepositoryName, RegistryError> {
    Ok(registry.reference().namespace().repository(TUF_REPOSITORY)?)
}

/// The repository of a product's releases.
pub fn product_repository(
    registry: &dyn Registry,
    product: &str,
) -> Result<RepositoryName, RegistryError> {
    Ok(registry.reference().namespace().repository(product)?)
}

pub(crate) fn tag(text: &str) -> Result<Tag, RegistryError> {
    Ok(text.parse::<Tag>()?)
}

fn layer_of(name: &str, bytes: &[u8]) -> Descriptor {
    let is_document = name.starts_with(DOCUMENT_PREFIX);
    let kind = if is_document { media_type::CHANNEL } else { media_type::TUF_METADATA };
    Descriptor::of(kind, bytes)
        .annotated(annotation::TUF_FILENAME, name)
        .annotated(annotation::TITLE, name)
}

/// The largest a file of that name may be: what nodes would take.
fn limit_of(name: &str) -> u64 {
    let limits = Limits::default();
    match name {
        "timestamp.json" => limits.timestamp_len,
        name if name.starts_with(DOCUMENT_PREFIX) => formats::channel::CHANNEL_LIMIT,
        name if name.ends_with(".root.json") => limits.root_len,
        name if name.ends_with(".snapshot.json") => limits.snapshot_len,
        _ => limits.targets_len,
    }
}
