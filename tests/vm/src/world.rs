//! What all cells share: releases, good and broken, as bundles; the factory's disk.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::cross::Processor;
use racklet_tools::programs::Place;
use racklet_tools::{paths, programs};

use super::Proofs;
pub(super) use super::platform::KERNEL;
use super::platform::PC;
use super::tools::Tools;
use super::tree::Tree;

/// The product of all releases here.
pub(super) const PRODUCT: &str = "demo";
/// The hardware id of all machines here.
pub(super) const HARDWARE: &str = "vm-q35";
/// Bytes of a file system image, the data before its verity tree.
const IMAGE: u64 = 72 << 20;
const MIB: u64 = 1 << 20;
/// What a release does when it boots, and the version it is published as.
pub(super) const RELEASES: &[(&str, &str)] = &[
    ("1.0.0", "ok"),
    ("1.1.0", "ok"),
    ("1.2.0", "unhealthy"),
    ("1.2.1", "panic"),
    ("1.2.2", "hang"),
    ("1.2.3", "netdead"),
    ("1.2.4", "noagent"),
    ("1.2.5", "hanglate"),
    ("1.3.0", "ok"),
    ("1.4.0", "ok"),
];

/// From here on releases close a hole: their security version is 2.
const SECURE: &[&str] = &["1.3.0", "1.4.0"];

/// Label and MiB of the partitions of every disk, in order from number 1.
const PARTITIONS: [(&str, u64); 5] =
    [("esp", 48), ("root-a", 80), ("root-b", 80), ("env", 1), ("data", 200)];

pub(super) const BUSYBOX: &[&str] = &[
    "sh",
    "mount",
    "umount",
    "insmod",
    "stty",
    "cat",
    "echo",
    "sleep",
    "ip",
    "httpd",
    "touch",
    "kill",
    "sed",
    "dd",
    "cmp",
    "sync",
    "ls",
    "mkdir",
    "rm",
    "mv",
    "cp",
    "test",
    "[",
    "true",
    "false",
    "head",
    "grep",
    "printf",
    "date",
    "dmesg",
    "uname",
    "sha256sum",
    "cut",
    "tr",
    "ln",
];

/// Modules of the initramfs that mounts a slot through dm-verity. sha256 may be built in.
const ROOT_MODULES: &[&str] =
    &["nvme", "crc32c_generic", "ext4", "dm-mod", "dm-verity", "sha256_generic"];

/// Everything that is made once.
pub(super) struct World {
    pub(super) tools: Tools,
    patience: u32,
    /// What the proofs are told.
    pub(super) proofs: Proofs,
    /// Power cuts of a cell that is about them.
    pub(super) cuts: u32,
    /// Whether our programs are built, or taken as they were built last.
    build: bool,
    pub(super) dir: PathBuf,
    /// The agent that runs here.
    agent: PathBuf,
    /// The agent that runs in guests; the same, where they have this computer's processor.
    guest: PathBuf,
    /// Where `signer` and `repo-server` are.
    programs: PathBuf,
    bundles: Mutex<BTreeMap<String, PathBuf>>,
}

impl World {
    /// Programs, built or as they were built last, releases and bundles, below an empty folder.
    pub(super) fn build(
        tools: Tools,
        dir: &Path,
        build: bool,
        patience: u32,
        proofs: Proofs,
    ) -> Result<Self> {
        let agent = shipped_agent(build)?;
        let world = World {
            tools,
            patience,
            proofs,
            cuts: 50,
            build,
            dir: dir.to_owned(),
            guest: agent.clone(),
            agent,
            programs: our_programs(build)?,
            bundles: Mutex::default(),
        };
        world.publish(RELEASES)?;
        Ok(world)
    }

    /// The same for ARMv8 machines, below an empty folder: with the releases of a cycle alone.
    pub(super) fn of_arm(&self, dir: &Path) -> Result<Self> {
        self.on_arm(self.tools.of_arm()?, dir)?.with_releases(&["1.0.0", "1.1.0", "1.2.1"])
    }

    /// The same for ARMv8 machines whose firmware is Linux.
    pub(super) fn of_arm_linuxboot(&self, dir: &Path) -> Result<Self> {
        let tools = self.tools.of_arm_linuxboot()?;
        self.on_arm(tools, dir)?.with_releases(&["1.0.0", "1.1.0", "1.2.0"])
    }

