//! What an update ends with.

use formats::tuf::{KeyId, Role, Root, Snapshot, Targets, Timestamp, UnixTime};

use super::{Limits, OfflineValidity, Search, Stored, TrustError};

/// Top-level metadata that was verified together, and is alive at [`TrustedSet::now`]: by its own
/// expiry, or timestamp and snapshot by an offline statement.
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
    pub(super) offline: Option<OfflineValidity>,
    pub(super) offline_until: Option<UnixTime>,
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

    /// The offline statement that was needed: without it, the timestamp or the snapshot had
    /// expired. Only targets it names are found then.
    pub fn offline(&self) -> Option<&OfflineValidity> {
        self.offline.as_ref()
    }

    /// Until when an offline statement that counts keeps this metadata good, whether or not it was
    /// needed today.
    pub fn offline_until(&self) -> Option<UnixTime> {
        self.offline_until
    }

    /// The last second up to [`TrustedSet::now`] at which every document was alive by its own
    /// expiry: `now`, unless an offline statement was needed.
    pub fn last_alive(&self) -> UnixTime {
        let ends = [self.timestamp.header.expires, self.snapshot.header.expires];
        ends.into_iter().fold(self.now, |first, end| first.min(end.plus(-1)))
    }

    /// The document that expires first, and when; timestamp and snapshot with the offline statement,
    /// where it was needed.
    pub fn first_expiry(&self) -> (Role, UnixTime) {
        let offline = |own: UnixTime| self.offline.as_ref().map_or(own, OfflineValidity::expires);
        let ends = [
            (Role::Timestamp, offline(self.timestamp.header.expires)),
            (Role::Snapshot, offline(self.snapshot.header.expires)),
            (Role::Targets, self.targets.header.expires),
        ];
        ends.into_iter().fold((Role::Root, self.root.header.expires), |first, (role, end)| {
            if end < first.1 { (role, end) } else { first }
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
