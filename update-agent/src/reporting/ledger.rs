//! What is durable of reports, in `reports/` of the state directory: the key, and what was sent.
//!
//! | record | holds | lost |
//! |---|---|---|
//! | `key` | the seed of the node's key; mode 0600 | the node is a new one to every server |
//! | `sent` | no report with a higher number was signed; what each source acknowledged | the server says how far the numbers are |
//!
//! Numbers are reserved before they are used, several at a time, so that a report costs one write: that
//! of its acknowledgement. A cut leaves numbers that nobody uses, and never one that is used twice.

use std::ops::RangeInclusive;
use std::path::Path;

use formats::digest::Sha256;
use formats::reason::Reason;
use serde::{Deserialize, Serialize};
use storage::files::{Files, PrivateDir};
use storage::host::Host;
use storage::record;

use super::key::{FileKey, SEED};
use crate::agent::Agent;
use crate::config::Config;
use crate::error::{AgentError, Because as _};

/// What to do about a key that cannot be read.
const LOST_KEY: &str = "remove key.0 and key.1 from the directory reports in state_dir: the node makes \
                        a new key, and has to be approved again on the server";
/// How far a server may move the numbers at once: a report every second for a century. Without a bound
/// one hostile answer would use up all numbers.
const LONGEST_JUMP: u64 = 1 << 32;
/// Sources that are remembered. Nobody reports to more.
const SOURCES_LIMIT: usize = 8;

/// The record `sent`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Sent {
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    sources: Vec<SentTo>,
}

/// How it stands with one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SentTo {
    /// The source, without credentials.
    pub(crate) source: String,
    /// The last report that it acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) acknowledged: Option<Acknowledged>,
    /// Why the last attempt failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<Failed>,
}

/// A report that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acknowledged {
    /// What it said: [`formats::report::Report::content`].
    pub(crate) content: Sha256,
    /// The boot in which it was sent.
    pub(crate) boot: String,
    /// Seconds between that boot and it.
    pub(crate) uptime: u64,
    /// Unix seconds, for people.
    pub(crate) at: u64,
}

/// Why reports do not arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its reason code.
    pub code: String,
    /// In words.
    pub message: String,
    /// Unix seconds of the first attempt that failed so.
    pub at: u64,
}

/// How it stands with a source that gets reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportsTo {
    /// The source, without credentials.
    pub source: String,
    /// The last report that it acknowledged.
    pub acknowledged: Option<LastReport>,
    /// Why the last attempt failed, if it did.
    pub failed: Option<Failed>,
}

/// A report that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LastReport {
    /// Unix seconds.
    pub at: u64,
}

/// Every source that gets reports, and how it stands with it. Nothing is made.
pub(crate) fn standing(host: &dyn Host, config: &Config) -> Vec<ReportsTo> {
    let ledger = Ledger::look(host, &config.state_dir);
    let known = ledger.map(|ledger| ledger.sources()).unwrap_or_default();
    let wanted = config.sources.iter().filter(|source| source.reports);
    wanted
        .map(|source| {
            let sent = known.iter().find(|sent| sent.source == source.url);
            let last = sent.and_then(|sent| sent.acknowledged.as_ref());
            ReportsTo {
                source: source.url.clone(),
                acknowledged: last.map(|last| LastReport { at: last.at }),
                failed: sent.and_then(|sent| sent.failed.clone()),
            }
        })
        .collect()
}

/// The directory, open.
pub(crate) struct Ledger(PrivateDir);

impl Ledger {
    /// Opens that of an agent, making it when it is missing.
    pub(super) fn of(agent: &Agent) -> Result<Self, AgentError> {
        let dir = agent.config.state_dir.join("reports");
        let dir = PrivateDir::create_on(agent.host.as_ref(), &dir)
            .map_err(|error| AgentError::from(error).context("reports"))?;
        Ok(Ledger(dir))
    }

    /// Opens it to look at it; nothing is made.
    fn look(host: &dyn Host, state_dir: &Path) -> Result<Self, AgentError> {
        Ok(Ledger(PrivateDir::open_or_missing_on(host, &state_dir.join("reports"))?))
    }

