//! What a collection would do, decided from what the storage holds. Pure: it reads nothing itself,
//! but asks for one document after the other.
//!
//! ```text
//!  every entry of index.json ┐
//!  links made within grace   ├─► manifest ─► manifests, blobs, subject
//!                            ┘       ▲ └───► TUF metadata ─► the hashes of its targets
//!                                    └────── manifests attached to it (referrers)
//! ```
//!
//! Everything on these ways is needed. Of the rest, what is older than the grace period goes. Old TUF states
//! are kept for audits: of what their metadata names, nothing is needed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use formats::digest::Digest;

use crate::store::backend::{Link, LinkKind, StoredBlob};
use crate::store::facts::Facts;

/// Whether the grace period of something is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// Written within the grace period, or in the future: a clock was set back.
    Young,
    /// Written before it.
    Old,
}

/// What the storage holds, by name.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// What the entries of `index.json` stand for.
    pub(crate) tagged: Vec<Digest>,
    /// Of these, the ones that stand for nothing but old states.
    pub(crate) audits: BTreeSet<Digest>,
    /// All links.
    pub(crate) links: Vec<(Link, Age)>,
    /// Linked manifests by what they are attached to. Damaged ones are attached to nothing.
    pub(crate) attached: BTreeMap<Digest, Vec<Digest>>,
    /// All blobs.
    pub(crate) blobs: Vec<(StoredBlob, Age)>,
    /// On a storage that several servers write: blobs that an earlier collection condemned, and how
    /// long ago. `None` on one that has a single writer.
    pub(crate) condemned: Option<Vec<(Digest, Age)>>,
}

/// A document whose content decides what else is needed. When it is missing, or no document of that
/// kind, it needs nothing, and there is no answer. When it is damaged, what it needs is unknown, and
/// there must be no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// What a manifest refers to; answered with [`Mark::manifest`].
    Manifest(Digest),
    /// The targets of TUF metadata; answered with [`Mark::metadata`].
    Metadata(Digest),
}

/// Why something is needed. The first reason that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// An entry of `index.json` stands for it.
    Tagged,
    /// A repository shows it since less than the grace period.
    RepositoryLinks,
    /// A needed manifest lists it, has it as a layer or config, or is attached to it.
    Referenced,
    /// It is attached to a needed manifest.
    Attached,
    /// Needed TUF metadata names it.
    Target,
}

/// Why a blob stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keep {
    /// It is needed.
    Needed(Need),
    /// Nothing needs it yet or any more, within the grace period.
    Young,
}

/// What a collection keeps and deletes. Each blob is in one of `condemn`, `waiting`, `blobs` and
/// `kept`. Carried out in the order of the fields, so that a cut leaves nothing that is shown and gone.
#[derive(Debug, Default)]
pub struct Plan {
    /// Links to remove.
    pub(crate) links: Vec<Link>,
    /// Garbage that other servers may still be about to need, and that is condemned now.
    pub(crate) condemn: Vec<StoredBlob>,
    /// The same, condemned less than a grace period ago.
    pub(crate) waiting: Vec<StoredBlob>,
    /// What was condemned and is no garbage, or is gone.
    pub(crate) spare: Vec<Digest>,
    /// Blobs to remove.
    pub(crate) blobs: Vec<StoredBlob>,
    /// Blobs that stay, and why.
    pub(crate) kept: BTreeMap<Digest, Keep>,
}

/// Finds out what is needed, one document at a time.
#[derive(Debug)]
pub(crate) struct Mark {
    inventory: Inventory,
    needed: BTreeMap<Digest, Needed>,
    /// Needed manifests of which the references may not have been followed yet.
    open: Vec<(Digest, Need)>,
    /// Whether the manifest that was asked for last needs what its metadata names.
    content: bool,
    /// TUF metadata that was not read yet, and all that was named: each is read once.
    metadata: Vec<Digest>,
    named: BTreeSet<Digest>,
    /// All targets that metadata names.
    listed: HashSet<Digest>,
}

#[derive(Debug, Clone, Copy)]
struct Needed {
    why: Need,
    followed: Followed,
}

/// How far what is needed was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Followed {
    /// Not at all: so far it is needed as a blob only.
    No,
    /// To what it refers to.
    References,
    /// And to what its metadata names.
    Content,
}

