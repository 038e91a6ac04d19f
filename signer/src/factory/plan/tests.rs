use super::super::board::esp_type;
use super::*;

const BOARD: &str = include_str!("../../../boards/generic-uefi.toml");
const CHOOSER: &str = include_str!("../../../boards/linuxboot.toml");

/// A node with a kernel on its ESP.
const UEFI: &str = r#"
state_dir = "/var/lib/update-agent"
[node]
product = "demo"
hardware = ["board-1"]
[trust]
root = "root.json"
[boot]
backend = "systemd-boot"
disk = "/dev/vda"
[slots.a]
os = "root-a"
kernel = { device = "/efi/racklet/a/vmlinuz" }
[slots.b]
os = "root-b"
kernel = { device = "/efi/racklet/b/vmlinuz" }
[health]
accept_no_checks = true
"#;

fn board(text: &str) -> Board {
    Board::parse(text, Path::new("/boards")).unwrap()
}

fn node(text: &str) -> Node {
    Node::read(text, Path::new("/etc/update-agent/update-agent.toml")).unwrap()
}

/// A node of a chooser.
fn plain() -> String {
    let kernels = |line: &&str| !line.starts_with("kernel");
    let text = UEFI.replace("systemd-boot", "gpt-attributes");
    text.lines().filter(kernels).map(|line| format!("{line}\n")).collect()
}

fn images(sizes: &[(&str, u64)]) -> BTreeMap<ComponentName, Image> {
    let image = |len: &u64| Image { len: *len, verity: false };
    sizes.iter().map(|(name, len)| (name.parse().unwrap(), image(len))).collect()
}

fn both() -> BTreeMap<ComponentName, Image> {
    images(&[("os", 100 * MIB), ("kernel", 9_000_000)])
}

fn seed() -> Seed {
    Seed::of(&[b"a test"])
}

#[test]
fn a_uefi_disk_has_its_parts_in_order_and_aligned() {
    let layout = plan(&board(BOARD), &node(UEFI), &both(), &[], seed()).unwrap();
    let parts = layout.partitions.iter();
    let shown: Vec<(&str, u64, u64)> =
        parts.map(|part| (part.label.as_str(), part.offset / MIB, part.len / MIB)).collect();
    let expected =
        [("esp", 1, 512), ("root-a", 513, 2048), ("root-b", 2561, 2048), ("data", 4609, 1024)];
    assert_eq!(shown, expected);
    assert_eq!(layout.len / MIB, 5634);
    let files: Vec<(&str, u64)> =
        layout.esp_files.iter().map(|file| (file.path.as_str(), file.len / MIB)).collect();
    assert_eq!(files, [("racklet/a/vmlinuz", 32), ("racklet/b/vmlinuz", 32)]);
    assert!(layout.partitions.iter().all(|part| part.attributes == 0), "flags are on the ESP");
}

#[test]
fn the_chooser_finds_slot_a_confirmed() {
    let layout = plan(&board(CHOOSER), &node(&plain()), &both(), &[], seed()).unwrap();
    let flags = |label: &str| {
        let part = layout.partitions.iter().find(|part| part.label == label).unwrap();
        SlotFlags::of_attributes(part.attributes)
    };
    assert_eq!(flags("root-a"), SlotFlags { priority: 1, tries: 0, successful: true });
    assert_eq!(flags("root-b"), SlotFlags::CLEARED);
}

#[test]
fn the_type_of_a_root_partition_is_that_of_the_architecture() {
    for (architecture, program) in
        [("x86-64", "BOOTX64.EFI"), ("arm64", "BOOTAA64.EFI"), ("arm", "BOOTARM.EFI")]
    {
        let board = board(&BOARD.replace("x86-64", architecture));
        let layout = plan(&board, &node(UEFI), &both(), &[], seed()).unwrap();
        let types: Vec<Guid> = layout.partitions.iter().map(|part| part.type_guid).collect();
        let root = board.architecture.root_type();
        assert_eq!(types, [esp_type(), root, root, Guid::LINUX], "{architecture}");
        assert!(board.architecture.removable_program().ends_with(program));
    }
}

