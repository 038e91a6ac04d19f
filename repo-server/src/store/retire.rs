//! Old TUF states lose their tags, so that `index.json` never fills: whoever may push states need not be allowed to
//! delete anything.
//!
//! Which ones is [`Retention`]'s to say, by version numbers alone. The newest state is the one that `tuf:latest` stands
//! for. Their bytes go with the next collection.

use std::collections::BTreeSet;

use formats::digest::Digest;
use formats::oci::Descriptor;
use signer::plan::Retention;
use signer::plan::retention::version_of;
use signer::published::LATEST;

use super::backend::Refs;
use super::{Store, StoreError};
use crate::tuf_tree::is_tuf;

impl Store {
    /// The references of old states. Changes nothing.
    pub fn old_states(&self, retention: Retention) -> Result<Vec<String>, StoreError> {
        Ok(old_states(&self.refs()?, retention))
    }

    /// Removes the references of old states, all of them in one step; how many.
    pub fn retire(&self, retention: Retention) -> Result<usize, StoreError> {
        let backend = self.writable()?;
        // A storage with nothing to remove is not written.
        if self.old_states(retention)?.is_empty() {
            return Ok(0);
        }
        let mut state = self.state();
        let mut removed = 0;
        backend.update_refs(&mut |refs| {
            let old = old_states(refs, retention);
            old.iter().for_each(|reference| drop(refs.remove(reference)));
            removed = old.len();
            Ok(())
        })?;
        self.rebuild(&mut state)?;
        Ok(removed)
    }
}

/// The states of one repository by their tags, and the version of the newest.
struct States<'a> {
    newest: u64,
    /// Reference, tag, and what it stands for; states and others.
    tagged: Vec<(&'a String, &'a str, &'a Descriptor)>,
}

/// All of a storage, whatever the namespace, and in any order.
fn old_states(refs: &Refs, retention: Retention) -> Vec<String> {
    let mut all = Vec::new();
    for States { newest, tagged } in repositories(refs) {
        let old = retention.old(newest, tagged, |(_, tag, _)| tag);
        all.extend(old.into_iter().map(|(reference, ..)| reference.clone()));
    }
    all
}

/// The manifests that stand for nothing but states which are kept for audits, if at all: of what these list,
/// nothing is needed. `unnamed` are entries of the index that have no reference.
pub(super) fn audits<'a>(
    refs: &'a Refs,
    unnamed: impl Iterator<Item = &'a Digest>,
    retention: Retention,
) -> BTreeSet<Digest> {
    let mut old = BTreeSet::new();
    for States { newest, tagged } in repositories(refs) {
        let version = |tag: &str| version_of(tag).filter(|version| *version <= newest);
        let there = tagged.iter().filter_map(|(_, tag, _)| version(tag)).collect();
        let audits: BTreeSet<u64> = retention.without_content(newest, &there).into_iter().collect();
        let is_old = |tag: &str| version(tag).is_some_and(|version| audits.contains(&version));
        old.extend(tagged.iter().filter(|(_, tag, _)| is_old(tag)).map(|(name, ..)| *name));
    }
    let digest_of = |(_, entry): (&'a String, &'a Descriptor)| &entry.digest;
    let (audits, others): (Vec<_>, Vec<_>) = refs.iter().partition(|(name, _)| old.contains(name));
    let others: BTreeSet<&Digest> = others.into_iter().map(digest_of).chain(unnamed).collect();
    let audits = audits.into_iter().map(digest_of).filter(|digest| !others.contains(digest));
    audits.cloned().collect()
}

