//! `bundle`: one release with all it needs to be trusted, as a directory or a tar.
//!
//! The same repository in another place: an OCI image layout with the TUF state (full root chain,
//! channel documents) under `tuf:latest` and the release under `<product>:<version>`. Nothing is
//! signed for it, so a bundle proves exactly what the repository proved when it was made.

use std::io::Read;
use std::path::{Path, PathBuf};

use formats::oci::{
    Descriptor, Index, MANIFEST_LIMIT, Manifest, RepositoryName, annotation, media_type,
};
use formats::release::{channel_target_name, target_name};
use formats::tuf::UnixTime;
use formats::version::Version;
use serde::Serialize;
use storage::layout::{Archive, Layout, LayoutDir, LayoutError};

use super::{Report, bytes, has_example_key, time};
use crate::error::SignerError;
use crate::plan::PlanError;
use crate::progress::{Progress, Show};
use crate::published::{self, PublishedError, TUF_REPOSITORY, tuf_repository};
use crate::repository::{Registry, RegistryError};
use crate::state::State;
use crate::verify::{Release, read_release, verify_metadata};

/// Which release a bundle carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// This one.
    Version(Version),
    /// The one a channel offers now.
    Channel(String),
}

/// What a bundle is made of.
#[derive(Debug, Clone)]
pub struct BundleRequest {
    /// The product.
    pub product: String,
    /// Which release.
    pub selection: Selection,
    /// `FILE.tar`, or a directory.
    pub output: PathBuf,
}

/// What was written.
#[derive(Debug, Serialize)]
pub struct BundleReport {
    output: PathBuf,
    form: &'static str,
    target: String,
    /// Digest of the TUF state in it.
    pub state: String,
    root_versions: Vec<u64>,
    blobs: usize,
    bytes: u64,
    valid_until: String,
    valid_until_role: String,
    example_keys: bool,
}

