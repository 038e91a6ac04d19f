//! A server of reports that takes connections and answers none.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use formats::reason::Exit;
use racklet_tests::rig::{Node, World};
use serde_json::Value;

use crate::rig::{SLOTS, release};

/// Takes every connection and answers none, for as long as the client waits.
fn black_hole() -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a listener");
    let authority = listener.local_addr().expect("where it listens").to_string();
    let given_up = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&given_up);
    // Ends with the process.
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let told = Arc::clone(&told);
            thread::spawn(move || swallow(client, &told));
        }
    });
    (authority, given_up)
}

fn swallow(mut client: TcpStream, given_up: &AtomicBool) {
    let mut bytes = [0; 4096];
    while client.read(&mut bytes).is_ok_and(|read| read > 0) {}
    given_up.store(true, Ordering::SeqCst);
}

#[test]
fn an_update_waits_for_no_server_of_reports() {
    let world = World::with_repository();
    let v1 = release(&world, "1.0.0", 1);
    let _done = world.publish(&v1, &["--channel", "stable"]);
    let source = world.repository().reference();
    let node = Node::with_slots(&world, "node", &v1, &source, SLOTS);
    let (first, given_up) = black_hole();
    node.reconfigure("mode = \"notify\"", "mode = \"auto\"");
    node.reconfigure("deadline = \"600ms\"", "deadline = \"30s\"");
    let source = format!("[[source]]\nurl = \"docker://{first}/ns\"\nreports = true\n\n[boot]");
    node.reconfigure("[boot]", &source);
    let v2 = release(&world, "1.1.0", 2);
    let _done = world.publish(&v2, &["--channel", "stable"]);

    // The report of the start is on its way, and nobody answers it.
    let running = node.agent(&["run"]).start();
    running.await_file(&node.path("reboot-asked"), Duration::from_secs(120));
    assert!(
        !given_up.load(Ordering::SeqCst),
        "the update came after the report:\n{}",
        running.log()
    );
    running.kill();
    assert!(node.reboot_was_asked());
    // Nor does the confirm.
    assert_eq!(node.boot(), "b");
    let (second, given_up) = black_hole();
    node.reconfigure(&first, &second);
    let running = node.agent(&["run"]).start();
    let until = Instant::now() + Duration::from_secs(120);
    // Not by a look at the disk: the agent may be in the middle of a write.
    while node.status()["slots"]["b"]["confirmed"] != true {
        assert!(Instant::now() < until, "not confirmed:\n{}", running.log());
    }
    assert!(!given_up.load(Ordering::SeqCst), "the confirm came after the report");
    running.kill();
    assert_eq!(node.status()["runs"], "1.1.0");
    // Not reached is told, and is no error of the node.
    node.reconfigure(&second, "127.0.0.1:9");
    let _round = node.run_once().exits(Exit::Done);
    let status = node.status();
    assert_eq!(status["last_error"], Value::Null, "{status}");
    let to = &status["reports"][0];
    assert_eq!((&to["acknowledged"], &to["failed"]["code"]), (&Value::Null, &"unreachable".into()));
    let text = node.agent_in_words(&["status"]).ok().text();
    assert!(text.contains("reports  docker://127.0.0.1:9/ns: none acknowledged yet; fails since"));
}
