use std::collections::BTreeMap;
use std::path::Path;

use formats::boot_record::PerSlot;
use formats::uboot_env::{Env as Variables, EnvCopy, Layout as EnvLayout, parse_config};

use super::super::{Image, plan};
use super::*;
use crate::factory::identity::Seed;
use crate::factory::layout::Layout;
use crate::factory::loader::{raspberry_pi, uboot};

const MIB: u64 = 1 << 20;
const UBOOT: &str = include_str!("../../../../boards/u-boot-arm64.toml");
const PI: &str = include_str!("../../../../boards/raspberry-pi.toml");

/// The node of both boards, but for its components.
const NODE: &str = r#"
state_dir = "/var/lib/update-agent"
[node]
product = "demo"
hardware = ["board-1"]
[trust]
root = "root.json"
[boot]
backend = "uboot-env"
disk = "/dev/vda"
[slots.a]
os = "root-a"
[slots.b]
os = "root-b"
[health]
accept_no_checks = true
"#;

fn pi_node() -> String {
    NODE.replace("\"uboot-env\"", "\"rpi-tryboot\"\ncomponent = \"boot\"")
        .replace("[slots.a]", "[slots.a]\nboot = \"boot-a\"")
        .replace("[slots.b]", "[slots.b]\nboot = \"boot-b\"")
}

/// The board with two programs, of 30 KiB and 1 MiB.
fn with_programs(text: &str) -> String {
    let raw = "[[raw]]\nfile = \"spl.bin\"\noffset = \"32KiB\"\n\
               [[raw]]\nfile = \"u-boot.itb\"\noffset = \"8MiB\"\n[u-boot]";
    // The profile has an example as a comment.
    text.replace("#offset = \"32KiB\"", "").replacen("\n[u-boot]", &format!("\n{raw}"), 1)
}

const LENGTHS: [u64; 2] = [30 << 10, MIB];

fn board(text: &str) -> Board {
    Board::parse(text, Path::new("/boards")).unwrap_or_else(|error| panic!("{error}"))
}

fn node(text: &str) -> Node {
    let at = Path::new("/etc/update-agent/update-agent.toml");
    Node::read(text, at).unwrap_or_else(|error| panic!("{error}"))
}

fn made(board: &Board, node: &Node, raw: &[u64]) -> Result<Layout, LayoutError> {
    let image = Image { len: 100 * MIB, verity: false };
    let images: BTreeMap<_, _> = node.places.keys().map(|name| (name.clone(), image)).collect();
    plan(board, node, &images, raw, Seed::of(&[b"a test"]))
}

fn shown(layout: &Layout) -> Vec<(&str, u64, u64)> {
    let row = |part: &'_ Partition| (part.offset >> 10, part.len >> 10);
    let parts = layout.partitions.iter();
    parts.map(|part| (part.label.as_str(), row(part).0, row(part).1)).collect()
}

#[test]
fn a_disk_for_u_boot_has_its_programs_and_environment_before_the_slots() {
    let (board, node) = (board(&with_programs(UBOOT)), node(NODE));
    let layout = made(&board, &node, &LENGTHS).unwrap();
    let (mib, slot) = (1024, 2048 * 1024);
    let expected = [
        ("boot", 16 * mib, 48 * mib),
        ("env-1", 14 * mib, 16),
        ("env-2", 15 * mib, 16),
        ("root-a", 64 * mib, slot),
        ("root-b", 64 * mib + slot, slot),
        ("data", 64 * mib + 2 * slot, 1024 * mib),
    ];
    assert_eq!(shown(&layout), expected);
    assert!(layout.partitions.iter().all(|part| part.attributes == 0), "flags are elsewhere");
    let raw: Vec<_> = layout.raw.iter().map(|raw| (raw.file.as_path(), raw.offset)).collect();
    let files = ["/boards/spl.bin", "/boards/u-boot.itb"].map(Path::new);
    assert_eq!(raw, [(files[0], 32 << 10), (files[1], 8 * MIB)]);
}

