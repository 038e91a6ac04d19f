//! Who signs for what: delegations, rotations, revocations.

use std::borrow::Cow;
use std::collections::BTreeSet;

use formats::tuf::{
    DelegatedRole, DelegatedTo, Delegations, Key, KeyId, Keys, Paths, Role, RoleKeys, TopLevelKeys,
    UnixTime,
};

use super::PlanError;
use super::document::empty_targets;
use super::draft::Draft;
use crate::state::{HISTORY, State, delegators};

/// Most paths of one delegation, as somebody writes them down.
const PATHS_LIMIT: usize = 64;

/// The keys of a role, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKeySet {
    /// Whose.
    pub role: Role,
    /// All of them.
    pub keys: Vec<Key>,
    /// How many must sign.
    pub threshold: u32,
}

/// A role that may sign for some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Who lets it.
    pub by: Role,
    /// The role and its keys.
    pub keys: RoleKeySet,
    /// Path patterns: `*` and `?` do not cross a `/` (TUF §4.5).
    pub paths: Vec<String>,
    /// Whether nobody after it is asked for these names.
    pub terminating: bool,
}

/// What changes in the keys of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Which role.
    pub role: Role,
    /// Keys that come.
    pub add: Vec<Key>,
    /// Keys that go.
    pub remove: Vec<KeyId>,
    /// The threshold from now on; absent: as before.
    pub threshold: Option<u32>,
}

impl Rotation {
    /// The keys of the role as they will be.
    pub(super) fn applied(&self, state: &State) -> Result<RoleKeySet, PlanError> {
        let Rotation { role, add, remove, threshold } = self;
        rotated(state, role, add, remove, *threshold)
    }
}

fn rotated(
    state: &State,
    role: &Role,
    add: &[Key],
    remove: &[KeyId],
    threshold: Option<u32>,
) -> Result<RoleKeySet, PlanError> {
    let (keys, before) = current(state, role)?;
    if let Some(keyid) = remove.iter().find(|keyid| !before.keyids.contains(keyid)) {
        return Err(PlanError::NoKey { keyid: *keyid });
    }
    let kept = before.keyids.iter().filter(|keyid| !remove.contains(keyid));
    let mut all: Vec<Key> = kept.filter_map(|keyid| keys.get(keyid)).cloned().collect();
    all.extend(add.iter().cloned());
    Ok(RoleKeySet {
        role: role.clone(),
        keys: all,
        threshold: threshold.unwrap_or(before.threshold),
    })
}

fn current(state: &State, role: &Role) -> Result<(Keys, RoleKeys), PlanError> {
    if let Some(role_keys) = state.root.role(role) {
        return Ok((state.root.keys.clone(), role_keys.clone()));
    }
    let all = state.targets_roles().map(|(role, signed)| (role, &signed.data));
    let found = delegators(all, role).into_iter().next();
    let (_, keys, role_keys) = found.ok_or_else(|| PlanError::NoRole(role.clone()))?;
    Ok((keys.clone(), role_keys.clone()))
}

/// Refuses thresholds that cannot be met and one key under two names.
pub(super) fn check_set(set: &RoleKeySet) -> Result<RoleKeys, PlanError> {
    let RoleKeySet { role, keys, threshold } = set;
    if *threshold == 0 || *threshold as usize > keys.len() {
        let (role, keys) = (role.clone(), keys.len());
        return Err(PlanError::Threshold { role, threshold: *threshold, keys });
    }
    for (i, key) in keys.iter().enumerate() {
        if keys.iter().take(i).any(|other| other.public() == key.public()) {
            return Err(PlanError::KeyTwice { role: role.clone(), keyid: key.id() });
        }
    }
    Ok(RoleKeys::new(*threshold, keys.iter().map(Key::id)))
}

fn check_paths(role: &Role, paths: &[String]) -> Result<(), PlanError> {
    let good = |path: &String| {
        !path.is_empty()
            && path.len() <= 256
            && !path.starts_with('/')
            && !path.chars().any(char::is_control)
            && !path.split('/').any(|part| matches!(part, "" | "." | ".."))
    };
    if paths.is_empty() || paths.len() > PATHS_LIMIT || !paths.iter().all(good) {
        return Err(PlanError::Paths { role: role.clone() });
    }
    Ok(())
}

