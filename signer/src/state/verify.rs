//! From files to a verified [`State`], with the functions that nodes use.

use std::collections::BTreeMap;
use std::sync::Arc;

use formats::channel::Channel;
use formats::digest::Sha256;
use formats::tuf::{
    DelegatedTo, Delegations, Envelope, Key, Keys, Metadata, REPOSITORY, Role, RoleKeys, Root,
    Snapshot, Targets, Timestamp, TufError,
};

use super::identity::{Identity, payload_digest};
use super::{DOCUMENT_PREFIX, Signed, State, StateError, channel_of};

pub(super) fn state(
    files: &BTreeMap<String, Vec<u8>>,
    trust_root: Option<&[u8]>,
    known: Option<&State>,
) -> Result<State, StateError> {
    let Chain { roots, root, identity } = roots(files, trust_root)?;
    let file = Role::Timestamp.file_name(None);
    let bytes = find(files, &file)?;
    let timestamp: Signed<Timestamp> = verified(&root, &Role::Timestamp, &file, bytes)?;

    let listed = &timestamp.data.snapshot;
    let file = Role::Snapshot.file_name(Some(listed.version));
    let bytes = find(files, &file)?;
    listed.check(&file, bytes).map_err(untrusted(&file))?;
    let snapshot: Signed<Snapshot> = verified(&root, &Role::Snapshot, &file, bytes)?;
    check_version(&file, snapshot.data.header.version, listed.version)?;

    let missing = || StateError::Missing(Role::Targets.meta_name());
    let listed = snapshot.data.role(&Role::Targets).ok_or_else(missing)?;
    let file = Role::Targets.file_name(Some(listed.version));
    let bytes = find(files, &file)?;
    listed.check(&file, bytes).map_err(untrusted(&file))?;
    let targets: Signed<Targets> = verified(&root, &Role::Targets, &file, bytes)?;
    check_version(&file, targets.data.header.version, listed.version)?;

    let delegated = verify_delegated(files, &root, &snapshot.data, &targets.data, known)?;
    let (channels, resting) = Default::default();
    let mut state =
        State { roots, root, identity, timestamp, snapshot, targets, delegated, channels, resting };
    state.channels = verify_channels(files, &state)?;
    state.resting = resting_documents(files, &state);
    Ok(state)
}

/// The roots of a repository.
pub(super) struct Chain {
    /// All that are served, by version. Those below the trust root are not verified.
    pub(super) roots: BTreeMap<u64, Vec<u8>>,
    /// The newest.
    pub(super) root: Root,
    /// Which repository it is.
    pub(super) identity: Identity,
}

/// The newest root, reached from the trust root by every version in between.
pub(super) fn roots(
    files: &BTreeMap<String, Vec<u8>>,
    trust_root: Option<&[u8]>,
) -> Result<Chain, StateError> {
    let mut roots: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (name, bytes) in files {
        let version = name.strip_suffix(".root.json").and_then(|version| version.parse().ok());
        if let Some(version) =
            version.filter(|version| Role::Root.file_name(Some(*version)) == *name)
        {
            roots.insert(version, bytes.clone());
        }
    }
    let (oldest, newest) = match (roots.keys().next(), roots.keys().next_back()) {
        (Some(oldest), Some(newest)) => (*oldest, *newest),
        _ => return Err(StateError::Missing("1.root.json".to_owned())),
    };
    let name_of = |version: u64| Role::Root.file_name(Some(version));
    let (bytes, file) = match trust_root {
        Some(bytes) => (bytes, "the trust root".to_owned()),
        None => (roots.get(&oldest).map(Vec::as_slice).unwrap_or_default(), name_of(oldest)),
    };
    let mut root = self_signed(bytes, &file)?;
    let mut identity = Identity::new(payload_digest(bytes), &root);
    let trusted = root.header.version;
    if trust_root.is_none() {
        check_version(&file, trusted, oldest)?;
    }
    if trusted > newest {
        return Err(StateError::OlderRoot { found: newest, trusted });
    }
    // The same version with other bytes is another repository, however it was signed.
    if let (Some(given), Some(there)) = (trust_root, roots.get(&trusted))
        && given != there
    {
        return Err(StateError::OtherRoot { file: name_of(trusted) });
    }
    for version in trusted + 1..=newest {
        let file = name_of(version);
        let bytes = roots.get(&version).ok_or_else(|| StateError::Missing(file.clone()))?;
        // Signed by the keys before it and by its own (TUF §5.3.4).
        let next: Signed<Root> = verified(&root, &Role::Root, &file, bytes)?;
        self_signed(bytes, &file)?;
        check_version(&file, next.data.header.version, version)?;
        root = next.data;
        identity = identity.with_root(payload_digest(bytes), &root);
    }
    for version in oldest..=newest {
        if !roots.contains_key(&version) {
            return Err(StateError::Missing(name_of(version)));
        }
    }
    let first = payload_digest(roots.get(&oldest).map(Vec::as_slice).unwrap_or_default());
    Ok(Chain { roots, root, identity: identity.serving_first(first) })
}

