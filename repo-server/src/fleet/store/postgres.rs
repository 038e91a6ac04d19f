//! PostgreSQL: one database for several servers that share a bucket.
//!
//! Whoever writes holds one advisory lock until its transaction ends. So what is judged in a transaction is what is
//! kept by it, whichever server it reached: as with SQLite, whose writers wait for each other.
//!
//! A connection that is lost is opened again for the next transaction. If it is lost during a commit, nobody can say
//! whether that happened: the node that is told of a failure reports again, and is answered with what is kept.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;

use formats::digest::Sha256;
use postgres::types::ToSql;
use postgres::{Client, Row, Statement};

use super::place::PostgresPlace;
use super::{
    ALL, Change, FleetStore, GONE, Kept, NodeRow, StoreFailure, Transition, Waiting, boots_of,
    integer, natural, schema_postgres, text_of, told_from,
};
use crate::fleet::approved::Approved;
use crate::fleet::judge::Known;
use crate::fleet::lock::{ClientId, Group, Holder};
use crate::fleet::state::{Doing, State};

/// The number of the lock of all who write: any, as long as it stays.
const WRITERS: i64 = 0x7261_636b;
/// What holds for a connection: no acknowledgement before the log is on the disk, and no wait for ever.
const SESSION: &str =
    "SET synchronous_commit = on; SET lock_timeout = '10s'; SET statement_timeout = '30s';
    SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = warning";

impl From<postgres::Error> for StoreFailure {
    fn from(error: postgres::Error) -> Self {
        StoreFailure::Database(formats::error_chain(&error))
    }
}

/// A connection to the database, which is opened again when it was lost.
pub(super) struct Postgres {
    place: PostgresPlace,
    session: RefCell<Session>,
    /// Between `begin` and `commit`.
    writes: bool,
    /// The number of this transaction, once it wrote something.
    number: Cell<Option<i64>>,
}

/// A connection, and what was prepared on it.
struct Session {
    client: Client,
    prepared: HashMap<&'static str, Statement>,
}

impl Session {
    fn open(place: &PostgresPlace) -> Result<Self, StoreFailure> {
        let mut client = place.connect()?;
        client.batch_execute(SESSION)?;
        schema_postgres::migrate(&mut client)?;
        Ok(Session { client, prepared: HashMap::new() })
    }

