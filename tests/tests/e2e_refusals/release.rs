//! What is offered does not suit this node.

use formats::json::Value;
use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Before, Image, Node, PRODUCT, SlotSizes, World};

use super::{Offered, resigned};

#[test]
fn image_for_other_hardware() {
    let it = Offered::new();
    it.node.reconfigure(r#"hardware = ["racklet-cu-v1"]"#, r#"hardware = ["racklet-cu-v2"]"#);
    let before = it.before();
    it.node.agent(&["apply"]).finish().refused(Reason::HwMismatch);
    before.untouched(&it.node, "SBF");
    // Naming the version does not help.
    it.node.agent(&["apply", "--version", "1.1.0"]).finish().refused(Reason::HwMismatch);
    before.untouched(&it.node, "SBF");
    it.node.reconfigure(r#"hardware = ["racklet-cu-v2"]"#, r#"hardware = ["racklet-cu-v1"]"#);
    it.recovers();
}

#[test]
fn one_component_for_other_hardware() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let v2 = world.release("1.1.0", 2);
    let component =
        |name: &str, image: &Image, hw: &str| format!("{name}={},hw={hw}", image.path.display());
    let _done = world
        .signer(&["publish", "--product", PRODUCT, "--version", "1.1.0", "--channel", "stable"])
        .args(["--component", &component("os", &v2.os, "racklet-cu-v1")])
        .args(["--component", &component("firmware", &v2.firmware, "racklet-cu-v9")])
        .ok();
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let before = Before::of(&node, "a");
    node.agent(&["apply"]).finish().refused(Reason::HwMismatch);
    before.untouched(&node, "SBF");
}

#[test]
fn older_release() {
    let it = Offered::new();
    it.node.update(&[], "b");
    let before = Before::of(&it.node, "b");
    it.node.agent(&["apply", "--version", "1.0.0"]).finish().refused(Reason::VersionRollback);
    it.node
        .agent(&["apply", "--version", "1.0.0", "--retry"])
        .finish()
        .refused(Reason::VersionRollback);
    before.untouched(&it.node, "MSBF");

    // The channel going back is refused, too; by whom it is signed does not matter.
    let back =
        ["channel", "set", "--product", PRODUCT, "--channel", "stable", "--release", "1.0.0"];
    let _done = it.world.signer(&back).ok();
    it.node.agent(&["apply"]).finish().refused(Reason::VersionRollback);
    let done = it.node.agent(&["check"]).finish().exits(Exit::Rollback).json();
    assert_eq!(done["decision"], "version_rollback", "{done}");
    before.untouched(&it.node, "SBF");
}

/// `explain` asks nobody: what it does not know is no fault of the repository, and no failure of the node.
#[test]
fn what_was_never_fetched_is_called_so_and_changes_nothing() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    node.agent(&["apply", "--version", "9.9.0"]).finish().refused(Reason::TargetNotFound);
    let before = node.status()["last_error"].clone();
    let explained = node.agent(&["explain"]).finish();
    explained.refused(Reason::TargetNotFound);
    assert!(explained.output().contains("was never fetched here"), "{}", explained.output());
    assert!(explained.output().contains("run `update-agent check` first"));
    assert_eq!(node.status()["last_error"], before);
}

/// Who wants an older release that the other slot holds needs no update.
#[test]
fn an_older_release_in_the_other_slot_is_a_revert_away() {
    let it = Offered::new();
    it.node.update(&[], "b");
    let hint = |version: &str| {
        let refused = it.node.agent(&["apply", "--version", version]).finish();
        refused.refused(Reason::VersionRollback);
        refused.json()["hint"].as_str().unwrap_or_default().to_owned()
    };
    let back = "`update-agent revert` goes back to it";
    let first = hint("1.0.0");
    assert!(
        first.starts_with("slot a still holds what was there") && first.ends_with(back),
        "{first}"
    );
    it.world.publish_stable("1.2.0", 3);
    it.node.update(&[], "a");
    assert_eq!(hint("1.1.0"), format!("slot b still holds 1.1.0: {back}"));
    assert_eq!(hint("1.0.0"), "", "no slot holds it");
}

