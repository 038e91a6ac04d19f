//! A maintainer with a release, a board and a node's configuration, and what the disk is judged by.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use racklet_tests::rig::{HARDWARE, PRODUCT, Run, World, program, system, tool};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A maintainer's folder with a repository, a board and a node's configuration.
pub(crate) struct Factory {
    pub(crate) world: World,
    node: String,
    /// Further files of the image, by their path below `/etc`.
    pub(crate) etc: Vec<(&'static str, String)>,
}

impl Factory {
    /// With release 1.0.0, security version 3.
    pub(crate) fn new(board: &str, node: &str) -> Self {
        let world = World::with_repository();
        fs::write(world.path("board.toml"), board).unwrap();
        fs::write(world.path("update-agent.toml"), node).unwrap();
        fs::write(world.path("loader.efi"), "MZ no program").unwrap();
        let factory = Factory { world, node: node.to_owned(), etc: Vec::new() };
        factory.publish("1.0.0", 1);
        factory
    }

    /// Files with the node's configuration and a system that shares most with the one before.
    fn tree(&self, version: &str, number: u64) -> PathBuf {
        let tree = self.world.path(&format!("tree-{version}"));
        fs::create_dir_all(tree.join("etc/update-agent")).unwrap();
        fs::create_dir_all(tree.join("usr")).unwrap();
        fs::write(tree.join("etc/update-agent/update-agent.toml"), &self.node).unwrap();
        fs::copy(self.world.path("root.json"), tree.join("etc/update-agent/root.json")).unwrap();
        fs::write(tree.join("usr/system"), system(number)).unwrap();
        for (name, text) in &self.etc {
            fs::write(tree.join("etc").join(name), text).unwrap();
        }
        tree
    }

    /// That as an ext4.
    fn image(&self, version: &str, number: u64) -> PathBuf {
        let tree = self.tree(version, number);
        let image = self.world.path(&format!("os-{version}.img"));
        let options = ["-q", "-t", "ext4", "-b", "4096", "-d"];
        tool("mke2fs", "e2fsprogs").args(options).arg(&tree).arg(&image).arg("20M").ok();
        image
    }

    pub(crate) fn publish(&self, version: &str, number: u64) {
        let kernel = self.kernel(version, number);
        if self.node.contains("component = \"initrd\"") {
            let archive = self.archive(version, number);
            return self.publish_files(version, &[("kernel", &kernel), ("initrd", &archive)]);
        }
        let image = self.image(version, number);
        let firmware;
        let (name, other) = match self.node.contains("component = \"boot\"") {
            true => {
                firmware = self.firmware(version, &kernel);
                ("boot", &firmware)
            }
            false => ("kernel", &kernel),
        };
        self.publish_files(version, &[("os", &image), (name, other)]);
    }

    pub(crate) fn kernel(&self, version: &str, number: u64) -> PathBuf {
        let kernel = self.world.path(&format!("kernel-{version}"));
        fs::write(&kernel, &system(number + 50).split_off(3 << 20)[..2_500_000]).unwrap();
        kernel
    }

    /// The same files as an initramfs.
    fn archive(&self, version: &str, number: u64) -> PathBuf {
        let tree = self.tree(version, number);
        fs::write(tree.join("init"), "#!/bin/sh\n").unwrap();
        let archive = self.world.path(&format!("initrd-{version}.img"));
        let pack = "cd \"$1\" && find . -mindepth 1 -printf '%P\\n' | sort | cpio -o -H newc --quiet | zstd -q >\"$2\"";
        tool("sh", "dash").args(["-ec", pack, "sh"]).arg(&tree).arg(&archive).ok();
        archive
    }

    /// A release of these components.
    pub(crate) fn publish_files(&self, version: &str, files: &[(&str, &Path)]) {
        let packed = |name: &&(&str, &Path)| name.0 == "initrd";
        let raw = files.iter().find(packed).map(|_| ["--raw", "initrd=the kernel unpacks it"]);
        let component = |(name, file): &(&str, &Path)| {
            ["--component".to_owned(), format!("{name}={},hw={HARDWARE}", file.display())]
        };
        self.world
            .signer(&["publish", "--product", PRODUCT, "--version", version])
            .args(["--channel", "stable", "--security-version", "3"])
            .args(files.iter().flat_map(component))
            .args(raw.into_iter().flatten())
            .ok();
    }

    /// The FAT that a Raspberry Pi starts: a kernel, and what the agent's files for it say.
    fn firmware(&self, version: &str, kernel: &Path) -> PathBuf {
        let image = self.world.path(&format!("boot-{version}.img"));
        fs::File::create(&image).unwrap().set_len(6 * MIB).unwrap();
        tool("mkfs.vfat", "dosfstools").args(["-F", "16", "-s", "1"]).arg(&image).ok();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../update-agent/boot/rpi");
        let copy = |from: &Path, to: &str| {
            tool("mcopy", "mtools").arg("-i").arg(&image).arg(from).arg(to).ok();
        };
        copy(kernel, "::kernel8.img");
        for name in ["config.txt", "cmdline-a.txt", "cmdline-b.txt"] {
            copy(&ours.join(name), &format!("::{name}"));
        }
        image
    }

    /// `signer factory` from a repository, with `--json` and what else is asked for.
    pub(crate) fn run(&self, repository: &str, more: &[&str]) -> Run {
        program("signer")
            .args(["factory", "--json", "--repo", repository])
            .arg("--root")
            .arg(self.world.path("root.json"))
            .arg("--config")
            .arg(self.world.path("update-agent.toml"))
            .arg("--board")
            .arg(self.world.path("board.toml"))
            .args(more)
    }