    fn prepare(&mut self, sql: &'static str) -> Result<Statement, StoreFailure> {
        if let Some(known) = self.prepared.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    fn rows(
        &mut self,
        sql: &'static str,
        with: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreFailure> {
        let statement = self.prepare(sql)?;
        Ok(self.client.query(&statement, with)?)
    }

    fn execute(
        &mut self,
        sql: &'static str,
        with: &[&(dyn ToSql + Sync)],
    ) -> Result<usize, StoreFailure> {
        let statement = self.prepare(sql)?;
        Ok(usize::try_from(self.client.execute(&statement, with)?).unwrap_or(usize::MAX))
    }
}

impl Postgres {
    /// Connects, and brings the tables up to date.
    pub(super) fn open(place: &PostgresPlace) -> Result<Self, StoreFailure> {
        let session = RefCell::new(Session::open(place)?);
        Ok(Postgres { place: place.clone(), session, writes: false, number: Cell::new(None) })
    }

    /// The connection: opened again where it was lost, but never within a transaction, which is lost with it.
    fn session(&self) -> Result<RefMut<'_, Session>, StoreFailure> {
        let mut session = self.session.borrow_mut();
        match (session.client.is_closed(), self.writes) {
            (false, _) => {}
            (true, false) => *session = Session::open(&self.place)?,
            (true, true) => {
                return Err(StoreFailure::Database("the connection was lost".to_owned()));
            }
        }
        Ok(session)
    }
}

impl Postgres {
    /// The number of the transaction that writes now.
    fn number(&self) -> Result<i64, StoreFailure> {
        if let Some(number) = self.number.get().filter(|_| self.writes) {
            return Ok(number);
        }
        let sql = "UPDATE clock SET changes = changes + 1 RETURNING changes";
        let rows = self.session()?.rows(sql, &[])?;
        let row = rows.first().ok_or_else(|| StoreFailure::Database("has no clock".to_owned()))?;
        let number = row.try_get(0)?;
        self.number.set(Some(number));
        Ok(number)
    }
}

fn number(row: &Row, at: usize) -> Result<u64, StoreFailure> {
    Ok(natural(row.try_get(at)?))
}

/// A text without the character that PostgreSQL has none of.
fn text(value: &str) -> String {
    value.replace('\0', "\u{fffd}")
}

fn digest(row: &Row, at: usize) -> Result<Sha256, StoreFailure> {
    let bytes: &[u8] = row.try_get(at)?;
    let bytes = bytes.try_into();
    bytes
        .map(Sha256)
        .map_err(|_| StoreFailure::Database("a name of a node has not 32 bytes".to_owned()))
}

macro_rules! known_columns {
    () => {
        "sequence, received, boots, state, release, runs, code, since, cloned"
    };
}

/// The columns of `known_columns!`, from `at` on.
fn known(row: &Row, at: usize) -> Result<Known, StoreFailure> {
    let (boots, state): (&str, &str) = (row.try_get(at + 2)?, row.try_get(at + 3)?);
    let cloned: Option<i64> = row.try_get(at + 8)?;
    Ok(Known {
        sequence: number(row, at)?,
        received: number(row, at + 1)?,
        boots: boots_of(boots),
        doing: Doing {
            state: State::of_word(state).unwrap_or_default(),
            release: row.try_get(at + 4)?,
            runs: row.try_get(at + 5)?,
            code: row.try_get(at + 6)?,
        },
        since: number(row, at + 7)?,
        cloned: cloned.map(natural),
    })
}

/// What is kept of nodes, a column each: one statement takes all of them, and the database is asked once.
#[derive(Default)]
struct Columns<'a> {
    nodes: Vec<Vec<u8>>,
    sequences: Vec<i64>,
    received: Vec<i64>,
    boots: Vec<String>,
    states: Vec<&'static str>,
    releases: Vec<String>,
    runs: Vec<String>,
    codes: Vec<String>,
    since: Vec<i64>,
    cloned: Vec<Option<i64>>,
    documents: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of<'b: 'a>(kept: impl Iterator<Item = &'a Kept<'b>>) -> Self {
        let mut columns = Columns::default();
        for kept in kept {
            let Known { sequence, received, boots, doing, since, cloned } = &kept.known;
            columns.nodes.push(kept.node().0.to_vec());
            columns.sequences.push(integer(*sequence));
            columns.received.push(integer(*received));
            columns.boots.push(text(&text_of(boots)));
            columns.states.push(doing.state.word());
            columns.releases.push(text(&doing.release));
            columns.runs.push(text(&doing.runs));
            columns.codes.push(text(&doing.code));
            columns.since.push(integer(*since));
            columns.cloned.push(cloned.map(integer));
            columns.documents.push(kept.report.document());
        }
        columns
    }
}

fn node_row(row: &Row) -> Result<NodeRow, StoreFailure> {
    Ok(NodeRow { node: digest(row, 0)?, known: known(row, 1)?, document: row.try_get(10)? })
}

/// The columns team, client, since, until. What is written here was parsed before.
fn lock_row(row: &Row) -> Result<(Group, Holder), StoreFailure> {
    let group = Group::parse(row.try_get(0)?).map_err(StoreFailure::Database)?;
    let client = ClientId::parse(row.try_get(1)?).map_err(StoreFailure::Database)?;
    Ok((group, Holder { client, since: number(row, 2)?, until: number(row, 3)? }))
}

impl FleetStore for Postgres {
    fn begin(&mut self) -> Result<(), StoreFailure> {
        let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({WRITERS})");
        let begun = self.session()?.client.batch_execute(&begin);
        self.writes = true;
        self.number.set(None);
        begun.map_err(|error| {
            self.rollback();
            error.into()
        })
    }

    fn commit(&mut self) -> Result<(), StoreFailure> {
        // COMMIT of a transaction in which a statement failed is a ROLLBACK without an error; this is an error then.
        let done = self.session().and_then(|mut session| {
            session.client.batch_execute("SELECT 1")?;
            Ok(session.client.batch_execute("COMMIT")?)
        });
        match done {
            Ok(()) => self.writes = false,
            Err(_) => self.rollback(),
        }
        done
    }

    fn rollback(&mut self) {
        self.writes = false;
        let mut session = self.session.borrow_mut();
        if !session.client.is_closed()
            && let Err(error) = session.client.batch_execute("ROLLBACK")
        {
            tracing::error!(%error, "fleet: give a transaction up");
        }
    }

