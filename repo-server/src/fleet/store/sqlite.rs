//! SQLite: one file in a directory of its own, with a write-ahead log that is synced at each commit.
//!
//! Several processes may have it open: the server, and `repo-server fleet`.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use formats::digest::Sha256;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{
    ALL, Change, FleetStore, GONE, Kept, NodeRow, StoreFailure, Transition, Waiting, boots_of,
    integer, natural, schema, text_of, told_from,
};
use crate::fleet::approved::Approved;
use crate::fleet::judge::Known;
use crate::fleet::lock::{ClientId, Group, Holder};
use crate::fleet::state::{Doing, State};

/// The file.
const FILE: &str = "fleet.sqlite3";
/// How long one waits for another process: transactions take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

impl From<rusqlite::Error> for StoreFailure {
    fn from(error: rusqlite::Error) -> Self {
        StoreFailure::Database(formats::error_chain(&error))
    }
}

/// A connection to the database.
pub(super) struct Sqlite {
    database: Connection,
    /// The number of this transaction, once it wrote something.
    number: Cell<Option<i64>>,
}

impl Sqlite {
    /// Opens the database of a directory; makes both where they are missing.
    pub(super) fn open(dir: &Path) -> Result<Self, StoreFailure> {
        let made =
            |error: io::Error| StoreFailure::Database(format!("make the directory: {error}"));
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(made(error)),
            _ => {}
        }
        if !fs::metadata(dir).map_err(made)?.is_dir() {
            return Err(StoreFailure::Database("is no directory".to_owned()));
        }
        let database = Connection::open(dir.join(FILE))?;
        database.busy_timeout(PATIENCE)?;
        Self::over(database)
    }

    /// Sets a database up.
    pub(super) fn over(mut database: Connection) -> Result<Self, StoreFailure> {
        // The answer is the mode that counts now; a database in memory keeps its own.
        let _: String = database.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0))?;
        // FULL syncs the log at each commit: with NORMAL, a power cut takes what was acknowledged.
        database.pragma_update(None, "synchronous", "FULL")?;
        database.pragma_update(None, "trusted_schema", false)?;
        schema::migrate(&mut database)?;
        database.set_prepared_statement_cache_capacity(32);
        Ok(Sqlite { database, number: Cell::new(None) })
    }
}

impl Sqlite {
    /// The number of the transaction that writes now.
    fn number(&self) -> Result<i64, StoreFailure> {
        if let Some(number) = self.number.get() {
            return Ok(number);
        }
        let sql = "UPDATE clock SET changes = changes + 1 RETURNING changes";
        let number = self.database.prepare_cached(sql)?.query_row((), |row| row.get(0))?;
        if !self.database.is_autocommit() {
            self.number.set(Some(number));
        }
        Ok(number)
    }

    /// One report.
    fn keep_one(&self, kept: &Kept<'_>) -> Result<(), StoreFailure> {
        let Kept { report, changed, .. } = kept;
        let node = &report.report().node.0[..];
        let Known { sequence, received, boots, doing, since, cloned } = &kept.known;
        let sql = format!(
            "INSERT OR REPLACE INTO nodes (node, {KNOWN}, document, changed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
        );
        let number = self.number()?;
        self.database.prepare_cached("DELETE FROM gone WHERE node = ?1")?.execute([node])?;
        self.database.prepare_cached(&sql)?.execute(params![
            node,
            integer(*sequence),
            integer(*received),
            text_of(boots),
            doing.state.word(),
            doing.release,
            doing.runs,
            doing.code,
            integer(*since),
            cloned.map(integer),
            report.document(),
            number,
        ])?;
        if *changed {
            let sql = "INSERT INTO transitions (node, at, release, state, code)
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let state = doing.state.word();
            self.database.prepare_cached(sql)?.execute(params![
                node,
                integer(*received),
                doing.release,
                state,
                doing.code
            ])?;
        }
        Ok(())
    }

    /// Remembers the last of those that were forgotten.
    fn bound_gone(&self) -> Result<(), StoreFailure> {
        let sql = "SELECT changed FROM gone ORDER BY changed DESC LIMIT 1 OFFSET ?1";
        let oldest: Option<i64> =
            self.database.prepare_cached(sql)?.query_row([GONE], |row| row.get(0)).optional()?;
        if let Some(oldest) = oldest {
            self.database.execute("DELETE FROM gone WHERE changed <= ?1", [oldest])?;
            self.database.execute("UPDATE clock SET forgotten = ?1", [oldest])?;
        }
        Ok(())
    }
}

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(natural(row.get(at)?))
}

