//! All nodes in memory, brought up to date by what changed in the database since.
//!
//! A page adds up all nodes, and there may be a hundred thousand: reading their reports each time takes seconds. What
//! other processes and other servers wrote is found like what this one wrote.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use formats::digest::Sha256;

use super::approved::Approved;
use super::brief::{Brief, Texts};
use super::store::{Change, FleetStore, StoreFailure};

/// The nodes that a database knows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    nodes: HashMap<Sha256, Arc<Brief>>,
    by_name: BTreeSet<ByName>,
    approved: HashSet<Sha256>,
    texts: Texts,
    /// How far the changes go that it knows.
    known: Option<u64>,
}

impl Table {
    /// After these changes.
    #[cfg(test)]
    pub(crate) fn after(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut table = Table::default();
        changes.into_iter().for_each(|change| table.apply(change));
        table
    }

    /// Takes over what changed since the last time, or everything the first time. After an error it is asked for again.
    pub(crate) fn update(&mut self, store: &dyn FleetStore) -> Result<(), StoreFailure> {
        let known = store.changes(self.known, &mut |change| self.apply(change))?;
        self.known = Some(known);
        Ok(())
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Reset => {
                let texts = std::mem::take(&mut self.texts);
                *self = Table { texts, ..Table::default() };
            }
            Change::Kept(row) => {
                let brief = Arc::new(Brief::of(&row, &mut self.texts));
                if let Some(before) = self.nodes.insert(row.node, Arc::clone(&brief)) {
                    self.by_name.remove(&ByName(before));
                }
                self.by_name.insert(ByName(brief));
            }
            Change::Gone(node) => {
                if let Some(before) = self.nodes.remove(&node) {
                    self.by_name.remove(&ByName(before));
                }
            }
            Change::Approved(node) => {
                self.approved.insert(node);
            }
        }
    }

    /// All nodes by name, each with whether an operator approved it: by hand, or in the file.
    pub(crate) fn nodes<'a>(
        &'a self,
        listed: &'a Approved,
    ) -> impl Iterator<Item = (&'a Arc<Brief>, bool)> {
        let approved = |node: &Sha256| self.is_approved(node, listed);
        self.by_name.iter().map(move |ByName(brief)| (brief, approved(&brief.node)))
    }

    /// Whether an operator approved a node.
    pub(crate) fn is_approved(&self, node: &Sha256, listed: &Approved) -> bool {
        self.approved.contains(node) || listed.contains(node)
    }
}

/// In the order of names.
#[derive(Debug)]
struct ByName(Arc<Brief>);

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.0.name, self.0.node).cmp(&(&other.0.name, other.0.node))
    }
}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ByName {}
