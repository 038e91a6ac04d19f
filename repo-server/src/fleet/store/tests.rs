//! The test program of every store; and of SQLite, each earlier schema.

use std::path::Path;
use std::time::Duration;

use formats::report::Report;
use racklet_testkit::forge::ForgeKey;
use rusqlite::Connection;

use super::*;
use crate::fleet::judge::judge;
use crate::fleet::lock::{ClientId, Group, Holder};
use crate::fleet::state::State;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn signed(key: u32, sequence: u64, standing: &str) -> SignedReport {
    let report = Report {
        sequence,
        standing: standing.into(),
        booted: "a".into(),
        boot: format!("boot of {key}").as_str().into(),
        ..Report::default()
    };
    SignedReport::verify(&ForgeKey::new(key).report(report)).unwrap()
}

fn keep(store: &mut dyn FleetStore, report: &SignedReport, now: u64) {
    let before = store.known(&[report.report().node]).unwrap().remove(&report.report().node);
    let (_, next) = judge(before.as_ref(), report.report(), now);
    let next = next.expect("it is newer");
    let changed = before.is_none_or(|before| before.doing != next.doing);
    store.keep(&[Kept { report, known: next, changed }]).unwrap();
}

/// What a reader is told who knows `since`, in a fixed order; and how far that goes.
fn told(store: &dyn FleetStore, since: Option<u64>) -> (Vec<String>, u64) {
    let mut told = Vec::new();
    let known = store.changes(since, &mut |change| {
        told.push(match change {
            Change::Reset => "reset".to_owned(),
            Change::Kept(row) => format!("kept {} {}", row.node, row.known.sequence),
            Change::Gone(node) => format!("gone {node}"),
            Change::Approved(node) => format!("approved {node}"),
        });
    });
    told.sort();
    (told, known.unwrap())
}

/// Whoever reads what changed, now and then, knows what is there.
fn what_changed(store: &mut dyn FleetStore) {
    let node = |key| signed(key, 1, "idle").report().node;
    let (_, begun) = told(store, None);
    assert_eq!(told(store, Some(begun)), (vec![], begun));
    store.begin().unwrap();
    keep(store, &signed(50, 1, "idle"), 5000);
    keep(store, &signed(51, 1, "idle"), 5001);
    store.commit().unwrap();
    let (changes, second) = told(store, Some(begun));
    let mut expected = vec![format!("kept {} 1", node(50)), format!("kept {} 1", node(51))];
    expected.sort();
    assert_eq!(changes, expected);
    // What is given up is no change, and one that went and came back is there.
    store.begin().unwrap();
    keep(store, &signed(50, 2, "idle"), 6000);
    store.rollback();
    assert_eq!(told(store, Some(second)).0, Vec::<String>::new());
    store.approve(&[node(50)], 7000).unwrap();
    assert_eq!(told(store, Some(second)).0, [format!("approved {}", node(50))]);
    let before = told(store, Some(second)).1;
    store.begin().unwrap();
    assert_ne!(store.forget_waiting(&Approved::default(), 0).unwrap().forgotten, 0);
    store.commit().unwrap();
    let (changes, _) = told(store, Some(before));
    assert!(changes.contains(&format!("gone {}", node(51))), "{changes:?}");
    assert!(!changes.iter().any(|it| it.contains(&node(50).to_string())), "{changes:?}");
    keep(store, &signed(51, 9, "idle"), 8000);
    let (changes, _) = told(store, Some(before));
    assert!(changes.contains(&format!("kept {} 9", node(51))), "{changes:?}");
    assert!(!changes.contains(&format!("gone {}", node(51))), "{changes:?}");
    // A database that was put back from a backup, and one that forgot more than it remembers.
    for foreign in [None, Some(u64::MAX)] {
        assert_eq!(told(store, foreign).0.last().map(String::as_str), Some("reset"));
    }
    let all: Vec<SignedReport> = (0..10_010).map(|key| signed(100_000 + key, 1, "idle")).collect();
    let (_, before) = told(store, None);
    for part in all.chunks(5_005) {
        store.begin().unwrap();
        part.iter().for_each(|report| keep(store, report, 9000));
        store.commit().unwrap();
        store.begin().unwrap();
        store.forget_waiting(&Approved::default(), 0).unwrap();
        store.commit().unwrap();
    }
    let (changes, now) = told(store, Some(before));
    assert_eq!(changes.last().map(String::as_str), Some("reset"));
    assert_eq!(told(store, Some(now)).0, Vec::<String>::new());
}