    fn known(&self, nodes: &[Sha256]) -> Result<HashMap<Sha256, Known>, StoreFailure> {
        let sql = concat!("SELECT node, ", known_columns!(), " FROM nodes WHERE node = ANY ($1)");
        let nodes: Vec<&[u8]> = nodes.iter().map(|node| &node.0[..]).collect();
        let rows = self.session()?.rows(sql, &[&nodes])?;
        rows.iter().map(|row| Ok((digest(row, 0)?, known(row, 1)?))).collect()
    }

    fn keep(&mut self, kept: &[Kept<'_>]) -> Result<(), StoreFailure> {
        if kept.is_empty() {
            return Ok(());
        }
        let number = self.number()?;
        let mut session = self.session()?;
        // A row can be changed once in a statement: the last report of each node.
        let last: HashMap<Sha256, &Kept<'_>> = kept.iter().map(|it| (it.node(), it)).collect();
        let columns = Columns::of(last.into_values());
        session.execute("DELETE FROM gone WHERE node = ANY ($1)", &[&columns.nodes])?;
        session.execute(
            concat!(
                "INSERT INTO nodes (node, ",
                known_columns!(),
                ", document, changed)
                 SELECT *, $12::bigint FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
                     $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bytea[])
                 ON CONFLICT (node) DO UPDATE SET (",
                known_columns!(),
                ", document, changed) = (",
                "SELECT excluded.sequence, excluded.received, excluded.boots, excluded.state, excluded.release,
                     excluded.runs, excluded.code, excluded.since, excluded.cloned, excluded.document,
                     excluded.changed)"
            ),
            &[
                &columns.nodes,
                &columns.sequences,
                &columns.received,
                &columns.boots,
                &columns.states,
                &columns.releases,
                &columns.runs,
                &columns.codes,
                &columns.since,
                &columns.cloned,
                &columns.documents,
                &number,
            ],
        )?;
        let changed = Columns::of(kept.iter().filter(|it| it.changed));
        if !changed.nodes.is_empty() {
            session.execute(
                "INSERT INTO transitions (node, at, release, state, code)
                 SELECT node, at, release, state, code
                 FROM unnest($1::bytea[], $2::bigint[], $3::text[], $4::text[], $5::text[])
                     WITH ORDINALITY AS it (node, at, release, state, code, nth) ORDER BY nth",
                &[
                    &changed.nodes,
                    &changed.received,
                    &changed.releases,
                    &changed.states,
                    &changed.codes,
                ],
            )?;
        }
        Ok(())
    }

