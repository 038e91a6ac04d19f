//! The backend `rpi-tryboot`: the story of `boot_backends.rs`, for a boot loader that counts nothing and has to be
//! asked for a trial.
//!
//! No emulator runs the boot loader of a Raspberry Pi. Here `boot-select --simulate` boots, by the rules of that boot
//! loader's documentation; the file system is made by `mkfs.fat`, and `mtools` read what lies in it. A restart leaves
//! its argument where the simulated boot loader takes it away.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;

use formats::reason::{Exit, Reason};
use racklet_tests::rig::{Node, TRIES, World, tool};

/// Partitions of the slots: the first two of the disk.
const A: u32 = 1;
const B: u32 = 2;
/// The partition with `autoboot.txt`, behind the others here: 27 MiB, in bytes.
const AUTOBOOT: u64 = 27 << 20;

const FACTORY: &str = "[all]\ntryboot_a_b=1\nboot_partition=1\n[tryboot]\nboot_partition=1\n";

/// A node whose disk has a FAT with this `autoboot.txt`, filled up to 256 bytes.
fn node(world: &World, name: &str, mode: &str) -> Node {
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(world, name, &v1, &world.repository().reference());
    let disk = OpenOptions::new().write(true).open(node.disk.path()).expect("open the disk");
    disk.set_len(30 << 20).expect("make room for one more partition");
    let start = AUTOBOOT / 512;
    let number = "5:autoboot";
    tool("sgdisk", "gdisk")
        .args(["-e", "-n", &format!("5:{start}:+2048"), "-c", number])
        .arg(node.disk.path())
        .ok();
    let (volume, text) = (node.path("autoboot.img"), node.path("autoboot.txt"));
    fs::write(&volume, vec![0; 1 << 20]).expect("make a volume");
    fs::write(&text, format!("{FACTORY:\n<256}")).expect("write autoboot.txt");
    tool("mkfs.fat", "dosfstools").args(["-F", "12"]).arg(&volume).ok();
    tool("mcopy", "mtools").arg("-i").arg(&volume).arg(&text).arg("::autoboot.txt").ok();
    disk.write_all_at(&fs::read(&volume).expect("read it"), AUTOBOOT).expect("write the volume");
    let firmware = node.path("bootloader");
    fs::create_dir(&firmware).expect("make the boot loader's node");
    let ask = format!("echo '0 tryboot' > {}", firmware.join("reboot-argument").display());
    node.reconfigure(
        "backend = \"gpt-attributes\"",
        &format!(
            "backend = \"rpi-tryboot\"\nfirmware_node = {firmware:?}\ntry_command = [\"sh\", \"-c\", {ask:?}]"
        ),
    );
    node.reconfigure("mode = \"notify\"", &format!("mode = {mode:?}"));
    assert_eq!(node.boot(), "a");
    node
}

/// The file, as `mtools` read it.
fn text(node: &Node) -> String {
    let image = format!("{}@@{AUTOBOOT}", node.disk.path().display());
    let text = tool("mtype", "mtools").args(["-i", &image, "::autoboot.txt"]).ok().text();
    assert_eq!(text.len(), 256, "its length stays");
    text
}

/// Requires what the boot loader finds, which tries slot b has left, if any, and that `status` says the same.
#[track_caller]
fn expect(node: &Node, when: &str, partitions: (u32, u32), slots: [(&str, &str); 2]) {
    let text = text(node);
    let mut section = "";
    let mut found: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once('=') {
            None => section = line,
            Some((name, value)) => drop(found.insert((section, name), value)),
        }
    }
    assert_eq!(found[&("[all]", "tryboot_a_b")], "1", "{when}");
    let number = |section| found[&(section, "boot_partition")].parse::<u32>().expect("a number");
    assert_eq!((number("[all]"), number("[tryboot]")), partitions, "{when}: {text}");
    let status = node.status();
    for (slot, expected) in slots {
        let said = &status["slots"][slot];
        let found = match (said["confirmed"].as_bool(), said["bootable"].as_bool()) {
            (Some(true), _) => "confirmed".to_owned(),
            (_, Some(true)) => format!("{} tries", said["tries"]),
            _ => "not bootable".to_owned(),
        };
        assert_eq!(found, expected, "{when}, slot {slot}: {said}");
    }
}

