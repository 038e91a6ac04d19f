//! `bundle`: one release with all it needs to be trusted, as a directory or a tar.
//!
//! The same repository in another place: an OCI image layout with the TUF state (full root chain,
//! channel documents) under `tuf:latest` and each release under `<product>:<version>`. Nothing is
//! signed for it, so a bundle proves exactly what the repository proved when it was made; with
//! `--valid-for`, an offline statement under `tuf:offline` lets it be used for longer.

mod form;
mod offline;

use std::io::Read;
use std::path::{Path, PathBuf};

use formats::digest::Digest;
use formats::oci::{
    Descriptor, Index, MANIFEST_LIMIT, Manifest, NamedManifest, RepositoryName, annotation,
    media_type,
};
use formats::release::{channel_target_name, target_name};
use formats::tuf::UnixTime;
use formats::version::Version;
use serde::Serialize;
use storage::interrupt::Cleanup;
use storage::layout::{Archive, Blob, Layout, LayoutDir, LayoutError};

use self::offline::{OfflineReport, Statement};
use super::select::find;
use super::{Report, Signing, bytes, counted, has_example_key, time};
use crate::error::SignerError;
use crate::plan::PlanError;
use crate::progress::{Progress, Show};
use crate::published::{self, OFFLINE_REFERENCE, PublishedError, TUF_REPOSITORY, tuf_repository};
use crate::repository::{Registry, RegistryError};
use crate::state::State;
use crate::verify::{Release, read_release, verify_metadata};

pub use self::form::{Form, form_of};

/// Which releases a bundle carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These, at least one.
    Versions(Vec<Version>),
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
    /// `FILE.tar`, a directory, or `-`.
    pub output: PathBuf,
    /// What that is; absent: what its spelling says ([`form_of`]).
    pub form: Option<Form>,
    /// Seconds that it may be used for, whatever its timestamp says; needs keys.
    pub valid_for: Option<u64>,
}

/// What was written.
#[derive(Debug, Serialize)]
pub struct BundleReport {
    output: PathBuf,
    form: &'static str,
    target: String,
    targets: Vec<String>,
    /// Digest of the TUF state in it.
    pub state: String,
    root_versions: Vec<u64>,
    blobs: usize,
    bytes: u64,
    valid_until: String,
    valid_until_role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    offline: Option<OfflineReport>,
    example_keys: bool,
}

impl Report for BundleReport {
    fn text(&self) -> String {
        let holds = format!(
            "{} ({}) holds {} in {}, {}",
            self.output.display(),
            self.form,
            self.targets.join(", "),
            counted(self.blobs as u64, "blob"),
            bytes(self.bytes),
        );
        let online =
            format!("until {}, when the {} expires", self.valid_until, self.valid_until_role);
        match &self.offline {
            None => format!("{holds}\nnodes take it {online}"),
            Some(offline) => format!(
                "{holds}\nnodes take it offline until {}: {} signed for timestamp {} with {}\n  \
                 signed: {}\n  sha256 {}",
                offline.expires,
                offline.role,
                offline.timestamp,
                offline.keyids.join(", "),
                offline.targets.join(", "),
                offline.sha256,
            ),
        }
    }

    fn example_keys(&self) -> bool {
        self.example_keys
    }
}

