//! Update sets over a disk and an eMMC's boot partitions: the system on GPT partitions, its firmware in boot0 and
//! boot1, of which the card's register says which one the chip's ROM starts. Plain files stand for the partitions and
//! for the register; what a kernel and an emulated card do with the same code is shown in the VM tier (`emmc-boot`).

use std::fs;

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Node, Release, TRIES, World, confirmed, trial};

/// Bytes of a boot partition.
const BOOT: usize = 1 << 20;
/// Bytes of the register, by their names in JESD84.
const BOOT_WP: usize = 173;
const BOOT_CONFIG_PROT: usize = 178;
const PARTITION_CONFIG: usize = 179;
const BOOT_SIZE_MULT: usize = 226;
/// BOOT_ACK, and boot0 or boot1 enabled.
const FROM_BOOT0: u8 = 0x48;
const FROM_BOOT1: u8 = 0x50;

/// A release on channel stable that may run beside the releases of so far.
fn publish(world: &World, version: &str, number: u64) -> Release {
    let release = world.release(version, number);
    let mixed = "firmware=1.0.0,1.1.0,1.2.0,1.3.0";
    world.publish(&release, &["--channel", "stable", "--mixed", mixed]);
    release
}

/// A node whose card boots release 1.0.0 from boot0.
fn with_emmc(world: &World) -> (Node, Release) {
    let v1 = publish(world, "1.0.0", 1);
    let node = Node::from_factory(world, "node", &v1, &world.repository().reference());
    let mut boot0 = v1.firmware.bytes.clone();
    boot0.resize(BOOT, 0);
    fs::write(node.path("emmcboot0"), boot0).expect("make boot0");
    fs::write(node.path("emmcboot1"), vec![0; BOOT]).expect("make boot1");
    fs::write(node.path("ext_csd"), [0; 512]).expect("make the register");
    set(&node, BOOT_SIZE_MULT, (BOOT >> 17) as u8);
    set(&node, PARTITION_CONFIG, FROM_BOOT0);
    for (slot, boot) in [("a", 0), ("b", 1)] {
        let place = format!(
            "firmware = {{ device = \"emmcboot{boot}\", switch = \"emmc-boot\", ext_csd = \"ext_csd\" }}"
        );
        node.reconfigure(&format!("firmware = \"fw-{slot}\""), &place);
    }
    (node, v1)
}

fn register(node: &Node) -> Vec<u8> {
    fs::read(node.path("ext_csd")).expect("read the register")
}

fn set(node: &Node, byte: usize, value: u8) {
    let mut bytes = register(node);
    bytes[byte] = value;
    fs::write(node.path("ext_csd"), bytes).expect("write the register");
}

fn boots(node: &Node) -> u8 {
    register(node)[PARTITION_CONFIG]
}

fn partition(node: &Node, number: u8) -> Vec<u8> {
    fs::read(node.path(&format!("emmcboot{number}"))).expect("read a boot partition")
}

fn holds(node: &Node, number: u8, release: &Release) -> bool {
    partition(node, number).starts_with(&release.firmware.bytes)
}

fn doctor(node: &Node) -> String {
    node.agent_in_words(&["doctor"]).finish().output()
}

