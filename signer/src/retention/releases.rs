//! Releases that no state lists any more that people may go back to.
//!
//! The newest states keep the content of all that they list. Of older ones only the metadata stay: they
//! are kept for audits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use formats::digest::{Digest, Sha256};
use formats::oci::{Descriptor, Manifest, References, RepositoryName, Tag, annotation, media_type};
use formats::release::{ReleaseIndex, target_name};
use formats::tuf::Role;
use formats::version::Version;
use serde::Deserialize;
use update_core::trust::Limits;

use super::Retired;
use crate::plan::Retention;
use crate::plan::retention::version_of;
use crate::progress::Show;
use crate::published::{LATEST, product_repository, tuf_repository};
use crate::repository::{Listed, Registry, RegistryError, is_list_of, keep};
use crate::state::State;

/// Releases by target name, with the digests of their indexes. A published version never changes.
type Releases = BTreeMap<String, Digest>;

#[derive(Deserialize)]
struct Envelope {
    signed: Signed,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(default)]
    targets: BTreeMap<String, File>,
}

#[derive(Deserialize)]
struct File {
    hashes: Hashes,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Option<Sha256>,
}

/// Whether a file of that name is of targets, or of a delegated role.
fn lists_targets(name: &str) -> bool {
    let role = name.strip_suffix(".json").and_then(|it| it.split_once('.'));
    role.is_some_and(|(version, role)| {
        let others = [Role::Root, Role::Snapshot, Role::Timestamp];
        version.parse::<u64>().is_ok() && others.iter().all(|other| other.name() != role)
    })
}

/// The releases that a document lists. Signatures do not matter: what is listed wrongly stays.
fn releases_in(bytes: &[u8]) -> Releases {
    let Ok(Envelope { signed }) = serde_json::from_slice(bytes) else { return Releases::new() };
    let releases = signed.targets.into_iter().filter(|(name, _)| name.split('/').count() == 2);
    let index = |(name, file): (String, File)| Some((name, Digest::Sha256(file.hashes.sha256?)));
    releases.filter_map(index).collect()
}

/// Removes the tags of releases that no state lists whose content is kept, and gives what they led to.
///
/// Whoever publishes tags a release just before the state that lists it. So only versions older than
/// the newest one that is listed go, in a directory only what was written before `before`, and what is
/// listed after all when this is done gets its tag again.
pub(super) fn remove(
    registry: &dyn Registry,
    retention: Retention,
    state: &State,
    (before, show): (SystemTime, Show),
    retired: &mut Retired,
) -> Result<(BTreeSet<Digest>, Option<RegistryError>), RegistryError> {
    let kept = kept(registry, retention, state, show)?;
    let (mut blobs, mut gone) = (BTreeSet::new(), Releases::new());
    let mut stopped = None;
    'products: for (product, newest) in newest_of(state) {
        let repository = product_repository(registry, &product)?;
        let tags = registry.tags(&repository)?;
        for listed in &tags {
            let Some(version) = version_of_tag(&listed.tag) else { continue };
            let target = target_name(&product, &version);
            if kept.contains(&target) || version.compare(&newest).is_ge() {
                continue;
            }
            let Some(index) = index_of(registry, &repository, listed)? else { continue };
            if !is_older(registry, &index, before)? {
                continue;
            }
            let own = tags_of(registry, &repository, &tags, listed, &index);
            for manifest in own.iter().filter_map(|it| it.manifest.as_ref()) {
                add_tree(registry, &repository, manifest, &mut blobs);
            }
            let removal = registry.remove_tags(&repository, &own)?;
            retired.tags += removal.removed;
            gone.insert(target, index);
            stopped = removal.stopped;
            if stopped.is_some() {
                break 'products;
            }
        }
    }
    restore(registry, &gone)?;
    Ok((blobs, stopped))
}

/// The targets that states list whose content is kept: of the newest ones, and what is published now.
fn kept(
    registry: &dyn Registry,
    retention: Retention,
    state: &State,
    show: Show,
) -> Result<BTreeSet<String>, RegistryError> {
    let repository = tuf_repository(registry)?;
    let documents = documents(registry, &repository, retention, state, show)?;
    let all = state.targets_roles().flat_map(|(_, signed)| signed.data.targets.keys());
    let mut kept: BTreeSet<String> = all.cloned().collect();
    let bar = show.begin("looking at lists of releases", documents.len() as u64);
    for document in documents.values() {
        let limit = Limits::default().targets_len;
        let bytes = registry.blob(&repository, document, "metadata file", limit)?;
        kept.extend(releases_in(&bytes).into_keys());
        bar.add(1);
    }
    bar.done();
    Ok(kept)
}

