//! `check` and `explain`: what is offered, and what the rules say to it.

use std::collections::BTreeMap;
use std::fs;

use formats::boot_record::Slot;
use formats::channel::Channel;
use formats::reason::{Exit, Reason};
use formats::version::Version;
use serde_json::{Value, json};
use update_core::policy::{Decided, Decision, NodeFacts, Offered, decide, wave_of};

use super::bundle;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::output::{Output, time};
use crate::source::{NamedRelease, Source};
use crate::state::{OfferReport, StateGuard};
use crate::trust::{self, SignedRelease, Trusted};

/// An offer and what was decided about it.
pub(super) struct Offer {
    pub(super) signed: SignedRelease,
    pub(super) decided: Decided,
    /// The share of all nodes at which this one's wave begins.
    wave: u8,
}

/// The sources to use: one named on the command line, or the configured ones.
pub(super) fn sources(
    agent: &Agent,
    named: Option<&str>,
) -> Result<Vec<Box<dyn Source>>, AgentError> {
    agent.environment.sources(&agent.config, named)
}

/// What an operator asked for. By default: what the channel offers.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Wish<'a> {
    /// This version.
    pub(super) version: Option<&'a Version>,
    /// What is on the bundle that was carried here.
    pub(super) bundle: Option<&'a [NamedRelease]>,
    /// A release that failed on this node, too.
    pub(super) retry: bool,
}

/// What is meant by a bundle, by a named version or, without either, by the channel; and what the
/// rules say to it.
///
/// `Ok(None)`: the channel offers nothing.
pub(super) fn offer(
    agent: &Agent,
    held: &StateGuard,
    trusted: &mut Trusted<'_>,
    wish: Wish<'_>,
) -> Result<Option<Offer>, AgentError> {
    let node = &agent.config.node;
    let (signed, channel) = match (wish.bundle, wish.version) {
        (Some(bundle), Some(version)) => {
            (bundle::named(agent, held, trusted, bundle, version)?, None)
        }
        (Some(bundle), None) => (bundle::meant(agent, held, trusted, bundle)?, None),
        (None, Some(version)) => (trusted.release(held, &node.product, version)?, None),
        (None, None) => {
            let channel = trusted.channel(held, &node.product, &node.channel)?;
            let Some(offered) = &channel.release else { return Ok(None) };
            let signed = trusted.release(held, &node.product, &offered.version.clone())?;
            (signed, Some(channel))
        }
    };
    let retry = wish.retry;
    check_channel(channel.as_ref(), &signed)?;
    let id = agent.node_id();
    let wave = wave_of(&id, signed.index);
    let decided = ask_rules(agent, &signed, channel.as_ref(), retry, (&id, wave))?;
    let mut report = agent.state.report();
    let offer = Some(OfferReport {
        version: signed.summary.version.to_string(),
        decision: word(&decided.decision).to_owned(),
        why: decided.why().to_owned(),
        wave: channel.is_some_and(|channel| !channel.waves.is_empty()).then_some(wave),
    });
    if report.offer != offer {
        report.offer = offer;
        agent.state.save_report(held, &report)?;
    }
    Ok(Some(Offer { signed, decided, wave }))
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
    agent: &Agent,
    signed: &SignedRelease,
    channel: Option<&Channel>,
    retry: bool,
    (id, wave): (&str, u8),
) -> Result<Decided, AgentError> {
    let record = agent.state.boot_record()?;
    let booted = agent.disk.booted()?;
    let capacity = agent.disk.capacities(booted.other())?;
    let installed = record.slots.of(booted).as_ref().map(|content| content.release.clone());
    let own_word = if installed.is_none() { version_by_own_word(agent) } else { None };
    let facts = NodeFacts {
        now: agent.state.now(),
        hardware: &agent.config.node.hardware,
        capacity: &capacity,
        installed: installed.as_ref(),
        installed_version: own_word.as_ref(),
        floor: agent.floor()?.floor,
        switched: &agent.disk.switched(),
        record: &record,
        id,
        wave,
        require: &agent.config.policy.require,
    };
    let offered = Offered { index: signed.index, summary: &signed.summary, channel, retry };
    Ok(decide(&facts, &offered))
}

