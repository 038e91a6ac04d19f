//! `signer factory` makes the first disk of a node: tools of other people find nothing wrong with it, the same inputs
//! give the same bytes, and the agent goes on from it as from a slot that it wrote itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod boards;
mod ram;
mod rig;

use std::fs;
use std::path::Path;

use formats::reason::Reason;
use racklet_tests::rig::{World, confirmed, tool};
use serde_json::Value;

use rig::{Factory, Mounted, judge};

const MIB: u64 = 1 << 20;

/// A small board with systemd-boot. Its program is no program: nothing here starts it.
const UEFI: &str = r#"
loader = "systemd-boot"
architecture = "x86-64"
[esp]
size = "48MiB"
program = "loader.efi"
[kernel]
options = "console=ttyS0"
[slots]
os = "24MiB"
kernel = "4MiB"
[data]
size = "32MiB"
"#;

/// The same with a chooser in the firmware.
const CHOOSER: &str = r#"
loader = "chooser"
architecture = "x86-64"
[slots]
os = "24MiB"
[data]
size = "32MiB"
"#;

/// The configuration of a node on the first board.
const NODE: &str = r#"
state_dir = "/var/lib/update-agent"
[node]
product = "demo"
hardware = ["racklet-cu-v1"]
id = "node-1"
[trust]
root = "root.json"
[[source]]
url = "oci:/srv/repository"
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
passes = 1
interval = "1s"
deadline = "10s"
[[health.check]]
name = "always"
command = ["true"]
"#;

/// The same on the second board.
fn chooser_node() -> String {
    let lines = NODE.lines().filter(|line| !line.starts_with("kernel"));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    text.replace("systemd-boot", "gpt-attributes")
}

#[test]
fn a_uefi_disk_is_right_and_the_agent_knows_its_release() {
    let factory = Factory::new(UEFI, NODE);
    let (disk, report) = factory.make("node.img", &["--version", "1.0.0"]);
    judge(&disk, &report);
    assert_eq!(report["target"], "demo/1.0.0");
    assert_eq!(fs::metadata(&disk).unwrap().len(), report["size"].as_u64().unwrap());

    let agent = factory.agent(&disk, &report);
    let status = agent.run(&["status"]).ok().json();
    assert_eq!(status["runs"], "1.0.0", "{status}");
    let slot = &status["slots"]["a"];
    assert!(slot["version"] == "1.0.0" && slot["confirmed"] == true, "{status}");
    assert_eq!(status["floor"]["security_version"], 3, "{status}");
    assert_eq!(status["standing"], "idle");
    let history = agent.run(&["history"]).ok().text();
    assert!(history.contains("installed by the factory"), "{history}");

    // The next release is mostly what is in slot a, by its chunk list: nothing is scanned.
    factory.publish("1.1.0", 2);
    let applied = agent.run(&["apply"]).ok();
    let report = applied.json();
    assert_eq!((&report["version"], &report["slot"]), (&"1.1.0".into(), &"b".into()));
    let (fetched, reused) =
        (report["fetched"].as_u64().unwrap(), report["reused"].as_u64().unwrap());
    assert!(reused > 5 * MIB && fetched < 3 * MIB, "{report}");
    assert!(!applied.output().contains("scan os"), "{}", applied.output());
    let status = agent.run(&["status"]).ok().json();
    assert_eq!((&status["next"], &status["standing"]), (&"b".into(), &"awaiting_reboot".into()));
}

#[test]
fn systemd_boot_finds_an_entry_of_slot_a_and_files_of_both() {
    let factory = Factory::new(UEFI, NODE);
    let (disk, report) = factory.make("node.img", &[]);
    let Mounted { esp, .. } = factory.unpack(&disk, &report);
    let read = |path: &str| fs::read(esp.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(read("EFI/BOOT/BOOTX64.EFI"), b"MZ no program");
    let entry = String::from_utf8(read("loader/entries/racklet-1-a.conf")).unwrap();
    let expected = "title demo, slot a\nsort-key racklet\nlinux /racklet/a/vmlinuz\n\
                    options root=PARTLABEL=root-a ro racklet.slot=a console=ttyS0\n";
    assert_eq!(entry, expected);
    assert_eq!(read("loader/racklet/a.conf"), expected.as_bytes());
    let other = String::from_utf8(read("loader/racklet/b.conf")).unwrap();
    assert_eq!(
        other,
        expected
            .replace("slot a", "slot b")
            .replace("/a/", "/b/")
            .replace("root-a", "root-b")
            .replace("slot=a", "slot=b")
    );
    let names: Vec<_> = fs::read_dir(esp.join("loader/entries")).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "slot b has no entry before the first update");
    let (a, b) = (read("racklet/a/vmlinuz"), read("racklet/b/vmlinuz"));
    let kernel = fs::read(factory.world.path("kernel-1.0.0")).unwrap();
    assert!(a.len() as u64 == 4 * MIB && a.starts_with(&kernel) && b.len() == a.len());
    assert!(b.iter().all(|byte| *byte == 0));
}