impl Report for BundleReport {
    fn text(&self) -> String {
        format!(
            "{} ({}) holds {} in {} blobs, {}\nnodes take it until {}, when the {} expires",
            self.output.display(),
            self.form,
            self.target,
            self.blobs,
            bytes(self.bytes),
            self.valid_until,
            self.valid_until_role,
        )
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Writes a bundle. A tar appears whole or not at all; a directory's references are set last.
pub fn bundle(
    registry: &dyn Registry,
    trust_root: &[u8],
    request: &BundleRequest,
    now: UnixTime,
    show: Show,
) -> Result<BundleReport, SignerError> {
    let nothing = || PublishedError::Nothing(registry.reference().to_string());
    let found = published::fetch(registry)?.ok_or_else(nothing)?;
    let state = State::verify(&found.files, Some(trust_root)).map_err(PublishedError::from)?;
    // What nodes would refuse today is no use on a stick either.
    let trusted = verify_metadata(&found.files, trust_root, now)?;
    let release = find_release(registry, &state, request)?;
    let tuf = tuf_repository(registry)?;
    let manifest = registry.manifest(&tuf, &found.manifest)?;
    let content = Content::gather(&tuf, &manifest, &release, request)?;

    let is_tar = request.output.extension().is_some_and(|ending| ending == "tar");
    let total = content.total();
    let bar = show.begin("writing bundle", total);
    if is_tar {
        content.write_tar(registry, &request.output, &bar)?;
    } else {
        content.write_directory(registry, &request.output, &bar)?;
    }
    bar.done();
    let (role, until) = trusted.first_expiry();
    Ok(BundleReport {
        output: request.output.clone(),
        form: if is_tar { "oci-archive" } else { "oci" },
        target: release.listed.target.clone(),
        state: found.manifest.to_string(),
        root_versions: state.roots.keys().copied().collect(),
        blobs: content.blobs.len(),
        bytes: total,
        valid_until: time(until),
        valid_until_role: role.to_string(),
        example_keys: has_example_key(&state.root),
    })
}

fn find_release(
    registry: &dyn Registry,
    state: &State,
    request: &BundleRequest,
) -> Result<Release, SignerError> {
    let version = match &request.selection {
        Selection::Version(version) => version.clone(),
        Selection::Channel(channel) => {
            let target = channel_target_name(&request.product, channel);
            let offer = state.channels.get(&target).and_then(|found| found.data.release.clone());
            offer.ok_or(PlanError::NoRelease { target })?.version
        }
    };
    let target = target_name(&request.product, &version);
    let listed = state.releases().map_err(PublishedError::from)?;
    let listed = listed.into_iter().find(|release| release.target == target);
    let listed = listed.ok_or(PlanError::NoRelease { target })?;
    Ok(read_release(registry, state, &listed)?)
}

/// Everything a bundle holds: where it is, what it is, and its bytes where they are at hand.
struct Content {
    blobs: Vec<(RepositoryName, Descriptor, Kind)>,
    references: Vec<Descriptor>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Blob,
}

impl Content {
    fn gather(
        tuf: &RepositoryName,
        state_manifest: &[u8],
        release: &Release,
        request: &BundleRequest,
    ) -> Result<Self, SignerError> {
        let state = Manifest::parse(state_manifest).map_err(PublishedError::from)?;
        let state_descriptor = Descriptor::of(media_type::MANIFEST, state_manifest);
        let index = Descriptor::new(media_type::INDEX, release.index.clone(), release.index_size);
        let version = &release.listed.summary.version;
        let references = vec![
            state_descriptor.clone().annotated(
                annotation::REF_NAME,
                &format!("{TUF_REPOSITORY}:{}", published::LATEST),
            ),
            index
                .clone()
                .annotated(annotation::REF_NAME, &format!("{}:{}", request.product, version.tag())),
        ];
        let mut blobs = vec![(tuf.clone(), state_descriptor, Kind::Manifest)];
        for layer in std::iter::once(state.config).chain(state.layers) {
            blobs.push((tuf.clone(), layer, Kind::Blob));
        }
        let repository = &release.repository;
        blobs.push((repository.clone(), index, Kind::Manifest));
        for component in &release.components {
            let manifest = component.listed.manifest.clone();
            blobs.push((repository.clone(), manifest, Kind::Manifest));
            let documents = &component.manifest;
            let deltas = documents.deltas.iter().flat_map(|delta| [&delta.list, &delta.blob]);
            let documents =
                [&documents.config, &documents.chunks].into_iter().chain(&documents.images);
            for blob in documents.chain(deltas) {
                blobs.push((repository.clone(), blob.clone(), Kind::Blob));
            }
        }
        for (manifest, parts) in &release.attachments {
            blobs.push((repository.clone(), manifest.clone(), Kind::Manifest));
            blobs.extend(parts.iter().map(|blob| (repository.clone(), blob.clone(), Kind::Blob)));
        }
        // The empty config is in several of them.
        let mut seen = std::collections::BTreeSet::new();
        blobs.retain(|(_, blob, _)| seen.insert(blob.digest.clone()));
        Ok(Content { blobs, references })
    }

    fn total(&self) -> u64 {
        self.blobs.iter().map(|(_, blob, _)| blob.size).sum()
    }

    /// A tar, straight from a layout; from a registry by way of a directory beside it.
    fn write_tar(
        &self,
        registry: &dyn Registry,
        output: &Path,
        bar: &Progress,
    ) -> Result<(), SignerError> {
        let index = Index::new(None, self.references.clone());
        let digests: Vec<_> = self.blobs.iter().map(|(_, blob, _)| blob.digest.clone()).collect();
        let write = |layout: &dyn Layout| {
            let mut before = 0;
            let progress = |so_far: u64| {
                bar.add(so_far.saturating_sub(before));
                before = so_far;
            };
            Archive::write(output, layout, &index, &digests, progress).map_err(layout_error)
        };
        if let Some(layout) = registry.layout() {
            return write(layout).map(drop);
        }
        let parent = output.parent().filter(|path| !path.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let scratch = tempfile::tempdir_in(parent).map_err(|source| SignerError::File {
            action: "write in",
            path: parent.to_owned(),
            source,
        })?;
        let layout = LayoutDir::create(&scratch.path().join("layout")).map_err(layout_error)?;
        self.copy(registry, &layout, &Progress::default())?;
        write(&layout).map(drop)
    }

    /// A directory; what it refers to is there before its references are.
    fn write_directory(
        &self,
        registry: &dyn Registry,
        output: &Path,
        bar: &Progress,
    ) -> Result<(), SignerError> {
        let layout = LayoutDir::create(output).map_err(layout_error)?;
        self.copy(registry, &layout, bar)?;
        let mut references = Vec::new();
        for entry in &self.references {
            let mut plain = entry.clone();
            let name = plain.annotations.remove(annotation::REF_NAME).unwrap_or_default();
            references.push((name, Some(plain)));
        }
        layout.set_refs(&references).map_err(layout_error)
    }

    /// Copies everything, verified on its way; what is there already stays.
    fn copy(
        &self,
        registry: &dyn Registry,
        layout: &LayoutDir,
        bar: &Progress,
    ) -> Result<(), SignerError> {
        for (repository, blob, kind) in &self.blobs {
            if layout.blob_len(&blob.digest).map_err(layout_error)? != Some(blob.size) {
                copy_one(registry, repository, blob, *kind, layout)?;
            }
            bar.add(blob.size);
        }
        Ok(())
    }
}

fn copy_one(
    registry: &dyn Registry,
    repository: &RepositoryName,
    blob: &Descriptor,
    kind: Kind,
    layout: &LayoutDir,
) -> Result<(), SignerError> {
    if kind == Kind::Manifest {
        let bytes = registry.manifest(repository, &blob.digest)?;
        debug_assert!(bytes.len() as u64 <= MANIFEST_LIMIT);
        layout.put_blob(&bytes).map_err(layout_error)?;
        return Ok(());
    }
    let mut writer = layout.blob_writer_for(blob.digest.algorithm()).map_err(layout_error)?;
    // One byte more than promised is enough to fail the digest.
    let mut source = registry.open_blob(repository, blob)?.take(blob.size.saturating_add(1));
    std::io::copy(&mut source, &mut writer)
        .map_err(|source| RegistryError::Stream { digest: blob.digest.clone(), source })?;
    writer.commit(Some(&blob.digest)).map_err(layout_error)?;
    Ok(())
}

fn layout_error(error: LayoutError) -> SignerError {
    SignerError::Registry(error.into())
}