#[test]
fn a_set_in_boot_partitions_is_activated_confirmed_and_given_up_as_one() {
    let world = World::with_repository();
    let (node, v1) = with_emmc(&world);
    let said = doctor(&node);
    assert!(said.contains("emmcboot1 of an eMMC with boot0 and boot1 of 1.0 MiB"), "{said}");
    assert!(said.contains("which boots boot0; what boots can be changed: yes"), "{said}");
    let v2 = publish(&world, "1.1.0", 2);
    node.agent(&["apply", "--stage-only"]).ok();
    assert_eq!(boots(&node), FROM_BOOT0, "staged is not switched");
    node.apply(&[]);
    assert!(holds(&node, 0, &v1) && holds(&node, 1, &v2));
    assert_eq!(boots(&node), FROM_BOOT1, "switched, and BOOT_ACK is kept");
    node.disk.expect(confirmed(1), trial(TRIES));
    assert_eq!(node.status()["mixed"], serde_json::json!([]), "both move with the next boot");
    assert!(!doctor(&node).contains("slot_active"), "{}", doctor(&node));
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    assert_eq!(node.status()["mixed"], serde_json::json!([]));

    // The next set fails its trial: all of it comes back.
    let v3 = publish(&world, "1.2.0", 3);
    node.apply(&[]);
    assert_eq!(boots(&node), FROM_BOOT0);
    node.set_healthy(false);
    for _ in 0..TRIES {
        assert_eq!(node.boot(), "a");
        let _failed = node.run_once().exits(Exit::Boot);
    }
    assert_eq!(node.boot(), "b");
    assert_eq!(boots(&node), FROM_BOOT0, "until the agent settles");
    assert_eq!(node.status()["mixed"], serde_json::json!(["firmware"]), "status says so");
    node.set_healthy(true);
    let _settled = node.run_once();
    assert_eq!(boots(&node), FROM_BOOT1, "the agent switched it back");
    assert!(holds(&node, 0, &v3) && holds(&node, 1, &v2));

    // By hand, before the restart.
    let v4 = publish(&world, "1.3.0", 4);
    node.apply(&[]);
    assert_eq!(boots(&node), FROM_BOOT0);
    node.agent(&["revert"]).ok();
    assert_eq!(boots(&node), FROM_BOOT1);
    node.apply(&["--retry"]);
    assert_eq!(node.boot(), "a");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    assert!(holds(&node, 0, &v4) && holds(&node, 1, &v2));
}

/// What a card says of itself that stands in the way is known before anything is written.
#[test]
fn a_card_that_could_not_take_the_set_is_refused_before_the_first_write() {
    let world = World::with_repository();
    let (node, _) = with_emmc(&world);
    let v2 = publish(&world, "1.1.0", 2);
    let rows = [
        ("nothing boots", PARTITION_CONFIG, 0x40, Reason::BootRecord, "boots nothing"),
        ("the user area", PARTITION_CONFIG, 0x78, Reason::BootRecord, "boots the user area"),
        ("reserved", PARTITION_CONFIG, 0x18, Reason::BootRecord, "the reserved value 3"),
        ("cannot switch now", BOOT_CONFIG_PROT, 0x01, Reason::BootRecord, "the next power-on"),
        ("can never switch", BOOT_CONFIG_PROT, 0x10, Reason::BootRecord, "permanent"),
        ("both protected", BOOT_WP, 0x01, Reason::SlotIo, "until the next power-on"),
        ("both for ever", BOOT_WP, 0x04, Reason::SlotIo, "for ever"),
        ("boot1 for ever", BOOT_WP, 0x8c, Reason::SlotIo, "for ever"),
    ];
    let good = register(&node);
    let before = (partition(&node, 0), partition(&node, 1));
    for (name, byte, value, reason, says) in rows {
        set(&node, byte, value);
        let kept = register(&node);
        let done = node.agent(&["apply"]).finish();
        assert!(done.stderr.contains(says), "{name}: {}", done.stderr);
        done.refused(reason);
        assert_eq!((partition(&node, 0), partition(&node, 1)), before, "{name}: not a byte");
        assert_eq!(register(&node), kept, "{name}: not a bit");
        assert_eq!(node.disk.flags("root-b").priority, 0, "{name}");
        assert!(doctor(&node).contains(says), "{name}: {}", doctor(&node));
        fs::write(node.path("ext_csd"), &good).expect("mend the card");
    }
    // Unknown is not "no".
    fs::remove_file(node.path("ext_csd")).expect("remove");
    node.agent(&["apply"]).finish().refused(Reason::SlotIo);
    assert_eq!((partition(&node, 0), partition(&node, 1)), before);
    fs::write(node.path("ext_csd"), &good).expect("mend the card");
    // The one that boots may be protected.
    set(&node, BOOT_WP, 0x81);
    node.apply(&[]);
    assert!(holds(&node, 1, &v2));
    assert_eq!(boots(&node), FROM_BOOT1);
}

