//! Is a repository right, down to the last byte: the workflow of the nodes over its metadata, then
//! every document, blob, frame and chunk below them.
//!
//! Memory stays below one frame and its chunks (64 MiB), whatever is listed.

mod image;

use std::collections::BTreeMap;

use formats::chunks::{ChunkList, ChunkListError, LIST_LIMIT};
use formats::digest::Digest;
use formats::oci::{Descriptor, Manifest, RepositoryName, media_type};
use formats::reason::Reason;
use formats::release::{
    ATTACHMENT_LIMIT, Attachment, CONFIG_LIMIT, ComponentManifest, ComponentSummary, ImageConfig,
    ReleaseError, ReleaseIndex, target_name,
};
use formats::tuf::{TufError, UnixTime};
use update_core::trust::{Clock, Limits, Refresh, Reply, Stored, TrustError, TrustedSet, run};

use crate::progress::Progress;
use crate::published::product_repository;
use crate::repository::{Registry, RegistryError};
use crate::state::{ListedRelease, State, StateError};

/// What is wrong with a repository's content.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Nodes would refuse the metadata.
    #[error("nodes refuse the metadata")]
    Trust(#[source] TrustError),
    /// The metadata contradict themselves.
    #[error(transparent)]
    State(#[from] StateError),
    /// The repository failed, or a document is missing or damaged.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A release index is not the signed target.
    #[error("release {target}")]
    Target {
        /// Which target.
        target: String,
        /// Why.
        #[source]
        source: TufError,
    },
    /// A document of a release is malformed or contradicts the signed summary.
    #[error("release {target}")]
    Release {
        /// Which target.
        target: String,
        /// Why.
        #[source]
        source: ReleaseError,
    },
    /// The chunk list of an image is malformed.
    #[error("chunk list {digest}")]
    ChunkList {
        /// Which list.
        digest: Digest,
        /// Why.
        #[source]
        source: ChunkListError,
    },
    /// The bytes of an image are not what its chunk list says.
    #[error("image blob {blob}: {what}")]
    Image {
        /// Which blob.
        blob: Digest,
        /// What differs.
        what: String,
        /// Whether it is a digest, a length or the compression.
        reason: Reason,
    },
    /// An image could not be written where it was unpacked to.
    #[error("write an image")]
    Write(#[source] std::io::Error),
    /// A channel offers a release that is not signed, or signed with other content.
    #[error("channel {target} offers {offered}, which is not a signed release of that content")]
    Offer {
        /// The channel's target.
        target: String,
        /// What it offers.
        offered: String,
    },
}

impl VerifyError {
    /// The stable code of this error.
    pub fn reason(&self) -> Reason {
        match self {
            VerifyError::Trust(error) => error.reason(),
            VerifyError::State(error) => error.reason(),
            VerifyError::Registry(error) => error.reason(),
            VerifyError::Target { source, .. } => source.reason(),
            VerifyError::Image { reason, .. } => *reason,
            VerifyError::Write(_) => Reason::StoreIo,
            VerifyError::Release { .. }
            | VerifyError::ChunkList { .. }
            | VerifyError::Offer { .. } => Reason::BundleFormat,
        }
    }
}

/// The workflow that nodes run, over files that are all at hand.
///
/// It judges expiry by `now`; the trust root is what a node would be shipped with.
pub fn verify_metadata(
    files: &BTreeMap<String, Vec<u8>>,
    trust_root: &[u8],
    now: UnixTime,
) -> Result<TrustedSet, VerifyError> {
    verify_offline(files, trust_root, None, now)
}

/// The same with the offline statement of a bundle.
pub fn verify_offline(
    files: &BTreeMap<String, Vec<u8>>,
    trust_root: &[u8],
    statement: Option<&[u8]>,
    now: UnixTime,
) -> Result<TrustedSet, VerifyError> {
    let clock = Clock { system: now, build: UnixTime::EPOCH };
    let mut refresh = Refresh::begin(Stored::default(), trust_root, clock, Limits::default())
        .map_err(VerifyError::Trust)?;
    if let Some(statement) = statement {
        refresh = refresh.with_offline(statement.to_vec());
    }
    let fetch = |wanted: &update_core::trust::Fetch| match files.get(&wanted.file_name) {
        None => Reply::NotFound,
        Some(bytes) if bytes.len() as u64 > wanted.max_len => Reply::TooLong,
        Some(bytes) => Reply::Bytes(bytes.clone()),
    };
    run(&mut refresh, fetch, |_| {}).map_err(VerifyError::Trust)
}

/// Which releases must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All that are signed: a repository.
    All,
    /// At least one: a bundle carries the metadata of all and the images of few.
    Some,
}

/// What was read and found right.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Verified {
    /// Releases.
    pub releases: u64,
    /// Releases that are signed but not in here.
    pub absent: Vec<String>,
    /// Components of all releases.
    pub components: u64,
    /// Channels.
    pub channels: u64,
    /// Chunks decompressed and hashed.
    pub chunks: u64,
    /// Bytes of blobs read.
    pub blob_bytes: u64,
    /// Bytes of images they hold.
    pub image_bytes: u64,
}

