//! Roles: how long they last, and whose keys sign them.

use std::borrow::Cow;

use formats::example_keys;
use formats::reason::Reason;
use formats::tuf::{
    DelegatedRole, DelegatedTo, Header, Metadata, Paths, PublicKey, Role, RoleKeys, Targets,
};
use update_core::trust::Limits;

use super::super::clock::CLOCKS;
use super::super::expiry::limit_of;
use super::super::names::counted;
use super::{Findings, View};
use crate::state::{HISTORY, State, delegators, is_history};

impl View<'_> {
    pub(super) fn expiry(&self, found: &mut Findings, wanted: impl Fn(&Role) -> bool) {
        if wanted(&Role::Root) {
            self.period(found, &Role::Root, self.root.header());
        }
        let wanted = self.targets.iter().filter(|(role, _)| wanted(role));
        let (history, others): (Vec<_>, Vec<_>) = wanted.partition(|(role, _)| is_history(role));
        for (role, targets) in others {
            self.period(found, role, targets.header());
        }
        // Of many roles that are renewed together, those that say it for the others.
        let ends = |(_, targets): &&(&Role, &Cow<'_, Targets>)| targets.header().expires;
        let (first, last) = (history.iter().min_by_key(ends), history.iter().max_by_key(ends));
        let is_other = |last: &&(&Role, _)| first.is_some_and(|first| first.0 != last.0);
        for (role, targets) in first.into_iter().chain(last.filter(is_other)) {
            self.period(found, role, targets.header());
        }
    }

    pub(super) fn period(&self, found: &mut Findings, role: &Role, header: &Header) {
        let left = header.expires.secs().saturating_sub(self.now.secs());
        let limit = self.policy.longest(role).unwrap_or_else(|| limit_of(role));
        if left <= 0 {
            let text = format!("{role} version {} ended {}", header.version, header.expires);
            found.refuse(Reason::Expired, text);
        } else if u64::try_from(left).is_ok_and(|left| left > limit.saturating_add(CLOCKS)) {
            let text = format!(
                "{role} version {} lasts until {}, longer than the {} it may",
                header.version,
                header.expires,
                counted(limit / 86_400, "day")
            );
            found.refuse(Reason::Expired, text);
        }
    }

    /// What is wrong with a role's keys is refused; that all of them are needed is said of a role
    /// whose keys are not those of before.
    pub(super) fn roles(&self, found: &mut Findings, before: Option<&State>) {
        for role in Role::TOP_LEVEL {
            if let Some(keys) = self.root.role(&role) {
                let same = before.is_some_and(|before| before.root.role(&role) == Some(keys));
                one_role(found, &role, keys, !same, |keyid| self.root.keys.get(keyid));
            }
        }
        // Nodes come to those by prefix only if a name has it: to one, but for chance.
        let (mut count, mut by_prefix) = (0, 0);
        for targets in self.targets.values() {
            let Some(delegations) = &targets.delegations else { continue };
            let DelegatedTo::Roles(roles) = &delegations.to else { continue };
            let prefixed = |named: &&DelegatedRole| matches!(named.paths, Paths::HashPrefixes(_));
            let prefixed = roles.iter().filter(prefixed).count();
            count += roles.len() - prefixed;
            by_prefix = by_prefix.max(prefixed.min(1));
            for named in roles {
                let known = before.is_some_and(|before| had_keys(before, &named.role, &named.keys));
                let is_new = !known && !self.is_said(named);
                let key_of = |keyid: &formats::tuf::KeyId| delegations.keys.get(keyid);
                one_role(found, &named.role, &named.keys, is_new, key_of);
            }
        }
        let limit = Limits::default().delegations;
        count += by_prefix;
        if count > limit {
            let text = format!("{count} delegated roles; nodes ask {limit}");
            found.refuse(Reason::DelegationLimit, text);
        }
        if let Some(known) = example_keys::first_in(self.root) {
            let text = format!(
                "the example key of {} is trusted; its secret half is published",
                known.role
            );
            found.warn(Reason::ExampleKey, text);
        }
    }

    /// Whether what is said of the keys of targets, or of the first role of the history, says it of
    /// this role, too.
    fn is_said(&self, named: &DelegatedRole) -> bool {
        let targets = self.root.role(&Role::Targets);
        let same = targets.is_some_and(|it| it.keyids == named.keys.keyids);
        is_history(&named.role) && (same || named.role.name() != HISTORY)
    }
}

/// Whether a delegated role had exactly these keys already.
fn had_keys(before: &State, role: &Role, keys: &RoleKeys) -> bool {
    let all = before.targets_roles().map(|(role, signed)| (role, &signed.data));
    delegators(all, role).into_iter().any(|(_, _, was)| was == keys)
}

fn one_role<'a>(
    found: &mut Findings,
    role: &Role,
    keys: &RoleKeys,
    is_new: bool,
    key_of: impl Fn(&formats::tuf::KeyId) -> Option<&'a formats::tuf::Key>,
) {
    let counts = |keyid: &&formats::tuf::KeyId| {
        key_of(keyid).is_some_and(|key| *key.public() != PublicKey::Unknown)
    };
    let good = keys.keyids.iter().filter(counts).count();
    let threshold = keys.threshold as usize;
    if good < keys.keyids.len() {
        let text = {
            let unusable = counted((keys.keyids.len() - good) as u64, "key");
            format!("{role} lists {unusable} of no known type")
        };
        found.refuse(Reason::KeyInvalid, text);
    }
    if good < threshold {
        let text = format!("{role} needs {threshold} of {good} usable keys");
        found.refuse(Reason::SigThreshold, text);
    }
    let is_offline = !matches!(role, Role::Snapshot | Role::Timestamp);
    if is_new && is_offline && good == threshold {
        let lost = match (role, threshold) {
            (Role::Root, 1) => "its only key is lost, every node must be visited",
            (Role::Root, _) => "one of them is lost, every node must be visited",
            (_, 1) => "its only key is lost, the root has to replace it",
            _ => "one of them is lost, the role above has to replace it",
        };
        let text =
            format!("{role} needs {threshold} of {}: if {lost}", counted(good as u64, "key"));
        found.warn(Reason::SigThreshold, text);
    }
}
