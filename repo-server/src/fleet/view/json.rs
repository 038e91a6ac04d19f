//! The pages as JSON. Texts of nodes are shown as on the pages.

use formats::boot_record::Slot;
use formats::channel::Channel;
use formats::report::shown;
use serde_json::{Map, Value, json};

use super::rollout::Rollout;
use super::{Context, Filter, counted, held_by, holder_of, need, sentence};
use crate::fleet::brief::SENTENCE;
use crate::fleet::lock::Holder;
use crate::fleet::overview::{ChannelSums, Overview, Seen};
use crate::fleet::signed::{RoleExpiry, Signed};
use crate::fleet::state::State;
use crate::fleet::store::Transition;
use crate::fleet::{Detail, GroupLocks};

/// Nodes that are named with a reason.
const NAMED: usize = 100;

pub(super) fn overview(all: &Overview, context: &Context) -> Value {
    let channels = all.channels.iter();
    let channels: Vec<Value> =
        channels.map(|(key, sums)| channel(key, sums, context, all.now)).collect();
    let reasons: Vec<Value> = all
        .reasons
        .iter()
        .map(|reason| {
            let named: Vec<String> =
                reason.nodes.iter().take(NAMED).map(|node| node.to_hex()).collect();
            json!({
                "code": reason.code,
                "sentence": reason.sentence,
                "count": reason.nodes.len(),
                "nodes": named,
            })
        })
        .collect();
    let timestamps: Vec<Value> = context
        .timestamps
        .iter()
        .map(|(name, expires, stale)| json!({ "repository": name, "expires": expires, "stale": stale }))
        .collect();
    let locks: Vec<Value> = context
        .locks
        .iter()
        .map(|it| {
            let holders = it.holders.iter().map(|holder| {
                let mut row = lock(holder);
                row["name"] = json!(holder_of(all, holder).map(|seen| &*seen.brief.name));
                row
            });
            let holders: Vec<Value> = holders.collect();
            json!({ "group": it.group.as_str(), "budget": it.budget, "holders": holders })
        })
        .collect();
    json!({
        "now": all.now,
        "sentence": need(all),
        "nodes": all.nodes.len(),
        "need_somebody": all.need_somebody,
        "silent": all.silent,
        "waiting_for_approval": all.waiting.len(),
        "channels": channels,
        "reasons": reasons,
        "bytes": all.bytes,
        "timestamps": timestamps,
        "restart_locks": locks,
        "signatures": context.signed.as_ref().map(|it| signatures(it, context, all.now)),
    })
}

fn channel(key: &(String, String), sums: &ChannelSums, context: &Context, now: u64) -> Value {
    let mut releases = Map::new();
    for (version, release) in &sums.releases {
        let mut row = Map::new();
        for state in State::ALL {
            row.insert(state.word().to_owned(), json!(release.of(state)));
        }
        row.insert("silent".to_owned(), json!(release.silent));
        let published = context.published.contains(&(key.0.clone(), version.clone()));
        row.insert("published".to_owned(), json!(published));
        releases.insert(version.clone(), Value::Object(row));
    }
    json!({
        "product": key.0,
        "channel": key.1,
        "sentence": sentence(key, sums, context, now),
        "release": context.subject(&key.0, sums),
        "nodes": sums.nodes,
        "runs": sums.runs,
        "releases": releases,
        "rollout": context.rollout(key, sums, now).map(|it| rollout(&it)),
    })
}

/// How far a roll-out is: its bounds as they are signed, and what happened, each time with a number of nodes.
fn rollout(it: &Rollout) -> Value {
    let Channel { hold, urgency, waves, windows, .. } = &it.channel;
    json!({
        "hold": hold,
        "urgency": urgency,
        "waves": waves,
        "windows": windows.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "confirmed": it.confirmed,
        "reverted": it.reverted,
    })
}

fn signatures(signed: &Signed, context: &Context, now: u64) -> Vec<Value> {
    let roles = signed.roles.iter();
    let role = |it: &RoleExpiry| {
        json!({
            "role": it.role,
            "expires": it.expires,
            "due": context.is_due(it, now),
            "threshold": it.threshold,
            "keys": it.of,
        })
    };
    roles.map(role).collect()
}

