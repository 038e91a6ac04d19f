//! Which metrics there are, and what their samples are: facts in, families out.
//!
//! A value that is not known has no sample. Where one of several words is true, each word has a sample,
//! with 1 for that one and 0 for the others, so that queries need not know the words.

use std::collections::BTreeMap;

use formats::boot_record::{Phase, Slot};
use update_core::boot::SlotFlags;
use update_core::floor::Guarantee;
use update_core::update::{Node, Standing, next_slot, stand};

use super::facts::Facts;
use crate::agent::standing_word;
use crate::output::printable;

/// Samples of one metric: more labels than a healthy node ever has, few enough for any collector.
pub(super) const SAMPLES_LIMIT: usize = 64;

/// Characters of a label's value. The longest that a healthy node has is the address of a source.
pub(super) const VALUE_LIMIT: usize = 256;

/// The words of `update_agent_standing`.
pub(super) const STANDINGS: [&str; 9] = [
    "idle",
    "interrupted",
    "staged",
    "awaiting_reboot",
    "on_trial",
    "confirm_unfinished",
    "lost",
    "revert_unfinished",
    "leaving",
];

/// The words of `update_agent_slot_state`.
pub(super) const SLOT_STATES: [&str; 4] =
    ["confirmed", "on_trial", "tries_used_up", "not_bootable"];

/// Labels of one sample, in the order in which they are printed.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What the values of a metric are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text in labels; the value is 1. The name gets `_info`.
    Info,
    /// A number that goes up and down.
    Gauge,
    /// Unix seconds of something. The name gets `_timestamp_seconds`.
    Time,
    /// Seconds. The name gets `_seconds`.
    Seconds,
    /// A number that only goes up. The name gets `_total`.
    Count,
    /// Bytes, which only go up. The name gets `_bytes_total`.
    Bytes,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Family {
    /// Without `update_agent_`, and without what its kind adds.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    /// No two with the same labels.
    pub(super) samples: BTreeMap<Labels, u64>,
}

impl Family {
    fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Family { name, help, kind, samples: BTreeMap::new() }
    }

    /// One sample more. Of two with the same labels the larger one stays: the later time.
    fn sample(mut self, labels: Labels, value: u64) -> Self {
        let labels = labels.into_iter().map(|(name, value)| (name, tamed(&value))).collect();
        if self.samples.len() < SAMPLES_LIMIT || self.samples.contains_key(&labels) {
            let known = self.samples.entry(labels).or_default();
            *known = value.max(*known);
        }
        self
    }

    fn samples(self, samples: impl IntoIterator<Item = (Labels, u64)>) -> Self {
        samples.into_iter().fold(self, |family, (labels, value)| family.sample(labels, value))
    }

    /// The only value, if it is known.
    fn value(self, value: Option<u64>) -> Self {
        self.samples(value.map(|value| (Labels::new(), value)))
    }
}

/// A value that is safe on a terminal, too, and of a length that every reader takes.
fn tamed(value: &str) -> String {
    let tamed = printable(value);
    match tamed.char_indices().nth(VALUE_LIMIT) {
        None => tamed,
        Some(_) => tamed.chars().take(VALUE_LIMIT - 1).chain(['…']).collect(),
    }
}

/// Every metric of a node, those without a sample, too.
pub(super) fn families(facts: &Facts) -> Vec<Family> {
    let mut all = about(facts);
    all.extend(slots(facts));
    all.extend(update(facts));
    all.extend(checks(facts));
    all.extend(trust(facts));
    all
}

/// What the node is.
fn about(facts: &Facts) -> Vec<Family> {
    let Facts { product, channel, backend, .. } = facts;
    let version = env!("CARGO_PKG_VERSION");
    vec![
        Family::new("build", Kind::Info, "The agent that made this page")
            .sample(vec![("version", version.to_owned())], 1),
        Family::new("node", Kind::Info, "What the node follows, and who keeps its boot flags")
            .sample(
                vec![
                    ("product", product.clone()),
                    ("channel", channel.clone()),
                    ("backend", (*backend).to_owned()),
                ],
                1,
            ),
        Family::new("node_readable", Kind::Gauge, "1 if boot record and boot flags can be read")
            .value(Some(u64::from(facts.node.is_some()))),
        Family::new("example_keys", Kind::Gauge, "1 if a published example key is trusted")
            .value(Some(u64::from(facts.example_keys))),
        Family::new("component", Kind::Info, "Versions that run, and the slot each runs from")
            .samples(facts.node.iter().flat_map(|node| running(facts, node))),
    ]
}

