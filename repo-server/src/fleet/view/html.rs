//! The pages as HTML: templates that are checked when they are compiled, and escape every text.

use formats::boot_record::Slot;
use formats::report::shown;
use formats::tuf::UnixTime;
use maud::{DOCTYPE, Markup, html};

use super::{
    Context, Filter, count, counted, held_by, holder_of, need, next_command, node_link, sentence,
};
use crate::fleet::GroupLocks;
use crate::fleet::overview::{ChannelSums, Overview, ReleaseSums, SENTENCE, Seen};
use crate::fleet::state::State;
use crate::fleet::store::Transition;

/// Rows of the list of reasons.
const REASONS: usize = 20;
/// Holders of a group that are named.
const LOCKS: usize = 20;

fn page(title: &str, content: &Markup) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · fleet" }
                link rel="stylesheet" href="/fleet/style.css";
            }
            body {
                a class="skip" href="#main" { "Skip to the content" }
                nav aria-label="Pages" {
                    a href="/fleet/" { "Fleet" }
                    a href="/fleet/nodes" { "Nodes" }
                    a href="/fleet/nodes?state=silent" { "Silent" }
                    a href="/fleet/nodes?state=waiting-for-approval" { "Waiting for approval" }
                }
                main id="main" { (content) }
            }
        }
    };
    markup.into_string()
}

/// The names of a table's columns.
fn head(columns: &[&str]) -> Markup {
    html! {
        thead { tr { @for column in columns { th scope="col" { (column) } } } }
    }
}

pub(super) fn overview(all: &Overview, context: &Context) -> String {
    let content = html! {
        h1 { (need(all)) }
        @if all.nodes.is_empty() {
            p { "No approved node has reported yet." }
        }
        @for ((product, channel), sums) in &all.channels {
            section {
                h2 { (product) " on " (channel) }
                p class="sentence" { (sentence(product, sums, context)) }
                (releases(product, sums, context))
            }
        }
        (asides(all, context))
        @if !context.locks.is_empty() {
            section {
                h2 { "Restart locks" }
                (locks(all, context))
            }
        }
        @if !all.reasons.is_empty() {
            section {
                h2 { "Reasons, in the words of the nodes" }
                (reasons(all))
            }
        }
        @if !all.channels.is_empty() {
            section {
                h2 { "To stop a roll-out" }
                p { "This server orders nothing. A maintainer with a key stops a channel:" }
                @for (product, channel) in all.channels.keys() {
                    @if formats::release::is_word(product, 64) && formats::release::is_word(channel, 64) {
                        pre { code { "signer channel hold --product " (product) " --channel " (channel) } }
                    }
                }
            }
        }
        p class="made" { "As of " (time(all.now)) "." }
    };
    page("Overview", &content)
}

fn releases(product: &str, sums: &ChannelSums, context: &Context) -> Markup {
    let largest = sums.releases.values().map(ReleaseSums::total).max().unwrap_or(1).max(1);
    html! {
        table class="releases" {
            (head(&["Release", "Nodes", "What they do"]))
            tbody {
                @for (version, release) in sums.releases.iter().rev() {
                    tr {
                        th scope="row" {
                            @if version.is_empty() { "not known" } @else { (version) }
                            @if !version.is_empty()
                                && !context.published.contains(&(product.to_owned(), version.clone()))
                            {
                                " " span class="mark" { "not published here" }
                            }
                        }
                        td { (bar(release, largest)) }
                        td { (words(version, release)) }
                    }
                }
            }
        }
    }
}

/// A bar of the states of one release. Its numbers are beside it as text.
fn bar(release: &ReleaseSums, largest: usize) -> Markup {
    let mut at = 0;
    let mut parts = Vec::new();
    let states = State::ALL.into_iter().map(|state| (state.word(), release.of(state)));
    for (word, nodes) in states.chain([("silent", release.silent)]) {
        let width = nodes.saturating_mul(1000) / largest;
        if nodes > 0 {
            // What is there is seen.
            parts.push((word, at, width.max(6)));
            at += width.max(6);
        }
    }
    html! {
        svg class="bar" viewBox="0 0 1060 40" preserveAspectRatio="none" aria-hidden="true" {
            @for (word, x, width) in &parts {
                rect class={ "is-" (word) } x=(x) y="0" width=(width) height="40" {}
            }
        }
    }
}