const KNOWN: &str = "sequence, received, boots, state, release, runs, code, since, cloned";

/// The columns [`KNOWN`], from `at` on.
fn known(row: &Row<'_>, at: usize) -> rusqlite::Result<Known> {
    let boots: String = row.get(at + 2)?;
    let state: String = row.get(at + 3)?;
    let cloned: Option<i64> = row.get(at + 8)?;
    Ok(Known {
        sequence: number(row, at)?,
        received: number(row, at + 1)?,
        boots: boots_of(&boots),
        doing: Doing {
            state: State::of_word(&state).unwrap_or_default(),
            release: row.get(at + 4)?,
            runs: row.get(at + 5)?,
            code: row.get(at + 6)?,
        },
        since: number(row, at + 7)?,
        cloned: cloned.map(natural),
    })
}

fn node_row(row: &Row<'_>) -> rusqlite::Result<NodeRow> {
    let node = Sha256(row.get(0)?);
    Ok(NodeRow { node, known: known(row, 1)?, document: row.get(10)? })
}

/// The columns team, client, since, until. What is written here was parsed before.
fn lock_row(row: &Row<'_>) -> rusqlite::Result<(Group, Holder)> {
    let foreign = |at, why: String| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, why.into())
    };
    let (group, client): (String, String) = (row.get(0)?, row.get(1)?);
    let group = Group::parse(&group).map_err(|why| foreign(0, why))?;
    let client = ClientId::parse(&client).map_err(|why| foreign(1, why))?;
    Ok((group, Holder { client, since: number(row, 2)?, until: number(row, 3)? }))
}

impl FleetStore for Sqlite {
    fn begin(&mut self) -> Result<(), StoreFailure> {
        self.number.set(None);
        Ok(self.database.execute_batch("BEGIN IMMEDIATE")?)
    }

    fn commit(&mut self) -> Result<(), StoreFailure> {
        self.number.set(None);
        self.database.execute_batch("COMMIT").map_err(|error| {
            self.rollback();
            error.into()
        })
    }