/// A component of a release with its documents, verified from the signed target down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// As the index lists it.
    pub listed: formats::release::IndexedComponent,
    /// Its manifest.
    pub manifest: ComponentManifest,
    /// Its config.
    pub config: ImageConfig,
}

/// A release with its documents, verified from the signed target down. Blobs are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// As the signed targets list it.
    pub listed: ListedRelease,
    /// Where it lies.
    pub repository: RepositoryName,
    /// Digest of its index.
    pub index: Digest,
    /// Length of its index in bytes.
    pub index_size: u64,
    /// Its components.
    pub components: Vec<Component>,
    /// What is attached to it: the manifest, and its blobs.
    pub attachments: Vec<(Descriptor, Vec<Descriptor>)>,
}

impl Release {
    /// The documents of a component that the signed summary lists.
    pub fn component(&self, summary: &ComponentSummary) -> Result<&Component, VerifyError> {
        let of = |one: &&Component| one.listed.manifest.digest == summary.manifest;
        self.components.iter().find(of).ok_or_else(|| {
            let what = format!("the index of component {}", summary.name);
            let target = self.listed.target.clone();
            VerifyError::Release { target, source: ReleaseError::Contradiction { what } }
        })
    }
}

/// Reads the documents of a release: index, manifests, configs.
pub fn read_release(
    registry: &dyn Registry,
    state: &State,
    listed: &ListedRelease,
) -> Result<Release, VerifyError> {
    let target = &listed.target;
    let in_release = |source| VerifyError::Release { target: target.clone(), source };
    let signed = state.target(target);
    let signed = signed.ok_or_else(|| StateError::Missing(target.clone()))?;
    let index = signed.hashes.as_sha256().map(Digest::Sha256).ok_or_else(|| {
        let source = TufError::NoUsableHash { file: target.clone() };
        VerifyError::Target { target: target.clone(), source }
    })?;
    let repository = product_repository(registry, &listed.product)?;
    let bytes = registry.manifest(&repository, &index)?;
    signed
        .check(target, &bytes)
        .map_err(|source| VerifyError::Target { target: target.clone(), source })?;
    let documents = ReleaseIndex::parse(&bytes).map_err(in_release)?;
    documents.check_against(&listed.summary).map_err(in_release)?;
    let mut components = Vec::new();
    for (component, summary) in documents.components.into_iter().zip(&listed.summary.components) {
        let bytes = registry.manifest(&repository, &component.manifest.digest)?;
        let manifest = ComponentManifest::parse(&bytes).map_err(in_release)?;
        let bytes = registry.blob(&repository, &manifest.config, "image config", CONFIG_LIMIT)?;
        let config = ImageConfig::parse(&bytes).map_err(in_release)?;
        let agrees = config.component == summary.name
            && config.compatible == summary.compatible
            && config.raw_size == summary.raw_size
            && config.version == listed.summary.version
            && config.security_version == listed.summary.security_version;
        if !agrees {
            let what = format!("the config of component {}", summary.name);
            return Err(in_release(ReleaseError::Contradiction { what }));
        }
        components.push(Component { listed: component, manifest, config });
    }
    let attached = |attachment| read_attachment(registry, &repository, &index, attachment);
    let attachments = listed.summary.attachments.iter().map(attached);
    let attachments = attachments.collect::<Result<Vec<_>, _>>()?;
    Ok(Release {
        listed: listed.clone(),
        repository,
        index,
        index_size: bytes.len() as u64,
        components,
        attachments,
    })
}

/// The manifest of an attachment and its blobs, if they are what is signed for.
fn read_attachment(
    registry: &dyn Registry,
    repository: &RepositoryName,
    index: &Digest,
    attachment: &Attachment,
) -> Result<(Descriptor, Vec<Descriptor>), VerifyError> {
    let bytes = registry.manifest(repository, &attachment.manifest)?;
    let in_attachment = |source| VerifyError::Release {
        target: format!("attachment {}", attachment.artifact_type),
        source,
    };
    let manifest = Manifest::parse(&bytes).map_err(|error| in_attachment(error.into()))?;
    let subject = manifest.subject.as_ref().map(|subject| &subject.digest);
    if manifest.artifact_type.as_ref() != Some(&attachment.artifact_type) || subject != Some(index)
    {
        let what = "its type or subject".to_owned();
        return Err(in_attachment(ReleaseError::Contradiction { what }));
    }
    for layer in &manifest.layers {
        registry.blob(repository, layer, "attachment", ATTACHMENT_LIMIT)?;
    }
    let descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
    let blobs = std::iter::once(manifest.config).chain(manifest.layers);
    Ok((descriptor, blobs.collect()))
}

