//! What `status` shows of the last check.

use formats::carry::readable;
use formats::digest::Sha256;
use formats::reason::RecordedReason;
use serde::{Deserialize, Serialize};

use super::Counts;

/// What `status` shows of the last check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Unix seconds of the last check that reached a verified, unexpired repository.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub last_success: Option<u64>,
    /// What the last command that failed ended with.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// What to ask a source with next time.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub etag: Option<KnownState>,
    /// Versions of the trusted metadata.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataVersions>,
    /// What was last offered and decided.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub offer: Option<OfferReport>,
    /// That the release which ran at the last check was withdrawn.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<WithdrawnReport>,
    /// What is counted for the metrics.
    #[serde(default, skip_serializing_if = "Counts::is_empty")]
    pub counts: Counts,
}

/// A state of a source that was taken over completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownState {
    /// The source.
    pub source: String,
    /// Its opaque name for that state.
    pub etag: String,
    /// SHA-256 of the metadata that was trusted then.
    pub trusted: Sha256,
}

/// An error as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Its stable reason.
    pub code: RecordedReason,
    /// In words.
    pub message: String,
    /// Unix seconds.
    pub at: u64,
}

/// Versions of the trusted metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataVersions {
    /// Of root.
    pub root: u64,
    /// Of timestamp.
    pub timestamp: u64,
    /// Of snapshot.
    pub snapshot: u64,
    /// Of the top-level targets.
    pub targets: u64,
    /// Unix seconds at which the first of them expires.
    pub expires: i64,
    /// Unix seconds at which the offline statement of a bundle ends, if there was one that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<i64>,
}

/// A release that runs here and was withdrawn by its maintainers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawnReport {
    /// `withdrawn`.
    pub code: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its index.
    pub index: Sha256,
    /// Unix seconds at which it was withdrawn.
    pub at: u64,
    /// Why, in the words of its maintainers.
    pub because: String,
}

impl WithdrawnReport {
    /// In words.
    pub(crate) fn sentence(&self) -> String {
        let WithdrawnReport { version, because, .. } = self;
        format!("{version}, which runs here, was withdrawn by its maintainers: {because}")
    }
}

/// The last decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferReport {
    /// The version offered.
    pub version: String,
    /// What was decided: `install`, `up_to_date`, `deferred` or a reason.
    pub decision: String,
    /// Why.
    pub why: String,
    /// The rule that it did not pass, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The share of all nodes at which this one's wave begins, if the channel has waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<u8>,
    /// Unix seconds until which it is deferred, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}