    fn forget_transitions(&mut self, before: u64, most: usize) -> Result<(), StoreFailure> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut session = self.session()?;
        session.execute("DELETE FROM transitions WHERE at < $1", &[&integer(before)])?;
        let crowded = "DELETE FROM transitions WHERE id IN (
            SELECT id FROM (
                SELECT id, row_number() OVER (PARTITION BY node ORDER BY id DESC) AS nth
                FROM transitions) AS numbered
            WHERE nth > $1)";
        session.execute(crowded, &[&most])?;
        Ok(())
    }

    fn forget_waiting(&mut self, listed: &Approved, most: usize) -> Result<Waiting, StoreFailure> {
        let sql = "SELECT node FROM nodes WHERE node NOT IN (SELECT node FROM approved)
                   ORDER BY received DESC, node";
        let rows = self.session()?.rows(sql, &[])?;
        let nodes = rows.iter().map(|row| digest(row, 0)).collect::<Result<Vec<_>, _>>()?;
        let waiting = nodes.into_iter().filter(|node| !listed.contains(node));
        let waiting: Vec<Vec<u8>> = waiting.map(|node| node.0.to_vec()).collect();
        let gone = waiting.get(most..).unwrap_or_default();
        let swept = Waiting::of(waiting.len(), gone.len());
        if gone.is_empty() {
            return Ok(swept);
        }
        let number = self.number()?;
        let mut session = self.session()?;
        session.execute("DELETE FROM transitions WHERE node = ANY ($1)", &[&gone])?;
        session.execute("DELETE FROM nodes WHERE node = ANY ($1)", &[&gone])?;
        let sql = "INSERT INTO gone (node, changed) SELECT unnest($1::bytea[]), $2::bigint
                   ON CONFLICT (node) DO UPDATE SET changed = $2::bigint";
        session.execute(sql, &[&gone, &number])?;
        let sql = "SELECT changed FROM gone ORDER BY changed DESC LIMIT 1 OFFSET $1";
        if let Some(row) = session.rows(sql, &[&GONE])?.first() {
            let oldest: i64 = row.try_get(0)?;
            session.execute("DELETE FROM gone WHERE changed <= $1", &[&oldest])?;
            session.execute("UPDATE clock SET forgotten = $1", &[&oldest])?;
        }
        Ok(swept)
    }

    fn node(&self, node: &Sha256) -> Result<Option<NodeRow>, StoreFailure> {
        let sql =
            concat!("SELECT node, ", known_columns!(), ", document FROM nodes WHERE node = $1");
        self.session()?.rows(sql, &[&&node.0[..]])?.first().map(node_row).transpose()
    }

    fn changes(
        &self,
        since: Option<u64>,
        tell: &mut dyn FnMut(Change),
    ) -> Result<u64, StoreFailure> {
        let mut session = self.session()?;
        let rows = session.rows("SELECT changes, forgotten FROM clock", &[])?;
        let row = rows.first().ok_or_else(|| StoreFailure::Database("has no clock".to_owned()))?;
        let (now, forgotten): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let Some(since) = told_from(since, now, forgotten) else { return Ok(natural(now)) };
        if since == ALL {
            tell(Change::Reset);
        }
        // A piece at a time: the answer to a query is held as a whole.
        let sql = concat!(
            "SELECT node, ",
            known_columns!(),
            ", document, changed FROM nodes WHERE (changed, node) > ($1, $2)
             ORDER BY changed, node LIMIT 1000"
        );
        let mut last = (since, vec![0xff_u8; 32]);
        loop {
            let rows = session.rows(sql, &[&last.0, &last.1])?;
            for row in &rows {
                tell(Change::Kept(node_row(row)?));
            }
            let Some(row) = rows.last() else { break };
            last = (row.try_get(11)?, row.try_get(0)?);
        }
        for row in &session.rows("SELECT node FROM gone WHERE changed > $1", &[&since])? {
            tell(Change::Gone(digest(row, 0)?));
        }
        for row in &session.rows("SELECT node FROM approved WHERE changed > $1", &[&since])? {
            tell(Change::Approved(digest(row, 0)?));
        }
        Ok(natural(now))
    }

    fn transitions(&self, node: &Sha256, most: usize) -> Result<Vec<Transition>, StoreFailure> {
        let sql = "SELECT at, release, state, code FROM transitions WHERE node = $1
                   ORDER BY id DESC LIMIT $2";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = self.session()?.rows(sql, &[&&node.0[..], &most])?;
        let transition = |row: &Row| {
            Ok(Transition {
                at: number(row, 0)?,
                release: row.try_get(1)?,
                state: row.try_get(2)?,
                code: row.try_get(3)?,
            })
        };
        rows.iter().map(transition).collect()
    }

    fn approve(&mut self, nodes: &[Sha256], now: u64) -> Result<usize, StoreFailure> {
        self.begin()?;
        let names: Vec<Vec<u8>> = nodes.iter().map(|node| node.0.to_vec()).collect();
        let sql = "INSERT INTO approved (node, at, changed)
                   SELECT DISTINCT unnest($1::bytea[]), $2::bigint, $3::bigint
                   ON CONFLICT DO NOTHING";
        let added = self
            .number()
            .and_then(|number| self.session()?.execute(sql, &[&names, &integer(now), &number]));
        match added {
            Ok(added) => self.commit().map(|()| added),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    fn holders(&self, group: &Group) -> Result<Vec<Holder>, StoreFailure> {
        let sql = "SELECT team, client, since, until FROM locks WHERE team = $1
                   ORDER BY since, client COLLATE \"C\"";
        let rows = self.session()?.rows(sql, &[&group.as_str()])?;
        rows.iter().map(|row| lock_row(row).map(|(_, holder)| holder)).collect()
    }

    fn hold(&mut self, group: &Group, holders: &[Holder]) -> Result<(), StoreFailure> {
        let mut session = self.session()?;
        session.execute("DELETE FROM locks WHERE team = $1", &[&group.as_str()])?;
        let sql = "INSERT INTO locks (team, client, since, until) VALUES ($1, $2, $3, $4)";
        for Holder { client, since, until } in holders {
            let (since, until) = (integer(*since), integer(*until));
            session.execute(sql, &[&group.as_str(), &client.as_str(), &since, &until])?;
        }
        Ok(())
    }

    fn locks(&self) -> Result<Vec<(Group, Holder)>, StoreFailure> {
        let sql = "SELECT team, client, since, until FROM locks
                   ORDER BY team COLLATE \"C\", since, client COLLATE \"C\"";
        self.session()?.rows(sql, &[])?.iter().map(lock_row).collect()
    }
}