    fn rollback(&mut self) {
        self.number.set(None);
        if !self.database.is_autocommit()
            && let Err(error) = self.database.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "fleet: give a transaction up");
        }
    }

    fn known(&self, nodes: &[Sha256]) -> Result<HashMap<Sha256, Known>, StoreFailure> {
        let sql = format!("SELECT {KNOWN} FROM nodes WHERE node = ?1");
        let mut query = self.database.prepare_cached(&sql)?;
        let mut found = HashMap::new();
        for node in nodes {
            let row = query.query_row([&node.0[..]], |row| known(row, 0)).optional()?;
            found.extend(row.map(|known| (*node, known)));
        }
        Ok(found)
    }

    fn keep(&mut self, kept: &[Kept<'_>]) -> Result<(), StoreFailure> {
        kept.iter().try_for_each(|kept| self.keep_one(kept))
    }

    fn forget_transitions(&mut self, before: u64, most: usize) -> Result<(), StoreFailure> {
        let (before, most) = (integer(before), i64::try_from(most).unwrap_or(i64::MAX));
        self.database.execute("DELETE FROM transitions WHERE at < ?1", [before])?;
        let crowded = "DELETE FROM transitions WHERE id IN (
            SELECT id FROM (
                SELECT id, row_number() OVER (PARTITION BY node ORDER BY id DESC) AS nth
                FROM transitions)
            WHERE nth > ?1)";
        self.database.execute(crowded, [most])?;
        Ok(())
    }

    fn forget_waiting(&mut self, listed: &Approved, most: usize) -> Result<Waiting, StoreFailure> {
        let waiting: Vec<[u8; 32]> = {
            let sql = "SELECT node FROM nodes WHERE node NOT IN (SELECT node FROM approved)
                       ORDER BY received DESC, node";
            let mut query = self.database.prepare_cached(sql)?;
            let rows = query.query_map((), |row| row.get(0))?;
            rows.filter(|row| !matches!(row, Ok(node) if listed.contains(&Sha256(*node))))
                .collect::<Result<_, _>>()?
        };
        let gone = waiting.get(most..).unwrap_or_default();
        for node in gone {
            self.database.execute("DELETE FROM transitions WHERE node = ?1", [&node[..]])?;
            self.database.execute("DELETE FROM nodes WHERE node = ?1", [&node[..]])?;
            let sql = "INSERT OR REPLACE INTO gone (node, changed) VALUES (?1, ?2)";
            self.database.execute(sql, params![&node[..], self.number()?])?;
        }
        if !gone.is_empty() {
            self.bound_gone()?;
        }
        Ok(Waiting::of(waiting.len(), gone.len()))
    }

    fn node(&self, node: &Sha256) -> Result<Option<NodeRow>, StoreFailure> {
        let sql = format!("SELECT node, {KNOWN}, document FROM nodes WHERE node = ?1");
        let mut query = self.database.prepare_cached(&sql)?;
        Ok(query.query_row([&node.0[..]], node_row).optional()?)
    }

    fn changes(
        &self,
        since: Option<u64>,
        tell: &mut dyn FnMut(Change),
    ) -> Result<u64, StoreFailure> {
        let sql = "SELECT changes, forgotten FROM clock";
        let mut query = self.database.prepare_cached(sql)?;
        let (now, forgotten): (i64, i64) =
            query.query_row((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some(since) = told_from(since, now, forgotten) else { return Ok(natural(now)) };
        if since == ALL {
            tell(Change::Reset);
        }
        let sql = format!("SELECT node, {KNOWN}, document FROM nodes WHERE changed > ?1");
        let mut query = self.database.prepare_cached(&sql)?;
        for row in query.query_map([since], node_row)? {
            tell(Change::Kept(row?));
        }
        let mut nodes = |sql: &str, change: fn(Sha256) -> Change| {
            let mut query = self.database.prepare_cached(sql)?;
            for node in query.query_map([since], |row| row.get(0))? {
                tell(change(Sha256(node?)));
            }
            Ok::<(), StoreFailure>(())
        };
        nodes("SELECT node FROM gone WHERE changed > ?1", Change::Gone)?;
        nodes("SELECT node FROM approved WHERE changed > ?1", Change::Approved)?;
        Ok(natural(now))
    }

    fn transitions(&self, node: &Sha256, most: usize) -> Result<Vec<Transition>, StoreFailure> {
        let sql = "SELECT at, release, state, code FROM transitions WHERE node = ?1
                   ORDER BY id DESC LIMIT ?2";
        let mut query = self.database.prepare_cached(sql)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = query.query_map(params![&node.0[..], most], |row| {
            Ok(Transition {
                at: number(row, 0)?,
                release: row.get(1)?,
                state: row.get(2)?,
                code: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn approve(&mut self, nodes: &[Sha256], now: u64) -> Result<usize, StoreFailure> {
        self.begin()?;
        let added = self.number().and_then(|number| {
            let sql = "INSERT OR IGNORE INTO approved (node, at, changed) VALUES (?1, ?2, ?3)";
            let mut added = 0;
            for node in nodes {
                added += self.database.execute(sql, params![&node.0[..], integer(now), number])?;
            }
            Ok(added)
        });
        match added {
            Ok(added) => self.commit().map(|()| added),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    fn holders(&self, group: &Group) -> Result<Vec<Holder>, StoreFailure> {
        let sql = "SELECT team, client, since, until FROM locks WHERE team = ?1
                   ORDER BY since, client";
        let mut query = self.database.prepare_cached(sql)?;
        let rows = query.query_map([group.as_str()], lock_row)?;
        Ok(rows.map(|row| row.map(|(_, holder)| holder)).collect::<Result<_, _>>()?)
    }

    fn hold(&mut self, group: &Group, holders: &[Holder]) -> Result<(), StoreFailure> {
        self.database
            .prepare_cached("DELETE FROM locks WHERE team = ?1")?
            .execute([group.as_str()])?;
        let sql = "INSERT INTO locks (team, client, since, until) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = self.database.prepare_cached(sql)?;
        for Holder { client, since, until } in holders {
            let (since, until) = (integer(*since), integer(*until));
            insert.execute(params![group.as_str(), client.as_str(), since, until])?;
        }
        Ok(())
    }

    fn locks(&self) -> Result<Vec<(Group, Holder)>, StoreFailure> {
        let sql = "SELECT team, client, since, until FROM locks ORDER BY team, since, client";
        let mut query = self.database.prepare_cached(sql)?;
        let rows = query.query_map((), lock_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
