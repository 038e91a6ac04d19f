//! One story for every boot backend: apply, trial, confirm, fifty power cycles, a release that fails
//! until its tries are used up, revert, revert by hand. After each step the record is read with the
//! tool that other people made for it.
//!
//! | backend | real reader | what it judges |
//! |---|---|---|
//! | `gpt-attributes` | `cgpt` (ChromeOS) | the bits of both partitions |
//! | `uboot-env` | `fw_printenv` (libubootenv) | both copies, which of them counts, the variables |
//! | `grub-env` | `grub-editenv` | the block and its variables |
//! | `systemd-boot` | `bootctl list` (systemd) | the entries in systemd-boot's order, their counters |
//!
//! The boot itself is `boot-select --simulate` here; the loaders boot in the QEMU tier.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use formats::reason::Exit;
use racklet_tests::rig::{Node, Run, TRIES, World, confirmed, tool};

/// What a record says of one slot, in nobody's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Cleared,
    Trial(u8),
    Confirmed,
}
use Slot::{Cleared, Confirmed, Trial};

/// The slots in the order in which they would be tried, and what is said of each.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    order: String,
    a: Slot,
    b: Slot,
}

fn record(order: &str, a: Slot, b: Slot) -> Record {
    Record { order: order.to_owned(), a, b }
}

/// A boot loader's record on a node, made and read with the tools of others.
trait Reader {
    /// Goes into `[boot]`.
    fn config(&self, node: &Node) -> String;
    /// Slot a confirmed, slot b not bootable: how a factory leaves it.
    fn provision(&self, node: &Node);
    fn read(&self, node: &Node) -> Record;
}

fn story(reader: &dyn Reader) {
    let world = World::with_repository();
    let (v1, v2) = (world.publish_stable("1.0.0", 1), world.publish_stable("1.1.0", 2));
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    reader.provision(&node);
    node.reconfigure("backend = \"gpt-attributes\"", &reader.config(&node));
    let check = |when: &str, order: &str, a: Slot, b: Slot| {
        assert_eq!(reader.read(&node), record(order, a, b), "{when}");
        let status = node.status();
        for (name, slot) in [("a", a), ("b", b)] {
            let said = &status["slots"][name];
            let tries = said["tries"].as_u64();
            match slot {
                Cleared => assert_eq!(said["bootable"], false, "{when}: {said}"),
                Trial(left) => assert_eq!(tries, Some(u64::from(left)), "{when}: {said}"),
                Confirmed => assert_eq!(said["confirmed"], true, "{when}: {said}"),
            }
        }
    };
    assert_eq!(node.boot(), "a");
    check("factory", "a", Confirmed, Cleared);

    node.apply(&[]);
    check("apply", "ba", Confirmed, Trial(TRIES));
    assert_eq!(node.boot(), "b");
    check("trial", "ba", Confirmed, Trial(TRIES - 1));
    let _confirmed = node.run_once().exits(Exit::Done);
    check("confirm", "ba", Confirmed, Confirmed);
    node.expect_slot("b", &v2);
    for cycle in 0..50 {
        assert_eq!(node.boot(), "b", "power cycle {cycle}");
    }
    check("fifty power cycles", "ba", Confirmed, Confirmed);

    world.publish_stable("1.2.0", 3);
    node.apply(&[]);
    check("apply to slot a", "ab", Trial(TRIES), Confirmed);
    node.set_healthy(false);
    for left in (0..TRIES).rev() {
        assert_eq!(node.boot(), "a");
        check("failing trial", "ab", Trial(left), Confirmed);
        let _failed = node.run_once().exits(Exit::Boot);
        assert!(node.reboot_was_asked(), "a failed trial ends in a reboot");
    }
    assert_eq!(node.boot(), "b", "tries used up");
    check("the boot loader reverts", "ab", Trial(0), Confirmed);
    node.set_healthy(true);
    let _recorded = node.run_once().exits(Exit::Done);
    check("the revert is recorded", "b", Cleared, Confirmed);
    node.expect_slot("b", &v2);

    let v4 = world.publish_stable("1.3.0", 4);
    node.apply(&[]);
    node.agent(&["revert"]).ok();
    check("reverted before the reboot", "b", Cleared, Confirmed);
    assert_eq!(node.boot(), "b");
    node.apply(&["--retry"]);
    assert_eq!(node.boot(), "a");
    let _confirmed = node.run_once().exits(Exit::Done);
    check("the slot that was bad is good", "ab", Confirmed, Confirmed);
    node.expect_slot("a", &v4);
}

struct Gpt;

