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
//! | `history-recent` lists more than [`CLOSED`] bytes | all of it, to a new closed role | 3 roles |
//! | there are [`SMALL_ROLES`] small closed roles | they become one | 3 roles |
//! | a channel offers a release of the history | it, back to targets | 1 role |
//!
//! A closed role is not signed again until it becomes part of a larger one or half of its period is over, so all
//! states share its file, and nodes that asked for an old release keep it. With bins by hash alone,
//! each state would store a bin of its own.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use formats::json::{Object, Value};
use formats::release::target_name;
use formats::tuf::{
    DelegatedRole, DelegatedTo, HashPrefixes, Key, PERIOD_MEMBER, Paths, Role, RoleKeys,
    TargetFile, Targets, UnixTime,
};
use formats::version::Version;

use super::draft::Draft;
use super::{Expiry, PlanError, default_period, period_of};
use crate::state::{CLOSED_PREFIX, HISTORY, RECENT, ask, is_history};

/// 16 releases of each product stay in targets, some 6 KB: more than a fleet runs at one time.
pub const DEFAULT_KEEP: u32 = 16;
/// Member of the history that says how many of each product stay in targets.
pub const KEEP_MEMBER: &str = "x-racklet-keep";

/// 48 KiB, some 128 releases: what is stored anew with every fifth publish at most, and what a node
/// fetches that asks for a release of this role.
const CLOSED: usize = 48 << 10;
/// Eight closed roles become one of 384 KiB, and never more than eight at once: releases may have been
/// unlisted from many, and nodes read 2 MiB. 10,000 releases are in some 16 roles, and each was
/// written twice.
const SMALL_ROLES: usize = 8;
/// Two roles that are renewed in one publish before they have to be.
const RENEWED: usize = 2;
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

/// Bytes of an entry in the metadata, but for some that all have.
fn size(name: &str, file: &TargetFile) -> usize {
    let custom = file.custom.as_ref().map_or(0, |custom| custom.to_bytes().len());
    name.len() + custom + 140
}