impl Draft<'_> {
    pub(super) fn set_roles(&mut self, sets: &[RoleKeySet]) -> Result<(), PlanError> {
        for set in sets {
            let role_keys = check_set(set)?;
            for role in self.with_history(&set.role) {
                match role {
                    Role::Delegated(_) => self.set_delegated(&role, &set.keys, &role_keys)?,
                    top => {
                        for key in &set.keys {
                            self.root.keys.insert(key.id(), key.clone());
                        }
                        self.root.set_role(&top, role_keys.clone());
                    }
                }
            }
        }
        self.drop_unused_keys();
        self.check_separation()
    }

    /// The same keys for every delegator of the role.
    fn set_delegated(
        &mut self,
        role: &Role,
        keys: &[Key],
        role_keys: &RoleKeys,
    ) -> Result<(), PlanError> {
        let mut found = false;
        for delegations in self.delegations() {
            let DelegatedTo::Roles(roles) = &mut delegations.to else { continue };
            for named in roles.iter_mut().filter(|named| named.role == *role) {
                let unknown = std::mem::take(&mut named.keys.unknown);
                named.keys = RoleKeys { unknown, ..role_keys.clone() };
                for key in keys {
                    delegations.keys.insert(key.id(), key.clone());
                }
                found = true;
            }
        }
        if found { Ok(()) } else { Err(PlanError::NoRole(role.clone())) }
    }

    pub(super) fn delegate(&mut self, delegation: &Delegation) -> Result<(), PlanError> {
        let Delegation { by, keys: set, paths, terminating } = delegation;
        let role = &set.role;
        let name = role.name();
        let is_name = formats::release::is_word(name, 64) && matches!(role, Role::Delegated(_));
        if !is_name {
            return Err(PlanError::RoleName(name.chars().take(80).collect()));
        }
        if name == HISTORY {
            return Err(PlanError::History(role.clone()));
        }
        check_paths(role, paths)?;
        let keys = check_set(set)?;
        if self.in_history(by) {
            return Err(PlanError::History(by.clone()));
        }
        let (role, terminating) = (role.clone(), *terminating);
        let paths = Paths::Patterns(paths.clone());
        self.add_role(by, DelegatedRole { role, keys, paths, terminating }, &set.keys)?;
        self.drop_unused_keys();
        self.check_separation()
    }

    /// Delegates to one more role, the last one but for the history, with metadata that list nothing.
    pub(super) fn add_role(
        &mut self,
        by: &Role,
        added: DelegatedRole,
        keys: &[Key],
    ) -> Result<(), PlanError> {
        let role = added.role.clone();
        if self.targets.contains_key(&role) {
            return Err(PlanError::RoleExists(role));
        }
        let last = self.last_of(by);
        let targets = self.targets.get_mut(by).ok_or_else(|| PlanError::NoRole(by.clone()))?;
        let delegations = targets
            .to_mut()
            .delegations
            .get_or_insert_with(|| Delegations::to_roles(Keys::new(), Vec::new()));
        let DelegatedTo::Roles(roles) = &mut delegations.to else {
            return Err(PlanError::RoleExists(role));
        };
        roles.retain(|named| named.role != role);
        let is_last = roles.last().is_some_and(|named| Some(&named.role) == last.as_ref());
        let end = roles.len() - usize::from(is_last);
        roles.insert(end, added);
        for key in keys {
            delegations.keys.insert(key.id(), key.clone());
        }
        // Nodes fail at a role without metadata, so it has some from the start. Its version goes
        // on where a role of that name was removed before: nodes remember the snapshot that listed it.
        let mut first = empty_targets(UnixTime::EPOCH);
        first.header.version =
            self.state.snapshot.data.role(&role).map_or(0, |listed| listed.version);
        self.targets.insert(role, Cow::Owned(first));
        Ok(())
    }

    /// A delegation as it is declared: made when it is not there, changed when it differs.
    pub(super) fn declare(&mut self, delegation: &Delegation) -> Result<(), PlanError> {
        let role = &delegation.keys.role;
        if !self.targets.contains_key(role) {
            return self.delegate(delegation);
        }
        self.set_roles(std::slice::from_ref(&delegation.keys))?;
        self.repath(role, &delegation.paths, delegation.terminating)
    }

    /// Other names for a role, whoever delegates to it.
    pub(super) fn repath(
        &mut self,
        role: &Role,
        paths: &[String],
        terminating: bool,
    ) -> Result<(), PlanError> {
        check_paths(role, paths)?;
        if self.in_history(role) {
            return Err(PlanError::History(role.clone()));
        }
        let mut found = false;
        for roles in self.delegations().filter_map(named_roles) {
            for named in roles.iter_mut().filter(|named| named.role == *role) {
                named.paths = Paths::Patterns(paths.to_vec());
                named.terminating = terminating;
                found = true;
            }
        }
        if found { Ok(()) } else { Err(PlanError::NoRole(role.clone())) }
    }

    /// Takes a role out of every list of delegations. Its metadata stay listed in the snapshot,
    /// where nobody reads them: nodes refuse a snapshot that forgets a role (TUF §5.5.5).
    pub(super) fn undelegate(&mut self, role: &Role) -> Result<(), PlanError> {
        if self.in_history(role) {
            return Err(PlanError::History(role.clone()));
        }
        let mut found = false;
        for roles in self.delegations().filter_map(named_roles) {
            let before = roles.len();
            roles.retain(|named| named.role != *role);
            found |= roles.len() < before;
        }
        if !found {
            return Err(PlanError::NoRole(role.clone()));
        }
        self.drop_unused_keys();
        for targets in self.targets.values_mut() {
            let is_empty = |delegations: &Delegations| matches!(&delegations.to, DelegatedTo::Roles(roles) if roles.is_empty());
            if targets.delegations.as_ref().is_some_and(is_empty) {
                targets.to_mut().delegations = None;
            }
        }
        Ok(())
    }

    /// The delegations of each role that has some.
    fn delegations(&mut self) -> impl Iterator<Item = &mut Delegations> {
        let all = self.targets.values_mut().filter(|targets| targets.delegations.is_some());
        all.filter_map(|targets| targets.to_mut().delegations.as_mut())
    }

    pub(super) fn revoke(
        &mut self,
        revoked: &[KeyId],
        replacement: Option<&Key>,
    ) -> Result<(), PlanError> {
        let mut sets = Vec::new();
        let mut missing: BTreeSet<KeyId> = revoked.iter().copied().collect();
        let delegated = self.targets.keys().filter(|role| **role != Role::Targets);
        for role in Role::TOP_LEVEL.iter().chain(delegated) {
            let (_, now) = current(self.state, role)?;
            let hit: Vec<KeyId> =
                now.keyids.iter().filter(|keyid| revoked.contains(keyid)).copied().collect();
            if hit.is_empty() {
                continue;
            }
            missing.retain(|keyid| !hit.contains(keyid));
            let add: Vec<Key> = replacement
                .filter(|key| !now.keyids.contains(&key.id()))
                .cloned()
                .into_iter()
                .collect();
            sets.push(rotated(self.state, role, &add, &hit, None)?);
        }
        match missing.first() {
            Some(keyid) => Err(PlanError::NoKey { keyid: *keyid }),
            None => self.set_roles(&sets),
        }
    }

    /// A key that signs for nothing is only a key more to be told about.
    pub(super) fn drop_unused_keys(&mut self) {
        let used: BTreeSet<KeyId> = Role::TOP_LEVEL
            .iter()
            .filter_map(|role| self.root.role(role))
            .flat_map(|keys| keys.keyids.clone())
            .collect();
        self.root.keys.retain(|keyid, _| used.contains(keyid));
        for delegations in self.delegations() {
            let DelegatedTo::Roles(roles) = &delegations.to else { continue };
            let used: BTreeSet<KeyId> =
                roles.iter().flat_map(|named| named.keys.keyids.clone()).collect();
            delegations.keys.retain(|keyid, _| used.contains(keyid));
        }
    }

    /// A key of the machines signs for nothing that people sign for (case 192).
    fn check_separation(&self) -> Result<(), PlanError> {
        let mut offline = Vec::new();
        for role in [Role::Root, Role::Targets] {
            let keys = self.root.role(&role).map(|keys| keys.keyids.clone()).unwrap_or_default();
            offline.extend(keys.into_iter().map(|keyid| (role.clone(), keyid)));
        }
        for targets in self.targets.values() {
            if let Some(Delegations { to: DelegatedTo::Roles(roles), .. }) = &targets.delegations {
                for named in roles {
                    let keys = named.keys.keyids.iter();
                    offline.extend(keys.map(|keyid| (named.role.clone(), *keyid)));
                }
            }
        }
        let online = [Role::Snapshot, Role::Timestamp].into_iter();
        let online = online.filter_map(|role| Some((role.clone(), self.root.role(&role)?)));
        separate(online, &offline)
    }
}

