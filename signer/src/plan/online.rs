//! Snapshot and timestamp, which machines sign on top of what people signed.
//!
//! ```text
//!  Offline ─► UnsignedSnapshot ── signatures ─► UnsignedTimestamp ── signatures ─► State
//! ```
//!
//! Each step checks the signatures it gets against the root, as nodes do.

use std::collections::BTreeMap;

use formats::channel::Channel;
use formats::digest::Sha256;
use formats::tuf::{
    Header, KeyId, MetaFile, Role, RoleKeys, Root, Signature, Snapshot, Timestamp, UnixTime,
    envelope_bytes,
};

use super::assemble::Offline;
use super::document::{Document, next};
use super::{Expiry, Payload, PlanError, Proposal};
use crate::state::{Identity, Signed, State, payload_digest, verified};

/// Where snapshot and timestamp versions go on after their keys were stolen: after those of a
/// state that is known to be ours. Nodes forget both when a root takes their keys away (TUF
/// §5.3.11), so an attacker's higher versions bind nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// The last good snapshot version.
    pub snapshot: u64,
    /// The last good timestamp version.
    pub timestamp: u64,
}

/// What snapshot and timestamp are built on.
#[derive(Debug)]
struct Base<'a> {
    before: Option<&'a State>,
    offline: Offline,
    channels: &'a BTreeMap<String, Channel>,
    expiry: &'a Expiry,
    restart: Option<Restart>,
    now: UnixTime,
}

/// A snapshot that lists what people signed, without signatures.
#[derive(Debug)]
pub struct UnsignedSnapshot<'a> {
    base: Base<'a>,
    payload: Payload,
}

/// A timestamp that names a signed snapshot, without signatures.
#[derive(Debug)]
pub struct UnsignedTimestamp<'a> {
    base: Base<'a>,
    snapshot: Signed<Snapshot>,
    payload: Payload,
}

impl<'a> UnsignedSnapshot<'a> {
    /// The snapshot of a change on top of `before`; `None` for a first repository.
    pub fn new(
        before: Option<&'a State>,
        offline: Offline,
        proposal: &'a Proposal,
        expiry: &'a Expiry,
        restart: Option<Restart>,
        now: UnixTime,
    ) -> Self {
        let channels = &proposal.channels;
        let base = Base { before, offline, channels, expiry, restart, now };
        let payload = base.snapshot();
        UnsignedSnapshot { base, payload }
    }

    /// What is to be signed.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Who may sign it, in the order of the root, so that the same keys give the same bytes.
    pub fn keyids(&self) -> &[KeyId] {
        self.base.keyids(&Role::Snapshot)
    }

    /// The timestamp on top of the signed snapshot.
    ///
    /// Errors: [`PlanError::KeysMissing`] when there are fewer signatures than the threshold;
    /// [`PlanError::Result`] when they do not verify.
    pub fn signed(self, signatures: &[Signature]) -> Result<UnsignedTimestamp<'a>, PlanError> {
        let UnsignedSnapshot { base, payload } = self;
        let snapshot = base.signed(&payload, signatures)?;
        let payload = base.timestamp(&snapshot);
        Ok(UnsignedTimestamp { base, snapshot, payload })
    }
}

impl UnsignedTimestamp<'_> {
    /// What is to be signed.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Who may sign it, in the order of the root.
    pub fn keyids(&self) -> &[KeyId] {
        self.base.keyids(&Role::Timestamp)
    }

    /// The next state, verified as somebody else will read it.
    ///
    /// Errors: those of [`UnsignedSnapshot::signed`].
    pub fn signed(self, signatures: &[Signature]) -> Result<State, PlanError> {
        let UnsignedTimestamp { base, snapshot, payload } = self;
        let timestamp = base.signed(&payload, signatures)?;
        base.state(snapshot, timestamp)
    }
}