/// The targets documents of these states, each once.
fn documents(
    registry: &dyn Registry,
    repository: &RepositoryName,
    retention: Retention,
    state: &State,
    show: Show,
) -> Result<BTreeMap<Digest, Descriptor>, RegistryError> {
    let newest = state.timestamp.data.header.version;
    let mut documents = BTreeMap::new();
    let tags = registry.tags(repository)?;
    let bar = show.begin("looking at states", tags.len() as u64);
    for Listed { tag, manifest } in tags {
        bar.add(1);
        let is_kept = |version| retention.keeps_content(newest, version);
        if !version_of(tag.as_str()).is_some_and(is_kept) {
            continue;
        }
        let bytes = match manifest {
            Some(digest) => Some(registry.manifest(repository, &digest)?),
            None => registry.tagged(repository, &tag)?,
        };
        // One that is gone by now, or is no state, lists nothing.
        let Ok(state) = Manifest::parse(&bytes.unwrap_or_default()) else { continue };
        let lists = |layer: &Descriptor| {
            layer.annotation(annotation::TUF_FILENAME).is_some_and(lists_targets)
        };
        let layers = state.layers.into_iter().filter(lists);
        documents.extend(layers.map(|layer| (layer.digest.clone(), layer)));
    }
    bar.done();
    Ok(documents)
}

/// The newest version of each product that is listed now.
fn newest_of(state: &State) -> BTreeMap<String, Version> {
    let all = state.targets_roles().flat_map(|(_, signed)| signed.data.targets.keys());
    let mut newest = BTreeMap::<String, Version>::new();
    for (product, version) in all.filter_map(|target| target.split_once('/')) {
        let Ok(version) = version.parse::<Version>() else { continue };
        let is_newer = |known: &Version| version.compare(known).is_gt();
        if newest.get(product).is_none_or(is_newer) {
            newest.insert(product.to_owned(), version);
        }
    }
    newest
}

/// The version of a release's tag, or of one beside it.
fn version_of_tag(tag: &Tag) -> Option<Version> {
    let text = tag.as_str();
    let plain = text.rsplit_once("-sha256-").filter(|(_, hex)| hex.len() == 12);
    Version::of_tag(&plain.map_or(text, |(version, _)| version).parse().ok()?)
}

/// The release index that a tag stands for; `None` when it is gone, or is no index.
fn index_of(
    registry: &dyn Registry,
    repository: &RepositoryName,
    listed: &Listed,
) -> Result<Option<Digest>, RegistryError> {
    let bytes = match &listed.manifest {
        Some(digest) => Some(registry.manifest(repository, digest)?),
        None => registry.tagged(repository, &listed.tag)?,
    };
    let index = bytes.filter(|bytes| ReleaseIndex::parse(bytes).is_ok());
    Ok(index.map(|bytes| Digest::sha256_of(&bytes)))
}

/// Whether a manifest was written before a time, where that can be known.
fn is_older(
    registry: &dyn Registry,
    manifest: &Digest,
    before: SystemTime,
) -> Result<bool, RegistryError> {
    let Some(layout) = registry.layout() else { return Ok(true) };
    let blob = layout.open_blob(manifest)?;
    let stamp = blob.and_then(|blob| blob.file().0.stamp().ok());
    Ok(stamp.is_some_and(|stamp| stamp.modified() < before))
}

/// A release's tag with what it has to stand for still, and the lists of what is attached to it.
fn tags_of(
    registry: &dyn Registry,
    repository: &RepositoryName,
    tags: &[Listed],
    own: &Listed,
    index: &Digest,
) -> Vec<Listed> {
    let mut subjects = vec![index.clone()];
    if let Ok(bytes) = registry.manifest(repository, index) {
        subjects.extend(References::parse(&bytes).unwrap_or_default().manifests);
    }
    let is_list = |listed: &&Listed| subjects.iter().any(|it| is_list_of(&listed.tag, it));
    let mut all = vec![Listed { tag: own.tag.clone(), manifest: Some(index.clone()) }];
    all.extend(tags.iter().filter(is_list).cloned());
    all
}

/// Gives a release its tag again that was listed while its tag went.
fn restore(registry: &dyn Registry, gone: &Releases) -> Result<(), RegistryError> {
    if gone.is_empty() {
        return Ok(());
    }
    let latest = LATEST.parse::<Tag>()?;
    let tuf = tuf_repository(registry)?;
    let manifest = registry.tagged(&tuf, &latest)?.unwrap_or_default();
    let Ok(manifest) = Manifest::parse(&manifest) else { return Ok(()) };
    for layer in &manifest.layers {
        if !layer.annotation(annotation::TUF_FILENAME).is_some_and(lists_targets) {
            continue;
        }
        let limit = Limits::default().targets_len;
        let listed = releases_in(&registry.blob(&tuf, layer, "metadata file", limit)?);
        for (target, index) in gone.iter().filter(|(target, _)| listed.contains_key(*target)) {
            let Some((product, version)) = target.split_once('/') else { continue };
            let Ok(version) = version.parse::<Version>() else { continue };
            let repository = product_repository(registry, product)?;
            let bytes = registry.manifest(&repository, index)?;
            let descriptor = Descriptor::of(media_type::INDEX, &bytes);
            keep(registry, &repository, &version.tag(), &descriptor, &bytes)?;
        }
    }
    Ok(())
}

/// A manifest and all that it refers to.
fn add_tree(
    registry: &dyn Registry,
    repository: &RepositoryName,
    manifest: &Digest,
    blobs: &mut BTreeSet<Digest>,
) {
    if registry.layout().is_none() || !blobs.insert(manifest.clone()) {
        return;
    }
    let Ok(bytes) = registry.manifest(repository, manifest) else { return };
    let References { manifests, blobs: own, .. } = References::parse(&bytes).unwrap_or_default();
    blobs.extend(own);
    for child in manifests {
        add_tree(registry, repository, &child, blobs);
    }
}