/// Writes a bundle. A tar appears whole or not at all; a directory's references are set last.
///
/// `signing` needs a trust root; keys only when [`BundleRequest::valid_for`] is given.
pub fn bundle(
    registry: &dyn Registry,
    signing: &mut Signing,
    request: &BundleRequest,
    now: UnixTime,
    show: Show,
) -> Result<BundleReport, SignerError> {
    let shown = request.output.to_string_lossy();
    let form =
        form_of(&shown, request.output.is_dir(), request.form).map_err(SignerError::Usage)?;
    form::check_place(&request.output, form)?;
    let trust_root = signing.root()?.to_vec();
    let nothing = || PublishedError::Nothing(registry.reference().to_string());
    let found = published::fetch(registry)?.ok_or_else(nothing)?;
    let state = State::verify(&found.files, Some(&trust_root)).map_err(PublishedError::from)?;
    // Nodes would refuse it from a USB stick, too.
    let trusted = verify_metadata(&found.files, &trust_root, now)?;
    let releases = find_releases(registry, &state, request)?;
    let tuf = tuf_repository(registry)?;
    let manifest = registry.manifest(&tuf, &found.manifest)?;
    let statement = match request.valid_for {
        Some(seconds) => Some(offline::make(signing, &found, &state, &releases, seconds, now)?),
        None => None,
    };
    let content = Content::gather(&tuf, &manifest, &releases, request, statement.as_ref())?;

    let total = content.total();
    let bar = show.begin("writing bundle", total + content.own_total());
    match form {
        Form::Tar | Form::Stdout => content.write_tar(registry, &request.output, form, &bar)?,
        Form::Directory => content.write_directory(registry, &request.output, &bar)?,
    }
    bar.done();
    let (role, until) = trusted.first_expiry();
    Ok(BundleReport {
        output: request.output.clone(),
        form: form.transport(),
        target: releases.first().map(|one| one.listed.target.clone()).unwrap_or_default(),
        targets: releases.iter().map(|one| one.listed.target.clone()).collect(),
        state: found.manifest.to_string(),
        root_versions: state.roots.keys().copied().collect(),
        blobs: content.blobs.len(),
        bytes: total,
        valid_until: time(until),
        valid_until_role: role.to_string(),
        offline: statement.map(|statement| statement.report),
        example_keys: has_example_key(&state.root),
    })
}

/// The releases asked for, in their order, none twice.
fn find_releases(
    registry: &dyn Registry,
    state: &State,
    request: &BundleRequest,
) -> Result<Vec<Release>, SignerError> {
    let versions = match &request.selection {
        Selection::Versions(versions) => versions.clone(),
        Selection::Channel(channel) => {
            let target = channel_target_name(&request.product, channel);
            let offer = state.channels.get(&target).and_then(|found| found.data.release.clone());
            vec![offer.ok_or(PlanError::NoRelease { target })?.version]
        }
    };
    let listed = state.releases().map_err(PublishedError::from)?;
    let mut releases: Vec<Release> = Vec::new();
    for version in versions {
        let target = target_name(&request.product, &version);
        if releases.iter().any(|release| release.listed.target == target) {
            continue;
        }
        releases.push(read_release(registry, state, find(&listed, target)?)?);
    }
    Ok(releases)
}

