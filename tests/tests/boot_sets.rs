//! Update sets over two devices: the system on GPT partitions, its firmware in two banks of raw flash
//! that start by themselves. The banks are plain files that hold flash's rules; what the kernel's MTD
//! devices do with the same code is shown in the VM tier.
//!
//! The double of the other component: `bank-next` is what its switch wrote, `bank-runs` what its
//! hardware says; it takes the one for the other when the whole node restarts.

use std::fs;

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{HARDWARE, Node, Release, TRIES, World, confirmed, trial};

/// Bytes of a bank.
const BANK: usize = 1 << 20;
const ERASE: usize = 64 << 10;

fn text(node: &Node, name: &str) -> String {
    fs::read_to_string(node.path(name)).expect("read").trim().to_owned()
}

/// Which bank starts next, and which one runs.
fn banks(node: &Node) -> (String, String) {
    (text(node, "bank-next"), text(node, "bank-runs"))
}

/// A release on channel stable that may run beside the releases of so far.
fn publish(world: &World, version: &str, number: u64) -> Release {
    let release = world.release(version, number);
    let mixed = "firmware=1.0.0,1.1.0,1.2.0,1.3.0,1.4.0";
    world.publish(&release, &["--channel", "stable", "--mixed", mixed]);
    release
}

/// A node with its firmware in two banks; `geometry` goes into `flash`.
fn with_banks(world: &World, geometry: &str) -> Node {
    let v1 = publish(world, "1.0.0", 1);
    let node = Node::from_factory(world, "node", &v1, &world.repository().reference());
    let mut bank = v1.firmware.bytes.clone();
    bank.resize(BANK, 0xff);
    fs::write(node.path("bank-a.img"), bank).expect("make bank a");
    fs::write(node.path("bank-b.img"), vec![0xff; BANK]).expect("make bank b");
    fs::write(node.path("bank-next"), "a\n").expect("write");
    fs::write(node.path("bank-runs"), "a\n").expect("write");
    for slot in ["a", "b"] {
        let next = node.path("bank-next").display().to_string();
        let script = format!("echo {slot} > {next}");
        let place = format!(
            "firmware = {{ device = \"bank-{slot}.img\", flash = {{ {geometry} }}, \
             switch = [\"sh\", \"-c\", {script:?}], runs = {{ file = \"bank-runs\", is = {slot:?} }} }}"
        );
        node.reconfigure(&format!("firmware = \"fw-{slot}\""), &place);
    }
    node
}

const NOR: &str = "kind = \"nor\", erase = 65536";

/// Everything loses its power: the other component starts from the bank it was switched to.
fn restart(node: &Node) -> String {
    fs::copy(node.path("bank-next"), node.path("bank-runs")).expect("restart the other component");
    node.boot()
}

fn bank(node: &Node, slot: &str) -> Vec<u8> {
    fs::read(node.path(&format!("bank-{slot}.img"))).expect("read a bank")
}

fn holds(node: &Node, slot: &str, firmware: &[u8]) -> bool {
    bank(node, slot).starts_with(firmware)
}

