//! The main job, end to end, with the programs as they are shipped: publish, apply, boot, confirm,
//! or revert.

use formats::reason::{Exit, Reason};
use formats::report::SignedReport;
use racklet_tests::rig::{
    CLEAR, Node, RepoServer, TRIES, Tap, UNRELATED, World, confirmed, redact, trial,
};

/// What every update must have done by the time it is next.
#[track_caller]
fn expect_next(node: &Node, report: &serde_json::Value, slot: &str, version: &str) {
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["slot"], slot, "{report}");
    assert_eq!(report["version"], version, "{report}");
    assert_eq!(report["activated"], true, "{report}");
    match slot {
        "a" => node.disk.expect(trial(TRIES), confirmed(1)),
        _ => node.disk.expect(confirmed(1), trial(TRIES)),
    }
}

#[test]
fn from_a_registry_over_tls() {
    let (world, server) = RepoServer::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let v2 = world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(&world, "node", &v1, &server.reference());

    expect_next(&node, &node.apply(&[]), "b", "1.1.0");
    node.expect_slot("a", &v1);
    node.expect_slot("b", &v2);

    assert_eq!(node.boot(), "b");
    node.disk.expect(confirmed(1), trial(TRIES - 1));
    let done = node.run_once().exits(Exit::Done).json();
    assert_eq!((&done["did"], &done["slot"]), (&"confirmed".into(), &"b".into()), "{done}");
    node.disk.expect(confirmed(1), confirmed(2));
    assert!(!node.reboot_was_asked(), "a healthy system asked for a reboot");
    let check = node.agent(&["check"]).finish().exits(Exit::Nothing).json();
    assert_eq!(check["decision"], "up_to_date", "{check}");
}

#[test]
fn from_a_directory() {
    let world = World::with_repository();
    let (v1, v2) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    expect_next(&node, &node.apply(&[]), "b", "1.1.0");
    node.expect_slot("b", &v2);
}

#[test]
fn from_a_bundle_without_any_network() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let v2 = world.publish_stable("1.1.0", 2);
    let tar = world.path("usb.tar");
    world.bundle("1.1.0", &tar);
    let folder = world.path("usb");
    world.bundle("1.1.0", &folder);
    // The maintainers' repository is gone: the bundle is all there is.
    std::fs::remove_dir_all(world.repository().dir()).expect("remove the repository");

    let places = [
        ("tar by its path", tar.display().to_string()),
        ("tar by its reference", format!("oci-archive:{}:racklet", tar.display())),
        ("folder by its path", folder.display().to_string()),
    ];
    for (number, (name, place)) in places.iter().enumerate() {
        let node = Node::from_factory(&world, &format!("node-{number}"), &v1, "");
        let report = node.update(&[place], "b");
        assert_eq!(report["version"], "1.1.0", "{name}: {report}");
        node.expect_slot("b", &v2);
        node.disk.expect(confirmed(1), confirmed(2));
    }
}

#[test]
fn the_next_release_reuses_the_booted_slot() {
    let (world, server) = RepoServer::with_repository();
    let v1 = world.publish_stable("1.0.0", UNRELATED);
    let _v2 = world.publish_stable("1.1.0", 2);
    let tap = Tap::to(&server.authority);
    let node =
        Node::from_factory(&world, "node", &v1, &format!("docker://{}/racklet", tap.authority));
    let first = node.update(&[], "b");
    let first_over_the_line = tap.passed();

    let v3 = world.publish_stable("1.2.0", 3);
    let second = node.update(&[], "a");
    let second_over_the_line = tap.passed() - first_over_the_line;
    node.expect_slot("a", &v3);
    node.disk.expect(confirmed(2), confirmed(1));

    let fetched = |report: &serde_json::Value| report["fetched"].as_u64().expect("a number");
    let (first, second) = (fetched(&first), fetched(&second));
    assert!(second * 4 < first, "fetched {first} bytes at first, then {second}");
    // What the agent says agrees with what passed on the line; TLS and documents come on top.
    for (said, passed) in [(first, first_over_the_line), (second, second_over_the_line)] {
        let on_top = passed.checked_sub(said);
        assert!(on_top.is_some_and(|on_top| on_top < 250_000), "{said} said, {passed} passed");
    }

    // A fleet's server is told what came from where.
    let v4 = world.release("1.3.0", 4);
    let _done = world.publish(&v4, &["--channel", "stable", "--delta-from", "1.2.0"]);
    let third = fetched(&node.update(&[], "b"));
    node.expect_slot("b", &v4);
    let report = node.agent_in_words(&["report", "-o", "-"]).ok().text();
    let report = SignedReport::verify(report.as_bytes()).expect("a report");
    let bytes = report.report().bytes.expect("it received some");
    let (delta, reuse) = (bytes.delta.expect("a delta"), bytes.reuse.expect("it had some"));
    assert!(bytes.registry >= first + second + third && bytes.bundle == 0, "{bytes:?}");
    assert!((1..=third).contains(&delta) && reuse > first, "{bytes:?}, {third} the last time");
}

