//! Small machines, for what is done often: 24 MiB slots, a disk on virtio, no watchdog, our chooser.
//!
//! ```text
//!  vda  root-a │ root-b │ env │ data: state and configuration     recorded, cut, saved
//!  vdb  bundles                                                   read only
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use racklet_tools::cmd::Cmd;

use super::machine::{Hardware, Machine};
use super::tree::Tree;
use super::world::{HARDWARE, KERNEL, PRODUCT, World};

const MIB: u64 = 1 << 20;
/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;
/// Bytes of a file system image: kernel and initrd, and nothing beside them.
const IMAGE: u64 = 20 * MIB;
/// Label and MiB of the partitions, in order from number 1.
pub(super) const PARTITIONS: [(&str, u64); 4] =
    [("root-a", 24), ("root-b", 24), ("env", 1), ("data", 16)];

const BUSYBOX: &[&str] = &[
    "sh", "mount", "umount", "insmod", "stty", "cat", "echo", "sleep", "ip", "sed", "sync", "ls",
    "test", "[", "true", "false", "grep", "printf", "dmesg", "cmp", "dd",
];
const SLOT_MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "virtio_net", "block2mtd"];
const CHOOSER_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
    "dm-mod",
    "dm-verity",
    "sha256_generic",
];
/// Loaded by `setup.sh` where it is wanted.
const ON_DEMAND: &[&str] = &["virtio_net", "net_failover", "failover", "block2mtd", "mtd"];

/// A repository of small releases, and the chooser that boots them.
pub(super) struct Lab<'a> {
    pub(super) world: &'a World,
    pub(super) dir: PathBuf,
    /// How the signer reaches the repository.
    repository: Vec<String>,
}

/// How a small machine is configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    /// Lines of the configuration that come first: `[[source]]`, `[policy]`.
    pub(super) more: &'a str,
    /// Lines of `[boot]`.
    pub(super) boot: &'a str,
    /// Hardware ids.
    pub(super) hardware: &'a str,
    /// Further components of slots a and b.
    pub(super) slots: [&'a str; 2],
    /// Further files of the data partition.
    pub(super) files: &'a [(&'a str, &'a str)],
}

impl Default for Node<'_> {
    fn default() -> Self {
        let boot = "backend = \"gpt-attributes\"\n";
        Node { more: "", boot, hardware: "\"vm-q35\"", slots: ["", ""], files: &[] }
    }
}

/// A release: its version, and files beside the system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Release<'a> {
    pub(super) version: &'a str,
    pub(super) files: &'a [(&'a str, &'a str)],
    /// Options of `signer publish`.
    pub(super) options: &'a [&'a str],
}

impl<'a> Lab<'a> {
    /// A repository that is there already.
    pub(super) fn at(world: &'a World, dir: &Path) -> Self {
        let reference = format!("oci:{}:racklet", dir.join("repository").display());
        let repository = vec!["--repo".to_owned(), reference];
        Lab { world, dir: dir.to_owned(), repository }
    }

    /// A new repository, there or behind the options, and a chooser that trusts it.
    pub(super) fn new(world: &'a World, dir: &Path, behind: Option<Vec<String>>) -> Result<Self> {
        let mut lab = Lab::at(world, dir);
        if let Some(options) = behind {
            lab.repository = options;
        }
        lab.signer(&["init"]).run()?;
        lab.chooser()?;
        Ok(lab)
    }

    /// The same, with these releases that only say their versions.
    pub(super) fn with_releases(world: &'a World, dir: &Path, versions: &[&str]) -> Result<Self> {
        let lab = Lab::new(world, dir, None)?;
        for version in versions {
            lab.publish(&Release { version, files: &[], options: &[] })?;
        }
        Ok(lab)
    }

    /// One of the signer's commands on the repository.
    pub(super) fn signer(&self, command: &[&str]) -> Cmd {
        let signer = Cmd::new(self.world.signer_file()).args(command).args(&self.repository);
        signer.arg("--keys").arg(self.dir.join("keys"))
    }

    /// Makes a release and publishes it.
    pub(super) fn publish(&self, release: &Release<'_>) -> Result<()> {
        let image = self.dir.join(format!("os-{}.img", release.version));
        self.image(release, &image)?;
        let component = format!("os={},hw={HARDWARE}", image.display());
        let publish = ["publish", "--product", PRODUCT, "--version", release.version];
        self.signer(&publish)
            .args(["--component", &component, "--verity", "os"])
            .args(release.options)
            .run()?;
        fs::remove_file(&image)?;
        Ok(())
    }