/// Product and version, if a target is named as releases are.
fn release(name: &str) -> Option<(&str, Version)> {
    let (product, version) = name.split_once('/')?;
    let version = version.parse().ok().filter(|_| !version.contains('/'))?;
    Some((product, version))
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

    /// Makes the history if there is none, and moves all that is too old.
    pub(super) fn archive(&mut self, keep: Option<u32>) -> Result<(), PlanError> {
        if !self.has_history() {
            self.make_history()?;
        }
        if let Some(keep) = keep
            && u64::from(keep) != self.kept() as u64
            && let Some(history) = self.targets.get_mut(&named(HISTORY))
        {
            let keep = Value::Int(keep.max(1).into());
            history.to_mut().unknown.insert(KEEP_MEMBER.to_owned(), keep);
        }
        self.move_old(0, None)
    }

    /// Moves what became too old, if it is worth a signature: a quarter of what stays. Only where whoever
    /// signs for targets, which has to change in any case, signs for the history, too. Then what of it
    /// ends soon is renewed: who publishes need not think of it.
    pub(super) fn move_aged(&mut self, published: &str, now: UnixTime) -> Result<(), PlanError> {
        if !self.changes(&Role::Targets) || !self.has_history() || !self.is_shared() {
            return Ok(());
        }
        self.renew_ending(now);
        self.move_old(self.kept() / 4, Some(published))
    }

    /// Renews the roles of the history in the last third of their period, and of those in the second
    /// half a few, so that not all of them are due in one publish.
    fn renew_ending(&mut self, now: UnixTime) {
        let mut left = Vec::new();
        for role in self.with_history(&named(HISTORY)) {
            let Some(targets) = self.targets_of(&role) else { continue };
            let period = period_of(&targets.unknown).unwrap_or_else(|| default_period(&role));
            let period = i64::try_from(period).unwrap_or(i64::MAX);
            let seconds = targets.header.expires.secs().saturating_sub(now.secs());
            left.push((seconds, period, role));
        }
        left.sort();
        let few = left.iter().take(RENEWED).filter(|(seconds, period, _)| *seconds < period / 2);
        let all = left.iter().filter(|(seconds, period, _)| *seconds < period / 3);
        self.renewed.extend(few.chain(all).map(|(_, _, role)| role.clone()));
    }

    /// How many releases of each product stay in targets.
    fn kept(&self) -> usize {
        let history = self.targets_of(&named(HISTORY));
        let keep = history.and_then(|it| it.unknown.get(KEEP_MEMBER)).and_then(Value::as_int);
        let keep = keep.and_then(|keep| usize::try_from(keep).ok()).filter(|keep| *keep > 0);
        keep.unwrap_or(DEFAULT_KEEP as usize)
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

    /// Moves the releases of each product that are too old, if they are more than `slack`.
    fn move_old(&mut self, slack: usize, published: Option<&str>) -> Result<(), PlanError> {
        let mut moved = Vec::new();
        for old in self.old_releases(published).into_values() {
            if old.len() > slack {
                moved.extend(old);
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        let mut entries = BTreeMap::new();
        if let Some(targets) = self.targets.get_mut(&Role::Targets).map(Cow::to_mut) {
            entries.extend(moved.iter().filter_map(|name| targets.targets.remove_entry(name)));
        }
        if let Some(recent) = self.targets.get_mut(&named(RECENT)).map(Cow::to_mut) {
            recent.targets.extend(entries);
        }
        self.close()
    }

    /// The releases in targets that are too old to stay there, by product, the oldest first: those
    /// that no channel offers, beside the newest of their product, as far as nodes would find them.
    fn old_releases(&self, published: Option<&str>) -> BTreeMap<String, Vec<String>> {
        let changed = self.channels.iter();
        let same =
            self.state.channels.iter().filter(|(name, _)| !self.channels.contains_key(*name));
        let channels = changed.map(|(_, it)| it).chain(same.map(|(_, signed)| &signed.data));
        let needed: BTreeSet<String> = channels
            .flat_map(|it| {
                let offer = it.release.as_ref().map(|offer| &offer.version);
                let versions = offer.into_iter().chain(&it.newest);
                versions.map(move |version| target_name(&it.product, version))
            })
            .collect();
        let mut products = BTreeMap::<&str, Vec<(Version, &String)>>::new();
        let listed = self.targets_of(&Role::Targets).into_iter().flat_map(|it| it.targets.keys());
        for name in listed {
            if let Some((product, version)) = release(name) {
                products.entry(product).or_default().push((version, name));
            }
        }
        let mut old = BTreeMap::new();
        for (product, mut releases) in products {
            releases.sort_by(|(a, _), (b, _)| a.compare(b));
            releases.truncate(releases.len().saturating_sub(self.kept()));
            let names = releases.into_iter().map(|(_, name)| name).filter(|name| {
                !needed.contains(*name)
                    && Some(name.as_str()) != published
                    && self.reaches_history(name)
            });
            old.insert(product.to_owned(), names.cloned().collect());
        }
        old
    }

    /// Whether nodes that do not find a name in targets come to the history before any other role
    /// that lists it, and find nothing there yet.
    fn reaches_history(&self, name: &str) -> bool {
        let answer = |role: &Role, targets: &Targets| {
            let lists = *role != Role::Targets && targets.targets.contains_key(name);
            (lists || role.name() == RECENT).then_some(lists)
        };
        let found = ask(name, |role| self.targets_of(role), answer);
        found.is_some_and(|(role, lists)| role.name() == RECENT && !lists)
    }

    /// Divides what came together into closed roles, and makes one of many small ones.
    fn close(&mut self) -> Result<(), PlanError> {
        let recent = named(RECENT);
        while let Some(targets) = self.targets_of(&recent) {
            let mut taken = 0;
            let last = targets.targets.iter().position(|(name, file)| {
                taken += size(name, file);
                taken >= CLOSED
            });
            let Some(last) = last else { break };
            let names: Vec<String> = targets.targets.keys().take(last + 1).cloned().collect();
            let Some(targets) = self.targets.get_mut(&recent).map(Cow::to_mut) else { break };
            let entries = names.iter().filter_map(|name| targets.targets.remove_entry(name));
            let entries = entries.collect();
            self.add_closed(entries)?;
            self.merge()?;
        }
        Ok(())
    }

    /// A closed role with these entries, under the lowest number that is free.
    fn add_closed(&mut self, entries: BTreeMap<String, TargetFile>) -> Result<(), PlanError> {
        let history = named(HISTORY);
        let free = |role: &Role| !self.targets.contains_key(role);
        let role = (1u32..).map(|n| named(&format!("{CLOSED_PREFIX}{n}"))).find(free);
        let role = role.ok_or_else(|| PlanError::RoleExists(history.clone()))?;
        let recent = self.named_by(&history).iter().find(|by| by.role.name() == RECENT);
        let keys = recent.map(|by| by.keys.clone());
        let keys = keys.ok_or_else(|| PlanError::NoRole(history.clone()))?;
        let paths = Paths::HashPrefixes(prefixes_of(&entries));
        let added = DelegatedRole { role: role.clone(), keys, paths, terminating: false };
        // The keys of the roles beside it are there.
        self.add_role(&history, added, &[])?;
        if let Some(targets) = self.targets.get_mut(&role).map(Cow::to_mut) {
            targets.targets = entries;
        }
        Ok(())
    }

    /// One role of many small ones.
    fn merge(&mut self) -> Result<(), PlanError> {
        let history = named(HISTORY);
        let closed = self.named_by(&history).iter().filter(|by| by.role.name() != RECENT);
        let small: Vec<Role> = closed
            .map(|by| &by.role)
            .filter(|role| self.targets_of(role).is_some_and(is_small))
            .take(SMALL_ROLES)
            .cloned()
            .collect();
        if small.len() < SMALL_ROLES {
            return Ok(());
        }
        let mut entries = BTreeMap::new();
        for role in &small {
            if let Some(targets) = self.targets.remove(role) {
                entries.extend(targets.into_owned().targets);
            }
        }
        if let Some(delegations) =
            self.targets.get_mut(&history).and_then(|it| it.to_mut().delegations.as_mut())
            && let DelegatedTo::Roles(roles) = &mut delegations.to
        {
            roles.retain(|by| !small.contains(&by.role));
        }
        self.add_closed(entries)
    }
}

/// Whether a closed role was never made of others, or lost most of what it listed.
fn is_small(targets: &Targets) -> bool {
    let mut left = 2 * CLOSED;
    let mut sizes = targets.targets.iter().map(|(name, file)| size(name, file));
    sizes.all(|size| {
        left = left.saturating_sub(size);
        left > 0
    })
}

#[cfg(test)]
mod tests;
