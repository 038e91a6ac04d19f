//! One node: what it said last, and what it did.

use formats::boot_record::Slot;
use formats::report::{Report, shown};
use maud::{Markup, html};

use super::super::{held_by, next_command};
use super::words::{ago, received, state, state_word, time};
use super::{Reader, command, page, table};
use crate::fleet::brief::SENTENCE;
use crate::fleet::store::Transition;
use crate::fleet::{Detail, GroupLocks};

pub(in super::super) fn node(
    detail: &Detail,
    transitions: &[Transition],
    locks: &[GroupLocks],
    now: u64,
    reader: Reader,
) -> String {
    let Detail { seen, report, .. } = detail;
    let brief = &*seen.brief;
    let content = html! {
        h1 { (brief.name) }
        p class="sentence" {
            (state(seen))
            @if !brief.release.is_empty() { ": " (brief.release) }
            ", since " (time(brief.since))
        }
        @if let Some((code, sentence)) = seen.reason() {
            p { "In its own words: " code { (code) } " " (sentence) }
        }
        @if let Some(line) = next_command(seen) {
            p { "To run next:" }
            (command(&line))
        }
        (slots(report))
        (facts(detail, locks, now))
        h2 { "What it did" }
        (table("history", "What it did", &["When", "State", "Release", "Code"], &html! {
            @for it in transitions {
                tr {
                    th scope="row" { (time(it.at)) }
                    td { (state_word(&it.state)) }
                    td { (shown(&it.release, 64)) }
                    td { @if !it.code.is_empty() { code { (shown(&it.code, 64)) } } }
                }
            }
        }))
    };
    page(&brief.name, reader, &content)
}

fn slots(report: &Report) -> Markup {
    let rows = html! {
        @for slot in Slot::BOTH {
            @let it = report.slots.of(slot);
            tr {
                th scope="row" {
                    (slot.name())
                    @if report.booted == *slot.name() { " (runs)" }
                    @if report.next.as_ref().is_some_and(|next| *next == *slot.name()) { " (next)" }
                }
                td { @if let Some(version) = &it.version { (version) } }
                td {
                    (it.state)
                    @if let Some(tries) = it.tries_left { "; tries left: " (tries) }
                }
                td class="digest" { @if let Some(index) = &it.index { code { (index.to_hex()) } } }
            }
        }
    };
    table("slots", "Slots", &["Slot", "Version", "State", "Index"], &rows)
}

fn facts(detail: &Detail, locks: &[GroupLocks], now: u64) -> Markup {
    let Detail { seen, report, .. } = detail;
    let (brief, unread) = (&*seen.brief, detail.unread());
    html! {
        dl class="facts" {
            dt { "Node" } dd class="digest" { code { (brief.node.to_hex()) } }
            dt { "Follows" } dd { (report.product) " on " (report.channel) }
            dt { "Hardware" }
            dd { @for id in &report.hardware { (id) " " } }
            dt { "Agent" } dd { (report.agent) }
            dt { "Last report" }
            dd { (time(brief.received)) " (" (ago(now, brief.received)) "), number " (report.sequence) }
            dt { "Next report" } dd { "expected by " (time(seen.expected)) }
            dt { "Stands" } dd { (report.standing) }
            @for (it, holder) in held_by(seen, locks) {
                dt { "Restart lock" }
                dd { "of group " (it.group) ", since " (time(holder.since)) ", until " (time(holder.until)) " at the latest" }
            }
            @if let Some(it) = &report.decision {
                dt { "Last decision" }
                dd {
                    (it.version) ": " code { (it.code) }
                    @if let Some(rule) = &it.rule { " by the rule " code { (rule) } }
                    " " (shown(&it.sentence, SENTENCE))
                    @if let Some(until) = it.until { " (until " (time(until)) ")" }
                }
            }
            @if let Some(it) = &report.error {
                dt { "Last error" }
                dd { code { (it.code) } " " (shown(&it.sentence, SENTENCE)) " (" (time(it.at)) ")" }
            }
            @if let Some(it) = &report.failure {
                dt { "Last failure" }
                dd { (it.version) ": " code { (it.code) } " " (shown(&it.sentence, SENTENCE)) " (" (time(it.at)) ")" }
            }
            @if let Some(it) = &report.floor {
                dt { "Floor" } dd { "security version " (it.security_version) ", kept in: " (it.kept) }
            }
            @if let Some(it) = &report.metadata {
                dt { "Trusts" }
                dd {
                    "root " (it.root) ", timestamp " (it.timestamp) ", snapshot " (it.snapshot)
                    ", targets " (it.targets) "; until " (time(it.expires))
                }
            }
            @if let Some(checked) = report.checked {
                dt { "Last check" } dd { (time(checked)) " by its clock" }
            }
            @if let Some(it) = &report.bytes {
                dt { "Received" }
                dd { (received(it)) }
            }
            @if !unread.is_empty() {
                dt { "Says more" }
                dd {
                    "what this version does not know: "
                    @for path in &unread { code { (shown(path, 64)) } " " }
                }
            }
        }
    }
}
