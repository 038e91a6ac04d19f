//! When the daemon polls: at once when it starts, soon again where nobody answered.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use racklet_tests::rig::{Node, World};

/// The seconds until the next round, as the daemon tells systemd.
#[track_caller]
fn next_round(socket: &UnixDatagram) -> u64 {
    loop {
        let mut bytes = [0; 4096];
        let len = socket.recv(&mut bytes).expect("the daemon says when its next round is");
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        let said = text.lines().find_map(|line| line.strip_prefix("STATUS=next round in "));
        if let Some(seconds) = said.and_then(|said| said.strip_suffix(" s")) {
            return seconds.parse().expect("a number");
        }
    }
}

/// The network is late: the first poll fails, is told once, and made up within about a minute, however long
/// the interval. Once somebody answers, the interval is what counts, and the start of the daemon is a poll.
#[test]
fn a_poll_that_reached_nobody_is_made_up_soon_and_told_once() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let repository = world.repository().reference();
    let node = Node::from_factory(&world, "node", &v1, "docker://127.0.0.1:9");
    node.reconfigure("interval = \"1h\"", "interval = \"1d\"");
    let path = node.path("notify");
    let socket = UnixDatagram::bind(&path).expect("bind a socket");
    socket.set_read_timeout(Some(Duration::from_secs(120))).expect("set its time limit");
    let daemon = || node.agent(&["run"]).env("NOTIFY_SOCKET", &path).start();

    let running = daemon();
    let wait = next_round(&socket);
    assert!((54..=66).contains(&wait), "{wait} s until the next poll");
    let log = running.terminate().stderr;
    assert_eq!(log.matches("cannot reach").count(), 1, "told once:\n{log}");

    // Switched on again, with a network: whatever was missed is made up at once.
    node.reconfigure("docker://127.0.0.1:9", &repository);
    assert!(node.status()["last_check"].is_null(), "never checked");
    let running = daemon();
    let wait = next_round(&socket);
    assert!((77_760..=95_040).contains(&wait), "{wait} s until the next poll");
    assert!(node.status()["last_check"].is_u64(), "the first poll is at the start");
    running.kill();
}

/// Another agent is at work: the poll is repeated soon.
#[test]
fn a_poll_that_was_not_its_turn_is_made_up_soon() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let _made = node.agent(&["check"]).finish();
    let path = node.path("notify");
    let socket = UnixDatagram::bind(&path).expect("bind a socket");
    socket.set_read_timeout(Some(Duration::from_secs(120))).expect("set its time limit");
    let lock = std::fs::File::open(node.state().join("lock")).expect("open the lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .expect("lock it");
    let running = node.agent(&["run"]).env("NOTIFY_SOCKET", &path).start();
    let wait = next_round(&socket);
    assert!((54..=66).contains(&wait), "{wait} s until the next poll");
    running.kill();
}