/// Everything a bundle holds: where it is, what it is, and its bytes where they are at hand.
struct Content {
    blobs: Vec<(RepositoryName, Descriptor, Kind)>,
    references: Vec<Descriptor>,
    /// What the repository does not have: the offline statement.
    own: Vec<(Descriptor, Vec<u8>)>,
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
        releases: &[Release],
        request: &BundleRequest,
        statement: Option<&Statement>,
    ) -> Result<Self, SignerError> {
        let state = Manifest::parse(state_manifest).map_err(PublishedError::from)?;
        let state_descriptor = Descriptor::of(media_type::MANIFEST, state_manifest);
        let mut references =
            vec![state_descriptor.clone().annotated(
                annotation::REF_NAME,
                &format!("{TUF_REPOSITORY}:{}", published::LATEST),
            )];
        if let Some(statement) = statement {
            let manifest = statement.manifest.clone();
            references.push(manifest.annotated(annotation::REF_NAME, OFFLINE_REFERENCE));
        }
        let mut blobs = vec![(tuf.clone(), state_descriptor, Kind::Manifest)];
        for layer in std::iter::once(state.config).chain(state.layers) {
            blobs.push((tuf.clone(), layer, Kind::Blob));
        }
        for release in releases {
            let index =
                Descriptor::new(media_type::INDEX, release.index.clone(), release.index_size);
            let name = format!("{}:{}", request.product, release.listed.summary.version.tag());
            references.push(index.clone().annotated(annotation::REF_NAME, &name));
            blobs.push((release.repository.clone(), index, Kind::Manifest));
            Content::gather_release(&mut blobs, release);
        }
        let own = statement.map(|statement| statement.blobs.clone()).unwrap_or_default();
        // The empty config is in several of them; so are blobs that releases share.
        let mut seen = std::collections::BTreeSet::new();
        blobs.retain(|(_, blob, _)| seen.insert(blob.digest.clone()));
        Ok(Content { blobs, references, own })
    }

    fn gather_release(blobs: &mut Vec<(RepositoryName, Descriptor, Kind)>, release: &Release) {
        let repository = &release.repository;
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
    }

    fn total(&self) -> u64 {
        self.blobs.iter().map(|(_, blob, _)| blob.size).sum()
    }

    fn own_total(&self) -> u64 {
        self.own.iter().map(|(blob, _)| blob.size).sum()
    }

    /// A tar, straight from a layout; from a registry by way of a directory beside it.
    fn write_tar(
        &self,
        registry: &dyn Registry,
        output: &Path,
        form: Form,
        bar: &Progress,
    ) -> Result<(), SignerError> {
        let index = Index::new(None, self.references.clone());
        let own = self.own.iter().map(|(blob, _)| blob);
        let all = self.blobs.iter().map(|(_, blob, _)| blob).chain(own);
        let digests: Vec<_> = all.map(|blob| blob.digest.clone()).collect();
        let write = |layout: &dyn Layout| {
            let progress = |bytes: u64| bar.add(bytes);
            match form {
                Form::Stdout => {
                    let out = std::io::stdout().lock();
                    Archive::write_to(out, output, layout, &index, &digests, progress)
                }
                _ => Archive::write(output, layout, &index, &digests, progress),
            }
            .map_err(layout_error)
        };
        if let (Some(layout), true) = (registry.layout(), self.own.is_empty()) {
            return write(layout).map(drop);
        }
        let temporary = std::env::temp_dir();
        let parent = match form {
            Form::Stdout => temporary.as_path(),
            _ => output
                .parent()
                .filter(|path| !path.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        };
        let folder = tempfile::tempdir_in(parent).map_err(|source| SignerError::File {
            action: "write in",
            path: parent.to_owned(),
            source,
        })?;
        let _cleanup = Cleanup::path(folder.path());
        let scratch = LayoutDir::create(&folder.path().join("layout")).map_err(layout_error)?;
        self.put_own(&scratch)?;
        match registry.layout() {
            Some(layout) => write(&WithOwnBlobs { layout, own: &scratch }).map(drop),
            None => {
                self.copy(registry, &scratch, &Progress::default())?;
                write(&scratch).map(drop)
            }
        }
    }

    /// Stores what the repository does not have.
    fn put_own(&self, layout: &LayoutDir) -> Result<(), SignerError> {
        for (_, bytes) in &self.own {
            layout.put_blob(bytes).map_err(layout_error)?;
        }
        Ok(())
    }

    /// A directory; what it refers to is there before its references are. Of an older bundle there,
    /// no reference is left.
    fn write_directory(
        &self,
        registry: &dyn Registry,
        output: &Path,
        bar: &Progress,
    ) -> Result<(), SignerError> {
        let layout = LayoutDir::create(output).map_err(layout_error)?;
        self.copy(registry, &layout, bar)?;
        self.put_own(&layout)?;
        bar.add(self.own_total());
        let older = layout.refs().map_err(layout_error)?;
        let mut references: Vec<_> = older.into_iter().map(|(name, _)| (name, None)).collect();
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

/// The blobs of a repository, and those that only the bundle has.
struct WithOwnBlobs<'a> {
    layout: &'a dyn Layout,
    own: &'a LayoutDir,
}

impl Layout for WithOwnBlobs<'_> {
    fn index(&self) -> Result<std::sync::Arc<Index>, LayoutError> {
        self.layout.index()
    }

    fn named(&self) -> Result<Vec<NamedManifest>, LayoutError> {
        self.layout.named()
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<Blob>, LayoutError> {
        match self.own.open_blob(digest)? {
            Some(own) => Ok(Some(own)),
            None => self.layout.open_blob(digest),
        }
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
