//! Reports: what a node says of itself, signed by a key of its own.
//!
//! ```text
//!  facts ─► Report ─► prepare(public key): shortened to fit ─► sign ─► document, at most 4 KiB
//!  document ─► SignedReport::verify: size, strict JSON, key = node, signature ─► Report
//! ```
//!
//! A document is one JSON object of three members, without whitespace, members in the order of their
//! names:
//!
//! | member | value |
//! |---|---|
//! | `key` | the node's ed25519 public key, 64 hexadecimal digits |
//! | `report` | a [`Report`] |
//! | `signature` | of the canonical form of `report`, 128 hexadecimal digits |
//!
//! A report proves nothing but which key signed it: `node` is the SHA-256 of that key, and whether the
//! key is believed is for the reader to say. A reader is older than some of its nodes. It keeps members
//! that it does not know ([`SignedReport::unread`]) and words that it does not know ([`Word`]); a
//! document with another `type` is refused.
//!
//! ```
//! use formats::report::{Report, SignedReport};
//! # use ed25519_dalek::{Signer as _, SigningKey};
//! # let key = SigningKey::from_bytes(&[7; 32]);
//! let report = Report { product: "demo".into(), sequence: 1, ..Report::default() };
//! let prepared = report.prepare(key.verifying_key().as_bytes());
//! let document = prepared.document(&key.sign(&prepared.message()).to_bytes());
//! let read = SignedReport::verify(&document)?;
//! assert_eq!(read.report().product.as_str(), "demo");
//! # Ok::<(), formats::report::ReportError>(())
//! ```

mod fit;
#[cfg(test)]
mod tests;
mod text;

use serde::{Deserialize, Serialize};

use crate::boot_record::{PerSlot, Slot};
use crate::carry;
use crate::digest::{Sha256, hex, unhex};
use crate::json::{JsonError, Value};
use crate::tuf::Key;

pub use self::fit::Prepared;
pub use self::text::{Word, cut, shown};

/// 4 KiB: what a node says fits, and a hundred thousand of them fit into 400 MB.
pub const REPORT_LIMIT: usize = 4 << 10;
/// Bytes of a [`Word`], of a version and of a name.
pub const WORD_LIMIT: usize = 64;
/// Hardware ids of one node.
pub const HARDWARE_LIMIT: usize = 4;
/// Bytes of a sentence, as a node writes it.
pub const SENTENCE_LIMIT: usize = 400;
/// `type` of the reports that this module reads and writes.
pub const TYPE: &str = "racklet-report-1";

/// Why bytes are not a report that may be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Longer than [`REPORT_LIMIT`].
    #[error("report: has {0} bytes; at most {REPORT_LIMIT} are allowed")]
    TooLong(usize),
    /// Not JSON that may be signed.
    #[error("report: {0}")]
    Json(#[from] JsonError),
    /// Not a document of the right form.
    #[error("report: {0}")]
    Form(String),
    /// Another kind of document, or another version of it.
    #[error("report: type {0:?} is not {TYPE:?}; update this program to read it")]
    Type(String),
    /// The key is none, or one that others can sign with.
    #[error("report: its key is no ed25519 public key that may be trusted")]
    Key,
    /// `node` is not the SHA-256 of the key.
    #[error("report: is about node {node}, but its key is that of node {key}")]
    Foreign {
        /// What it says.
        node: Sha256,
        /// Whose key it is.
        key: Sha256,
    },
    /// The signature does not verify.
    #[error("report: its signature is not that of its key")]
    Signature,
}

/// What a node says of itself.
///
/// Times are Unix seconds by the clock of the node, which may be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The node: SHA-256 of its public key.
    pub node: Sha256,
    /// What its operator calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Word>,
    /// The product.
    pub product: Word,
    /// The channel it follows.
    pub channel: Word,
    /// Its hardware ids; at most [`HARDWARE_LIMIT`] are sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hardware: Vec<Word>,
    /// Version of its agent.
    pub agent: Word,
    /// Rises strictly with each report of the node, from 1 up.
    pub sequence: u64,
    /// When it was made.
    pub at: u64,
    /// The boot it was made in. No two boots of any machine have the same.
    pub boot: Word,
    /// Seconds since that boot.
    pub uptime: u64,
    /// Seconds within which the node means to send its next report.
    pub interval: u64,
    /// What each slot holds.
    #[serde(default)]
    pub slots: PerSlot<SlotReport>,
    /// The slot that runs.
    pub booted: Word,
    /// The slot that the boot loader picks next; absent: none boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Word>,
    /// Where the node stands in an update, as in `update-agent status --json`.
    pub standing: Word,
    /// The last decision about an offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decided>,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Erred>,
    /// The last release that failed on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failed>,
    /// The security-version floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<FloorKept>,
    /// The trusted metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Trusted>,
    /// The last check that reached a verified, unexpired repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<u64>,
    /// Where the bytes of the updates came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<BytesBySource>,
}

