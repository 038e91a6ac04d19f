//! The tables, step by step: a database of any earlier version is brought up to date when it is opened.
//!
//! A step is never changed once a server with it was released: a new one follows.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreFailure;

/// Each step, from nothing on. `PRAGMA user_version` counts those that were done.
pub(super) const STEPS: &[&str] = &[
    // 1: nodes and their last reports.
    "CREATE TABLE nodes (
        node BLOB PRIMARY KEY NOT NULL CHECK (length(node) = 32),
        sequence INTEGER NOT NULL,
        received INTEGER NOT NULL,
        boots TEXT NOT NULL,
        state TEXT NOT NULL,
        release TEXT NOT NULL,
        runs TEXT NOT NULL,
        code TEXT NOT NULL,
        since INTEGER NOT NULL,
        cloned INTEGER,
        document BLOB NOT NULL
    ) STRICT;
    CREATE TABLE approved (
        node BLOB PRIMARY KEY NOT NULL CHECK (length(node) = 32),
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;",
    // 2: what nodes did.
    "CREATE TABLE transitions (
        id INTEGER PRIMARY KEY,
        node BLOB NOT NULL CHECK (length(node) = 32),
        at INTEGER NOT NULL,
        release TEXT NOT NULL,
        state TEXT NOT NULL,
        code TEXT NOT NULL
    ) STRICT;
    CREATE INDEX transitions_of_nodes ON transitions (node, id);
    INSERT INTO transitions (node, at, release, state, code)
        SELECT node, since, release, state, code FROM nodes;",
    // 3: who may restart. A team is a group of the protocol, which is a word of SQL.
    "CREATE TABLE locks (
        team TEXT NOT NULL,
        client TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER NOT NULL,
        PRIMARY KEY (team, client)
    ) STRICT, WITHOUT ROWID;",
    // 4: what changed, for those who keep all nodes in memory. Each transaction that writes has a number.
    "ALTER TABLE nodes ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX nodes_by_change ON nodes (changed);
    ALTER TABLE approved ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE gone (
        node BLOB PRIMARY KEY NOT NULL CHECK (length(node) = 32),
        changed INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX gone_by_change ON gone (changed);
    CREATE TABLE clock (changes INTEGER NOT NULL, forgotten INTEGER NOT NULL) STRICT;
    INSERT INTO clock (changes, forgotten) VALUES (0, -1);",
];

const VERSION: &str = "PRAGMA user_version";

/// Brings a database up to date; each step happens as a whole, whatever ends this process.
pub(super) fn migrate(database: &mut Connection) -> Result<(), StoreFailure> {
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    // Who only reads waits for nobody who writes.
    let found = |database: &Connection| database.query_row(VERSION, (), |row| row.get::<_, i64>(0));
    if found(database)? == known {
        return Ok(());
    }
    loop {
        let step = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been faster.
        let found = found(&step)?;
        if found > known {
            return Err(StoreFailure::Newer { found, known });
        }
        let Some(next) = usize::try_from(found).ok().and_then(|done| STEPS.get(done)) else {
            return Ok(());
        };
        step.execute_batch(next)?;
        step.pragma_update(None, "user_version", found + 1)?;
        step.commit()?;
    }
}
