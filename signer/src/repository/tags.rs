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

/// A tag that is to stand for a stored manifest, see [`Registry::set_tag`].
#[derive(Debug, Clone, Copy)]
pub struct Move<'a> {
    /// Its repository.
    pub repository: &'a RepositoryName,
    /// The tag.
    pub tag: &'a Tag,
    /// What it is to stand for.
    pub manifest: &'a Descriptor,
    /// The bytes of that manifest.
    pub bytes: &'a [u8],
    /// What it must stand for until then.
    pub expect: Expect<'a>,
}

impl<'a> Move<'a> {
    /// A tag that only keeps a manifest: what an interrupted run left under it was never visible.
    pub fn keeping(
        repository: &'a RepositoryName,
        tag: &'a Tag,
        manifest: &'a Descriptor,
        bytes: &'a [u8],
    ) -> Self {
        Move { repository, tag, manifest, bytes, expect: Expect::Anything }
    }
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
    use formats::oci::{EMPTY_CONFIG, Manifest, media_type};

    use super::super::LayoutRepository;
    use super::*;

    /// In a directory: if one of several tags may not move, none has moved.
    #[test]
    fn tags_move_together_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let reference = format!("oci:{}", dir.path().join("repository").display());
        let registry = LayoutRepository::create(reference.parse().unwrap()).unwrap();
        let repository = registry.reference().namespace().repository("tuf").unwrap();
        let [latest, alias]: [Tag; 2] = ["latest", "ts-1"].map(|tag| tag.parse().unwrap());
        let stored = |text: &str| {
            let (config, artifact) = (Descriptor::empty(), format!("application/{text}"));
            registry.put_blob(&repository, &config, EMPTY_CONFIG).unwrap();
            let bytes = Manifest::artifact(&artifact, config, Vec::new()).to_bytes();
            let manifest = Descriptor::of(media_type::MANIFEST, &bytes);
            registry.put_manifest(&repository, &manifest, &bytes).unwrap();
            (manifest, bytes)
        };
        let moved = |(manifest, bytes): &(Descriptor, Vec<u8>), expect| {
            let kept = Move::keeping(&repository, &alias, manifest, bytes);
            let all = [kept, Move { tag: &latest, expect, ..kept }];
            registry.set_together(&all).expect("a directory")
        };
        let stand_for = |(_, bytes): &(Descriptor, Vec<u8>)| {
            for tag in [&latest, &alias] {
                let found = registry.tagged(&repository, tag).unwrap();
                assert!(found.as_ref() == Some(bytes), "{tag}");
            }
        };
        let (one, other) = (stored("one"), stored("other"));
        moved(&one, Expect::Absent).unwrap();
        stand_for(&one);
        for expect in [Expect::Absent, Expect::Digest(&other.0.digest)] {
            let error = moved(&other, expect).unwrap_err();
            assert!(matches!(error, RegistryError::Moved { .. }), "{error:?}");
            stand_for(&one);
        }
        let bytes = Manifest::artifact("application/lost", one.0.clone(), Vec::new()).to_bytes();
        let never_stored = (Descriptor::of(media_type::MANIFEST, &bytes), bytes);
        let error = moved(&never_stored, Expect::Digest(&one.0.digest)).unwrap_err();
        assert!(matches!(error, RegistryError::Layout(_)), "{error:?}");
        stand_for(&one);
        moved(&other, Expect::Digest(&one.0.digest)).unwrap();
        stand_for(&other);
    }

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