/// What every store does.
fn program(store: &mut dyn FleetStore) {
    let (first, other) = (signed(1, 5, "idle"), signed(2, 1, "on_trial"));
    let node = first.report().node;
    assert!(store.known(&[node]).unwrap().is_empty());
    store.begin().unwrap();
    keep(store, &first, 100);
    keep(store, &other, 100);
    store.commit().unwrap();
    // What is given up did not happen.
    store.begin().unwrap();
    keep(store, &signed(1, 6, "staged"), 200);
    store.rollback();
    assert_eq!(store.known(&[node]).unwrap()[&node].sequence, 5);
    let row = store.node(&node).unwrap().unwrap();
    assert_eq!((row.node, row.document.as_slice()), (node, first.document()));
    assert_eq!(row.known.boots, ["boot of 1"]);
    let mut names = vec![node, other.report().node];
    names.sort();
    let found: Vec<Sha256> = store.nodes().unwrap().into_iter().map(|row| row.node).collect();
    assert_eq!(found, names);

    // Only changes are transitions, and they are bounded by age and by number.
    for (nth, standing) in ["staged", "staged", "interrupted", "staged"].into_iter().enumerate() {
        keep(store, &signed(1, 10 + nth as u64, standing), 1000 + nth as u64 * 10);
    }
    let states = |store: &dyn FleetStore| {
        let found = store.transitions(&node, 10).unwrap();
        found.into_iter().map(|it| (it.at, it.state)).collect::<Vec<_>>()
    };
    let word = |state: State| state.word().to_owned();
    let (staged, downloading) = (word(State::Staged), word(State::Downloading));
    let last =
        [(1030, staged.clone()), (1020, downloading), (1000, staged), (100, word(State::Other))];
    assert_eq!(states(store), last);
    store.forget_transitions(0, 3).unwrap();
    assert_eq!(states(store), last[..3]);
    store.forget_transitions(1020, 10).unwrap();
    assert_eq!(states(store), last[..2]);

    // Approval is once, also before the first report; who is not approved may be forgotten.
    let later = signed(9, 1, "idle").report().node;
    assert_eq!(store.approve(&[node, later], 1).unwrap(), 2);
    assert_eq!(store.approve(&[node], 1).unwrap(), 0);
    assert!(store.approved().unwrap().contains(&later));
    for key in 20..30 {
        keep(store, &signed(key, 1, "idle"), 2000 + u64::from(key));
    }
    let listed = Approved::parse(&other.report().node.to_hex()).unwrap();
    assert_eq!(store.forget_waiting(&listed, 3).unwrap(), Waiting { forgotten: 7, left: 3 });
    let left: Vec<Sha256> = store.nodes().unwrap().into_iter().map(|row| row.node).collect();
    assert_eq!(left.len(), 5, "the approved, the listed and the three newest");
    for key in 27..30 {
        assert!(left.contains(&signed(key, 1, "idle").report().node), "{key}");
    }
    assert_eq!(store.transitions(&signed(20, 1, "idle").report().node, 9).unwrap(), []);

    // Locks are replaced group by group, and come in the order of their beginning.
    let (first, other) = (Group::parse("default").unwrap(), Group::parse("a.b-C").unwrap());
    let holder = |client: &str, since| {
        let client = ClientId::parse(client).unwrap();
        Holder { client, since, until: since + 3600 }
    };
    let (early, late) = (holder("z", 10), holder("a \u{e4}", 20));
    store.hold(&first, &[late.clone(), early.clone()]).unwrap();
    store.hold(&other, std::slice::from_ref(&early)).unwrap();
    assert_eq!(store.holders(&first).unwrap(), [early.clone(), late.clone()]);
    store.hold(&first, std::slice::from_ref(&late)).unwrap();
    assert_eq!(store.locks().unwrap(), [(other.clone(), early), (first.clone(), late)]);
    store.hold(&other, &[]).unwrap();
    assert_eq!(store.holders(&other).unwrap(), []);

    // The largest numbers that a report may have.
    keep(store, &signed(1, u64::MAX, "idle"), u64::MAX);
    assert_eq!(store.known(&[node]).unwrap()[&node].sequence, i64::MAX as u64);
}

#[test]
fn the_program_of_every_store_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    program(open(&dir.path().join("fleet").into()).unwrap().as_mut());
    what_changed(open(&dir.path().join("other").into()).unwrap().as_mut());
    // A second process sees the same.
    assert_eq!(open(&dir.path().join("fleet").into()).unwrap().nodes().unwrap().len(), 5);
}

/// A PostgreSQL server, and the folder that it is in.
fn postgres() -> (tempfile::TempDir, racklet_tools::postgres::Postgres) {
    let dir = tempfile::tempdir().unwrap();
    let server = racklet_tools::postgres::Postgres::start(dir.path(), None).unwrap();
    (dir, server)
}