/// A root that its own keys signed.
pub fn self_signed(bytes: &[u8], file: &str) -> Result<Root, StateError> {
    let envelope = Envelope::parse(bytes).map_err(untrusted(file))?;
    let root = Root::parse(envelope.signed()).map_err(untrusted(file))?;
    root.verify(&Role::Root, &envelope).map_err(untrusted(file))?;
    Ok(root)
}

fn verify_delegated(
    files: &BTreeMap<String, Vec<u8>>,
    root: &Root,
    snapshot: &Snapshot,
    targets: &Targets,
    known: Option<&State>,
) -> Result<BTreeMap<Role, Arc<Signed<Targets>>>, StateError> {
    let same_id =
        |state: &&State| state.root.unknown.get(REPOSITORY) == root.unknown.get(REPOSITORY);
    let known = known.filter(same_id);
    let mut waiting: Vec<(Role, u64)> = Vec::new();
    for (name, listed) in &snapshot.meta {
        if let Some(role) = name.strip_suffix(".json").filter(|role| *role != "targets") {
            let role = Role::delegated(role).map_err(untrusted(name))?;
            waiting.push((role, listed.version));
        }
    }
    let mut by: Vec<Delegations> = targets.delegations.iter().cloned().collect();
    let mut delegated = BTreeMap::new();
    // Each round verifies at least one role or ends, so there are at most as many as roles. What
    // is left then has no delegator: a role that was removed stays listed, because nodes refuse a
    // snapshot that forgets one (TUF §5.5.5), but nobody reads it.
    loop {
        let is_named = |role: &Role| by.iter().any(|by| keys_of(by, role).is_some());
        let (named, left): (Vec<_>, _) = waiting.into_iter().partition(|(role, _)| is_named(role));
        if named.is_empty() {
            return Ok(delegated);
        }
        waiting = left;
        for (role, version) in named {
            let file = role.file_name(Some(version));
            let bytes = find(files, &file)?;
            if let Some(listed) = snapshot.role(&role) {
                listed.check(&file, bytes).map_err(untrusted(&file))?;
            }
            let signers: Vec<Signers<'_>> =
                by.iter().filter_map(|by| Some((&by.keys, keys_of(by, &role)?))).collect();
            if let Some(same) = known.and_then(|known| unchanged(known, &role, bytes, &signers)) {
                check_version(&file, same.data.header.version, version)?;
                by.extend(same.data.delegations.clone());
                delegated.insert(role, Arc::clone(same));
                continue;
            }
            let envelope = Envelope::parse(bytes).map_err(untrusted(&file))?;
            for (keys, role_keys) in signers {
                role_keys.verify(keys, &role, &envelope).map_err(untrusted(&file))?;
            }
            root.check_repository(&envelope).map_err(untrusted(&file))?;
            let payload = Sha256::of(envelope.canonical());
            let data = Targets::from_value(envelope.into_signed()).map_err(untrusted(&file))?;
            check_version(&file, data.header.version, version)?;
            by.extend(data.delegations.clone());
            delegated.insert(role, Arc::new(Signed { data, bytes: bytes.to_vec(), payload }));
        }
    }
}

/// Keys, and which of them sign.
type Signers<'a> = (&'a Keys, &'a RoleKeys);

/// A role of a verified state, if its file is the same and the same keys must have signed it.
fn unchanged<'a>(
    known: &'a State,
    role: &Role,
    bytes: &[u8],
    signers: &[Signers<'_>],
) -> Option<&'a Arc<Signed<Targets>>> {
    let same = known.delegated.get(role).filter(|same| same.bytes == bytes)?;
    let all = known.targets_roles().map(|(role, signed)| (role, &signed.data));
    let before = delegators(all, role);
    let keys = |(keys, of): &Signers<'_>| -> (u32, Vec<Option<Key>>) {
        (of.threshold, of.keyids.iter().map(|id| keys.get(id).cloned()).collect())
    };
    let before: Vec<_> = before.iter().map(|(_, all, of)| keys(&(*all, *of))).collect();
    let now: Vec<_> = signers.iter().map(keys).collect();
    // Each of those who delegate now did so with the same keys.
    now.iter().all(|now| before.contains(now)).then_some(same)
}

