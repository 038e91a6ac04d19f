//! Others write to a node's disk, too: a slot that is no longer what the record says of it.

use std::fs;
use std::os::unix::fs::FileExt as _;

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{CLEAR, Node, Release, UNRELATED, World, confirmed, tool};

/// A node with 1.0.0 from its factory, and the releases after it.
fn node(world: &World) -> (Node, Release) {
    let v1 = world.publish_stable("1.0.0", 1);
    let v2 = world.publish_stable("1.1.0", 2);
    (Node::from_factory(world, "node", &v1, &world.repository().reference()), v2)
}

/// Changes one byte in each of these places of a partition.
fn flip(node: &Node, label: &str, places: impl Iterator<Item = usize>) {
    let (start, _) = node.disk.extent(label);
    let file = fs::OpenOptions::new().read(true).write(true).open(node.disk.path()).expect("open");
    for place in places {
        let (mut byte, at) = ([0], start + place as u64);
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 0x55], at).expect("write");
    }
}

/// `status` says that a slot is foreign, and how it shows.
#[track_caller]
fn expect_foreign(node: &Node, slot: &str, how: &str) {
    assert_eq!(node.status()["foreign"][slot], how);
    let words = node.agent_in_words(&["status"]).ok().text();
    let said = format!("slot {slot} was written by another program since: {how}");
    assert!(words.contains(&said), "{words}");
    let doctor = node.agent_in_words(&["doctor"]).finish().text();
    assert!(doctor.contains(&format!("weak slots            {said}")), "{doctor}");
}

/// What another program may do to the slot that waits for its boot.
fn overwritten(name: &str, how: &str, meddle: impl Fn(&Node, &Release)) {
    let world = World::with_repository();
    let (node, v2) = node(&world);
    node.apply(&[]);
    assert_eq!(node.status()["foreign"], serde_json::json!({}), "{name}");
    meddle(&node, &v2);
    expect_foreign(&node, "b", how);

    // Whatever comes next writes it off: the boot loader is not sent there.
    let _done = node.run_once().exits(Exit::Done);
    assert_eq!(node.disk.flags("root-b"), CLEAR, "{name}");
    assert_eq!(node.status()["failures"], serde_json::json!([]), "{name}");
    assert_eq!(node.status()["standing"], "interrupted", "{name}");
    assert_eq!(node.boot(), "a", "{name}");
    node.update(&[], "b");
    node.expect_slot("b", &v2);
    assert_eq!(node.status()["foreign"], serde_json::json!({}), "{name}");
}

#[test]
fn a_slot_that_was_written_whole_is_written_again() {
    overwritten("whole", "it holds something else", |node, _| {
        node.disk.preinstall("root-b", &racklet_tests::rig::system(UNRELATED));
    });
}

#[test]
fn a_change_in_any_sampled_place_is_noticed() {
    // An image ends with zeros; what is before them is its last chunk of data.
    let last = |v2: &Release| v2.os.bytes.len() - 300_002;
    overwritten("first", "it holds something else", |node, _| {
        flip(node, "root-b", [100].into_iter());
    });
    overwritten("last", "it holds something else", |node, v2| {
        flip(node, "root-b", [last(v2)].into_iter());
    });
    // Which one is drawn is the agent's to choose: each but those at both ends.
    overwritten("drawn", "it holds something else", |node, v2| {
        flip(node, "root-b", (262_144..last(v2) - 262_144).step_by(4096));
    });
    overwritten("another component", "it holds something else", |node, _| {
        flip(node, "fw-b", [100].into_iter());
    });
}

#[test]
fn a_partition_that_was_made_anew_is_noticed() {
    overwritten("made anew", "its partition was made anew", |node, _| {
        let guid = "2:5AC4E700-0000-4000-8000-00000000000F";
        tool("sgdisk", "gdisk").args(["-u", guid]).arg(node.disk.path()).ok();
    });
    overwritten("another size", "its partition or device has another size", |node, _| {
        let path = node.disk.path();
        let attributes = tool("sgdisk", "gdisk").args(["-i", "4"]).arg(path).ok().text();
        assert!(attributes.contains("fw-b"), "{attributes}");
        let guid = "4:5AC4E700-0000-4000-8000-000000000004";
        let (start, _) = node.disk.extent("fw-b");
        let place = format!("4:{}:+1024", start / 512);
        tool("sgdisk", "gdisk")
            .args(["-d", "4", "-n", &place, "-c", "4:fw-b", "-u", guid])
            .arg(path)
            .ok();
    });
}

