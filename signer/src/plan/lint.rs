//! What nodes would refuse is refused before it is public.
//!
//! | found | is | code |
//! |---|---|---|
//! | metadata that ended, or lasts longer than the policy says | refused | `expired` |
//! | a release that changed, or is older than a published one | refused | `version_rollback` |
//! | a security version below a published one | refused | `secver_floor` |
//! | hardware without a component it needs | refused | `hw_mismatch` |
//! | an image larger than the slot it goes to | refused | `slot_size` |
//! | a channel that offers what is not signed | refused | `target_not_found` |
//! | metadata larger than nodes read | refused | `meta_limit` |
//! | more delegations than nodes follow | refused | `delegation_limit` |
//! | keys that count nothing | refused | `key_invalid` |
//! | a threshold that needs every key there is | said | `sig_threshold` |
//! | a published key | said | `example_key` |
//! | a release that is gone; a channel that offers an older one | said | `version_rollback` |
//! | a channel that is gone, or new beside others of its product | said | `target_not_found` |

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use formats::channel::Channel;
use formats::reason::Reason;
use formats::release::{COMPONENTS_LIMIT, Summary, target_name};
use formats::tuf::{
    DelegatedTo, Header, Metadata, PublicKey, Role, RoleKeys, Root, TargetFile, Targets, UnixTime,
};
use formats::version::Version;
use serde::Serialize;
use update_core::trust::Limits;

use super::expiry::limit_of;
use super::proposal::Proposal as Proposed;
use super::{PlanError, check_word};
use crate::policy::Policy;
use crate::state::{State, lookup};

/// One hour: the clocks of two people may differ by so much.
const CLOCKS: u64 = 3600;

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
    let targets: BTreeMap<Role, Targets> =
        state.targets_roles().map(|(role, signed)| (role.clone(), signed.data.clone())).collect();
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
    view.roles(&mut found);
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
    for (target, signed) in before.iter().flat_map(|state| &state.channels) {
        if lookup(target, |role| targets.get(role)).is_some() {
            channels.insert(target.clone(), signed.data.clone());
        } else {
            let text = format!("{target} would be gone; nodes that follow it get nothing more");
            found.warn(Reason::TargetNotFound, text);
        }
    }
    channels.extend(proposal.channels.clone());
    let view = View { root: &root, targets: &targets, channels: &channels, policy, now };
    view.expiry(&mut found, |role| proposal.payload(role).is_some());
    view.roles(&mut found);
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
    for (target, file) in all_targets(&targets) {
        let was = before.and_then(|state| state.target(target));
        match was {
            Some(was) if was == file || target.contains("/channels/") => {}
            Some(_) => {
                let text = format!("{target} is published with other content");
                found.refuse(Reason::VersionRollback, text);
            }
            None => view.new_target(&mut found, before, target, file),
        }
    }
    if let Some(before) = before {
        for release in before.releases()? {
            if lookup(&release.target, |role| targets.get(role)).is_none() {
                let text = format!("{} would be gone; nodes that run it stay", release.target);
                found.warn(Reason::VersionRollback, text);
            }
        }
        for (target, channel) in &proposal.channels {
            if !before.channels.contains_key(target) {
                new_channel(&mut found, before, channel);
            }
            let was = before.channels.get(target).and_then(|was| was.data.release.as_ref());
            if let (Some(was), Some(is)) = (was, &channel.release)
                && was.version.is_newer_than(&is.version)
            {
                let text = format!(
                    "{target} would offer {} after {}; nodes that run the newer one refuse it",
                    is.version, was.version
                );
                found.warn(Reason::VersionRollback, text);
            }
        }
    }
    Ok(found.0)
}

/// A misspelt name makes a channel that no node follows.
fn new_channel(found: &mut Findings, before: &State, channel: &Channel) {
    let others: Vec<&str> = before.channel_names(&channel.product).collect();
    if !others.is_empty() {
        let text = format!(
            "channel {} is new; {} has {}",
            channel.channel,
            channel.product,
            others.join(", ")
        );
        found.warn(Reason::TargetNotFound, text);
    }
}

/// Every target that is listed anywhere.
fn all_targets(roles: &BTreeMap<Role, Targets>) -> impl Iterator<Item = (&String, &TargetFile)> {
    roles.values().flat_map(|targets| &targets.targets)
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
    targets: &'a BTreeMap<Role, Targets>,
    channels: &'a BTreeMap<String, Channel>,
    policy: &'a Policy,
    now: UnixTime,
}