#[test]
fn a_set_is_activated_confirmed_and_given_up_as_one() {
    let world = World::with_repository();
    let node = with_banks(&world, NOR);
    let v2 = publish(&world, "1.1.0", 2);
    node.apply(&[]);
    assert!(holds(&node, "b", &v2.firmware.bytes), "byte n of the image is byte n of the bank");
    assert_eq!(banks(&node), ("b".to_owned(), "a".to_owned()), "switched before the flags moved");
    node.disk.expect(confirmed(1), trial(TRIES));
    assert_eq!(restart(&node), "b");
    assert_eq!(banks(&node), ("b".to_owned(), "b".to_owned()));
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    assert_eq!(node.status()["mixed"], serde_json::json!([]));

    // The next set fails its trial: all of it comes back.
    let _v3 = publish(&world, "1.2.0", 3);
    node.apply(&[]);
    node.set_healthy(false);
    for _ in 0..TRIES {
        assert_eq!(restart(&node), "a");
        let _failed = node.run_once().exits(Exit::Boot);
    }
    // The boot loader reverts the system; the other component still starts from its new bank.
    assert_eq!(restart(&node), "b");
    assert_eq!(banks(&node), ("a".to_owned(), "a".to_owned()));
    assert_eq!(node.status()["mixed"], serde_json::json!(["firmware"]), "status says so");
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("weak update set"), "{output}");
    node.set_healthy(true);
    let _settled = node.run_once();
    assert_eq!(banks(&node).0, "b", "the agent switched it back");
    // What runs is never written, whatever the flags say.
    let running = bank(&node, "a");
    publish(&world, "1.3.0", 4);
    node.agent(&["apply"]).finish().refused(Reason::SlotActive);
    assert_eq!(bank(&node, "a"), running, "not a byte of the bank that runs");
    assert_eq!(restart(&node), "b");
    let v4 = publish(&world, "1.4.0", 5);
    node.apply(&[]);
    assert_eq!(restart(&node), "a");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    assert!(holds(&node, "a", &v4.firmware.bytes));
}

#[test]
fn a_set_is_given_up_by_hand_before_and_after_its_restart() {
    let world = World::with_repository();
    let node = with_banks(&world, NOR);
    publish(&world, "1.1.0", 2);
    node.apply(&[]);
    node.agent(&["revert"]).ok();
    assert_eq!(banks(&node), ("a".to_owned(), "a".to_owned()));
    node.apply(&["--retry"]);
    assert_eq!(restart(&node), "b");
    node.agent(&["revert"]).ok();
    assert_eq!(banks(&node), ("a".to_owned(), "b".to_owned()));
    assert_eq!(restart(&node), "a");
    assert_eq!(banks(&node), ("a".to_owned(), "a".to_owned()));
}

