//! The pages of the fleet, as HTML and as JSON. Pure: an [`Overview`] in, a document out.
//!
//! No script, no asset of another place, no button but those to log in and out: a page says what nodes say, and
//! prints the line that a maintainer may want to run. What a node wrote is another machine's text: on one line,
//! without control characters, shortened ([`formats::report::shown`]), and escaped by the templates.

mod html;
mod json;
mod rollout;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use formats::digest::Sha256;
use formats::percent;
use http::HeaderMap;
use http::header::ACCEPT;

pub(crate) use self::json::{lock, row};

use self::html::Reader;
use self::rollout::Rollout;
use super::brief::Brief;
use super::lock::Holder;
use super::overview::{ChannelSums, Overview, Seen};
use super::signed::{RoleExpiry, Signed};
use super::state::State;
use super::store::Transition;
use super::{Detail, GroupLocks};

/// Nodes on one page; a link leads to the next.
pub(crate) const PAGE: usize = 200;
/// The style sheet of every page.
pub(crate) const STYLE: &str = include_str!("style.css");

/// What a page needs beside the nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    /// Product and version of everything that this server has.
    pub(crate) published: BTreeSet<(String, String)>,
    /// TUF repositories: name, when the timestamp expires in Unix seconds, whether that is soon or was.
    pub(crate) timestamps: Vec<(String, i64, bool)>,
    /// Who may restart.
    pub(crate) locks: Vec<GroupLocks>,
    /// What maintainers signed, where it can be read.
    pub(crate) signed: Option<Arc<Signed>>,
}

/// Which nodes a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// In this state, or `silent`, `waiting-for-approval`, `needs-somebody`; absent: all approved ones.
    pub(crate) state: Option<String>,
    /// About this release.
    pub(crate) release: Option<String>,
    /// For this reason.
    pub(crate) reason: Option<String>,
    /// So many are left out: those of the pages before.
    pub(crate) from: usize,
}

/// A form in which a page can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Html,
    /// For somebody who is logged in by a cookie, and may log out.
    HtmlInSession,
    Json,
}

/// Whether a client names HTML among what it takes, as browsers do and scripts do not.
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    accepts(headers, "text/html")
}

fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|part| part.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case(wanted)))
}

/// The form that a token is given to: where it leads, and what was wrong with what was given.
pub(crate) fn login(next: &str, wrong: Option<&str>) -> String {
    html::login(next, wrong)
}

impl Form {
    /// What the client asks for: JSON where it names that and not HTML.
    pub(crate) fn of(headers: &HeaderMap, in_session: bool) -> Self {
        match accepts(headers, "application/json") && !wants_html(headers) {
            true => Form::Json,
            false if in_session => Form::HtmlInSession,
            false => Form::Html,
        }
    }

    /// Who reads it; `None`: a program.
    fn reader(self) -> Option<Reader> {
        match self {
            Form::Html => Some(Reader::Any),
            Form::HtmlInSession => Some(Reader::InSession),
            Form::Json => None,
        }
    }

    /// The media type of its documents.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Form::Html | Form::HtmlInSession => "text/html; charset=utf-8",
            Form::Json => "application/json",
        }
    }

    /// The first page.
    pub(crate) fn overview(self, all: &Overview, context: &Context) -> String {
        match self.reader() {
            Some(reader) => html::overview(all, context, reader),
            None => json::overview(all, context).to_string(),
        }
    }

    /// A list of nodes.
    pub(crate) fn nodes(self, all: &Overview, filter: &Filter) -> String {
        let (page, total) = filter.page(all);
        match self.reader() {
            Some(reader) => html::nodes(all, filter, &page, total, reader),
            None => json::nodes(filter, &page, total).to_string(),
        }
    }

    /// One node.
    pub(crate) fn node(
        self,
        detail: &Detail,
        transitions: &[Transition],
        locks: &[GroupLocks],
        now: u64,
    ) -> String {
        match self.reader() {
            Some(reader) => html::node(detail, transitions, locks, now, reader),
            None => json::node(detail, transitions, locks).to_string(),
        }
    }
}

impl Filter {
    /// The nodes of this page, and how many there are on all.
    fn page<'a>(&self, all: &'a Overview) -> (Vec<&'a Seen>, usize) {
        let waiting = self.state.as_deref() == Some("waiting-for-approval");
        let of = if waiting { &all.waiting } else { &all.nodes };
        let found: Vec<&Seen> = of.iter().filter(|seen| self.shows(seen)).collect();
        (found.iter().skip(self.from).take(PAGE).copied().collect(), found.len())
    }

    fn shows(&self, seen: &Seen) -> bool {
        let state = match self.state.as_deref() {
            None | Some("waiting-for-approval") => true,
            Some("silent") => seen.silent.is_some(),
            Some("needs-somebody") => seen.needs_somebody(),
            Some(word) => seen.state().map(State::word) == Some(word),
        };
        let Brief { release, runs, .. } = &*seen.brief;
        let release = self.release.as_ref().is_none_or(|it| **it == **release || **it == **runs);
        let reason =
            self.reason.as_ref().is_none_or(|it| seen.reason().is_some_and(|(code, _)| code == it));
        state && release && reason
    }

    /// Where these nodes are, from another one on.
    pub(crate) fn link(&self, from: usize) -> String {
        let mut pairs = Vec::new();
        for (key, value) in
            [("state", &self.state), ("release", &self.release), ("reason", &self.reason)]
        {
            pairs.extend(value.as_ref().map(|value| format!("{key}={}", percent::encode(value))));
        }
        pairs.extend((from > 0).then(|| format!("from={from}")));
        match pairs.is_empty() {
            true => "/fleet/nodes".to_owned(),
            false => format!("/fleet/nodes?{}", pairs.join("&")),
        }
    }
}

