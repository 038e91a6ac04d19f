//! A staged change in the repository it is for, instead of on a stick: one more tag beside the
//! metadata, which signers fetch, sign, and put back.
//!
//! `[ns/]tuf:staged-<64 hex digits>` is an artifact with one layer, the file of [`crate::stage`]. The
//! name comes from what is signed, so every copy has it, whoever signed. Nobody trusts it: a
//! registry that swaps it changes what is shown before a key is used, and signatures are over bytes;
//! one that drops signatures delays, and `status` says who has not signed.

use std::path::{Path, PathBuf};

use formats::digest::{Digest, Sha256};
use formats::oci::{Descriptor, EMPTY_CONFIG, Manifest, Tag, media_type};

use crate::error::SignerError;
use crate::published::{PublishedError, tag, tuf_repository};
use crate::repository::{Expect, Registry, RegistryError};
use crate::stage::{STAGE_LIMIT, Staged};

/// What the names of staged changes in a registry begin with.
pub const PREFIX: &str = "staged-";

/// Artifact type of a staged change.
pub const STAGED: &str = "application/vnd.racklet.stage.v1";

/// Media type of its one layer.
const STAGED_LAYER: &str = "application/vnd.racklet.stage.v1+json";

/// Three people who sign in the same second get through; a registry that always says "moved" ends.
const TRIES: usize = 5;

/// Digits of a SHA-256. Fewer, and somebody could make two changes of one name: one to be read, one to
/// be fetched by it later.
const DIGITS: usize = 64;

/// The name of a change: the same for every copy, whatever signatures it has.
pub fn name_of(staged: &Staged) -> String {
    let payloads = staged.proposal.payloads.iter();
    let all: Vec<u8> = payloads.flat_map(|payload| payload.digest().0).collect();
    format!("{PREFIX}{}", Sha256::of(&all).to_hex())
}

/// Whether a path is no file but the name of a change in a registry.
pub fn is_name(path: &Path) -> bool {
    let hex = path.to_str().and_then(|text| text.strip_prefix(PREFIX));
    let is_hex = |hex: &str| !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.is_some_and(is_hex) && !path.exists()
}

/// Reads a change by its name. Nothing in it is verified but that it is the one of that name.
pub fn fetch(registry: &dyn Registry, name: &Path) -> Result<Staged, SignerError> {
    let name = name.to_string_lossy();
    if name.len() != PREFIX.len() + DIGITS {
        let text = format!("{name} is not the name of a staged change: give all {DIGITS} digits");
        return Err(SignerError::Usage(format!("{text}, or stage it again")));
    }
    let nothing = || PublishedError::Nothing(format!("{} {name}", registry.reference()));
    let (staged, _) = read(registry, &tag(&name)?)?.ok_or_else(nothing)?;
    if name_of(&staged) != name {
        return Err(SignerError::Usage(format!("{name} is another change than its name says")));
    }
    Ok(staged)
}

fn read(registry: &dyn Registry, tag: &Tag) -> Result<Option<(Staged, Digest)>, SignerError> {
    let repository = tuf_repository(registry)?;
    let Some(bytes) = registry.tagged(&repository, tag)? else { return Ok(None) };
    let manifest = Manifest::parse(&bytes).map_err(PublishedError::from)?;
    let layer = match manifest.layers.as_slice() {
        [layer] if manifest.artifact_type.as_deref() == Some(STAGED) => layer,
        _ => return Err(PublishedError::OtherArtifact(format!("{repository}:{tag}")).into()),
    };
    let file = registry.blob(&repository, layer, "staged change", STAGE_LIMIT)?;
    let in_file = |source| SignerError::Stage { path: PathBuf::from(tag.as_str()), source };
    Ok(Some((Staged::parse(&file).map_err(in_file)?, Digest::sha256_of(&bytes))))
}

/// The indexes of releases that come with changes which wait in a directory for signatures. Their
/// blobs have no tag yet. What cannot be read is no change, and a registry collects by itself.
pub fn releases(registry: &dyn Registry) -> Result<Vec<Digest>, RegistryError> {
    if registry.layout().is_none() {
        return Ok(Vec::new());
    }
    let tags = registry.tags(&tuf_repository(registry)?)?;
    let staged = tags.iter().filter(|listed| listed.tag.as_str().starts_with(PREFIX));
    let read = staged.filter_map(|listed| read(registry, &listed.tag).ok().flatten());
    let release = |(staged, _): (Staged, Digest)| Some(staged.release?.tag().descriptor.digest);
    Ok(read.filter_map(release).collect())
}

/// Puts a change into its repository, together with the signatures that others put there, and gives
/// its name. Nobody's signature is lost: who was slower merges and tries again.
pub fn push(registry: &dyn Registry, staged: &mut Staged) -> Result<PathBuf, SignerError> {
    let name = name_of(staged);
    let (repository, tag) = (tuf_repository(registry)?, tag(&name)?);
    let mut left = TRIES;
    loop {
        left -= 1;
        let there = match read(registry, &tag) {
            Ok(None) => Some(None),
            Ok(Some((other, digest))) => {
                staged.merge(other, Path::new(&name)).ok().map(|()| Some(digest))
            }
            Err(SignerError::Registry(error)) => return Err(error.into()),
            // What is damaged there is replaced.
            Err(_) => None,
        };
        let file = staged.to_bytes();
        let (config, layer) = (Descriptor::empty(), Descriptor::of(STAGED_LAYER, &file));
        registry.put_blob(&repository, &config, EMPTY_CONFIG)?;
        registry.put_blob(&repository, &layer, &file)?;
        let bytes = Manifest::artifact(STAGED, config, vec![layer]).to_bytes();
        let manifest = Descriptor::of(media_type::MANIFEST, &bytes);
        registry.put_manifest(&repository, &manifest, &bytes)?;
        let expect = match &there {
            Some(Some(digest)) => Expect::Digest(digest),
            Some(None) => Expect::Absent,
            None => Expect::Anything,
        };
        match registry.set_tag(&repository, &tag, &manifest, &bytes, expect) {
            Err(RegistryError::Moved { .. }) if left > 0 => {}
            other => return other.map(|()| PathBuf::from(name)).map_err(SignerError::from),
        }
    }
}
