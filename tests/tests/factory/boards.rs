//! Disks for U-Boot and for a Raspberry Pi: `fw_printenv`, `dumpimage` and `mtools` read what their boot loaders read.

use std::fs;
use std::path::Path;

use formats::reason::Reason;
use racklet_tests::rig::{Run, TRIES, tool};
use serde_json::Value;

use super::rig::{Agent, Factory, judge, offset};

/// A small board with U-Boot, whose programs are no programs.
const UBOOT: &str = r#"
loader = "u-boot"
architecture = "arm64"
partitions_from = "4MiB"
[[raw]]
file = "spl.bin"
offset = "32KiB"
[u-boot]
size = "40MiB"
device = "mmc 1"
start = "load ${racklet_type} ${racklet_part} ${kernel_addr_r} /boot/vmlinuz && booti ${kernel_addr_r}"
[env]
offset = "2MiB"
redundant = "3MiB"
size = "16KiB"
[kernel]
options = "console=ttyS2"
[slots]
os = "24MiB"
kernel = "4MiB"
[data]
size = "32MiB"
"#;

/// A small Raspberry Pi.
const PI: &str = r#"
loader = "raspberry-pi"
architecture = "arm64"
[autoboot]
size = "40MiB"
[slots]
boot = "8MiB"
os = "24MiB"
[data]
size = "32MiB"
"#;

/// The node of the first board; what describes the environment is on its data partition.
fn uboot_node() -> String {
    let loader =
        "backend = \"uboot-env\"\nenv_config = \"/var/lib/update-agent-env/fw_env.config\"";
    super::NODE
        .replace("backend = \"systemd-boot\"", loader)
        .replace("{ device = \"/efi/racklet/a/vmlinuz\" }", "\"kernel-a\"")
        .replace("{ device = \"/efi/racklet/b/vmlinuz\" }", "\"kernel-b\"")
}

fn pi_node() -> String {
    super::NODE
        .replace("backend = \"systemd-boot\"", "backend = \"rpi-tryboot\"\ncomponent = \"boot\"")
        .replace("kernel = { device = \"/efi/racklet/a/vmlinuz\" }", "boot = \"boot-a\"")
        .replace("kernel = { device = \"/efi/racklet/b/vmlinuz\" }", "boot = \"boot-b\"")
}

/// What U-Boot's processor would start: bytes that are nowhere else.
fn with_program(factory: &Factory) -> Vec<u8> {
    let program: Vec<u8> = (0..50_000_u32).flat_map(|n| (n ^ 0x5a5a).to_le_bytes()).collect();
    fs::write(factory.world.path("spl.bin"), &program).unwrap();
    program
}

/// The flags, as `fw_printenv` reads them from a disk.
fn variables(factory: &Factory, disk: &Path, names: &[&str]) -> String {
    let config = factory.world.path("fw_env.here");
    let file = disk.display();
    fs::write(&config, format!("{file} 0x200000 0x4000\n{file} 0x300000 0x4000\n")).unwrap();
    let printed = tool("fw_printenv", "libubootenv-tool").arg("-c").arg(config).args(names).ok();
    printed.text().trim().to_owned()
}

const FLAGS: [&str; 3] = ["BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT"];

fn mtools(program: &str, disk: &Path, at: u64) -> Run {
    let image = format!("{}@@{at}", disk.display());
    tool(program, "mtools").env("MTOOLS_SKIP_CHECK", "1").args(["-i", &image])
}

/// What the agent says of a disk that nobody has booted, and of the next release on it.
pub(crate) fn goes_on(factory: &Factory, agent: &Agent) {
    let status = agent.run(&["status"]).ok().json();
    assert_eq!(status["runs"], "1.0.0", "{status}");
    let slot = &status["slots"]["a"];
    assert!(slot["version"] == "1.0.0" && slot["confirmed"] == true, "{status}");
    assert_eq!(status["slots"]["b"]["bootable"], false, "{status}");
    assert_eq!(status["floor"]["security_version"], 3, "{status}");
    assert_eq!(agent.run(&["boot-select", "--simulate"]).ok().json()["slot"], "a");
    factory.publish("1.1.0", 2);
    let applied = agent.run(&["apply"]).ok().json();
    assert_eq!((&applied["version"], &applied["slot"]), (&"1.1.0".into(), &"b".into()));
}

