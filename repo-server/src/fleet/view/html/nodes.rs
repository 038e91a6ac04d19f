//! Lists of nodes.

use formats::report::shown;
use maud::{Markup, html};

use super::super::{Filter, count, counted, node_link};
use super::words::{ago, dot, says, state};
use super::{Reader, page, table};
use crate::fleet::overview::{Overview, Seen};
use crate::fleet::state::State;

pub(in super::super) fn nodes(
    all: &Overview,
    filter: &Filter,
    page_of: &[&Seen],
    total: usize,
    reader: Reader,
) -> String {
    let title = title(filter);
    let next = filter.from + page_of.len();
    let content = html! {
        h1 { (title) }
        (chips(all, filter))
        p {
            (counted(total, "node"))
            @if let Some(release) = &filter.release { ", release " (shown(release, 64)) }
            @if let Some(reason) = &filter.reason { ", for the reason " code { (shown(reason, 64)) } }
            "."
        }
        @if !page_of.is_empty() {
            (table("nodes", &title, &["Node", "State", "Release", "Seen", "In its own words"], &html! {
                @for seen in page_of { (row(all, seen)) }
            }))
        }
        @if next < total {
            p { a href=(filter.link(next)) rel="next" { "The next nodes" } }
        }
    };
    page(&title, reader, &content)
}

fn title(filter: &Filter) -> String {
    match filter.state.as_deref() {
        Some("waiting-for-approval") => "Nodes that wait for approval".to_owned(),
        Some("silent") => "Silent nodes".to_owned(),
        Some("needs-somebody") => "Nodes that need you".to_owned(),
        Some(word) => State::of_word(word)
            .map_or_else(|| "Nodes".to_owned(), |state| format!("Nodes: {}", state.shown())),
        None => "Nodes".to_owned(),
    }
}

fn row(all: &Overview, seen: &Seen) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(node_link(&seen.brief.node)) { (seen.brief.name) } }
            td { (state(seen)) }
            td { (seen.brief.release) }
            td { (ago(all.now, seen.brief.received)) }
            td { (says(seen)) }
        }
    }
}

/// Links to the nodes of each state that has some.
fn chips(all: &Overview, filter: &Filter) -> Markup {
    let states = all.states().map(|(state, nodes)| (state.word(), state.shown(), nodes));
    let others = [("silent", "silent", all.silent)];
    let every = Filter::default();
    html! {
        nav aria-label="States" {
            ul class="states" {
                li { a href=(every.link(0)) aria-current=[(*filter == every).then_some("page")] { "all" } }
                @if all.need_somebody > 0 {
                    li { (chip("needs-somebody", "need you", all.need_somebody, filter)) }
                }
                @for (word, shown, nodes) in states.chain(others).filter(|(.., nodes)| *nodes > 0) {
                    li { (dot(word)) (chip(word, shown, nodes, filter)) }
                }
            }
        }
    }
}

fn chip(word: &str, shown: &str, nodes: usize, filter: &Filter) -> Markup {
    let to = Filter { state: Some(word.to_owned()), ..Filter::default() };
    html! {
        a href=(to.link(0)) aria-current=[(*filter == to).then_some("page")] { (count(nodes)) " " (shown) }
    }
}