fn words(version: &str, release: &ReleaseSums) -> Markup {
    let link = |state: &str| {
        let filter = Filter {
            state: Some(state.to_owned()),
            release: Some(version.to_owned()).filter(|it| !it.is_empty()),
            ..Filter::default()
        };
        filter.link(0)
    };
    html! {
        ul class="states" {
            @for state in State::ALL {
                @if release.of(state) > 0 {
                    li {
                        span class={ "dot is-" (state.word()) } aria-hidden="true" {}
                        a href=(link(state.word())) { (count(release.of(state))) " " (state.shown()) }
                    }
                }
            }
            @if release.silent > 0 {
                li {
                    span class="dot is-silent" aria-hidden="true" {}
                    a href=(link("silent")) { (count(release.silent)) " silent" }
                }
            }
        }
    }
}

fn asides(all: &Overview, context: &Context) -> Markup {
    let days = |expires: i64| {
        let left = expires.saturating_sub(i64::try_from(all.now).unwrap_or(i64::MAX));
        match left {
            ..0 => "has expired".to_owned(),
            0..172_800 => {
                let hours = usize::try_from(left / 3600).unwrap_or(0);
                format!("expires in {}", counted(hours, "hour"))
            }
            _ => format!("expires in {} days", left / 86_400),
        }
    };
    html! {
        dl class="facts" {
            @if !all.waiting.is_empty() {
                dt { "Waiting for approval" }
                dd {
                    a href="/fleet/nodes?state=waiting-for-approval" { (counted(all.waiting.len(), "node")) }
                    "; they count for nothing"
                }
            }
            @if all.silent > 0 {
                dt { "Silent" }
                dd {
                    a href="/fleet/nodes?state=silent" { (counted(all.silent, "node")) }
                    "; silence is no failure"
                }
            }
            @for (repository, expires, stale) in &context.timestamps {
                dt { "Timestamp of " (repository) }
                dd class=[stale.then_some("bad")] {
                    (days(*expires))
                    @if *stale { ": whoever holds the online key has to run " code { "signer refresh" } }
                }
            }
            @if all.bytes != (0, 0) {
                dt { "Received" }
                dd { (bytes(all.bytes.0)) " over the network, " (bytes(all.bytes.1)) " from bundles" }
            }
        }
    }
}

/// Who may restart now. Their clients wrote the ids.
fn locks(all: &Overview, context: &Context) -> Markup {
    html! {
        table class="locks" {
            (head(&["Group", "Restart", "Who, since when, until when at the latest"]))
            tbody {
                @for it in &context.locks {
                    tr {
                        th scope="row" { (it.group) }
                        td {
                            (count(it.holders.len()))
                            @match it.budget {
                                Some(budget) => { " of " (count(budget)) }
                                None => { ", the group is not configured any more" }
                            }
                        }
                        td {
                            ul class="states" {
                                @for holder in it.holders.iter().take(LOCKS) {
                                    li {
                                        @match holder_of(all, holder) {
                                            Some(seen) => { a href=(node_link(&seen.row.node)) { (seen.name()) } }
                                            None => { code { (shown(holder.client.as_str(), 64)) } }
                                        }
                                        ", " (time(holder.since)) ", " (time(holder.until))
                                    }
                                }
                                @if it.holders.len() > LOCKS {
                                    li { "and " (count(it.holders.len() - LOCKS)) " more" }
                                }
                            }
                        }
                    }
                }
            }
        }
        p { "A lock ends by itself. The lock of a node that is lost ends at once by:" }
        pre { code { "repo-server fleet release --fleet DIR ID" } }
    }
}

fn reasons(all: &Overview) -> Markup {
    let link = |code: &str| Filter { reason: Some(code.to_owned()), ..Filter::default() }.link(0);
    html! {
        table {
            (head(&["Nodes", "Code", "One of them says"]))
            tbody {
                @for reason in all.reasons.iter().take(REASONS) {
                    tr {
                        td { a href=(link(&reason.code)) { (count(reason.nodes.len())) } }
                        td { code { (reason.code) } }
                        td { (reason.sentence) }
                    }
                }
            }
        }
        @if all.reasons.len() > REASONS {
            p { "and " (count(all.reasons.len() - REASONS)) " more" }
        }
    }
}

