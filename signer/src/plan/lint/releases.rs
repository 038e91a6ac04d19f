//! Releases and channels: what they are beside those of before, and whether they fit.

use formats::channel::Channel;
use formats::reason::Reason;
use formats::release::{Summary, target_name};
use formats::tuf::TargetFile;

use super::super::PlanError;
use super::super::names::new_names;
use super::super::release::{Proposal, check_offer, check_release};
use super::{Findings, View};
use crate::policy::Policy;
use crate::state::{State, lookup, security_version_of};

impl View<'_> {
    pub(super) fn channels(&self, found: &mut Findings) {
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
    pub(super) fn new_target(
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
    pub(super) fn offer(
        &self,
        found: &mut Findings,
        before: &State,
        target: &str,
        channel: &Channel,
    ) {
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
    pub(super) fn release(&self, found: &mut Findings, target: &str, summary: &Summary) {
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
