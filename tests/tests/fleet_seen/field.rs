//! What servers of other projects took for granted about their nodes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use formats::reason::Exit;
use racklet_tests::rig::{Credentials, Running, program};
use serde_json::Value;

use crate::rig::{Fleet, agrees, counted, release, reverts};

/// Elsewhere a release counted as a success when it was written (hawkbit#3185).
#[test]
fn a_release_counts_where_it_runs_and_has_proved_itself() {
    let fleet = Fleet::approved(&["node"]);
    let node = fleet.node("node");
    let v2 = release(&fleet.world, "1.1.0", 2);
    let _done = fleet.world.publish(&v2, &["--channel", "stable"]);
    let state = |expected: &str| {
        fleet.carries_a_report("node");
        let page = agrees(&fleet, "node");
        assert_eq!(
            (&page["state"], &page["release"]),
            (&expected.into(), &"1.1.0".into()),
            "{page}"
        );
        let confirmed = u64::from(expected == "confirmed");
        assert_eq!(counted(&fleet.page("/fleet/"), "1.1.0")[0], confirmed, "{page}");
    };
    let _applied = node.run_once().exits(Exit::Done);
    state("staged");
    assert_eq!(node.boot(), "b");
    state("on_trial");
    let _confirmed = node.run_once().exits(Exit::Done);
    state("confirmed");
}

/// Elsewhere the server did not notice a revert, and ordered the release again over the good slot (omni#1552).
#[test]
fn what_reverted_is_known_and_not_written_again() {
    let fleet = Fleet::approved(&["node"]);
    let node = fleet.node("node");
    let v2 = release(&fleet.world, "1.1.0", 2);
    let _done = fleet.world.publish(&v2, &["--channel", "stable"]);
    reverts(node);
    for _ in 0..3 {
        let _round = node.run_once().exits(Exit::Done);
        fleet.carries_a_report("node");
        let page = agrees(&fleet, "node");
        assert_eq!(
            (&page["state"], &page["release"]),
            (&"reverted".into(), &"1.1.0".into()),
            "{page}"
        );
        assert_eq!(page["runs"], "1.0.0", "{page}");
        assert!(!node.reboot_was_asked(), "{page}");
        node.expect_slot("a", &fleet.first);
    }
    assert_eq!(fleet.page("/fleet/")["sentence"], "1 node needs you");
}

/// Elsewhere downloads that an overloaded server refused were counted as failures of the release, which took most of a
/// fleet out of its roll-out (screentinker#153).
#[test]
fn downloads_that_a_server_sheds_are_no_failure_of_a_release() {
    let fleet = Fleet::approved(&["node"]);
    let node = fleet.node("node");
    let v2 = release(&fleet.world, "1.1.0", 2);
    let _done = fleet.world.publish(&v2, &["--channel", "stable"]);
    let shedding = Shedding::before(&fleet);
    for _ in 0..3 {
        let round = node.run_once();
        assert_ne!(round.code, i32::from(Exit::Done.code()), "{}", round.output());
        fleet.carries_a_report("node");
        let page = agrees(&fleet, "node");
        assert_ne!(page["state"], "reverted", "{page}");
        assert_eq!((&page["runs"], &page["failure"]), (&"1.0.0".into(), &Value::Null));
        assert_eq!(page["error"]["code"], "http_status", "{page}");
    }
    let overview = fleet.page("/fleet/");
    assert_eq!(overview["sentence"], "nobody needs you", "{overview}");
    assert_eq!(counted(&overview, "1.1.0")[2], 0, "{overview}");
    // With less to do, the server serves; nothing has to be taken back.
    shedding.ends();
    let _done = node.run_once().exits(Exit::Done);
    assert!(node.reboot_was_asked());
    assert_eq!(node.boot(), "b");
    let _confirmed = node.run_once().exits(Exit::Done);
    fleet.carries_a_report("node");
    assert_eq!(agrees(&fleet, "node")["runs"], "1.1.0");
}

/// A proxy before the repository that has no time for blobs.
struct Shedding {
    sheds: Arc<AtomicBool>,
    _server: Running,
}

impl Shedding {
    /// The node's repository is behind it from now on, without TLS.
    fn before(fleet: &Fleet) -> Self {
        let layout = fleet.world.repository();
        let server = ["serve", "--read-only", "--listen", "127.0.0.1:0", "--dir"];
        let mut server = program("repo-server").args(server).arg(layout.dir()).start();
        let behind = server.await_line(|line| {
            let (_, after) = line.split_once("listening on http://")?;
            after.split(|c: char| c.is_whitespace() || c == '"').next().map(str::to_owned)
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a listener");
        let own = listener.local_addr().expect("where it listens").to_string();
        let sheds = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&sheds);
        // Ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (behind, told) = (behind.clone(), Arc::clone(&told));
                thread::spawn(move || serve(client, &behind, &told));
            }
        });
        let node = fleet.node("node");
        let ca = format!("ca = {:?}\n", Credentials::of(&fleet.world).ca);
        node.reconfigure(&ca, "plain_http = true\n");
        node.reconfigure(&fleet.server().authority, &own);
        Shedding { sheds, _server: server }
    }

    fn ends(&self) {
        self.sheds.store(false, Ordering::SeqCst);
    }
}

/// One request of a connection.
fn serve(mut client: TcpStream, behind: &str, sheds: &AtomicBool) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !client.read(&mut byte).is_ok_and(|read| read == 1) {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.contains("/blobs/") && sheds.load(Ordering::SeqCst) {
        let answer =
            "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let _gone = client.write_all(answer.as_bytes());
        return;
    }
    let Ok(mut server) = TcpStream::connect(behind) else { return };
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let _gone = server.write_all(head.as_bytes());
    // What follows the head of a request, such as a report.
    if let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) {
        thread::spawn(move || std::io::copy(&mut from, &mut to));
    }
    let _gone = std::io::copy(&mut server, &mut client);
    let _gone = client.shutdown(std::net::Shutdown::Both);
}
