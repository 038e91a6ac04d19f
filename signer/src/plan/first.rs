//! The first root and targets of a repository.

use std::collections::BTreeMap;

use formats::digest::Sha256;
use formats::json::Value;
use formats::tuf::{Header, REPOSITORY, Role, RoleKeys, Root, TopLevelKeys, UnixTime};

use super::document::{empty_targets, next};
use super::roles::{check_separation_of, check_set};
use super::{Expiry, Payload, PlanError, Proposal, RoleKeySet, check_word};

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
        let top_level = TopLevelKeys {
            root: of(Role::Root)?,
            timestamp: of(Role::Timestamp)?,
            snapshot: of(Role::Snapshot)?,
            targets: of(Role::Targets)?,
        };
        check_separation_of(&top_level)?;
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
                // 128 bits: collisions by chance do not happen, and nobody gains from making one.
                hex.truncate(32);
                Ok(hex)
            }
        }
    }
}
