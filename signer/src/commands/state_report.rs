//! The end of every report about a change: which state is public now.

use serde::Serialize;

use super::{has_example_key, time};
use crate::plan::Finding;
use crate::published::Published;

/// The state that is public now.
#[derive(Debug, Serialize)]
pub struct PublishedState {
    /// Digest of the manifest of the TUF state that is public now.
    pub state: String,
    /// Version of the newest root.
    pub root_version: u64,
    /// Version of the top-level targets.
    pub targets_version: u64,
    /// Version of the snapshot.
    pub snapshot_version: u64,
    /// Version of the timestamp.
    pub timestamp_version: u64,
    /// When the timestamp expires.
    pub timestamp_expires: String,
    /// What should be known of the change; it did not stop it.
    pub warnings: Vec<Finding>,
    /// Whether the root trusts a published key.
    pub example_keys: bool,
}

impl PublishedState {
    pub(super) fn of(published: &Published, warnings: Vec<Finding>) -> Self {
        let state = &published.state;
        PublishedState {
            state: published.manifest.to_string(),
            root_version: state.root.header.version,
            targets_version: state.targets.data.header.version,
            snapshot_version: state.snapshot.data.header.version,
            timestamp_version: state.timestamp.data.header.version,
            timestamp_expires: time(state.timestamp.data.header.expires),
            warnings,
            example_keys: has_example_key(&state.root),
        }
    }

    /// `root 1, targets 4, snapshot 4, timestamp 9, expires 2027-01-02T00:00:00Z`.
    pub(super) fn versions(&self) -> String {
        format!(
            "root {}, targets {}, snapshot {}, timestamp {}, expires {}",
            self.root_version,
            self.targets_version,
            self.snapshot_version,
            self.timestamp_version,
            self.timestamp_expires
        )
    }
}

/// A line for each warning, each after a line break.
pub(super) fn warning_lines(warnings: &[Finding]) -> String {
    warnings.iter().map(|warning| format!("\nwarning: {warning}")).collect()
}