    fn image(&self, release: &Release<'_>, file: &Path) -> Result<()> {
        let tools = &self.world.tools;
        let mut system = Tree::default();
        for folder in ["proc", "sys", "dev", "run", "data", "bundles", "tmp"] {
            system.folder(folder);
        }
        system.copy("bin/busybox", &tools.file("bin/busybox"))?;
        for applet in BUSYBOX {
            system.link(&format!("bin/{applet}"), "busybox");
        }
        system.copy("bin/update-agent", self.world.agent_file())?;
        system.program("init", include_str!("guest/small.sh"));
        system.program("bin/reboot-now", include_str!("guest/reboot.sh"));
        system.program("bin/healthy", include_str!("guest/healthy.sh"));
        system.file("etc/version", release.version);
        system
            .file("etc/os-release", format!("ID=racklet-vm\nIMAGE_VERSION={}\n", release.version));
        let mut list = String::new();
        for module in tools.modules(false, SLOT_MODULES)? {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let path = format!("lib/modules/{name}");
            system.copy(&path, &module)?;
            let stem = name.trim_end_matches(".ko").replace('-', "_");
            if !ON_DEMAND.contains(&stem.as_str()) {
                list.push_str(&format!("/{path}\n"));
            }
        }
        system.file("etc/modules", list);
        for (path, text) in release.files {
            system.file(path, *text);
        }
        let mut tree = Tree::default();
        tree.copy("boot/vmlinuz", &tools.kernel(false)?)?;
        // Half of the bytes to write, to verify and to boot from.
        let packed = self.initrd(release.version);
        Cmd::new("zstd").args(["-q", "-f", "-6", "-o"]).arg(&packed).input(system.cpio()).run()?;
        tree.copy("boot/initrd.img", &packed)?;
        let entry = format!("linux /boot/vmlinuz\ninitrd /boot/initrd.img\noptions {KERNEL}\n");
        tree.file("boot/racklet.conf", entry);
        super::world::ext4(&tree, file, IMAGE, "os")
    }

    /// The initramfs in the firmware, with the agent as it is now.
    pub(super) fn chooser(&self) -> Result<()> {
        let mut tree = Tree::default();
        tree.copy("init", self.world.agent_file())?;
        tree.file("etc/update-agent/root.json", self.root()?);
        let mut modules = Vec::new();
        for module in self.world.tools.modules(false, CHOOSER_MODULES)? {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            tree.copy(&format!("lib/modules/{name}"), &module)?;
            modules.push(format!("/lib/modules/{name}"));
        }
        let chooser = format!(
            "[chooser]\nmodules = {modules:?}\nwatchdog = \"\"\ndisk_wait = \"10s\"\n\
             rescue_rounds = 0\nrescue = \"power-off\"\n"
        );
        let config = config("/run", "root.json", "/dev/vda", &Node::default()) + &chooser;
        tree.file("etc/update-agent/update-agent.toml", config);
        fs::write(self.dir.join("chooser.cpio"), tree.cpio()).context("write the chooser")
    }

    /// The trust root.
    pub(super) fn root(&self) -> Result<Vec<u8>> {
        fs::read(self.dir.join("keys/root.json")).context("read the trust root")
    }

    /// A disk as it leaves the factory: slot a holds the first release, confirmed.
    pub(super) fn disk(&self, file: &Path, first: &str, node: &Node<'_>) -> Result<()> {
        create(file)?;
        let factory = file.with_extension("factory");
        let home = factory.join("data");
        fs::create_dir_all(&home)?;
        fs::write(home.join("root.json"), self.root()?)?;
        let here = self.host(&factory, file, "data/state", "data/root.json", &Node::default())?;
        let cgpt = |flags: [&str; 6]| {
            Cmd::new("cgpt").args(["add", "-i", "2"]).args(flags).arg(file).run()
        };
        // The installer that "runs" in slot b is its fallback until slot a works.
        fs::write(factory.join("cmdline"), "racklet.slot=b\n")?;
        cgpt(["-P", "1", "-T", "0", "-S", "1"])?;
        let bundle = self.bundle(first)?;
        here.agent(&["apply", "--version", first]).arg(&bundle).run()?;
        here.agent(&["boot-select", "--simulate"]).run()?;
        here.agent(&["run", "--once"]).run()?;
        cgpt(["-P", "0", "-T", "0", "-S", "0"])?;
        fs::write(home.join("agent.toml"), config("state", "root.json", "/dev/vda", node))?;
        for (name, text) in node.files {
            fs::write(home.join(name), text)?;
        }
        let data = file.with_extension("data");
        ext4_small(&home, &data, length("data")?)?;
        put(file, "data", &data)?;
        fs::remove_file(&data)?;
        fs::remove_dir_all(&factory)?;
        Ok(())
    }