/// A kill at any moment: what the card boots is a whole firmware, the old one or the new one.
#[test]
fn a_killed_apply_leaves_a_card_that_boots_a_whole_firmware() {
    let world = World::with_repository();
    let (node, v1) = with_emmc(&world);
    let v2 = publish(&world, "1.1.0", 2);
    let (mut torn, mut switched) = (0, false);
    for wait in 0..60 {
        let running = node.agent(&["apply"]).start();
        std::thread::sleep(std::time::Duration::from_millis(wait * 4));
        running.kill();
        assert!(holds(&node, 0, &v1), "after {wait} × 4 ms: not a byte of what booted");
        let (new, first) = (holds(&node, 1, &v2), partition(&node, 1)[0]);
        torn += u32::from(!new && first != 0);
        match boots(&node) {
            FROM_BOOT0 => {}
            FROM_BOOT1 => assert!(new, "after {wait} × 4 ms: a torn firmware boots"),
            other => panic!("after {wait} × 4 ms: PARTITION_CONFIG {other:#04x}"),
        }
        assert!(node.disk.flags_of_a_valid_table("root-a").successful);
        if node.disk.flags_of_a_valid_table("root-b").priority == 2 {
            assert_eq!(boots(&node), FROM_BOOT1, "the flags move last");
            switched = true;
            break;
        }
        assert_eq!(node.boot(), "a");
        // A kill between the two tables is mended by the boot.
        node.disk.expect_valid();
        let _settled = node.run_once();
        assert_eq!(boots(&node), FROM_BOOT0, "after {wait} × 4 ms: settled");
    }
    println!("{torn} times in the middle of boot1");
    if !switched {
        node.apply(&[]);
    }
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    assert!(holds(&node, 1, &v2));
}

#[test]
fn places_that_are_not_both_boot_partitions_of_one_card_are_refused_by_the_configuration() {
    let world = World::with_repository();
    let (node, _) = with_emmc(&world);
    let good = fs::read_to_string(node.config()).expect("read");
    let b = "device = \"emmcboot1\", switch = \"emmc-boot\"";
    let rows = [
        ("another word", b, "device = \"emmcboot1\", switch = \"emmc\"", "\"emmc-boot\""),
        ("a command", b, "device = \"emmcboot1\", switch = [\"true\"]", "in both slots"),
        ("no switch", b, "device = \"emmcboot1\"", "in one slot only"),
        ("another card", b, "device = \"otherboot1\", switch = \"emmc-boot\"", "of one card"),
        ("a disk", b, "device = \"emmc\", switch = \"emmc-boot\"", "of one card"),
        (
            "two words",
            b,
            "device = \"emmcboot1\", switch = \"emmc-boot\", runs = { file = \"x\", is = \"1\" }",
            "the card says what boots",
        ),
    ];
    for (name, from, to, says) in rows {
        assert_eq!(good.matches(from).count(), 1, "{name}");
        fs::write(node.config(), good.replace(from, to)).expect("write");
        let done = node.agent(&["status"]).finish();
        assert!(done.stderr.contains(says), "{name}: {}", done.stderr);
        done.refused(Reason::Config);
    }
    // A device that is no boot partition, and one that is not there.
    let real =
        |device: &str| good.replace("emmcboot", device).replace(", ext_csd = \"ext_csd\"", "");
    fs::write(node.path("plainboot0"), [0; 512]).expect("write");
    fs::write(node.path("plainboot1"), [0; 512]).expect("write");
    publish(&world, "1.1.0", 2);
    for (device, says) in
        [("plainboot", "no boot partition of an eMMC"), ("goneboot", "does not exist")]
    {
        fs::write(node.config(), real(device)).expect("write");
        let done = node.agent(&["apply"]).finish();
        assert!(done.stderr.contains(says), "{device}: {}", done.stderr);
        done.refused(Reason::SlotIo);
    }
}
