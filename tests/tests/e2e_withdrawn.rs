//! A release that its maintainers take back: no node installs it, and nodes that run it say so.

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Node, PRODUCT, World, confirmed};
use serde_json::Value;

const BECAUSE: &str = "loses data on power cuts";

fn withdraw(world: &World, version: &str) {
    let release = ["release", "withdraw", version, "--product", PRODUCT, "--because", BECAUSE];
    let _done = world.signer(&release).ok();
}

fn metric(node: &Node, line: &str) -> bool {
    let page = node.agent_in_words(&["metrics"]).finish().exits(Exit::Done);
    page.text().lines().any(|printed| printed == line)
}

#[test]
fn nodes_that_run_it_are_told_and_others_do_not_get_it() {
    let world = World::with_repository();
    let source = world.repository().reference();
    let v1 = world.publish_stable("1.0.0", 1);
    let _v2 = world.publish_stable("1.1.0", 2);
    let runs = Node::from_factory(&world, "runs", &v1, &source);
    let next = Node::from_factory(&world, "next", &v1, &source);
    let new = Node::from_factory(&world, "new", &v1, &source);
    runs.update(&[], "b");
    next.apply(&[]);
    let usb = world.path("usb.tar");
    world.bundle("1.1.0", &usb);
    assert!(metric(&runs, "update_agent_release_withdrawn 0"));

    withdraw(&world, "1.1.0");

    // It goes on, and says so: to whoever asks, in the daemon's log, and to the monitoring.
    let check = runs.agent(&["check"]).finish().exits(Exit::Nothing).json();
    assert_eq!(check["withdrawn"]["code"], "withdrawn", "{check}");
    assert_eq!(check["withdrawn"]["because"], BECAUSE, "{check}");
    assert_eq!(check["available"], Value::Null, "{check}");
    let status = runs.status();
    assert_eq!(status["withdrawn"]["version"], "1.1.0", "{status}");
    let words = runs.agent_in_words(&["status"]).finish().text();
    let line =
        format!("WITHDRAWN: 1.1.0, which runs here, was withdrawn by its maintainers: {BECAUSE}");
    assert!(words.lines().any(|printed| printed == line), "{words}");
    assert!(metric(&runs, "update_agent_release_withdrawn 1"));
    let _done = runs.run_once().exits(Exit::Done);
    assert!(!runs.reboot_was_asked(), "nothing is done about it");
    runs.disk.expect(confirmed(1), confirmed(2));

    // Where it is next it is not tried any more.
    let done = next.run_once().exits(Exit::Done).json();
    assert_eq!(done["did"], "withheld", "{done}");
    assert_eq!(next.boot(), "a");

    // Nobody else gets it, not by its name either.
    assert_eq!(
        new.agent(&["check"]).finish().exits(Exit::Nothing).json()["withdrawn"],
        Value::Null
    );
    let named = new.agent(&["apply", "--version", "1.1.0"]).finish();
    named.refused(Reason::Withdrawn);
    // A stick from before says what was true then; whoever knows better refuses it.
    let usb = usb.display().to_string();
    new.agent(&["apply", &usb]).finish().refused(Reason::VersionRollback);
    new.disk.expect(confirmed(1), racklet_tests::rig::CLEAR);

    // The next release is for all of them, and ends the message.
    let v3 = world.publish_stable("1.2.0", 3);
    runs.update(&[], "a");
    runs.expect_slot("a", &v3);
    assert_eq!(runs.status()["withdrawn"], Value::Null);
    assert!(metric(&runs, "update_agent_release_withdrawn 0"));
    new.update(&[], "b");
    new.expect_slot("b", &v3);
}

/// The daemon's log says it when it learns it, and not at every poll.
#[test]
fn the_log_says_it_once() {
    let world = World::with_repository();
    let source = world.repository().reference();
    let v1 = world.publish_stable("1.0.0", 1);
    let _v2 = world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(&world, "node", &v1, &source);
    node.update(&[], "b");
    withdraw(&world, "1.1.0");
    let told =
        |done: &racklet_tests::rig::Done| done.stderr.contains("was withdrawn by its maintainers");
    assert!(told(&node.run_once()), "the first round tells it");
    assert!(!told(&node.run_once()), "the next one does not repeat it");
    assert_eq!(node.status()["withdrawn"]["because"], BECAUSE);
}
