//! What nodes would refuse is refused before it is public.
//!
//! | found | is | code |
//! |---|---|---|
//! | metadata that ended, or lasts longer than the policy says | refused | `expired` |
//! | a release that changed | refused | `version_rollback` |
//! | a new release that is older than what its channel offered | refused | `version_rollback` |
//! | a channel that offers a lower security version than before | refused | `secver_floor` |
//! | hardware without a component it needs | refused | `hw_mismatch` |
//! | an image larger than the slot it goes to | refused | `slot_size` |
//! | a channel that offers what is not signed | refused | `target_not_found` |
//! | metadata of more than half of what nodes read | refused | `meta_limit` |
//! | more delegations than nodes follow | refused | `delegation_limit` |
//! | keys that count nothing | refused | `key_invalid` |
//! | metadata of half of that | said | `meta_limit` |
//! | a threshold that needs every key there is, at `init`, `lint` and when it comes to be so | said | `sig_threshold` |
//! | a component or hardware id that no earlier release of the product has | said | `hw_mismatch` |
//! | a channel beside those that the product has | said | `target_not_found` |
//! | a published key | said | `example_key` |
//! | a release that is gone; a channel that offers an older one again | said | `version_rollback` |
//! | a version that reads like a pre-release and sorts after its stem | said | `version_rollback` |
//! | a release in no channel with a security version below another's | said | `secver_floor` |
//! | a channel that is gone | said | `target_not_found` |

mod releases;
mod roles;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use formats::channel::Channel;
use formats::reason::Reason;
use formats::release::Withdrawal;
use formats::tuf::{Role, Root, TargetFile, Targets, UnixTime};
use serde::Serialize;

use super::names::new_channel;
use super::proposal::Proposal as Proposed;
use super::{PlanError, capacity};
use crate::policy::Policy;
use crate::state::{State, is_history, lookup};

pub use self::releases::{Component, check_fit};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nodes, or people, would be hurt: nothing is signed.
    Refused,
    /// It is said, and goes on.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// Its stable code.
    #[serde(rename = "code")]
    pub reason: Reason,
    /// What it is.
    #[serde(rename = "message")]
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Looks at all that is published.
pub fn lint(state: &State, policy: &Policy, now: UnixTime) -> Result<Vec<Finding>, PlanError> {
    let targets: Roles<'_> = state
        .targets_roles()
        .map(|(role, signed)| (role.clone(), Cow::Borrowed(&signed.data)))
        .collect();
    let mut channels = BTreeMap::new();
    for (target, signed) in &state.channels {
        channels.insert(target.clone(), signed.data.clone());
    }
    let view = View { root: &state.root, targets: &targets, channels: &channels, policy, now };
    let mut found = Findings::default();
    view.expiry(&mut found, |_| true);
    for (role, header) in [
        (Role::Snapshot, &state.snapshot.data.header),
        (Role::Timestamp, &state.timestamp.data.header),
    ] {
        view.period(&mut found, &role, header);
    }
    view.roles(&mut found, None);
    view.channels(&mut found);
    found.0.extend(
        state
            .targets_roles()
            .filter_map(|(role, signed)| capacity::finding(role, signed.bytes.len() as u64)),
    );
    for release in state.releases()? {
        let is_offered = channels.values().any(|channel| {
            channel.product == release.product
                && channel.release.as_ref().is_some_and(|o| o.version == release.summary.version)
        });
        if is_offered {
            view.release(&mut found, &release.target, &release.summary);
        }
    }
    Ok(found.0)
}