#[test]
fn a_disk_for_a_chooser_has_its_flags_in_the_table() {
    let factory = Factory::new(CHOOSER, &chooser_node());
    let (disk, report) = factory.make("node.img", &["--version", "1.0.0"]);
    judge(&disk, &report);
    let flag = |number: &str, option: &str| {
        let show = tool("cgpt", "cgpt").args(["show", "-i", number, option]).arg(&disk);
        show.ok().text().trim().to_owned()
    };
    let first = confirmed(1);
    assert_eq!(flag("1", "-S"), u8::from(first.successful).to_string());
    assert_eq!(flag("1", "-P"), first.priority.to_string());
    assert_eq!((flag("2", "-S"), flag("2", "-P")), ("0".to_owned(), "0".to_owned()));
    let agent = factory.agent(&disk, &report);
    let boot = agent.run(&["boot-select", "--simulate"]).ok().json();
    assert_eq!(boot["slot"], "a");
    let status = agent.run(&["status"]).ok().json();
    assert!(status["runs"] == "1.0.0" && status["slots"]["a"]["confirmed"] == true, "{status}");
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let factory = Factory::new(UEFI, NODE);
    let data = factory.world.path("var");
    fs::create_dir_all(data.join("log/journal")).unwrap();
    fs::write(data.join("log/one two"), "text").unwrap();
    let data = data.display().to_string();
    let more = ["--version", "1.0.0", "--data", &data];
    let (first, report) = factory.make("first.img", &more);
    // The order and the times of a directory are not inputs.
    fs::remove_file(factory.world.path("var/log/one two")).unwrap();
    fs::write(factory.world.path("var/log/one two"), "text").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let bundle = factory.world.path("bundle.tar");
    factory.world.bundle("1.0.0", &bundle);
    let folder = factory.world.path("bundle");
    factory.world.bundle("1.0.0", &folder);
    let sources = [
        factory.world.repository().reference(),
        format!("oci-archive:{}", bundle.display()),
        format!("oci:{}", folder.display()),
    ];
    for (number, source) in sources.iter().enumerate() {
        let disk = factory.world.path(&format!("again-{number}.img"));
        let again = factory.run(source, &more).arg("-o").arg(&disk).ok().json();
        assert_eq!(again["sha256"], report["sha256"], "from {source}");
        assert!(fs::read(&disk).unwrap() == fs::read(&first).unwrap(), "from {source}");
        fs::remove_file(disk).unwrap();
    }
    judge(&first, &report);
    // Another seed gives other GUIDs, and the same seed the same ones.
    let guid = |seed: &str| {
        let more = ["--version", "1.0.0", "--dry-run", "--seed", seed];
        factory.run(&sources[0], &more).ok().json()["disk_guid"].clone()
    };
    assert_ne!(guid("1"), report["disk_guid"]);
    assert_eq!(guid("1"), guid("1"));
}

#[test]
fn a_dry_run_makes_nothing_and_says_what_would_be_made() {
    let factory = Factory::new(UEFI, NODE);
    let before = fs::read_dir(factory.world.dir()).unwrap().count();
    let report = factory.run(&factory.world.repository().reference(), &["--dry-run"]).ok().json();
    assert!(report["output"].is_null() && report["sha256"].is_null(), "{report}");
    assert_eq!(report["target"], "demo/1.0.0", "what the channel offers");
    assert_eq!(fs::read_dir(factory.world.dir()).unwrap().count(), before);
}

/// What goes wrong: its name, the file and what is changed in it, further arguments, the reason and what is said.
type Row<'a> = (&'a str, &'a str, (&'a str, &'a str), &'a [&'a str], Reason, &'a str);