/// A system that was written over is another one, whatever the record says: an update is no "nothing to do".
#[test]
fn the_booted_slot_that_was_written_over_gets_the_update_that_it_is_said_to_have() {
    let world = World::with_repository();
    let (node, v2) = node(&world);
    node.update(&[], "b");
    let check = node.agent(&["check"]).finish().exits(Exit::Nothing).json();
    assert_eq!(check["decision"], "up_to_date", "{check}");
    node.disk.preinstall("root-b", &racklet_tests::rig::system(UNRELATED));
    expect_foreign(&node, "b", "it holds something else");
    let report = node.apply(&[]);
    assert_eq!((&report["slot"], &report["version"]), (&"a".into(), &"1.1.0".into()), "{report}");
    node.expect_slot("a", &v2);
}

/// Nobody is sent back to a system that nobody knows, before an operator has said that it is good.
#[test]
fn a_fallback_that_was_written_over_is_not_gone_back_to_in_silence() {
    let world = World::with_repository();
    let (node, _) = node(&world);
    node.update(&[], "b");
    world.publish_stable("1.2.0", 3);
    node.update(&[], "a");
    node.disk.preinstall("root-b", &racklet_tests::rig::system(UNRELATED));
    expect_foreign(&node, "b", "it holds something else");
    let refused = node.agent(&["revert"]).finish();
    refused.refused(Reason::BootRecord);
    assert!(refused.output().contains("confirm --adopt"), "{}", refused.output());
    node.agent(&["mark-bad", "--slot", "a"]).finish().refused(Reason::BootRecord);
    node.disk.expect(confirmed(2), confirmed(1));

    node.agent(&["confirm", "--adopt"]).ok();
    assert_eq!(node.status()["foreign"], serde_json::json!({}));
    node.agent(&["revert"]).ok();
    node.disk.expect(CLEAR, confirmed(1));
}

/// A disk that was exchanged for one as the factory makes it: the state is still that of the other.
#[test]
fn an_exchanged_disk_is_noticed() {
    let world = World::with_repository();
    let (node, v2) = node(&world);
    let factory = fs::read(node.disk.path()).expect("read the disk");
    node.update(&[], "b");
    fs::write(node.disk.path(), factory).expect("exchange the disk");
    assert_eq!(node.boot(), "a");
    expect_foreign(&node, "b", "it holds something else");
    node.update(&[], "b");
    node.expect_slot("b", &v2);
}

/// A state directory that is another node's: what it says of the slots is not about this disk.
#[test]
fn the_state_of_another_disk_is_refused_until_it_is_adopted() {
    let world = World::with_repository();
    let (node, v2) = node(&world);
    let _done = node.agent(&["check"]).finish().exits(Exit::Done);
    let guid = "5AC4E700-0000-4000-8000-0000000000FF";
    tool("sgdisk", "gdisk").args(["-U", guid]).arg(node.disk.path()).ok();
    let refused = node.agent(&["apply"]).finish();
    refused.refused(Reason::BootRecord);
    assert!(refused.output().contains("confirm --adopt"), "{}", refused.output());
    let doctor = node.agent_in_words(&["doctor"]).finish().text();
    assert!(doctor.contains("this state is about the disk"), "{doctor}");
    assert_eq!(node.disk.flags("root-b"), CLEAR);
    node.agent(&["confirm", "--adopt"]).ok();
    node.update(&[], "b");
    node.expect_slot("b", &v2);
}

/// A disk by a link of the operator's own making.
#[test]
fn a_link_is_called_one() {
    let world = World::with_repository();
    let (node, _) = node(&world);
    std::os::unix::fs::symlink("disk.img", node.path("link.img")).expect("make a link");
    node.reconfigure("\"disk.img\"", "\"link.img\"");
    let done = node.agent(&["status"]).finish();
    assert!(done.output().contains("link.img is a symbolic link"), "{}", done.output());
}
