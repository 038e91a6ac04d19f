//! How it is signed, and when.

use std::fs;

use formats::reason::Reason;
use racklet_tests::rig::{Before, HARDWARE, Node, PRODUCT, Repository, World, program, tool};
use update_core::chooser::{Approved, Machine, Proof, Trailer, approve, place};

use super::{Offered, resigned};

/// A node that trusts nothing yet but its shipped root: one that knows a timestamp of the same
/// version keeps its own (TUF §5.4.3) and never sees what hangs below the other.
fn fresh(it: &Offered) -> Node {
    Node::from_factory(&it.world, "fresh", &it.v1, &it.world.repository().reference())
}

#[test]
fn timestamp_below_the_threshold() {
    let it = Offered::new();
    let honest = it.world.repository().copy_to(&it.world.path("honest"));
    it.world.repository().edit_state(|files| {
        let file = files.get_mut("timestamp.json").expect("a state has a timestamp");
        *file = resigned::stripped(file);
    });
    let before = it.before();
    it.node.agent(&["apply"]).finish().refused(Reason::SigThreshold);
    it.node.agent(&["check"]).finish().refused(Reason::SigThreshold);
    before.untouched(&it.node, "MSBF");
    it.node.update(&[&honest.reference()], "b");
}

#[test]
fn targets_below_the_threshold() {
    let it = Offered::new();
    // Snapshot and timestamp are signed by their own keys: what an online thief could do.
    resigned::targets_file(&it.world, resigned::stripped);
    let node = fresh(&it);
    let before = Before::of(&node, "a");
    node.agent(&["apply"]).finish().refused(Reason::SigThreshold);
    before.untouched(&node, "SBF");
}

#[test]
fn targets_signed_by_the_wrong_role() {
    let it = Offered::new();
    let forged = |file: &[u8]| it.world.signed("snapshot", &resigned::signed(file));
    resigned::targets_file(&it.world, forged);
    let node = fresh(&it);
    let before = Before::of(&node, "a");
    node.agent(&["apply"]).finish().refused(Reason::SigThreshold);
    before.untouched(&node, "SBF");
}

#[test]
fn repository_of_other_maintainers() {
    let it = Offered::new();
    let other = World::with_repository();
    let _release = other.publish_stable("2.0.0", 9);
    let before = it.before();
    let place = other.repository().reference();
    it.node.agent(&["apply", &place]).finish().refused(Reason::SigThreshold);
    before.untouched(&it.node, "MSBF");
    it.recovers();
}

#[test]
fn expired_metadata() {
    let it = Offered::new();
    let before = it.before();
    // The timestamp lasts a day, the snapshot seven, targets ninety, the root a year.
    for days in ["+2d", "+10d", "+100d", "+400d"] {
        let later = tool("faketime", "faketime").args(["-f", days]);
        it.node.agent(&["apply"]).under(later).finish().refused(Reason::Expired);
        before.untouched(&it.node, "SBF");
    }
    it.recovers();
}

#[test]
fn expired_by_a_short_period_of_its_own() {
    let it = Offered::new();
    let _done = it.world.signer(&["refresh", "--expires", "timestamp=2h"]).ok();
    let at =
        |offset| it.node.agent(&["check"]).under(tool("faketime", "faketime").args(["-f", offset]));
    let _still = at("+1h").ok();
    let before = it.before();
    at("+3h").finish().refused(Reason::Expired);
    before.untouched(&it.node, "SBF");
    let _renewed = it.world.signer(&["refresh"]).ok();
    let _again = at("+90m").ok();
}

#[test]
fn clock_behind_what_has_happened() {
    let it = Offered::new();
    let _checked = it.node.agent(&["check"]).ok();
    let before = it.before();
    let earlier = tool("faketime", "faketime").args(["-f", "-30d"]);
    it.node.agent(&["apply"]).under(earlier).finish().refused(Reason::ClockUntrusted);
    before.untouched(&it.node, "MSBF");
    it.recovers();
}