/// The repositories that have a newest state: what `latest` stands for.
fn repositories(refs: &Refs) -> impl Iterator<Item = States<'_>> {
    refs.iter().filter_map(|(reference, latest)| {
        let (repository, tag) = reference.rsplit_once(':')?;
        if !is_tuf(repository) || tag != LATEST {
            return None;
        }
        let prefix = format!("{repository}:");
        let from = refs.range(prefix.clone()..);
        let tagged: Vec<_> = from
            .map_while(|(reference, state)| {
                Some((reference, reference.strip_prefix(&prefix)?, state))
            })
            .collect();
        // One that has no tag of its own is somebody else's, who knows what comes after what.
        let same = tagged.iter().filter(|(.., state)| state.digest == latest.digest);
        let newest = same.filter_map(|(_, tag, _)| version_of(tag)).max()?;
        Some(States { newest, tagged })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(version: u64) -> Descriptor {
        Descriptor::of("x", version.to_string().as_bytes())
    }

    /// States up to `newest` in a repository, the newest of which is the latest one.
    fn states(repository: &str, newest: u64) -> Refs {
        let tagged = (1..=newest).map(|it| (format!("{repository}:ts-{it}"), state(it)));
        tagged.chain([(format!("{repository}:latest"), state(newest))]).collect()
    }

    fn rule() -> Retention {
        Retention::of(16).unwrap()
    }

    #[test]
    fn each_repository_keeps_its_newest_states() {
        let mut refs = states("tuf", 40);
        refs.extend(states("fleet/tuf", 20));
        refs.extend(states("not-tuf", 90));
        let old = old_states(&refs, rule());
        let kept = |name: &str, number: u64| !old.contains(&format!("{name}:ts-{number}"));
        let of = |name: &str, newest: u64| {
            (1..=newest).filter(|it| kept(name, *it)).collect::<Vec<u64>>()
        };
        let newest: Vec<u64> = (25..=40).collect();
        assert_eq!(of("tuf", 40), [vec![16], newest].concat());
        assert_eq!(of("fleet/tuf", 20), (5..=20).collect::<Vec<u64>>());
        assert_eq!(of("not-tuf", 90).len(), 90);
        assert!(old_states(&refs, Retention::EVERYTHING).is_empty());
    }

    #[test]
    fn what_is_no_state_stays_and_what_is_beside_one_goes_with_it() {
        let mut refs = states("tuf", 40);
        for tag in ["ts-1-sha256-3f9a0c1b2d4e", "ts-01", "change-1", "sha256-aa"] {
            refs.insert(format!("tuf:{tag}"), state(1));
        }
        let old = old_states(&refs, rule());
        let gone = |tag: &str| old.contains(&format!("tuf:{tag}"));
        assert!(gone("ts-1") && gone("ts-1-sha256-3f9a0c1b2d4e"));
        assert!(!gone("ts-01") && !gone("change-1") && !gone("sha256-aa") && !gone("latest"));
    }

    #[test]
    fn of_old_states_only_the_metadata_are_kept_unless_something_else_stands_for_them() {
        let mut refs = states("tuf", 400);
        refs.extend(states("tuf-of-others", 400));
        refs.insert("tuf:kept-by-hand".to_owned(), state(32));
        refs.insert("demo:1.0".to_owned(), state(48));
        let unnamed = state(64).digest;
        let audits = audits(&refs, std::iter::once(&unnamed), Retention::default());
        let digest = |version: u64| state(version).digest;
        let wanted: BTreeSet<Digest> =
            (1..=144).filter(|it| ![32, 48, 64].contains(it)).map(digest).collect();
        // Nobody has said that the repository of others has states.
        refs.retain(|name, _| !name.starts_with("tuf-of-others"));
        let alone = super::audits(&refs, std::iter::once(&unnamed), Retention::default());
        assert_eq!(alone, wanted);
        assert!(audits.is_empty(), "what another repository stands for, too, is kept");
        let all = super::audits(&refs, std::iter::empty(), Retention::EVERYTHING);
        assert!(all.is_empty());
        // A jump of versions makes nothing old.
        refs.insert("tuf:latest".to_owned(), state(9999));
        refs.insert("tuf:ts-9999".to_owned(), state(9999));
        assert!(super::audits(&refs, std::iter::empty(), Retention::default()).is_empty());
    }

    #[test]
    fn a_latest_of_unknown_version_and_a_jump_remove_nothing() {
        let mut unknown = states("tuf", 40);
        unknown.insert("tuf:latest".to_owned(), state(99));
        assert!(old_states(&unknown, rule()).is_empty());
        // Whoever may push a state jumps to a high version, so that everything before it would be old.
        unknown.insert("tuf:ts-9999".to_owned(), state(99));
        assert!(old_states(&unknown, rule()).is_empty());
    }
}