/// Looks at a change before anybody signs it, and again before it is published.
pub fn lint_change(
    before: Option<&State>,
    proposal: &Proposed,
    policy: &Policy,
    now: UnixTime,
) -> Result<Vec<Finding>, PlanError> {
    let mut found = Findings::default();
    let root = proposal.root(before)?;
    let targets = proposal.targets(before)?;
    let mut channels = BTreeMap::new();
    let targets_of = |role: &Role| targets.get(role).map(AsRef::as_ref);
    for (target, signed) in before.iter().flat_map(|state| &state.channels) {
        if lookup(target, targets_of).is_some() {
            channels.insert(target.clone(), signed.data.clone());
        } else {
            let text =
                format!("{target} would be removed; nodes that follow it get no more updates");
            found.warn(Reason::TargetNotFound, text);
        }
    }
    channels.extend(proposal.channels.clone());
    let view = View { root: &root, targets: &targets, channels: &channels, policy, now };
    view.expiry(&mut found, |role| proposal.payload(role).is_some());
    view.roles(&mut found, before);
    view.channels(&mut found);
    for payload in &proposal.payloads {
        let len = payload.bytes(&[]).len() as u64;
        found.0.extend(capacity::finding(&payload.role, len));
    }
    // What nobody signs again, and nobody leads elsewhere, is what it was.
    let is_touched = Touched::of(before, proposal, &targets);
    for (target, file) in all_targets(&targets, &is_touched) {
        let was = before.and_then(|state| state.target(target));
        match was {
            Some(was) if was == file || target.contains("/channels/") => {}
            Some(was) if is_withdrawal(was, file) => {}
            Some(_) => {
                let text = format!("{target} is published with other content");
                found.refuse(Reason::VersionRollback, text);
            }
            None => view.new_target(&mut found, before, target, file),
        }
    }
    for (target, channel) in &proposal.channels {
        let Some(before) = before else { continue };
        view.offer(&mut found, before, target, channel);
    }
    if let Some(before) = before {
        let mut gone: Vec<&String> = before
            .listed("")
            .filter(|(role, target, _)| is_touched.is(role) && lookup(target, targets_of).is_none())
            .map(|(_, target, _)| target)
            .collect();
        gone.sort();
        for target in gone {
            let text = format!("{target} would be removed; nodes that run it stay on it");
            found.warn(Reason::VersionRollback, text);
        }
        for channel in proposal.channels.values() {
            if let Some(text) = new_channel(before, channel) {
                found.warn(Reason::TargetNotFound, text);
            }
        }
    }
    Ok(found.0)
}

/// Looks at the snapshot and timestamp that were just signed, before anybody can see them.
pub fn check_online(state: &State, policy: &Policy, now: UnixTime) -> Result<(), PlanError> {
    let (targets, channels) = (BTreeMap::new(), BTreeMap::new());
    let view = View { root: &state.root, targets: &targets, channels: &channels, policy, now };
    let mut found = Findings::default();
    view.period(&mut found, &Role::Snapshot, &state.snapshot.data.header);
    view.period(&mut found, &Role::Timestamp, &state.timestamp.data.header);
    found.0.into_iter().next().map_or(Ok(()), |finding| Err(PlanError::Lint(finding)))
}

/// Whether a published release stays what it is, and is withdrawn.
fn is_withdrawal(was: &TargetFile, is: &TargetFile) -> bool {
    let (Some(before), Some(after)) = (&was.custom, &is.custom) else { return false };
    let same = TargetFile { custom: was.custom.clone(), ..is.clone() } == *was;
    same && Withdrawal::is_all_that_changed(before, after)
}

/// Which roles a change may make nodes see otherwise: all of them if anybody delegates in another way,
/// and otherwise those that are signed again.
struct Touched {
    all: bool,
    roles: BTreeSet<Role>,
}

impl Touched {
    fn of(before: Option<&State>, proposal: &Proposed, targets: &Roles<'_>) -> Self {
        let delegations = |role: &Role| targets.get(role).and_then(|it| it.delegations.as_ref());
        let roles: BTreeSet<Role> = proposal.payloads.iter().map(|it| it.role.clone()).collect();
        let same = |role: &Role| {
            let was = before.and_then(|state| state.targets_of(role));
            was.and_then(|was| was.data.delegations.as_ref()) == delegations(role)
        };
        Touched { all: !roles.iter().all(same), roles }
    }

    fn is(&self, role: &Role) -> bool {
        self.all || self.roles.contains(role) || !is_history(role)
    }
}

/// Every target that these roles list.
fn all_targets<'a>(
    roles: &'a Roles<'_>,
    of: &'a Touched,
) -> impl Iterator<Item = (&'a String, &'a TargetFile)> {
    roles.iter().filter(move |(role, _)| of.is(role)).flat_map(|(_, targets)| &targets.targets)
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn refuse(&mut self, reason: Reason, text: String) {
        self.0.push(Finding { level: Level::Refused, reason, text });
    }

    fn warn(&mut self, reason: Reason, text: String) {
        self.0.push(Finding { level: Level::Warning, reason, text });
    }
}

/// What is, or will be, published.
struct View<'a> {
    root: &'a Root,
    targets: &'a Roles<'a>,
    channels: &'a BTreeMap<String, Channel>,
    policy: &'a Policy,
    now: UnixTime,
}

/// The targets roles of a repository.
type Roles<'a> = BTreeMap<Role, Cow<'a, Targets>>;

impl View<'_> {
    fn targets_of(&self, role: &Role) -> Option<&Targets> {
        self.targets.get(role).map(AsRef::as_ref)
    }
}
