//! Which releases of a repository nobody needs any more. Pure.

use std::collections::{BTreeMap, BTreeSet};

use formats::channel::Channel;

use crate::state::ListedRelease;

/// What stays in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlisting {
    /// Only releases of this product go; `None`: of all of them.
    pub product: Option<String>,
    /// So many of the newest of each product stay, at least one.
    pub keep: usize,
}

impl Unlisting {
    /// The targets that may go, sorted: releases that no channel offers, that were not withdrawn, and
    /// that are not among the newest of their product.
    ///
    /// A withdrawn one stays, because its mark tells the nodes that run it.
    pub fn of<'a>(
        &self,
        releases: &[ListedRelease],
        channels: impl Iterator<Item = &'a Channel>,
    ) -> BTreeSet<String> {
        let offered: BTreeSet<String> = channels
            .filter_map(|it| Some((it, it.release.as_ref()?)))
            .map(|(it, offer)| formats::release::target_name(&it.product, &offer.version))
            .collect();
        let mut products = BTreeMap::<&str, Vec<&ListedRelease>>::new();
        for release in releases {
            products.entry(&release.product).or_default().push(release);
        }
        let mut gone = BTreeSet::new();
        for (product, mut releases) in products {
            if self.product.as_deref().is_some_and(|only| only != product) {
                continue;
            }
            releases.sort_by(|a, b| a.summary.version.compare(&b.summary.version));
            let older = releases.iter().rev().skip(self.keep.max(1));
            let needless =
                older.filter(|it| it.summary.withdrawn.is_none() && !offered.contains(&it.target));
            gone.extend(needless.map(|it| it.target.clone()));
        }
        gone
    }
}

/// The same without releases that the deltas of kept ones start from, and theirs in turn. `starts`
/// gives for each release what its images are called, and what its deltas start from.
pub fn without_bases(
    mut gone: BTreeSet<String>,
    starts: &BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
) -> BTreeSet<String> {
    loop {
        let kept = starts.iter().filter(|(target, _)| !gone.contains(*target));
        let needed: BTreeSet<&String> = kept.flat_map(|(_, (_, from))| from).collect();
        let is_base = |target: &String| {
            let images = starts.get(target).into_iter().flat_map(|(images, _)| images);
            images.into_iter().any(|image| needed.contains(image))
        };
        let bases: BTreeSet<String> = gone.iter().filter(|it| is_base(it)).cloned().collect();
        if bases.is_empty() {
            return gone;
        }
        gone.retain(|target| !bases.contains(target));
    }
}

#[cfg(test)]
mod tests {
    use formats::channel::Offer;
    use formats::digest::Sha256;
    use formats::release::{Summary, Withdrawal};
    use formats::tuf::Role;

    use super::*;

    fn release(target: &str, withdrawn: bool) -> ListedRelease {
        let (product, version) = target.split_once('/').unwrap();
        let withdrawn = withdrawn.then(|| Withdrawal { at: 1, because: "loses data".to_owned() });
        ListedRelease {
            target: target.to_owned(),
            product: product.to_owned(),
            role: Role::Targets,
            summary: Summary {
                version: version.parse().unwrap(),
                security_version: 1,
                components: Vec::new(),
                attachments: Vec::new(),
                mixed: Vec::new(),
                order: Vec::new(),
                withdrawn,
            },
        }
    }

    fn channel(product: &str, version: &str) -> Channel {
        let mut channel = Channel::new(product, "stable");
        channel.offer(Offer { version: version.parse().unwrap(), sha256: Sha256::of(b"") });
        channel
    }

    #[test]
    fn what_is_offered_withdrawn_or_new_stays() {
        let releases: Vec<ListedRelease> =
            ["a/1.0", "a/1.1", "a/1.2", "a/1.9", "a/1.10", "b/1", "b/2"]
                .into_iter()
                .map(|target| release(target, target == "a/1.1"))
                .collect();
        let channels = [channel("a", "1.0"), Channel::new("a", "none")];
        for (product, keep, gone) in [
            (None, 2, vec!["a/1.2"]),
            (None, 1, vec!["a/1.2", "a/1.9", "b/1"]),
            // Versions are no texts, and one always stays.
            (None, 0, vec!["a/1.2", "a/1.9", "b/1"]),
            (Some("b"), 1, vec!["b/1"]),
            (Some("c"), 1, vec![]),
            (None, 5, vec![]),
        ] {
            let rule = Unlisting { product: product.map(str::to_owned), keep };
            let found = rule.of(&releases, channels.iter());
            let gone: BTreeSet<String> = gone.into_iter().map(str::to_owned).collect();
            assert_eq!(found, gone, "{rule:?}");
        }
    }

    #[test]
    fn bases_of_deltas_stay_with_their_own_bases() {
        let set = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
        let row = |target: &str, image: &str, from: &[&str]| {
            (target.to_owned(), (set(&[image]), set(from)))
        };
        let starts = BTreeMap::from([
            row("a/1", "i1", &[]),
            row("a/2", "i2", &["i1"]),
            row("a/3", "i3", &[]),
            row("a/4", "i4", &["i2"]),
        ]);
        assert_eq!(without_bases(set(&["a/1", "a/2", "a/3"]), &starts), set(&["a/3"]));
        assert_eq!(without_bases(set(&["a/1"]), &starts), set(&[]));
        assert_eq!(without_bases(set(&["a/3"]), &starts), set(&["a/3"]));
    }
}
