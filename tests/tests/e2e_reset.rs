//! `update-agent reset`, end to end: what is forgotten, what stays, and who may be trusted next.

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{CLEAR, Node, TRIES, World, confirmed, trial};

/// A node that was updated from 1.0.0 to 1.1.0, both of which are on its disk.
fn updated(world: &World) -> Node {
    let v1 = world.publish_stable("1.0.0", 1);
    world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(world, "node", &v1, &world.repository().reference());
    node.update(&[], "b");
    node
}

/// Case 174, on purpose: the trusted metadata are gone, and still nothing older comes back.
#[test]
fn case_174_what_a_reset_forgets_and_what_it_keeps() {
    let world = World::with_repository();
    let publish = |version: &str, number: u64| {
        let release = world.release(version, number);
        let number = number.to_string();
        let options = ["--channel", "stable", "--security-version", &number];
        let _done = world.publish(&release, &options);
        release
    };
    let v1 = publish("1.0.0", 1);
    // A copy of the repository while 1.0.0 was all it had: a repository that was set back.
    let old = world.path("old");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([world.repository().dir(), old.as_path()])
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    publish("1.1.0", 2);
    node.update(&[], "b");
    let v3 = publish("1.2.0", 3);
    node.update(&[], "a");
    let set_back = format!("oci:{}:racklet", old.display());
    node.agent(&["apply", &set_back]).finish().refused(Reason::VersionRollback);

    node.agent(&["reset"]).finish().refused(Reason::Usage);
    assert!(!node.status()["metadata"].is_null(), "a refused reset forgot something");
    let done = node.agent(&["reset", "--yes"]).ok().json();
    assert_eq!((&done["reset"], &done["booted"]), (&true.into(), &"a".into()), "{done}");
    assert_eq!(done["floor"], 2, "{done}");
    let status = node.status();
    assert!(status["metadata"].is_null(), "{status}");
    node.disk.expect(confirmed(2), confirmed(1));
    node.expect_slot("a", &v3);

    // The metadata of the set-back repository are trusted now; what they offer is too old.
    let older = node.agent(&["apply", &set_back]).finish();
    older.refused(Reason::VersionRollback);
    assert!(older.output().contains("1.0.0 is older than 1.2.0, which runs"), "{}", older.output());
    node.disk.expect(confirmed(2), confirmed(1));
    let check = node.agent(&["check"]).finish().exits(Exit::Nothing).json();
    assert_eq!(check["decision"], "up_to_date", "{check}");
    assert_eq!(node.boot(), "a");
}

#[test]
fn a_reset_leads_to_another_repository() {
    let world = World::with_repository();
    let node = updated(&world);
    let other = World::with_repository();
    other.publish_stable("2.0.0", 2);
    let repository = other.repository().reference();
    let strange = node.agent(&["apply", &repository]).finish();
    strange.refused(Reason::SigThreshold);

    let root = other.path("root.json").display().to_string();
    let _done = node.agent(&["reset", "--root", &root]).finish().exits(Exit::Usage);
    let broken = node.path("broken.json");
    std::fs::write(&broken, b"{}").expect("write a file");
    let broken = broken.display().to_string();
    node.agent(&["reset", "--yes", "--root", &broken]).finish().refused(Reason::Config);
    assert!(!node.status()["metadata"].is_null(), "a refused reset forgot something");

    let _done = node.agent(&["reset", "--yes", "--root", &root]).ok();
    // The configuration names the old one still, which counts no more.
    let output = node.agent_in_words(&["doctor"]).finish().output();
    let says = |line: &str| line.contains(" trust root ") && line.contains("reset --root");
    assert!(output.lines().any(says), "{output}");
    let report = node.update(&[&repository], "a");
    assert_eq!(report["version"], "2.0.0", "{report}");
    // And the old one is a stranger now.
    let old = node.agent(&["apply", &world.repository().reference()]).finish();
    assert_eq!(old.code, i32::from(Exit::Trust.code()), "{}", old.output());
    // The root that was given last stays, whatever is forgotten.
    let _done = node.agent(&["reset", "--yes"]).ok();
    let old = node.agent(&["apply", &world.repository().reference()]).finish();
    let _done = old.exits(Exit::Trust);
}

#[test]
fn a_trial_is_not_forgotten_and_what_is_next_is_given_up() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    world.publish_stable("1.1.0", 2);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    node.apply(&[]);
    let done = node.agent(&["reset", "--yes"]).ok().json();
    assert_eq!(done["booted"], "a", "{done}");
    node.disk.expect(confirmed(1), CLEAR);
    assert_eq!(node.boot(), "a");

    // It did not fail, so it is not remembered as a failure.
    node.apply(&[]);
    assert_eq!(node.boot(), "b");
    node.disk.expect(confirmed(1), trial(TRIES - 1));
    node.agent(&["reset", "--yes"]).finish().refused(Reason::TrialActive);
    let _done = node.run_once().exits(Exit::Done);
    let _done = node.agent(&["reset", "--yes"]).ok();
    node.disk.expect(confirmed(1), confirmed(2));
}
