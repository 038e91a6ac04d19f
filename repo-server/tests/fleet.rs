//! Reports of nodes: what is taken, what is refused, and that nothing acknowledged is lost.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their parts")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use common::{Fixture, Reply, exchange};
use formats::boot_record::PerSlot;
use formats::report::{Decided, REPORT_LIMIT, Report, SlotReport};
use racklet_testkit::forge::ForgeKey;
use repo_server::FleetConfig;

/// A node that runs 1.4.1, and waits for its wave of 1.4.2.
fn report(sequence: u64) -> Report {
    Report {
        name: Some("node-7".into()),
        product: "demo".into(),
        channel: "stable".into(),
        sequence,
        interval: 3600,
        boot: "boot-1".into(),
        booted: "a".into(),
        standing: "idle".into(),
        slots: PerSlot {
            a: SlotReport {
                state: "confirmed".into(),
                version: Some("1.4.1".into()),
                ..SlotReport::default()
            },
            b: SlotReport::default(),
        },
        decision: Some(Decided {
            version: "1.4.2".into(),
            code: "deferred".into(),
            rule: Some("wave".into()),
            sentence: "its wave begins at 50 %".to_owned(),
            ..Decided::default()
        }),
        ..Report::default()
    }
}

fn target(key: &ForgeKey) -> String {
    format!("/fleet/v1/reports/{}", key.node().to_hex())
}

fn put(address: SocketAddr, key: &ForgeKey, document: &[u8]) -> Reply {
    exchange(address, "PUT", &target(key), &["Content-Type: application/json"], document)
}

fn fleet() -> Fixture {
    Fixture::with(|config| {
        config.fleet = Some(FleetConfig::new(config.dir.with_file_name("fleet")));
    })
}

#[test]
fn a_server_without_the_option_takes_no_reports() {
    let server = Fixture::new();
    let key = ForgeKey::new(1);
    put(server.address(), &key, &key.report(report(1))).expect(404);
    server.get("/fleet/").expect(404);
}

#[test]
fn a_report_is_kept_as_it_came_and_shown() {
    let server = fleet();
    let key = ForgeKey::new(1);
    let document = key.report(report(5));
    put(server.address(), &key, &document).expect(204);
    assert_eq!(server.get(&target(&key)).expect(200).body, document);
    let json = ["Accept: application/json"];
    let all = server.ask("GET", "/fleet/", &json, &[]).expect(200).json();
    assert_eq!((&all["nodes"], &all["waiting_for_approval"]), (&0.into(), &1.into()), "{all}");
    let node = server.ask("GET", &format!("/fleet/nodes/{}", key.node()), &json, &[]).expect(200);
    let node = node.json();
    assert_eq!((&node["state"], &node["release"]), (&"waiting".into(), &"1.4.2".into()), "{node}");
    assert_eq!(node["code"], "wave");
    assert_eq!(node["sentence"], "its wave begins at 50 %");
    assert_eq!(node["transitions"][0]["state"], "waiting");

    let page = server.get("/fleet/").expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), Some("private, no-store"));
    let text = String::from_utf8(page.body).unwrap();
    assert!(
        !text.contains("<script") && !text.contains(" style=") && !text.contains("http"),
        "{text}"
    );
    server.get("/fleet/style.css").expect(200);
    server.get("/fleet/nodes?state=waiting-for-approval").expect(200);
    server.get("/fleet/nodes?from=x").expect(400);
    server.get(&format!("/fleet/nodes/{}", ForgeKey::new(2).node())).expect(404);
    server.get("/fleet/nothing").expect(404);
    server.ask("POST", "/fleet/", &[], &[]).expect(405);
    server.ask("DELETE", &target(&key), &[], &[]).expect(405);
    // What the repository serves keeps its own policy.
    let inert = server.get("/healthz").expect(200);
    assert_eq!(inert.header("content-security-policy"), Some("default-src 'none'; sandbox"));
    let metrics = String::from_utf8(server.get("/metrics").expect(200).body).unwrap();
    assert!(metrics.contains("repo_server_reports_total{outcome=\"kept\"} 1"), "{metrics}");
    assert!(
        metrics.contains("repo_server_fleet_nodes{state=\"waiting_for_approval\"} 1"),
        "{metrics}"
    );
}