    /// A configuration on this computer, for the agent to work on a disk that is a file here.
    pub(super) fn host(
        &self,
        dir: &Path,
        disk: &Path,
        state: &str,
        root: &str,
        node: &Node<'_>,
    ) -> Result<Here<'a>> {
        let places = "cmdline = \"cmdline\"\nboot_id = \"boot_id\"\n".to_owned() + node.boot;
        let node = Node { boot: &places, more: "", ..*node };
        let text = config(state, root, &disk.display().to_string(), &node)
            .replace("/bin/reboot-now", "true")
            .replace("/bin/healthy", "true");
        fs::write(dir.join("agent.toml"), text.replace("os_release = \"/etc", "os_release = \"."))?;
        fs::write(dir.join("boot_id"), "factory\n")?;
        fs::write(dir.join("os-release"), "IMAGE_VERSION=0\n")?;
        Ok(Here { world: self.world, config: dir.join("agent.toml") })
    }

    /// A bundle of a release.
    pub(super) fn bundle(&self, version: &str) -> Result<PathBuf> {
        let file = self.dir.join(format!("{version}.tar"));
        if !file.exists() {
            let what = ["bundle", "--product", PRODUCT, "--version", version];
            self.signer(&what).arg("-o").arg(&file).run()?;
        }
        Ok(file)
    }

    /// The second disk: bundles of these releases.
    pub(super) fn bundles(&self, versions: &[&str]) -> Result<PathBuf> {
        let file = self.dir.join("bundles.img");
        let from = self.dir.join("bundles");
        fs::create_dir_all(&from)?;
        let mut len = 4 * MIB;
        for version in versions {
            len += fs::copy(self.bundle(version)?, from.join(format!("{version}.tar")))?;
        }
        ext4_small(&from, &file, (len + len / 20).next_multiple_of(MIB))?;
        fs::remove_dir_all(&from)?;
        Ok(file)
    }

    /// The system of a release, as it is in its image.
    fn initrd(&self, version: &str) -> PathBuf {
        self.dir.join(format!("initrd-{version}.zst"))
    }

    /// What switches a machine on, but for its first disk `d0`: the chooser is its firmware.
    pub(super) fn board(&self, bundles: Option<&Path>) -> Result<Vec<String>> {
        self.board_of(&self.dir.join("chooser.cpio"), KERNEL, bundles)
    }

    /// The same without a chooser: another boot loader picked that release and has this to say.
    pub(super) fn direct(
        &self,
        version: &str,
        words: &str,
        bundles: Option<&Path>,
    ) -> Result<Vec<String>> {
        self.board_of(&self.initrd(version), &format!("{KERNEL} {words}"), bundles)
    }

    fn board_of(&self, initrd: &Path, words: &str, bundles: Option<&Path>) -> Result<Vec<String>> {
        let mut words: Vec<String> = [
            "-kernel",
            &self.world.tools.chooser_kernel()?.display().to_string(),
            "-initrd",
            &initrd.display().to_string(),
            "-append",
            words,
            "-device",
            "virtio-blk-pci,drive=d0",
        ]
        .map(str::to_owned)
        .to_vec();
        if let Some(file) = bundles {
            let drive = format!("if=none,id=d1,format=raw,readonly=on,file={}", file.display());
            words.extend(["-drive".to_owned(), drive]);
            words.extend(["-device", "virtio-blk-pci,drive=d1"].map(str::to_owned));
        }
        Ok(words)
    }

    /// Switches a machine on.
    pub(super) fn start(&self, arguments: Vec<String>, life: u64, log: &Path) -> Result<Machine> {
        Hardware {
            tools: &self.world.tools,
            arguments,
            memory: 224,
            life: self.world.life(life),
            log: log.to_owned(),
        }
        .start()
    }
}

/// The agent on this computer.
pub(super) struct Here<'a> {
    world: &'a World,
    config: PathBuf,
}

impl Here<'_> {
    /// One of its commands.
    pub(super) fn agent(&self, command: &[&str]) -> Cmd {
        self.world.agent().arg("--config").arg(&self.config).args(command)
    }
}

