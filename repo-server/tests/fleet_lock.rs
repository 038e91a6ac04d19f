//! The FleetLock protocol on the real server: its letter, its bounds, and that no granted lock is forgotten.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use common::program::{Program, in_directory};
use common::{Fixture, Reply, exchange};
use repo_server::FleetConfig;

const HEADER: &str = "fleet-lock-protocol: true";

fn body(id: &str, group: &str) -> Vec<u8> {
    serde_json::json!({ "client_params": { "id": id, "group": group } }).to_string().into_bytes()
}

fn ask(address: SocketAddr, what: &str, id: &str) -> Reply {
    let headers = [HEADER, "Content-Type: application/json"];
    exchange(address, "POST", &format!("/v1/{what}"), &headers, &body(id, "default"))
}

fn server(groups: &[(&str, usize)]) -> Fixture {
    Fixture::with(|config| {
        let groups = groups.iter().map(|(name, budget)| ((*name).to_owned(), *budget)).collect();
        let dir = config.dir.with_file_name("fleet");
        config.fleet = Some(FleetConfig { groups, ..FleetConfig::new(dir) });
    })
}

/// The real program with one group.
fn program(temp: &Path, budget: usize) -> Program {
    let fleet = temp.join("fleet").display().to_string();
    let group = format!("default={budget}");
    let more = ["--fleet", &fleet, "--fleet-group", &group];
    Program::start(temp, &in_directory(temp), &more)
}

fn command(temp: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
    command.arg("fleet").args(args).arg("--fleet").arg(temp.join("fleet"));
    command.output().unwrap()
}

#[test]
fn at_most_the_budget_of_a_group_hold() {
    let server = server(&[("default", 2), ("db", 1)]);
    let (at, json) = (server.address(), ["Accept: application/json"]);
    ask(at, "pre-reboot", "a").expect(200);
    ask(at, "pre-reboot", "b").expect(200);
    let full = ask(at, "pre-reboot", "c").expect(423).json();
    assert_eq!(full["kind"], "failed_lock_semaphore_full");
    let value = full["value"].as_str().unwrap();
    assert!(value.starts_with("2 nodes of group default restart already: a (until "), "{value}");
    // Asked again by one that holds; released by one that does not.
    ask(at, "pre-reboot", "a").expect(200);
    ask(at, "steady-state", "c").expect(200);
    ask(at, "pre-reboot", "c").expect(423);
    // Groups are apart.
    exchange(at, "POST", "/v1/pre-reboot", &[HEADER], &body("c", "db")).expect(200);
    ask(at, "steady-state", "a").expect(200);
    ask(at, "steady-state", "a").expect(200);
    ask(at, "pre-reboot", "c").expect(200);

    let all = server.ask("GET", "/fleet/", &json, &[]).expect(200).json();
    let locks = all["restart_locks"].as_array().unwrap();
    let shown: Vec<_> = locks.iter().map(|it| (&it["group"], &it["budget"])).collect();
    assert_eq!(shown, [(&"db".into(), &1.into()), (&"default".into(), &2.into())]);
    let holders: Vec<_> = locks[1]["holders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    assert_eq!(BTreeSet::from_iter(holders), BTreeSet::from(["b", "c"]));
    let page = String::from_utf8(server.get("/fleet/").expect(200).body).unwrap();
    assert!(page.contains("Restart locks") && page.contains("2 of 2"), "{page}");
    let metrics = String::from_utf8(server.get("/metrics").expect(200).body).unwrap();
    for line in [
        "repo_server_restart_lock_requests_total{outcome=\"granted\"} 4",
        "repo_server_restart_lock_requests_total{outcome=\"kept\"} 1",
        "repo_server_restart_lock_requests_total{outcome=\"full\"} 2",
        "repo_server_restart_lock_requests_total{outcome=\"not_held\"} 2",
        "repo_server_restart_lock_holders{group=\"default\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn whatever_is_refused_says_so_in_the_form_of_the_protocol() {
    let server = server(&[("default", 1)]);
    let at = server.address();
    let good = body("a", "default");
    let refused = |reply: Reply, status: u16, kind: &str| {
        let json = reply.expect(status).json();
        assert_eq!(json["kind"], kind, "{json}");
        assert!(json["value"].as_str().is_some_and(|value| !value.is_empty()), "{json}");
    };
    let post =
        |headers: &[&str], body: &[u8]| exchange(at, "POST", "/v1/pre-reboot", headers, body);
    refused(post(&[], &good), 400, "missing_header");
    refused(post(&["fleet-lock-protocol: false"], &good), 400, "missing_header");
    refused(post(&[HEADER, "fleet-lock-protocol: false"], &good), 400, "missing_header");
    refused(post(&[HEADER], b""), 400, "bad_request");
    refused(post(&[HEADER], b"not json"), 400, "bad_request");
    refused(post(&[HEADER], &body("", "default")), 400, "bad_id");
    refused(post(&[HEADER], &body("a", "a b")), 400, "bad_group");
    refused(post(&[HEADER], &body("a", "elsewhere")), 404, "unknown_group");
    refused(post(&[HEADER, "Content-Encoding: gzip"], &good), 415, "bad_request");
    refused(post(&[HEADER], &[b' '; 4097]), 413, "too_large");
    refused(exchange(at, "GET", "/v1/pre-reboot", &[HEADER], &[]), 405, "method_not_allowed");
    // Nothing of it took the place.
    ask(at, "pre-reboot", "a").expect(200);
    // A member of the group that is gone from the configuration lets go.
    exchange(at, "POST", "/v1/steady-state", &[HEADER], &body("a", "elsewhere")).expect(200);

    let without = Fixture::new();
    refused(ask(without.address(), "pre-reboot", "a"), 404, "unsupported");
}

#[test]
fn locks_are_behind_the_credentials_for_pulling() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("pull");
    common::write_private(&tokens, "demo/* a-token-for-one-product\n");
    let place = dir.path().join("fleet");
    let server = Fixture::with(|config| {
        config.pull_tokens = Some(tokens);
        let groups = vec![("default".to_owned(), 1)];
        config.fleet = Some(FleetConfig { groups, ..FleetConfig::new(place) });
    });
    let denied = ask(server.address(), "pre-reboot", "a").expect(401);
    assert_eq!(denied.json()["kind"], "unauthorized");
    assert!(denied.header("www-authenticate").is_some(), "{:?}", denied.headers);
    let bearer = "Authorization: Bearer a-token-for-one-product";
    let body = body("a", "default");
    exchange(server.address(), "POST", "/v1/pre-reboot", &[HEADER, bearer], &body).expect(200);
}

#[test]
fn a_server_whose_groups_can_never_be_served_does_not_start() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).display().to_string();
    for (row, args, said) in [
        ("nobody", &["--fleet-group", "default=0"][..], "budget of 0"),
        ("no number", &["--fleet-group", "default"], "NAME=N"),
        ("no name", &["--fleet-group", "a_b=1"], "letters, digits, dots"),
        ("twice", &["--fleet-group", "a=1", "--fleet-group", "a=2"], "more than once"),
        ("too short", &["--fleet-group", "a=1", "--fleet-lock-age", "1m"], "5m to 7d"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--dir", &path("repository")]);
        let output = command.args(["--fleet", &path("fleet")]).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(said), "{row}: {text}");
    }
    let variable = Command::new(env!("CARGO_BIN_EXE_repo-server"))
        .args(["serve", "--listen", "127.0.0.1:0", "--dir", &path("repository")])
        .env("REPO_SERVER_FLEET", path("fleet"))
        .env("REPO_SERVER_FLEET_GROUP", "workers=2,db=0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&variable.stderr).into_owned();
    assert!(text.contains("group db: with a budget of 0"), "{text}");
}