#[test]
fn what_is_on_another_device_is_named_and_left_out() {
    let text = UEFI
        .replace("[slots.b]", "bmc = { device = \"/dev/mtd0\" }\n[slots.b]")
        .replace("[health]", "bmc = { device = \"/dev/mtd1\" }\n[health]");
    let layout = plan(&board(BOARD), &node(&text), &both(), &[], seed()).unwrap();
    assert_eq!(layout.elsewhere, ["bmc".parse().unwrap()]);
}

/// A device tree's names are those of the board: whoever asks for them, gets them, and nobody else.
#[test]
fn a_node_that_asks_its_machine_has_the_names_of_the_board() {
    let on = |names: &str, hardware: &str| {
        let board = board(&format!("hardware = {names}\n{BOARD}"));
        let node = node(&UEFI.replace("hardware = [\"board-1\"]", hardware));
        node.on_board(&board).map(|node| node.hardware).map_err(|error| error.to_string())
    };
    let asks = "hardware_from = \"/proc/device-tree/compatible\"";
    let both = format!("hardware = [\"board-1\"]\n{asks}");
    assert_eq!(on("[\"acme.x1\"]", asks).unwrap(), ["acme.x1"]);
    assert_eq!(on("[\"acme.x1\"]", &both).unwrap(), ["board-1", "acme.x1"]);
    assert_eq!(on("[]", &both).unwrap(), ["board-1"]);
    assert!(on("[]", asks).unwrap_err().contains("node.hardware_from"));
    assert!(on("[\"acme.x1\"]", "hardware = [\"board-1\"]").unwrap_err().contains("hardware"));
}

/// A mistake: in the board, in the configuration, and what is said.
type Row = (&'static str, (&'static str, &'static str), (&'static str, &'static str), &'static str);

#[test]
fn each_mistake_has_one_error() {
    let none = ("", "");
    let rows: [Row; 14] = [
        ("verity", none, ("[boot]", "[boot]\nverity = true"), "--verity os"),
        ("backend", none, ("systemd-boot", "grub-env"), "boot.backend"),
        ("no size", ("kernel = \"32MiB\"\n", ""), none, "no size for component kernel"),
        ("no multiple", ("os = \"2GiB\"", "os = \"2000000\""), none, "slots.os of 2000000 bytes"),
        ("nothing", ("[data]\nsize = \"1GiB\"", "[data]\nsize = \"0\""), none, "data.size of 0"),
        ("small ESP", ("size = \"512MiB\"", "size = \"33MiB\""), none, "the ESP of 33.0 MiB"),
        ("full ESP", ("size = \"512MiB\"", "size = \"71MiB\""), none, "at least 72.0 MiB"),
        ("small data", ("[data]\nsize = \"1GiB\"", "[data]\nsize = \"8MiB\""), none, "data part"),
        ("state", none, ("/var/lib/update-agent", "/srv/agent"), "state_dir /srv/agent"),
        ("state dots", none, ("/var/lib/update-agent", "/var/../srv"), "state_dir /var/../srv"),
        ("labels", ("label = \"data\"", "label = \"root-a\""), none, "\"root-a\""),
        ("long label", none, ("\"root-a\"", "\"0123456789012345678901234567890123456\""), "36"),
        ("name", none, ("/efi/racklet/a/", "/efi/racklet/a b/"), "letters, digits"),
        (
            "kernel",
            none,
            ("{ device = \"/efi/racklet/b/vmlinuz\" }", "\"kernel-b\""),
            "component kernel is a partition in one slot",
        ),
    ];
    for (name, board_edit, node_edit, said) in rows {
        let edit = |text: &str, (from, to): (&str, &str)| {
            assert!(from.is_empty() || text.contains(from), "{name}: {from}");
            if from.is_empty() { text.to_owned() } else { text.replacen(from, to, 1) }
        };
        let (board, node) = (board(&edit(BOARD, board_edit)), node(&edit(UEFI, node_edit)));
        let error = plan(&board, &node, &both(), &[], seed()).expect_err(name);
        assert!(error.to_string().contains(said), "{name}: {error}");
    }
}

