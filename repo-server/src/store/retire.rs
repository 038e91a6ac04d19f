//! Old TUF states lose their tags, so that `index.json` never fills: whoever may push states need not be allowed to
//! delete anything.
//!
//! Which ones is [`Retention`]'s to say, by version numbers alone. The newest state is the one that `tuf:latest` stands
//! for. Their bytes go with the next collection.

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

/// All of a storage, whatever the namespace.
fn old_states(refs: &Refs, retention: Retention) -> Vec<String> {
    let newest = refs.iter().filter_map(|(reference, latest)| {
        let (repository, tag) = reference.rsplit_once(':')?;
        (is_tuf(repository) && tag == LATEST).then_some((repository, latest))
    });
    newest
        .flat_map(|(repository, latest)| of_repository(refs, repository, latest, retention))
        .collect()
}

fn of_repository(
    refs: &Refs,
    repository: &str,
    latest: &Descriptor,
    retention: Retention,
) -> Vec<String> {
    let prefix = format!("{repository}:");
    let tagged = refs.range(prefix.clone()..).map_while(|(reference, state)| {
        let tag = reference.strip_prefix(&prefix)?;
        Some((reference, tag, state))
    });
    // One that has no tag of its own is somebody else's, who knows what comes after what.
    let latest = tagged.clone().filter(|(.., state)| state.digest == latest.digest);
    let Some(newest) = latest.filter_map(|(_, tag, _)| version_of(tag)).max() else {
        return Vec::new();
    };
    let old = retention.old(newest, tagged, |(_, tag, _)| tag);
    old.into_iter().map(|(reference, ..)| reference.clone()).collect()
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
    fn a_latest_of_unknown_version_and_a_jump_remove_nothing() {
        let mut unknown = states("tuf", 40);
        unknown.insert("tuf:latest".to_owned(), state(99));
        assert!(old_states(&unknown, rule()).is_empty());
        // Whoever may push a state jumps to a high version, so that everything before it would be old.
        unknown.insert("tuf:ts-9999".to_owned(), state(99));
        assert!(old_states(&unknown, rule()).is_empty());
    }
}