pub(super) fn nodes(filter: &Filter, page: &[&Seen], total: usize) -> Value {
    let next = filter.from + page.len();
    json!({
        "total": total,
        "text": counted(total, "node"),
        "nodes": page.iter().map(|seen| row(seen)).collect::<Vec<_>>(),
        "next": (next < total).then(|| filter.link(next)),
    })
}

/// A node in a list.
pub(crate) fn row(seen: &Seen) -> Value {
    let brief = &*seen.brief;
    let reason = seen.reason();
    json!({
        "node": brief.node,
        "name": &*brief.name,
        "product": &*brief.product,
        "channel": &*brief.channel,
        "approved": seen.approved,
        "state": brief.state.word(),
        "release": &*brief.release,
        "runs": (!brief.runs.is_empty()).then_some(&*brief.runs),
        "since": brief.since,
        "seen": brief.received,
        "expected": seen.expected,
        "silent_since": seen.silent,
        "clock_ahead": seen.clock,
        "cloned": seen.cloned,
        "code": reason.map(|(code, _)| code),
        "sentence": reason.map(|(_, sentence)| sentence),
    })
}

/// A restart lock that somebody holds.
pub(crate) fn lock(holder: &Holder) -> Value {
    json!({ "id": holder.client.as_str(), "since": holder.since, "until": holder.until })
}

pub(super) fn node(detail: &Detail, transitions: &[Transition], locks: &[GroupLocks]) -> Value {
    let Detail { seen, report, .. } = detail;
    let mut slots = Map::new();
    for slot in Slot::BOTH {
        let it = report.slots.of(slot);
        let value = json!({
            "state": it.state.to_string(),
            "version": it.version.as_ref().map(ToString::to_string),
            "index": it.index,
            "security_version": it.security_version,
            "tries_left": it.tries_left,
        });
        slots.insert(slot.name().to_owned(), value);
    }
    let transitions: Vec<Value> = transitions
        .iter()
        .map(|it| {
            json!({
                "at": it.at,
                "release": shown(&it.release, 64),
                "state": shown(&it.state, 64),
                "code": shown(&it.code, 64),
            })
        })
        .collect();
    let mut value = row(seen);
    let more = json!({
        "hardware": report.hardware.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "agent": report.agent.to_string(),
        "sequence": report.sequence,
        "boot": report.boot.to_string(),
        "uptime": report.uptime,
        "booted": report.booted.to_string(),
        "next": report.next.as_ref().map(ToString::to_string),
        "standing": report.standing.to_string(),
        "slots": slots,
        "decision": report.decision.as_ref().map(|it| json!({
            "version": it.version.to_string(),
            "code": it.code.to_string(),
            "rule": it.rule.as_ref().map(ToString::to_string),
            "sentence": shown(&it.sentence, SENTENCE),
            "until": it.until,
        })),
        "error": report.error.as_ref().map(|it| json!({
            "code": it.code.to_string(),
            "sentence": shown(&it.sentence, SENTENCE),
            "at": it.at,
        })),
        "failure": report.failure.as_ref().map(|it| json!({
            "version": it.version.to_string(),
            "code": it.code.to_string(),
            "sentence": shown(&it.sentence, SENTENCE),
            "at": it.at,
        })),
        "floor": report.floor.as_ref().map(|it| json!({
            "security_version": it.security_version,
            "kept": it.kept.to_string(),
        })),
        "metadata": report.metadata,
        "checked": report.checked,
        "bytes": report.bytes,
        "unread": detail.unread().iter().map(|path| shown(path, 64)).collect::<Vec<_>>(),
        "transitions": transitions,
        "restart_locks": held_by(seen, locks).into_iter().map(|(it, holder)| json!({
            "group": it.group.as_str(),
            "since": holder.since,
            "until": holder.until,
        })).collect::<Vec<_>>(),
    });
    if let (Value::Object(members), Value::Object(more)) = (&mut value, more) {
        members.extend(more);
    }
    value
}
