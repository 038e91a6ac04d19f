//! Where reports are kept: a trait, and SQLite and PostgreSQL behind it.

pub(super) mod place;
mod postgres;
mod schema;
mod schema_postgres;
mod sqlite;

use std::collections::HashMap;

use formats::digest::Sha256;
use formats::report::SignedReport;

use self::place::FleetPlace;
use super::approved::Approved;
use super::judge::Known;
use super::lock::{Group, Holder};
use crate::error::ServerError;

/// Why the database did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreFailure {
    /// It cannot be read or written.
    #[error("{0}")]
    Database(String),
    /// A file that the connection needs cannot be read, or may not be believed.
    #[error("{}", formats::error_chain(.0))]
    File(Box<ServerError>),
    /// A newer server wrote it.
    #[error("was written by a newer version (schema {found}, this version knows {known})")]
    Newer {
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
}

impl StoreFailure {
    /// The same for the operator.
    pub(crate) fn of(self, place: &FleetPlace) -> ServerError {
        match self {
            StoreFailure::File(error) => *error,
            failure => ServerError::Fleet { place: place.to_string(), why: failure.to_string() },
        }
    }
}

impl From<ServerError> for StoreFailure {
    fn from(error: ServerError) -> Self {
        StoreFailure::File(Box::new(error))
    }
}

/// A node, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeRow {
    pub(crate) node: Sha256,
    pub(crate) known: Known,
    /// The last report, as it came. It was verified before it was kept.
    pub(crate) document: Vec<u8>,
}

/// A report that is to be kept.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    pub(crate) report: &'a SignedReport,
    /// What is known of the node by it.
    pub(crate) known: Known,
    /// Whether the node does something else now.
    pub(crate) changed: bool,
}

impl Kept<'_> {
    fn node(&self) -> Sha256 {
        self.report.report().node
    }
}

/// A change of what a node was doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    /// By the clock of the server.
    pub(crate) at: u64,
    pub(crate) release: String,
    /// A word of [`State`](super::state::State); another one is of a newer server.
    pub(crate) state: String,
    pub(crate) code: String,
}

/// What a database knows now that it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Everything that was told before counts no more: it is told anew.
    Reset,
    /// A report was kept.
    Kept(NodeRow),
    /// A node was forgotten.
    Gone(Sha256),
    /// An operator approved a node, which need not have reported.
    Approved(Sha256),
}

/// Nodes that nobody approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Waiting {
    /// Those that were too many.
    pub(crate) forgotten: usize,
    /// Those that are there still.
    pub(crate) left: usize,
}

impl Waiting {
    /// So many, of which so many are forgotten.
    fn of(all: usize, forgotten: usize) -> Self {
        Waiting { forgotten, left: all - forgotten }
    }
}

/// Forgotten nodes that are remembered as such, for those who read what changed. Who knows less is told everything.
const GONE: i64 = 10_000;

/// Below the number of every change.
const ALL: i64 = -1;

/// After which number changes are told to a reader that knows those up to `since`, where `now` is the last, and what
/// was forgotten is remembered after `forgotten` only. `None`: nothing changed. [`ALL`]: everything is told anew.
fn told_from(since: Option<u64>, now: i64, forgotten: i64) -> Option<i64> {
    let known = since.map_or(ALL, integer);
    // A higher number is of a database that was put back from a backup.
    let told = if known < forgotten || known > now { ALL } else { known };
    (known != now).then_some(told)
}

/// Rows of nodes. What is done between [`FleetStore::begin`] and [`FleetStore::commit`] is durable
/// together, or not at all: also when this process is killed or the power fails at any moment.
pub(crate) trait FleetStore: Send {
    /// Begins a transaction. Others wait for it, for a few seconds.
    fn begin(&mut self) -> Result<(), StoreFailure>;

    /// Makes it durable. On an error nothing of it happened.
    fn commit(&mut self) -> Result<(), StoreFailure>;

    /// Gives it up.
    fn rollback(&mut self);

    /// What is known of those of these nodes that were seen before.
    fn known(&self, nodes: &[Sha256]) -> Result<HashMap<Sha256, Known>, StoreFailure>;

    /// Keeps reports, each in the place of the one of its node before.
    fn keep(&mut self, kept: &[Kept<'_>]) -> Result<(), StoreFailure>;

    /// Forgets transitions that are older than `before` or beyond `most` of a node.
    fn forget_transitions(&mut self, before: u64, most: usize) -> Result<(), StoreFailure>;

    /// Forgets nodes that nobody approved, neither here nor in the operator's file, those that were silent for longest,
    /// until `most` are left. Looks at all nodes.
    fn forget_waiting(&mut self, listed: &Approved, most: usize) -> Result<Waiting, StoreFailure>;

    /// One node.
    fn node(&self, node: &Sha256) -> Result<Option<NodeRow>, StoreFailure>;

    /// Tells of everything that changed after `since`, which an earlier call gave, or of all that there is; in no order
    /// but that what is told last of a node counts. Returns how far that goes. What is committed meanwhile may be told, and
    /// is told again the next time.
    fn changes(
        &self,
        since: Option<u64>,
        tell: &mut dyn FnMut(Change),
    ) -> Result<u64, StoreFailure>;

    /// The last transitions of a node, the newest first.
    fn transitions(&self, node: &Sha256, most: usize) -> Result<Vec<Transition>, StoreFailure>;

    /// Approves nodes, which need not have reported; how many were not approved before.
    fn approve(&mut self, nodes: &[Sha256], now: u64) -> Result<usize, StoreFailure>;

    /// Who holds a restart lock of a group, in the order in which they came; also those whose lock has ended.
    fn holders(&self, group: &Group) -> Result<Vec<Holder>, StoreFailure>;

    /// Puts these in their place.
    fn hold(&mut self, group: &Group, holders: &[Holder]) -> Result<(), StoreFailure>;

    /// All of all groups, by group.
    fn locks(&self) -> Result<Vec<(Group, Holder)>, StoreFailure>;
}

/// Numbers are at most 2^63-1 in reports and in both databases.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number that [`integer`] gave.
fn natural(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Ids of boots as one text. None has a line end: `shown` takes them out of what is no id.
fn text_of(boots: &[String]) -> String {
    let shown = |boot: &String| formats::report::shown(boot, usize::MAX);
    boots.iter().map(shown).collect::<Vec<_>>().join("\n")
}

/// The ids in such a text.
fn boots_of(text: &str) -> Vec<String> {
    text.split('\n').filter(|boot| !boot.is_empty()).map(str::to_owned).collect()
}

/// The database there; what is missing in it is made, and a directory for it, too.
pub(crate) fn open(place: &FleetPlace) -> Result<Box<dyn FleetStore>, StoreFailure> {
    Ok(match place {
        FleetPlace::Directory(dir) => Box::new(sqlite::Sqlite::open(dir)?),
        FleetPlace::Postgres(place) => Box::new(postgres::Postgres::open(place)?),
    })
}

#[cfg(test)]
impl dyn FleetStore + '_ {
    /// All nodes, by name.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeRow>, StoreFailure> {
        let mut rows = std::collections::BTreeMap::new();
        self.changes(None, &mut |change| {
            if let Change::Kept(row) = change {
                rows.insert(row.node, row);
            }
        })?;
        Ok(rows.into_values().collect())
    }

    /// The nodes that an operator approved by hand.
    pub(crate) fn approved(&self) -> Result<std::collections::HashSet<Sha256>, StoreFailure> {
        let mut nodes = std::collections::HashSet::new();
        self.changes(None, &mut |change| {
            if let Change::Approved(node) = change {
                nodes.insert(node);
            }
        })?;
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests;