#[test]
fn a_failing_release_is_reverted_and_remembered() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let v2 = world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let mut story = vec![step(&world, &node, "factory")];

    node.apply(&[]);
    story.push(step(&world, &node, "apply 1.1.0"));
    node.set_healthy(false);
    for left in (0..TRIES).rev() {
        assert_eq!(node.boot(), "b", "the boot that leaves {left} tries");
        node.disk.expect(confirmed(1), trial(left));
        let done = node.run_once().exits(Exit::Boot).json();
        assert_eq!(done["did"], "trial_failed", "{done}");
        assert!(node.reboot_was_asked(), "unhealthy, but no reboot was asked: {done}");
        assert!(node.disk.flags("root-b").priority > 0 || left == 0);
    }
    story.push(step(&world, &node, "three boots fail"));

    assert_eq!(node.boot(), "a", "the boot after the last try (L3)");
    node.set_healthy(true);
    let done = node.run_once().exits(Exit::Done).json();
    assert_eq!((&done["did"], &done["slot"]), (&"reverted".into(), &"b".into()), "{done}");
    assert!(!node.reboot_was_asked(), "the old system asked for a reboot");
    node.disk.expect_valid();
    assert!(node.disk.flags("root-a").successful, "slot a is no longer confirmed");
    story.push(step(&world, &node, "the old system runs again"));

    // The same release is not tried again by itself, whoever asks.
    node.agent(&["apply"]).finish().refused(Reason::FailedBefore);
    node.agent(&["apply", "--version", "1.1.0"]).finish().refused(Reason::FailedBefore);
    assert_eq!(node.run_once().exits(Exit::Done).json()["decision"], "failed_before");
    let failures = node.status()["failures"].clone();
    assert_eq!(failures[0]["release"]["version"], "1.1.0", "{failures}");
    story.push(step(&world, &node, "apply again is refused"));

    // An operator may insist.
    let retried = node.update(&["--retry"], "b");
    assert_eq!(retried["version"], "1.1.0", "{retried}");
    node.expect_slot("b", &v2);
    story.push(step(&world, &node, "apply --retry, boot, healthy"));
    let history = node.agent_in_words(&["history"]).ok();
    story.push(format!("history\n{}", redact(&world, &history.text())));
    insta::assert_snapshot!("a_failing_release", story.join("\n"));
}

#[test]
fn a_newer_release_heals_a_node_whose_update_failed() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let _v2 = world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    node.apply(&[]);
    node.set_healthy(false);
    for _ in 0..TRIES {
        assert_eq!(node.boot(), "b");
        let _failed = node.run_once().exits(Exit::Boot);
    }
    assert_eq!(node.boot(), "a");
    node.set_healthy(true);
    // The revert is recorded by whatever command comes first.
    let v3 = world.publish_stable("1.2.0", 3);
    let report = node.update(&[], "b");
    assert_eq!(report["version"], "1.2.0", "{report}");
    node.expect_slot("b", &v3);
    node.expect_slot("a", &v1);
    node.disk.expect(confirmed(1), confirmed(2));
    let failures = node.status()["failures"].clone();
    assert_eq!(failures[0]["release"]["version"], "1.1.0", "{failures}");
}