impl Base<'_> {
    fn snapshot(&self) -> Payload {
        let Offline { targets, delegated, .. } = &self.offline;
        let listed = MetaFile::of(targets.data.header.version, &targets.bytes);
        let mut snapshot = match self.before {
            Some(state) => state.snapshot.data.clone(),
            None => Snapshot::new(self.unsigned(), listed.clone()),
        };
        snapshot.meta.insert(Role::Targets.meta_name(), listed);
        for (role, signed) in delegated {
            let listed = MetaFile::of(signed.data.header.version, &signed.bytes);
            snapshot.meta.insert(role.meta_name(), listed);
        }
        if let Some(restart) = self.restart {
            snapshot.header.version = restart.snapshot;
        }
        self.next(&Role::Snapshot, snapshot)
    }

    fn timestamp(&self, snapshot: &Signed<Snapshot>) -> Payload {
        let listed = MetaFile::of(snapshot.data.header.version, &snapshot.bytes);
        let mut timestamp = match self.before {
            Some(state) => state.timestamp.data.clone(),
            None => Timestamp::new(self.unsigned(), listed.clone()),
        };
        timestamp.snapshot = listed;
        if let Some(restart) = self.restart {
            timestamp.header.version = restart.timestamp;
        }
        self.next(&Role::Timestamp, timestamp)
    }

    /// A header that is replaced when the document gets its version.
    fn unsigned(&self) -> Header {
        Header::new(0, self.now)
    }

    fn next<T: Document>(&self, role: &Role, mut data: T) -> Payload {
        self.offline.root.bind(data.header_mut().1);
        next(role, data, self.expiry, self.now)
    }

    fn keyids(&self, role: &Role) -> &[KeyId] {
        self.role_keys(role).map(|keys| keys.keyids.as_slice()).unwrap_or_default()
    }

    fn role_keys(&self, role: &Role) -> Option<&RoleKeys> {
        self.offline.root.role(role)
    }

    /// A document with its signatures, as a node reads it: what is refused here is never published.
    fn signed<T: Document>(
        &self,
        payload: &Payload,
        signatures: &[Signature],
    ) -> Result<Signed<T>, PlanError> {
        let root: &Root = &self.offline.root;
        let role = &payload.role;
        let threshold = self.role_keys(role).map_or(1, |keys| keys.threshold);
        if signatures.len() < threshold as usize {
            let by = format!("root version {}", root.header.version);
            let (role, found) = (role.clone(), signatures.len());
            return Err(PlanError::KeysMissing { role, by, threshold, found });
        }
        let bytes = envelope_bytes(&payload.signed, signatures);
        Ok(verified(root, role, &role.meta_name(), &bytes)?)
    }

    fn state(
        self,
        snapshot: Signed<Snapshot>,
        timestamp: Signed<Timestamp>,
    ) -> Result<State, PlanError> {
        let identity = self.identity();
        let Offline { roots, root, targets, delegated } = self.offline;
        let mut channels = self.before.map(|state| state.channels.clone()).unwrap_or_default();
        for (target, data) in self.channels {
            let (data, bytes) = (data.clone(), data.to_bytes());
            let payload = Sha256::of(&bytes);
            channels.insert(target.clone(), Signed { data, bytes, payload });
        }
        // Which of the documents nodes will find is decided by the verification below.
        let resting = self.before.map(|state| state.resting.clone()).unwrap_or_default();
        let next = State {
            roots,
            root,
            identity: identity.clone(),
            timestamp,
            snapshot,
            targets,
            delegated,
            channels,
            resting,
        };
        let files = next.files().into_iter().map(|(name, bytes)| (name, bytes.to_vec()));
        // Of two with one name, the channel that is offered comes first.
        let files = files.rev().collect();
        let trust_root = next.roots.values().next();
        let trust_root = trust_root.map(Vec::as_slice);
        let verified = State::verify_again(&files, trust_root, self.before)?;
        Ok(State { identity, ..verified })
    }

    /// The identity of the state before, with the newest root. The roots below the trust root are
    /// not verified by this change either.
    fn identity(&self) -> Identity {
        let newest = payload_digest(self.offline.newest_root());
        match self.before {
            Some(state) => state.identity.clone().with_root(newest, &self.offline.root),
            None => Identity::new(newest, &self.offline.root),
        }
    }
}