/// What one slot holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotReport {
    /// One of [`slot_state`].
    pub state: Word,
    /// Version of its release, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Word>,
    /// SHA-256 of the index of its release, where an agent wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Sha256>,
    /// Security version of its release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_version: Option<u64>,
    /// Boots left to prove itself, while it has something to prove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries_left: Option<u64>,
}

/// The words of [`SlotReport::state`] that this version knows.
pub mod slot_state {
    /// Its trial passed.
    pub const CONFIRMED: &str = "confirmed";
    /// The boot loader still tries it, or will.
    pub const ON_TRIAL: &str = "on_trial";
    /// Written and verified; not next.
    pub const STAGED: &str = "staged";
    /// Its trial was lost, or an operator gave it up.
    pub const FAILED: &str = "failed";
    /// Another program wrote it since.
    pub const FOREIGN: &str = "foreign";
    /// Being written, or nothing that boots.
    pub const EMPTY: &str = "empty";
}

/// A decision about an offer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Decided {
    /// The version offered.
    pub version: Word,
    /// `install`, `up_to_date`, `deferred` or a reason code.
    pub code: Word,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Word>,
    /// Why, in the node's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sentence: String,
    /// Until when it is deferred, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Erred {
    /// Its reason code.
    pub code: Word,
    /// In the node's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sentence: String,
    /// When it was met last.
    pub at: u64,
}

/// A release that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Failed {
    /// Its version.
    pub version: Word,
    /// SHA-256 of its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Sha256>,
    /// The reason code.
    pub code: Word,
    /// In the node's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sentence: String,
    /// When.
    pub at: u64,
}

/// The security-version floor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FloorKept {
    /// Releases below it never run here again.
    pub security_version: u64,
    /// How it is kept: `software`, `tpm`, or that it is lost.
    pub kept: Word,
}

/// Versions of trusted metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trusted {
    /// Of root.
    pub root: u64,
    /// Of timestamp.
    pub timestamp: u64,
    /// Of snapshot.
    pub snapshot: u64,
    /// Of the top-level targets.
    pub targets: u64,
    /// When the first of them expires.
    pub expires: u64,
}

/// Bytes by where they came from, since the agent's state was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BytesBySource {
    /// Compressed bytes that came from sources over a network.
    pub registry: u64,
    /// Compressed bytes that came from bundles.
    pub bundle: u64,
    /// Of both, deltas, where the agent counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<u64>,
    /// Raw bytes that the node had already, where the agent counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<u64>,
}

impl Default for Report {
    fn default() -> Self {
        Report {
            kind: TYPE.to_owned(),
            node: Sha256([0; 32]),
            name: None,
            product: Word::default(),
            channel: Word::default(),
            hardware: Vec::new(),
            agent: Word::default(),
            sequence: 0,
            at: 0,
            boot: Word::default(),
            uptime: 0,
            interval: 0,
            slots: PerSlot::default(),
            booted: Word::default(),
            next: None,
            standing: Word::default(),
            decision: None,
            error: None,
            failure: None,
            floor: None,
            metadata: None,
            checked: None,
            bytes: None,
        }
    }
}

/// The node whose public key it is.
pub fn node_of(public: &[u8; 32]) -> Sha256 {
    Sha256::of(public)
}

impl Report {
    /// The slot that runs, if it is one that this version knows.
    pub fn running(&self) -> Option<&SlotReport> {
        let slot = Slot::BOTH.into_iter().find(|slot| self.booted.as_str() == slot.name())?;
        Some(self.slots.of(slot))
    }

