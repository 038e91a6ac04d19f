//! What an update ends with.

use formats::tuf::{KeyId, Role, Root, Snapshot, Targets, Timestamp, UnixTime};

use super::{Limits, Search, Stored, TrustError};

/// Top-level metadata that was verified together, and is alive at [`TrustedSet::now`].
///
/// Made by [`Refresh`](super::Refresh) alone.
#[derive(Debug)]
pub struct TrustedSet {
    pub(super) limits: Limits,
    pub(super) now: UnixTime,
    pub(super) stored: Stored,
    pub(super) root: Root,
    pub(super) timestamp: Timestamp,
    pub(super) snapshot: Snapshot,
    pub(super) targets: Targets,
}

impl TrustedSet {
    /// The time it was judged by.
    pub fn now(&self) -> UnixTime {
        self.now
    }

    /// The root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The key ids that may sign for the root role: what example keys are recognised by.
    pub fn root_key_ids(&self) -> &[KeyId] {
        self.root.root_key_ids()
    }

    /// The timestamp.
    pub fn timestamp(&self) -> &Timestamp {
        &self.timestamp
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The top-level targets.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The state as it was last persisted.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The document that expires first, and when.
    pub fn first_expiry(&self) -> (Role, UnixTime) {
        let headers = [
            (Role::Timestamp, &self.timestamp.header),
            (Role::Snapshot, &self.snapshot.header),
            (Role::Targets, &self.targets.header),
        ];
        headers.iter().fold((Role::Root, self.root.header.expires), |first, (role, header)| {
            if header.expires < first.1 { (role.clone(), header.expires) } else { first }
        })
    }

    /// Begins the search for a target, through delegations. Drive it with
    /// [`Workflow`](super::Workflow); it may fetch delegated roles, and keeps them in
    /// [`TrustedSet::stored`].
    ///
    /// Errors: [`TrustError::Name`] for a name that may not be asked for.
    pub fn find_target(&mut self, name: &str) -> Result<Search<'_>, TrustError> {
        Search::begin(self, name)
    }
}
