//! How a report is made to fit: sentences are shortened first, and nothing that counts is.
//!
//! | step | what becomes shorter |
//! |---|---|
//! | 1 | control characters go; each sentence is cut to 400 bytes; hardware ids beyond the fourth go |
//! | 2 | while the document is too long: the longest sentence is cut to half of its length |
//! | 3 | with no sentence left: hardware ids but the first go, then the name |
//!
//! A sentence that was cut ends with `…`. What remains after step 3 always fits.

use super::{HARDWARE_LIMIT, REPORT_LIMIT, Report, SENTENCE_LIMIT, cut, document, node_of, shown};
use crate::json::Value;

/// A report that fits, to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    public: [u8; 32],
    payload: Value,
}

impl Report {
    /// The report of the node with that public key, shortened to fit.
    pub fn prepare(mut self, public: &[u8; 32]) -> Prepared {
        self.node = node_of(public);
        self.sequence = self.sequence.max(1);
        self.hardware.truncate(HARDWARE_LIMIT);
        for sentence in self.sentences() {
            *sentence = shortened(&shown(sentence, SENTENCE_LIMIT), SENTENCE_LIMIT);
        }
        loop {
            let prepared = Prepared { public: *public, payload: self.value() };
            if prepared.document(&[0; 64]).len() <= REPORT_LIMIT || !self.shorten() {
                return prepared;
            }
        }
    }

    /// One step shorter; `false`: it cannot be.
    fn shorten(&mut self) -> bool {
        let longest = self.sentences().into_iter().max_by_key(|sentence| sentence.len());
        if let Some(sentence) = longest.filter(|sentence| !sentence.is_empty()) {
            *sentence = shortened(sentence, sentence.len() / 2);
            return true;
        }
        if self.hardware.len() > 1 {
            self.hardware.truncate(1);
            return true;
        }
        self.name.take().is_some()
    }

    fn sentences(&mut self) -> Vec<&mut String> {
        let decision = self.decision.as_mut().map(|it| &mut it.sentence);
        let error = self.error.as_mut().map(|it| &mut it.sentence);
        let failure = self.failure.as_mut().map(|it| &mut it.sentence);
        [decision, error, failure].into_iter().flatten().collect()
    }
}

/// At most so many bytes, with `…` at the end of what was cut; nothing, where that alone would not fit.
fn shortened(text: &str, bytes: usize) -> String {
    const MARK: char = '…';
    if text.len() <= bytes {
        return text.to_owned();
    }
    match bytes.checked_sub(MARK.len_utf8()) {
        Some(room @ 8..) => format!("{}{MARK}", cut(text, room)),
        _ => String::new(),
    }
}

impl Prepared {
    /// What the key signs.
    pub fn message(&self) -> Vec<u8> {
        self.payload.canonical()
    }

    /// The document with its signature: at most [`REPORT_LIMIT`] bytes.
    pub fn document(&self, signature: &[u8; 64]) -> Vec<u8> {
        document(&self.public, &self.payload, signature)
    }
}

pub(super) fn value_of(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => Value::Int(number.as_i64().unwrap_or(i64::MAX)),
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(values) => Value::Array(values.iter().map(value_of).collect()),
        serde_json::Value::Object(members) => {
            Value::object(members.iter().map(|(name, value)| (name.clone(), value_of(value))))
        }
    }
}
