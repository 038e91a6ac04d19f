//! Tags that keep what they stand for from being collected as garbage. Nobody finds anything by them:
//! nodes go by digests, and only `tuf:latest` is read.
//!
//! A registry may let no tag be moved but `latest`. Then what an interrupted run left under a tag
//! stays there, and what is published instead gets a tag beside it: `1.1.0-sha256-3f9a0c1b2d4e`.

use formats::digest::Digest;
use formats::oci::{Descriptor, RepositoryName, Tag};

use super::{Expect, Registry, RegistryError};

/// A manifest that has another tag than its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Its repository.
    pub repository: RepositoryName,
    /// The tag that stands for something else.
    pub taken: Tag,
    /// The tag it got.
    pub given: Tag,
}

/// A tag as a repository lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The tag.
    pub tag: Tag,
    /// What it stands for; `None` where a list says only names.
    pub manifest: Option<Digest>,
}

/// Which tags were removed.
#[derive(Debug, Default)]
pub struct Removal {
    /// How many.
    pub removed: u64,
    /// Why there were no more.
    pub stopped: Option<RegistryError>,
}

/// Gives a stored manifest a tag that keeps it: `tag`, or one beside it when that stands for
/// something else and cannot be moved.
pub fn keep(
    registry: &dyn Registry,
    repository: &RepositoryName,
    tag: &Tag,
    manifest: &Descriptor,
    bytes: &[u8],
) -> Result<Option<Beside>, RegistryError> {
    // What an interrupted run left under it was never visible.
    match registry.set_tag(repository, tag, manifest, bytes, Expect::Anything) {
        Err(RegistryError::TagTaken { .. }) => {
            let given = beside(tag, &manifest.digest)?;
            registry.set_tag(repository, &given, manifest, bytes, Expect::Anything)?;
            Ok(Some(Beside { repository: repository.clone(), taken: tag.clone(), given }))
        }
        other => other.map(|()| None),
    }
}

/// `<tag>-sha256-<12 hex digits>`: the same for the same manifest, so that the next run finds it.
fn beside(tag: &Tag, digest: &Digest) -> Result<Tag, RegistryError> {
    let hex: String = digest.hex().chars().take(12).collect();
    Ok(format!("{tag}-{}-{hex}", digest.algorithm().name()).parse::<Tag>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_beside_another_is_a_tag() {
        let digest = Digest::sha256_of(b"");
        let longest_version = "1".repeat(64);
        let longest_list = format!("sha256-{}", digest.hex());
        for tag in ["ts-1", &longest_version, &longest_list] {
            let given = beside(&tag.parse().unwrap(), &digest).unwrap();
            assert_eq!(given.as_str(), format!("{tag}-sha256-e3b0c44298fc"));
        }
    }
}
