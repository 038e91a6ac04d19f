//! The first page.

use maud::{Markup, html};

use super::super::{Context, Filter, count, counted, need, node_link, sentence};
use super::locks::locks;
use super::rollout::rollout;
use super::words::{dot, left, received, says, state, time};
use super::{Reader, command, page, table};
use crate::fleet::overview::{ChannelSums, Overview, ReleaseSums};
use crate::fleet::signed::{RoleExpiry, Signed};
use crate::fleet::state::State;

/// Rows of the list of reasons.
const REASONS: usize = 20;
/// Rows of the list of nodes that need somebody.
const NEEDING: usize = 10;

pub(in super::super) fn overview(all: &Overview, context: &Context, reader: Reader) -> String {
    let content = html! {
        h1 { (need(all)) }
        @if all.nodes.is_empty() {
            p { "No approved node has reported yet." }
        }
        (needing(all))
        @for (key, sums) in &all.channels {
            section {
                h2 { (key.0) " on " (key.1) }
                p class="sentence" { (sentence(key, sums, context, all.now)) }
                @if let Some(it) = context.rollout(key, sums, all.now).filter(|it| !it.channel.waves.is_empty()) {
                    (rollout(&it))
                }
                (releases(key, sums, context))
            }
        }
        @if !all.reasons.is_empty() {
            section {
                h2 { "Reasons, in the words of the nodes" }
                (reasons(all))
            }
        }
        (asides(all, context))
        @if !context.locks.is_empty() {
            section {
                h2 { "Restart locks" }
                (locks(all, context))
            }
        }
        @if let Some(signed) = &context.signed {
            section {
                h2 { "Signatures" }
                (signatures(signed, context, all.now))
            }
        }
        @if !all.channels.is_empty() {
            section {
                h2 { "To stop a roll-out" }
                p { "This server orders nothing. A maintainer with a key stops a channel:" }
                @for (product, channel) in all.channels.keys() {
                    @if formats::release::is_word(product, 64) && formats::release::is_word(channel, 64) {
                        (command(&format!("signer channel hold --product {product} --channel {channel}")))
                    }
                }
            }
        }
        p class="made" { "As of " (time(all.now)) "." }
    };
    page("Overview", reader, &content)
}

/// Who needs somebody comes first.
fn needing(all: &Overview) -> Markup {
    let link = Filter { state: Some("needs-somebody".to_owned()), ..Filter::default() }.link(0);
    html! {
        @if all.need_somebody > 0 {
            (table("needing", "Nodes that need you", &["Node", "State", "Since", "In its own words"], &html! {
                @for seen in all.needing().take(NEEDING) {
                    tr {
                        th scope="row" { a href=(node_link(&seen.brief.node)) { (seen.brief.name) } }
                        td { (state(seen)) }
                        td { (time(seen.brief.since)) }
                        td { (says(seen)) }
                    }
                }
            }))
        }
        @if all.need_somebody > NEEDING {
            p { a href=(link) { "All " (counted(all.need_somebody, "node")) " that need you" } }
        }
    }
}

fn releases(key: &(String, String), sums: &ChannelSums, context: &Context) -> Markup {
    let largest = sums.releases.values().map(ReleaseSums::total).max().unwrap_or(1).max(1);
    let name = format!("Releases of {} on {}", key.0, key.1);
    let is_here = |version: &str| context.published.contains(&(key.0.clone(), version.to_owned()));
    table(
        "releases",
        &name,
        &["Release", "Nodes", "What they do"],
        &html! {
            @for (version, release) in sums.releases.iter().rev() {
                tr {
                    th scope="row" {
                        @if version.is_empty() { "not known" } @else { (version) }
                        @if !version.is_empty() && !is_here(version) {
                            " " span class="mark" { "not published here" }
                        }
                    }
                    td { (bar(release, largest)) }
                    td { (words(version, release)) }
                }
            }
        },
    )
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
    let states = State::ALL.into_iter().map(|it| (it.word(), it.shown(), release.of(it)));
    let states = states.chain([("silent", "silent", release.silent)]);
    html! {
        ul class="states" {
            @for (word, shown, nodes) in states.filter(|(.., nodes)| *nodes > 0) {
                li { (dot(word)) a href=(link(word)) { (count(nodes)) " " (shown) } }
            }
        }
    }
}

fn asides(all: &Overview, context: &Context) -> Markup {
    let timestamps = context.timestamps.iter().filter(|_| context.signed.is_none());
    let timestamps: Vec<_> = timestamps.collect();
    let received_any = all.bytes != formats::report::BytesBySource::default();
    html! {
        @if !all.waiting.is_empty() || all.silent > 0 || !timestamps.is_empty() || received_any {
            section {
                h2 { "Besides" }
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
                    @for (repository, expires, stale) in &timestamps {
                        dt { "Timestamp of " (repository) }
                        dd class=[stale.then_some("bad")] {
                            (left(all.now, *expires))
                            @if *stale { ": whoever holds the online key has to run " code { "signer refresh" } }
                        }
                    }
                    @if received_any {
                        dt { "Received" }
                        dd { (received(&all.bytes)) }
                    }
                }
            }
        }
    }
}

/// Which role has to be signed again when, and by whom.
fn signatures(signed: &Signed, context: &Context, now: u64) -> Markup {
    table(
        "signatures",
        "Signatures",
        &["Role", "Until", "Who signs"],
        &html! {
            @for it in &signed.roles {
                tr {
                    th scope="row" { (it.role) }
                    td class=[context.is_due(it, now).then_some("bad")] {
                        (left(now, it.expires)) ", " (time(u64::try_from(it.expires).unwrap_or(0)))
                    }
                    td { (who(it)) }
                }
            }
        },
    )
}

fn who(it: &RoleExpiry) -> Markup {
    html! {
        @if it.online { "a timer" } @else { "people" }
        ", " (it.threshold) " of " (counted(it.of, "key"))
        ": " @for key in &it.keys { code { (key) } " " }
        @if it.of > it.keys.len() { "… " }
        @if it.online {
            "(" code { "signer refresh" } ")"
        } @else if formats::release::is_word(&it.role, 64) {
            "(" code { "signer stage renew " (it.role) } ")"
        }
    }
}

fn reasons(all: &Overview) -> Markup {
    let link = |code: &str| Filter { reason: Some(code.to_owned()), ..Filter::default() }.link(0);
    html! {
        (table("reasons", "Reasons", &["Nodes", "Code", "One of them says"], &html! {
            @for reason in all.reasons.iter().take(REASONS) {
                tr {
                    td { a href=(link(&reason.code)) { (count(reason.nodes.len())) } }
                    th scope="row" { code { (reason.code) } }
                    td { (reason.sentence) }
                }
            }
        }))
        @if all.reasons.len() > REASONS {
            p { "and " (count(all.reasons.len() - REASONS)) " more" }
        }
    }
}