impl Reader for Gpt {
    fn config(&self, _: &Node) -> String {
        "backend = \"gpt-attributes\"".to_owned()
    }

    fn provision(&self, node: &Node) {
        node.disk.set_flags("root-a", confirmed(1));
    }

    fn read(&self, node: &Node) -> Record {
        let [a, b] = ["root-a", "root-b"].map(|label| node.disk.flags(label));
        let mut order = vec![("a", a), ("b", b)];
        order.retain(|(_, flags)| flags.priority > 0);
        order.sort_by_key(|(_, flags)| 16 - flags.priority);
        let slot = |flags: racklet_tests::rig::Flags| match flags.successful {
            true => Confirmed,
            false if flags.priority == 0 => Cleared,
            false => Trial(flags.tries),
        };
        Record { order: order.iter().map(|(name, _)| *name).collect(), a: slot(a), b: slot(b) }
    }
}

/// The variables of RAUC and `bootmeth_rauc`, as their documentation has them.
fn of_variables(vars: &BTreeMap<String, String>) -> Record {
    let order = vars["BOOT_ORDER"].replace(' ', "").to_lowercase();
    let slot = |name: &str, left: &str| match vars[left].parse::<u32>() {
        Ok(0) if !order.contains(name) => Cleared,
        Ok(left) if left <= 9 => Trial(u8::try_from(left).expect("at most 9")),
        Ok(_) => Confirmed,
        Err(error) => panic!("{left}: {error}"),
    };
    let (a, b) = (slot("a", "BOOT_A_LEFT"), slot("b", "BOOT_B_LEFT"));
    Record { order: order.clone(), a, b }
}