    /// ARMv8 machines whose releases are in a repository that somebody else fills, below that folder.
    pub(super) fn arm_beside(&self, dir: &Path) -> Result<Self> {
        self.on_arm(self.tools.of_arm()?, dir)
    }

    /// A new repository in its folder, with these of [`RELEASES`].
    fn with_releases(self, versions: &[&str]) -> Result<Self> {
        fs::create_dir_all(&self.dir).with_context(|| format!("make {}", self.dir.display()))?;
        let wanted = |(version, _): &&(&str, &str)| versions.contains(version);
        let releases: Vec<_> = RELEASES.iter().filter(wanted).copied().collect();
        self.publish(&releases)?;
        Ok(self)
    }

    fn on_arm(&self, tools: Tools, dir: &Path) -> Result<Self> {
        eprintln!("building the agent for ARMv8 guests …");
        let place = Place::cross(Processor::Aarch64)?;
        Ok(World {
            tools,
            // Its firmware takes three times as long as a PC's.
            patience: self.patience * 2,
            proofs: self.proofs.clone(),
            cuts: self.cuts,
            build: self.build,
            dir: dir.to_owned(),
            agent: self.agent.clone(),
            guest: if self.build { place.agent()? } else { place.agent_file()? },
            programs: self.programs.clone(),
            bundles: Mutex::default(),
        })
    }

    /// A new repository with these releases.
    fn publish(&self, releases: &[(&str, &str)]) -> Result<()> {
        self.signer(&["init"])?.run()?;
        for (version, mode) in releases {
            let image = self.dir.join(format!("os-{version}.img"));
            self.image(version, mode, &image)?;
            let hardware = self.tools.platform.hardware;
            let mut components =
                vec!["--component".to_owned(), format!("os={},hw={hardware}", image.display())];
            if hardware != HARDWARE {
                // One release for a mixed rack: a node has to pick the image of its own board.
                let other = self.dir.join("os-of-a-pc.img");
                fs::write(&other, b"of a PC\n".repeat(128 << 10))?;
                let other = format!("os={},hw={HARDWARE}", other.display());
                components.extend(["--component".to_owned(), other]);
            }
            let security = if SECURE.contains(version) { "2" } else { "1" };
            let publish = ["publish", "--product", PRODUCT, "--version", version];
            let publish = [&publish[..], &["--security-version", security]].concat();
            self.signer(&publish)?.args(components).args(["--verity", "os"]).run()?;
            fs::remove_file(&image)?;
        }
        Ok(())
    }

    fn signer(&self, command: &[&str]) -> Result<Cmd> {
        self.signer_at(&self.dir, command)
    }

    /// The signer of a repository with its keys below that folder.
    pub(super) fn signer_at(&self, dir: &Path, command: &[&str]) -> Result<Cmd> {
        let repo = format!("oci:{}:racklet", dir.join("repository").display());
        let keys = dir.join("keys");
        Ok(Cmd::new(self.signer_file()).args(command).args(["--repo", &repo, "--keys"]).arg(keys))
    }

    /// The random numbers of a proof: given, or of the clock.
    pub(super) fn seed(&self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.proofs.seed.unwrap_or_else(|| now.map_or(1, |since| since.as_nanos() as u64))
    }