#[test]
fn forged_foreign_and_malformed_reports_are_refused() {
    let server = fleet();
    let (key, other) = (ForgeKey::new(1), ForgeKey::new(2));
    let good = key.report(report(5));
    // A flipped digit of the signature.
    let mut forged = good.clone();
    let at = forged.len() - 10;
    forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
    put(server.address(), &key, &forged).expect(403);
    // Changed after it was signed.
    let changed = String::from_utf8(good.clone()).unwrap().replace("\"1.4.1\"", "\"1.4.2\"");
    put(server.address(), &key, changed.as_bytes()).expect(403);
    // Signed by another node, under this one's address.
    put(server.address(), &key, &other.report(report(5))).expect(400);
    put(server.address(), &key, b"").expect(400);
    put(server.address(), &key, b"{}").expect(400);
    put(server.address(), &key, b"[1]").expect(400);
    exchange(server.address(), "PUT", "/fleet/v1/reports/xyz", &[], &good).expect(404);
    exchange(server.address(), "PUT", "/fleet/v1/reports/../v2/x", &[], &good).expect(404);
    let encoded = ["Content-Encoding: gzip"];
    exchange(server.address(), "PUT", &target(&key), &encoded, &good).expect(415);
    server.get(&target(&key)).expect(404);
    let metrics = String::from_utf8(server.get("/metrics").expect(200).body).unwrap();
    assert!(metrics.contains("repo_server_reports_total{outcome=\"forged\"} 2"), "{metrics}");
}

#[test]
fn what_is_longer_than_a_report_is_not_read() {
    let server = fleet();
    let key = ForgeKey::new(1);
    put(server.address(), &key, &vec![b' '; REPORT_LIMIT + 1]).expect(413);
    put(server.address(), &key, &vec![b' '; 1 << 20]).expect(413);
    // Without a length that could be believed.
    let mut chunked = format!("{:x}\r\n", REPORT_LIMIT + 1).into_bytes();
    chunked.extend(vec![b' '; REPORT_LIMIT + 1]);
    chunked.extend(b"\r\n0\r\n\r\n");
    let headers = ["Transfer-Encoding: chunked"];
    exchange(server.address(), "PUT", &target(&key), &headers, &chunked).expect(413);
    // The largest that is allowed is read to its end.
    put(server.address(), &key, &[b' '; REPORT_LIMIT]).expect(400);
}

#[test]
fn replayed_and_older_reports_are_told_the_number_that_is_known() {
    let server = fleet();
    let key = ForgeKey::new(1);
    let document = key.report(report(5));
    put(server.address(), &key, &document).expect(204);
    for sequence in [5, 4, 1] {
        let reply = put(server.address(), &key, &key.report(report(sequence))).expect(409);
        assert_eq!(reply.json()["sequence"], 5);
    }
    assert_eq!(server.get(&target(&key)).expect(200).body, document);
    // Newer, and at once: no node of ours is that fast.
    put(server.address(), &key, &key.report(report(6))).expect(429);
}

#[test]
fn reports_and_pages_are_behind_the_credentials_for_pulling() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("pull");
    let (all, some) = ("a-token-for-everything", "a-token-for-one-product");
    common::write_private(&tokens, &format!("{all}\ndemo/* {some}\n"));
    let place = dir.path().join("fleet");
    let server = Fixture::with(|config| {
        config.pull_tokens = Some(tokens);
        config.fleet = Some(FleetConfig::new(place));
    });
    let key = ForgeKey::new(1);
    let document = key.report(report(1));
    let ask = |method: &str, target: &str, token: &str, body: &[u8]| {
        let bearer = format!("Authorization: Bearer {token}");
        exchange(server.address(), method, target, &[&bearer], body).status
    };
    put(server.address(), &key, &document).expect(401);
    assert_eq!(ask("PUT", &target(&key), "an-unknown-token-here", &document), 401);
    server.get("/fleet/").expect(401);
    // A node that may read its product may report, and not read what others report.
    assert_eq!(ask("PUT", &target(&key), some, &document), 204);
    assert_eq!(ask("GET", "/fleet/", some, &[]), 403);
    assert_eq!(ask("GET", &target(&key), some, &[]), 403);
    assert_eq!(ask("GET", "/fleet/", all, &[]), 200);
}