impl Context {
    /// The release that a page tells of a channel.
    fn subject<'a>(&self, product: &str, sums: &'a ChannelSums) -> Option<&'a str> {
        let published =
            |version: &str| self.published.contains(&(product.to_owned(), version.to_owned()));
        Overview::subject(sums, published)
    }

    /// Whether it is time to sign that role again: on a page and in its JSON.
    fn is_due(&self, role: &RoleExpiry, now: u64) -> bool {
        let alarm = self.timestamps.iter().any(|(.., stale)| *stale);
        role.is_due(i64::try_from(now).unwrap_or(i64::MAX), alarm)
    }

    /// How far its roll-out is, if this server has what was signed for it.
    fn rollout(
        &self,
        (product, channel): &(String, String),
        sums: &ChannelSums,
        now: u64,
    ) -> Option<Rollout> {
        let subject = self.subject(product, sums)?;
        let signed = self.signed.as_ref()?.offering(product, channel, subject)?;
        let release = sums.releases.get(subject).cloned().unwrap_or_default();
        Some(Rollout::of(signed, &release, sums.nodes, now))
    }
}

/// The first page in words, a sentence for each product and channel.
///
/// `1.4.2 runs on 812 of 1,000; 3 reverted; 4 silent; wave 2 of 4 is open`
fn sentence(key: &(String, String), sums: &ChannelSums, context: &Context, now: u64) -> String {
    let Some(subject) = context.subject(&key.0, sums) else {
        return format!("no release runs confirmed on any of {}", count(sums.nodes));
    };
    let runs = sums.runs.get(subject).copied().unwrap_or(0);
    let mut text = format!("{subject} runs on {} of {}", count(runs), count(sums.nodes));
    let release = sums.releases.get(subject).cloned().unwrap_or_default();
    for state in State::ALL.into_iter().filter(|state| *state != State::Confirmed) {
        let nodes = release.of(state);
        if nodes > 0 {
            text += &format!("; {} {}", count(nodes), state.shown());
        }
    }
    let silent: usize = sums.releases.values().map(|release| release.silent).sum();
    if silent > 0 {
        text += &format!("; {} silent", count(silent));
    }
    if let Some(standing) = context.rollout(key, sums, now).and_then(|it| it.standing()) {
        text += &format!("; {standing}");
    }
    text
}

/// Whether anybody has to act.
fn need(all: &Overview) -> String {
    match all.need_somebody {
        0 => "nobody needs you".to_owned(),
        1 => "1 node needs you".to_owned(),
        nodes => format!("{} nodes need you", count(nodes)),
    }
}

/// `1,000`
fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 node`, `1,000 nodes`
fn counted(number: usize, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// The command to run next about a node; a line to copy.
fn next_command(seen: &Seen) -> Option<String> {
    let brief = &*seen.brief;
    let word = |text: &str| formats::release::is_word(text, 64).then(|| text.to_owned());
    if !seen.approved {
        return Some(format!("repo-server fleet approve --fleet DIR {}", brief.node.to_hex()));
    }
    Some(match brief.state {
        State::Reverted => {
            // Only names that no shell takes for anything else.
            let (product, channel) = (word(&brief.product)?, word(&brief.channel)?);
            format!("signer channel hold --product {product} --channel {channel}")
        }
        State::Waiting => "update-agent explain".to_owned(),
        State::Other => "update-agent doctor".to_owned(),
        _ if seen.silent.is_some() => "systemctl status update-agent.service".to_owned(),
        _ => return None,
    })
}

/// The node that holds a lock, if it reports: its name there is the id that it asks with.
fn holder_of<'a>(all: &'a Overview, holder: &Holder) -> Option<&'a Seen> {
    let node = Sha256::from_hex(holder.client.as_str()).ok()?;
    all.nodes.iter().chain(&all.waiting).find(|seen| seen.brief.node == node)
}

/// The locks that a node holds: the group, and the lock.
fn held_by<'a>(seen: &Seen, locks: &'a [GroupLocks]) -> Vec<(&'a GroupLocks, &'a Holder)> {
    let id = seen.brief.node.to_hex();
    let held = |it: &'a GroupLocks| {
        it.holders.iter().find(|it| it.client.as_str() == id).map(|holder| (it, holder))
    };
    locks.iter().filter_map(held).collect()
}

/// `node` in a path.
fn node_link(node: &Sha256) -> String {
    format!("/fleet/nodes/{}", node.to_hex())
}
