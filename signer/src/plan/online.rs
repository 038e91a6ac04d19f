//! Signatures: of people's keys over payloads, and of the machines' keys over what follows.

use std::collections::BTreeMap;

use formats::digest::Sha256;
use formats::json::{Object, Value};
use formats::tuf::{
    Header, KeyId, MetaFile, Metadata, REPOSITORY, Role, RoleKeys, Root, Snapshot, Targets,
    Timestamp, UnixTime, envelope_bytes,
};

use super::assemble::Offline;
use super::draft::{empty_targets, next};
use super::proposal::{Payload, Proposal, Signatures, requirements};
use super::roles::check_set;
use super::{Expiry, PlanError, RoleKeySet, check_word};
use crate::key::{KeyStore, sign};
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

impl Proposal {
    /// The first root and targets of a repository, with its id in both.
    pub fn first(
        sets: [RoleKeySet; 4],
        id: &RepositoryId,
        expiry: &Expiry,
        now: UnixTime,
    ) -> Result<Self, PlanError> {
        let roles = sets
            .iter()
            .map(|set| Ok((set.role.clone(), check_set(set)?)))
            .collect::<Result<BTreeMap<Role, RoleKeys>, PlanError>>()?;
        let of = |role: Role| roles.get(&role).cloned().ok_or(PlanError::NoRole(role));
        let keys = sets.iter().flat_map(|set| &set.keys).map(|key| (key.id(), key.clone()));
        let top_level = formats::tuf::TopLevelKeys {
            root: of(Role::Root)?,
            timestamp: of(Role::Timestamp)?,
            snapshot: of(Role::Snapshot)?,
            targets: of(Role::Targets)?,
        };
        super::roles::check_separation_of(&top_level)?;
        let mut root = Root::new(Header::new(0, now), keys.collect(), top_level);
        let id = id.of(&next(&Role::Root, root.clone(), expiry, now))?;
        root.unknown.insert(REPOSITORY.to_owned(), Value::from(id));
        Proposal::below(next(&Role::Root, root, expiry, now), expiry, now)
    }

    /// The first targets below a root that nodes may already have.
    pub fn below(root: Payload, expiry: &Expiry, now: UnixTime) -> Result<Self, PlanError> {
        let mut targets = empty_targets(now);
        if let Some(root) = root.root()? {
            root.bind(&mut targets.unknown);
        }
        let targets = next(&Role::Targets, targets, expiry, now);
        Ok(Proposal { payloads: vec![root, targets], channels: BTreeMap::new() })
    }
}

/// What a first root calls its repository ([`REPOSITORY`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryId {
    /// By this word.
    Named(String),
    /// By a hash of this text and of everything the root says: repositories with the same keys
    /// differ by where they are, or by when they were made, and the same inputs give the same id.
    Derived(String),
}

impl RepositoryId {
    fn of(&self, root: &Payload) -> Result<String, PlanError> {
        match self {
            RepositoryId::Named(word) => {
                check_word("repository id", word)?;
                Ok(word.clone())
            }
            RepositoryId::Derived(text) => {
                let all = [text.as_bytes(), b"\0", &root.message()].concat();
                let mut hex = Sha256::of(&all).to_hex();
                // 128 bits: nobody has a reason to look for two that are alike.
                hex.truncate(32);
                Ok(hex)
            }
        }
    }
}

/// Signs every payload with every key at hand that counts for it and has not signed yet; gives
/// who signed what.
pub fn sign_payloads(
    state: Option<&State>,
    proposal: &Proposal,
    keys: &KeyStore,
    signatures: &mut Signatures,
) -> Result<Vec<(Role, KeyId)>, PlanError> {
    let mut signed = Vec::new();
    for payload in &proposal.payloads {
        let message = payload.message();
        let done = signatures.entry(payload.role.clone()).or_default();
        for needed in requirements(state, proposal, &payload.role)? {
            for keyid in &needed.role_keys.keyids {
                let text = keyid.to_string();
                if done.iter().any(|signature| signature.keyid == text) {
                    continue;
                }
                if let Some(key) = keys.find(keyid) {
                    done.push(sign(key, &message)?);
                    signed.push((payload.role.clone(), *keyid));
                }
            }
        }
    }
    Ok(signed)
}

/// Whether the keys at hand are enough for a role as it is published.
pub fn check_at_hand(state: &State, role: &Role, keys: &KeyStore) -> Result<(), PlanError> {
    let all = requirements(Some(state), &Proposal::default(), role)?;
    if all.is_empty() {
        return Err(PlanError::NoRole(role.clone()));
    }
    for needed in all {
        let found = needed.role_keys.keyids.iter().filter(|id| keys.find(id).is_some()).count();
        let threshold = needed.role_keys.threshold;
        if found < threshold as usize {
            let (role, by) = (role.clone(), needed.by);
            return Err(PlanError::KeysMissing { role, by, threshold, found });
        }
    }
    Ok(())
}

