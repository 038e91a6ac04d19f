//! Finding the release that is meant, and asking the rules about it.

use std::fs;
use std::path::Path;

use formats::boot_record::{BootRecord, Slot};
use formats::channel::Channel;
use formats::reason::Reason;
use formats::version::Version;
use update_core::policy::{Decided, Decision, NodeFacts, Offered, decide, wave_of};

use super::super::bundle;
use super::super::judged::JudgedRelease;
use super::super::node::NodeParts;
use super::super::report::{Verdict, Wish};
use crate::config::Config;
use crate::error::AgentError;
use crate::source::NamedRelease;
use crate::state::{OfferReport, StateGuard};
use crate::trust::{SignedRelease, Trusted};

/// The release that a bundle, a version or, without either, the channel means, and what the rules
/// say to it; kept for `status`. `None`: the channel offers nothing.
pub(in crate::agent) fn judge(
    node: NodeParts<'_>,
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
    wish: &Wish,
    bundle: Option<&[NamedRelease]>,
    started: u64,
) -> Result<Option<JudgedRelease>, AgentError> {
    let own = &node.config.node;
    let (signed, channel) = match (bundle, &wish.version) {
        (Some(bundle), Some(version)) => {
            (bundle::named(node, held, trusted, bundle, version)?, None)
        }
        (Some(bundle), None) => (bundle::meant(node, held, trusted, bundle)?, None),
        (None, Some(version)) => (trusted.release(held, &own.product, version)?, None),
        (None, None) => {
            let channel = trusted.channel(held, &own.product, &own.channel)?;
            let Some(offered) = &channel.release else { return Ok(None) };
            let signed = trusted.release(held, &own.product, &offered.version.clone())?;
            (signed, Some(channel))
        }
    };
    check_channel(channel.as_ref(), &signed)?;
    let id = node.id();
    let wave = wave_of(&id, signed.index);
    let offered = Offered {
        index: signed.index,
        summary: &signed.summary,
        channel: channel.as_ref(),
        retry: wish.retry,
    };
    let named = channel.is_none();
    let decided = ask_rules(node, &id, &offered, wave, started)?;
    let mut report = node.state.report();
    let offer = Some(OfferReport {
        version: signed.summary.version.to_string(),
        decision: Verdict::from(&decided.decision).code().to_owned(),
        why: decided.why().to_owned(),
        rule: decided
            .answers
            .iter()
            .find(|answer| !answer.passed)
            .map(|answer| answer.rule.name().to_owned()),
        wave: channel.is_some_and(|channel| !channel.waves.is_empty()).then_some(wave),
        until: match decided.decision {
            Decision::DeferUntil(until) => until,
            _ => None,
        },
    });
    if report.offer != offer {
        report.offer = offer;
        node.state.save_report(held, &report)?;
    }
    Ok(Some(JudgedRelease { signed, decided, wave, named }))
}

/// A channel names the content it offers, too: whoever may sign releases cannot change it.
fn check_channel(channel: Option<&Channel>, signed: &SignedRelease) -> Result<(), AgentError> {
    let offered = channel.and_then(|channel| channel.release.as_ref());
    match offered {
        Some(offered) if offered.sha256 != signed.index => {
            let text = format!("the channel offers another content of {}", offered.version);
            Err(AgentError::new(Reason::HashMismatch, text)
                .hint("tell the maintainers: channel and release disagree"))
        }
        _ => Ok(()),
    }
}

fn ask_rules(
    node: NodeParts<'_>,
    id: &str,
    offered: &Offered<'_>,
    wave: u8,
    started: u64,
) -> Result<Decided, AgentError> {
    let record = node.state.boot_record()?;
    let booted = node.disk.booted()?;
    let capacity = node.disk.capacities(booted.other())?;
    let known = node.slot_check().foreign(&record, booted).of(booted).is_none();
    let installed = record.slots.of(booted).as_ref().filter(|_| known);
    let installed = installed.map(|content| content.release.clone());
    let installed_version = match installed {
        Some(_) => None,
        None => version_of_os_release(&node.config.node.os_release),
    };
    let facts = NodeFacts {
        now: started,
        hardware: &node.config.node.hardware,
        capacity: &capacity,
        installed: installed.as_ref(),
        installed_version: installed_version.as_ref(),
        floor: node.floor().judged()?.floor,
        switched: &node.disk.switched(),
        record: &record,
        id,
        wave,
        require: &node.config.policy.require,
    };
    Ok(decide(&facts, offered))
}

/// The version of what a slot holds: of a release, or of the booted system that no agent installed.
pub(crate) fn installed_version(
    config: &Config,
    record: &BootRecord,
    booted: Slot,
) -> Option<Version> {
    match record.slots.of(booted) {
        Some(content) => Some(content.release.version.clone().into()),
        None => version_of_os_release(&config.node.os_release),
    }
}

/// `IMAGE_VERSION` of os-release(5), for a system that no agent installed.
pub(crate) fn version_of_os_release(path: &Path) -> Option<Version> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    line.trim_matches(['"', '\'']).parse().ok()
}
