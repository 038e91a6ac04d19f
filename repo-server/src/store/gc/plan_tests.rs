//! What is kept and why, by a table and over every small store there is.
#![cfg(test)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use formats::digest::Digest;
use formats::oci::RepositoryName;

use super::plan::{Age, Inventory, Keep, Mark, Need, Plan, Question};
use crate::store::backend::{Link, LinkKind, StoredBlob};
use crate::store::facts::Facts;

/// What is behind a name of a small store.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    Manifest {
        manifests: &'a [&'static str],
        blobs: &'a [&'static str],
        metadata: &'a [&'static str],
        subject: Option<&'static str>,
    },
    Metadata(&'a [&'static str]),
    Damaged,
}

#[derive(Debug, Clone, Default)]
struct Small<'a> {
    contents: BTreeMap<&'static str, Content<'a>>,
    tagged: Vec<&'static str>,
    /// Of these, old states.
    audits: Vec<&'static str>,
    links: Vec<(&'static str, LinkKind, Age)>,
    blobs: Vec<(&'static str, Age)>,
    condemned: Option<Vec<(&'static str, Age)>>,
}

/// Each computed once: the small stores ask for millions.
fn digest(name: &'static str) -> Digest {
    thread_local!(static KNOWN: RefCell<BTreeMap<&'static str, Digest>> = RefCell::default());
    KNOWN.with_borrow_mut(|known| {
        known.entry(name).or_insert_with(|| Digest::sha256_of(name.as_bytes())).clone()
    })
}

fn digests(names: &[&'static str]) -> Vec<Digest> {
    names.iter().map(|name| digest(name)).collect()
}

/// A manifest that names its metadata as blobs, as all do.
fn facts(content: &Content<'_>) -> Option<Facts> {
    let Content::Manifest { manifests, blobs, metadata, subject } = content else { return None };
    Some(Facts {
        len: 1,
        media_type: None,
        artifact_type: None,
        subject: subject.map(digest),
        annotated: false,
        manifests: digests(manifests).into_iter().map(|it| (it, String::new())).collect(),
        blobs: digests(blobs).into_iter().chain(digests(metadata)).collect(),
        metadata: digests(metadata),
    })
}

impl Small<'_> {
    fn inventory(&self) -> Inventory {
        let modified = SystemTime::UNIX_EPOCH;
        let repository: RepositoryName = "r".parse().unwrap();
        let link = |name: &'static str, kind| Link {
            name: repository.clone(),
            kind,
            digest: digest(name),
            media_type: String::new(),
            modified,
        };
        let stored = |name: &'static str| StoredBlob { digest: digest(name), len: 1, modified };
        let mut attached: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for (name, _, _) in self.links.iter().filter(|(_, kind, _)| *kind == LinkKind::Manifest) {
            if let Some(subject) = self.contents.get(name).and_then(facts).and_then(|it| it.subject)
            {
                attached.entry(subject).or_default().push(digest(name));
            }
        }
        let condemned = self.condemned.as_ref();
        Inventory {
            tagged: digests(&self.tagged),
            audits: self.audits.iter().map(|it| digest(it)).collect(),
            links: self.links.iter().map(|(name, kind, age)| (link(name, *kind), *age)).collect(),
            attached,
            blobs: self.blobs.iter().map(|(name, age)| (stored(name), *age)).collect(),
            condemned: condemned
                .map(|all| all.iter().map(|(it, age)| (digest(it), *age)).collect()),
        }
    }

    /// The plan, or what is damaged so that there is none.
    fn plan(&self, names: &BTreeMap<Digest, &'static str>) -> Result<Plan, &'static str> {
        let mut mark = Mark::new(self.inventory());
        while let Some(question) = mark.next() {
            let (Question::Manifest(it) | Question::Metadata(it)) = &question;
            let name = names[it];
            match (question, self.contents.get(name)) {
                (_, Some(Content::Damaged)) => return Err(name),
                (Question::Manifest(_), Some(found)) => {
                    if let Some(facts) = facts(found) {
                        mark.manifest(&facts);
                    }
                }
                (Question::Metadata(_), Some(Content::Metadata(targets))) => {
                    mark.metadata(digests(targets));
                }
                _ => {}
            }
        }
        Ok(mark.plan())
    }

    /// What is needed by the rules, found the slow way.
    fn needed(&self) -> Slow {
        let young = self.links.iter().filter(|(_, _, age)| *age == Age::Young);
        let mut manifests: BTreeSet<_> = self.tagged.iter().copied().collect();
        let mut needed = manifests.clone();
        let old = |name: &&str| self.audits.contains(name);
        let mut content: BTreeSet<_> = self.tagged.iter().copied().filter(|it| !old(it)).collect();
        for (name, kind, _) in young {
            needed.insert(*name);
            if *kind == LinkKind::Manifest {
                manifests.insert(*name);
                content.insert(*name);
            }
        }
        loop {
            let before = (manifests.len(), needed.len(), content.len());
            for name in manifests.clone() {
                if let Some(Content::Manifest { manifests: listed, blobs, metadata, subject }) =
                    self.contents.get(name)
                {
                    content.extend(listed.iter().chain(subject));
                    needed.extend(blobs.iter().chain(*metadata));
                    let names_content = content.contains(name);
                    for metadata in metadata.iter().filter(|_| names_content) {
                        if let Some(Content::Metadata(targets)) = self.contents.get(metadata) {
                            content.extend(*targets);
                        }
                    }
                }
            }
            manifests.extend(&content);
            needed.extend(&manifests);
            for (name, kind, _) in &self.links {
                if let (LinkKind::Manifest, Some(Content::Manifest { subject: Some(subject), .. })) =
                    (kind, self.contents.get(name))
                    && needed.contains(subject)
                {
                    content.extend([*name, *subject]);
                    manifests.extend([*name, *subject]);
                }
            }
            if before == (manifests.len(), needed.len(), content.len()) {
                return Slow { manifests, needed, content };
            }
        }
    }

    /// Compares the plan with the rules.
    fn check(&self, names: &BTreeMap<Digest, &'static str>) {
        let Slow { manifests, needed, content } = self.needed();
        let is_damaged = |name: &&str| matches!(self.contents.get(name), Some(Content::Damaged));
        let read_as_metadata = |name: &str| {
            content.iter().any(|manifest| {
                let found = self.contents.get(manifest);
                matches!(found, Some(Content::Manifest { metadata, .. }) if metadata.contains(&name))
            })
        };
        let read = |name: &&str| manifests.contains(*name) || read_as_metadata(name);
        let damaged = needed.iter().any(|name| is_damaged(name) && read(name));
        let plan = match self.plan(names) {
            Ok(plan) => plan,
            Err(name) => return assert!(damaged, "{name} is not needed: {self:?}"),
        };
        assert!(!damaged, "a needed document is damaged: {self:?}");
        let is_garbage = |name: &&str, age: &Age| *age == Age::Old && !needed.contains(name);
        let links = self.links.iter().filter(|(name, _, age)| is_garbage(name, age));
        let links: Vec<_> = links.map(|(name, ..)| digest(name)).collect();
        let found: Vec<_> = plan.links.iter().map(|link| link.digest.clone()).collect();
        assert_eq!(found, links, "links of {self:?}");
        let blobs = self.blobs.iter().filter(|(name, age)| is_garbage(name, age));
        let blobs: Vec<_> = blobs.map(|(name, _)| digest(name)).collect();
        let found: Vec<_> = plan.blobs.iter().map(|blob| blob.digest.clone()).collect();
        assert_eq!(found, blobs, "blobs of {self:?}");
        assert_eq!(plan.kept.len() + found.len(), self.blobs.len(), "{self:?}");
        for (name, age) in &self.blobs {
            let right = match plan.kept.get(&digest(name)) {
                Some(Keep::Needed(_)) => needed.contains(name),
                Some(Keep::Young) => !needed.contains(name) && *age == Age::Young,
                None => is_garbage(name, age),
            };
            assert!(right, "{name} of {self:?}");
        }
    }
}

/// Manifests that are followed, all that is needed, and the manifests of which also what their metadata
/// names is needed.
struct Slow {
    manifests: BTreeSet<&'static str>,
    needed: BTreeSet<&'static str>,
    content: BTreeSet<&'static str>,
}

fn names(all: &[&'static str]) -> BTreeMap<Digest, &'static str> {
    all.iter().map(|name| (digest(name), *name)).collect()
}

/// Two manifests that may name each other in every way, a blob and TUF metadata, with every state of
/// tags, links and ages: some 150,000 stores.
#[test]
fn every_small_store_is_collected_by_the_rules() {
    const ALL: [&str; 4] = ["a", "b", "x", "t"];
    let names = names(&ALL);
    let lists: [&[&str]; 2] = [&[], &["b"]];
    let of_a: Vec<Option<Content<'_>>> = (0..24)
        .map(|n| Content::Manifest {
            manifests: lists[n & 1],
            blobs: [&[][..], &["x"], &["b"]][n / 8],
            metadata: if n & 2 == 0 { &[] } else { &["t"] },
            subject: (n & 4 != 0).then_some("b"),
        })
        .map(Some)
        .chain([None, Some(Content::Damaged)])
        .collect();
    let of_b: Vec<Option<Content<'_>>> = (0..8)
        .map(|n| Content::Manifest {
            manifests: if n & 1 == 0 { &[] } else { &["a"] },
            blobs: if n & 2 == 0 { &[] } else { &["x"] },
            metadata: &[],
            subject: (n & 4 != 0).then_some("a"),
        })
        .map(Some)
        .chain([None, Some(Content::Damaged)])
        .collect();
    let of_t: [Option<Content<'_>>; 3] =
        [Some(Content::Metadata(&["b"])), Some(Content::Damaged), None];
    let tags: [&[&str]; 4] = [&[], &["a"], &["b"], &["a", "b"]];
    let ages = [None, Some(Age::Young), Some(Age::Old)];
    let mut stores = 0;
    for (a, b) in of_a.iter().flat_map(|a| of_b.iter().map(move |b| (a, b))) {
        let names_t = matches!(a, Some(Content::Manifest { metadata, .. }) if !metadata.is_empty());
        for t in of_t.iter().take(if names_t { 3 } else { 1 }) {
            let contents = [("a", a), ("b", b), ("t", t)];
            let contents: BTreeMap<_, _> =
                contents.into_iter().filter_map(|(name, it)| Some((name, (*it)?))).collect();
            for n in 0..4 * 27 {
                let link = |name, kind, n: usize| ages[n % 3].map(|age| (name, kind, age));
                let links = [
                    link("a", LinkKind::Manifest, n),
                    link("b", LinkKind::Manifest, n / 3),
                    link("x", LinkKind::Blob, n / 9),
                ];
                let tagged = tags[n / 27];
                let audits: &[&[&'static str]] =
                    if tagged.contains(&"a") { &[&[], &["a"]] } else { &[&[]] };
                let of_blobs = [Age::Young, Age::Old];
                for (age, audits) in
                    of_blobs.iter().flat_map(|age| audits.iter().map(|it| (*age, it)))
                {
                    let small = Small {
                        contents: contents.clone(),
                        tagged: tagged.to_vec(),
                        audits: audits.to_vec(),
                        links: links.iter().flatten().copied().collect(),
                        blobs: ALL.iter().map(|name| (*name, age)).collect(),
                        condemned: None,
                    };
                    small.check(&names);
                    stores += 1;
                }
            }
        }
    }
    assert!(stores > 80_000, "only {stores}");
}

#[test]
fn why_a_blob_stays() {
    let names =
        names(&["index", "os", "image", "sbom", "state", "targets", "signed", "new", "old"]);
    let leaf = Content::Manifest { manifests: &[], blobs: &[], metadata: &[], subject: None };
    let Content::Manifest { manifests, blobs, metadata, subject } = leaf else { unreachable!() };
    let contents = [
        ("index", Content::Manifest { manifests: &["os"], blobs, metadata, subject }),
        ("os", Content::Manifest { blobs: &["image"], manifests, metadata, subject }),
        ("sbom", Content::Manifest { subject: Some("os"), manifests, blobs, metadata }),
        ("state", Content::Manifest { metadata: &["targets"], manifests, blobs, subject }),
        ("targets", Content::Metadata(&["signed"])),
        ("signed", leaf),
        ("new", leaf),
    ];
    let small = Small {
        contents: contents.into_iter().collect(),
        tagged: vec!["index", "state"],
        audits: vec![],
        links: vec![
            ("sbom", LinkKind::Manifest, Age::Old),
            ("new", LinkKind::Manifest, Age::Young),
        ],
        blobs: names.values().map(|name| (*name, Age::Old)).collect(),
        condemned: None,
    };
    let plan = small.plan(&names).unwrap();
    for (name, need) in [
        ("index", Some(Need::Tagged)),
        ("os", Some(Need::Referenced)),
        ("image", Some(Need::Referenced)),
        ("sbom", Some(Need::Attached)),
        ("targets", Some(Need::Referenced)),
        ("signed", Some(Need::Target)),
        ("new", Some(Need::RepositoryLinks)),
        ("old", None),
    ] {
        let kept = plan.kept.get(&digest(name)).copied();
        assert_eq!(kept, need.map(Keep::Needed), "{name}");
    }
}

/// On a storage that several servers write, a blob is deleted a grace period after it was condemned.
#[test]
fn garbage_that_is_shared_waits() {
    let names = names(&["tagged", "blob"]);
    let waiting = |age| Some(vec![("blob", age)]);
    for (row, needed, blob, condemned, wanted) in [
        ("one writer", false, Age::Old, None, "deleted"),
        ("found first", false, Age::Old, Some(vec![]), "condemned"),
        ("condemned lately", false, Age::Old, waiting(Age::Young), "waits"),
        ("condemned long ago", false, Age::Old, waiting(Age::Old), "deleted"),
        ("needed again", true, Age::Old, waiting(Age::Old), "spared"),
        ("pushed again", false, Age::Young, waiting(Age::Old), "spared"),
    ] {
        let small = Small {
            tagged: if needed { vec!["blob"] } else { vec![] },
            blobs: vec![("blob", blob)],
            condemned,
            ..Small::default()
        };
        let plan = small.plan(&names).unwrap();
        let has = |all: &[StoredBlob]| all.iter().any(|it| it.digest == digest("blob"));
        let found = match () {
            () if has(&plan.blobs) => "deleted",
            () if has(&plan.condemn) => "condemned",
            () if has(&plan.waiting) => "waits",
            () if plan.spare == [digest("blob")] => "spared",
            () => "kept",
        };
        assert_eq!(found, wanted, "{row}");
    }
    // What was condemned and is gone is not condemned any more.
    let small = Small { condemned: waiting(Age::Young), ..Small::default() };
    assert_eq!(small.plan(&names).unwrap().spare, [digest("blob")]);
}