/// Fails the power: nothing of what a restart was asked for is left.
fn power_cut(node: &Node) -> String {
    let _ = fs::remove_file(node.path("bootloader/reboot-argument"));
    node.boot()
}

fn tryboot(node: &Node) -> bool {
    fs::read(node.path("bootloader/tryboot")).expect("the boot loader's word") == [0, 0, 0, 1]
}

#[test]
fn rpi_tryboot_by_mtools() {
    let world = World::with_repository();
    let node = node(&world, "node", "auto");
    expect(&node, "factory", (A, A), [("a", "confirmed"), ("b", "not bootable")]);

    let v2 = world.publish_stable("1.1.0", 2);
    node.apply(&[]);
    expect(&node, "apply", (A, B), [("a", "confirmed"), ("b", "3 tries")]);
    for cycle in 0..5 {
        assert_eq!(power_cut(&node), "a", "nobody asked, boot {cycle}");
        assert_eq!(node.status()["standing"], "awaiting_reboot");
    }
    node.run_once();
    expect(&node, "asked", (A, B), [("a", "confirmed"), ("b", "2 tries")]);
    assert_eq!(node.boot(), "b");
    assert!(tryboot(&node));
    let _done = node.run_once().exits(Exit::Done);
    expect(&node, "confirm", (B, B), [("a", "confirmed"), ("b", "confirmed")]);
    node.expect_slot("b", &v2);
    assert!(!node.reboot_was_asked(), "a confirmed slot needs no restart");

    // The next update begins in the very boot that was a tryboot: the slot that runs is not written.
    let v3 = world.publish_stable("1.2.0", 3);
    assert!(tryboot(&node));
    node.apply(&[]);
    expect(&node, "apply in a tryboot", (B, A), [("a", "3 tries"), ("b", "confirmed")]);
    node.expect_slot("b", &v2);
    node.expect_slot("a", &v3);
    node.agent(&["revert"]).ok();
    expect(&node, "given up before it ran", (B, B), [("a", "not bootable"), ("b", "confirmed")]);
    for cycle in 0..50 {
        assert_eq!(power_cut(&node), "b", "power cycle {cycle}");
    }
    assert!(!tryboot(&node));
    node.agent(&["apply", "--retry", "--reboot"]).ok();
    expect(&node, "apply --reboot", (B, A), [("a", "2 tries"), ("b", "confirmed")]);
    assert_eq!(node.boot(), "a");
    world.publish_stable("1.3.0", 4);
    node.agent(&["apply"]).finish().refused(Reason::TrialActive);
    let _done = node.run_once().exits(Exit::Done);
    expect(&node, "confirm in slot a", (A, A), [("a", "confirmed"), ("b", "confirmed")]);
    assert_eq!(power_cut(&node), "a");

    node.agent(&["mark-bad", "--slot", "a"]).ok();
    expect(&node, "the slot that runs is bad", (B, B), [("a", "not bootable"), ("b", "confirmed")]);
    assert_eq!(power_cut(&node), "b");
}

/// A check that fails, a hang, a power cut: each ends in the confirmed slot, and each was one try.
#[test]
fn a_trial_that_ends_otherwise_is_reverted_by_any_restart() {
    let world = World::with_repository();
    let node = node(&world, "node", "auto");
    world.publish_stable("1.1.0", 2);
    node.apply(&[]);
    for left in (0..TRIES).rev() {
        node.set_healthy(true);
        node.run_once();
        expect(&node, "asked", (A, B), [("a", "confirmed"), ("b", &tries(left))]);
        assert_eq!(node.boot(), "b");
        if left > 0 {
            node.set_healthy(false);
            let _done = node.run_once().exits(Exit::Boot);
            assert!(
                node.reboot_was_asked(),
                "a failed trial ends in a restart without an argument"
            );
        }
        assert_eq!(node.boot(), "a", "{left} tries left");
    }
    let report = node.run_once().exits(Exit::Done).json();
    assert_eq!(report["did"], "reverted", "{report}");
    expect(&node, "the revert is recorded", (A, A), [("a", "confirmed"), ("b", "not bootable")]);
}

fn tries(left: u8) -> String {
    if left == 0 { "not bootable".to_owned() } else { format!("{left} tries") }
}

