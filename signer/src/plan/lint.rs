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
//! | metadata larger than nodes read | refused | `meta_limit` |
//! | more delegations than nodes follow | refused | `delegation_limit` |
//! | keys that count nothing | refused | `key_invalid` |
//! | a threshold that needs every key there is, at `init`, `lint` and when it comes to be so | said | `sig_threshold` |
//! | a component or hardware id that no earlier release of the product has | said | `hw_mismatch` |
//! | a channel beside those that the product has | said | `target_not_found` |
//! | a published key | said | `example_key` |
//! | a release that is gone; a channel that offers an older one again | said | `version_rollback` |
//! | a version that reads like a pre-release and sorts after its stem | said | `version_rollback` |
//! | a release in no channel with a security version below another's | said | `secver_floor` |
//! | a channel that is gone | said | `target_not_found` |

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use formats::channel::Channel;
use formats::example_keys;
use formats::reason::Reason;
use formats::release::{Summary, Withdrawal, target_name};
use formats::tuf::{
    DelegatedRole, DelegatedTo, Header, Metadata, Paths, PublicKey, Role, RoleKeys, Root,
    TargetFile, Targets, UnixTime,
};
use serde::Serialize;
use update_core::trust::Limits;

use super::PlanError;
use super::clock::CLOCKS;
use super::expiry::limit_of;
use super::names::{counted, new_channel, new_names};
use super::proposal::Proposal as Proposed;
use super::release::{Proposal, check_offer, check_release};
use crate::policy::Policy;
use crate::state::{HISTORY, State, delegators, is_history, lookup, security_version_of};

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
        let limits = Limits::default();
        let limit = if payload.role == Role::Root { limits.root_len } else { limits.targets_len };
        // Half is left for signatures and growth.
        if len > limit / 2 {
            let text = format!("{} has {len} bytes; nodes read {limit}", payload.role);
            found.refuse(Reason::MetaLimit, text);
        }
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

    fn expiry(&self, found: &mut Findings, wanted: impl Fn(&Role) -> bool) {
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

    fn period(&self, found: &mut Findings, role: &Role, header: &Header) {
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
    fn roles(&self, found: &mut Findings, before: Option<&State>) {
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

    fn channels(&self, found: &mut Findings) {
        for (target, channel) in self.channels {
            let Some(offer) = &channel.release else { continue };
            let name = target_name(&channel.product, &offer.version);
            let signed = lookup(&name, |role| self.targets_of(role)).map(|(_, file)| file);
            if signed.and_then(|file| file.hashes.as_sha256()) != Some(offer.sha256) {
                let text = format!("{target} offers {name}, which is not signed with that content");
                found.refuse(Reason::TargetNotFound, text);
            }
            let custom = signed.and_then(|file| file.custom.as_ref());
            let summary = custom.and_then(|it| Summary::parse_custom(&it.to_bytes()).ok());
            if summary.is_some_and(|summary| summary.withdrawn.is_some()) {
                let text = format!("{target} offers {name}, which was withdrawn");
                found.refuse(Reason::Withdrawn, text);
            }
        }
    }

    /// A target that was not there before.
    fn new_target(
        &self,
        found: &mut Findings,
        before: Option<&State>,
        target: &str,
        file: &TargetFile,
    ) {
        let Some((product, version)) = target.split_once('/') else {
            let text = format!("{target} is neither a release nor a channel");
            return found.refuse(Reason::MetaFormat, text);
        };
        if version.contains('/') {
            return;
        }
        let custom = file.custom.as_ref().map(|custom| custom.to_bytes()).unwrap_or_default();
        let summary = match Summary::parse_custom(&custom) {
            Ok(summary) if summary.version.as_str() == version => summary,
            _ => {
                let text = format!("{target} does not describe a release of that version");
                return found.refuse(Reason::MetaFormat, text);
            }
        };
        if let Some(before) = before
            && let Err(error) = check_release(before, &Proposal::of(product, &summary))
        {
            found.refuse(error.reason(), error.to_string());
        }
        if let Some((stem, spelt)) = summary.version.as_prerelease() {
            let text = format!(
                "{} comes after {stem}: nodes that run it refuse {stem}; a pre-release of {stem} is \
                 written {spelt}",
                summary.version
            );
            found.warn(Reason::VersionRollback, text);
        }
        self.unoffered(found, before, product, &summary);
        if let Some(before) = before {
            for text in new_names(before, product, &summary) {
                found.warn(Reason::HwMismatch, text);
            }
        }
        self.release(found, target, &summary);
    }

    /// A new release that no channel offers yet: nothing says which nodes it is for.
    fn unoffered(
        &self,
        found: &mut Findings,
        before: Option<&State>,
        product: &str,
        summary: &Summary,
    ) {
        let offers = |channel: &Channel| {
            channel.product == product
                && channel.release.as_ref().is_some_and(|it| it.version == summary.version)
        };
        if self.channels.values().any(offers) {
            return;
        }
        let Some(before) = before else { return };
        let start = format!("{product}/");
        let others = before.listed(&start);
        let others = others.filter_map(|(_, target, it)| Some((security_version_of(it)?, target)));
        let highest = others.max().filter(|(highest, _)| *highest > summary.security_version);
        if let Some((highest, target)) = highest {
            let text = format!(
                "{product}/{} has security version {}, below {highest} of {}: nodes that confirmed \
                 that one refuse it",
                summary.version,
                summary.security_version,
                target.strip_prefix(&start).unwrap_or(target)
            );
            found.warn(Reason::SecverFloor, text);
        }
    }

    /// What a channel would offer, against what it offered.
    fn offer(&self, found: &mut Findings, before: &State, target: &str, channel: &Channel) {
        let Some(is) = &channel.release else { return };
        let name = target_name(&channel.product, &is.version);
        let Some((_, file)) = lookup(&name, |role| self.targets_of(role)) else { return };
        let custom = file.custom.as_ref().map(|custom| custom.to_bytes()).unwrap_or_default();
        // What it does not say is found elsewhere.
        let Ok(summary) = Summary::parse_custom(&custom) else { return };
        let was = before.channels.get(target).map(|was| &was.data);
        if was.is_some_and(|was| was.release.as_ref() == Some(is)) {
            return;
        }
        let proposal = Proposal::of(&channel.product, &summary);
        let Err(error) = check_offer(before, &channel.channel, &proposal) else { return };
        let newest = was.and_then(Channel::newest_offered);
        match (&error, newest) {
            (PlanError::OlderVersion { .. }, Some(newest)) if before.target(&name).is_some() => {
                let text = format!(
                    "{target} would offer {} after {newest}; nodes that run the newer one refuse it",
                    is.version
                );
                found.warn(Reason::VersionRollback, text);
            }
            _ => found.refuse(error.reason(), error.to_string()),
        }
    }

    /// Whether a release fits the hardware it is for.
    fn release(&self, found: &mut Findings, target: &str, summary: &Summary) {
        let components = summary.components.iter();
        let components: Vec<_> = components
            .map(|one| (one.name.as_str(), one.compatible.as_slice(), one.raw_size))
            .collect();
        fit(found, self.policy, target, &components);
    }
}

/// What a release is made of, before it is built: name, hardware ids, bytes.
pub type Component<'a> = (&'a str, &'a [String], u64);

/// Refuses a release that does not fit its hardware, before anything is built or uploaded.
pub fn check_fit(
    policy: &Policy,
    target: &str,
    components: &[Component<'_>],
) -> Result<(), PlanError> {
    let mut found = Findings::default();
    fit(&mut found, policy, target, components);
    found.0.into_iter().next().map_or(Ok(()), |finding| Err(PlanError::Lint(finding)))
}

fn fit(found: &mut Findings, policy: &Policy, target: &str, components: &[Component<'_>]) {
    for (id, hardware) in &policy.hardware {
        let components: Vec<_> =
            components.iter().filter(|(_, compatible, _)| compatible.contains(id)).collect();
        if components.is_empty() {
            continue;
        }
        for needed in &hardware.needs {
            if !components.iter().any(|(name, ..)| name == needed) {
                let text = format!("{target} has no {needed} for hardware {id}, which needs one");
                found.refuse(Reason::HwMismatch, text);
            }
        }
        for (name, _, size) in components {
            if let Some(slot) = hardware.slots.get(*name).filter(|slot| size > *slot) {
                let text = format!(
                    "{name} of {target} has {size} bytes; its slot on hardware {id} holds {slot}"
                );
                found.refuse(Reason::SlotSize, text);
            }
        }
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
