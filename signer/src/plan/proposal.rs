//! What people sign: the final bytes of root and targets metadata, and who has to sign them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use formats::channel::Channel;
use formats::digest::Sha256;
use formats::json::Value;
use formats::tuf::{
    Envelope, Key, Keys, Metadata, Role, RoleKeys, Root, Signature, Targets, envelope_bytes,
};

use super::PlanError;
use crate::state::{State, StateError, delegators};

/// Signatures by role, as they were collected. None of them is believed before it is verified.
pub type Signatures = BTreeMap<Role, Vec<Signature>>;

/// Metadata of one role, final but for its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Whose.
    pub role: Role,
    /// What is signed.
    pub signed: Value,
}

impl Payload {
    /// What signatures are made over.
    pub fn message(&self) -> Vec<u8> {
        self.signed.canonical()
    }

    /// SHA-256 of what signatures are made over: two people who see the same digits sign the same.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&self.message())
    }

    /// The file with these signatures.
    pub fn bytes(&self, signatures: &[Signature]) -> Vec<u8> {
        envelope_bytes(&self.signed, signatures)
    }

    /// The root, if it is one.
    pub fn root(&self) -> Result<Option<Root>, StateError> {
        match self.role {
            Role::Root => self.parsed().map(Some),
            _ => Ok(None),
        }
    }

    /// The targets, of whichever level.
    pub fn targets(&self) -> Result<Option<Targets>, StateError> {
        match self.role {
            Role::Targets | Role::Delegated(_) => self.parsed().map(Some),
            _ => Ok(None),
        }
    }

    fn parsed<T: Metadata>(&self) -> Result<T, StateError> {
        T::parse(&self.signed)
            .map_err(|source| StateError::Untrusted { file: self.role.meta_name(), source })
    }
}

/// A change, ready to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal {
    /// Root first, then targets, then delegated roles by name; each at most once.
    pub payloads: Vec<Payload>,
    /// Channel documents by target name that change with them.
    pub channels: BTreeMap<String, Channel>,
}

impl Proposal {
    /// The payload of a role.
    pub fn payload(&self, role: &Role) -> Option<&Payload> {
        self.payloads.iter().find(|payload| payload.role == *role)
    }

    /// The root as it will be.
    pub fn root(&self, state: Option<&State>) -> Result<Root, PlanError> {
        if let Some(payload) = self.payload(&Role::Root)
            && let Some(root) = payload.root()?
        {
            return Ok(root);
        }
        let missing = || StateError::Missing(Role::Root.meta_name());
        Ok(state.map(|state| state.root.clone()).ok_or_else(missing)?)
    }

    /// All targets roles as they will be.
    pub fn targets<'a>(
        &self,
        state: Option<&'a State>,
    ) -> Result<BTreeMap<Role, Cow<'a, Targets>>, PlanError> {
        let mut all = BTreeMap::new();
        for (role, signed) in state.into_iter().flat_map(State::targets_roles) {
            all.insert(role.clone(), Cow::Borrowed(&signed.data));
        }
        for payload in &self.payloads {
            if let Some(targets) = payload.targets()? {
                all.insert(payload.role.clone(), Cow::Owned(targets));
            }
        }
        Ok(all)
    }
}

/// One list of keys that has to sign a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Who names the keys: `root version 3`, `targets version 7`.
    pub by: String,
    /// The keys.
    pub keys: Keys,
    /// Which of them, and how many.
    pub role_keys: RoleKeys,
}

impl Requirement {
    /// Whether the same keys have to sign.
    pub(super) fn has_keys_of(&self, other: &Requirement) -> bool {
        let keys = |it: &Requirement| -> Vec<Option<Key>> {
            it.role_keys.keyids.iter().map(|id| it.keys.get(id).cloned()).collect()
        };
        self.role_keys.threshold == other.role_keys.threshold && keys(self) == keys(other)
    }

    /// Whether a file's signatures are enough.
    pub fn is_met(&self, role: &Role, envelope: &Envelope) -> bool {
        self.role_keys.verify(&self.keys, role, envelope).is_ok()
    }
}

/// Who has to sign for which role, on top of a state.
#[derive(Debug)]
pub struct Signers<'a> {
    before: Option<&'a Root>,
    next: Root,
    targets: BTreeMap<Role, Cow<'a, Targets>>,
}

impl<'a> Signers<'a> {
    /// Those of a change.
    pub fn of(state: Option<&'a State>, proposal: &Proposal) -> Result<Self, PlanError> {
        Ok(Signers {
            before: state.map(|state| &state.root),
            next: proposal.root(state)?,
            targets: proposal.targets(state)?,
        })
    }

    /// For a root the keys before it and its own (TUF §6.1), for a delegated role the keys that each
    /// of its delegators names.
    pub fn requirements(&self, role: &Role) -> Vec<Requirement> {
        let of_root = |root: &Root| {
            root.role(role).map(|role_keys| Requirement {
                by: format!("root version {}", root.header.version),
                keys: root.keys.clone(),
                role_keys: role_keys.clone(),
            })
        };
        match role {
            Role::Root => {
                let before = self.before.filter(|root| **root != self.next);
                before.into_iter().chain([&self.next]).filter_map(of_root).collect()
            }
            Role::Delegated(_) => {
                let all = self.targets.iter().map(|(by, targets)| (by, targets.as_ref()));
                let by = delegators(all, role).into_iter();
                by.map(|(by, keys, role_keys)| Requirement {
                    by: by.to_string(),
                    keys: keys.clone(),
                    role_keys: role_keys.clone(),
                })
                .collect()
            }
            _ => of_root(&self.next).into_iter().collect(),
        }
    }
}

/// Who has to sign for one role.
pub fn requirements(
    state: Option<&State>,
    proposal: &Proposal,
    role: &Role,
) -> Result<Vec<Requirement>, PlanError> {
    Ok(Signers::of(state, proposal)?.requirements(role))
}