/// The roles of delegations by name.
fn named_roles(delegations: &mut Delegations) -> Option<&mut Vec<DelegatedRole>> {
    match &mut delegations.to {
        DelegatedTo::Roles(roles) => Some(roles),
        DelegatedTo::Succinct(_) => None,
    }
}

/// The same for a root that is made.
pub(super) fn check_separation_of(roles: &TopLevelKeys) -> Result<(), PlanError> {
    let mut offline = Vec::new();
    for (role, keys) in [(Role::Root, &roles.root), (Role::Targets, &roles.targets)] {
        offline.extend(keys.keyids.iter().map(|keyid| (role.clone(), *keyid)));
    }
    let online = [(Role::Snapshot, &roles.snapshot), (Role::Timestamp, &roles.timestamp)];
    separate(online.into_iter(), &offline)
}

fn separate<'a>(
    online: impl Iterator<Item = (Role, &'a RoleKeys)>,
    offline: &[(Role, KeyId)],
) -> Result<(), PlanError> {
    for (online, keys) in online {
        if let Some((offline, keyid)) = offline.iter().find(|(_, id)| keys.keyids.contains(id)) {
            let (keyid, offline) = (*keyid, offline.clone());
            return Err(PlanError::OnlineOffline { keyid, online, offline });
        }
    }
    Ok(())
}