/// The real program.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(temp: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
        command.arg("serve").arg("--dir").arg(temp.join("repository"));
        command.arg("--fleet").arg(temp.join("fleet"));
        command.arg("--fleet-approved").arg(temp.join("approved"));
        // More than all nodes of a test: none is forgotten for another.
        command.args(["--fleet-waiting", "100000"]);
        command.args(["--listen", "127.0.0.1:0", "--log", "warn"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Server { child, address }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program(temp: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_repo-server"));
    command.arg("fleet").args(args).arg("--fleet").arg(temp.join("fleet"));
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The server is killed while many nodes report, again and again: whatever was acknowledged is there when
/// it starts again.
#[test]
fn kill_9_loses_no_acknowledged_report() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("approved"), "").unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    eprintln!("seed {random:#x}");
    let mut acknowledged: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut lost_answers = 0;
    for turn in 0..12_u32 {
        let mut server = Server::start(temp.path());
        let address = server.address;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Killed after so many answers, at whatever the others are then.
        let enough = usize::try_from(random % 40).unwrap();
        let answered = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for worker in 0..8_u32 {
                let answered = &answered;
                scope.spawn(move || {
                    for nth in 0..16 {
                        let seed = 1000 + turn * 1000 + worker * 16 + nth;
                        let key = ForgeKey::new(seed);
                        let document = key.report(report(1));
                        let sent =
                            std::panic::catch_unwind(|| put(address, &key, &document).status);
                        match sent {
                            Ok(204) => answered.lock().unwrap().push((seed, document)),
                            Ok(other) => panic!("status {other}"),
                            // The server is gone.
                            Err(_) => return,
                        }
                    }
                });
            }
            common::until("enough answers", || answered.lock().unwrap().len() >= enough);
            server.kill();
        });
        let answered = answered.into_inner().unwrap();
        lost_answers += 128 - answered.len();
        acknowledged.extend(answered);
    }
    let server = Server::start(temp.path());
    for (seed, document) in &acknowledged {
        let found = exchange(server.address, "GET", &target(&ForgeKey::new(*seed)), &[], &[]);
        assert_eq!(&found.expect(200).body, document, "seed {seed}");
    }
    assert!(lost_answers > 0 && acknowledged.len() > 12, "it was killed in the middle");
    eprintln!("{} acknowledged, {lost_answers} not", acknowledged.len());
}

#[test]
fn an_operator_approves_lists_and_imports_beside_a_running_server() {
    let temp = tempfile::tempdir().unwrap();
    let (first, second, third) = (ForgeKey::new(1), ForgeKey::new(2), ForgeKey::new(3));
    let listed = temp.path().join("approved");
    std::fs::write(&listed, format!("# the rack\n{} node-8\n", second.node())).unwrap();
    let server = Server::start(temp.path());
    for key in [&first, &second] {
        put(server.address, key, &key.report(report(1))).expect(204);
    }
    let json = ["Accept: application/json"];
    let all = || exchange(server.address, "GET", "/fleet/", &json, &[]).expect(200).json();
    assert_eq!((&all()["nodes"], &all()["waiting_for_approval"]), (&1.into(), &1.into()));

    // By the beginning of its name, once.
    let short = &first.node().to_hex()[..12];
    let approved = program(temp.path(), &["approve", short]);
    assert!(approved.status.success(), "{approved:?}");
    assert_eq!(program(temp.path(), &["approve", short]).status.code(), Some(1));
    assert_eq!((&all()["nodes"], &all()["waiting_for_approval"]), (&2.into(), &0.into()));
    for wrong in ["abc", "zzzzzzzzzzzz", "0123456789ab"] {
        assert_eq!(program(temp.path(), &["approve", wrong]).status.code(), Some(23), "{wrong}");
    }
    // One that has not reported yet; its report comes on a stick.
    let third_name = third.node().to_hex();
    assert!(program(temp.path(), &["approve", &third_name]).status.success());
    let file: PathBuf = temp.path().join("report.json");
    std::fs::write(&file, third.report(report(9))).unwrap();
    let file = file.display().to_string();
    assert!(program(temp.path(), &["import", &file]).status.success());
    assert_eq!(program(temp.path(), &["import", &file]).status.code(), Some(1), "it is known");
    let listed = listed.display().to_string();
    let list = text(&program(temp.path(), &["list", "--fleet-approved", &listed]));
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.contains("node-7  waiting 1.4.2: wave its wave begins at 50 %"), "{list}");
    assert!(!list.contains("not approved"), "{list}");
    let rows = program(temp.path(), &["list", "--json"]);
    let rows: serde_json::Value = serde_json::from_slice(&rows.stdout).unwrap();
    assert_eq!(rows["nodes"].as_array().map(Vec::len), Some(3), "{rows}");
    assert_eq!(all()["nodes"], 3);

    // A file that is no report says so, and changes nothing.
    let bad = temp.path().join("bad").display().to_string();
    for (bytes, why) in
        [(b"{}".to_vec(), "report is missing"), (vec![b' '; 9000], "more than 4096")]
    {
        std::fs::write(&bad, bytes).unwrap();
        let refused = program(temp.path(), &["import", &bad, &file]);
        assert_eq!(refused.status.code(), Some(23));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(why) && said.contains("update-agent report -o FILE"), "{said}");
    }
}

