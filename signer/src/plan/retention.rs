//! Which old states a repository keeps. Pure: version numbers alone, no clock and nothing that is
//! fetched, so that two machines always agree.
//!
//! ```text
//!  how many versions older than the newest      what is kept, for K = 256
//!        0 …       K - 1                        every one            256
//!        K …    16 K - 1                        multiples of 16      240
//!     16 K …   256 K - 1                        multiples of 256     240
//!    256 K … 4,096 K - 1                        multiples of 4,096   240, and so on
//! ```
//!
//! What is dropped once is never wanted again: a state only grows older, and multiples of 256 are
//! multiples of 16. The tag `latest` is no part of it; it is always kept.

use std::collections::{BTreeMap, BTreeSet};

/// 16: a mistake of a quarter of an hour of refreshes can still be looked at, and no run undoes the
/// state that another one is about to build upon.
pub const LEAST_STATES: u64 = 16;

/// 256: two months of a refresh every six hours, two days of one every ten minutes.
pub const DEFAULT_STATES: u64 = 256;

/// Each band is that many times as long as the one before, and as much thinner.
const THINNER: u64 = 16;

/// How many states are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Of the newest states, so many; `None`: all there are.
    newest: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { newest: Some(DEFAULT_STATES) }
    }
}

impl Retention {
    /// Nothing is ever removed.
    pub const EVERYTHING: Retention = Retention { newest: None };

    /// The newest `states`, and fewer of the older ones; `None` below [`LEAST_STATES`].
    pub fn of(states: u64) -> Option<Self> {
        (states >= LEAST_STATES).then_some(Retention { newest: Some(states) })
    }

    /// Whether the state of a timestamp version is kept when `newest` is the newest one. One that is
    /// newer than that is: it is not of this line, and its number comes again.
    pub fn keeps(self, newest: u64, version: u64) -> bool {
        let Some(age) = newest.checked_sub(version) else { return true };
        self.step(age).is_some_and(|step| version.is_multiple_of(step))
    }

    /// Whether what such a state lists is kept with it: of the newest ones. Older ones are kept for
    /// audits, and are metadata only.
    pub fn keeps_content(self, newest: u64, version: u64) -> bool {
        let age = newest.checked_sub(version);
        age.is_none_or(|age| self.newest.is_none_or(|states| age < states))
    }

    /// What the numbers of states of that age are multiples of; `None` when none is kept.
    fn step(self, age: u64) -> Option<u64> {
        let Some(mut reach) = self.newest else { return Some(1) };
        let mut step: u64 = 1;
        while age >= reach {
            step = step.checked_mul(THINNER)?;
            reach = reach.saturating_mul(THINNER);
        }
        Some(step)
    }

    /// Of the versions that are there, those that are not kept, the oldest first.
    ///
    /// States below a gap that this rule does not leave are not judged: they are of another line. A
    /// thief of the online keys may jump to a high number. Whoever refreshes that, without noticing,
    /// must not remove the last good state, which the way back begins with.
    pub fn removable(self, newest: u64, there: &BTreeSet<u64>) -> Vec<u64> {
        let line = self.line(newest, there).into_iter();
        let old = line.filter(|(version, step)| !version.is_multiple_of(*step));
        old.map(|(version, _)| version).rev().collect()
    }

    /// Of the versions that are there, those that are kept for audits only, if at all, the oldest first. Of
    /// states below such a gap, too, what they list is kept.
    pub fn without_content(self, newest: u64, there: &BTreeSet<u64>) -> Vec<u64> {
        let line = self.line(newest, there).into_iter().map(|(version, _)| version);
        line.filter(|version| !self.keeps_content(newest, *version)).rev().collect()
    }

    /// The versions down to the first gap that this rule does not leave, the newest first, and what the
    /// numbers of such states are multiples of.
    fn line(self, newest: u64, there: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut line = Vec::new();
        let mut newer = newest;
        for version in there.range(..=newest).rev() {
            let Some(step) = self.step(newest - version) else { break };
            if newer - version > step.saturating_mul(2) {
                break;
            }
            line.push((*version, step));
            newer = *version;
        }
        line
    }

    /// Of things that have a tag each, those whose state is not kept, the oldest first. What is no state
    /// is not judged.
    pub fn old<T>(
        self,
        newest: u64,
        all: impl IntoIterator<Item = T>,
        tag: impl Fn(&T) -> &str,
    ) -> Vec<T> {
        let mut by_version = BTreeMap::<u64, Vec<T>>::new();
        for one in all {
            if let Some(version) = version_of(tag(&one)) {
                by_version.entry(version).or_default().push(one);
            }
        }
        let there = by_version.keys().copied().collect();
        let old = self.removable(newest, &there);
        old.iter().flat_map(|version| by_version.remove(version).unwrap_or_default()).collect()
    }

    /// How many states at most are old enough to be removed when `newest` is the newest one.
    pub fn at_most_removable(self, newest: u64) -> u64 {
        self.newest.map_or(0, |states| newest.saturating_sub(states))
    }
}

