//! The fleet: reports that nodes send of themselves, kept and shown, and the lock that nodes ask for before they
//! restart. Nothing here orders anything.
//!
//! ```text
//!  PUT document ─► SignedReport::verify ─► judge (pure) ─┐
//!                                                        ├─ one transaction for all that wait ─► SQLite ─► answers
//!  PUT document ─► …                        ─► judge     ┘
//!  POST /v1/… ─► lock::parse ─► lock::step (pure) ─► one transaction ─► SQLite ─► answers
//!  GET /fleet/… ─► what changed ─► Table ─► Overview (pure) ─► view: HTML, JSON, sums in the metrics
//! ```
//!
//! | module | does | I/O |
//! |---|---|---|
//! | `judge` | is a report newer, is its node cloned, what changed | no |
//! | `state` | what a node is doing, and of which release, by its own words and by how long it is silent | no |
//! | `brief` | what is kept in memory of a node | no |
//! | `table` | all nodes in memory, brought up to date by what changed | through `store` |
//! | `overview` | the sums of all nodes | no |
//! | `lock` | who may restart now: the FleetLock protocol | no |
//! | `session` | browsers that are logged in | no |
//! | `signed` | what maintainers signed that a page shows | no |
//! | `store` | rows: a trait, and SQLite and PostgreSQL behind it | yes |
//! | `committer` | a thread that makes reports durable, many at once | through `store` |
//! | `approved` | the file of approved nodes | reads it |
//! | `view` | pages and their JSON | no |
//!
//! Acknowledged is durable: an answer leaves after the transaction is synced. A server that was put back
//! from a backup heals by itself: reports of nodes are ahead of what it knows, which is what newer means.

mod approved;
pub(crate) mod brief;
mod committer;
mod judge;
pub(crate) mod lock;
mod overview;
pub(crate) mod session;
mod signed;
mod state;
mod store;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod view;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use formats::digest::{Digest, Sha256};
use formats::report::{Report, SignedReport};
use signer::state::State as TufState;

use self::brief::{Brief, Texts};
use self::lock::{Answer, ClientId, Group, Holder, Request, Rules};

pub(crate) use self::approved::Approved;
pub(crate) use self::committer::{Committer, Unkept};
pub(crate) use self::judge::Verdict;
pub(crate) use self::overview::{Overview, Seen};
pub(crate) use self::signed::Signed;
use self::store::NodeRow;
pub use self::store::place::{FleetPlace, PostgresPlace};
pub(crate) use self::store::{FleetStore, StoreFailure, Transition, open};
use self::table::Table;

use crate::error::ServerError;
use crate::lock::{LockMutex as _, LockRw as _};

/// What the operator says of the fleet.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The database. A directory is not in the repository: that is an image layout.
    pub place: FleetPlace,
    /// Nodes that are approved, beside those of `repo-server fleet approve`.
    pub approved: Option<PathBuf>,
    /// How long transitions are kept.
    pub retention: Duration,
    /// Nodes that wait for approval, at most; of more, the one that was silent for longest is forgotten.
    pub waiting: usize,
    /// How many nodes of which group may restart at once; without a group there is no restart lock.
    pub groups: Vec<(String, usize)>,
    /// How long a restart lock lasts that nobody releases.
    pub lock_age: Duration,
}

/// 90 days.
pub(crate) const RETENTION: Duration = Duration::from_secs(90 * 86_400);
/// A rack hall of new nodes; 5 MB of reports that anybody with a pull credential can make us keep.
pub(crate) const WAITING: usize = 1000;
/// Transitions of one node that are kept, however often it changes.
pub(crate) const TRANSITIONS: usize = 64;

impl FleetConfig {
    /// The defaults, with a database in that place.
    pub fn new(place: impl Into<FleetPlace>) -> Self {
        FleetConfig {
            place: place.into(),
            approved: None,
            retention: RETENTION,
            waiting: WAITING,
            groups: Vec::new(),
            lock_age: Duration::from_secs(lock::AGE),
        }
    }
}

/// The fleet of a running server.
pub(crate) struct Fleet {
    config: FleetConfig,
    committer: Committer,
    approved: Arc<RwLock<Arc<Approved>>>,
    rules: Arc<Rules>,
    /// Of the state with that manifest: verifying it takes longer than a page may.
    signed: Mutex<Option<(Digest, Arc<Signed>)>>,
    pages: Mutex<Pages>,
}