/// Reads every release and channel of a state, with all blobs.
///
/// A release counts as absent only if its index is not there; one that is there must be complete.
pub fn verify_content(
    registry: &dyn Registry,
    state: &State,
    extent: Extent,
    progress: &dyn Fn(&str, u64) -> Progress,
) -> Result<Verified, VerifyError> {
    let mut verified = Verified::default();
    for listed in state.releases()? {
        let signed = state.target(&listed.target);
        let index = signed.and_then(|file| file.hashes.as_sha256()).map(Digest::Sha256);
        let release = match read_release(registry, state, &listed) {
            Err(VerifyError::Registry(RegistryError::Missing { digest, .. }))
                if extent == Extent::Some && Some(&digest) == index.as_ref() =>
            {
                verified.absent.push(listed.target);
                continue;
            }
            other => other?,
        };
        verified.releases += 1;
        for component in &release.components {
            verify_component(registry, &release, component, progress, &mut verified)?;
            verified.components += 1;
        }
    }
    if verified.releases == 0
        && let Some(target) = verified.absent.first()
    {
        return Err(
            StateError::Missing(format!("every signed release, first of all {target},")).into()
        );
    }
    for (target, channel) in &state.channels {
        if let Some(offer) = &channel.data.release {
            let name = target_name(&channel.data.product, &offer.version);
            let signed = state.target(&name);
            if signed.and_then(|file| file.hashes.as_sha256()) != Some(offer.sha256) {
                return Err(VerifyError::Offer { target: target.clone(), offered: name });
            }
        }
        verified.channels += 1;
    }
    Ok(verified)
}

fn verify_component(
    registry: &dyn Registry,
    release: &Release,
    component: &Component,
    progress: &dyn Fn(&str, u64) -> Progress,
    verified: &mut Verified,
) -> Result<(), VerifyError> {
    let manifest = &component.manifest;
    let list = chunk_list(registry, release, component)?;
    for (encoding, image) in list.encodings().iter().zip(&manifest.images) {
        let label = format!("{} {}", release.listed.target, component.listed.name);
        let bar = progress(&label, image.size);
        let blob = registry.open_blob(&release.repository, image)?;
        let raw = component.config.raw_sha256;
        image::verify(blob, image, &list, encoding, raw, &bar, &mut |_| Ok(()))?;
        bar.done();
        verified.blob_bytes += image.size;
        verified.image_bytes += list.raw_size();
        verified.chunks += u64::from(list.chunk_count());
    }
    Ok(())
}

/// The chunk list of a component, if it is one of its image and of the blobs that the manifest lists.
pub fn chunk_list(
    registry: &dyn Registry,
    release: &Release,
    component: &Component,
) -> Result<ChunkList, VerifyError> {
    let (manifest, descriptor) = (&component.manifest, &component.manifest.chunks);
    let bytes = registry.blob(&release.repository, descriptor, "chunk list", LIST_LIMIT)?;
    let list = ChunkList::parse(bytes)
        .map_err(|source| VerifyError::ChunkList { digest: descriptor.digest.clone(), source })?;
    let encodings = list.encodings();
    let agrees = encodings.len() == manifest.images.len()
        && list.raw_size() == component.config.raw_size
        && encodings.iter().zip(&manifest.images).all(|(encoding, image)| {
            Digest::Sha256(encoding.blob) == image.digest && encoding.blob_size == image.size
        });
    if agrees {
        return Ok(list);
    }
    let what = format!("the chunk list of component {}", component.listed.name);
    let source = ReleaseError::Contradiction { what };
    Err(VerifyError::Release { target: release.listed.target.clone(), source })
}

/// Gives the image of a component to `sink`, in order. Each frame is verified before it is unpacked and each chunk
/// before it is given; the digest of the whole is known at the end.
pub fn unpack(
    registry: &dyn Registry,
    release: &Release,
    component: &Component,
    list: &ChunkList,
    progress: &dyn Fn(u64) -> Progress,
    sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), VerifyError> {
    let blobs = list.encodings().iter().zip(&component.manifest.images);
    // Each holds everything; the shortest is read.
    let Some((encoding, image)) = blobs.min_by_key(|(_, image)| image.size) else {
        let what = format!("component {} without an image", component.listed.name);
        let source = ReleaseError::Contradiction { what };
        return Err(VerifyError::Release { target: release.listed.target.clone(), source });
    };
    let bar = progress(image.size);
    let blob = registry.open_blob(&release.repository, image)?;
    image::verify(blob, image, list, encoding, component.config.raw_sha256, &bar, sink)?;
    bar.done();
    Ok(())
}