#[test]
fn the_program_of_every_store_on_postgresql() {
    let (_dir, mut server) = postgres();
    let place: FleetPlace = server.local().parse().unwrap();
    let mut store = open(&place).unwrap();
    program(store.as_mut());
    // A second server sees the same.
    assert_eq!(open(&place).unwrap().nodes().unwrap().len(), 5);

    // The database is killed within a transaction: nothing of that happened, and what was acknowledged is there.
    store.begin().unwrap();
    keep(store.as_mut(), &signed(40, 1, "idle"), 3000);
    server.kill().unwrap();
    assert!(store.commit().is_err());
    server.switch_on().unwrap();
    assert_eq!(store.nodes().unwrap().len(), 5, "the connection is opened again");
    store.begin().unwrap();
    keep(store.as_mut(), &signed(40, 1, "idle"), 3000);
    store.commit().unwrap();
    assert_eq!(open(&place).unwrap().nodes().unwrap().len(), 6);
    what_changed(store.as_mut());
}

/// As the book says: `pg_dump` while servers run, `psql` into an empty database.
#[test]
fn postgresql_is_backed_up_and_put_back_by_its_own_programs() {
    let ((dir, server), (_other, fresh)) = (postgres(), postgres());
    let mut store = open(&server.local().parse().unwrap()).unwrap();
    keep(store.as_mut(), &signed(1, 5, "idle"), 100);
    store.approve(&[signed(1, 5, "idle").report().node], 90).unwrap();
    let file = dir.path().join("fleet.sql");
    let run = |program: &str, options: &[&str], address: &str| {
        let mut command = std::process::Command::new(program);
        let done = command.args(options).args(["-d", address, "-f"]).arg(&file).output().unwrap();
        assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    };
    run("pg_dump", &["--no-owner"], &server.local());
    run("psql", &["-q", "-v", "ON_ERROR_STOP=1"], &fresh.local());
    let back = open(&fresh.local().parse().unwrap()).unwrap();
    assert_eq!(back.nodes().unwrap(), store.nodes().unwrap());
    assert_eq!(back.approved().unwrap(), store.approved().unwrap());
    let node = signed(1, 5, "idle").report().node;
    assert_eq!(back.transitions(&node, 9).unwrap(), store.transitions(&node, 9).unwrap());
}

/// Two servers over one database: what one judges, the other does not change meanwhile.
#[test]
fn transactions_of_two_servers_follow_each_other() {
    let (_dir, server) = postgres();
    let place: FleetPlace = server.local().parse().unwrap();
    let node = signed(1, 1, "idle").report().node;
    let raise = |place: &FleetPlace| {
        let mut store = open(place).unwrap();
        for _ in 0..50 {
            store.begin().unwrap();
            let sequence =
                store.known(&[node]).unwrap().get(&node).map_or(0, |known| known.sequence);
            // Late enough after the one before.
            keep(store.as_mut(), &signed(1, sequence + 1, "idle"), 1000 * sequence);
            store.commit().unwrap();
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| raise(&place))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(open(&place).unwrap().known(&[node]).unwrap()[&node].sequence, 150);
}

#[test]
fn every_earlier_schema_of_postgresql_is_brought_up_to_date() {
    let report = signed(1, 7, "staged");
    for steps in 0..=schema_postgres::STEPS.len() {
        let (_dir, server) = postgres();
        let mut database = server.local().parse::<::postgres::Config>().unwrap();
        let mut database = database.connect_timeout(PATIENCE).connect(::postgres::NoTls).unwrap();
        for step in &schema_postgres::STEPS[..steps] {
            database.batch_execute(step).unwrap();
        }
        database.batch_execute("CREATE TABLE fleet_schema (done BIGINT NOT NULL)").unwrap();
        let sql = "INSERT INTO fleet_schema VALUES ($1)";
        database.execute(sql, &[&(steps as i64)]).unwrap();
        if steps > 0 {
            let node = &report.report().node.0[..];
            let sql = "INSERT INTO nodes (node, sequence, received, boots, state, release, runs, code, since, cloned, document)
                       VALUES ($1, 7, 100, 'x', 'staged', '1.4.2', '1.4.1', '', 90, NULL, $2)";
            database.execute(sql, &[&node, &report.document()]).unwrap();
            database.execute("INSERT INTO approved (node, at) VALUES ($1, 50)", &[&node]).unwrap();
        }
        if steps >= 2 {
            let sql = "INSERT INTO locks VALUES ('default', 'node-7', 90, 3690)";
            database.execute(sql, &[]).unwrap();
        }
        let place: FleetPlace = server.local().parse().unwrap();
        for again in [false, true] {
            let store = open(&place).unwrap();
            let rows = store.nodes().unwrap();
            assert_eq!(rows.len(), usize::from(steps > 0), "{steps} steps, again: {again}");
            let Some(row) = rows.first() else { continue };
            assert_eq!((row.known.sequence, row.known.since), (7, 90), "{steps} steps");
            assert!(store.approved().unwrap().contains(&row.node), "{steps} steps");
            let locks = store.locks().unwrap();
            assert_eq!(locks.len(), usize::from(steps >= 2), "{steps} steps, again: {again}");
        }
        let newer = schema_postgres::STEPS.len() as i64 + 1;
        database.execute("UPDATE fleet_schema SET done = $1", &[&newer]).unwrap();
        let error = open(&place).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreFailure::Newer { found, .. } if found == newer), "{error}");
    }
}