/// What pages are made of: a connection of their own, opened when it is needed, and all nodes.
#[derive(Default)]
struct Pages {
    store: Option<Box<dyn FleetStore>>,
    table: Table,
}

/// A node, with all that it said last.
pub(crate) struct Detail {
    pub(crate) seen: Seen,
    pub(crate) report: Report,
    /// The report as it came.
    pub(crate) document: Vec<u8>,
}

impl Detail {
    fn of(row: NodeRow, approved: bool, now: u64) -> Self {
        let seen = Seen::of(Arc::new(Brief::of(&row, &mut Texts::default())), approved, now);
        let report = Report::of_document(&row.document).unwrap_or_default();
        Detail { seen, report, document: row.document }
    }

    /// Where it says what this version does not know.
    pub(crate) fn unread(&self) -> Vec<String> {
        self.report.unread_of(&self.document)
    }
}

/// A group, and who of it may restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupLocks {
    pub(crate) group: Group,
    /// How many may at once; absent for a group that is configured no more.
    pub(crate) budget: Option<usize>,
    /// In the order in which they came; those whose lock has ended are left out.
    pub(crate) holders: Vec<Holder>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fleet in {}", self.config.place)
    }
}

impl Fleet {
    /// Opens the database, making it when there is none. Blocks.
    pub(crate) fn open(config: &FleetConfig) -> Result<Self, ServerError> {
        let rules = Rules::new(&config.groups, config.lock_age.as_secs());
        let rules = Arc::new(rules.map_err(ServerError::Config)?);
        let approved = Approved::read(config.approved.as_deref())?;
        let store = open(&config.place).map_err(|error| error.of(&config.place))?;
        let approved = Arc::new(RwLock::new(Arc::new(approved)));
        let committer = Committer::start(store, config, Arc::clone(&rules), Arc::clone(&approved))
            .map_err(ServerError::io("start a thread of", "this process"))?;
        let (signed, pages) = Default::default();
        Ok(Fleet { config: config.clone(), committer, approved, rules, signed, pages })
    }

    /// Reads the file of approved nodes again.
    pub(crate) fn reload(&self) -> Result<(), ServerError> {
        let approved = Approved::read(self.config.approved.as_deref())?;
        *self.approved.write_locked() = Arc::new(approved);
        Ok(())
    }

    /// Keeps a report. When this returns, it is durable.
    pub(crate) async fn keep(&self, report: SignedReport) -> Result<Verdict, Unkept> {
        self.committer.keep(report, unix_now()).await
    }

    /// Answers a request for a restart lock. When this returns, the lock is durable.
    pub(crate) async fn lock(&self, request: Request) -> Result<Answer, Unkept> {
        self.committer.lock(request, unix_now()).await
    }

    /// Who may restart, by group. Blocks.
    pub(crate) fn locks(&self) -> Result<Vec<GroupLocks>, StoreFailure> {
        let held = self.read(|store, _| store.locks())?;
        Ok(locks_of(held, self.rules.groups(), unix_now()))
    }

    /// Reads for a page, with all nodes as they are now. Pages wait for each other; a connection that failed is opened
    /// again for the next one.
    fn read<T>(
        &self,
        read: impl FnOnce(&dyn FleetStore, &Table) -> Result<T, StoreFailure>,
    ) -> Result<T, StoreFailure> {
        let Pages { store, table } = &mut *self.pages.locked();
        let open = match store.take() {
            Some(open) => open,
            None => {
                // What is there may be another database by now, such as one that was put back from a backup.
                *table = Table::default();
                open(&self.config.place)?
            }
        };
        table.update(open.as_ref())?;
        let found = read(open.as_ref(), table)?;
        *store = Some(open);
        Ok(found)
    }

    /// All nodes. Blocks.
    pub(crate) fn overview(&self) -> Result<Overview, StoreFailure> {
        let approved = Arc::clone(&self.approved.read_locked());
        self.read(|_, table| Ok(Overview::of(table, &approved, unix_now())))
    }

