//! Who may restart now.

use formats::report::shown;
use maud::{Markup, html};

use super::super::{Context, count, holder_of, node_link};
use super::words::time;
use super::{command, table};
use crate::fleet::overview::Overview;

/// Holders of a group that are named.
const LOCKS: usize = 20;

/// The groups, with those who hold a lock. Their clients wrote the ids.
pub(super) fn locks(all: &Overview, context: &Context) -> Markup {
    html! {
        (table("locks", "Restart locks", &["Group", "Restart", "Who, since when, until when at the latest"], &html! {
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
                                        Some(seen) => { a href=(node_link(&seen.brief.node)) { (seen.brief.name) } }
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
        }))
        p { "A lock ends by itself. The lock of a node that is lost ends at once by:" }
        (command("repo-server fleet release --fleet DIR ID"))
    }
}