    /// That long, or longer on a computer that is busy otherwise.
    pub(super) fn life(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds) * self.patience.max(1)
    }

    /// The trust root that machines are given.
    pub(super) fn trust_root(&self) -> Result<Vec<u8>> {
        fs::read(self.dir.join("keys/root.json")).context("read the trust root")
    }

    /// The agent, as it is in guests of this computer's processor.
    pub(super) fn agent(&self) -> Cmd {
        Cmd::new(&self.agent)
    }

    /// The file of the agent in guests.
    pub(super) fn agent_file(&self) -> &Path {
        &self.guest
    }

    /// The signer's file.
    pub(super) fn signer_file(&self) -> PathBuf {
        self.programs.join("signer")
    }

    /// The folder of `repo-server`.
    pub(super) fn server_dir(&self) -> PathBuf {
        self.programs.clone()
    }

    /// A bundle of a release.
    pub(super) fn bundle(&self, version: &str) -> Result<PathBuf> {
        let mut bundles = self.bundles.lock().unwrap_or_else(|held| held.into_inner());
        if let Some(found) = bundles.get(version) {
            return Ok(found.clone());
        }
        let file = self.dir.join(format!("{version}.tar"));
        // Of a rack, it may be there already.
        if !file.exists() {
            let what = ["bundle", "--product", PRODUCT, "--version", version];
            self.signer(&what)?.arg("-o").arg(&file).run()?;
        }
        bundles.insert(version.to_owned(), file.clone());
        Ok(file)
    }

    /// The userland of a release; `/boot` is for the image alone.
    fn system(&self, version: &str, mode: &str) -> Result<Tree> {
        let mut tree = Tree::default();
        for folder in ["proc", "sys", "dev", "run", "data", "esp", "tmp"] {
            tree.folder(folder);
        }
        tree.copy("bin/busybox", &self.tools.file("bin/busybox"))?;
        for applet in BUSYBOX {
            tree.link(&format!("bin/{applet}"), "busybox");
        }
        tree.copy("bin/update-agent", &self.guest)?;
        if mode == "noagent" {
            tree.remove("bin/update-agent");
        }
        let platform = self.tools.platform;
        let init = include_str!("guest/init.sh").replace("ttyS0", platform.console);
        tree.program("init", init);
        tree.program("bin/reboot-now", include_str!("guest/reboot.sh"));
        tree.file("etc/version", version);
        tree.file("etc/mode", mode);
        tree.file("etc/os-release", format!("ID=racklet-vm\nIMAGE_VERSION={version}\n"));
        tree.file("www/index.html", "works\n");
        let mut list = String::new();
        for (cloud, names) in platform.slot_modules {
            for module in self.tools.modules(*cloud, names)? {
                let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let path = format!("lib/modules/{}-{name}", if *cloud { "cloud" } else { "full" });
                tree.copy(&path, &module)?;
                list.push_str(&format!("/{path}\n"));
            }
        }
        tree.file("etc/modules", list);
        Ok(tree)
    }

    /// What the chooser's kernel starts: the agent, which mounts the slot through dm-verity.
    fn root_initramfs(&self) -> Result<Vec<u8>> {
        let mut tree = Tree::default();
        tree.copy("init", &self.guest)?;
        let mut modules = Vec::new();
        for module in self.tools.modules(false, ROOT_MODULES)? {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tree.copy(&format!("lib/modules/{name}"), &module)?;
            modules.push(format!("/lib/modules/{name}"));
        }
        tree.file("etc/update-agent/initramfs.toml", format!("modules = {modules:?}\n"));
        Ok(tree.cpio())
    }

    /// One file system that every loader can boot: kernel; an initrd that is the whole system; the
    /// same system as files, for a kernel that mounts it; and an initrd that does that by dm-verity.
    pub(super) fn image(&self, version: &str, mode: &str, file: &Path) -> Result<()> {
        let mut tree = self.system(version, mode)?;
        let initrd = tree.cpio();
        tree.copy("boot/vmlinuz", &self.tools.kernel(false)?)?;
        tree.file("boot/initrd.img", initrd);
        tree.file("boot/initrd-verity.img", self.root_initramfs()?);
        let entry = format!(
            "title Racklet\nlinux /boot/vmlinuz\ninitrd /boot/initrd-verity.img\n\
             options {} init=/init\n",
            self.tools.platform.kernel
        );
        tree.file("boot/racklet.conf", entry);
        ext4(&tree, file, IMAGE, "os")
    }

    /// A disk as it leaves the factory: slot a holds 1.0.0, confirmed; bundles of these releases on
    /// the data partition, beside the agent's state and its configuration.
    pub(super) fn disk(&self, dir: &Path, setup: &Setup<'_>) -> Result<Disk> {
        let disk = Disk::create(&dir.join("disk.img"))?;
        let factory = dir.join("factory");
        fs::create_dir_all(factory.join("data"))?;
        fs::write(factory.join("data/root.json"), self.trust_root()?)?;
        let config = |text: &str| -> Result<PathBuf> {
            let file = factory.join("agent.toml");
            fs::write(&file, text)?;
            Ok(file)
        };
        fs::write(factory.join("os-release"), "IMAGE_VERSION=0\n")?;
        // The agent itself writes the first slot, as if the other one were running.
        let node = format!("hardware = [{:?}]", self.tools.platform.hardware);
        let here = agent_toml(&Setup {
            node: &node,
            state: "data/state",
            root: "data/root.json",
            disk: "../disk.img",
            boot: "backend = \"gpt-attributes\"\ncmdline = \"cmdline\"\nboot_id = \"boot_id\"\n",
            health: "command = [\"true\"]\n",
            more: "",
            ..*setup
        });
        let here = here.replace("/bin/reboot-now", "true");
        let here = config(&here)?;
        fs::write(factory.join("cmdline"), "racklet.slot=b\n")?;
        fs::write(factory.join("boot_id"), "factory\n")?;
        let agent = |command: &[&str]| self.agent().arg("--config").arg(&here).args(command);
        // The installer that "runs" in slot b is its fallback until slot a works.
        let slot_b = |flags: [&str; 6]| {
            Cmd::new("cgpt").args(["add", "-i", "3"]).args(flags).arg(&disk.path).run()
        };
        slot_b(["-P", "1", "-T", "0", "-S", "1"])?;
        agent(&["apply", "--version", "1.0.0"]).arg(self.bundle("1.0.0")?).run()?;
        agent(&["boot-select", "--simulate"]).run()?;
        agent(&["run", "--once"]).run()?;
        slot_b(["-P", "0", "-T", "0", "-S", "0"])?;
        for version in setup.bundles {
            fs::copy(self.bundle(version)?, factory.join(format!("data/{version}.tar")))?;
        }
        let deadline = self.life(setup.deadline).as_secs();
        let node = self.tools.platform.node;
        let there = agent_toml(&Setup { deadline, node, ..*setup });
        fs::write(factory.join("data/agent.toml"), there)?;
        for (name, text) in setup.files {
            fs::write(factory.join("data").join(name), text)?;
        }
        let data = dir.join("data.img");
        let len = PARTITIONS.iter().find(|(label, _)| *label == "data").map_or(0, |(_, len)| *len);
        make_ext4(&factory.join("data"), &data, len * MIB, "data")?;
        disk.put("data", &data)?;
        fs::remove_file(&data)?;
        Ok(disk)
    }
}