#[test]
fn the_script_starts_the_slots_by_number_and_keeps_two_copies() {
    let (mut board, node) = (board(UBOOT), node(NODE));
    let layout = made(&board, &node, &[]).unwrap();
    let text = |board: &Board| {
        let (own, env) = (board.uboot.as_ref().unwrap(), board.env.as_ref().unwrap());
        uboot::script(board, own, env, &node, &layout)
    };
    let script = text(&board);
    for line in [
        "virtio dev 0",
        "setenv racklet_boot_a 'setenv racklet_part 0:4; setenv bootargs \"${bootargs} \
         root=PARTLABEL=root-a ro\"; run racklet_start'",
        "setenv racklet_ram 480",
        "setenv racklet_read_1 'virtio read 0x48000000 0x7000 0x20'",
        "setenv racklet_write_2 'virtio write 0x48020000 0x7800 0x20'",
    ] {
        assert!(script.lines().any(|found| found == line), "{line}\n{script}");
    }
    let place = |word: &str| script.find(word).unwrap_or_else(|| panic!("no {word}"));
    assert!(place("setenv racklet_boot_b") < place("env import -c"), "the board comes first");
    assert!(place("env import -c") < place("for slot in ${BOOT_ORDER}"), "then the copies");
    // A U-Boot that keeps both copies itself needs nothing of that.
    board.env.as_mut().unwrap().initial = Some("initial".into());
    assert!(!text(&board).contains("racklet_read_1"));
    assert!(text(&board).contains("for slot in ${BOOT_ORDER}"));
}

#[test]
fn both_copies_of_the_environment_say_that_slot_a_is_confirmed() {
    let (board, node) = (board(UBOOT), node(NODE));
    let env = board.env.as_ref().unwrap();
    let initial = "# by its build\nbootcmd=run distro_bootcmd\nBOOT_ORDER=B\nfdt_addr=0x1=x\n";
    let copies = uboot::environment(env, initial).unwrap();
    let read = |bytes: &[u8]| EnvCopy::parse(bytes, EnvLayout::Redundant).unwrap();
    let [first, second] = [read(&copies[0]), read(&copies[1])];
    assert_eq!(first.env, second.env);
    assert_eq!((first.flag, second.flag), (1, 0), "the first one counts");
    let found: BTreeMap<&str, &str> = Variables::iter(&first.env).collect();
    let expected = [
        ("BOOT_A_LEFT", "9999999"),
        ("BOOT_B_LEFT", "0"),
        ("BOOT_ORDER", "A"),
        ("bootcmd", "run distro_bootcmd"),
        ("fdt_addr", "0x1=x"),
    ];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    assert!(uboot::environment(env, "no equals sign").is_err());
    assert!(uboot::environment(env, &format!("a={}", "x".repeat(0x4000))).is_err(), "too long");
    let config = uboot::env_config(&node, env);
    assert_eq!(config, "/dev/vda 0xe00000 0x4000\n/dev/vda 0xf00000 0x4000\n");
    assert_eq!(parse_config(&config).unwrap(), uboot::places(&node, env));
}

#[test]
fn a_disk_for_a_raspberry_pi_begins_with_three_fats_and_names_the_first_slot() {
    let (board, node) = (board(PI), node(&pi_node()));
    let layout = made(&board, &node, &[]).unwrap();
    let labels: Vec<&str> = layout.partitions.iter().map(|part| part.label.as_str()).collect();
    assert_eq!(labels, ["autoboot", "boot-a", "boot-b", "root-a", "root-b", "data"]);
    let types: Vec<Guid> = layout.partitions.iter().map(|part| part.type_guid).collect();
    let (fat, root) = (fat_type(), board.architecture.root_type());
    assert_eq!(types, [fat, fat, fat, root, root, Guid::LINUX]);
    let offsets: Vec<u64> = layout.partitions.iter().map(|part| part.offset).collect();
    assert!(offsets.is_sorted(), "its boot loader wants them in the order of their numbers");

    let files = raspberry_pi::files(&node, &layout).unwrap();
    let text = files[0].text.as_bytes();
    assert_eq!((files[0].path.as_str(), text.len()), ("autoboot.txt", 256));
    let (boots, partitions) = (formats::autoboot::boots, PerSlot { a: 2, b: 3 });
    assert_eq!((boots(text, false), boots(text, true)), (2, 2));
    let file = formats::autoboot::Autoboot::parse(text).unwrap();
    let flags = file.flags(&partitions).unwrap();
    assert!(flags.a.confirmed() && !flags.b.bootable(), "{flags:?}");
    assert_eq!((files[1].path.as_str(), files[1].text.as_str()), ("config.txt", ""));
}

/// A mistake: in the board, in the configuration, and what is said.
type Row = (&'static str, (&'static str, &'static str), (&'static str, &'static str), &'static str);