/// Over a network there is TLS, whose certificate is checked, and a password from a file.
#[test]
fn postgresql_elsewhere_is_asked_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
    let certificate = Some((chain.as_str(), key.as_str()));
    let server = racklet_tools::postgres::Postgres::start(dir.path(), certificate).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        storage::private::write_secret(&path, text.as_bytes()).unwrap();
        path
    };
    let (ca, password) = (file("ca.pem", &chain), file("pw", racklet_tools::postgres::PASSWORD));
    let wrong = file("wrong", "guessed");
    let place = |host: &str, password: &Path, ca: Option<&Path>| {
        let place: FleetPlace = server.remote(host).parse().unwrap();
        place.with_files(Some(password.to_owned()), ca.map(Path::to_owned)).unwrap()
    };
    let error = |place: &FleetPlace| open(place).map(|_| ()).unwrap_err().to_string();
    assert_eq!(open(&place("localhost", &password, Some(&ca))).unwrap().nodes().unwrap(), []);
    let said = error(&place("localhost", &wrong, Some(&ca)));
    assert!(said.contains("password") && !said.contains("guessed"), "{said}");
    // Nobody vouches for it; it has another name.
    let said = error(&place("localhost", &password, None));
    assert!(said.contains("certificate"), "{said}");
    let said = error(&place("127.0.0.1", &password, Some(&ca)));
    assert!(said.contains("certificate"), "{said}");
}

/// A database as the server with that many steps left it, with one node.
fn earlier(dir: &Path, steps: usize, report: &SignedReport) {
    let database = Connection::open(dir.join("fleet.sqlite3")).unwrap();
    for step in &schema::STEPS[..steps] {
        database.execute_batch(step).unwrap();
    }
    database.pragma_update(None, "user_version", steps as i64).unwrap();
    if steps == 0 {
        return;
    }
    let node = &report.report().node.0[..];
    let sql =
        "INSERT INTO nodes (node, sequence, received, boots, state, release, runs, code, since, cloned, document)
         VALUES (?1, 7, 100, 'x', 'staged', '1.4.2', '1.4.1', '', 90, NULL, ?2)";
    database.execute(sql, rusqlite::params![node, report.document()]).unwrap();
    database.execute("INSERT INTO approved (node, at) VALUES (?1, 50)", [node]).unwrap();
    if steps >= 2 {
        let sql = "INSERT INTO transitions (node, at, release, state, code)
                   VALUES (?1, 90, '1.4.2', 'staged', '')";
        database.execute(sql, [node]).unwrap();
    }
    if steps >= 3 {
        database.execute("INSERT INTO locks VALUES ('default', 'node-7', 90, 3690)", ()).unwrap();
    }
}

#[test]
fn every_earlier_schema_is_brought_up_to_date() {
    let report = signed(1, 7, "staged");
    for steps in 0..=schema::STEPS.len() {
        let dir = tempfile::tempdir().unwrap();
        earlier(dir.path(), steps, &report);
        for again in [false, true] {
            let store = open(&dir.path().into()).unwrap();
            let rows = store.nodes().unwrap();
            assert_eq!(rows.len(), usize::from(steps > 0), "{steps} steps, again: {again}");
            let Some(row) = rows.first() else { continue };
            assert_eq!((row.known.sequence, row.known.since), (7, 90), "{steps} steps");
            assert_eq!(row.known.doing.state, State::Staged, "{steps} steps");
            assert!(store.approved().unwrap().contains(&row.node), "{steps} steps");
            let transitions = store.transitions(&row.node, 9).unwrap();
            assert_eq!(transitions.len(), 1, "{steps} steps, again: {again}");
            assert_eq!(transitions[0].release, "1.4.2");
            let locks = store.locks().unwrap();
            assert_eq!(locks.len(), usize::from(steps >= 3), "{steps} steps, again: {again}");
        }
    }
}

#[test]
fn the_database_of_a_newer_server_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    earlier(dir.path(), schema::STEPS.len(), &signed(1, 7, "staged"));
    let newer = schema::STEPS.len() as i64 + 1;
    let file = dir.path().join("fleet.sqlite3");
    Connection::open(&file).unwrap().pragma_update(None, "user_version", newer).unwrap();
    let error = open(&dir.path().into()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreFailure::Newer { found, .. } if found == newer), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("fleet.sqlite3"), "not a database".repeat(1000)).unwrap();
    let error = open(&dir.path().into()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreFailure::Database(_)), "{error}");
}
