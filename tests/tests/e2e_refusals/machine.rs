//! The node itself is not as it should be.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use formats::reason::Reason;
use racklet_tests::rig::{Before, CLEAR, Done, Flags, confirmed};

use super::Offered;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn cmdline(it: &Offered) -> String {
    fs::read_to_string(it.node.path("cmdline")).expect("read the command line")
}

fn boot_as(it: &Offered, cmdline: &str) {
    fs::write(it.node.path("cmdline"), cmdline).expect("write the command line");
}

/// Exchanges the labels of both slots in the configuration.
fn swap_labels(it: &Offered) {
    for (from, to) in [("-a\"", "-x\""), ("-b\"", "-a\""), ("-x\"", "-b\"")] {
        for name in ["os = \"root", "firmware = \"fw"] {
            it.node.reconfigure(&format!("{name}{from}"), &format!("{name}{to}"));
        }
    }
}

#[test]
fn booted_slot_named_as_the_other_one() {
    let it = Offered::new();
    // "Slot b" is now the partition that runs.
    swap_labels(&it);
    let before = it.before();
    it.node.agent(&["apply"]).finish().refused(Reason::BootRecord);
    before.untouched(&it.node, "MSBF");
    swap_labels(&it);
    // The same where both slots are confirmed, so that their flags tell nothing.
    it.recovers();
    let _v3 = it.world.publish_stable("1.2.0", 3);
    swap_labels(&it);
    let before = Before::of(&it.node, "b");
    it.node.agent(&["apply"]).finish().refused(Reason::BootRecord);
    before.untouched(&it.node, "MSBF");
}

#[test]
fn booted_slot_is_also_the_target() {
    let it = Offered::new();
    // One partition of the running slot is listed in the other slot as well.
    it.node.reconfigure("firmware = \"fw-b\"", "firmware = \"fw-a\"");
    let before = it.before();
    let done = it.node.agent(&["apply"]).finish();
    assert!(matches!(done.code, 20 | 23), "{}", done.output());
    before.untouched(&it.node, "MSBF");
}

/// A loop device, given back when dropped; none where the machine has none.
struct Loop(String);