/// Who may sign for a role, says each that delegates to it: the delegating role, its keys, and who
/// of them.
pub fn delegators<'a>(
    all: impl Iterator<Item = (&'a Role, &'a Targets)>,
    role: &Role,
) -> Vec<(&'a Role, &'a Keys, &'a RoleKeys)> {
    all.filter_map(|(by, targets)| {
        let delegations = targets.delegations.as_ref()?;
        Some((by, &delegations.keys, keys_of(delegations, role)?))
    })
    .collect()
}

fn keys_of<'a>(delegations: &'a Delegations, role: &Role) -> Option<&'a RoleKeys> {
    match &delegations.to {
        DelegatedTo::Roles(roles) => {
            roles.iter().find(|named| named.role == *role).map(|named| &named.keys)
        }
        DelegatedTo::Succinct(bins) => {
            let rest = role.name().strip_prefix(bins.name_prefix.as_str());
            rest.is_some_and(|rest| rest.starts_with('-')).then_some(&bins.keys)
        }
    }
}

/// The channel documents that nodes find.
fn verify_channels(
    files: &BTreeMap<String, Vec<u8>>,
    state: &State,
) -> Result<BTreeMap<String, Signed<Channel>>, StateError> {
    let mut channels = BTreeMap::new();
    for (role, signed) in state.targets_roles() {
        for (target, listed) in &signed.data.targets {
            let Some((product, channel)) = channel_of(target) else { continue };
            if state.find(target).is_none_or(|(by, _)| by != *role) {
                continue;
            }
            let file = format!("{DOCUMENT_PREFIX}{target}");
            let bytes = find(files, &file)?;
            listed.check(target, bytes).map_err(untrusted(&file))?;
            let data = Channel::parse(bytes, product, channel)
                .map_err(|source| StateError::Channel { target: target.clone(), source })?;
            let payload = Sha256::of(bytes);
            channels.insert(target.clone(), Signed { data, bytes: bytes.to_vec(), payload });
        }
    }
    Ok(channels)
}

/// The listed documents that nodes do not find.
fn resting_documents(
    files: &BTreeMap<String, Vec<u8>>,
    state: &State,
) -> BTreeMap<String, Vec<u8>> {
    let listed = state.targets_roles().flat_map(|(_, signed)| &signed.data.targets);
    listed
        .filter(|(target, _)| channel_of(target).is_some() && !state.channels.contains_key(*target))
        .filter_map(|(target, listed)| {
            let bytes = files.get(&format!("{DOCUMENT_PREFIX}{target}"))?;
            listed.check(target, bytes).ok()?;
            Some((target.clone(), bytes.clone()))
        })
        .collect()
}

/// Metadata that enough keys of its role signed.
pub fn verified<T: Metadata>(
    root: &Root,
    role: &Role,
    file: &str,
    bytes: &[u8],
) -> Result<Signed<T>, StateError> {
    let envelope = Envelope::parse(bytes).map_err(untrusted(file))?;
    root.verify(role, &envelope).map_err(untrusted(file))?;
    let payload = Sha256::of(envelope.canonical());
    let data = T::from_value(envelope.into_signed()).map_err(untrusted(file))?;
    Ok(Signed { data, bytes: bytes.to_vec(), payload })
}

fn find<'a>(files: &'a BTreeMap<String, Vec<u8>>, name: &str) -> Result<&'a [u8], StateError> {
    let bytes = files.get(name).ok_or_else(|| StateError::Missing(name.to_owned()))?;
    Ok(bytes)
}

fn check_version(file: &str, found: u64, expected: u64) -> Result<(), StateError> {
    if found == expected {
        Ok(())
    } else {
        Err(StateError::Version { file: file.to_owned(), found, expected })
    }
}

fn untrusted(file: &str) -> impl Fn(TufError) -> StateError + use<> {
    let file = file.to_owned();
    move |source| StateError::Untrusted { file: file.clone(), source }
}