    pub(crate) fn make(&self, name: &str, more: &[&str]) -> (PathBuf, Value) {
        let disk = self.world.path(name);
        let reference = self.world.repository().reference();
        let report = self.run(&reference, more).arg("-o").arg(&disk).ok().json();
        (disk, report)
    }

    /// The files of a part of the disk, as a running node would have them mounted.
    pub(crate) fn unpack(&self, disk: &Path, report: &Value) -> Mounted {
        let folder = |name: &str| {
            let path = self.world.path(&format!("{name}-of-{}", name_of(disk)));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            path
        };
        let (var, esp) = (folder("var"), folder("esp"));
        let data = format!("{}?offset={}", disk.display(), offset(report, "data"));
        let dump = format!("rdump /lib {}", var.display());
        tool("debugfs", "e2fsprogs").args(["-R", &dump, &data]).ok();
        if let Some(at) = found(report, "esp") {
            let part = format!("{}@@{at}", disk.display());
            tool("mcopy", "mtools")
                .env("MTOOLS_SKIP_CHECK", "1")
                .args(["-s", "-n", "-i", &part, "::*"])
                .arg(&esp)
                .ok();
        }
        Mounted { var, esp }
    }

    /// The agent on a disk. What the kernel says is in files, and file systems are unpacked.
    pub(crate) fn agent(&self, disk: &Path, report: &Value) -> Agent {
        let Mounted { var, esp } = self.unpack(disk, report);
        let here = self.world.path(&format!("agent-of-{}.toml", name_of(disk)));
        let files = self.world.path(&format!("kernel-of-{}", name_of(disk)));
        fs::create_dir(&files).unwrap();
        fs::write(files.join("cmdline"), "root=PARTLABEL=root-a racklet.slot=a\n").unwrap();
        fs::write(files.join("boot_id"), "first\n").unwrap();
        let boot = format!(
            "[boot]\ncmdline = {:?}\nboot_id = {:?}\nesp = {esp:?}\nreboot_command = [\"true\"]\n\
             firmware_node = {files:?}\ntry_command = [\"true\"]\nenv_lock = {:?}\n",
            files.join("cmdline"),
            files.join("boot_id"),
            files.join("lock"),
        );
        let text = self
            .node
            .replace("\"/efi/", &format!("\"{}/", esp.display()))
            .replace("/var/lib", &var.join("lib").display().to_string())
            .replace("/dev/vda", &disk.display().to_string())
            .replace("oci:/srv/repository", &self.world.repository().reference())
            .replace("[boot]\n", &boot);
        fs::write(&here, text).unwrap();
        Agent { config: here }
    }
}

/// Parts of a disk, unpacked.
pub(crate) struct Mounted {
    pub(crate) var: PathBuf,
    pub(crate) esp: PathBuf,
}

pub(crate) struct Agent {
    pub(crate) config: PathBuf,
}

impl Agent {
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        program("update-agent").arg("--config").arg(&self.config).args(args).arg("--json")
    }
}

pub(crate) fn name_of(disk: &Path) -> String {
    disk.file_stem().unwrap().to_string_lossy().into_owned()
}

/// Where the partition of a label begins, if there is one.
pub(crate) fn found(report: &Value, label: &str) -> Option<u64> {
    let parts = report["partitions"].as_array().unwrap();
    parts.iter().find(|part| part["label"] == label).map(|part| part["offset"].as_u64().unwrap())
}

pub(crate) fn offset(report: &Value, label: &str) -> u64 {
    found(report, label).unwrap_or_else(|| panic!("{label} in {report}"))
}

/// A part of a disk as a file of its own.
pub(crate) fn part(disk: &Path, report: &Value, label: &str) -> PathBuf {
    let parts = report["partitions"].as_array().unwrap();
    let row = parts.iter().find(|part| part["label"] == label).unwrap();
    let (at, len) = (row["offset"].as_u64().unwrap(), row["size"].as_u64().unwrap());
    let bytes = fs::read(disk).unwrap();
    let file = disk.with_extension(label);
    let (at, end) = (usize::try_from(at).unwrap(), usize::try_from(at + len).unwrap());
    fs::write(&file, &bytes[at..end]).unwrap();
    file
}

pub(crate) fn word(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// What other people's tools say of a disk and its file systems.
pub(crate) fn judge(disk: &Path, report: &Value) {
    let verified = tool("sgdisk", "gdisk").arg("-v").arg(disk).ok();
    assert!(verified.text().contains("No problems found"), "{}", verified.output());
    for told in report["partitions"].as_array().unwrap() {
        let number = told["number"].to_string();
        let seen = |option: &str| {
            let show = tool("cgpt", "cgpt").args(["show", "-i", &number, option]).arg(disk);
            show.ok().text().trim().to_lowercase()
        };
        let sectors = |member: &str| (told[member].as_u64().unwrap() / 512).to_string();
        assert_eq!((seen("-b"), seen("-s")), (sectors("offset"), sectors("size")));
        assert_eq!(seen("-l"), told["label"]);
        assert_eq!((seen("-t"), seen("-u")), (word(&told["type"]), word(&told["guid"])));
    }
    tool("e2fsck", "e2fsprogs").arg("-fn").arg(part(disk, report, "data")).ok();
    for label in ["esp", "boot", "autoboot", "boot-a"] {
        if found(report, label).is_some() {
            tool("fsck.vfat", "dosfstools").arg("-n").arg(part(disk, report, label)).ok();
        }
    }
}