#[test]
fn each_bad_input_has_one_clear_error_and_leaves_nothing() {
    let factory = Factory::new(UEFI, NODE);
    let (board, node, none) = ("board.toml", "update-agent.toml", ("", ""));
    let rows: [Row<'_>; 12] = [
        ("unknown key", board, ("[data]", "[date]"), &[], Reason::Config, "unknown field `date`"),
        ("unknown loader", board, ("systemd-boot", "lilo"), &[], Reason::Config, "lilo"),
        ("slot too small", board, ("24MiB", "16MiB"), &[], Reason::SlotSize, "a slot of the board"),
        ("no multiple", board, ("24MiB", "25000000"), &[], Reason::Config, "multiple of 1 MiB"),
        ("no program", board, ("loader.efi", "none.efi"), &[], Reason::Config, "none.efi"),
        ("configuration", node, ("passes = 1", "pases = 1"), &[], Reason::Config, "pases"),
        ("no checks", node, ("[[health.check]]", "#"), &[], Reason::Config, "configuration"),
        ("hardware", node, ("racklet-cu-v1", "other"), &[], Reason::HwMismatch, "for other"),
        ("another image", node, ("node-1", "node-2"), &[], Reason::Config, "not what was given"),
        ("trust root", "root.json", none, &[], Reason::SigThreshold, "trust root"),
        ("version", node, none, &["--version", "9.0.0"], Reason::TargetNotFound, "9.0.0"),
        ("data", node, none, &["--data", "/nonexistent"], Reason::Config, "/nonexistent"),
    ];
    for (name, file, (from, to), more, reason, said) in rows {
        let path = factory.world.path(file);
        let before = fs::read(&path).unwrap();
        if file == "root.json" {
            let other = World::with_repository();
            fs::copy(other.path("root.json"), &path).unwrap();
        } else {
            let text = String::from_utf8(before.clone()).unwrap();
            assert!(text.contains(from), "{name}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
        }
        let out = factory.world.path("bad.img");
        let reference = factory.world.repository().reference();
        let done = factory.run(&reference, more).arg("-o").arg(&out).finish();
        assert!(done.output().contains(said), "{name}: {}", done.output());
        assert_eq!(done.json()["code"], reason.code(), "{name}: {}", done.output());
        assert!(!out.exists(), "{name}");
        fs::write(&path, before).unwrap();
    }
    let hidden = fs::read_dir(factory.world.dir()).unwrap().flatten();
    let left: Vec<_> =
        hidden.filter(|f| f.file_name().to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
    let (disk, _) = factory.make("node.img", &[]);
    let reference = factory.world.repository().reference();
    let again = factory.run(&reference, &[]).arg("-o").arg(&disk).finish();
    again.refused(Reason::Config);
}

/// It is run whole by a cell of the virtual machines.
#[test]
fn the_maker_of_debian_images_refuses_before_it_begins() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../signer/images/debian-image");
    tool("shellcheck", "shellcheck").arg(&script).ok();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("root.json"), "{}").unwrap();
    let there = dir.path().to_str().unwrap();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--size"], 2, "--size needs a value"),
        (&["--colour", "red"], 2, "--colour is no option"),
        (&["--etc", there, "--package", "agent.deb"], 2, "-o is missing"),
        (&["--etc", there, "-o", "made"], 2, "--package is missing"),
        (&["--etc", there, "--package", "a.deb", "-o", "made"], 1, "has no update-agent.toml"),
        (
            &["--etc", there, "--package", "a.deb", "-o", "made", "--version", "1 0"],
            2,
            "--version may",
        ),
    ];
    for (arguments, code, said) in cases {
        let done = std::process::Command::new(&script).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    fs::write(dir.path().join("update-agent.toml"), "").unwrap();
    let output = ["--etc", there, "--package", "a.deb", "-o", there];
    let done = std::process::Command::new(&script).args(output).output().unwrap();
    assert!(String::from_utf8_lossy(&done.stderr).contains("is there already"), "{done:?}");
}

#[test]
fn the_identity_of_a_node_begins_with_the_file_that_the_factory_leaves() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../update-agent/boot/identity");
    let script = dir.join("racklet-identity.sh");
    tool("shellcheck", "shellcheck").arg(&script).ok();
    let text = fs::read_to_string(&script).unwrap();
    let factory = Factory::new(CHOOSER, &chooser_node());
    let (disk, report) = factory.make("node.img", &[]);
    let Mounted { var, .. } = factory.unpack(&disk, &report);
    assert!(var.join("lib/update-agent.first-boot").is_file());
    assert!(text.contains("first_boot=/var/lib/update-agent.first-boot\n"), "{text}");
}

#[test]
fn what_all_nodes_would_share_is_told() {
    let factory = Factory::new(CHOOSER, &chooser_node());
    let notes = |report: &Value| report["notes"].as_array().unwrap().len();
    assert_eq!(notes(&factory.make("clean.img", &["--version", "1.0.0"]).1), 0);
    let tree = factory.world.path("tree-1.1.0/etc");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("machine-id"), "7261636b6c657400000000000000000a\n").unwrap();
    factory.publish("1.1.0", 2);
    let (_, report) = factory.make("shared.img", &["--version", "1.1.0"]);
    let note = report["notes"][0].as_str().unwrap();
    assert!(note.contains("/etc/machine-id, the same on every node"), "{note}");
}