fn refused(board_text: &str, node_text: &str, rows: &[Row]) {
    for (name, board_edit, node_edit, said) in rows {
        let edit = |text: &str, (from, to): &(&str, &str)| {
            assert!(from.is_empty() || text.contains(from), "{name}: {from}");
            if from.is_empty() { text.to_owned() } else { text.replacen(from, to, 1) }
        };
        let (board, node) =
            (board(&edit(board_text, board_edit)), node(&edit(node_text, node_edit)));
        let error = made(&board, &node, &LENGTHS).expect_err(name);
        assert!(error.to_string().contains(said), "{name}: {error}");
    }
}

const ARM64: &str = "architecture = \"arm64\"";
const ROOTFS: &str = "architecture = \"arm64\"\nsystem = \"rootfs\"";

#[test]
fn each_mistake_of_a_board_with_u_boot_has_one_error() {
    let (none, offset) = (("", ""), "offset = \"32KiB\"");
    let rows: [Row; 20] = [
        ("no env", ("[env]", "[autoboot]\nsize = \"48MiB\"\n[env]"), none, "reads no [autoboot]"),
        ("backend", none, ("uboot-env", "gpt-attributes"), "and not \"uboot-env\""),
        ("on the table", (offset, "offset = \"8KiB\""), none, "the partition table ends at byte"),
        ("just on it", (offset, "offset = \"8163KiB\""), none, "where /boards/u-boot.itb begins"),
        ("in the env", (offset, "offset = \"14MiB\""), none, "copy 1 of U-Boot's environment"),
        ("in a slot", (offset, "offset = \"20MiB\""), none, "partitions_from of the board is"),
        ("no sector", (offset, "offset = \"32769\""), none, "32769 bytes are no multiple of 512"),
        ("copies", ("\"15MiB\"", "\"14MiB\""), none, "copy 1 of U-Boot's environment ends at"),
        ("env in a slot", ("\"15MiB\"", "\"16MiB\""), none, "copy 2 of U-Boot's environment ends"),
        ("env size", ("\"16KiB\"", "\"32KiB\""), none, "env.size must be 16KiB"),
        ("from", ("from = \"16MiB\"", "from = \"16385KiB\""), none, "partitions_from of"),
        ("small FAT", ("size = \"48MiB\"", "size = \"33MiB\""), none, "boot.scr of 33.0 MiB"),
        ("quotes", ("booti ", "echo ' "), none, "u-boot.start must be"),
        ("lines", ("&& \\\n    booti", "&& \n    booti"), none, "u-boot.start must be"),
        ("device", ("virtio 0", "virtio"), none, "u-boot.device must be"),
        ("memory", ("\"480\"", "\"0x48\""), none, "u-boot.ram must be"),
        ("a slot's label", none, ("\"root-b\"", "\"root b\""), "the label of a slot must be"),
        ("flags", none, ("[slots.a]", "env_flags = \"active-obsolete\"\n[slots.a]"), "env_flags"),
        ("label", none, ("os = \"root-a\"", "os = \"env-1\""), "\"env-1\""),
        ("no partition", (ARM64, ROOTFS), none, "the component rootfs must be a partition"),
    ];
    refused(&with_programs(UBOOT), NODE, &rows);
    let layout = made(&board(&with_programs(UBOOT)), &node(NODE), &[0, MIB]);
    assert_eq!(layout.unwrap_err().to_string(), "/boards/spl.bin is empty");
    let up_to_it = made(&board(&with_programs(UBOOT)), &node(NODE), &[8 * MIB - (32 << 10), MIB]);
    assert!(up_to_it.is_ok(), "side by side");
}

#[test]
fn each_mistake_of_a_raspberry_pi_has_one_error() {
    let none = ("", "");
    refused(
        PI,
        &pi_node(),
        &[
            ("no section", ("[autoboot]\nsize = \"48MiB\"\n", ""), none, "has no [autoboot]"),
            ("small", ("size = \"48MiB\"", "size = \"16MiB\""), none, "autoboot.txt of 16.0 MiB"),
            ("no size", ("boot = \"256MiB\"\n", ""), none, "no size for component boot"),
            ("a slot", ("boot = \"256MiB\"", "boot = \"64MiB\""), none, "boot needs"),
            ("label", none, ("\"boot-b\"", "\"data\""), "\"data\""),
        ],
    );
}
