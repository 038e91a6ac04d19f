//! Releases that nodes rarely ask for, out of the metadata that every node reads after every change.
//!
//! ```text
//!  targets ── channels, what they offer, the newest releases of each product
//!     └─► …, history                     */*, asked last; lists nothing itself
//!            ├─► history-1, history-2, …  closed: by prefixes of the SHA-256 of their names
//!            └─► history-recent           */*: what was moved last
//! ```
//!
//! | when | what moves | signed beside targets |
//! |---|---|---|
//! | more than a quarter of `keep` releases of a product are too old | they, to `history-recent` | 1 role |
//! | `history-recent` lists more than [`closed::CLOSED`] bytes | all of it, to a new closed role | 3 roles |
//! | there are [`closed::SMALL_ROLES`] small closed roles | they become one | 3 roles |
//! | a channel offers a release of the history | it, back to targets | 1 role |
//!
//! A closed role is not signed again until it becomes part of a larger one or half of its period is over, so all
//! states share its file, and nodes that asked for an old release keep it. With bins by hash alone,
//! each state would store a bin of its own.

mod aged;
mod closed;

use std::borrow::Cow;
use std::collections::BTreeMap;

use formats::json::{Object, Value};
use formats::tuf::{
    DelegatedRole, DelegatedTo, HashPrefixes, Key, PERIOD_MEMBER, Paths, Role, RoleKeys,
    TargetFile, Targets,
};

use super::draft::Draft;
use super::{Expiry, PlanError, default_period, period_of};
use crate::state::{HISTORY, RECENT, is_history};

/// 16 releases of each product stay in targets, some 6 KB: more than a fleet runs at one time.
pub const DEFAULT_KEEP: u32 = 16;
/// Member of the history that says how many of each product stay in targets.
pub const KEEP_MEMBER: &str = "x-racklet-keep";

/// 5 hexadecimal digits, 8 bytes a release: of 10,000 releases, one name in a hundred leads by chance
/// to a role that does not list it.
const DIGITS: usize = 5;

/// The names of a closed role in few words, if they are exactly those it lists: `128 names by hash`.
pub fn short_paths(named: &DelegatedRole, listed: Option<&Targets>) -> Option<String> {
    let Paths::HashPrefixes(prefixes) = &named.paths else { return None };
    let names = &listed?.targets;
    let same = prefixes_of(names) == *prefixes;
    (same && is_history(&named.role)).then(|| format!("the {} names that it lists", names.len()))
}

fn prefixes_of(entries: &BTreeMap<String, TargetFile>) -> HashPrefixes {
    HashPrefixes::of_names(entries.keys().map(String::as_str), DIGITS)
}

fn named(name: &str) -> Role {
    Role::delegated(name).expect("is a role name by the grammar")
}

impl Draft<'_> {
    /// Whether a role is one of the history, as this program made it.
    pub(super) fn in_history(&self, role: &Role) -> bool {
        self.has_history()
            && (role.name() == HISTORY
                || self.named_by(&named(HISTORY)).iter().any(|by| by.role == *role))
    }

    /// Refuses other keys for one role of the history alone: what moves among them is signed by all.
    pub(super) fn check_own_keys(&self, role: &Role) -> Result<(), PlanError> {
        match self.in_history(role) && role.name() != HISTORY {
            true => Err(PlanError::History(role.clone())),
            false => Ok(()),
        }
    }

    fn has_history(&self) -> bool {
        self.named_by(&named(HISTORY)).iter().any(|by| by.role.name() == RECENT)
            && self.named_by(&Role::Targets).iter().any(|by| by.role.name() == HISTORY)
    }

    /// To whom a role delegates by name.
    fn named_by(&self, role: &Role) -> &[DelegatedRole] {
        let delegations = self.targets_of(role).and_then(|targets| targets.delegations.as_ref());
        match delegations.map(|delegations| &delegations.to) {
            Some(DelegatedTo::Roles(roles)) => roles,
            _ => &[],
        }
    }

    /// The role that stays the last one of those that `by` delegates to.
    pub(super) fn last_of(&self, by: &Role) -> Option<Role> {
        match by {
            Role::Targets if self.has_history() => Some(named(HISTORY)),
            by if by.name() == HISTORY => Some(named(RECENT)),
            _ => None,
        }
    }

    /// A role with those that have its keys: the history is signed by whom its first role names, and
    /// by those of targets until it got keys of its own.
    pub(super) fn with_history(&self, role: &Role) -> Vec<Role> {
        let mut all = vec![role.clone()];
        let history = named(HISTORY);
        if self.has_history() && (*role == history || (*role == Role::Targets && self.is_shared()))
        {
            let below = self.named_by(&history).iter().map(|by| by.role.clone());
            all.extend(std::iter::once(history.clone()).chain(below).filter(|it| it != role));
        }
        all
    }

    /// Whether the keys of targets sign for the history.
    fn is_shared(&self) -> bool {
        let of_history = self.named_by(&Role::Targets).iter().find(|by| by.role.name() == HISTORY);
        let same =
            |a: &RoleKeys, b: &RoleKeys| (a.threshold, &a.keyids) == (b.threshold, &b.keyids);
        match (of_history, self.root.role(&Role::Targets)) {
            (Some(by), Some(targets)) => same(&by.keys, targets),
            _ => false,
        }
    }

    /// Lets a role of the history last as long as targets do.
    pub(super) fn lasts_as_targets(&self, members: &mut Object, expiry: &Expiry) {
        let now = self.targets_of(&Role::Targets).and_then(|it| period_of(&it.unknown));
        let given = expiry.period(&Role::Targets);
        let period = given.or(now).unwrap_or_else(|| default_period(&Role::Targets));
        let period = i64::try_from(period).unwrap_or(i64::MAX);
        members.insert(PERIOD_MEMBER.to_owned(), Value::Int(period));
    }

    /// The keys of targets sign for it, until it gets its own.
    fn make_history(&mut self) -> Result<(), PlanError> {
        let keys = self.root.role(&Role::Targets).ok_or(PlanError::NoRole(Role::Targets))?.clone();
        let all: Vec<Key> =
            keys.keyids.iter().filter_map(|id| self.root.keys.get(id)).cloned().collect();
        for (by, name) in [(Role::Targets, HISTORY), (named(HISTORY), RECENT)] {
            let keys = RoleKeys::new(keys.threshold, keys.keyids.iter().copied());
            let paths = Paths::Patterns(vec!["*/*".to_owned()]);
            let added = DelegatedRole { role: named(name), keys, paths, terminating: false };
            self.add_role(&by, added, &all)?;
        }
        if let Some(history) = self.targets.get_mut(&named(HISTORY)).map(Cow::to_mut) {
            let keep = Value::Int(DEFAULT_KEEP.into());
            history.unknown.insert(KEEP_MEMBER.to_owned(), keep);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
