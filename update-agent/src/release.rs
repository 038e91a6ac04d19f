//! From a signed target to everything that is needed to install it, each document by its digest.

use std::ops::ControlFlow;

use formats::boot_record::{ReleaseId, SlotComponent};
use formats::digest::Digest;
use formats::oci::{Descriptor, MANIFEST_LIMIT, Manifest};
use formats::reason::Reason;
use formats::release::{
    ATTACHMENT_LIMIT, Attachment, AttachmentKind, CONFIG_LIMIT, ComponentManifest,
    ComponentSummary, Delta, ImageConfig, ReleaseError, ReleaseIndex,
};

use crate::error::AgentError;
use crate::list::List;
use crate::source::Source;
use crate::state::State;
use crate::trust::SignedRelease;

/// One component, ready to be fetched.
#[derive(Debug)]
pub struct ResolvedComponent {
    /// What the boot record will say of it.
    pub identity: SlotComponent,
    /// Its chunk list.
    pub list: List,
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
///
/// So are the attachments of the kinds that the node requires: what is signed for and not there, or
/// with other bytes, is as good as missing. Chunk lists that the state has kept are not
/// fetched again.
pub fn resolve(
    product: &str,
    signed: &SignedRelease,
    chosen: &[ComponentSummary],
    require: &[AttachmentKind],
    sources: &[&dyn Source],
    state: &State,
) -> Result<Resolved, AgentError> {
    let mut first = None;
    for source in sources {
        let found = resolve_from(product, signed, chosen, *source, state);
        let found = found.and_then(|resolved| {
            let attachments = require.iter().flat_map(|kind| signed.summary.attached(*kind));
            attachments.into_iter().try_for_each(|it| attachment(product, signed, it, *source))?;
            Ok(resolved)
        });
        match found {
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
    state: &State,
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
        let component = component(product, signed, summary, source, state)
            .map_err(|error| error.context(format!("component {}", summary.name)))?;
        components.push(component);
    }
    Ok(Resolved { release: identity(signed), components })
}

/// Looks whether an attachment is there and what is signed for; its text is for people to read.
fn attachment(
    product: &str,
    signed: &SignedRelease,
    attachment: &Attachment,
    source: &dyn Source,
) -> Result<(), AgentError> {
    let name = format!("attachment {}", attachment.artifact_type);
    let wrong = |why: &str| AgentError::new(Reason::BundleFormat, format!("{name}: {why}"));
    let bytes = source.manifest(product, &attachment.manifest, MANIFEST_LIMIT);
    let bytes = bytes.map_err(|error| AgentError::from(error).context(name.clone()))?;
    let manifest = Manifest::parse(&bytes).map_err(|error| wrong(&error.to_string()))?;
    if manifest.artifact_type.as_ref() != Some(&attachment.artifact_type) {
        return Err(wrong("it is of another type than signed"));
    }
    let subject = manifest.subject.as_ref().map(|subject| &subject.digest);
    if subject != Some(&signed.index.into()) {
        return Err(wrong("it belongs to another release"));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Err(wrong("it does not have exactly one layer"));
    };
    if layer.size == 0 || layer.size > ATTACHMENT_LIMIT {
        return Err(wrong("it is empty or larger than documents are"));
    }
    // Hashed as it comes and not kept: memory does not depend on it.
    let (mut hasher, mut len) = (layer.digest.algorithm().hasher(), 0);
    let mut sink = |_: u64, bytes: &[u8]| {
        hasher.update(bytes);
        len += bytes.len() as u64;
        ControlFlow::Continue(())
    };
    let all = 0..layer.size;
    let fetched = source.ranges(product, layer, std::slice::from_ref(&all), &mut sink);
    fetched.map_err(|error| AgentError::from(error).context(name.clone()))?;
    if len != layer.size || hasher.finish() != layer.digest {
        let why = format!("{name} does not have the digest that is signed");
        return Err(AgentError::new(Reason::HashMismatch, why));
    }
    Ok(())
}

fn component(
    product: &str,
    signed: &SignedRelease,
    summary: &ComponentSummary,
    source: &dyn Source,
    state: &State,
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
    let list = match state.chunk_list(&manifest.chunks.digest) {
        Some(list) => list,
        None => state.fetch_chunk_list(product, source, &manifest.chunks)?,
    };
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
    Ok(ResolvedComponent { identity, list, images: manifest.images, deltas: manifest.deltas })
}

impl From<ReleaseError> for AgentError {
    fn from(error: ReleaseError) -> Self {
        AgentError::new(Reason::BundleFormat, error.to_string())
    }
}