impl Loop {
    fn on(file: &Path, start: u64, len: u64) -> Option<Loop> {
        let range = [format!("--offset={start}"), format!("--sizelimit={len}")];
        let made = Command::new("losetup").args(["-f", "--show"]).args(range).arg(file).output();
        let made = made.ok().filter(|made| made.status.success())?;
        Some(Loop(String::from_utf8(made.stdout).expect("a name").trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

#[test]
fn bytes_that_somebody_needs_are_known_under_every_name() {
    let it = Offered::new();
    let disk = it.node.disk.path().to_owned();
    let hard = it.node.path("hard.img");
    fs::hard_link(&disk, &hard).expect("a second name");
    let (fw_a, fw_b) = (it.node.disk.extent("fw-a"), it.node.disk.extent("fw-b"));
    let (root_a, root_b) = (it.node.disk.extent("root-a"), it.node.disk.extent("root-b"));
    let whole = fs::metadata(&disk).expect("stat").len();
    // What firmware of slot b is said to be: bytes of the disk, through a loop device or by a hard link; the exit code.
    type Range = (u64, u64);
    let rows: [(&str, Option<Range>, i32); 8] = [
        ("the whole disk by another name", None, 20),
        ("the whole disk through a loop device", Some((0, whole)), 20),
        ("the running firmware through a loop device", Some(fw_a), 20),
        ("the running system through a loop device", Some(root_a), 20),
        ("the last block of the running system", Some((root_a.0 + root_a.1 - 4096, 4096)), 20),
        ("the first block of the disk", Some((0, 4096)), 20),
        ("the system of the same slot", Some(root_b), 23),
        ("a part of it", Some((root_b.0 + 4096, 4096)), 23),
    ];
    let before = it.before();
    for (name, range, code) in rows {
        let node = match range {
            None => None,
            Some((start, len)) => match Loop::on(&disk, start, len) {
                Some(node) => Some(node),
                None => continue,
            },
        };
        let path = node.as_ref().map_or(hard.to_str().expect("UTF-8"), |node| node.0.as_str());
        let place = format!("firmware = {{ device = {path:?} }}");
        it.node.reconfigure("firmware = \"fw-b\"", &place);
        let done = it.node.agent(&["apply"]).finish();
        assert_eq!(done.code, code, "{name}: {}", done.output());
        assert!(done.stderr.contains("are the same bytes"), "{name}: {}", done.output());
        it.node.reconfigure(&place, "firmware = \"fw-b\"");
        drop(node);
        before.untouched(&it.node, "MSBF");
    }
    fs::remove_file(&hard).expect("remove the second name");
    // A loop device that nobody else needs is as good as the label.
    if let Some(node) = Loop::on(&disk, fw_b.0, fw_b.1) {
        it.node
            .reconfigure("firmware = \"fw-b\"", &format!("firmware = {{ device = {:?} }}", node.0));
        let report = it.node.apply(&[]);
        assert_eq!(report["slot"], "b", "{report}");
    }
}

#[test]
fn booted_slot_unknown_or_contradictory() {
    let it = Offered::new();
    let line = cmdline(&it);
    let partuuid = |n: u8| format!("root=PARTUUID=5ac4e700-0000-4000-8000-00000000000{n}");
    let rows = [
        ("no word about it", "quiet ro".to_owned()),
        ("a device name", "root=/dev/vda1 ro".to_owned()),
        ("a partition of no slot", "root=PARTUUID=11111111-2222-3333-4444-555555555555".to_owned()),
        ("a slot that does not exist", "racklet.slot=c".to_owned()),
        ("slot and root disagree", format!("{} racklet.slot=a", partuuid(2))),
        ("two slots", "racklet.slot=a racklet.slot=b".to_owned()),
    ];
    let before = it.before();
    for (name, text) in rows {
        boot_as(&it, &text);
        let done = it.node.agent(&["apply"]).finish();
        assert!(done.stderr.contains("error[boot_record]"), "{name}: {}", done.output());
        done.refused(Reason::BootRecord);
        boot_as(&it, &line);
        before.untouched(&it.node, "MSBF");
    }
    // The kernel's own words are enough, without our chooser.
    boot_as(&it, &partuuid(1));
    let report = it.node.apply(&[]);
    assert_eq!(report["slot"], "b", "{report}");
    it.node.expect_slot("b", &it.v2);
}

#[test]
fn missing_device_node() {
    let it = Offered::new();
    it.node.reconfigure("disk = \"disk.img\"", "disk = \"dev/nvme0n1\"");
    let before = it.before();
    it.node.agent(&["apply"]).finish().refused(Reason::SlotIo);
    it.node.agent(&["status"]).finish().refused(Reason::SlotIo);
    it.node.agent(&["boot-select", "--simulate"]).finish().refused(Reason::SlotIo);
    // F: nothing was created, neither the node nor its folder.
    before.untouched(&it.node, "MSBF");
    assert!(!it.node.path("dev").exists());
    // The same in a folder that is there, as /dev is.
    fs::create_dir(it.node.path("dev")).expect("make a folder");
    it.node.agent(&["apply"]).finish().refused(Reason::SlotIo);
    assert!(!it.node.path("dev/nvme0n1").exists(), "a regular file was created for the device");
    it.node.reconfigure("disk = \"dev/nvme0n1\"", "disk = \"disk.img\"");
    it.recovers();
}

#[test]
fn disk_without_the_slots() {
    let it = Offered::new();
    let before = it.before();
    it.node.reconfigure("os = \"root-b\"", "os = \"root-c\"");
    it.node.agent(&["apply"]).finish().refused(Reason::GptInvalid);
    it.node.reconfigure("os = \"root-c\"", "os = \"root-b\"");
    before.untouched(&it.node, "MSBF");
    let disk = fs::read(it.node.disk.path()).expect("read the disk");
    fs::write(it.node.disk.path(), vec![0; disk.len()]).expect("wipe the disk");
    let done = it.node.agent(&["apply"]).finish();
    done.refused(Reason::GptInvalid);
    let wiped = fs::read(it.node.disk.path()).expect("read the disk");
    assert!(wiped.iter().all(|byte| *byte == 0), "a disk without a table was written to");
    fs::write(it.node.disk.path(), disk).expect("restore the disk");
    it.recovers();
}

#[test]
fn one_damaged_copy_of_the_table_is_mended() {
    use std::os::unix::fs::FileExt as _;
    for (name, from_end, offset) in [("primary", false, 512), ("backup", true, 512)] {
        let it = Offered::new();
        let file = fs::OpenOptions::new().write(true).open(it.node.disk.path()).expect("open");
        let len = file.metadata().expect("stat").len();
        let at = if from_end { len - offset } else { offset };
        file.write_all_at(&[0x5a; 64], at).expect("damage a header");
        let status = it.node.status();
        assert_eq!(status["booted"], "a", "{name}: {status}");
        it.recovers();
    }
}

#[test]
fn files_that_others_can_change() {
    let it = Offered::new();
    let root = it.world.path("root.json");
    let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o7777;
    let places = [
        ("configuration", it.node.config(), 0o666),
        ("folder of the configuration", it.node.path("."), 0o777),
        ("trust root", root, 0o646),
        ("state", it.node.state(), 0o777),
        ("a record of the state", it.node.state().join("floor.0"), 0o666),
    ];
    for (name, path, bad) in places {
        if !path.exists() {
            fs::write(&path, "").expect("write a file");
        }
        let good = mode(&path);
        set_mode(&path, bad);
        let done = it.node.agent(&["apply"]).finish();
        set_mode(&path, good);
        assert!(done.stderr.contains("error[insecure_perms]"), "{name}: {}", done.output());
        done.refused(Reason::InsecurePerms);
        it.node.disk.expect(confirmed(1), CLEAR);
    }
    fs::remove_file(it.node.state().join("floor.0")).expect("remove the file");
    it.recovers();
}

#[test]
fn damaged_state() {
    let it = Offered::new();
    it.node.update(&[], "b");
    let _v3 = it.world.publish_stable("1.2.0", 3);
    let before = Before::of(&it.node, "b");
    for name in ["boot-record", "trust", "floor"] {
        let copies = [0, 1].map(|n| it.node.state().join(format!("{name}.{n}")));
        let copies: Vec<_> = copies.into_iter().filter(|copy| copy.exists()).collect();
        if copies.is_empty() {
            // Nothing to lose yet: the floor is zero until something raises it.
            assert_eq!(name, "floor");
            continue;
        }
        let bytes: Vec<Vec<u8>> = copies.iter().map(|c| fs::read(c).expect("read")).collect();
        for copy in &copies {
            let mut bad = fs::read(copy).expect("read");
            let middle = bad.len() / 2;
            bad[middle] ^= 1;
            fs::write(copy, bad).expect("write");
        }
        let done = it.node.agent(&["apply"]).finish();
        for (copy, bytes) in copies.iter().zip(bytes) {
            fs::write(copy, bytes).expect("write");
        }
        assert!(done.stderr.contains("error[store_corrupt]"), "{name}: {}", done.output());
        done.refused(Reason::StoreCorrupt);
        before.untouched(&it.node, "MSBF");
    }
    it.node.update(&[], "a");
}

/// Flips a bit in the middle of both copies of a record.
fn damage(it: &Offered, name: &str) {
    for copy in [0, 1].map(|n| it.node.state().join(format!("{name}.{n}"))) {
        let mut bytes = fs::read(&copy).expect("read a copy");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(copy, bytes).expect("write a copy");
    }
}

/// The arguments of the command that an error advises, after `update-agent`.
fn advised(done: &Done) -> Vec<String> {
    let advice = done.stderr.split_once("`update-agent ").expect("a command is advised").1;
    let command = advice.split_once('`').expect("the command ends").0;
    command.split(' ').map(str::to_owned).collect()
}

/// What the error says is done, word for word, and the node updates.
#[test]
fn the_advice_for_damaged_trust_ends_with_a_node_that_updates() {
    let it = Offered::new();
    let root = it.world.path("root.json").display().to_string();
    let asks: [&[&str]; 3] = [&["check"], &["apply"], &["doctor"]];
    for (record, advice) in [("trust", "reset --yes"), ("root", "reset --yes --root FILE")] {
        if record == "root" {
            let _enrolled = it.node.agent(&["reset", "--yes", "--root", &root]).ok();
        }
        let _checked = it.node.agent(&["check"]).finish();
        damage(&it, record);
        for ask in asks {
            let said = it.node.agent_in_words(ask).finish();
            let all = format!("{}{}", said.stderr, said.text());
            assert!(all.contains(&format!("`update-agent {advice}`")), "{record}: {all}");
            assert_eq!(said.code, 23, "{record}: {all}");
        }
        let said = it.node.agent(&["apply"]).finish();
        assert!(said.stderr.contains("error[store_corrupt]"), "{record}: {}", said.output());
        let command = advised(&said);
        let command: Vec<&str> =
            command.iter().map(|word| if word == "FILE" { &root } else { &**word }).collect();
        let _mended = it.node.agent(&command).ok();
        let _checked = it.node.agent(&["check"]).ok();
    }
    it.recovers();
}

#[test]
fn nothing_verified_is_no_success() {
    let it = Offered::new();
    // The factory wrote slot a; the agent knows nothing of either.
    it.node.agent(&["verify"]).finish().refused(Reason::BootRecord);
    it.recovers();
    let _verified = it.node.agent(&["verify"]).ok();
}

#[test]
fn one_damaged_copy_of_a_record_costs_nothing() {
    let it = Offered::new();
    it.node.update(&[], "b");
    let _v3 = it.world.publish_stable("1.2.0", 3);
    for name in ["boot-record", "trust"] {
        for n in [0, 1] {
            let copy = it.node.state().join(format!("{name}.{n}"));
            let Ok(bytes) = fs::read(&copy) else { continue };
            fs::write(&copy, &bytes[..bytes.len() / 2]).expect("write");
            let status = it.node.agent(&["check"]).finish();
            assert!(matches!(status.code, 0 | 1), "{name}.{n}: {}", status.output());
            fs::write(&copy, bytes).expect("write");
        }
    }
    it.node.update(&[], "a");
}

#[test]
fn lost_state_starts_again_from_the_shipped_root() {
    let it = Offered::new();
    it.node.update(&[], "b");
    let _v3 = it.world.publish_stable("1.2.0", 3);
    fs::remove_dir_all(it.node.state()).expect("lose the state");
    let report = it.node.update(&[], "a");
    assert_eq!(report["version"], "1.2.0", "{report}");
    it.node.disk.expect_valid();
}

#[test]
fn configuration_that_makes_no_sense() {
    let it = Offered::new();
    let before = it.before();
    let whole = fs::read_to_string(it.node.config()).expect("read the configuration");
    let rows = [
        ("a misspelt key", "tries = 3", "trys = 3"),
        ("no tries", "tries = 3", "tries = 0"),
        ("one label twice", "os = \"root-b\"", "os = \"root-a\""),
        ("not TOML", "[node]", "[node"),
    ];
    for (name, from, to) in rows {
        it.node.reconfigure(from, to);
        let done = it.node.agent(&["apply"]).finish();
        fs::write(it.node.config(), &whole).expect("restore the configuration");
        assert!(done.stderr.contains("error[config]"), "{name}: {}", done.output());
        done.refused(Reason::Config);
        before.untouched(&it.node, "MSBF");
    }
    // A trial that nothing checks would be confirmed whatever it is.
    it.node.reconfigure(
        "[[health.check]]",
        "[[health.check]]\nname = \"web2\"\ntcp = \"127.0.0.1:1\"\n[[health.check]]",
    );
    fs::write(it.node.config(), whole.split("[[health.check]]").next().expect("a part"))
        .expect("write the configuration");
    it.node.agent(&["apply"]).finish().refused(Reason::Config);
    fs::write(it.node.config(), whole).expect("restore the configuration");
    before.untouched(&it.node, "SBF");
    it.recovers();
}

#[test]
fn trial_in_progress() {
    let it = Offered::new();
    it.node.apply(&[]);
    assert_eq!(it.node.boot(), "b");
    let _v3 = it.world.publish_stable("1.2.0", 3);
    let before = Before::of(&it.node, "b");
    // The other slot is the one to go back to.
    it.node.agent(&["apply"]).finish().refused(Reason::TrialActive);
    before.untouched(&it.node, "SBF");
    it.node.disk.expect(confirmed(1), Flags { priority: 2, tries: 2, successful: false });
}

#[test]
fn confirm_without_a_trial() {
    let it = Offered::new();
    let before = it.before();
    it.node.agent(&["confirm"]).finish().refused(Reason::NotPending);
    before.untouched(&it.node, "MSBF");
}