/// What differs between the machines' configurations.
#[derive(Clone, Copy)]
pub(super) struct Setup<'a> {
    /// The line of `[node]` that says what hardware it is.
    pub(super) node: &'a str,
    pub(super) state: &'a str,
    pub(super) root: &'a str,
    pub(super) disk: &'a str,
    /// Lines of `[boot]`.
    pub(super) boot: &'a str,
    /// One check.
    pub(super) health: &'a str,
    /// Seconds a trial may take, on a computer that is not busy otherwise.
    pub(super) deadline: u64,
    /// Further lines of `[health]`.
    pub(super) period: &'a str,
    pub(super) tries: u8,
    /// Releases to be had from the data partition.
    pub(super) bundles: &'a [&'a str],
    /// Further sections of the agent's configuration.
    pub(super) more: &'a str,
    /// Further files of the data partition.
    pub(super) files: &'a [(&'a str, &'a str)],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Setup {
            node: PC.node,
            state: "state",
            root: "root.json",
            disk: "/dev/nvme0n1",
            boot: "backend = \"gpt-attributes\"\n",
            health: "command = [\"test\", \"-e\", \"/run/healthy\"]\n",
            deadline: 8,
            period: "interval = \"500ms\"\npasses = 2\n",
            tries: 2,
            bundles: &[],
            more: "",
            files: &[],
        }
    }
}

/// The agent's configuration.
pub(super) fn agent_toml(setup: &Setup<'_>) -> String {
    let Setup { node, state, root, disk, boot, health, deadline, period, tries, more, .. } = setup;
    // A simulated machine has no network to look at.
    let web = match boot.contains("cmdline") {
        true => String::new(),
        false => "[[health.check]]\nname = \"web\"\nhttp = \"http://127.0.0.1:8080/index.html\"\n\
                  timeout = \"3s\"\n"
            .to_owned(),
    };
    format!(
        "state_dir = {state:?}\n\
         [node]\nproduct = {PRODUCT:?}\n{node}\nid = \"vm\"\n\
         [trust]\nroot = {root:?}\n\
         [boot]\ndisk = {disk:?}\ntries = {tries}\nverity = true\n\
         reboot_command = [\"/bin/reboot-now\"]\n{boot}\
         [slots.a]\nos = \"root-a\"\n[slots.b]\nos = \"root-b\"\n\
         [health]\ndeadline = \"{deadline}s\"\n{period}\
         [[health.check]]\nname = \"own\"\n{health}timeout = \"3s\"\n{web}{more}"
    )
}

/// A disk image with the partitions of every machine here.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
}

