//! A release that the rules were asked about.

use formats::version::Version;
use update_core::policy::Decided;

use crate::trust::SignedRelease;

/// A signed release, and what the rules say to it.
pub(super) struct JudgedRelease {
    /// The release.
    pub(super) signed: SignedRelease,
    /// The decision.
    pub(super) decided: Decided,
    /// The share of all nodes, in per cent, at which this one's wave begins.
    pub(super) wave: u8,
    /// Whether an operator chose it, by its version or in a bundle.
    pub(super) named: bool,
}

impl JudgedRelease {
    /// The version of the release.
    pub(super) fn version(&self) -> &Version {
        &self.signed.summary.version
    }
}
