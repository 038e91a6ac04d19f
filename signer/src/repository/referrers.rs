//! What hangs on a manifest: SBOMs, provenance, deltas (image-spec `subject`).
//!
//! A registry of distribution 1.1 lists them itself. For others, and in directories, whoever pushes
//! keeps the list: an index under the tag `sha256-<hex>` of the subject (distribution-spec
//! §"Referrers Tag Schema"). It also keeps what is attached from being collected as garbage.

use std::collections::BTreeMap;

use formats::digest::{Algorithm, Digest};
use formats::oci::{Descriptor, Index, Manifest, RepositoryName, Tag, media_type};

use super::{Expect, Registry, RegistryError, Stored, keep};

/// Two who attach at once may overwrite each other's list; whoever finds itself missing writes again.
const ATTEMPTS: usize = 10;

/// The tag of the list of what is attached to `subject`.
fn tag_of(subject: &Digest) -> Result<Tag, RegistryError> {
    // A tag has at most 128 characters; sha512 would not fit (§"Referrers Tag Schema": truncate).
    let hex: String = subject.hex().chars().take(64).collect();
    Ok(format!("{}-{hex}", subject.algorithm().name()).parse::<Tag>()?)
}

/// Whether a tag is that of such a list, or of one beside it.
pub(super) fn is_list(tag: &Tag) -> bool {
    let Some((algorithm, rest)) = tag.as_str().split_once('-') else { return false };
    let hex = rest.split('-').next().unwrap_or_default();
    Algorithm::from_name(algorithm).is_ok()
        && hex.len() == 64
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a tag is that of the list of what is attached to `subject`, or of one beside it.
pub fn is_list_of(tag: &Tag, subject: &Digest) -> bool {
    let list = tag_of(subject).ok();
    list.is_some_and(|list| {
        let rest = tag.as_str().strip_prefix(list.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// Stores a manifest that has a subject, and has it listed there.
pub fn attach(
    registry: &dyn Registry,
    repository: &RepositoryName,
    manifest: &Manifest,
) -> Result<Descriptor, RegistryError> {
    let bytes = manifest.to_bytes();
    attach_all(registry, repository, std::slice::from_ref(manifest))?;
    Ok(Descriptor::of(media_type::MANIFEST, &bytes))
}

/// Stores manifests that have subjects, and has them listed there: those of one subject at once,
/// because a registry may let the list be written only once.
pub fn attach_all(
    registry: &dyn Registry,
    repository: &RepositoryName,
    manifests: &[Manifest],
) -> Result<Vec<Digest>, RegistryError> {
    let mut unlisted = BTreeMap::<Digest, Vec<Descriptor>>::new();
    let mut stored = Vec::new();
    for manifest in manifests {
        let bytes = manifest.to_bytes();
        let mut entry = Descriptor::of(media_type::MANIFEST, &bytes);
        let kept = registry.put_manifest(repository, &entry, &bytes)?;
        stored.push(entry.digest.clone());
        if let (Stored::ReferrersNotListed, Some(subject)) = (kept, &manifest.subject) {
            entry.artifact_type = manifest.artifact_type.clone();
            entry.annotations = manifest.annotations.clone();
            unlisted.entry(subject.digest.clone()).or_default().push(entry);
        }
    }
    for (subject, entries) in unlisted {
        list(registry, repository, &subject, &entries)?;
    }
    Ok(stored)
}

fn list(
    registry: &dyn Registry,
    repository: &RepositoryName,
    subject: &Digest,
    entries: &[Descriptor],
) -> Result<(), RegistryError> {
    let tag = tag_of(subject)?;
    for _ in 0..ATTEMPTS {
        let before = registry.tagged(repository, &tag)?;
        // What is not an index may be overwritten (§"Referrers Tag Schema").
        let index = before.as_deref().and_then(|bytes| Index::parse_layout(bytes).ok());
        let mut index = index.unwrap_or_else(|| Index::new(None, Vec::new()));
        let mut missing = entries.to_vec();
        missing.retain(|entry| index.manifests.iter().all(|it| it.digest != entry.digest));
        if missing.is_empty() {
            return Ok(());
        }
        index.manifests.extend(missing);
        // The same set is the same bytes, whoever came first.
        index.manifests.sort_by(|a, b| a.digest.cmp(&b.digest));
        let bytes = index.to_bytes();
        let descriptor = Descriptor::of(media_type::INDEX, &bytes);
        registry.put_manifest(repository, &descriptor, &bytes)?;
        let before = before.map(|bytes| Digest::sha256_of(&bytes));
        let expect = before.as_ref().map_or(Expect::Absent, Expect::Digest);
        match registry.set_tag(repository, &tag, &descriptor, &bytes, expect) {
            // Read again: a registry has no conditional put.
            Ok(()) | Err(RegistryError::Moved { .. }) => {}
            // Nodes go by what is signed; a list beside it keeps what is attached.
            Err(RegistryError::TagTaken { .. }) => {
                return keep(registry, repository, &tag, &descriptor, &bytes).map(drop);
            }
            Err(error) => return Err(error),
        }
    }
    Err(RegistryError::Moved { repository: repository.clone(), tag })
}

/// What is attached to `subject`, by digest: as the repository lists it, or by its tag.
pub fn attached(
    registry: &dyn Registry,
    repository: &RepositoryName,
    subject: &Digest,
) -> Result<Vec<Descriptor>, RegistryError> {
    if let Some(found) = registry.referrers(repository, subject)? {
        return Ok(found);
    }
    let bytes = registry.tagged(repository, &tag_of(subject)?)?;
    let index = bytes.and_then(|bytes| Index::parse_layout(&bytes).ok());
    let mut found = index.map(|index| index.manifests).unwrap_or_default();
    found.sort_by(|a, b| a.digest.cmp(&b.digest));
    Ok(found)
}
