//! How it is signed, and when.

use formats::reason::Reason;
use racklet_tests::rig::{Before, Node, Repository, World, tool};

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