    /// What a node has to say without being asked: two reports of the same node that differ in nothing
    /// but times, counters and sentences have the same. Metadata is no news: it is renewed every day for
    /// all nodes at once.
    pub fn content(&self) -> Sha256 {
        let mut news = self.clone();
        (news.sequence, news.at, news.uptime, news.interval) = (0, 0, 0, 0);
        (news.checked, news.bytes, news.metadata) = (None, None, None);
        if let Some(decision) = &mut news.decision {
            decision.sentence.clear();
        }
        if let Some(error) = &mut news.error {
            error.sentence.clear();
            error.at = 0;
        }
        Sha256::of(&news.value().canonical())
    }
}

/// A report whose signature was verified, with its document. Made by [`SignedReport::verify`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReport {
    report: Report,
    document: Vec<u8>,
}

impl SignedReport {
    /// Verifies a document: its size, its form, that `node` is its key's, its signature.
    pub fn verify(document: &[u8]) -> Result<Self, ReportError> {
        if document.len() > REPORT_LIMIT {
            return Err(ReportError::TooLong(document.len()));
        }
        let value = Value::parse(document)?;
        let member = |name: &str| value.get(name).ok_or_else(|| form(format!("{name} is missing")));
        let payload = member("report")?;
        let report = Report::parse(payload)?;
        let bytes = |name: &str| member(name).map(|value| value.as_str().and_then(unhex));
        let public: [u8; 32] =
            bytes("key")?.and_then(|key| key.try_into().ok()).ok_or(ReportError::Key)?;
        let key = Key::ed25519(&public).map_err(|_| ReportError::Key)?;
        let owner = node_of(&public);
        if report.node != owner {
            return Err(ReportError::Foreign { node: report.node, key: owner });
        }
        let signature = bytes("signature")?.ok_or(ReportError::Signature)?;
        if !key.public().verifies(&payload.canonical(), &signature) {
            return Err(ReportError::Signature);
        }
        Ok(SignedReport { report, document: document.to_vec() })
    }

    /// What it says.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// As it came.
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// Where it says what this version does not know: `slots.a.quorum`, `later`.
    pub fn unread(&self) -> Vec<String> {
        self.report.unread_of(&self.document)
    }
}

impl Report {
    /// Reads the member `report` of a document. Nothing is verified: see [`SignedReport::verify`].
    pub fn parse(payload: &Value) -> Result<Self, ReportError> {
        let kind = payload.get("type").and_then(Value::as_str);
        let kind = kind.ok_or_else(|| form("report.type is missing".to_owned()))?;
        if kind != TYPE {
            return Err(ReportError::Type(kind.chars().take(WORD_LIMIT).collect()));
        }
        let report: Report =
            serde_json::from_slice(&payload.to_bytes()).map_err(|error| form(error.to_string()))?;
        match report.sequence {
            0 => Err(form("report.sequence is 0".to_owned())),
            _ => Ok(report),
        }
    }

    /// Reads a document that [`SignedReport::verify`] accepted before. Nothing is verified again.
    pub fn of_document(document: &[u8]) -> Result<Self, ReportError> {
        let value = Value::parse(document)?;
        let payload = value.get("report").ok_or_else(|| form("report is missing".to_owned()))?;
        Report::parse(payload)
    }

    /// Where the document that this was read of says what this version does not know.
    pub fn unread_of(&self, document: &[u8]) -> Vec<String> {
        let payload = Value::parse(document).ok().and_then(|it| it.get("report").cloned());
        let stored = payload.map(|payload| payload.to_bytes()).unwrap_or_default();
        carry::unread(&stored, &self.value().to_bytes())
    }

    /// As a JSON value. Numbers beyond 2^63-1, which no JSON of ours has, become that.
    pub fn value(&self) -> Value {
        fit::value_of(&serde_json::to_value(self).expect("string keys and no floats"))
    }
}

fn form(why: String) -> ReportError {
    ReportError::Form(cut(&why, 200).to_owned())
}

/// The document of a report: what [`Prepared::document`] gives, around any value. Verifies nothing.
pub fn document(public: &[u8; 32], payload: &Value, signature: &[u8; 64]) -> Vec<u8> {
    Value::object([
        ("key", Value::from(hex(public))),
        ("report", payload.clone()),
        ("signature", Value::from(hex(signature))),
    ])
    .to_bytes()
}
