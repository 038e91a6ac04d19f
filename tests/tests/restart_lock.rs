//! The restart lock: nodes ask the real server, and one that follows the letter of the FleetLock protocol.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use formats::reason::Exit;
use racklet_tests::rig::{Node, RepoServer, World, program};
use serde_json::Value;

/// A node on 1.0.0 that updates by itself and asks this server first.
fn node(world: &World, name: &str, lock: &str) -> Node {
    let v1 = world.release("1.0.0", 1);
    let node = Node::from_factory(world, name, &v1, &world.repository().reference());
    let config = fs::read_to_string(node.config()).expect("read");
    let config = config.replace("mode = \"notify\"", "mode = \"auto\"");
    fs::write(node.config(), format!("{config}\n{lock}")).expect("write");
    node
}

/// What a round of the daemon did.
#[track_caller]
fn round(node: &Node) -> String {
    let done = node.run_once();
    let did = done.json()["did"].as_str().unwrap_or_default().to_owned();
    let _done = done.exits(if did == "trial_failed" { Exit::Boot } else { Exit::Done });
    did
}

fn lock_of(node: &Node) -> Value {
    node.status()["restart_lock"].clone()
}

#[test]
fn of_three_nodes_one_restarts_at_a_time() {
    let world = World::with_repository();
    let _v1 = world.publish_stable("1.0.0", 1);
    let fleet = world.path("fleet");
    let dir = fleet.display().to_string();
    let server =
        RepoServer::started(&world, &["--read-only", "--fleet", &dir, "--fleet-group", "rack=1"]);
    let lock = format!(
        "[restart_lock]\nurl = \"https://{}/\"\nca = {:?}\ngroup = \"rack\"\n",
        server.authority,
        world.path("ca.pem")
    );
    let [first, second, third] = ["one", "two", "three"].map(|name| node(&world, name, &lock));
    world.publish_stable("1.1.0", 2);
    let held = || {
        let said = program("repo-server").args(["fleet", "locks", "--json", "--fleet"]);
        let said = said.arg(&fleet).ok().json();
        said["locks"].as_array().map_or(0, Vec::len)
    };

    assert_eq!(round(&first), "applied");
    assert!(first.reboot_was_asked());
    let own = lock_of(&first);
    assert_eq!((&own["granted"], &own["code"]), (&true.into(), &Value::Null), "{own}");
    for waiting in [&second, &third] {
        assert_eq!(round(waiting), "notified");
        assert!(!waiting.reboot_was_asked(), "another one restarts");
        let own = lock_of(waiting);
        assert_eq!((&own["granted"], &own["code"]), (&false.into(), &"restart_locked".into()));
        let message = own["message"].as_str().unwrap_or_default();
        assert!(message.contains("1 node of group rack restarts already"), "{message}");
    }
    let explained = second.agent_in_words(&["explain"]).ok().text();
    assert!(explained.contains("note: the restart waits for the restart lock"), "{explained}");
    let status = second.agent_in_words(&["status"]).ok().text();
    assert!(status.contains("lock     not granted in group rack"), "{status}");

    // Held over the restart, until the trial has passed.
    assert_eq!(first.boot(), "b");
    assert_eq!(round(&second), "notified");
    assert_eq!(round(&first), "confirmed");
    assert_eq!((lock_of(&first), held()), (Value::Null, 0));

    // The next one loses its trials, and gives the lock back when it has gone back.
    assert_eq!(round(&second), "notified");
    assert!(second.reboot_was_asked());
    second.set_healthy(false);
    for _ in 0..3 {
        assert_eq!(second.boot(), "b");
        assert_eq!(round(&second), "trial_failed");
        assert!(second.reboot_was_asked());
        assert_eq!(held(), 1);
    }
    assert_eq!(second.boot(), "a");
    assert_eq!(round(&third), "notified");
    assert!(!third.reboot_was_asked());
    assert_eq!(round(&second), "reverted");
    assert_eq!((lock_of(&second), held()), (Value::Null, 0));

    // The server is killed, and knows nothing less.
    assert_eq!(round(&third), "notified");
    assert!(third.reboot_was_asked());
    assert_eq!(held(), 1);
    let _log = server.stop();
    assert_eq!(third.boot(), "b");
    assert_eq!(round(&third), "confirmed", "a server that is gone ends no trial");
    let own = lock_of(&third);
    assert_eq!((&own["granted"], &own["code"]), (&true.into(), &"unreachable".into()), "{own}");
    assert_eq!(held(), 1);
}

