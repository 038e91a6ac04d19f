//! Which repository shows what. Pure: links and `index.json` in, repositories out.
//!
//! A manifest is visible in a repository when a tag of that repository (`repo:tag` in
//! `index.json`) stands for it, when it was pushed there, or when a visible manifest lists it. A
//! blob is visible when it was pushed or mounted there or a visible manifest names it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formats::digest::Digest;
use formats::oci::{Descriptor, Index, RepositoryName, Tag};
use storage::layout::reference_of;

use super::facts::Facts;

/// What was pushed to one repository, whether a tag reaches it or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RepositoryLinks {
    /// Manifests and the media type each was pushed as.
    pub manifests: BTreeMap<Digest, String>,
    /// Blobs.
    pub blobs: BTreeSet<Digest>,
}

/// One repository as clients see it.
#[derive(Debug, Clone, Default)]
pub struct Repository {
    /// Tags in ASCII order.
    pub tags: BTreeMap<Tag, Digest>,
    /// Visible manifests.
    pub manifests: BTreeMap<Digest, Visible>,
    /// Visible blobs.
    pub blobs: BTreeSet<Digest>,
}

/// A visible manifest.
#[derive(Debug, Clone)]
pub struct Visible {
    /// The media type to serve it as.
    pub media_type: String,
    /// What it refers to.
    pub facts: Arc<Facts>,
}

impl Repository {
    /// The manifests attached to `subject` (end-12), sorted by digest: without their
    /// annotations, and whether they have any.
    pub fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Vec<(Descriptor, bool)> {
        let attached = self.manifests.iter().filter(|(_, manifest)| {
            manifest.facts.subject.as_ref() == Some(subject)
                && (artifact_type.is_none()
                    || manifest.facts.artifact_type.as_deref() == artifact_type)
        });
        attached
            .map(|(digest, Visible { media_type, facts })| {
                let artifact_type = facts.artifact_type.clone();
                let plain = Descriptor::new(media_type, digest.clone(), facts.len);
                (Descriptor { artifact_type, ..plain }, facts.annotated)
            })
            .collect()
    }

    /// A manifest that needs `digest`, if there is one: as a blob or as a manifest it lists.
    pub fn needed_by(&self, digest: &Digest) -> Option<&Digest> {
        let needs = |facts: &Facts| {
            facts.blobs.contains(digest) || facts.manifests.iter().any(|(child, _)| child == digest)
        };
        self.manifests.iter().find(|(_, manifest)| needs(&manifest.facts)).map(|(parent, _)| parent)
    }
}

/// The repositories that `index` and `links` make. `facts` reads a manifest: `None` when it is not
/// there, does not have its digest or is not a manifest; then nothing below it is visible.
pub(crate) fn repositories(
    index: &Index,
    links: &BTreeMap<RepositoryName, RepositoryLinks>,
    mut facts: impl FnMut(&Digest) -> Option<Arc<Facts>>,
) -> BTreeMap<RepositoryName, Repository> {
    let mut found: BTreeMap<RepositoryName, Repository> = BTreeMap::new();
    let mut roots: Vec<(RepositoryName, Digest, String)> = Vec::new();
    for entry in &index.manifests {
        let Some((name, tag)) = reference_of(entry).and_then(split_reference) else { continue };
        found.entry(name.clone()).or_default().tags.insert(tag, entry.digest.clone());
        roots.push((name, entry.digest.clone(), entry.media_type.clone()));
    }
    for (name, linked) in links {
        found.entry(name.clone()).or_default().blobs.extend(linked.blobs.iter().cloned());
        let manifests = linked.manifests.iter();
        roots.extend(manifests.map(|(digest, kind)| (name.clone(), digest.clone(), kind.clone())));
    }
    for (name, digest, media_type) in roots {
        let repository = found.entry(name).or_default();
        let mut open = vec![(digest, media_type)];
        while let Some((digest, media_type)) = open.pop() {
            if repository.manifests.contains_key(&digest) {
                continue;
            }
            let Some(facts) = facts(&digest) else { continue };
            repository.blobs.extend(facts.blobs.iter().cloned());
            open.extend(facts.manifests.iter().cloned());
            repository.manifests.insert(digest, Visible { media_type, facts });
        }
    }
    for repository in found.values_mut() {
        let manifests = &repository.manifests;
        repository.tags.retain(|_, digest| manifests.contains_key(digest));
    }
    // A name whose last tag and link are gone is no repository any more.
    found.retain(|_, it| !(it.tags.is_empty() && it.manifests.is_empty() && it.blobs.is_empty()));
    found
}

/// `repo:tag` of an image layout's reference. Other references belong to no repository.
fn split_reference(reference: &str) -> Option<(RepositoryName, Tag)> {
    let (name, tag) = reference.rsplit_once(':')?;
    Some((name.parse().ok()?, tag.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use formats::oci::{annotation, media_type};

    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::sha256_of(text.as_bytes())
    }

    fn facts(manifests: &[&str], blobs: &[&str]) -> Arc<Facts> {
        Arc::new(Facts {
            len: 1,
            media_type: None,
            artifact_type: None,
            subject: None,
            annotated: false,
            manifests: manifests.iter().map(|it| (digest(it), "m".to_owned())).collect(),
            blobs: blobs.iter().map(|it| digest(it)).collect(),
            metadata: Vec::new(),
        })
    }

    fn tagged(reference: &str, manifest: &str) -> Descriptor {
        Descriptor::new(media_type::INDEX, digest(manifest), 1)
            .annotated(annotation::REF_NAME, reference)
    }

    #[test]
    fn a_tag_shows_everything_below_it_in_its_repository_only() {
        let documents: BTreeMap<Digest, Arc<Facts>> = [
            (digest("release"), facts(&["os", "gone", "release"], &[])),
            (digest("os"), facts(&[], &["image", "chunks"])),
        ]
        .into();
        let index = Index::new(
            None,
            vec![
                tagged("racklet/demo:1.0", "release"),
                tagged("racklet/demo:broken", "not there"),
                tagged("latest", "release"),
                tagged("../etc:x", "release"),
                Descriptor::new(media_type::INDEX, digest("release"), 1),
            ],
        );
        let links = [(
            "other".parse().unwrap(),
            RepositoryLinks { blobs: [digest("chunks")].into(), ..RepositoryLinks::default() },
        )]
        .into();
        let found = repositories(&index, &links, |digest| documents.get(digest).cloned());
        let names: Vec<_> = found.keys().map(RepositoryName::as_str).collect();
        assert_eq!(names, ["other", "racklet/demo"]);
        let demo = &found[&"racklet/demo".parse().unwrap()];
        assert_eq!(demo.tags.keys().map(Tag::as_str).collect::<Vec<_>>(), ["1.0"]);
        assert!(demo.blobs.contains(&digest("image")));
        assert_eq!(demo.manifests.len(), 2);
        assert_eq!(demo.needed_by(&digest("image")), Some(&digest("os")));
        let other = &found[&"other".parse().unwrap()];
        assert!(!other.blobs.contains(&digest("image")));
    }
}