fn variables(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

const FACTORY: [(&str, &str); 3] =
    [("BOOT_ORDER", "A"), ("BOOT_A_LEFT", "9999999"), ("BOOT_B_LEFT", "0")];

struct Uboot;

/// Where the environment lies, for them and for us: two copies of 16 KiB in one file.
fn fw_env_config(node: &Node) -> PathBuf {
    let (file, config) = (node.path("uboot.env"), node.path("fw_env.config"));
    if !config.exists() {
        fs::write(&file, vec![0xff; 0x9000]).expect("make an erased medium");
        let lines = ["0x1000", "0x5000"].map(|at| format!("{} {at} 0x4000\n", file.display()));
        fs::write(&config, lines.concat()).expect("write fw_env.config");
    }
    config
}

fn fw(program: &str, node: &Node) -> Run {
    tool(program, "libubootenv-tool").arg("-c").arg(fw_env_config(node))
}

impl Reader for Uboot {
    fn config(&self, node: &Node) -> String {
        format!("backend = \"uboot-env\"\nenv_config = {:?}", fw_env_config(node))
    }

    fn provision(&self, node: &Node) {
        let defaults = node.path("uboot.defaults");
        let lines = FACTORY.map(|(name, value)| format!("{name}={value}\n")).concat();
        fs::write(&defaults, lines + "bootdelay=2\n").expect("write defaults");
        // The first write makes the first copy; U-Boot makes the second one at its first `saveenv`.
        fw("fw_setenv", node).arg("-f").arg(&defaults).args(["board", "racklet"]).ok();
        fw("fw_setenv", node).args(["board", "racklet-cu"]).ok();
    }

    fn read(&self, node: &Node) -> Record {
        let vars = variables(&fw("fw_printenv", node).ok().text());
        assert_eq!(vars["board"], "racklet-cu", "variables of others stay");
        assert_eq!(vars.len(), 5, "{vars:?}");
        of_variables(&vars)
    }
}

struct Grub;

impl Reader for Grub {
    fn config(&self, node: &Node) -> String {
        format!("backend = \"grub-env\"\ngrub_env = {:?}", node.path("grubenv"))
    }

    fn provision(&self, node: &Node) {
        let editenv = || tool("grub-editenv", "grub-common").arg(node.path("grubenv"));
        editenv().arg("create").ok();
        let vars = FACTORY.map(|(name, value)| format!("{name}={value}"));
        editenv().arg("set").arg("saved_entry=0").args(vars).ok();
    }

    fn read(&self, node: &Node) -> Record {
        let file = node.path("grubenv");
        assert_eq!(fs::metadata(&file).expect("stat").len(), 1024);
        let vars =
            variables(&tool("grub-editenv", "grub-common").arg(file).arg("list").ok().text());
        assert_eq!(vars["saved_entry"], "0", "variables of others stay");
        of_variables(&vars)
    }
}

struct SystemdBoot;

/// `bootctl` of Debian's package systemd-boot, installed or unpacked by `cargo xtask setup`.
fn bootctl() -> PathBuf {
    racklet_tools::setup::unpacked("systemd-boot", "usr/bin/bootctl")
        .expect("bootctl is missing: `cargo xtask setup` unpacks it")
}

impl Reader for SystemdBoot {
    fn config(&self, node: &Node) -> String {
        format!("backend = \"systemd-boot\"\nesp = {:?}", node.path("esp"))
    }

    fn provision(&self, node: &Node) {
        let esp = node.path("esp");
        for folder in ["loader/entries", "loader/racklet"] {
            fs::create_dir_all(esp.join(folder)).expect("make the ESP");
        }
        fs::write(esp.join("vmlinuz"), "").expect("write a kernel");
        for slot in ["a", "b"] {
            let text = format!(
                "title slot {slot}\nsort-key racklet\nlinux /vmlinuz\noptions racklet.slot={slot}\n"
            );
            fs::write(esp.join(format!("loader/racklet/{slot}.conf")), &text).expect("write");
            if slot == "a" {
                fs::write(esp.join("loader/entries/racklet-1-a.conf"), &text).expect("write");
            }
        }
        let old = "title an installation of before\nlinux /vmlinuz\n";
        fs::write(esp.join("loader/entries/debian.conf"), old).expect("write");
    }

    fn read(&self, node: &Node) -> Record {
        // bootctl reads only what is the root of a file system, so the folder becomes one.
        let script =
            "mount --bind \"$1\" \"$1\" && exec \"$2\" --esp-path=\"$1\" list --json=short";
        // Root needs no user namespace, which containers and chroots refuse.
        let user: &[&str] =
            if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let done = tool("unshare", "util-linux")
            .args(user)
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(node.path("esp"))
            .arg(bootctl())
            .env("SYSTEMD_RELAX_ESP_CHECKS", "1")
            .ok();
        // One document for each entry (252), or a list of them (newer).
        let text = done.text();
        let documents = serde_json::Deserializer::from_str(&text);
        let mut entries = Vec::new();
        for document in documents.into_iter::<serde_json::Value>() {
            match document.expect("JSON of bootctl") {
                serde_json::Value::Array(list) => entries.extend(list),
                one => entries.push(one),
            }
        }
        let mut found = record("", Cleared, Cleared);
        let mut out_of_tries = String::new();
        for entry in &entries {
            let title = entry["title"].as_str().unwrap_or_default();
            let Some(slot) = title.strip_prefix("slot ") else { continue };
            assert!(entry["options"].as_str().is_some_and(|o| o.ends_with(slot)), "{entry}");
            let state = match entry["triesLeft"].as_u64() {
                None => Confirmed,
                Some(left) => Trial(u8::try_from(left).expect("a few tries")),
            };
            let order = if state == Trial(0) { &mut out_of_tries } else { &mut found.order };
            order.push_str(slot);
            match slot {
                "a" => found.a = state,
                _ => found.b = state,
            }
        }
        // systemd lists what is out of tries last; in the other records it keeps its place.
        found.order = out_of_tries + &found.order;
        found
    }
}

#[test]
fn gpt_attributes_by_cgpt() {
    story(&Gpt);
}

#[test]
fn uboot_env_by_fw_printenv() {
    story(&Uboot);
}

#[test]
fn grub_env_by_grub_editenv() {
    story(&Grub);
}

#[test]
fn systemd_boot_by_bootctl() {
    story(&SystemdBoot);
}

/// What `doctor` finds before the first update, on each record.
#[test]
fn doctor_names_what_a_record_cannot_promise() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let rows: [(&str, &dyn Reader, &str, &str); 6] = [
        ("grub", &Grub, "true", "weak boot flags       GRUB's environment block has one copy"),
        ("uboot", &Uboot, "true", "ok   boot flags       uboot-env"),
        (
            "uboot-second-copy-torn",
            &Uboot,
            "printf x | dd of=uboot.env bs=1 seek=20500 conv=notrunc",
            "weak boot flags       copy 2 of U-Boot's environment is not whole",
        ),
        ("esp", &SystemdBoot, "true", "ok   boot flags       systemd-boot"),
        (
            "esp-with-a-stranger",
            &SystemdBoot,
            "printf 'sort-key debian\nlinux /x\n' > esp/loader/entries/debian.conf",
            "weak boot flags       systemd-boot boots debian.conf before our entries",
        ),
        (
            "esp-not-mounted",
            &SystemdBoot,
            "mv esp/loader/entries esp/loader/away",
            "BAD  boot flags       boot.esp: open",
        ),
    ];
    for (name, reader, damage, said) in rows {
        let node = Node::from_factory(&world, name, &v1, &world.repository().reference());
        reader.provision(&node);
        node.reconfigure("backend = \"gpt-attributes\"", &reader.config(&node));
        let place = node.path(".").display().to_string();
        Run::new("sh").args(["-ec", &format!("cd {place}; {damage}")]).ok();
        let output = node.agent_in_words(&["doctor"]).finish().output();
        assert!(output.lines().any(|line| line.starts_with(said)), "{name}:\n{output}");
    }
}