#[test]
fn older_metadata() {
    let it = Offered::new();
    let old: Repository = it.world.repository().copy_to(&it.world.path("old"));
    let _v3 = it.world.publish_stable("1.2.0", 3);
    let _checked = it.node.agent(&["check"]).ok();
    let before = it.before();
    // Somebody serves the state of last week, every signature good.
    it.node.agent(&["apply", &old.reference()]).finish().refused(Reason::VersionRollback);
    before.untouched(&it.node, "MSBF");
    // Another snapshot behind the newest timestamp: mix and match.
    let mixed = it.world.repository().copy_to(&it.world.path("mixed"));
    let from = std::cell::RefCell::new(Vec::new());
    old.edit_state(|files| {
        let snapshot = resigned::newest(files, ".snapshot.json");
        from.replace(files[&snapshot].clone());
    });
    mixed.edit_state(|files| {
        let snapshot = resigned::newest(files, ".snapshot.json");
        files.insert(snapshot, from.take());
    });
    let new = fresh(&it);
    let before_new = Before::of(&new, "a");
    new.agent(&["apply", &mixed.reference()]).finish().refused(Reason::HashMismatch);
    before_new.untouched(&new, "SBF");
    before.untouched(&it.node, "MSBF");
}

/// What a chooser with that root makes of slot b.
fn chooser_says(node: &Node, root: &[u8]) -> Approved {
    let content = node.disk.content("root-b", 12 << 20);
    let len = content.len() as u64;
    let (_, trailer_at) = place(0, len, 0).expect("room for a trailer");
    let trailer = Trailer::parse(&content[trailer_at as usize..]).expect("a trailer");
    let (at, _) = place(u64::from(trailer.len), len, 0).expect("room for the proof");
    let bytes = &content[at as usize..][..trailer.len as usize];
    let proof = Proof::from_bytes(bytes).expect("a proof");
    let (hardware, component) = ([HARDWARE.to_owned()], "os".parse().expect("a name"));
    let machine = Machine { product: PRODUCT, hardware: &hardware, component: &component };
    approve(&proof, root, machine).expect("the chooser boots it")
}

/// Firmware with root 1, an image with root 3: what is written is what that firmware boots. With
/// firmware of another repository, nothing is written.
#[test]
fn what_the_chooser_would_refuse_is_refused_before_anything_is_written() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let firmware = fs::read(world.path("root.json")).expect("read root 1");
    for (old, new) in [("timestamp", "timestamp-2"), ("timestamp-2", "timestamp-3")] {
        let key = |name: &str, ending| world.path(&format!("keys/{name}{ending}"));
        let _made = program("signer").args(["key", "new", "--out"]).arg(key(new, "")).ok();
        let revoke = world.signer(&["revoke"]).arg(key(old, ".pub"));
        let _replaced = revoke.arg("--replace").arg(key(new, ".pub")).ok();
    }
    let v2 = world.release("1.1.0", 2);
    let _done = world.publish(&v2, &["--channel", "stable", "--verity", "os"]);
    fs::copy(world.path("keys/root.json"), world.path("root.json")).expect("a newer image");
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    node.reconfigure("tries = 3", "tries = 3\nverity = true");

    let other = World::with_repository();
    fs::copy(other.path("root.json"), node.path("chooser.json")).expect("another firmware");
    let table = "[chooser]\nroot = \"chooser.json\"\n\n[slots.a]";
    node.reconfigure("[slots.a]", table);
    let before = Before::of(&node, "a");
    let done = node.agent(&["apply"]).finish();
    done.refused(Reason::MetaType);
    assert!(done.stderr.contains("the chooser would refuse this release"), "{}", done.output());
    assert!(done.stderr.contains("docs/vm.md"), "a hint: {}", done.output());
    before.untouched(&node, "SBF");

    node.reconfigure(table, "[slots.a]");
    let report = node.apply(&[]);
    assert_eq!(report["version"], "1.1.0", "{report}");
    let newest = fs::read(world.path("root.json")).expect("read root 3");
    for root in [firmware, newest] {
        assert_eq!(chooser_says(&node, &root).version().as_str(), "1.1.0");
    }
}

/// A clock that was a day ahead for one check: the right time is right again at once.
#[test]
fn a_clock_that_was_ahead_locks_nobody_out() {
    let it = Offered::new();
    let at = |clock: &str| tool("faketime", "faketime").args(["-f", clock]);
    let _ahead = it.node.agent(&["check"]).under(at("+20h")).ok();
    let doctor = it.node.agent_in_words(&["doctor"]).finish();
    assert!(doctor.text().contains("at the last check it said"), "{}", doctor.output());
    let _right = it.node.agent(&["check"]).ok();
    // Before what was signed, beyond what clocks differ by.
    it.node.agent(&["check"]).under(at("-20m")).finish().refused(Reason::ClockUntrusted);
    it.recovers();
}
