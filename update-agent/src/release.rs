//! From a signed target to everything that is needed to install it, each document by its digest.

use formats::boot_record::{ReleaseId, SlotComponent};
use formats::chunks::{ChunkList, LIST_LIMIT};
use formats::digest::Digest;
use formats::oci::{Descriptor, MANIFEST_LIMIT};
use formats::reason::Reason;
use formats::release::{
    CONFIG_LIMIT, ComponentManifest, ComponentSummary, Delta, ImageConfig, ReleaseError,
    ReleaseIndex,
};

use crate::error::AgentError;
use crate::source::Source;
use crate::trust::SignedRelease;

/// One component, ready to be fetched.
#[derive(Debug)]
pub struct ResolvedComponent {
    /// What the boot record will say of it.
    pub identity: SlotComponent,
    /// Its chunk list.
    pub list: ChunkList,
    /// The blob of each encoding of the list.
    pub images: Vec<Descriptor>,
    /// Deltas to it; their lists are fetched when the node has what one is from.
    pub deltas: Vec<Delta>,
}

/// A release, ready to be fetched.
#[derive(Debug)]
pub struct Resolved {
    /// Which release.
    pub release: ReleaseId,
    /// The components of this node.
    pub components: Vec<ResolvedComponent>,
}

/// Identity of a signed release.
pub fn identity(signed: &SignedRelease) -> ReleaseId {
    ReleaseId {
        index: signed.index,
        version: signed.summary.version.clone().into(),
        security_version: signed.summary.security_version,
    }
}

/// Fetches and checks the documents of the chosen components, from the first source that has them.
pub fn resolve(
    product: &str,
    signed: &SignedRelease,
    chosen: &[ComponentSummary],
    sources: &[&dyn Source],
) -> Result<Resolved, AgentError> {
    let mut first = None;
    for source in sources {
        match resolve_from(product, signed, chosen, *source) {
            Ok(resolved) => return Ok(resolved),
            Err(error) => first = first.or(Some(error.context(source.describe()))),
        }
    }
    Err(first.unwrap_or_else(|| AgentError::new(Reason::Config, "no source is configured")))
}

fn resolve_from(
    product: &str,
    signed: &SignedRelease,
    chosen: &[ComponentSummary],
    source: &dyn Source,
) -> Result<Resolved, AgentError> {
    if signed.length > MANIFEST_LIMIT {
        return Err(AgentError::new(Reason::MetaLimit, "the release index is above 4 MiB"));
    }
    let bytes = source.manifest(product, &signed.index.into(), signed.length)?;
    if bytes.len() as u64 != signed.length {
        return Err(AgentError::new(
            Reason::LengthMismatch,
            "the release index is not as long as signed",
        ));
    }
    let index = ReleaseIndex::parse(&bytes)?;
    index.check_against(&signed.summary)?;
    let mut components = Vec::new();
    for summary in chosen {
        let component = component(product, signed, summary, source)
            .map_err(|error| error.context(format!("component {}", summary.name)))?;
        components.push(component);
    }
    Ok(Resolved { release: identity(signed), components })
}

fn component(
    product: &str,
    signed: &SignedRelease,
    summary: &ComponentSummary,
    source: &dyn Source,
) -> Result<ResolvedComponent, AgentError> {
    let bytes = source.manifest(product, &summary.manifest, MANIFEST_LIMIT)?;
    let manifest = ComponentManifest::parse(&bytes)?;
    let config = ImageConfig::parse(&source.blob(product, &manifest.config, CONFIG_LIMIT)?)?;
    let differs = |what: &str| {
        let what = what.to_owned();
        AgentError::from(ReleaseError::Contradiction { what })
    };
    if config.component != summary.name || config.version != signed.summary.version {
        return Err(differs("the component's name or version"));
    }
    if config.raw_size != summary.raw_size {
        return Err(differs("the image's length"));
    }
    let list = ChunkList::parse(source.blob(product, &manifest.chunks, LIST_LIMIT)?)
        .map_err(|error| AgentError::new(Reason::BundleFormat, error.to_string()))?;
    if list.raw_size() != summary.raw_size {
        return Err(differs("the length in the chunk list"));
    }
    let blobs =
        list.encodings().iter().map(|encoding| (Digest::from(encoding.blob), encoding.blob_size));
    if !blobs.eq(manifest.images.iter().map(|image| (image.digest.clone(), image.size))) {
        return Err(differs("the image blobs in the chunk list"));
    }
    let identity = SlotComponent {
        name: summary.name.clone(),
        manifest: summary.manifest.clone(),
        chunks: manifest.chunks.digest.clone(),
        raw_size: summary.raw_size,
    };
    if identity.chunks.as_sha256().is_none() {
        return Err(AgentError::new(Reason::BundleFormat, "the chunk list is not named by sha256"));
    }
    Ok(ResolvedComponent { identity, list, images: manifest.images, deltas: manifest.deltas })
}

impl From<ReleaseError> for AgentError {
    fn from(error: ReleaseError) -> Self {
        AgentError::new(Reason::BundleFormat, error.to_string())
    }
}