#[test]
fn a_kernel_that_uefi_cannot_read_is_refused() {
    let text = UEFI
        .replace("{ device = \"/efi/racklet/a/vmlinuz\" }", "\"kernel-a\"")
        .replace("{ device = \"/efi/racklet/b/vmlinuz\" }", "\"kernel-b\"");
    let error = plan(&board(BOARD), &node(&text), &both(), &[], seed()).unwrap_err();
    assert!(matches!(error, LayoutError::NotOnEsp { .. }), "{error}");
    let error = plan(
        &board(BOARD),
        &node(&plain().replace("gpt-attributes", "systemd-boot")),
        &both(),
        &[],
        seed(),
    );
    assert!(matches!(error, Err(LayoutError::NotOnEsp { .. })), "{error:?}");
}

#[test]
fn images_have_to_be_there_and_to_fit() {
    let (board, kernels) = (board(BOARD), ("kernel", 9_000_000));
    for (size, fits) in [(0, true), (2 << 30, true), ((2 << 30) + 1, false)] {
        let found = plan(&board, &node(UEFI), &images(&[("os", size), kernels]), &[], seed());
        assert_eq!(found.is_ok(), fits, "{size}");
        if let Err(error) = found {
            assert_eq!(error.reason(), formats::reason::Reason::SlotSize);
        }
    }
    let error = plan(&board, &node(UEFI), &images(&[kernels]), &[], seed()).unwrap_err();
    assert_eq!(error.to_string(), "the release has no os for board-1");
    assert_eq!(error.reason(), formats::reason::Reason::HwMismatch);
}

#[test]
fn a_verifying_chooser_has_its_proof_behind_the_image() {
    let node = node(&plain().replace("[boot]", "[boot]\nverity = true"));
    let of = |len| {
        let os = Image { len, verity: true };
        plan(&board(CHOOSER), &node, &[("os".parse().unwrap(), os)].into(), &[], seed())
    };
    assert!(of((2 << 30) - MIB).is_ok());
    assert!(matches!(of((2 << 30) - MIB + 1), Err(LayoutError::TooLarge { .. })));
}

#[test]
fn the_same_facts_give_the_same_plan_and_another_seed_other_guids() {
    let made = |seed| plan(&board(BOARD), &node(UEFI), &both(), &[], seed).unwrap();
    assert_eq!(made(seed()), made(seed()));
    let (one, other) = (made(seed()), made(Seed::of(&[b"another"])));
    assert_ne!(one.guid, other.guid);
    let guids: BTreeSet<Guid> =
        one.partitions.iter().chain(&other.partitions).map(|part| part.guid).collect();
    assert_eq!(guids.len(), 2 * one.partitions.len(), "no two are the same");
}

#[test]
fn a_system_in_memory_needs_no_partition_and_its_entry_names_no_root() {
    let text = UEFI
        .replace("os = \"root-a\"", "initrd = { device = \"/efi/racklet/a/initrd.img\" }")
        .replace("os = \"root-b\"", "initrd = { device = \"/efi/racklet/b/initrd.img\" }")
        .replace("[boot]", "[boot]\ncomponent = \"initrd\"")
        .replace("/var/lib", "/data");
    let (board, node) = (board(include_str!("../../../boards/ram-uefi.toml")), node(&text));
    let of = |initrd| images(&[("initrd", initrd), ("kernel", 9_000_000)]);
    let layout = plan(&board, &node, &of(30 * MIB), &[], seed()).unwrap();
    let labels: Vec<&str> = layout.partitions.iter().map(|part| part.label.as_str()).collect();
    assert_eq!(labels, ["esp", "data"]);
    for file in crate::factory::loader::systemd_boot(&board, &node, &layout) {
        if file.path.ends_with("b.conf") {
            let initrd = "\ninitrd /racklet/b/initrd.img\noptions racklet.slot=b console";
            assert!(file.text.contains(initrd), "{}", file.text);
        }
        assert!(!file.text.contains("root="), "{}", file.text);
    }
    let large = plan(&board, &node, &of(97 * MIB), &[], seed());
    assert!(matches!(large, Err(LayoutError::TooLarge { .. })));
}