impl View<'_> {
    fn expiry(&self, found: &mut Findings, wanted: impl Fn(&Role) -> bool) {
        if wanted(&Role::Root) {
            self.period(found, &Role::Root, self.root.header());
        }
        for (role, targets) in self.targets.iter().filter(|(role, _)| wanted(role)) {
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
                "{role} version {} lasts until {}, longer than the {} days it may",
                header.version,
                header.expires,
                limit / 86_400
            );
            found.refuse(Reason::Expired, text);
        }
    }

    fn roles(&self, found: &mut Findings) {
        for role in Role::TOP_LEVEL {
            if let Some(keys) = self.root.role(&role) {
                one_role(found, &role, keys, |keyid| self.root.keys.get(keyid));
            }
        }
        let mut count = 0;
        for targets in self.targets.values() {
            let Some(delegations) = &targets.delegations else { continue };
            let DelegatedTo::Roles(roles) = &delegations.to else { continue };
            count += roles.len();
            for named in roles {
                one_role(found, &named.role, &named.keys, |keyid| delegations.keys.get(keyid));
            }
        }
        let limit = Limits::default().delegations;
        if count > limit {
            let text = format!("{count} delegated roles; nodes ask {limit}");
            found.refuse(Reason::DelegationLimit, text);
        }
        if let Some(known) = crate::commands::first_example_key(self.root) {
            let text = format!("the example key of {} is trusted; everybody has it", known.role);
            found.warn(Reason::ExampleKey, text);
        }
    }

    fn channels(&self, found: &mut Findings) {
        for (target, channel) in self.channels {
            let Some(offer) = &channel.release else { continue };
            let name = target_name(&channel.product, &offer.version);
            let signed = lookup(&name, |role| self.targets.get(role));
            if signed.and_then(|(_, file)| file.hashes.as_sha256()) != Some(offer.sha256) {
                let text = format!("{target} offers {name}, which is not signed with that content");
                found.refuse(Reason::TargetNotFound, text);
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
        self.release(found, target, &summary);
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

fn one_role<'a>(
    found: &mut Findings,
    role: &Role,
    keys: &RoleKeys,
    key_of: impl Fn(&formats::tuf::KeyId) -> Option<&'a formats::tuf::Key>,
) {
    let counts = |keyid: &&formats::tuf::KeyId| {
        key_of(keyid).is_some_and(|key| *key.public() != PublicKey::Unknown)
    };
    let good = keys.keyids.iter().filter(counts).count();
    let threshold = keys.threshold as usize;
    if good < keys.keyids.len() {
        let text = format!("{role} lists {} keys that verify nothing", keys.keyids.len() - good);
        found.refuse(Reason::KeyInvalid, text);
    }
    if good < threshold {
        let text = format!("{role} needs {threshold} of {good} usable keys");
        found.refuse(Reason::SigThreshold, text);
    }
    let is_offline = !matches!(role, Role::Snapshot | Role::Timestamp);
    if is_offline && good == threshold {
        let lost = match (role, threshold) {
            (Role::Root, 1) => "its only key is lost, every node must be visited",
            (Role::Root, _) => "one of them is lost, every node must be visited",
            (_, 1) => "its only key is lost, the root has to replace it",
            _ => "one of them is lost, the role above has to replace it",
        };
        let text = format!("{role} needs {threshold} of {good} keys: when {lost}");
        found.warn(Reason::SigThreshold, text);
    }
}

/// What is known of a release before anything is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// The product.
    pub product: &'a str,
    /// The version.
    pub version: &'a Version,
    /// The security version.
    pub security_version: u64,
    /// Components with the hardware ids they are for.
    pub components: Vec<(&'a str, &'a [String])>,
}

impl<'a> Proposal<'a> {
    /// What a summary proposes.
    pub fn of(product: &'a str, summary: &'a Summary) -> Self {
        let components = summary.components.iter();
        Proposal {
            product,
            version: &summary.version,
            security_version: summary.security_version,
            components: components
                .map(|component| (component.name.as_str(), component.compatible.as_slice()))
                .collect(),
        }
    }
}

/// Refuses a release that no node would install, or that would take a meaning from a version.
///
/// Called before anything is built, and again before anything is signed.
pub fn check_release(state: &State, proposal: &Proposal<'_>) -> Result<(), PlanError> {
    let Proposal { product, version, .. } = *proposal;
    check_word("product", product)?;
    for reserved in ["tuf", "channels"] {
        if product == reserved || version.as_str() == reserved {
            return Err(PlanError::Reserved(reserved.to_owned()));
        }
    }
    limit("security version", proposal.security_version, i64::MAX.unsigned_abs())?;
    limit("number of components", proposal.components.len() as u64, COMPONENTS_LIMIT as u64)?;
    let mut seen = BTreeSet::new();
    for (component, compatible) in &proposal.components {
        if compatible.is_empty() {
            return Err(PlanError::NoHardware { component: (*component).to_owned() });
        }
        for id in *compatible {
            check_word("hardware id", id)?;
            if !seen.insert((*component, id)) {
                let (component, hardware) = ((*component).to_owned(), id.clone());
                return Err(PlanError::TwiceForHardware { component, hardware });
            }
        }
    }
    let releases = state.releases()?;
    let published: Vec<&Summary> =
        releases.iter().filter(|r| r.product == product).map(|r| &r.summary).collect();
    // A version that is there already changes nothing, wherever it stands in the order.
    if published.iter().any(|summary| summary.version == *version) {
        return Ok(());
    }
    for summary in &published {
        if summary.version.compare(version) == Ordering::Equal {
            let (offered, published) = (version.clone(), summary.version.clone());
            return Err(PlanError::OtherSpelling { offered, published });
        }
    }
    let newest = published.iter().map(|summary| &summary.version).max_by(|a, b| a.compare(b));
    if let Some(newest) = newest.filter(|newest| newest.is_newer_than(version)) {
        let (offered, newest) = (version.clone(), newest.clone());
        return Err(PlanError::OlderVersion { product: product.to_owned(), offered, newest });
    }
    match published.iter().max_by_key(|summary| summary.security_version) {
        Some(highest) if highest.security_version > proposal.security_version => {
            Err(PlanError::SecurityVersion {
                product: product.to_owned(),
                offered: proposal.security_version,
                published: highest.security_version,
                version: highest.version.clone(),
            })
        }
        _ => Ok(()),
    }
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), PlanError> {
    if found <= limit { Ok(()) } else { Err(PlanError::Limit { what, found, limit }) }
}