/// Does that to each, two at a time; nothing more is begun after a failure.
pub(super) fn in_pairs<T: Send>(
    items: Vec<T>,
    work: &(dyn Fn(T) -> Result<()> + Sync),
) -> Result<()> {
    let queue = Mutex::new(items.into_iter());
    let next = || queue.lock().map_or(None, |mut queue| queue.next());
    let one = || -> Result<()> {
        while let Some(item) = next() {
            if let Err(error) = work(item) {
                while next().is_some() {}
                return Err(error);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(one);
        let here = one();
        match other.join() {
            Ok(there) => here.and(there),
            Err(_) => bail!("a machine's thread panicked"),
        }
    })
}

/// The command with which a guest applies a release from its second disk.
pub(super) fn apply(version: &str) -> String {
    format!("agent apply --json --version {version} /bundles/{version}.tar 2>/run/progress")
}

fn config(state: &str, root: &str, disk: &str, node: &Node<'_>) -> String {
    let Node { more, boot, hardware, slots: [a, b], .. } = node;
    format!(
        "state_dir = {state:?}\n\
         [node]\nproduct = {PRODUCT:?}\nhardware = [{hardware}]\nid = \"vm\"\n\
         os_release = \"/etc/os-release\"\n\
         [trust]\nroot = {root:?}\n\
         [boot]\ndisk = {disk:?}\ntries = 2\nverity = true\n\
         reboot_command = [\"/bin/reboot-now\"]\n{boot}\
         [slots.a]\nos = \"root-a\"\n{a}[slots.b]\nos = \"root-b\"\n{b}\
         [health]\ndeadline = \"8s\"\ninterval = \"200ms\"\npasses = 2\n\
         [[health.check]]\nname = \"own\"\ncommand = [\"/bin/healthy\"]\ntimeout = \"3s\"\n{more}"
    )
}

fn create(file: &Path) -> Result<()> {
    let total: u64 = PARTITIONS.iter().map(|(_, len)| len).sum();
    File::create(file)
        .and_then(|made| made.set_len((total + 2) * MIB))
        .with_context(|| format!("make {}", file.display()))?;
    let mut sgdisk = Cmd::new("sgdisk").args(["-a", "1", "-o"]);
    for (number, (label, len)) in (1..).zip(PARTITIONS) {
        let first = offset(label)? / SECTOR;
        let last = first + len * MIB / SECTOR - 1;
        sgdisk = sgdisk.args(["-n".to_owned(), format!("{number}:{first}:{last}")]);
        sgdisk = sgdisk.args(["-c".to_owned(), format!("{number}:{label}")]);
    }
    sgdisk.arg(file).run()?;
    Ok(())
}

/// An ext4 file system of few files. Its superblock is two sectors: with `metadata_csum` a cut between
/// them leaves one that nobody mounts.
fn ext4_small(from: &Path, file: &Path, len: u64) -> Result<()> {
    File::create(file)?.set_len(len)?;
    Cmd::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-N", "512", "-J", "size=4"])
        .args(["-O", "^metadata_csum,^metadata_csum_seed,^orphan_file"])
        .args(["-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", "-d"])
        .arg(from)
        .arg(file)
        .run()?;
    Ok(())
}

/// Copies a file to the start of a partition.
pub(super) fn put(disk: &Path, label: &str, from: &Path) -> Result<()> {
    let script = "dd if=\"$1\" of=\"$2\" bs=1M seek=\"$3\" conv=notrunc,sparse status=none";
    let at = (offset(label)? / MIB).to_string();
    Cmd::new("sh").args(["-ec", script, "sh"]).arg(from).arg(disk).arg(at).run()?;
    Ok(())
}

fn length(label: &str) -> Result<u64> {
    let found = PARTITIONS.iter().find(|(name, _)| *name == label);
    found.map(|(_, len)| len * MIB).with_context(|| format!("no partition {label}"))
}

/// Where a partition begins, in bytes.
pub(super) fn offset(label: &str) -> Result<u64> {
    let before = PARTITIONS.iter().take_while(|(name, _)| *name != label);
    let before: Vec<u64> = before.map(|(_, len)| *len).collect();
    ensure!(before.len() < PARTITIONS.len(), "no partition {label}");
    Ok((before.iter().sum::<u64>() + 1) * MIB)
}

/// First and last byte of each partition, by label.
pub(super) fn ranges() -> BTreeMap<&'static str, std::ops::Range<u64>> {
    let mut at = MIB;
    let of = |(label, len): (&'static str, u64)| {
        let range = at..at + len * MIB;
        at = range.end;
        (label, range)
    };
    PARTITIONS.into_iter().map(of).collect()
}