#[test]
fn a_confirmed_slot_spends_no_tries() {
    let world = World::with_repository();
    let (v1, _) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    node.update(&[], "b");
    // Random power failures in normal life (case 166).
    for _ in 0..5 {
        assert_eq!(node.boot(), "b");
        node.disk.expect(confirmed(1), confirmed(2));
    }
}

#[test]
fn a_poll_without_news_is_one_conditional_request() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let server = RepoServer::start(&world);
    let node = Node::from_factory(&world, "node", &v1, &server.reference());
    let _first = node.agent(&["check"]).finish().exits(Exit::Nothing);
    let _second = node.agent(&["check"]).finish().exits(Exit::Nothing);
    let _third = node.run_once().exits(Exit::Done);
    let log = server.stop();
    let requests: Vec<&str> = log.lines().filter(|line| line.contains("/v2/")).collect();
    let unchanged = |line: &&str| line.contains("status=304");
    let (first, polls) = requests.split_at(requests.len() - 2);
    assert!(polls.iter().all(unchanged) && !first.iter().any(unchanged), "{log}");
    assert!(polls.iter().all(|line| line.contains("/v2/racklet/tuf/manifests/latest")), "{log}");
}

#[test]
fn policy_decides_how_far_the_daemon_goes() {
    let world = World::with_repository();
    let (v1, v2) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let run = || node.run_once().exits(Exit::Done).json()["did"].clone();

    assert_eq!(run(), "notified");
    node.disk.expect(confirmed(1), CLEAR);
    assert!(node.disk.content("root-b", 4096).iter().all(|byte| *byte == 0), "nothing is written");

    node.reconfigure("mode = \"notify\"", "mode = \"stage\"");
    assert_eq!(run(), "staged");
    node.disk.expect(confirmed(1), CLEAR);
    node.expect_slot("b", &v2);
    assert_eq!(run(), "notified", "what is staged is not staged again");

    node.reconfigure("mode = \"stage\"", "mode = \"auto\"");
    assert!(!node.reboot_was_asked());
    assert_eq!(run(), "applied");
    node.disk.expect(confirmed(1), trial(TRIES));
    assert!(node.reboot_was_asked());
    assert_eq!(node.boot(), "b");
    assert_eq!(run(), "confirmed");
    node.disk.expect(confirmed(1), confirmed(2));
    assert_eq!(run(), "notified");
}

#[test]
fn revert_by_hand() {
    let world = World::with_repository();
    let (v1, _) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let _applied = node.apply(&["--reboot"]);
    assert!(node.reboot_was_asked(), "apply --reboot");
    assert_eq!(node.boot(), "b");
    let done = node.agent(&["revert", "--reason", "too slow", "--reboot"]).ok().json();
    assert_eq!((&done["given_up"], &done["reboot"]), (&"b".into(), &true.into()), "{done}");
    assert!(node.reboot_was_asked(), "revert --reboot");
    assert_eq!(node.boot(), "a");
    node.disk.expect(confirmed(1), CLEAR);
    node.agent(&["apply"]).finish().refused(Reason::FailedBefore);
}

/// One step of a story: the slots in one line each, and what the agent makes of them.
fn step(world: &World, node: &Node, what: &str) -> String {
    let (a, b) = (node.disk.flags("root-a"), node.disk.flags("root-b"));
    let status = node.agent_in_words(&["status"]).finish();
    let text = redact(world, &status.text());
    let words = ["update", "failed", "error"];
    let lines = text.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
    let lines: Vec<&str> = lines.collect();
    format!("{what}\n  a {a}; b {b}\n  {}", lines.join("\n  "))
}

#[test]
fn what_runs_already_is_not_installed() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    // The channel offers what runs: nothing happens.
    let done = node.agent(&["apply"]).finish().exits(Exit::Nothing).json();
    assert_eq!(done["code"], "up_to_date", "{done}");
    node.disk.expect(confirmed(1), CLEAR);
}