    /// What the state with that manifest says; `load` is asked when it is another one than before.
    pub(crate) fn signed(
        &self,
        manifest: &Digest,
        load: impl FnOnce() -> Option<TufState>,
    ) -> Option<Arc<Signed>> {
        let mut known = self.signed.locked();
        if let Some((_, signed)) = known.as_ref().filter(|(of, _)| of == manifest) {
            return Some(Arc::clone(signed));
        }
        let signed = Arc::new(Signed::of(&load()?));
        *known = Some((manifest.clone(), Arc::clone(&signed)));
        Some(signed)
    }

    /// One node, with its last transitions, the newest first. Blocks.
    pub(crate) fn node(
        &self,
        node: &Sha256,
    ) -> Result<Option<(Detail, Vec<Transition>)>, StoreFailure> {
        let approved = Arc::clone(&self.approved.read_locked());
        self.read(|store, table| {
            let Some(row) = store.node(node)? else { return Ok(None) };
            let transitions = store.transitions(node, TRANSITIONS)?;
            let is_approved = table.is_approved(node, &approved);
            Ok(Some((Detail::of(row, is_approved, unix_now()), transitions)))
        })
    }
}

/// What `repo-server fleet` does with a database, also while a server runs.
pub(crate) struct Database {
    store: Box<dyn FleetStore>,
    place: FleetPlace,
}

impl Database {
    /// Opens it, making it when there is none.
    pub(crate) fn open(place: &FleetPlace) -> Result<Self, ServerError> {
        let store = open(place).map_err(|error| error.of(place))?;
        Ok(Database { store, place: place.clone() })
    }

    /// Approves nodes; those that were not before.
    pub(crate) fn approve(&mut self, nodes: &[Sha256]) -> Result<usize, ServerError> {
        self.store.approve(nodes, unix_now()).map_err(|error| error.of(&self.place))
    }

    /// Nodes whose names begin so.
    pub(crate) fn beginning(&self, hex: &str) -> Result<Vec<Sha256>, ServerError> {
        let table = self.table()?;
        let nobody = Approved::default();
        let nodes = table.nodes(&nobody).map(|(brief, _)| brief.node);
        Ok(nodes.filter(|node| node.to_hex().starts_with(hex)).collect())
    }

    /// Keeps reports that came as files, all of them or none.
    pub(crate) fn import(
        &mut self,
        reports: &[SignedReport],
        listed: &Approved,
        waiting: usize,
    ) -> Result<Vec<Verdict>, ServerError> {
        let now = unix_now();
        committer::commit(self.store.as_mut(), reports, now, listed, waiting)
            .map_err(|error| error.of(&self.place))
    }

    /// Who may restart, by group.
    pub(crate) fn locks(&self) -> Result<Vec<GroupLocks>, ServerError> {
        let held = self.store.locks().map_err(|error| error.of(&self.place))?;
        Ok(locks_of(held, std::iter::empty(), unix_now()))
    }

    /// Ends locks of a node that does not release them itself; the groups of those that it held.
    pub(crate) fn release(&mut self, client: &ClientId) -> Result<Vec<Group>, ServerError> {
        committer::release(self.store.as_mut(), client, unix_now())
            .map_err(|error| error.of(&self.place))
    }

    /// All nodes.
    pub(crate) fn overview(&self, approved: &Approved) -> Result<Overview, ServerError> {
        Ok(Overview::of(&self.table()?, approved, unix_now()))
    }

    fn table(&self) -> Result<Table, ServerError> {
        let mut table = Table::default();
        table.update(self.store.as_ref()).map_err(|error| error.of(&self.place))?;
        Ok(table)
    }
}

/// Locks by group: the configured ones, and those of which somebody still holds one.
fn locks_of<'a>(
    held: Vec<(Group, Holder)>,
    groups: impl Iterator<Item = (&'a Group, usize)>,
    now: u64,
) -> Vec<GroupLocks> {
    let empty = |(group, budget): (&Group, usize)| GroupLocks {
        group: group.clone(),
        budget: Some(budget),
        holders: Vec::new(),
    };
    let mut found: Vec<GroupLocks> = groups.map(empty).collect();
    for (group, holder) in held.into_iter().filter(|(_, holder)| holder.until > now) {
        match found.iter_mut().find(|it| it.group == group) {
            Some(it) => it.holders.push(holder),
            None => found.push(GroupLocks { group, budget: None, holders: vec![holder] }),
        }
    }
    found
}

/// Unix seconds by the clock of this server.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