#[test]
fn a_server_that_is_gone_delays_a_restart_for_a_limited_time() {
    let world = World::with_repository();
    let _v1 = world.publish_stable("1.0.0", 1);
    // Nobody listens on it any more.
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let lock = format!(
        "[hooks]\nrestart_delay_limit = \"2s\"\n[restart_lock]\nurl = \"http://{gone}\"\nid = \"node-7\"\n"
    );
    let node = node(&world, "node", &lock);
    world.publish_stable("1.1.0", 2);
    assert_eq!(round(&node), "notified");
    assert!(!node.reboot_was_asked());
    assert_eq!(lock_of(&node)["code"], "unreachable");
    // As long as it takes, over several programs.
    while !node.reboot_was_asked() {
        assert_eq!(round(&node), "notified");
    }
    assert_eq!(node.boot(), "b");
    assert_eq!(round(&node), "confirmed");
    assert_eq!(lock_of(&node)["id"], "node-7", "it may be held");
}

/// A request as it came: its first line, its headers in small letters, and its body.
struct Came {
    line: String,
    headers: Vec<String>,
    body: Value,
}

/// A server that answers with these, one after the other; the last one again and again. An empty answer is a
/// connection that is closed.
fn foreign(answers: &'static [&'static str]) -> (String, Receiver<Came>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (came, seen) = channel();
    std::thread::spawn(move || {
        let mut answers = answers.iter().peekable();
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).expect("a line") == 0 || line == "\r\n" {
                    break;
                }
                lines.push(line.trim_end().to_owned());
            }
            let line = lines.remove(0);
            let headers: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
            let length = headers.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
            reader.read_exact(&mut body).expect("the body");
            let answer = match answers.len() {
                1 => answers.peek().copied(),
                _ => answers.next(),
            };
            let answer = answer.copied().unwrap_or_default();
            let body = serde_json::from_slice(&body).expect("JSON");
            let _nobody = came.send(Came { line, headers, body });
            let _gone = reader.into_inner().write_all(answer.as_bytes());
        }
    });
    (format!("http://{address}/base"), seen)
}

const GRANTED: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\nobtained lease";

/// Text instead of JSON with a grant, another status with a refusal, a grant whose answer is lost.
#[test]
fn a_server_that_follows_the_letter_of_the_protocol() {
    let (url, seen) = foreign(&[
        "HTTP/1.1 466 No\r\nContent-Length: 45\r\nConnection: close\r\n\r\n{\"kind\":\"failure_foo\",\"value\":\"not so fast!\"}",
        "",
        "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
        GRANTED,
        "HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        GRANTED,
    ]);
    let world = World::with_repository();
    let _v1 = world.publish_stable("1.0.0", 1);
    let node = node(&world, "node", &format!("[restart_lock]\nurl = \"{url}\"\nid = \"node 7\"\n"));
    world.publish_stable("1.1.0", 2);

    let asked = |path: &str| {
        let came = seen.recv_timeout(std::time::Duration::from_secs(60)).expect("it was asked");
        assert_eq!(came.line, format!("POST /base/v1/{path} HTTP/1.1"));
        for header in ["fleet-lock-protocol: true", "content-type: application/json"] {
            assert!(came.headers.iter().any(|it| it == header), "{header}: {:?}", came.headers);
        }
        let params = serde_json::json!({ "client_params": { "id": "node 7", "group": "default" } });
        assert_eq!(came.body, params);
    };
    assert_eq!(round(&node), "notified");
    asked("pre-reboot");
    let own = lock_of(&node);
    assert_eq!(own["message"], format!("{url} says: not so fast! (failure_foo)"), "{own}");
    assert_eq!(round(&node), "notified");
    asked("pre-reboot");
    assert_ne!(lock_of(&node)["code"], "restart_locked", "it did not answer");
    // Only 200 grants anything.
    assert_eq!(round(&node), "notified");
    asked("pre-reboot");
    assert!(!node.reboot_was_asked());
    assert_eq!(round(&node), "notified");
    asked("pre-reboot");
    assert!(node.reboot_was_asked());
    assert_eq!(lock_of(&node)["granted"], true);

    assert_eq!(node.boot(), "b");
    assert_eq!(round(&node), "confirmed");
    asked("steady-state");
    assert_eq!(lock_of(&node)["code"], "restart_locked", "not given back yet");
    assert_eq!(round(&node), "notified");
    asked("steady-state");
    assert_eq!(lock_of(&node), Value::Null);
}