#[test]
fn a_disk_for_u_boot_has_its_program_its_script_and_the_flags_of_slot_a() {
    let factory = Factory::new(UBOOT, &uboot_node());
    let program = with_program(&factory);
    let (disk, report) = factory.make("node.img", &["--version", "1.0.0"]);
    judge(&disk, &report);
    let bytes = fs::read(&disk).unwrap();
    assert!(bytes[32 << 10..].starts_with(&program), "the program is where it was asked to be");
    assert_eq!(report["raw"][0]["offset"], 32 << 10, "{report}");
    let told = variables(&factory, &disk, &FLAGS);
    assert_eq!(told, "BOOT_ORDER=A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT=0");

    // Each copy alone is enough.
    for torn in [2_usize << 20, 3 << 20] {
        let mut half = bytes.clone();
        half[torn + 100] ^= 1;
        let other = factory.world.path("half.img");
        fs::write(&other, &half).unwrap();
        assert_eq!(variables(&factory, &other, &FLAGS), told, "copy at {torn} is torn");
    }

    let script = factory.world.path("boot.scr");
    let from = mtools("mcopy", &disk, offset(&report, "boot"));
    from.arg("::boot.scr").arg(&script).ok();
    let listed = tool("dumpimage", "u-boot-tools").arg("-l").arg(&script).ok().text();
    assert!(listed.contains("AArch64 Linux Script"), "{listed}");
    let text = String::from_utf8_lossy(&fs::read(&script).unwrap()).into_owned();
    let shipped = include_str!("../../../update-agent/boot/uboot/boot.cmd");
    assert!(text.contains(shipped), "our script, as it is shipped");
    assert!(text.contains("setenv racklet_part 1:4; "), "slot a is partition 4: {text}");

    let agent = factory.agent(&disk, &report);
    let config = agent.config.with_file_name("var-of-node/lib/update-agent-env/fw_env.config");
    let text = fs::read_to_string(&config).unwrap();
    assert_eq!(text, "/dev/vda 0x200000 0x4000\n/dev/vda 0x300000 0x4000\n");
    fs::write(&config, text.replace("/dev/vda", &disk.display().to_string())).unwrap();
    goes_on(&factory, &agent);
    let tried = format!("BOOT_ORDER=B A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT={TRIES}");
    assert_eq!(variables(&factory, &disk, &FLAGS), tried);
}

#[test]
fn a_u_boot_that_keeps_two_copies_gets_all_its_variables() {
    let initial = "redundant = \"3MiB\"\ninitial = \"initial.env\"";
    let board = UBOOT.replace("redundant = \"3MiB\"", initial);
    let mut factory =
        Factory::new(&board, &uboot_node().replace("/var/lib/update-agent-env", "/etc"));
    with_program(&factory);
    let variables_of_its_build = "bootcmd=run distro_bootcmd\nkernel_addr_r=0x40400000\n";
    fs::write(factory.world.path("initial.env"), variables_of_its_build).unwrap();
    // What the image says of the environment has to be what the board says.
    let reference = factory.world.repository().reference();
    let made = |factory: &Factory, name: &str, version: &str| {
        let disk = factory.world.path(name);
        let done = factory.run(&reference, &["--version", version]).arg("-o").arg(&disk).finish();
        (disk, done)
    };
    made(&factory, "none.img", "1.0.0").1.refused(Reason::Config);
    factory.etc = vec![("fw_env.config", "/dev/vda 0x200000 0x4000\n".to_owned())];
    factory.publish("1.0.1", 1);
    let (_, other) = made(&factory, "other.img", "1.0.1");
    assert!(other.output().contains("boot.env_config"), "{}", other.output());
    other.refused(Reason::Config);
    let places = "# as U-Boot\n/dev/vda 2097152 0x4000\n/dev/vda 0x300000 0x4000 0x200\n";
    factory.etc = vec![("fw_env.config", places.to_owned())];
    factory.publish("1.0.2", 1);
    let (disk, done) = made(&factory, "node.img", "1.0.2");
    let report = done.json();
    judge(&disk, &report);
    let told = variables(&factory, &disk, &["bootcmd", "kernel_addr_r", "BOOT_ORDER"]);
    assert_eq!(told, "bootcmd=run distro_bootcmd\nkernel_addr_r=0x40400000\nBOOT_ORDER=A");
    let script = factory.world.path("boot.scr");
    mtools("mcopy", &disk, offset(&report, "boot")).arg("::boot.scr").arg(&script).ok();
    let text = String::from_utf8_lossy(&fs::read(&script).unwrap()).into_owned();
    assert!(text.contains("setenv racklet_save saveenv") && !text.contains("racklet_read_1"));
}