/// As many systems mount it, or as the kernel remounts it after errors.
#[test]
fn doctor_finds_an_esp_that_cannot_be_written() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    SystemdBoot.provision(&node);
    node.reconfigure("backend = \"gpt-attributes\"", &SystemdBoot.config(&node));
    let script =
        "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let user: &[&str] =
        if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let wrapper = tool("unshare", "util-linux")
        .args(user)
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(node.path("esp"));
    let output = node.agent_in_words(&["doctor"]).under(wrapper).finish().output();
    let line = output.lines().find(|line| line.starts_with("BAD  boot flags"));
    assert!(line.is_some_and(|line| line.contains("mount it read-write")), "{output}");
}

#[test]
fn what_fw_setenv_writes_is_ours_and_single_copies_are_refused() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    Uboot.provision(&node);
    node.reconfigure("backend = \"gpt-attributes\"", &Uboot.config(&node));
    // Through the wrap of the flag from 255 to 0, in turns.
    for round in 0..140 {
        let (order, slot) = if round % 2 == 0 { ("B A", "b") } else { ("A B", "a") };
        let vars = [("BOOT_ORDER", order), ("BOOT_A_LEFT", "9999999"), ("BOOT_B_LEFT", "9999998")];
        let script = vars.map(|(name, value)| format!("{name}={value}\n")).concat();
        fs::write(node.path("script"), script).expect("write");
        fw("fw_setenv", &node).arg("-s").arg(node.path("script")).ok();
        if round % 20 < 4 {
            assert_eq!(node.boot(), slot, "round {round}");
        }
    }
    world.publish_stable("1.1.0", 2);
    let config = fw_env_config(&node);
    let two = fs::read_to_string(&config).expect("read");
    let one: String = two.lines().take(1).collect();
    let before = fs::read(node.path("uboot.env")).expect("read");
    fs::write(&config, one).expect("write");
    // As one copy, its checksum is another one: U-Boot and fw_printenv disagree with the file.
    node.agent(&["status"]).finish().refused(formats::reason::Reason::BootRecord);
    fs::write(&config, two).expect("write");
    // A U-Boot that keeps a single copy, where two are configured.
    let mut single = before.clone();
    let crc = crc_of(&single[0x1004..0x5000]);
    single[0x1000..0x1004].copy_from_slice(&crc.to_le_bytes());
    fs::write(node.path("uboot.env"), &single).expect("write");
    let done = node.agent(&["apply"]).finish();
    done.refused(formats::reason::Reason::BootRecord);
    assert!(done.output().contains("single copy"), "{}", done.output());
    assert_eq!(fs::read(node.path("uboot.env")).expect("read"), single, "nothing was written");
}

/// Others write to the environment, too, and all of them take one lock: nothing is lost, and nobody takes the
/// other's writes for a medium that fails.
#[test]
fn uboot_environments_are_changed_beside_fw_setenv() {
    let world = World::with_repository();
    let v1 = world.publish_stable("1.0.0", 1);
    let node = Node::from_factory(&world, "node", &v1, &world.repository().reference());
    Uboot.provision(&node);
    node.reconfigure("backend = \"gpt-attributes\"", &Uboot.config(&node));
    world.publish_stable("1.1.0", 2);
    let over = std::sync::atomic::AtomicBool::new(false);
    let edits = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut edits = 0_u32;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                fw("fw_setenv", &node).args(["mycount", &edits.to_string()]).ok();
                edits += 1;
            }
            edits
        });
        for _ in 0..10 {
            node.agent(&["apply", "--retry"]).ok();
            node.agent(&["revert"]).ok();
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        other.join().expect("fw_setenv worked each time")
    });
    let found = variables(&fw("fw_printenv", &node).ok().text());
    assert_eq!(found["mycount"], (edits - 1).to_string(), "the last of {edits} edits");
    assert_eq!(found["board"], "racklet-cu", "variables of others stay");
}

/// CRC-32 of IEEE 802.3, bit by bit: not the code that is tested.
fn crc_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
