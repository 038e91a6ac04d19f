//! The closed roles of the history: made of what came together, and put together.

use std::borrow::Cow;
use std::collections::BTreeMap;

use formats::tuf::{DelegatedRole, DelegatedTo, Paths, Role, TargetFile, Targets};

use super::super::PlanError;
use super::super::draft::Draft;
use super::{named, prefixes_of};
use crate::state::{CLOSED_PREFIX, HISTORY, RECENT};

/// 48 KiB, some 128 releases: what is stored anew with every fifth publish at most, and what a node
/// fetches that asks for a release of this role.
pub(super) const CLOSED: usize = 48 << 10;
/// Eight closed roles become one of 384 KiB, and never more than eight at once: releases may have been
/// unlisted from many, and nodes read 2 MiB. 10,000 releases are in some 16 roles, and each was
/// written twice.
pub(super) const SMALL_ROLES: usize = 8;

impl Draft<'_> {
    /// Divides what came together into closed roles, and makes one of many small ones.
    pub(super) fn close(&mut self) -> Result<(), PlanError> {
        let recent = named(RECENT);
        while let Some(targets) = self.targets_of(&recent) {
            let mut taken = 0;
            let last = targets.targets.iter().position(|(name, file)| {
                taken += size(name, file);
                taken >= CLOSED
            });
            let Some(last) = last else { break };
            let names: Vec<String> = targets.targets.keys().take(last + 1).cloned().collect();
            let Some(targets) = self.targets.get_mut(&recent).map(Cow::to_mut) else { break };
            let entries = names.iter().filter_map(|name| targets.targets.remove_entry(name));
            let entries = entries.collect();
            self.add_closed(entries)?;
            self.merge()?;
        }
        Ok(())
    }

    /// A closed role with these entries, under the lowest number that is free.
    fn add_closed(&mut self, entries: BTreeMap<String, TargetFile>) -> Result<(), PlanError> {
        let history = named(HISTORY);
        let free = |role: &Role| !self.targets.contains_key(role);
        let role = (1u32..).map(|n| named(&format!("{CLOSED_PREFIX}{n}"))).find(free);
        let role = role.ok_or_else(|| PlanError::RoleExists(history.clone()))?;
        let recent = self.named_by(&history).iter().find(|by| by.role.name() == RECENT);
        let keys = recent.map(|by| by.keys.clone());
        let keys = keys.ok_or_else(|| PlanError::NoRole(history.clone()))?;
        let paths = Paths::HashPrefixes(prefixes_of(&entries));
        let added = DelegatedRole { role: role.clone(), keys, paths, terminating: false };
        // The keys of the roles beside it are there.
        self.add_role(&history, added, &[])?;
        if let Some(targets) = self.targets.get_mut(&role).map(Cow::to_mut) {
            targets.targets = entries;
        }
        Ok(())
    }

    /// One role of many small ones.
    fn merge(&mut self) -> Result<(), PlanError> {
        let history = named(HISTORY);
        let closed = self.named_by(&history).iter().filter(|by| by.role.name() != RECENT);
        let small: Vec<Role> = closed
            .map(|by| &by.role)
            .filter(|role| self.targets_of(role).is_some_and(is_small))
            .take(SMALL_ROLES)
            .cloned()
            .collect();
        if small.len() < SMALL_ROLES {
            return Ok(());
        }
        let mut entries = BTreeMap::new();
        for role in &small {
            if let Some(targets) = self.targets.remove(role) {
                entries.extend(targets.into_owned().targets);
            }
        }
        if let Some(delegations) =
            self.targets.get_mut(&history).and_then(|it| it.to_mut().delegations.as_mut())
            && let DelegatedTo::Roles(roles) = &mut delegations.to
        {
            roles.retain(|by| !small.contains(&by.role));
        }
        self.add_closed(entries)
    }
}

/// Whether a closed role was never made of others, or lost most of what it listed.
fn is_small(targets: &Targets) -> bool {
    let mut left = 2 * CLOSED;
    let mut sizes = targets.targets.iter().map(|(name, file)| size(name, file));
    sizes.all(|size| {
        left = left.saturating_sub(size);
        left > 0
    })
}

/// Bytes of an entry in the metadata, but for some that all have.
fn size(name: &str, file: &TargetFile) -> usize {
    let custom = file.custom.as_ref().map_or(0, |custom| custom.to_bytes().len());
    name.len() + custom + 140
}