/// The next state: snapshot and timestamp on top of what people signed.
///
/// What comes out has been verified the way nodes do it.
pub fn finish(
    state: Option<&State>,
    offline: Offline,
    proposal: &Proposal,
    keys: &KeyStore,
    expiry: &Expiry,
    restart: Option<Restart>,
    now: UnixTime,
) -> Result<State, PlanError> {
    let newest_digest = payload_digest(offline.newest_root());
    let Offline { roots, root, targets, delegated } = offline;
    // The headers are replaced when they are signed.
    let unsigned = Header::new(0, now);
    let listed = MetaFile::of(targets.data.header.version, &targets.bytes);
    let mut snapshot = match state {
        Some(state) => state.snapshot.data.clone(),
        None => Snapshot::new(unsigned.clone(), listed.clone()),
    };
    snapshot.meta.insert(Role::Targets.meta_name(), listed);
    for (role, signed) in &delegated {
        let listed = MetaFile::of(signed.data.header.version, &signed.bytes);
        snapshot.meta.insert(role.meta_name(), listed);
    }
    if let Some(restart) = restart {
        snapshot.header.version = restart.snapshot;
    }
    let snapshot = sign_next(&root, Role::Snapshot, snapshot, keys, expiry, now)?;
    let listed = MetaFile::of(snapshot.data.header.version, &snapshot.bytes);
    let mut timestamp = match state {
        Some(state) => state.timestamp.data.clone(),
        None => Timestamp::new(unsigned, listed.clone()),
    };
    timestamp.snapshot = listed;
    if let Some(restart) = restart {
        timestamp.header.version = restart.timestamp;
    }
    let timestamp = sign_next(&root, Role::Timestamp, timestamp, keys, expiry, now)?;
    let mut channels = state.map(|state| state.channels.clone()).unwrap_or_default();
    for (target, data) in &proposal.channels {
        let (data, bytes) = (data.clone(), data.to_bytes());
        channels.insert(target.clone(), Signed { data, bytes });
    }
    // Which of the documents nodes will find is seen below.
    let resting = state.map(|state| state.resting.clone()).unwrap_or_default();
    let identity = match state {
        // Of the roots below the trust root nothing is known, also not after this change.
        Some(state) => state.identity.clone().with_root(newest_digest, &root),
        None => Identity::new(newest_digest, &root),
    };
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
    // As somebody else will read it.
    let files = next.files().into_iter().map(|(name, bytes)| (name, bytes.to_vec()));
    // Of two with one name, the channel that is offered comes first.
    let files = files.rev().collect();
    let trust_root = next.roots.values().next();
    let verified = State::verify(&files, trust_root.map(Vec::as_slice))?;
    Ok(State { identity, ..verified })
}

/// New versions and expiries of snapshot and timestamp, nothing else.
pub fn refresh(
    state: &State,
    keys: &KeyStore,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<State, PlanError> {
    let header = &state.root.header;
    if now >= header.expires {
        return Err(PlanError::RootExpired { version: header.version, expires: header.expires });
    }
    let offline = Offline {
        roots: state.roots.clone(),
        root: state.root.clone(),
        targets: state.targets.clone(),
        delegated: state.delegated.clone(),
    };
    finish(Some(state), offline, &Proposal::default(), keys, expiry, None, now)
}

/// What all four kinds of metadata have that changes with every signature.
pub(super) trait Document: Metadata + Clone {
    fn header_mut(&mut self) -> (&mut Header, &mut Object);
}

macro_rules! documents {
    ($($kind:ty),*) => {$(
        impl Document for $kind {
            fn header_mut(&mut self) -> (&mut Header, &mut Object) {
                (&mut self.header, &mut self.unknown)
            }
        }
    )*};
}
documents!(Root, Targets, Snapshot, Timestamp);

/// Raises the version by one, sets the expiry, and signs with every key of the role at hand.
fn sign_next<T: Document>(
    root: &Root,
    role: Role,
    data: T,
    keys: &KeyStore,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<Signed<T>, PlanError> {
    let mut data = data;
    root.bind(data.header_mut().1);
    let payload = next(&role, data, expiry, now);
    let message = payload.message();
    let no_keys = RoleKeys::new(1, []);
    let role_keys = root.role(&role).unwrap_or(&no_keys);
    let mut signatures = Vec::new();
    // In the order of the root, so that the same keys give the same bytes.
    for key in role_keys.keyids.iter().filter_map(|keyid| keys.find(keyid)) {
        signatures.push(sign(key, &message)?);
    }
    if signatures.len() < role_keys.threshold as usize {
        let by = format!("root version {}", root.header.version);
        let (threshold, found) = (role_keys.threshold, signatures.len());
        return Err(PlanError::KeysMissing { role, by, threshold, found });
    }
    let bytes = envelope_bytes(&payload.signed, &signatures);
    // As a node reads it: what is refused here is never published.
    Ok(verified(root, &role, &role.meta_name(), &bytes)?)
}