impl Mark {
    /// Begins with what is tagged, and with what repositories show since less than the grace period:
    /// a push under way is about to need that.
    pub(crate) fn new(mut inventory: Inventory) -> Self {
        let tagged = std::mem::take(&mut inventory.tagged).into_iter();
        let mut mark = Mark {
            needed: BTreeMap::new(),
            open: tagged.map(|tagged| (tagged, Need::Tagged)).collect(),
            content: true,
            metadata: Vec::new(),
            named: BTreeSet::new(),
            listed: HashSet::new(),
            inventory,
        };
        let links = std::mem::take(&mut mark.inventory.links);
        for (link, _) in links.iter().filter(|(_, age)| *age == Age::Young) {
            match link.kind {
                LinkKind::Manifest => mark.open.push((link.digest.clone(), Need::RepositoryLinks)),
                LinkKind::Blob => mark.blob(&link.digest, Need::RepositoryLinks),
            }
        }
        mark.inventory.links = links;
        mark
    }

    /// The next document to read; `None` when everything that is needed is known.
    pub(crate) fn next(&mut self) -> Option<Question> {
        if let Some(metadata) = self.metadata.pop() {
            return Some(Question::Metadata(metadata));
        }
        while let Some((digest, why)) = self.open.pop() {
            let audit = why == Need::Tagged && self.inventory.audits.contains(&digest);
            let wanted = if audit { Followed::References } else { Followed::Content };
            let fresh = Needed { why, followed: Followed::No };
            let needed = self.needed.entry(digest.clone()).or_insert(fresh);
            if needed.followed >= wanted {
                continue;
            }
            needed.followed = wanted;
            self.content = !audit;
            let attached = self.inventory.attached.get(&digest).into_iter().flatten();
            self.open.extend(attached.map(|attached| (attached.clone(), Need::Attached)));
            return Some(Question::Manifest(digest));
        }
        None
    }

    /// The answer to [`Question::Manifest`].
    pub(crate) fn manifest(&mut self, facts: &Facts) {
        let manifests = facts.manifests.iter().map(|(child, _)| child).chain(&facts.subject);
        self.open.extend(manifests.map(|child| (child.clone(), Need::Referenced)));
        for metadata in facts.metadata.iter().filter(|_| self.content) {
            if self.named.insert(metadata.clone()) {
                self.metadata.push(metadata.clone());
            }
        }
        for blob in &facts.blobs {
            self.blob(blob, Need::Referenced);
        }
    }

    /// The answer to [`Question::Metadata`].
    pub(crate) fn metadata(&mut self, targets: Vec<Digest>) {
        // Hundreds of lists of the same releases name each of them.
        let fresh = targets.into_iter().filter(|target| self.listed.insert(target.clone()));
        self.open.extend(fresh.map(|target| (target, Need::Target)));
    }

    /// A needed blob. It needs nothing itself, so it is not read, except when it is a manifest with
    /// attachments that somebody uses as a blob as well.
    fn blob(&mut self, blob: &Digest, why: Need) {
        if self.inventory.attached.contains_key(blob) {
            self.open.push((blob.clone(), why));
        } else {
            self.needed.entry(blob.clone()).or_insert(Needed { why, followed: Followed::No });
        }
    }

    /// What is to be done, once [`Mark::next`] has no further question.
    pub(crate) fn plan(self) -> Plan {
        let Mark { inventory: Inventory { links, blobs, condemned, .. }, needed, .. } = self;
        let mut plan = Plan::default();
        for (link, age) in links {
            if age == Age::Old && !needed.contains_key(&link.digest) {
                plan.links.push(link);
            }
        }
        let mut condemned: Option<BTreeMap<Digest, Age>> =
            condemned.map(|found| found.into_iter().collect());
        for (stored, age) in blobs {
            let keep = match (needed.get(&stored.digest), age) {
                (Some(needed), _) => Keep::Needed(needed.why),
                (None, Age::Young) => Keep::Young,
                (None, Age::Old) => {
                    match condemned.as_mut().map(|all| all.remove(&stored.digest)) {
                        None | Some(Some(Age::Old)) => plan.blobs.push(stored),
                        Some(Some(Age::Young)) => plan.waiting.push(stored),
                        Some(None) => plan.condemn.push(stored),
                    }
                    continue;
                }
            };
            plan.kept.insert(stored.digest, keep);
        }
        plan.spare = condemned.unwrap_or_default().into_keys().collect();
        plan
    }
}