impl Disk {
    /// An empty one.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let total: u64 = PARTITIONS.iter().map(|(_, len)| len).sum();
        let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
        file.set_len((total + 2) * MIB)?;
        drop(file);
        let mut sgdisk = Cmd::new("sgdisk").args(["-a", "1", "-o"]);
        for (number, (label, len)) in PARTITIONS.iter().enumerate() {
            let first = offset(label)? / 512;
            let last = first + len * MIB / 512 - 1;
            let number = number + 1;
            sgdisk = sgdisk.args(["-n".to_owned(), format!("{number}:{first}:{last}")]);
            sgdisk = sgdisk.args(["-c".to_owned(), format!("{number}:{label}")]);
            if *label == "esp" {
                sgdisk = sgdisk.args(["-t".to_owned(), format!("{number}:ef00")]);
            }
        }
        sgdisk.arg(path).run()?;
        Ok(Disk { path: path.to_owned() })
    }

    /// Copies a file to the start of a partition.
    pub(super) fn put(&self, label: &str, from: &Path) -> Result<()> {
        let script = "dd if=\"$1\" of=\"$2\" bs=1M seek=\"$3\" conv=notrunc,sparse status=none";
        let at = (offset(label)? / MIB).to_string();
        Cmd::new("sh").args(["-ec", script, "sh"]).arg(from).arg(&self.path).arg(at).run()?;
        Ok(())
    }

    /// Changes a byte of a partition: what a fault or an attacker does.
    pub(super) fn flip(&self, label: &str, at: u64) -> Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let at = offset(label)? + at;
        let mut byte = [0];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&[byte[0] ^ 0x40])?;
        Ok(())
    }

    /// Where these bytes are in a partition, first and only once.
    pub(super) fn find(&self, label: &str, bytes: &[u8]) -> Result<u64> {
        let content = self.content(label)?;
        // A file's blocks may lie anywhere, but each is whole.
        let found = content.chunks(4096).position(|block| block.starts_with(bytes));
        let block = found.with_context(|| format!("{label} does not hold these bytes"))?;
        Ok(block as u64 * 4096)
    }

    /// The whole content of a partition.
    pub(super) fn content(&self, label: &str) -> Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset(label)?))?;
        let mut content = Vec::new();
        file.take(length(label)?).read_to_end(&mut content)?;
        Ok(content)
    }
}

fn index(label: &str) -> Result<usize> {
    let found = PARTITIONS.iter().position(|(name, _)| *name == label);
    found.with_context(|| format!("no partition {label}"))
}

/// Bytes of a partition.
pub(super) fn length(label: &str) -> Result<u64> {
    Ok(PARTITIONS[index(label)?].1 * MIB)
}

/// Where a partition begins, in bytes.
pub(super) fn offset(label: &str) -> Result<u64> {
    let before: u64 = PARTITIONS[..index(label)?].iter().map(|(_, len)| len).sum();
    Ok((before + 1) * MIB)
}

/// An ext4 file system of that size with these files.
pub(super) fn ext4(tree: &Tree, file: &Path, len: u64, label: &str) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("tree-").tempdir_in(paths::target())?;
    tree.write_to(dir.path())?;
    make_ext4(dir.path(), file, len, label)
}

/// An ext4 file system of that size with the files of a folder.
pub(super) fn make_ext4(from: &Path, file: &Path, len: u64, label: &str) -> Result<()> {
    File::create(file)?.set_len(len)?;
    // Without what the ext4 of GRUB 2.06 and of U-Boot cannot read; one group's worth of lazy work
    // less, so that nothing is written by merely mounting it.
    // dm-verity has blocks of 4096 bytes, so a file system on it has no smaller ones.
    Cmd::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-L", label])
        .args(["-O", "^metadata_csum_seed,^orphan_file,^metadata_csum,^64bit"])
        .args(["-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", "-d"])
        .arg(from)
        .arg(file)
        .run()?;
    Ok(())
}

/// The folder of our programs as tests want them.
fn our_programs(build: bool) -> Result<PathBuf> {
    if build {
        programs::command().watch()?;
    }
    Ok(programs::tests_folder())
}

/// The agent as it is shipped: linked statically, for guests that have nothing else.
fn shipped_agent(build: bool) -> Result<PathBuf> {
    ensure!(cfg!(target_arch = "x86_64"), "the guests here are x86-64 machines");
    if !build {
        return programs::agent_file();
    }
    eprintln!("building the agent for guests …");
    programs::agent()
}
