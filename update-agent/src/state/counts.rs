//! What the agent counts over the life of its state, for the metrics.
//!
//! Counts are part of the report, which is written anyway when something fails, so that counting a
//! failure costs no write of its own; received bytes cost one per installation. A reset of the state, or
//! a report of which no copy can be read, begins them anew, which readers of counters expect.

use std::collections::BTreeMap;

use formats::reason::Reason;
use serde::{Deserialize, Serialize};

use super::{Report, State, StateGuard};
use crate::stage::Written;

/// Sources that are counted by name; what others sent is counted as [`OTHERS`].
pub(crate) const SOURCES_LIMIT: usize = 16;
/// Sources beyond [`SOURCES_LIMIT`].
pub(crate) const OTHERS: &str = "others";

/// Counts since the state was made, or reset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Operations that failed, by their reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, u64>,
    /// Bytes received during installations, by source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub received: BTreeMap<String, u64>,
    /// Raw bytes that installations took from what the node had: its other slot, seeds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reused: u64,
    /// Of what was received, bytes of deltas of installations that went to their end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deltas: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Counts {
    /// Whether nothing was counted yet.
    pub fn is_empty(&self) -> bool {
        self.failures.is_empty() && self.received.is_empty() && (self.reused, self.deltas) == (0, 0)
    }

    /// One more operation failed.
    pub(crate) fn failed(&mut self, reason: Reason) {
        let count = self.failures.entry(reason.code().to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    /// A source sent bytes.
    pub(crate) fn received(&mut self, source: &str, bytes: u64) {
        let is_named = self.received.contains_key(source) || self.received.len() < SOURCES_LIMIT;
        let source = if is_named { source } else { OTHERS };
        let count = self.received.entry(source.to_owned()).or_default();
        *count = count.saturating_add(bytes);
    }
}

impl State {
    /// Counts bytes that sources sent, and what an installation that went to its end made of them. What cannot be kept is
    /// lost: nothing is decided by it.
    pub(crate) fn count_received(
        &self,
        held: &StateGuard,
        sent: impl Iterator<Item = (String, u64)>,
        written: Option<&Written>,
    ) {
        let sent: Vec<_> = sent.filter(|(_, bytes)| *bytes > 0).collect();
        let (reused, deltas) = written.map_or((0, 0), |it| (it.reused_seed, it.fetched_delta));
        if sent.is_empty() && reused == 0 {
            return;
        }
        let mut report: Report = self.report();
        for (source, bytes) in &sent {
            report.counts.received(source, *bytes);
        }
        report.counts.reused = report.counts.reused.saturating_add(reused);
        report.counts.deltas = report.counts.deltas.saturating_add(deltas);
        if let Err(lost) = self.save_report(held, &report) {
            tracing::warn!("received bytes are not counted: {lost}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_beyond_the_limit_are_counted_together() {
        let mut counts = Counts::default();
        for number in 0..40 {
            counts.received(&format!("docker://registry-{number}"), 10);
        }
        counts.received("docker://registry-3", 5);
        assert_eq!(counts.received.len(), SOURCES_LIMIT + 1);
        assert_eq!(counts.received[OTHERS], 240);
        assert_eq!(counts.received["docker://registry-3"], 15);
        assert_eq!(counts.received.values().sum::<u64>(), 405);
    }

    #[test]
    fn counts_end_at_their_largest_value() {
        let mut counts = Counts::default();
        counts.received("a", u64::MAX);
        counts.received("a", 1);
        assert_eq!(counts.received["a"], u64::MAX);
        counts.failed(Reason::Unreachable);
        counts.failed(Reason::Unreachable);
        assert_eq!(counts.failures["unreachable"], 2);
    }
}