/// The server is killed while many nodes ask, again and again: those that were granted a lock hold it when
/// the server starts again, and so never more than the budget were told that they may restart.
#[test]
fn kill_9_forgets_no_granted_lock() {
    const BUDGET: usize = 5;
    let temp = tempfile::tempdir().unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    eprintln!("seed {random:#x}");
    let granted: Mutex<BTreeSet<String>> = Mutex::default();
    let mut lost = 0;
    for turn in 0..10_u32 {
        let mut server = program(temp.path(), BUDGET);
        let address = server.address;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let enough = usize::try_from(random % 30).unwrap();
        let answers = Mutex::new(0_usize);
        std::thread::scope(|scope| {
            for worker in 0..6_u32 {
                let (granted, answers) = (&granted, &answers);
                scope.spawn(move || {
                    for nth in 0..8 {
                        let id = format!("{turn}-{worker}-{nth}");
                        let told =
                            std::panic::catch_unwind(|| ask(address, "pre-reboot", &id).status);
                        match told {
                            Ok(200) => drop(granted.lock().unwrap().insert(id)),
                            Ok(423) => {}
                            Ok(other) => panic!("status {other}"),
                            // The server is gone.
                            Err(_) => return,
                        }
                        *answers.lock().unwrap() += 1;
                    }
                });
            }
            common::until("enough answers", || *answers.lock().unwrap() >= enough);
            let _ = server.child.kill();
            let _ = server.child.wait();
        });
        lost += 48 - answers.into_inner().unwrap();
        let granted = granted.lock().unwrap();
        assert!(
            granted.len() <= BUDGET,
            "turn {turn}: {granted:?} were told that they may restart"
        );
    }
    let server = program(temp.path(), BUDGET);
    let granted = granted.into_inner().unwrap();
    for id in &granted {
        ask(server.address, "pre-reboot", id).expect(200);
    }
    assert!(lost > 0, "it was killed in the middle");
    eprintln!("{} granted, {lost} requests without an answer", granted.len());
}

/// A lock that is durable and of which nobody read the answer: the next node does not get it, its own node does, and
/// an operator ends it.
#[test]
fn a_server_that_is_killed_between_grant_and_answer_knows_the_grant() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = program(temp.path(), 1);
    let body = body("node-with-a-long-id", "default");
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(
        stream,
        "POST /v1/pre-reboot HTTP/1.1\r\nHost: x\r\n{HEADER}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    stream.write_all(&body).unwrap();
    let held = || {
        let output = command(temp.path(), &["locks", "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["locks"].as_array().unwrap().len()
    };
    common::until("the lock is in the database", || held() == 1);
    let _ = server.child.kill();
    let _ = server.child.wait();
    drop(stream);

    let server = program(temp.path(), 1);
    ask(server.address, "pre-reboot", "another").expect(423);
    ask(server.address, "pre-reboot", "node-with-a-long-id").expect(200);
    let shown = command(temp.path(), &["locks"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.starts_with("default  node-with-a-long-id  since 20"), "{shown}");

    // By the beginning of its id, beside the running server.
    for wrong in ["node-with", "somebody-else"] {
        assert_eq!(command(temp.path(), &["release", wrong]).status.code(), Some(23), "{wrong}");
    }
    let released = command(temp.path(), &["release", "node-with-a-"]);
    assert!(released.status.success(), "{released:?}");
    assert_eq!(held(), 0);
    ask(server.address, "pre-reboot", "another").expect(200);
    let released = command(temp.path(), &["release", "another", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&released.stdout).unwrap();
    assert_eq!(json["groups"], serde_json::json!(["default"]));
}