/// What runs of each component.
fn running<'a>(facts: &'a Facts, node: &'a Node) -> impl Iterator<Item = (Labels, u64)> + 'a {
    facts.components.iter().map(|name| {
        let slot = match facts.mixed.contains(name) {
            true => node.booted.other(),
            false => node.booted,
        };
        let mut labels = vec![("component", name.to_string()), ("slot", slot.to_string())];
        labels.extend(version_in(facts, node, slot).map(|version| ("version", version)));
        (labels, 1)
    })
}

/// The version in a slot: by the record, or by the booted system's own word.
fn version_in(facts: &Facts, node: &Node, slot: Slot) -> Option<String> {
    match node.record.slots.of(slot) {
        Some(content) => Some(content.release.version.to_string()),
        None => facts.os_version.clone().filter(|_| slot == node.booted),
    }
}

fn slots(facts: &Facts) -> Vec<Family> {
    let of_slots = |value: &dyn Fn(&Node, Slot) -> Option<u64>| -> Vec<(Labels, u64)> {
        let both =
            facts.node.iter().flat_map(|node| Slot::BOTH.map(|slot| (slot, value(node, slot))));
        both.filter_map(|(slot, value)| Some((vec![slot_label(slot)], value?))).collect()
    };
    let versions = facts.node.iter().flat_map(|node| {
        Slot::BOTH.map(|slot| {
            Some((vec![slot_label(slot), ("version", version_in(facts, node, slot)?)], 1))
        })
    });
    let states = facts.node.iter().flat_map(|node| {
        let state = |slot| slot_state(*node.flags.of(slot));
        Slot::BOTH.map(|slot| one_of(&[slot_label(slot)], &SLOT_STATES, state(slot)))
    });
    vec![
        Family::new("slot", Kind::Info, "What a slot holds").samples(versions.flatten()),
        Family::new("slot_state", Kind::Gauge, "1 for what the boot flags say of a slot")
            .samples(states.flatten()),
        Family::new("slot_booted", Kind::Gauge, "1 for the slot that runs")
            .samples(of_slots(&|node, slot| Some(u64::from(node.booted == slot)))),
        Family::new("slot_next", Kind::Gauge, "1 for the slot that the boot loader will pick")
            .samples(of_slots(&|node, slot| Some(u64::from(next_slot(node.flags) == Some(slot))))),
        Family::new("slot_tries", Kind::Gauge, "Boots that a slot has left before it is given up")
            .samples(of_slots(&|node, slot| Some(u64::from(node.flags.of(slot).tries)))),
        Family::new("slot_security_version", Kind::Gauge, "Security version of what a slot holds")
            .samples(of_slots(&|node, slot| {
                Some(node.record.slots.of(slot).as_ref()?.release.security_version)
            })),
    ]
}

fn slot_label(slot: Slot) -> (&'static str, String) {
    ("slot", slot.to_string())
}

fn slot_state(flags: SlotFlags) -> &'static str {
    match (flags.confirmed(), flags.bootable()) {
        (true, _) => "confirmed",
        (false, true) => "on_trial",
        (false, false) if flags.priority > 0 => "tries_used_up",
        (false, false) => "not_bootable",
    }
}