/// The timestamp version of `ts-<version>`, or of what has a tag beside that:
/// `ts-<version>-sha256-<12 hex digits>`.
pub fn version_of(tag: &str) -> Option<u64> {
    let rest = tag.strip_prefix("ts-")?;
    let (number, beside) = match rest.split_once('-') {
        None => (rest, None),
        Some((number, beside)) => (number, Some(beside)),
    };
    let is_ours = beside.is_none_or(|beside| {
        beside
            .strip_prefix("sha256-")
            .is_some_and(|hex| hex.len() == 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    let version: u64 = number.parse().ok()?;
    // `ts-007` and `ts-+7` are somebody else's.
    (is_ours && version.to_string() == number).then_some(version)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(rule: Retention, newest: u64) -> u64 {
        (1..=newest).filter(|version| rule.keeps(newest, *version)).count() as u64
    }

    /// K, and for each band at most 15/16 of K, with one for where it begins.
    fn bound(states: u64, newest: u64) -> u64 {
        let (mut sum, mut reach) = (states, states);
        while newest > reach {
            sum += states - states / THINNER + 1;
            reach *= THINNER;
        }
        sum
    }

    #[test]
    fn ten_years_of_refreshes_every_ten_minutes_are_some_hundreds_of_states() {
        let newest = 525_600;
        let sum = kept(Retention::default(), newest);
        assert!((800..=850).contains(&sum), "{sum}");
        assert!(sum <= bound(DEFAULT_STATES, newest));
        // One more after the other, from the first on.
        for (newest, all) in [(1, 1), (256, 256), (257, 256), (4096, 496), (65_536, 736)] {
            assert_eq!(kept(Retention::default(), newest), all, "{newest}");
        }
    }

    #[test]
    fn few_states_are_no_rule_and_all_of_them_are_one() {
        assert_eq!(Retention::of(0), None);
        assert_eq!(Retention::of(LEAST_STATES - 1), None);
        assert_eq!(Retention::of(DEFAULT_STATES), Some(Retention::default()));
        assert!(Retention::EVERYTHING.keeps(u64::MAX, 1));
        assert_eq!(Retention::EVERYTHING.at_most_removable(u64::MAX), 0);
    }

    #[test]
    fn only_the_tags_of_states_are_judged() {
        for (tag, version) in [
            ("ts-1", Some(1)),
            ("ts-18446744073709551615", Some(u64::MAX)),
            ("ts-12-sha256-3f9a0c1b2d4e", Some(12)),
            ("latest", None),
            ("ts-", None),
            ("ts-01", None),
            ("ts-+1", None),
            ("ts-1-backup", None),
            ("ts-1-sha256-3f9a", None),
            ("ts-1-sha256-3f9a0c1b2d4e-x", None),
            ("ts-18446744073709551616", None),
            ("staged-1", None),
            ("sha256-3f9a0c1b2d4e", None),
        ] {
            assert_eq!(version_of(tag), version, "{tag}");
        }
    }

    /// What is there after each of these versions was published and the rule was applied.
    fn after(rule: Retention, versions: impl Iterator<Item = u64>, most: usize) -> BTreeSet<u64> {
        let mut there = BTreeSet::new();
        for newest in versions {
            there.insert(newest);
            for version in rule.removable(newest, &there).into_iter().take(most) {
                there.remove(&version);
            }
        }
        there
    }

    #[test]
    fn states_below_a_jump_stay() {
        let rule = Retention::default();
        let before = after(rule, 1..=1_000, 1000);
        let last_good = 1_000;
        for jump in [100_000, 1 << 50] {
            let mut there = before.clone();
            for newest in jump..jump + 600 {
                there.insert(newest);
                for version in rule.removable(newest, &there) {
                    there.remove(&version);
                }
                assert!(there.contains(&last_good), "{newest}");
                assert!(before.is_subset(&there), "{newest}");
            }
            assert!(there.len() < before.len() + 300, "{}", there.len());
        }
    }

    #[test]
    fn what_a_run_at_most_removes_changes_nothing_in_the_end() {
        let rule = Retention::of(16).unwrap();
        let wanted: BTreeSet<u64> = (1..=5_000).filter(|it| rule.keeps(5_000, *it)).collect();
        assert_eq!(after(rule, 1..=5_000, usize::MAX), wanted);
        // A few at a time, the oldest first, as a repository heals that nobody cared for.
        let mut there: BTreeSet<u64> = (1..=4_000).collect();
        for newest in 4_001..=5_000 {
            there.insert(newest);
            for version in rule.removable(newest, &there).into_iter().take(7) {
                there.remove(&version);
            }
        }
        assert_eq!(there, wanted);
    }

    proptest! {
        #[test]
        fn the_number_that_is_kept_is_bounded(states in 16_u64..600, newest in 1_u64..80_000) {
            let rule = Retention::of(states).unwrap();
            prop_assert!(kept(rule, newest) <= bound(states, newest));
        }

        #[test]
        fn the_newest_are_kept(states in 16_u64..10_000, newest: u64, age: u64) {
            let rule = Retention::of(states).unwrap();
            let version = newest.saturating_sub(age % states);
            prop_assert!(rule.keeps(newest, version));
            // And what only comes after it.
            prop_assert!(rule.keeps(version, newest));
        }

        #[test]
        fn what_is_dropped_is_never_wanted_again(
            states in 16_u64..10_000,
            version: u64,
            age in any::<u64>().prop_map(|it| it >> (it % 64)),
            later in any::<u64>().prop_map(|it| it >> (it % 64)),
        ) {
            let rule = Retention::of(states).unwrap();
            let then = version.saturating_add(age);
            let now = then.saturating_add(later);
            prop_assert!(rule.keeps(then, version) || !rule.keeps(now, version));
        }

        #[test]
        fn all_that_is_not_kept_is_found(states in 16_u64..64, newest in 1_u64..5_000) {
            let rule = Retention::of(states).unwrap();
            let all: BTreeSet<u64> = (1..=newest + 3).collect();
            let old: Vec<u64> = (1..=newest).filter(|it| !rule.keeps(newest, *it)).collect();
            prop_assert_eq!(rule.removable(newest, &all), old);
        }

        #[test]
        fn each_step_keeps_a_part_of_what_there_was(states in 16_u64..64, newest in 1_u64..5_000) {
            let rule = Retention::of(states).unwrap();
            for version in 1..=newest {
                prop_assert!(!rule.keeps(newest + 1, version) || rule.keeps(newest, version));
            }
        }
    }
}