/// `IMAGE_VERSION` of os-release(5), for a system that no agent installed.
pub(super) fn version_by_own_word(agent: &Agent) -> Option<Version> {
    let text = fs::read_to_string(&agent.config.node.os_release).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?;
    line.trim_matches(['"', '\'']).parse().ok()
}

/// `check`: refresh, then say what would be done.
pub(super) fn check(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let held = agent.state.hold()?;
    agent.settle(&held)?;
    let sources = sources(agent, None)?;
    let root = agent.shipped_root()?;
    let (mut trusted, source) = trust::refresh(&agent.state, &held, &root, &sources)?;
    let place = source.describe();
    let found = offer(agent, &held, &mut trusted, Wish::default())?;
    Ok(show(agent, found.as_ref(), &place, output))
}

/// `explain`: the rules' answers, without asking any source.
pub(super) fn explain(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let held = agent.state.hold()?;
    let root = agent.shipped_root()?;
    if agent.state.trust()?.timestamp.is_none() {
        let text = "nothing is known yet: run `update-agent check` first";
        output.result(json!({ "available": null, "message": text }), text);
        return Ok(Exit::Nothing);
    }
    let nothing = |error: AgentError| error.hint("run `update-agent check` first");
    let mut trusted = trust::offline(&agent.state, &held, &root).map_err(nothing)?;
    let found = offer(agent, &held, &mut trusted, Wish::default()).map_err(nothing)?;
    show(agent, found.as_ref(), "what is trusted already", output);
    Ok(Exit::Done)
}

fn show(agent: &Agent, found: Option<&Offer>, place: &str, output: Output) -> Exit {
    let node_id = agent.node_id();
    let Some(offer) = found else {
        let value = json!({
            "source": place, "available": null, "decision": "up_to_date", "node_id": node_id,
        });
        output.result(value, &format!("{place}: the channel offers nothing yet"));
        return Exit::Nothing;
    };
    let (decided, version) = (&offer.decided, &offer.signed.summary.version);
    let value = json!({
        "source": place,
        "available": {
            "version": version,
            "security_version": offer.signed.summary.security_version,
            "index": format!("sha256:{}", offer.signed.index),
        },
        "decision": word(&decided.decision),
        "until": until(&decided.decision),
        "why": decided.why(),
        "rules": rules(decided),
        "notes": decided.notes,
        "node_id": node_id,
        "wave": offer.wave,
    });
    let mut text = format!("{version} from {place}\n");
    for answer in &decided.answers {
        let mark = if answer.passed { "ok" } else { "--" };
        text += &format!("  {mark} {:14} {}\n", answer.rule, answer.why);
    }
    for note in &decided.notes {
        text += &format!("  note: {note}\n");
    }
    text += &match &decided.decision {
        Decision::Install(_) => format!("would install {version}: run `update-agent apply`"),
        Decision::UpToDate => "nothing to do".to_owned(),
        Decision::DeferUntil(Some(at)) => format!("deferred until {}", time(*at)),
        Decision::DeferUntil(None) => "deferred until the channel changes".to_owned(),
        Decision::Refuse(reason) => format!("refused: {reason}"),
    };
    output.result(value, &text);
    match &decided.decision {
        Decision::Install(_) => Exit::Done,
        Decision::UpToDate | Decision::DeferUntil(_) => Exit::Nothing,
        Decision::Refuse(reason) => reason.exit(),
    }
}

pub(super) fn rules(decided: &Decided) -> Vec<Value> {
    let row = |answer: &update_core::policy::Answer| json!({ "rule": answer.rule, "passed": answer.passed, "why": answer.why });
    decided.answers.iter().map(row).collect()
}

pub(super) fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Install(_) => "install",
        Decision::UpToDate => Reason::UpToDate.code(),
        Decision::DeferUntil(_) => Reason::Deferred.code(),
        Decision::Refuse(reason) => reason.code(),
    }
}

fn until(decision: &Decision) -> Option<u64> {
    match decision {
        Decision::DeferUntil(until) => *until,
        _ => None,
    }
}

/// Capacity of the booted slot, for `plan`.
pub(super) fn capacities(agent: &Agent, slot: Slot) -> Result<BTreeMap<String, u64>, AgentError> {
    let capacities = agent.disk.capacities(slot)?;
    Ok(capacities.into_iter().map(|(name, size)| (name.to_string(), size)).collect())
}