/// A sample for each word, and for a word that is none of them.
fn one_of(labels: &[(&'static str, String)], words: &[&str], word: &str) -> Vec<(Labels, u64)> {
    let other = (!words.contains(&word)).then_some(word);
    let sample = |one: &str| {
        let state = std::iter::once(("state", one.to_owned()));
        (labels.iter().cloned().chain(state).collect(), u64::from(one == word))
    };
    words.iter().copied().chain(other).map(sample).collect()
}

fn update(facts: &Facts) -> Vec<Family> {
    let standing = facts.node.as_ref().map(stand);
    let tries_left = match standing {
        Some(Standing::OnTrial { tries_left, .. }) => Some(u64::from(tries_left)),
        _ => None,
    };
    let pending = facts.node.as_ref().and_then(|node| node.record.update.as_ref());
    let activated = pending.and_then(|update| match update.phase {
        Phase::Trial { since, .. } => Some(since),
        _ => None,
    });
    let failed = facts.node.iter().flat_map(|node| &node.record.failures).map(|failure| {
        let version = ("version", failure.release.version.to_string());
        (vec![version, ("reason", failure.reason.to_string())], failure.at)
    });
    let events = facts.history.events.iter();
    vec![
        Family::new("standing", Kind::Gauge, "1 for where the node stands in an update")
            .samples(standing.iter().flat_map(|one| one_of(&[], &STANDINGS, standing_word(one)))),
        Family::new("update", Kind::Info, "The update in progress").samples(pending.map(
            |update| {
                (vec![slot_label(update.slot), ("version", update.release.version.to_string())], 1)
            },
        )),
        Family::new("update_activated", Kind::Time, "When the update in progress was made next")
            .value(activated),
        Family::new(
            "trial_tries_left",
            Kind::Gauge,
            "Boots that the trial under way has left after this one",
        )
        .value(tries_left),
        Family::new(
            "failed_release",
            Kind::Time,
            "When a release failed here, which is not tried again",
        )
        .samples(failed),
        Family::new("last_event", Kind::Time, "When something last happened, as in the history")
            .samples(events.map(|event| (vec![("event", event.event.clone())], event.at))),
    ]
}

fn checks(facts: &Facts) -> Vec<Family> {
    let report = &facts.report;
    let succeeded = report.last_success.max(facts.succeeded);
    // A check that failed is the last error, or one that followed it.
    let checked = facts.checked.max(succeeded);
    let error = report.last_error.as_ref();
    let offer = report.offer.as_ref().map(|offer| {
        let mut labels =
            vec![("version", offer.version.clone()), ("decision", offer.decision.clone())];
        labels.extend(offer.rule.clone().map(|rule| ("rule", rule)));
        (labels, 1)
    });
    let failures = report.counts.failures.iter();
    let received = report.counts.received.iter();
    vec![
        Family::new("poll_interval", Kind::Seconds, "Between two checks of the daemon")
            .value(Some(facts.interval)),
        Family::new("last_check", Kind::Time, "When a source was last asked").value(checked),
        Family::new(
            "last_success",
            Kind::Time,
            "When a verified, unexpired repository was last seen",
        )
        .value(succeeded),
        Family::new("last_error", Kind::Time, "When an operation failed, until one succeeds")
            .samples(error.map(|error| (vec![("reason", error.code.to_string())], error.at))),
        Family::new("failures", Kind::Count, "Operations that failed")
            .samples(failures.map(|(reason, count)| (vec![("reason", reason.clone())], *count))),
        Family::new("received", Kind::Bytes, "Received during installations")
            .samples(received.map(|(source, bytes)| (vec![("source", source.clone())], *bytes))),
        Family::new(
            "reused",
            Kind::Bytes,
            "Raw bytes that installations took from what the node had",
        )
        .value(Some(report.counts.reused).filter(|bytes| *bytes > 0)),
        Family::new("deltas", Kind::Bytes, "Of the bytes received, those of deltas")
            .value(Some(report.counts.deltas).filter(|bytes| *bytes > 0)),
        Family::new(
            "offer",
            Kind::Info,
            "The last offer, what was decided, and the rule it did not pass",
        )
        .samples(offer),
        Family::new("report_acknowledged", Kind::Time, "When a server last acknowledged a report")
            .samples(
                facts.reports.iter().filter_map(|to| {
                    Some((vec![("source", to.source.clone())], to.acknowledged?.at))
                }),
            ),
        Family::new("report_failing", Kind::Gauge, "1 if the last report did not arrive").samples(
            facts
                .reports
                .iter()
                .map(|to| (vec![("source", to.source.clone())], u64::from(to.failed.is_some()))),
        ),
        Family::new(
            "release_withdrawn",
            Kind::Gauge,
            "1 if the release that runs was withdrawn by its maintainers",
        )
        .value(Some(u64::from(facts.withdrawn))),
    ]
}

fn trust(facts: &Facts) -> Vec<Family> {
    let roles = |value: fn(&super::facts::RoleFacts) -> u64| {
        let role =
            move |one: &super::facts::RoleFacts| (vec![("role", one.role.clone())], value(one));
        facts.metadata.iter().map(role).collect::<Vec<_>>()
    };
    let floor = facts.floor.as_ref();
    vec![
        Family::new("metadata_version", Kind::Gauge, "Version of trusted metadata")
            .samples(roles(|role| role.version)),
        Family::new("metadata_expiry", Kind::Time, "When trusted metadata expires")
            .samples(roles(|role| u64::try_from(role.expires).unwrap_or(0))),
        Family::new("floor_security_version", Kind::Gauge, "Releases below it are refused")
            .value(floor.map(|floor| floor.floor)),
        Family::new(
            "floor_lost",
            Kind::Gauge,
            "1 if the TPM that kept the floor is lost: updates are refused",
        )
        .value(floor.map(|floor| u64::from(matches!(floor.guarantee, Guarantee::Lost(_))))),
    ]
}