    /// The node's key, made at its first use. A cut leaves no key, or the whole key.
    pub(super) fn key(&self) -> Result<FileKey, AgentError> {
        let _lock = self.0.lock()?;
        key_of(&self.0)
    }

    /// So many numbers that no report has yet.
    pub(super) fn reserve(&self, count: u64) -> Result<RangeInclusive<u64>, AgentError> {
        let _lock = self.0.lock()?;
        reserve(&self.0, count)
    }

    /// A server knows reports of this node up to that number: none of them is used again. `false`: that is
    /// no number to be believed.
    pub(super) fn advance(&self, to: u64) -> Result<bool, AgentError> {
        let _lock = self.0.lock()?;
        advance(&self.0, to)
    }

    /// How it stands with each source.
    pub(crate) fn sources(&self) -> Vec<SentTo> {
        sent(&self.0).map(|sent| sent.sources).unwrap_or_default()
    }

    /// How it stands with a source now.
    pub(super) fn keep(&self, now: SentTo) -> Result<(), AgentError> {
        if self.sources().contains(&now) {
            return Ok(());
        }
        let _lock = self.0.lock()?;
        change(&self.0, |sent| {
            sent.sources.retain(|other| other.source != now.source);
            sent.sources.insert(0, now);
            sent.sources.truncate(SOURCES_LIMIT);
        })
    }
}

/// The key, made if there is none. Callers hold the lock.
pub(super) fn key_of(files: &dyn Files) -> Result<FileKey, AgentError> {
    let lost = |error: AgentError| match error.reason() {
        Reason::StoreCorrupt => error.or_hint(LOST_KEY),
        _ => error,
    };
    let seed = match payload(files, "key").map_err(lost)? {
        Some(seed) => seed,
        None => {
            let mut seed = [0; SEED];
            getrandom::fill(&mut seed).map_err(|error| {
                AgentError::new(Reason::StoreIo, format!("draw the key of reports: {error}"))
            })?;
            record::write(files, "key", &seed)?;
            seed.to_vec()
        }
    };
    let none = || AgentError::new(Reason::StoreCorrupt, "the key of reports is none");
    FileKey::of(&seed).ok_or_else(|| lost(none()))
}

/// So many numbers that no report has yet. Callers hold the lock.
pub(super) fn reserve(files: &dyn Files, count: u64) -> Result<RangeInclusive<u64>, AgentError> {
    change(files, |sent| {
        let first = sent.sequence.saturating_add(1);
        sent.sequence = sent.sequence.saturating_add(count.max(1));
        first..=sent.sequence
    })
}

/// None of the numbers up to that one is used again. `false`: it is no number to be believed. Callers
/// hold the lock.
pub(super) fn advance(files: &dyn Files, to: u64) -> Result<bool, AgentError> {
    change(files, |sent| {
        let believed = to <= sent.sequence.saturating_add(LONGEST_JUMP);
        if believed {
            sent.sequence = sent.sequence.max(to);
        }
        believed
    })
}

fn change<T>(files: &dyn Files, edit: impl FnOnce(&mut Sent) -> T) -> Result<T, AgentError> {
    let mut sent = match sent(files) {
        Ok(sent) => sent,
        // The server knows the numbers, and tells them.
        Err(error) if error.reason() == Reason::StoreCorrupt => {
            record::remove(files, "sent")?;
            Sent::default()
        }
        Err(error) => return Err(error),
    };
    let outcome = edit(&mut sent);
    let payload = serde_json::to_vec(&sent).because(Reason::StoreIo, "write what was sent")?;
    record::write(files, "sent", &payload)?;
    Ok(outcome)
}

fn sent(files: &dyn Files) -> Result<Sent, AgentError> {
    let Some(payload) = payload(files, "sent")? else { return Ok(Sent::default()) };
    serde_json::from_slice(&payload).because(Reason::StoreCorrupt, "what was sent of reports")
}

fn payload(files: &dyn Files, name: &str) -> Result<Option<Vec<u8>>, AgentError> {
    Ok(record::read(files, name)?.map(|found| found.record.payload))
}