pub(super) fn nodes(all: &Overview, filter: &Filter, page_of: &[&Seen], total: usize) -> String {
    let title = match filter.state.as_deref() {
        Some("waiting-for-approval") => "Nodes that wait for approval".to_owned(),
        Some("silent") => "Silent nodes".to_owned(),
        Some("needs-somebody") => "Nodes that need you".to_owned(),
        Some(word) => State::of_word(word)
            .map_or_else(|| "Nodes".to_owned(), |state| format!("Nodes: {}", state.shown())),
        None => "Nodes".to_owned(),
    };
    let next = filter.from + page_of.len();
    let content = html! {
        h1 { (title) }
        p {
            (counted(total, "node"))
            @if let Some(release) = &filter.release { ", release " (shown(release, 64)) }
            @if let Some(reason) = &filter.reason { ", for the reason " code { (shown(reason, 64)) } }
            "."
        }
        table class="nodes" {
            (head(&["Node", "State", "Release", "Seen", "In its own words"]))
            tbody {
                @for seen in page_of {
                    tr {
                        th scope="row" { a href=(node_link(&seen.row.node)) { (seen.name()) } }
                        td { (state(seen)) }
                        td { (shown(&seen.row.known.doing.release, 64)) }
                        td { (ago(all.now, seen.row.known.received)) }
                        td { (says(seen)) }
                    }
                }
            }
        }
        @if next < total {
            p { a href=(filter.link(next)) rel="next" { "The next nodes" } }
        }
    };
    page(&title, &content)
}

fn state(seen: &Seen) -> Markup {
    let doing = seen.row.known.doing.state;
    html! {
        @if let Some(since) = seen.silent {
            span class="dot is-silent" aria-hidden="true" {}
            "silent, expected " (time(since)) "; before: " (doing.shown())
        } @else {
            span class={ "dot is-" (doing.word()) } aria-hidden="true" {}
            (doing.shown())
        }
        @if seen.cloned {
            " " span class="mark" { "two machines share this key" }
        }
        @if let Some(clock) = seen.clock {
            " " span class="mark" { "its clock is " (hours(clock)) }
        }
    }
}

fn says(seen: &Seen) -> Markup {
    html! {
        @if let Some((code, sentence)) = seen.reason() {
            code { (code) } " " (sentence)
        }
    }
}

pub(super) fn node(
    seen: &Seen,
    transitions: &[Transition],
    locks: &[GroupLocks],
    now: u64,
) -> String {
    let (report, known) = (&seen.report, &seen.row.known);
    let (title, unread) = (seen.name(), seen.unread());
    let content = html! {
        h1 { (title) }
        p class="sentence" {
            (state(seen))
            @if !known.doing.release.is_empty() { ": " (shown(&known.doing.release, 64)) }
            ", since " (time(known.since))
        }
        @if let Some(command) = next_command(seen) {
            p { "To run next:" }
            pre { code { (command) } }
        }
        table class="slots" {
            (head(&["Slot", "Version", "State", "Index"]))
            tbody {
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
                            @if let Some(tries) = it.tries_left { ", " (tries) " tries left" }
                        }
                        td class="digest" { @if let Some(index) = &it.index { code { (index.to_hex()) } } }
                    }
                }
            }
        }
        dl class="facts" {
            dt { "Node" } dd class="digest" { code { (seen.row.node.to_hex()) } }
            dt { "Follows" } dd { (report.product) " on " (report.channel) }
            dt { "Hardware" }
            dd { @for id in &report.hardware { (id) " " } }
            dt { "Agent" } dd { (report.agent) }
            dt { "Last report" }
            dd { (time(known.received)) " (" (ago(now, known.received)) "), number " (report.sequence) }
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
                dd { (bytes(it.registry)) " over the network, " (bytes(it.bundle)) " from bundles" }
            }
            @if !unread.is_empty() {
                dt { "Says more" }
                dd {
                    "what this version does not know: "
                    @for path in &unread { code { (shown(path, 64)) } " " }
                }
            }
        }
        h2 { "What it did" }
        table {
            (head(&["When", "State", "Release", "Code"]))
            tbody {
                @for it in transitions {
                    tr {
                        td { (time(it.at)) }
                        td { (State::of_word(&it.state).map_or_else(|| shown(&it.state, 64), |state| state.shown().to_owned())) }
                        td { (shown(&it.release, 64)) }
                        td { code { (shown(&it.code, 64)) } }
                    }
                }
            }
        }
    };
    page(&title, &content)
}

fn time(seconds: u64) -> Markup {
    let text = UnixTime::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)).to_string();
    html! { time datetime=(text) { (text) } }
}

fn ago(now: u64, then: u64) -> String {
    match now.saturating_sub(then) {
        0..60 => "just now".to_owned(),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

fn hours(seconds: i64) -> String {
    let (hours, side) =
        (seconds.unsigned_abs() / 3600, if seconds > 0 { "ahead" } else { "behind" });
    match hours {
        0..72 => format!("{hours} h {side}"),
        _ => format!("{} days {side}", hours / 24),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}