/// A switch that fails leaves the set where it is; one whose agent dies in it, too.
#[test]
fn a_switch_that_fails_or_is_cut_moves_nothing() {
    let world = World::with_repository();
    let node = with_banks(&world, NOR);
    publish(&world, "1.1.0", 2);
    let good = format!("echo b > {}", node.path("bank-next").display());
    node.reconfigure(&format!("{good:?}"), "\"exit 3\"");
    node.agent(&["apply"]).finish().refused(Reason::BootRecord);
    assert!(!node.disk.flags("root-b").successful && node.disk.flags("root-b").priority == 0);
    assert_eq!(banks(&node).0, "a");
    assert_eq!(restart(&node), "a");
    // It switches, and its agent dies before the flags move.
    let slow = format!("{good}; touch {}; sleep 60", node.path("switched").display());
    node.reconfigure("\"exit 3\"", &format!("{slow:?}"));
    let mut running = node.agent(&["apply"]).start();
    while !node.path("switched").exists() {
        assert!(running.is_running(), "it ended before its switch");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    running.kill();
    assert_eq!(banks(&node).0, "b");
    assert_eq!(restart(&node), "a", "the flags did not move");
    assert_eq!(node.status()["mixed"], serde_json::json!(["firmware"]));
    node.reconfigure(&format!("{slow:?}"), &format!("{good:?}"));
    let _settled = node.run_once();
    assert_eq!(banks(&node).0, "a", "settled: back to the slot that runs");
    assert_eq!(restart(&node), "a");
    node.apply(&[]);
    assert_eq!(restart(&node), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
}

/// Mixtures of releases that nobody signed for are refused in the plan, before anything is fetched.
#[test]
fn a_mixture_that_was_not_signed_for_is_refused_in_the_plan() {
    let world = World::with_repository();
    let node = with_banks(&world, NOR);
    let release = world.release("1.1.0", 2);
    world.publish(&release, &["--channel", "stable"]);
    let before = (bank(&node, "a"), bank(&node, "b"));
    for command in ["plan", "apply"] {
        node.agent(&[command]).finish().refused(Reason::SetMixed);
    }
    let release = world.release("1.2.0", 3);
    world.publish(&release, &["--channel", "stable", "--mixed", "firmware=1.1.0"]);
    node.agent(&["plan"]).finish().refused(Reason::SetMixed);
    assert_eq!((bank(&node, "a"), bank(&node, "b")), before);
    publish(&world, "1.3.0", 4);
    let plan = node.agent(&["plan"]).ok().json();
    let rules = plan["rules"].to_string();
    assert!(rules.contains("passes through 1.0.0"), "{rules}");
}

/// Case 146: the banks are swapped in the configuration, or the chip select is in its other state. The
/// hardware's word counts.
#[test]
fn case_146_the_bank_that_runs_is_known_from_the_hardware() {
    let world = World::with_repository();
    let node = with_banks(&world, NOR);
    publish(&world, "1.1.0", 2);
    fs::write(node.path("bank-runs"), "b\n").expect("the mux is in its other state");
    let (a, b) = (bank(&node, "a"), bank(&node, "b"));
    node.agent(&["apply"]).finish().refused(Reason::SlotActive);
    assert_eq!((bank(&node, "a"), bank(&node, "b")), (a, b));
    // Unknown is not "no".
    fs::remove_file(node.path("bank-runs")).expect("remove");
    node.agent(&["apply"]).finish().refused(Reason::BootRecord);
    // One device twice, by another name.
    fs::write(node.path("bank-runs"), "a\n").expect("write");
    fs::hard_link(node.path("bank-a.img"), node.path("alias.img")).expect("link");
    node.reconfigure("bank-b.img", "alias.img");
    node.agent(&["apply"]).finish().refused(Reason::SlotActive);
}

/// Case 142 and 143, from the outside: NAND with bad blocks as `nandwrite` would fill it.
#[test]
fn case_142_143_bad_blocks_of_nand() {
    let world = World::with_repository();
    let node = with_banks(&world, "kind = \"nand\", erase = 65536, page = 2048, bad = [1]");
    let v2 = publish(&world, "1.1.0", 2);
    let image = &v2.firmware.bytes;
    // The double skips block 1 in the factory's bank, too.
    node.apply(&[]);
    let cells = bank(&node, "b");
    assert!(cells[ERASE..2 * ERASE].iter().all(|byte| *byte == 0xff), "a bad block is not touched");
    let mut read = cells[..ERASE].to_vec();
    read.extend_from_slice(&cells[2 * ERASE..]);
    assert!(read.starts_with(image), "the good blocks in order");
    assert_eq!(restart(&node), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    // Too many bad blocks are known before the first erase.
    publish(&world, "1.2.0", 3);
    let bad = (0..16).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let all_but_none = format!(
        "device = \"bank-a.img\", flash = {{ kind = \"nand\", erase = 65536, page = 2048, bad = [{bad}] }}"
    );
    node.reconfigure(
        "device = \"bank-a.img\", flash = { kind = \"nand\", erase = 65536, page = 2048, bad = [1] }",
        &all_but_none,
    );
    let before = bank(&node, "a");
    node.agent(&["apply"]).finish().refused(Reason::SlotSize);
    assert_eq!(bank(&node, "a"), before);
}

/// A board with one bank, and other sets that cannot come back, are refused where they are configured.
#[test]
fn sets_that_could_not_come_back_are_refused_by_the_configuration() {
    let world = World::with_repository();
    let node = with_banks(&world, NOR);
    let good = fs::read_to_string(node.config()).expect("read");
    let rows = [
        ("one bank", "bank-b.img", "bank-a.img", "used twice"),
        (
            "boot component off the disk",
            "os = \"root-b\"",
            "os = { device = \"x\" }",
            "must be a partition",
        ),
        (
            "an unknown member",
            "bank-runs\", is = \"b\"",
            "bank-runs\", was = \"b\"",
            "unknown field `was`",
        ),
    ];
    for (name, from, to, says) in rows {
        assert_eq!(good.matches(from).count(), 1, "{name}");
        fs::write(node.config(), good.replace(from, to)).expect("write");
        let done = node.agent(&["status"]).finish();
        assert!(done.stderr.contains(says), "{name}: {}", done.stderr);
        done.refused(Reason::Config);
    }
}

/// The header is last: a bank whose write was cut is no image to anybody who looks at it.
#[test]
fn case_144_a_killed_apply_leaves_no_header_in_the_bank() {
    let world = World::with_repository();
    let node = with_banks(&world, NOR);
    publish(&world, "1.1.0", 2);
    node.apply(&[]);
    assert_eq!(restart(&node), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    let old = bank(&node, "a");
    let v3 = publish(&world, "1.2.0", 3);
    let new = &v3.firmware.bytes;
    let mut torn = 0;
    for wait in 0..40 {
        let running = node.agent(&["apply"]).start();
        std::thread::sleep(std::time::Duration::from_millis(wait * 5));
        running.kill();
        let found = bank(&node, "a");
        if found != old && !found.starts_with(new) {
            torn += 1;
            assert!(found[..64].iter().all(|byte| *byte == 0xff), "after {wait} × 5 ms: a header");
        }
        assert!(node.disk.flags_of_a_valid_table("root-b").successful);
        if node.disk.flags_of_a_valid_table("root-a").priority == 2 {
            break;
        }
    }
    println!("{torn} times in the middle of the bank");
    if node.disk.flags_of_a_valid_table("root-a").priority != 2 {
        node.apply(&[]);
    }
    // A kill between the two tables is mended by the boot.
    node.boot();
    node.disk.expect_valid();
    assert!(holds(&node, "a", new));
}

/// A node whose firmware starts from its only bank; `more` is added to `[single.firmware]`.
fn with_single_bank(world: &World, more: &str) -> (Node, Release) {
    let v1 = publish(world, "1.0.0", 1);
    let node = Node::from_factory(world, "node", &v1, &world.repository().reference());
    let mut bank = v1.firmware.bytes.clone();
    bank.resize(BANK, 0xff);
    fs::write(node.path("bank.img"), bank).expect("make the bank");
    let single = format!(
        "[single.firmware]\nbank = {{ device = \"bank.img\", flash = {{ {NOR} }} }}\n{more}\n[slots.a]"
    );
    node.reconfigure("[slots.a]", &single);
    for slot in ["a", "b"] {
        fs::write(node.path(&format!("copy-{slot}.img")), vec![0; BANK]).expect("make a copy");
        let copy = format!("firmware = {{ device = \"copy-{slot}.img\" }}");
        node.reconfigure(&format!("firmware = \"fw-{slot}\""), &copy);
    }
    (node, v1)
}

const ACCEPTED: &str = "accept_no_fallback = true\nrecovered_by = \"the flasher on the bench\"";

fn only_bank(node: &Node) -> Vec<u8> {
    fs::read(node.path("bank.img")).expect("read the bank")
}

/// Without the flag, or without anybody who could put it back, nothing is fetched, staged or erased.
#[test]
fn a_single_bank_is_refused_until_it_is_accepted() {
    let world = World::with_repository();
    let (node, _) = with_single_bank(&world, "");
    publish(&world, "1.1.0", 2);
    let before = only_bank(&node);
    for command in ["plan", "apply"] {
        let done = node.agent(&[command]).finish();
        assert!(done.stderr.contains("accept_no_fallback"), "says what to do: {}", done.stderr);
        done.refused(Reason::SingleBank);
    }
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("single_bank"), "{output}");
    node.reconfigure("[slots.a]", "accept_no_fallback = true\n[slots.a]");
    let done = node.agent(&["apply"]).finish();
    assert!(done.stderr.contains("recovered_by"), "{}", done.stderr);
    done.refused(Reason::SingleBank);
    assert_eq!(only_bank(&node), before);
    assert_eq!(node.disk.flags("root-b").priority, 0);
    let _goes_on = node.run_once().exits(Exit::Done);
}

/// The bank is written when the set is activated, and gets its old content back with the set.
#[test]
fn a_single_bank_is_written_last_and_put_back() {
    let world = World::with_repository();
    let (node, v1) = with_single_bank(&world, ACCEPTED);
    let v2 = publish(&world, "1.1.0", 2);
    node.agent(&["apply", "--stage-only"]).ok();
    assert!(only_bank(&node).starts_with(&v1.firmware.bytes), "staged is not written");
    node.apply(&[]);
    assert!(only_bank(&node).starts_with(&v2.firmware.bytes));
    // By hand, before the restart.
    node.agent(&["revert"]).ok();
    assert!(only_bank(&node).starts_with(&v1.firmware.bytes));
    node.apply(&["--retry"]);
    node.set_healthy(false);
    for _ in 0..TRIES {
        assert_eq!(node.boot(), "b");
        let _failed = node.run_once().exits(Exit::Boot);
    }
    assert_eq!(node.boot(), "a");
    assert!(only_bank(&node).starts_with(&v2.firmware.bytes), "until the agent settles");
    node.set_healthy(true);
    let _settled = node.run_once();
    assert!(only_bank(&node).starts_with(&v1.firmware.bytes), "put back");
    let v3 = publish(&world, "1.2.0", 3);
    node.apply(&[]);
    assert_eq!(node.boot(), "b");
    assert_eq!(node.run_once().exits(Exit::Done).json()["did"], "confirmed");
    assert!(only_bank(&node).starts_with(&v3.firmware.bytes));
    let output = node.agent_in_words(&["doctor"]).finish().output();
    assert!(output.contains("recovered by: the flasher on the bench"), "{output}");
}

/// What no agent installed is taken from the bank before its first erase. A recovery image that is
/// damaged is renewed from the bank while that is whole; else nothing is erased.
#[test]
fn nothing_is_erased_without_a_whole_recovery_image() {
    let world = World::with_repository();
    let (node, _) = with_single_bank(&world, ACCEPTED);
    let factory: Vec<u8> = (0..BANK).map(|at| (at % 241) as u8).collect();
    fs::write(node.path("bank.img"), &factory).expect("another firmware");
    let copy = || fs::read(node.path("copy-a.img")).expect("read");
    let v2 = publish(&world, "1.1.0", 2);
    node.apply(&[]);
    assert!(only_bank(&node).starts_with(&v2.firmware.bytes));
    assert_eq!(copy(), factory);
    node.agent(&["revert"]).ok();
    assert_eq!(only_bank(&node), factory, "to the last byte");

    let mut damaged = factory.clone();
    damaged[5000] ^= 1;
    fs::write(node.path("copy-a.img"), &damaged).expect("damage the recovery image");
    node.apply(&["--retry"]);
    assert_eq!(copy(), factory, "renewed");
    node.agent(&["revert"]).ok();
    assert_eq!(only_bank(&node), factory);

    fs::write(node.path("copy-a.img"), &damaged).expect("damage the recovery image");
    fs::write(node.path("bank.img"), &damaged).expect("damage the bank");
    node.agent(&["apply", "--retry"]).finish().refused(Reason::SingleBank);
    assert_eq!(only_bank(&node), damaged, "not a byte");

    // Both copies are shorter than the bank: known before anything is staged.
    fs::write(node.path("bank.img"), &factory).expect("mend the bank");
    for slot in ["a", "b"] {
        fs::write(node.path(&format!("copy-{slot}.img")), vec![0; BANK / 2]).expect("shorten");
    }
    node.agent(&["apply", "--retry"]).finish().refused(Reason::SlotSize);
    assert_eq!(only_bank(&node), factory);
}

/// A kill at any moment: the bank holds the old or the new firmware, or it has no head and the next run
/// puts the old one back.
#[test]
fn case_144_a_killed_apply_leaves_a_single_bank_that_comes_back() {
    let world = World::with_repository();
    let (node, v1) = with_single_bank(&world, ACCEPTED);
    let (old, new) = (v1.firmware.bytes, publish(&world, "1.1.0", 2).firmware.bytes);
    let mut torn = 0;
    for wait in 0..60 {
        let running = node.agent(&["apply"]).start();
        std::thread::sleep(std::time::Duration::from_millis(wait * 4));
        running.kill();
        let found = only_bank(&node);
        if !found.starts_with(&old) && !found.starts_with(&new) {
            torn += 1;
            assert!(found[..64].iter().all(|byte| *byte == 0xff), "after {wait} × 4 ms: a head");
        }
        assert!(node.disk.flags_of_a_valid_table("root-a").successful);
        if node.disk.flags_of_a_valid_table("root-b").priority == 2 {
            break;
        }
        assert_eq!(node.boot(), "a");
        // A kill between the two tables is mended by the boot.
        node.disk.expect_valid();
        let _settled = node.run_once();
        assert!(only_bank(&node).starts_with(&old), "after {wait} × 4 ms: it was put back");
    }
    println!("{torn} times in the middle of the bank");
    if node.disk.flags_of_a_valid_table("root-b").priority != 2 {
        node.apply(&[]);
    }
    assert!(only_bank(&node).starts_with(&new));
}

/// The release states in which order its components are switched; given up, they come back the other
/// way round. By name it would be bmc first.
#[test]
fn the_signed_order_is_obeyed_and_reversed() {
    let world = World::with_repository();
    let node = with_banks(&world, NOR);
    let log = node.path("switches").display().to_string();
    for slot in ["a", "b"] {
        let good = format!("echo {slot} > {}", node.path("bank-next").display());
        let logged = format!("{good}; echo firmware {slot} >> {log}");
        node.reconfigure(&format!("{good:?}"), &format!("{logged:?}"));
        fs::write(node.path(&format!("bmc-{slot}.img")), vec![0; BANK]).expect("make a bank");
        let script = format!("echo bmc {slot} >> {log}");
        let own = format!(
            "[slots.{slot}]\nbmc = {{ device = \"bmc-{slot}.img\", \
             switch = [\"sh\", \"-c\", {script:?}] }}"
        );
        node.reconfigure(&format!("[slots.{slot}]"), &own);
    }
    let release = world.release("1.1.0", 2);
    let bmc = world.path("bmc.img");
    fs::write(&bmc, [7; 5000]).expect("write an image");
    let bmc = format!("bmc={},hw={HARDWARE}", bmc.display());
    let options = ["--channel", "stable", "--component", &bmc, "--mixed", "firmware=1.0.0"];
    let options = [&options[..], &["--mixed", "bmc=1.0.0"]].concat();
    for (order, why) in [("firmware,web", "is no --component"), ("bmc,bmc", "is named twice")] {
        let wrong = [&options[..], &["--order", order]].concat();
        let done = world.try_publish(&release, &wrong);
        assert!(done.stderr.contains(why), "{}", done.stderr);
    }
    world.publish(&release, &[&options[..], &["--order", "firmware,bmc"]].concat());
    node.apply(&[]);
    let switches = || {
        let text = fs::read_to_string(node.path("switches")).expect("read");
        fs::remove_file(node.path("switches")).expect("remove");
        text.lines().collect::<Vec<_>>().join(", ")
    };
    // Before anything is staged all start from slot a, whatever they did before.
    assert_eq!(switches(), "firmware a, bmc a, firmware b, bmc b");
    node.agent(&["revert"]).ok();
    assert_eq!(switches(), "bmc a, firmware a");
}
