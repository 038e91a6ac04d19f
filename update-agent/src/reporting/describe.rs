//! What this node says of itself: what `status` and `explain` show, as a report.

use formats::boot_record::{Phase, Slot};
use formats::report::{
    BytesBySource, Decided, Erred, Failed, FloorKept, Report, SlotReport, Trusted, Word, slot_state,
};
use update_core::floor::{Guarantee, Judged};
use update_core::update::{Node, next_slot, stand};

use crate::agent::{Agent, standing_word, version_of_os_release};
use crate::state;

/// The next report comes within the interval and a tenth: of a poll, or of reports where that is longer.
fn promised(agent: &Agent) -> u64 {
    let config = &agent.config;
    let between = config.policy.interval.max(config.reports.interval).as_secs();
    between.saturating_add(between / 10)
}

/// The report of this moment with that number. A node that cannot be read says so.
pub(super) fn describe(agent: &Agent, sequence: u64) -> Report {
    let (config, last) = (&agent.config, agent.state.report());
    let report = Report {
        name: config.reports.name.as_ref().or(config.node.id.as_ref()).map(|name| Word::new(name)),
        product: Word::new(&config.node.product),
        channel: Word::new(&config.node.channel),
        hardware: config.node.hardware.iter().map(|id| Word::new(id)).collect(),
        agent: Word::new(env!("CARGO_PKG_VERSION")),
        sequence,
        at: agent.state.now(),
        boot: Word::new(&agent.boot_id()),
        uptime: agent.uptime(),
        interval: promised(agent),
        decision: last.offer.as_ref().map(decided),
        error: last.last_error.as_ref().map(|error| Erred {
            code: Word::new(error.code.code()),
            sentence: error.message.clone(),
            at: error.at,
        }),
        metadata: last.metadata.map(|known| Trusted {
            root: known.root,
            timestamp: known.timestamp,
            snapshot: known.snapshot,
            targets: known.targets,
            expires: u64::try_from(known.expires).unwrap_or(0),
        }),
        checked: last.last_success,
        bytes: bytes(&last.counts),
        ..Report::default()
    };
    match agent.node_to_show() {
        Ok((node, floor)) => of_node(agent, report, &node, &floor),
        Err(error) => Report {
            standing: Word::new("unreadable"),
            error: Some(Erred {
                code: Word::new(error.reason().code()),
                sentence: error.chain(),
                at: agent.state.now(),
            }),
            ..report
        },
    }
}

fn of_node(agent: &Agent, mut report: Report, node: &Node, floor: &Judged) -> Report {
    for slot in Slot::BOTH {
        *report.slots.of_mut(slot) = slot_report(node, slot);
    }
    let running = report.slots.of_mut(node.booted);
    if running.version.is_none() {
        let version = version_of_os_release(&agent.config.node.os_release);
        running.version = version.map(|version| Word::new(version.as_str()));
    }
    report.booted = Word::new(node.booted.name());
    report.next = next_slot(node.flags).map(|slot| Word::new(slot.name()));
    report.standing = Word::new(standing_word(&stand(node)));
    report.failure =
        node.record.failures.iter().max_by_key(|failure| failure.at).map(|failure| Failed {
            version: Word::new(&failure.release.version.to_string()),
            index: Some(failure.release.index),
            code: Word::new(failure.reason.code()),
            sentence: failure.detail.clone(),
            at: failure.at,
        });
    let kept = match floor.guarantee {
        Guarantee::File | Guarantee::NotYet => "file",
        Guarantee::Tpm => "tpm",
        Guarantee::Lost(_) => "lost",
    };
    report.floor = Some(FloorKept { security_version: floor.floor, kept: Word::new(kept) });
    report
}

fn slot_report(node: &Node, slot: Slot) -> SlotReport {
    let flags = *node.flags.of(slot);
    let release = node.record.slots.of(slot).as_ref().map(|content| &content.release);
    let update = node.record.update.as_ref().filter(|update| update.slot == slot);
    let failed = release.is_some_and(|release| {
        node.record.failures.iter().any(|failure| failure.release.index == release.index)
    });
    let state = match update.map(|update| &update.phase) {
        _ if node.evidence.foreign.of(slot).is_some() => slot_state::FOREIGN,
        _ if flags.confirmed() => slot_state::CONFIRMED,
        Some(Phase::Reverting { .. }) => slot_state::FAILED,
        _ if flags.bootable() => slot_state::ON_TRIAL,
        Some(Phase::Staged) => slot_state::STAGED,
        Some(Phase::Staging) => slot_state::EMPTY,
        _ if failed || flags.priority > 0 => slot_state::FAILED,
        _ => slot_state::EMPTY,
    };
    SlotReport {
        state: Word::new(state),
        version: release.map(|release| Word::new(&release.version.to_string())),
        index: release.map(|release| release.index),
        security_version: release.map(|release| release.security_version),
        tries_left: (state == slot_state::ON_TRIAL).then(|| u64::from(flags.tries)),
    }
}

fn decided(offer: &state::OfferReport) -> Decided {
    Decided {
        version: Word::new(&offer.version),
        code: Word::new(&offer.decision),
        rule: offer.rule.as_deref().map(Word::new),
        sentence: offer.why.clone(),
        until: offer.until,
    }
}

fn bytes(counts: &state::Counts) -> Option<BytesBySource> {
    let sum = |registry: bool| {
        let of_kind = counts
            .received
            .iter()
            .filter(|(source, _)| source.starts_with("docker:") == registry)
            .map(|(_, bytes)| *bytes);
        of_kind.fold(0, u64::saturating_add)
    };
    let bytes = BytesBySource {
        registry: sum(true),
        bundle: sum(false),
        reuse: (counts.reused > 0).then_some(counts.reused),
        delta: (counts.deltas > 0).then_some(counts.deltas),
    };
    (bytes != BytesBySource::default()).then_some(bytes)
}