#[test]
fn release_older_than_the_factory_image() {
    let world = World::with_repository();
    let _old = world.publish_stable("0.9.0", 7);
    let v1 = world.release("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let before = Before::of(&node, "a");
    node.agent(&["apply"]).finish().refused(Reason::VersionRollback);
    before.untouched(&node, "SBF");
}

#[test]
fn security_version_below_the_floor() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let fixed = ["--channel", "stable", "--security-version", "5"];
    let _v2 = world.publish(&world.release("1.1.0", 2), &fixed);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    let floor = || node.status()["floor"]["security_version"].clone();
    node.apply(&[]);
    assert_eq!(floor(), 0, "the floor rises only after confirm");
    assert_eq!(node.boot(), "b");
    let _confirmed = node.run_once().exits(Exit::Done);
    // Slot a is still bootable: a floor above it would leave nothing to go back to (S5).
    assert_eq!(floor(), 0, "slot a may still be needed");
    let _v3 = world.publish(&world.release("1.2.0", 3), &fixed);
    node.update(&[], "a");
    assert_eq!(floor(), 5, "both slots hold security version 5");

    // A newer version without the fix. Our signer refuses to publish it ...
    let v4 = world.release("1.3.0", 4);
    let options = ["--channel", "stable", "--security-version"];
    world.try_publish(&v4, &[&options[..], &["4"]].concat()).refused(Reason::SecverFloor);
    // ... but whoever has the keys may use another one.
    let _v4 = world.publish(&v4, &fixed);
    resigned::targets(&world, |targets| {
        let custom = member(member(member(targets, "targets"), "demo/1.3.0"), "custom");
        let Value::Object(summary) = member(custom, "racklet") else { panic!("an object") };
        let before = summary.insert("security_version".into(), Value::Int(4));
        assert_eq!(before, Some(Value::Int(5)));
    });
    let before = Before::of(&node, "a");
    node.agent(&["apply"]).finish().refused(Reason::SecverFloor);
    node.agent(&["apply", "--version", "1.3.0"]).finish().refused(Reason::SecverFloor);
    node.agent(&["apply", "--version", "1.3.0", "--retry"]).finish().refused(Reason::SecverFloor);
    before.untouched(&node, "SBF");
}

/// Our signer refuses it; another one may sign it. The slot would keep the system it has, which would
/// boot and be confirmed as the new release.
#[test]
fn an_image_of_no_bytes() {
    let it = Offered::new();
    let empty = Image::write(&it.world.path("empty.img"), Vec::new());
    let mut release = it.world.release("1.2.0", 3);
    release.os = empty;
    let channel = ["--channel", "stable"];
    it.world.try_publish(&release, &channel).refused(Reason::ImageRefused);
    let _v3 = it.world.publish_stable("1.2.0", 3);
    let set_size = |size: i64| {
        resigned::targets(&it.world, |targets| {
            let custom = member(member(member(targets, "targets"), "demo/1.2.0"), "custom");
            let summary = member(custom, "racklet");
            let Value::Array(components) = member(summary, "components") else { panic!("a list") };
            for component in components {
                let Value::Object(component) = component else { panic!("an object") };
                if component.get("name").and_then(Value::as_str) == Some("os") {
                    let _was = component.insert("raw_size".into(), Value::Int(size));
                }
            }
        });
    };
    set_size(0);
    let before = it.before();
    it.node.agent(&["apply"]).finish().refused(Reason::BundleFormat);
    it.node.agent(&["apply", "--version", "1.2.0"]).finish().refused(Reason::BundleFormat);
    let done = it.node.agent(&["check"]).finish().exits(Exit::Content).json();
    assert_eq!(done["decision"], "bundle_format", "{done}");
    let why = "os is an image of 0 bytes: its slot would keep the system it has";
    assert_eq!(done["why"], why, "{done}");
    before.untouched(&it.node, "SBF");
}

#[test]
fn a_component_without_a_slot_is_said() {
    let it = Offered::new();
    let release = it.world.release("1.2.0", 3);
    let bmc = Image::write(&it.world.path("bmc.bin"), vec![7; 5000]);
    let bmc = format!("bmc={},hw=racklet-cu-v1", bmc.path.display());
    let options = ["--channel", "stable", "--component", &bmc];
    let published = it.world.publish(&release, &options).json();
    let warning = "component bmc is new for demo; earlier releases have firmware, os";
    assert_eq!(published["warnings"][0]["message"], warning, "{published}");
    let note = "bmc is signed for this hardware; no slot here takes it";
    for command in ["check", "apply"] {
        let done = it.node.agent(&[command]).finish().exits(Exit::Done).json();
        assert_eq!(done["notes"][0], note, "{done}");
    }
}