#[test]
fn a_disk_for_a_raspberry_pi_names_slot_a_and_is_changed_in_place() {
    let factory = Factory::new(PI, &pi_node());
    let (disk, report) = factory.make("node.img", &["--version", "1.0.0"]);
    judge(&disk, &report);
    assert_eq!(report["notes"], Value::Array(Vec::new()), "the system was read: {report}");
    let at = offset(&report, "autoboot");
    let listed = mtools("mdir", &disk, at).args(["-b", "::"]).ok().text();
    assert_eq!(listed.trim(), "::/autoboot.txt\n::/config.txt");
    let read = || mtools("mtype", &disk, at).arg("::autoboot.txt").ok().text();
    let factory_text = read();
    assert_eq!(factory_text.len(), 256);
    assert_eq!(
        factory_text.trim_end(),
        "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=2\n\
         [none]\nBOOT_ORDER=A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT=0"
    );
    let config = mtools("mtype", &disk, offset(&report, "boot-a")).arg("::config.txt").ok().text();
    assert!(config.contains("[boot_partition=2]\ncmdline=cmdline-a.txt"), "{config}");

    let agent = factory.agent(&disk, &report);
    goes_on(&factory, &agent);
    let tried = read();
    assert_eq!(tried.len(), 256);
    assert!(tried.contains("boot_partition=2\n[tryboot]\nboot_partition=3\n"), "{tried}");
    judge(&disk, &report);
}

#[test]
fn the_same_inputs_give_the_same_disks_of_boards() {
    for (board, node) in [(UBOOT, uboot_node()), (PI, pi_node())] {
        let factory = Factory::new(board, &node);
        with_program(&factory);
        let (first, report) = factory.make("first.img", &["--version", "1.0.0"]);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let (again, other) = factory.make("again.img", &["--version", "1.0.0"]);
        assert_eq!(report["sha256"], other["sha256"]);
        assert!(fs::read(first).unwrap() == fs::read(again).unwrap());
    }
}

/// What goes wrong: its name, what is changed in the board, the reason and what is said.
type Row<'a> = (&'a str, (&'a str, &'a str), Reason, &'a str);

#[test]
fn each_bad_board_has_one_clear_error_and_leaves_nothing() {
    let factory = Factory::new(UBOOT, &uboot_node());
    with_program(&factory);
    fs::write(factory.world.path("bad.env"), "no variable\n").unwrap();
    let (offset, copies) = ("offset = \"32KiB\"", "redundant = \"3MiB\"");
    let bad = "redundant = \"3MiB\"\ninitial = \"bad.env\"";
    let absent = "redundant = \"3MiB\"\ninitial = \"absent.env\"";
    let rows: [Row<'_>; 9] = [
        ("a program", ("spl.bin", "none.bin"), Reason::Config, "none.bin"),
        ("on the table", (offset, "offset = \"8KiB\""), Reason::Config, "the partition table ends"),
        ("in the env", (offset, "offset = \"1900KiB\""), Reason::Config, "copy 1 of U-Boot's"),
        ("in a slot", (offset, "offset = \"4000KiB\""), Reason::Config, "partitions_from"),
        ("the copies", (copies, "redundant = \"2MiB\""), Reason::Config, "copy 1 of U-Boot's"),
        ("a small FAT", ("\"40MiB\"", "\"16MiB\""), Reason::Config, "at least 34.0 MiB"),
        ("a variable", (copies, bad), Reason::Config, "no variable"),
        ("no variables", (copies, absent), Reason::Config, "absent.env"),
        (
            "another loader",
            ("[env]", "[autoboot]\nsize = \"40MiB\"\n[env]"),
            Reason::Config,
            "[autoboot]",
        ),
    ];
    let reference = factory.world.repository().reference();
    for (name, (from, to), reason, said) in rows {
        assert!(UBOOT.contains(from), "{name}");
        fs::write(factory.world.path("board.toml"), UBOOT.replacen(from, to, 1)).unwrap();
        let out = factory.world.path("bad.img");
        let done = factory.run(&reference, &[]).arg("-o").arg(&out).finish();
        assert!(done.output().contains(said), "{name}: {}", done.output());
        assert_eq!(done.json()["code"], reason.code(), "{name}: {}", done.output());
        assert!(!out.exists(), "{name}");
    }
    let hidden = fs::read_dir(factory.world.dir()).unwrap().flatten();
    let left: Vec<_> =
        hidden.filter(|f| f.file_name().to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A Raspberry Pi reads FAT and nothing else.
#[test]
fn a_raspberry_pi_is_given_no_image_that_it_cannot_read() {
    // The root file system as what boots: an ext4.
    let without = |line: &&str| !line.starts_with("boot = ");
    let node = pi_node().replace("component = \"boot\"", "component = \"os\"");
    let node: String = node.lines().filter(without).map(|line| format!("{line}\n")).collect();
    let factory = Factory::new(PI, &node);
    let disk = factory.world.path("node.img");
    let reference = factory.world.repository().reference();
    let done = factory.run(&reference, &[]).arg("-o").arg(&disk).finish();
    assert!(done.output().contains("it is no FAT file system"), "{}", done.output());
    done.refused(Reason::Config);
    assert!(!disk.exists());
}