/// As an operator types it: an address is no directory, and what is approved there is approved.
#[test]
fn the_command_line_reaches_postgresql() {
    let temp = tempfile::tempdir().unwrap();
    let server = racklet_tools::postgres::Postgres::start(temp.path(), None).unwrap();
    let fleet = |words: &[&str]| {
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_repo-server"))
            .arg("fleet")
            .args(words)
            .args(["--fleet", &server.local()])
            .current_dir(temp.path())
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let node = ForgeKey::new(1).node().to_hex();
    assert_eq!(fleet(&["approve", &node]), (Some(0), format!("approved {node}\n")));
    assert_ne!(fleet(&["approve", &node]).0, Some(0), "it is approved already");
    let file = temp.path().join("report.json");
    std::fs::write(&file, ForgeKey::new(1).report(report(5))).unwrap();
    assert_eq!(fleet(&["import", &file.display().to_string()]).0, Some(0));
    let (code, said) = fleet(&["list"]);
    assert_eq!(code, Some(0));
    assert!(said.contains(&node[..12]) && !said.contains("not approved"), "{said}");
    // Nothing was made here.
    let made = std::fs::read_dir(temp.path()).unwrap().flatten();
    assert!(
        !made.into_iter().any(|it| it.file_name().to_string_lossy().starts_with("postgresql:"))
    );
}

/// The database of yesterday is put back: nodes are ahead of what it knows, and their next report heals it.
#[test]
fn a_server_put_back_from_a_backup_heals_by_itself() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("approved"), "").unwrap();
    let key = ForgeKey::new(1);
    let mut server = Server::start(temp.path());
    put(server.address, &key, &key.report(report(5))).expect(204);
    // As the book says, while the server runs.
    let (fleet, backup) = (temp.path().join("fleet"), temp.path().join("backup.sqlite3"));
    let done = std::process::Command::new("sqlite3")
        .arg(fleet.join("fleet.sqlite3"))
        .arg(format!(".backup {}", backup.display()))
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    server.kill();
    // As a file, so that no pause is needed between two reports.
    let today = temp.path().join("today");
    std::fs::write(&today, key.report(report(900))).unwrap();
    assert!(program(temp.path(), &["import", &today.display().to_string()]).status.success());
    std::fs::remove_dir_all(&fleet).unwrap();
    std::fs::create_dir(&fleet).unwrap();
    std::fs::copy(&backup, fleet.join("fleet.sqlite3")).unwrap();
    let known = exchange(Server::start(temp.path()).address, "GET", &target(&key), &[], &[]);
    assert_eq!(known.expect(200).body, key.report(report(5)), "yesterday");
    let next = temp.path().join("next");
    std::fs::write(&next, key.report(report(901))).unwrap();
    assert!(program(temp.path(), &["import", &next.display().to_string()]).status.success());
    let server = Server::start(temp.path());
    let known = exchange(server.address, "GET", &target(&key), &[], &[]);
    assert_eq!(known.expect(200).body, key.report(report(901)));
}