fn member<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    let Value::Object(members) = value else { panic!("not an object with {name}") };
    members.get_mut(name).expect("the member is there")
}

#[test]
fn slot_too_small_by_one_byte() {
    // The slots have exactly 17,001 sectors, the firmware's 301.
    let sizes = SlotSizes { root: 17_001, firmware: 301 };
    let slot = 17_001 * 512;
    let rows = [
        ("one byte too much", slot + 1, 100, Some(Reason::SlotSize)),
        ("exactly as long as the slot", slot, 100, None),
        ("one byte less", slot - 1, 100, None),
        ("the second component too long", 100_001, 301 * 512 + 1, Some(Reason::SlotSize)),
        ("the second component exactly as long", 100_001, 301 * 512, None),
    ];
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let v1 = racklet_tests::rig::Release {
        os: Image::write(&world.path("small-os"), v1.os.bytes[..1 << 20].to_vec()),
        ..v1
    };
    for (number, (name, os, firmware, refused)) in rows.into_iter().enumerate() {
        let version = format!("1.1.{number}");
        let mut release = world.release(&version, 2);
        release.os.bytes.resize(os, 0xa5);
        release.firmware.bytes.resize(firmware, 0xa5);
        for image in [&release.os, &release.firmware] {
            std::fs::write(&image.path, &image.bytes).expect("write an image");
        }
        let _done = world.publish(&release, &["--channel", "stable"]);
        let source = world.repository().reference();
        let node = Node::with_slots(&world, &format!("node-{number}"), &v1, &source, sizes);
        let before = Before::of(&node, "a");
        let done = node.agent(&["apply"]).finish();
        match refused {
            Some(reason) => {
                done.refused(reason);
                before.untouched(&node, "SBF");
            }
            None => {
                assert_eq!(done.code, 0, "{name}: {}", done.output());
                node.expect_slot("b", &release);
                before.untouched(&node, "");
                node.disk.expect_valid();
            }
        }
    }
}

#[test]
fn unknown_version() {
    let it = Offered::new();
    let before = it.before();
    it.node.agent(&["apply", "--version", "9.9.9"]).finish().refused(Reason::TargetNotFound);
    it.node.agent(&["plan", "--version", "9.9.9"]).finish().refused(Reason::TargetNotFound);
    before.untouched(&it.node, "SBF");
    it.recovers();
}

#[test]
fn channel_that_does_not_exist() {
    let it = Offered::new();
    it.node.reconfigure(r#"channel = "stable""#, r#"channel = "nightly""#);
    let before = it.before();
    it.node.agent(&["apply"]).finish().refused(Reason::TargetNotFound);
    before.untouched(&it.node, "SBF");
}

#[test]
fn channel_on_hold() {
    let it = Offered::new();
    let set = ["channel", "set", "--product", PRODUCT, "--channel", "stable"];
    let _done = it.world.signer(&set).arg("--hold").ok();
    let before = it.before();
    it.node.agent(&["apply"]).finish().refused(Reason::Deferred);
    let done = it.node.agent(&["check"]).finish().exits(Exit::Nothing).json();
    assert_eq!(done["decision"], "deferred", "{done}");
    before.untouched(&it.node, "SBF");
    let _done = it.world.signer(&set).arg("--no-hold").ok();
    it.recovers();
}

#[test]
fn a_command_line_that_makes_no_sense() {
    let it = Offered::new();
    let before = it.before();
    let rows: [&[&str]; 4] = [
        &["aply"],
        &["apply", "--version", "../new"],
        &["boot-select"],
        &["verify", "--slot", "c"],
    ];
    for args in rows {
        let done = it.node.agent(args).finish();
        assert_eq!(done.code, i32::from(Exit::Usage.code()), "{args:?}: {}", done.output());
    }
    before.untouched(&it.node, "MSBF");
}
