//! From a draft to the next state: versions, expiries, signatures in their order.

use std::collections::BTreeMap;

use formats::json::Object;
use formats::tuf::{
    Header, Key, Keys, MetaFile, Metadata, Role, RoleKeys, Root, Snapshot, Targets, Timestamp,
    TopLevelKeys, UnixTime, envelope_bytes,
};

use super::{Draft, Expiry, PlanError};
use crate::key::{KeyStore, sign};
use crate::state::{Signed, State, self_signed, verified};

/// The next state: targets if they change, then snapshot, then timestamp.
///
/// What comes out has been verified the way nodes do it.
pub fn sign_draft(
    state: &State,
    draft: Draft,
    keys: &KeyStore,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<State, PlanError> {
    let mut next = state.clone();
    if let Some(files) = draft.targets {
        let mut targets = next.targets.data.clone();
        targets.targets = files;
        next.targets = sign_next(&next.root, Role::Targets, targets, keys, expiry, now)?;
        for (target, data) in draft.channels {
            let bytes = data.to_bytes();
            next.channels.insert(target, Signed { data, bytes });
        }
    }
    let version = next.targets.data.header.version;
    let mut snapshot = next.snapshot.data.clone();
    let listed = MetaFile::of(version, &next.targets.bytes);
    snapshot.meta.insert(Role::Targets.meta_name(), listed);
    next.snapshot = sign_next(&next.root, Role::Snapshot, snapshot, keys, expiry, now)?;

    let mut timestamp = next.timestamp.data.clone();
    timestamp.snapshot = MetaFile::of(next.snapshot.data.header.version, &next.snapshot.bytes);
    next.timestamp = sign_next(&next.root, Role::Timestamp, timestamp, keys, expiry, now)?;
    check(next)
}

/// The first state of a repository: nothing published, all roles at version 1.
///
/// `root` was signed before and is used as it is: an interrupted `init` goes on with the root
/// that nodes may already have.
pub fn first_state(
    root: &[u8],
    keys: &KeyStore,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<State, PlanError> {
    let bytes = root.to_vec();
    let root = self_signed(root, "root.json")?;
    // The header is replaced when it is signed.
    let unsigned = Header::new(0, now);
    let empty = Targets::new(unsigned.clone(), BTreeMap::new());
    let targets = sign_next(&root, Role::Targets, empty, keys, expiry, now)?;
    let listed = MetaFile::of(1, &targets.bytes);
    let empty = Snapshot::new(unsigned.clone(), listed);
    let snapshot = sign_next(&root, Role::Snapshot, empty, keys, expiry, now)?;
    let listed = MetaFile::of(1, &snapshot.bytes);
    let empty = Timestamp::new(unsigned, listed);
    let timestamp = sign_next(&root, Role::Timestamp, empty, keys, expiry, now)?;
    check(State {
        roots: BTreeMap::from([(root.header.version, bytes)]),
        root,
        timestamp,
        snapshot,
        targets,
        delegated: BTreeMap::new(),
        channels: BTreeMap::new(),
    })
}

/// The bytes of the first root.
pub fn first_root(
    roles: TopLevelKeys,
    public: impl IntoIterator<Item = Key>,
    keys: &KeyStore,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<Vec<u8>, PlanError> {
    let public: Keys = public.into_iter().map(|key| (key.id(), key)).collect();
    let root = Root::new(Header::new(0, now), public, roles);
    Ok(sign_next(&root.clone(), Role::Root, root, keys, expiry, now)?.bytes)
}

/// What all four kinds of metadata have that changes with every signature.
trait Document: Metadata + Clone {
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
    mut data: T,
    keys: &KeyStore,
    expiry: &Expiry,
    now: UnixTime,
) -> Result<Signed<T>, PlanError> {
    let (header, members) = data.header_mut();
    header.version = header.version.saturating_add(1);
    header.expires = expiry.apply(&role, now, members);
    let no_keys = RoleKeys::new(1, []);
    let role_keys = root.role(&role).unwrap_or(&no_keys);
    let value = data.to_value();
    let message = value.canonical();
    let mut signatures = Vec::new();
    // In the order of the root, so that the same keys give the same bytes.
    for key in role_keys.keyids.iter().filter_map(|keyid| keys.find(keyid)) {
        signatures.push(sign(key, &message)?);
    }
    if signatures.len() < role_keys.threshold as usize {
        let (threshold, found) = (role_keys.threshold, signatures.len());
        return Err(PlanError::KeysMissing { role, threshold, found });
    }
    let bytes = envelope_bytes(&value, &signatures);
    // As a node reads it: what is refused here is never published.
    let file = role.file_name(Some(data.header().version));
    Ok(verified(root, &role, &file, &bytes)?)
}

/// The state as somebody else will read it.
fn check(state: State) -> Result<State, PlanError> {
    let files = state.files().into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect();
    let trust_root = state.roots.values().next();
    Ok(State::verify(&files, trust_root.map(Vec::as_slice))?)
}
