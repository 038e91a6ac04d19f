//! What is kept in memory of a node: what lists and sums show of it. Pure.
//!
//! A report has a kilobyte and more, and stays in the database; a hundred thousand of these take some 40 MiB.

use std::collections::HashSet;
use std::sync::Arc;

use formats::digest::Sha256;
use formats::report::{BytesBySource, Report, shown};

use super::state::State;
use super::store::NodeRow;

/// Characters of a node's sentence on a page.
pub(crate) const SENTENCE: usize = 200;
/// Characters of a word of a node on a page.
const WORD: usize = 64;
/// Texts that are looked for before one is kept twice: a fleet has a few hundred versions and sentences.
const TEXTS: usize = 4096;

/// A text that many nodes say: on one line, without control characters, shortened.
pub(crate) type Text = Arc<str>;

/// A node, as far as lists and sums show it; nothing in it depends on the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) node: Sha256,
    /// What people call it, or the beginning of its name.
    pub(crate) name: Text,
    pub(crate) product: Text,
    pub(crate) channel: Text,
    pub(crate) state: State,
    /// The version that the state is about; empty where it is not known.
    pub(crate) release: Text,
    /// The version that is confirmed and runs; empty where none is.
    pub(crate) runs: Text,
    /// Since when it does that.
    pub(crate) since: u64,
    /// When its last report was received.
    pub(crate) received: u64,
    /// Seconds within which it means to send the next one.
    pub(crate) interval: u64,
    /// Seconds by which its clock was ahead of ours.
    pub(crate) clock: i64,
    /// When two machines were last seen to share its key.
    pub(crate) cloned: Option<u64>,
    /// Whether nothing keeps it from an older release any more.
    pub(crate) floor_is_lost: bool,
    /// The version that it was offered last.
    pub(crate) offered: Option<Text>,
    /// Why it does what it does: code and sentence, in its own words.
    pub(crate) reason: Option<(Text, Text)>,
    pub(crate) bytes: Option<BytesBySource>,
}

impl Brief {
    /// Of what the database keeps.
    pub(crate) fn of(row: &NodeRow, texts: &mut Texts) -> Self {
        // It was verified before it was kept; what cannot be read any more says nothing.
        let report = Report::of_document(&row.document).unwrap_or_default();
        let (doing, received) = (&row.known.doing, row.known.received);
        let difference = i128::from(report.at) - i128::from(received);
        let lost = report.floor.as_ref().is_some_and(|floor| floor.kept == "lost");
        Brief {
            node: row.node,
            name: name(row, &report).into(),
            product: texts.word(report.product.as_str()),
            channel: texts.word(report.channel.as_str()),
            state: doing.state,
            release: texts.word(&doing.release),
            runs: texts.word(&doing.runs),
            since: row.known.since,
            received,
            interval: report.interval,
            clock: i64::try_from(difference).unwrap_or(i64::MAX),
            cloned: row.known.cloned,
            floor_is_lost: lost,
            offered: report.decision.as_ref().map(|it| texts.word(it.version.as_str())),
            reason: reason(row, &report, texts),
            bytes: report.bytes,
        }
    }
}

fn name(row: &NodeRow, report: &Report) -> String {
    match &report.name {
        Some(name) if !name.as_str().trim().is_empty() => shown(name.as_str(), WORD),
        _ => row.node.to_hex().chars().take(12).collect(),
    }
}

fn reason(row: &NodeRow, report: &Report, texts: &mut Texts) -> Option<(Text, Text)> {
    let doing = &row.known.doing;
    let sentence = match doing.state {
        State::Reverted => report.failure.as_ref().map(|it| &it.sentence),
        State::Waiting => report.decision.as_ref().map(|it| &it.sentence),
        _ => None,
    };
    if !doing.code.is_empty() {
        let sentence = sentence.map_or("", String::as_str);
        return Some((texts.word(&doing.code), texts.sentence(sentence)));
    }
    let error = report.error.as_ref()?;
    Some((texts.word(error.code.as_str()), texts.sentence(&error.sentence)))
}

/// Texts that were met before, each of them once in memory.
#[derive(Debug, Default)]
pub(crate) struct Texts(HashSet<Text>);

impl Texts {
    fn word(&mut self, text: &str) -> Text {
        self.once(shown(text, WORD))
    }

    fn sentence(&mut self, text: &str) -> Text {
        self.once(shown(text, SENTENCE))
    }

    fn once(&mut self, text: String) -> Text {
        if let Some(known) = self.0.get(text.as_str()) {
            return Arc::clone(known);
        }
        // Those that are held somewhere stay; they are only not found any more.
        if self.0.len() >= TEXTS {
            self.0.clear();
        }
        let text = Text::from(text);
        self.0.insert(Arc::clone(&text));
        text
    }
}
