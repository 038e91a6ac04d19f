//! Moving releases out of targets that have become too old.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use formats::json::Value;
use formats::release::target_name;
use formats::tuf::{Role, Targets, UnixTime};
use formats::version::Version;

use super::super::draft::Draft;
use super::super::{PlanError, default_period, period_of};
use super::{DEFAULT_KEEP, KEEP_MEMBER, named};
use crate::state::{HISTORY, RECENT, ask};

/// Two roles that are renewed in one publish before they have to be.
const RENEWED: usize = 2;

impl Draft<'_> {
    /// Makes the history if there is none, and moves all that is too old.
    pub(in crate::plan) fn archive(&mut self, keep: Option<u32>) -> Result<(), PlanError> {
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
    pub(in crate::plan) fn move_aged(
        &mut self,
        published: &str,
        now: UnixTime,
    ) -> Result<(), PlanError> {
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
}

/// Product and version, if a target is named as releases are.
fn release(name: &str) -> Option<(&str, Version)> {
    let (product, version) = name.split_once('/')?;
    let version = version.parse().ok().filter(|_| !version.contains('/'))?;
    Some((product, version))
}
