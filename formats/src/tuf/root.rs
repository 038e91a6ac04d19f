//! Root metadata: who may sign for the four top-level roles (TUF §4.3).

use std::collections::BTreeMap;

use super::fields::Fields;
use super::names::shown;
use super::threshold::{Keys, RoleKeys, keys_to_value, read_keys};
use super::{Envelope, Header, KeyId, Metadata, Role, TufError};
use crate::json::{Object, Value};

/// Root metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Version and expiry.
    pub header: Header,
    /// Whether files other than the timestamp carry their version in their name, and targets
    /// their hash. Always so in ours.
    pub consistent_snapshot: bool,
    /// All keys.
    pub keys: Keys,
    /// Who may sign for what. Holds [`Role::TOP_LEVEL`], at least.
    roles: BTreeMap<String, RoleKeys>,
    /// Members the specification does not name.
    pub unknown: Object,
}

/// The member by which a root gives its repository an id. When a root has it, whatever else is
/// signed for that repository must have the same: one online key may then serve several
/// repositories, and nothing of one is accepted by a node of another.
pub const REPOSITORY: &str = "x-racklet-repository";

const NO_ROLE: &str = "constructors and `parse` make sure that all four roles are there";

impl Root {
    /// Root metadata to be written, with consistent snapshots.
    pub fn new(header: Header, keys: Keys, roles: TopLevelKeys) -> Self {
        let TopLevelKeys { root, timestamp, snapshot, targets } = roles;
        let roles = [
            (Role::Root, root),
            (Role::Timestamp, timestamp),
            (Role::Snapshot, snapshot),
            (Role::Targets, targets),
        ];
        Root {
            header,
            consistent_snapshot: true,
            keys,
            roles: roles.into_iter().map(|(role, keys)| (role.name().to_owned(), keys)).collect(),
            unknown: Object::new(),
        }
    }

    /// Who may sign for a top-level role; `None` for a delegated one.
    pub fn role(&self, role: &Role) -> Option<&RoleKeys> {
        if let Role::Delegated(_) = role {
            return None;
        }
        self.roles.get(role.name())
    }

    /// Changes who may sign for a top-level role; no effect for a delegated one.
    pub fn set_role(&mut self, role: &Role, keys: RoleKeys) {
        if !matches!(role, Role::Delegated(_)) {
            self.roles.insert(role.name().to_owned(), keys);
        }
    }

    /// Whether enough keys of that top-level role signed `envelope`, for this repository.
    ///
    /// # Panics
    /// When asked about a delegated role, about which a root says nothing.
    pub fn verify(&self, role: &Role, envelope: &Envelope) -> Result<(), TufError> {
        self.verify_keys(role, envelope)?;
        match role {
            // A new root may bring an id, or change it: both thresholds signed it.
            Role::Root => Ok(()),
            _ => self.check_repository(envelope),
        }
    }

    /// The same, whatever repository it says it is of: for metadata of a time before this root, which
    /// may have brought the id.
    ///
    /// # Panics
    /// When asked about a delegated role, about which a root says nothing.
    pub fn verify_keys(&self, role: &Role, envelope: &Envelope) -> Result<(), TufError> {
        self.role(role).expect(NO_ROLE).verify(&self.keys, role, envelope)
    }

    /// Whether what is signed is of the repository this root pins by [`REPOSITORY`]; a root
    /// without that member pins none.
    pub fn check_repository(&self, envelope: &Envelope) -> Result<(), TufError> {
        let Some(pinned) = self.unknown.get(REPOSITORY) else { return Ok(()) };
        match envelope.signed().get(REPOSITORY) {
            Some(found) if found == pinned => Ok(()),
            found => Err(TufError::Repository {
                pinned: shown_id(pinned),
                found: found.map_or_else(|| "without an id".to_owned(), shown_id),
            }),
        }
    }

    /// Gives metadata that is about to be signed the id this root pins; a root without one leaves
    /// it as it is. `members` are those the specification does not name.
    pub fn bind(&self, members: &mut Object) {
        if let Some(id) = self.unknown.get(REPOSITORY) {
            members.insert(REPOSITORY.to_owned(), id.clone());
        }
    }

    /// The file that holds version `version` of a role's metadata in this repository. Root files
    /// always carry their version and timestamps never; the others do when
    /// [`Root::consistent_snapshot`] is on (TUF §6.2).
    pub fn file_name(&self, role: &Role, version: u64) -> String {
        let versioned = match role {
            Role::Root => true,
            Role::Timestamp => false,
            _ => self.consistent_snapshot,
        };
        role.file_name(versioned.then_some(version))
    }

    /// The key ids that may sign for the root role itself, in order.
    pub fn root_key_ids(&self) -> &[KeyId] {
        self.role(&Role::Root).map_or(&[], |role| &role.keyids)
    }

    /// Whether `newer` takes a key away from that role: whatever that key signed is to be
    /// forgotten (TUF §5.3.11).
    pub fn revokes_key_of(&self, role: &Role, newer: &Root) -> bool {
        match (self.role(role), newer.role(role)) {
            (Some(old), Some(new)) => old.keyids.iter().any(|key| !new.keyids.contains(key)),
            _ => false,
        }
    }
}

fn shown_id(id: &Value) -> String {
    match id.as_str() {
        Some(text) => shown(text),
        None => shown(&format!("{id:?}")),
    }
}

/// Who may sign for each top-level role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopLevelKeys {
    /// The root role.
    pub root: RoleKeys,
    /// The timestamp role.
    pub timestamp: RoleKeys,
    /// The snapshot role.
    pub snapshot: RoleKeys,
    /// The targets role.
    pub targets: RoleKeys,
}

impl Metadata for Root {
    fn parse(signed: &Value) -> Result<Self, TufError> {
        let (header, fields) = Header::read(signed, "root")?;
        let consistent_snapshot = match fields.optional("consistent_snapshot") {
            Some(_) => fields.bool("consistent_snapshot")?,
            None => false,
        };
        let keys = read_keys(&fields)?;
        let listed = fields.object("roles")?;
        let mut roles = BTreeMap::new();
        for role in Role::TOP_LEVEL {
            listed.required(role.name())?;
        }
        for (name, value) in listed.members() {
            let fields = Fields::of(value, listed.at(name))?;
            roles.insert(name.clone(), RoleKeys::read(&fields, &keys, &[])?);
        }
        let known = [&Header::MEMBERS[..], &["consistent_snapshot", "keys", "roles"]].concat();
        Ok(Root { header, consistent_snapshot, keys, roles, unknown: fields.unknown(&known) })
    }

    fn to_value(&self) -> Value {
        let mut out = self.header.to_members("root", &self.unknown);
        out.insert("consistent_snapshot".into(), Value::Bool(self.consistent_snapshot));
        out.insert("keys".into(), keys_to_value(&self.keys));
        let roles = self.roles.iter().map(|(name, keys)| (name, Value::Object(keys.to_members())));
        out.insert("roles".into(), Value::object(roles));
        Value::Object(out)
    }

    fn header(&self) -> &Header {
        &self.header
    }
}
