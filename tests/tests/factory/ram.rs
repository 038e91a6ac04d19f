//! Disks of systems that run from memory: kernel and initramfs are files on the ESP, and there is no partition of `/`.

use std::fs;
use std::path::Path;

use formats::reason::Reason;
use racklet_tests::rig::tool;

use super::boards::goes_on;
use super::rig::{Factory, judge};

/// A small board.
const RAM: &str = r#"
loader = "systemd-boot"
architecture = "x86-64"
[esp]
size = "80MiB"
program = "loader.efi"
[kernel]
options = "console=ttyS0"
[slots]
kernel = "4MiB"
initrd = "24MiB"
[data]
size = "32MiB"
"#;

fn node() -> String {
    let initrd = |slot| format!("initrd = {{ device = \"/efi/racklet/{slot}/initrd.img\" }}");
    super::NODE
        .replace("[slots.a]\nos = \"root-a\"", &format!("[slots.a]\n{}", initrd("a")))
        .replace("[slots.b]\nos = \"root-b\"", &format!("[slots.b]\n{}", initrd("b")))
        .replace("disk = \"/dev/vda\"", "disk = \"/dev/vda\"\ncomponent = \"initrd\"")
}

#[test]
fn a_system_in_memory_has_an_entry_without_a_root_and_the_agent_goes_on() {
    let factory = Factory::new(RAM, &node());
    let (disk, report) = factory.make("node.img", &["--version", "1.0.0"]);
    judge(&disk, &report);
    assert_eq!(report["notes"], serde_json::json!([]), "its configuration was looked at");
    let labels = report["partitions"].as_array().unwrap().iter().map(|part| &part["label"]);
    assert_eq!(labels.collect::<Vec<_>>(), ["esp", "data"]);
    let agent = factory.agent(&disk, &report);
    let esp = agent.config.with_file_name("esp-of-node");
    let entry = fs::read_to_string(esp.join("loader/entries/racklet-1-a.conf")).unwrap();
    let expected = "title demo, slot a\nsort-key racklet\nlinux /racklet/a/vmlinuz\n\
                    initrd /racklet/a/initrd.img\noptions racklet.slot=a console=ttyS0\n";
    assert_eq!(entry, expected);

    goes_on(&factory, &agent);
    // Its trial, its confirmation, and the next one into the slot that is free again.
    let kernel = agent.config.with_file_name("kernel-of-node");
    let boot = agent.run(&["boot-select", "--simulate"]).ok().json();
    assert_eq!(boot["slot"], "b", "{boot}");
    assert_eq!(fs::read_to_string(kernel.join("cmdline")).unwrap(), "racklet.slot=b\n");
    let done = agent.run(&["run", "--once"]).ok().json();
    assert_eq!(done["did"], "confirmed", "{done}");
    let status = agent.run(&["status"]).ok().json();
    assert_eq!((&status["runs"], &status["next"]), (&"1.1.0".into(), &"b".into()), "{status}");
    let held = fs::read(esp.join("racklet/b/initrd.img")).unwrap();
    let made = fs::read(factory.world.path("initrd-1.1.0.img")).unwrap();
    assert!(held.starts_with(&made), "slot b holds the initramfs of 1.1.0");
    factory.publish("1.2.0", 3);
    let applied = agent.run(&["apply"]).ok().json();
    assert_eq!((&applied["version"], &applied["slot"]), (&"1.2.0".into(), &"a".into()));
}

/// What an image has to have is looked for in an initramfs, too.
#[test]
fn another_configuration_in_the_initramfs_is_refused() {
    let factory = Factory::new(RAM, &node());
    let path = factory.world.path("update-agent.toml");
    let other = fs::read_to_string(&path).unwrap().replace("node-1", "node-2");
    fs::write(&path, other).unwrap();
    let reference = factory.world.repository().reference();
    let out = factory.world.path("node.img");
    let done = factory.run(&reference, &["--version", "1.0.0"]).arg("-o").arg(&out).finish();
    assert!(done.output().contains("is not what was given"), "{}", done.output());
    done.refused(Reason::Config);
    assert!(!out.exists());
}

#[test]
fn what_all_nodes_would_share_and_what_is_not_looked_at_is_told() {
    let mut factory = Factory::new(RAM, &node());
    factory.etc = vec![("machine-id", "0123456789abcdef0123456789abcdef\n".to_owned())];
    factory.publish("1.1.0", 2);
    let notes = |version: &str| {
        let (disk, report) = factory.make("node.img", &["--version", version]);
        fs::remove_file(disk).unwrap();
        report["notes"].to_string()
    };
    assert!(notes("1.1.0").contains("the image has /etc/machine-id"), "{}", notes("1.1.0"));
    // Packed in a way that nobody unpacks here.
    let archive = factory.world.path("initrd-1.1.0.img");
    let packed = "zstd -dc \"$1\" | gzip -n >\"$1.gz\" && mv \"$1.gz\" \"$1\"";
    tool("sh", "dash").args(["-ec", packed, "sh"]).arg(&archive).ok();
    let kernel = factory.kernel("1.2.0", 2);
    factory.publish_files("1.2.0", &[("kernel", &kernel), ("initrd", &archive)]);
    assert!(notes("1.2.0").contains("it was not checked"), "{}", notes("1.2.0"));
}

