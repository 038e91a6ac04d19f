//! The tables in PostgreSQL, step by step, as `schema` has them for SQLite.
//!
//! A step is never changed once a server with it was released: a new one follows.

use postgres::Client;

use super::StoreFailure;

/// Each step, from nothing on. The table `fleet_schema` counts those that were done.
pub(super) const STEPS: &[&str] = &[
    // 1: nodes, their last reports, what they did, and who was approved.
    "CREATE TABLE nodes (
        node BYTEA PRIMARY KEY CHECK (length(node) = 32),
        sequence BIGINT NOT NULL,
        received BIGINT NOT NULL,
        boots TEXT NOT NULL,
        state TEXT NOT NULL,
        release TEXT NOT NULL,
        runs TEXT NOT NULL,
        code TEXT NOT NULL,
        since BIGINT NOT NULL,
        cloned BIGINT,
        document BYTEA NOT NULL
    );
    CREATE TABLE approved (
        node BYTEA PRIMARY KEY CHECK (length(node) = 32),
        at BIGINT NOT NULL
    );
    CREATE TABLE transitions (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        node BYTEA NOT NULL CHECK (length(node) = 32),
        at BIGINT NOT NULL,
        release TEXT NOT NULL,
        state TEXT NOT NULL,
        code TEXT NOT NULL
    );
    CREATE INDEX transitions_of_nodes ON transitions (node, id)",
    // 2: who may restart.
    "CREATE TABLE locks (
        team TEXT NOT NULL,
        client TEXT NOT NULL,
        since BIGINT NOT NULL,
        until BIGINT NOT NULL,
        PRIMARY KEY (team, client)
    )",
    // 3: what changed, for servers that keep all nodes in memory. Each transaction that writes has a number.
    "ALTER TABLE nodes ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
    CREATE INDEX nodes_by_change ON nodes (changed, node);
    ALTER TABLE approved ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
    CREATE TABLE gone (
        node BYTEA PRIMARY KEY CHECK (length(node) = 32),
        changed BIGINT NOT NULL
    );
    CREATE INDEX gone_by_change ON gone (changed);
    CREATE TABLE clock (changes BIGINT NOT NULL, forgotten BIGINT NOT NULL);
    INSERT INTO clock (changes, forgotten) VALUES (0, -1)",
];

/// Its number: any, as long as it stays. Two servers that start at once wait for each other.
const MIGRATION: i64 = 0x7261_636c;

/// Brings a database up to date: all steps in one transaction, or none of them.
pub(super) fn migrate(client: &mut Client) -> Result<(), StoreFailure> {
    let mut step = client.transaction()?;
    step.batch_execute(&format!("SELECT pg_advisory_xact_lock({MIGRATION})"))?;
    step.batch_execute("CREATE TABLE IF NOT EXISTS fleet_schema (done BIGINT NOT NULL)")?;
    let rows = step.query("SELECT done FROM fleet_schema", &[])?;
    let found: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreFailure::Newer { found, known });
    }
    let missing = STEPS.iter().skip(usize::try_from(found).unwrap_or(0));
    for sql in missing {
        step.batch_execute(sql)?;
    }
    if found < known {
        step.execute("DELETE FROM fleet_schema", &[])?;
        step.execute("INSERT INTO fleet_schema (done) VALUES ($1)", &[&known])?;
    }
    Ok(step.commit()?)
}