/// In `notify`, people restart: with the argument it is a trial, without it is none, however often.
#[test]
fn people_who_restart_without_the_argument_give_nothing_up() {
    let world = World::with_repository();
    let node = node(&world, "node", "notify");
    world.publish_stable("1.1.0", 2);
    let said = node.agent_in_words(&["apply"]).ok().text();
    assert!(said.contains("it is next: restart by `sh -c "), "{said}");
    for _ in 0..5 {
        assert_eq!(power_cut(&node), "a");
        let _done = node.run_once().exits(Exit::Done);
    }
    let said = node.agent_in_words(&["status"]).ok().text();
    assert!(said.contains("a restart without the argument \"0 tryboot\""), "{said}");
    expect(&node, "passed over", (A, B), [("a", "confirmed"), ("b", "3 tries")]);
    // As with `reboot "0 tryboot"`: no try is spent, and the boot loader reverts all the same.
    fs::write(node.path("bootloader/reboot-argument"), "0 tryboot\n").expect("ask");
    assert_eq!(node.boot(), "b");
    let _done = node.run_once().exits(Exit::Done);
    expect(&node, "confirm", (B, B), [("a", "confirmed"), ("b", "confirmed")]);
    world.publish_stable("1.2.0", 3);
    node.apply(&[]);
}

/// What the boot loader says decides, and what contradicts it stops every write.
#[test]
fn what_runs_is_known_from_the_boot_loader() {
    let world = World::with_repository();
    let node = node(&world, "node", "notify");
    world.publish_stable("1.1.0", 2);
    let word = |name: &str, number: u32| {
        fs::write(node.path("bootloader").join(name), number.to_be_bytes()).expect("write");
    };
    // It fell back to the partition of nobody.
    word("partition", 5);
    node.agent(&["apply"]).finish().refused(Reason::BootRecord);
    // The command line of the other slot.
    word("partition", B);
    node.agent(&["apply"]).finish().refused(Reason::BootRecord);
    // One that does not say, as some versions.
    word("partition", 0);
    let said = node.agent_in_words(&["doctor"]).finish().output();
    assert!(said.contains("does not name the partition that booted"), "{said}");
    // Nobody else says it: the boot loader's word is enough.
    word("partition", A);
    fs::write(node.path("cmdline"), "ro quiet\n").expect("write");
    let said = node.agent_in_words(&["doctor"]).finish().output();
    assert!(said.contains("not on a Raspberry Pi: watch the first update"), "{said}");
    node.apply(&[]);
    expect(&node, "apply", (A, B), [("a", "confirmed"), ("b", "3 tries")]);
}

/// What another program wrote is read as the boot loader acts; what it leaves open is refused, and stays.
#[test]
fn a_file_of_others_is_read_as_the_boot_loader_reads_it() {
    let world = World::with_repository();
    let node = node(&world, "node", "notify");
    world.publish_stable("1.1.0", 2);
    let write = |text: &str| {
        let (image, file) =
            (format!("{}@@{AUTOBOOT}", node.disk.path().display()), node.path("new"));
        fs::write(&file, format!("{text:\n<256}")).expect("write");
        tool("mcopy", "mtools").args(["-o", "-i", &image]).arg(file).arg("::autoboot.txt").ok();
    };
    // The example of the documentation names a slot for a tryboot that nobody wrote.
    write("[all]\ntryboot_a_b=1\nboot_partition=1\n[tryboot]\nboot_partition=2\n");
    expect(&node, "documented", (A, B), [("a", "confirmed"), ("b", "not bootable")]);
    for (name, text) in [
        ("another file at a tryboot", "boot_partition=1\n"),
        ("a filter that is not documented", "tryboot_a_b=1\nboot_partition=1\n[pi4]\n"),
        ("the partition of nobody", "tryboot_a_b=1\nboot_partition=3\n"),
        ("zeros", "\0\0\0\0"),
    ] {
        write(text);
        node.agent(&["apply"]).finish().refused(Reason::BootRecord);
        let kept = format!("{text:\n<256}");
        let image = format!("{}@@{AUTOBOOT}", node.disk.path().display());
        let found = tool("mtype", "mtools").args(["-i", &image, "::autoboot.txt"]).ok().text();
        assert_eq!(found, kept, "{name}");
    }
    write("# by hand\ntryboot_a_b=1\nboot_partition=1\n");
    node.apply(&[]);
    expect(&node, "a comment stays", (A, B), [("a", "confirmed"), ("b", "3 tries")]);
    assert!(text(&node).starts_with("# by hand\n[all]\n"));
}