/// It is run whole by a cell of the virtual machines.
#[test]
fn the_maker_of_systems_in_memory_refuses_before_it_begins() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = root.join("signer/images/ram-image");
    for file in [&script, &root.join("tests/vm/src/guest/ram-hook.sh")] {
        tool("shellcheck", "shellcheck").arg(file).ok();
    }
    // OpenRC reads what it sets.
    let service = root.join("update-agent/openrc/update-agent");
    let options = ["-s", "sh", "-e", "SC2034"];
    tool("shellcheck", "shellcheck").args(options).arg(service).ok();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("root.json"), "{}").unwrap();
    let there = dir.path().to_str().unwrap();
    let given = ["--tree", there, "--etc", there, "--agent", there];
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--tree"], 2, "--tree needs a value"),
        (&["--colour", "red"], 2, "--colour is no option"),
        (&given, 2, "-o is missing"),
        (&["--tree", there, "--etc", there, "-o", "made"], 2, "--agent is missing"),
        (&[&given[..], &["-o", "made", "--compress", "lha"]].concat(), 2, "--compress is zstd"),
        (&[&given[..], &["-o", "made"]].concat(), 1, "has no update-agent.toml"),
    ];
    for (arguments, code, said) in cases {
        let done = std::process::Command::new(&script).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

/// The whole of it on a tree without a system, where files may be given away: twice the same bytes, owners as they are.
#[test]
fn the_same_tree_gives_the_same_initramfs() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: it needs root");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../signer/images/ram-image");
    let dir = tempfile::tempdir().unwrap();
    let made = "mkdir -p tree/sbin tree/bin tree/etc/init.d tree/boot etc
        echo kernel >tree/boot/vmlinuz-1; echo init >tree/sbin/init; chmod 755 tree/sbin/init
        echo rc >tree/sbin/openrc-run; echo old >tree/etc/machine-id; echo own >tree/bin/own; chown 7:8 tree/bin/own
        echo '{}' >etc/root.json; echo toml >etc/update-agent.toml; echo agent >agent";
    tool("sh", "dash").args(["-ec", &format!("cd \"$1\"\n{made}"), "sh"]).arg(dir.path()).ok();
    let image = |out: &str, kind: &str| {
        let done = std::process::Command::new(&script)
            .args(["--tree", "tree", "--etc", "etc", "--agent", "agent", "--version", "1.0.0"])
            .args(["--compress", kind, "-o", out])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fs::read(dir.path().join(out).join("initrd.img")).unwrap()
    };
    for kind in ["zstd", "gzip", "none"] {
        let first = image(&format!("{kind}-1"), kind);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(first == image(&format!("{kind}-2"), kind), "{kind}");
    }
    let archive = dir.path().join("none-1/initrd.img");
    let options = ["-tv", "--quiet", "-n", "-F"];
    let listed = tool("cpio", "cpio").args(options).arg(&archive).ok().text();
    let line = |name: &str| {
        let own = listed.lines().find(|line| line.split_whitespace().last() == Some(name));
        own.unwrap_or_else(|| panic!("no {name} in {listed}")).to_owned()
    };
    assert!(line(".").starts_with("drwxr-xr-x"), "{listed}");
    assert!(line("init").starts_with("-rwxr-xr-x"), "{listed}");
    assert!(line("bin/own").split_whitespace().skip(2).take(2).eq(["7", "8"]), "{listed}");
    assert!(line("dev/console").starts_with("crw-------"), "{listed}");
    assert!(listed.contains("etc/runlevels/default/update-agent -> "), "{listed}");
    assert!(!listed.contains("boot/vmlinuz"), "the kernel is beside it: {listed}");
    let read = ["-i", "--to-stdout", "--quiet", "-F"];
    let of = |name: &str| tool("cpio", "cpio").args(read).arg(&archive).arg(name).ok().text();
    assert_eq!(of("etc/machine-id"), "", "all nodes would have one machine id");
    assert_eq!(of("etc/os-release"), "IMAGE_VERSION=1.0.0\n");
    assert!(of("etc/fstab").contains("LABEL=data /data ext4"), "{}", of("etc/fstab"));
}
