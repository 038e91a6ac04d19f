//! LinuxBoot: our chooser as `/init` of the first kernel, the slot's kernel by kexec.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;

use super::Cell;
use super::machine::{DISK, Hardware, Machine};
use super::power::{self, Subject};
use super::tree::Tree;
use super::world::{Disk, Setup, World, agent_toml, length};

pub(super) const CELLS: &[Cell] = &[
    Cell::new("linuxboot-cycle", "cgpt, sgdisk -v, veritysetup verify", cycle),
    Cell::new("arm-linuxboot-cycle", "cgpt, sgdisk -v, veritysetup verify", |world, dir| {
        let arm = world.of_arm_linuxboot(&dir.join("world"))?;
        let told = cycle(&arm, dir)?;
        Ok(format!("{told}, pages of 64 KiB"))
    }),
    Cell::new("linuxboot-altered", "dm-verity of the kernel", altered),
    Cell::new("linuxboot-rescue", "the clock", rescue),
    Cell::new("linuxboot-panic", "the agent's history", |world, dir| broken(world, dir, "1.2.1")),
    Cell::new("linuxboot-hang", "i6300esb", |world, dir| broken(world, dir, "1.2.2")),
    Cell::new("linuxboot-netdead", "the agent's history", |world, dir| broken(world, dir, "1.2.3")),
    Cell::new("linuxboot-noagent", "i6300esb", |world, dir| broken(world, dir, "1.2.4")),
    Cell::new("linuxboot-hang-later", "i6300esb", |world, dir| broken(world, dir, "1.2.5")),
    Cell::new("linuxboot-block-altered", "dm-verity of the kernel", altered_later),
    Cell::new("linuxboot-power-cycles", "cgpt", |world, dir| power_cycles(world, dir, world.cuts)),
    Cell::new("linuxboot-power-short", "cgpt", |world, dir| power_cycles(world, dir, 12)),
];

/// Seconds: longer than a slow start of the slot's kernel, short enough to wait for.
const WATCHDOG: u64 = 30;

/// The chooser's initramfs: the agent as `/init`, its configuration, the trust root, modules.
fn firmware(world: &World, root: &[u8], file: &Path, settings: &str) -> Result<()> {
    let mut tree = Tree::default();
    tree.copy("init", world.agent_file())?;
    tree.file("etc/update-agent/root.json", root);
    let mut modules = Vec::new();
    let platform = world.tools.platform;
    for module in world.tools.modules(false, platform.chooser_modules)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.copy(&format!("lib/modules/{name}"), &module)?;
        let parameters = if name == "i6300esb.ko" { " nowayout=1" } else { "" };
        modules.push(format!("/lib/modules/{name}{parameters}"));
    }
    let setup = Setup { node: platform.node, state: "/run", ..Setup::default() };
    let chooser = format!("[chooser]\nmodules = {modules:?}\n{settings}");
    tree.file("etc/update-agent/update-agent.toml", agent_toml(&setup) + &chooser);
    fs::write(file, tree.cpio()).with_context(|| format!("write {}", file.display()))
}

/// A machine and the disk it boots from, again and again.
pub(super) struct Board<'a> {
    world: &'a World,
    dir: PathBuf,
    pub(super) disk: Disk,
    /// Of the chooser.
    settings: String,
    boots: u32,
    /// Further arguments of QEMU.
    pub(super) devices: Vec<String>,
}

impl<'a> Board<'a> {
    pub(super) fn new(world: &'a World, dir: &Path, setup: &Setup<'_>) -> Result<Self> {
        let settings = format!(
            "watchdog_timeout = \"{}s\"\ndisk_wait = \"10s\"\n",
            world.life(WATCHDOG).as_secs()
        ) + setup.more;
        Board::with_firmware(world, dir, setup, &settings)
    }

    fn with_firmware(
        world: &'a World,
        dir: &Path,
        setup: &Setup<'_>,
        settings: &str,
    ) -> Result<Self> {
        let disk = world.disk(dir, setup)?;
        let (dir, settings) = (dir.to_owned(), settings.to_owned());
        let board = Board { world, dir, disk, settings, boots: 0, devices: Vec::new() };
        board.fit(&world.trust_root()?)?;
        Ok(board)
    }

    /// Gives the machine firmware with that trust root.
    pub(super) fn fit(&self, root: &[u8]) -> Result<()> {
        firmware(self.world, root, &self.dir.join("chooser.cpio"), &self.settings)
    }

    pub(super) fn power_on(&mut self, life: u64) -> Result<Machine> {
        self.boots += 1;
        // QEMU puts the initramfs of a kernel that is not compressed 160 KiB below the end of memory,
        // where a TPM's log leaves the firmware's tables no room: it overwrites them.
        let kernel = if self.devices.is_empty() {
            self.world.tools.chooser_kernel()?
        } else {
            self.world.tools.kernel(false)?
        };
        let kernel = kernel.display().to_string();
        let initrd = self.dir.join("chooser.cpio").display().to_string();
        let drive = format!("{DISK}{}", self.disk.path.display());
        let arguments = [
            ["-kernel", &kernel],
            ["-initrd", &initrd],
            ["-append", self.world.tools.platform.kernel],
            ["-drive", &drive],
            ["-device", "nvme,drive=d0,serial=d0"],
        ];
        Hardware {
            tools: &self.world.tools,
            arguments: arguments
                .concat()
                .into_iter()
                .map(str::to_owned)
                .chain(self.devices.iter().cloned())
                .collect(),
            memory: 384,
            life: self.world.life(life),
            log: self.dir.join(format!("serial-{}.log", self.boots)),
        }
        .start()
    }

    /// Priority, tries, successful of both slots, as ChromeOS' own tool reads them.
    pub(super) fn flags(&self) -> Result<[[u8; 3]; 2]> {
        let read = |number: &str| -> Result<[u8; 3]> {
            let mut found = [0; 3];
            for (value, option) in found.iter_mut().zip(["-P", "-T", "-S"]) {
                let text = Cmd::new("cgpt")
                    .args(["show", "-i", number, option])
                    .arg(&self.disk.path)
                    .read()?;
                *value = text.trim().parse().with_context(|| format!("cgpt: {text:?}"))?;
            }
            Ok(found)
        };
        Ok([read("2")?, read("3")?])
    }
}

/// Applies a release from the data partition and restarts.
pub(super) fn update(machine: &mut Machine, version: &str) -> Result<()> {
    let said = machine.ok(&format!(
        "agent apply --json --version {version} /data/{version}.tar 2>/run/progress"
    ))?;
    ensure!(said.contains("\"activated\":true"), "apply of {version} said {said}");
    machine.send("reboot-now")
}

/// A → B → confirm → broken B → back, by itself.
fn cycle(world: &World, dir: &Path) -> Result<String> {
    let setup = Setup { bundles: &["1.1.0", "1.2.0"], ..Setup::default() };
    let mut board = Board::new(world, dir, &setup)?;
    let mut machine = board.power_on(480)?;
    machine.expect("racklet: slot a, 1.0.0 verified, confirmed")?;
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    update(&mut machine, "1.1.0")?;
    machine.expect("racklet: slot b, 1.1.0 verified, on trial, 1 tries left")?;
    machine.expect("\"did\":\"confirmed\"")?;
    machine.expect("@@ready slot=b version=1.1.0 root=dm-root")?;
    machine.send("reboot-now")?;
    machine.expect("racklet: slot b, 1.1.0 verified, confirmed")?;
    machine.expect("@@ready slot=b version=1.1.0 root=dm-root")?;
    update(&mut machine, "1.2.0")?;
    for left in [1, 0] {
        machine.expect(&format!("racklet: slot a, 1.2.0 verified, on trial, {left} tries left"))?;
        machine.expect("@@boot slot=a version=1.2.0")?;
    }
    machine.expect("racklet: slot b, 1.1.0 verified, confirmed")?;
    machine.expect("\"did\":\"reverted\"")?;
    machine.expect("@@ready slot=b version=1.1.0 root=dm-root")?;
    let history = machine.ok("agent history --json")?;
    ensure!(history.contains("own: "), "the failed check stands in the history: {history}");
    let took = machine.age();
    drop(machine.cut());
    // Activating slot a made slot b second to it; giving slot a up leaves it there.
    ensure!(board.flags()? == [[0, 0, 0], [1, 0, 1]], "by cgpt: {:?}", board.flags()?);
    let verified = Cmd::new("sgdisk").arg("-v").arg(&board.disk.path).read()?;
    ensure!(verified.contains("No problems found"), "sgdisk -v: {verified}");
    let root = verity_by_cryptsetup(&board, "root-b")?;
    Ok(format!("8 boots in {:.0} s, root hash {root}…", took.as_secs_f64()))
}

/// The tree of a slot, judged by those who defined its format.
fn verity_by_cryptsetup(board: &Board<'_>, label: &str) -> Result<String> {
    let slot = board.dir.join("slot.img");
    let content = board.disk.content(label)?;
    fs::write(&slot, &content)?;
    let blocks = content.chunks(4096);
    let at = blocks.into_iter().position(|block| block.starts_with(b"verity\0\0"));
    let at = at.context("no verity superblock")? as u64 * 4096;
    // What was signed is in the proof at the end of the slot, as text in the targets metadata.
    let text = String::from_utf8_lossy(&content[content.len() - (1 << 20)..]).into_owned();
    let version = String::from_utf8_lossy(&content);
    drop(version);
    let mut tried = 0;
    for piece in text.split("root_hash").skip(1) {
        let hash: String = piece.chars().skip_while(|c| !c.is_ascii_hexdigit()).take(64).collect();
        tried += 1;
        let judged = board
            .world
            .tools
            .program("sbin/veritysetup")
            .arg("verify")
            .arg(&slot)
            .arg(&slot)
            .arg(&hash)
            .arg(format!("--hash-offset={at}"))
            .finish()?;
        if judged.code == 0 {
            return Ok(hash.chars().take(8).collect());
        }
    }
    anyhow::bail!("veritysetup accepts none of {tried} signed root hashes for {label}")
}

/// One byte of kernel, initrd, an unrelated file, or the proof is another: the slot is refused, and
/// the other one boots in the same boot.
fn altered(world: &World, dir: &Path) -> Result<String> {
    let setup = Setup { bundles: &["1.1.0"], ..Setup::default() };
    let mut board = Board::new(world, dir, &setup)?;
    let mut machine = board.power_on(240)?;
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    let command = "agent apply --json --version 1.1.0 /data/1.1.0.tar 2>/run/progress";
    machine.ok(command)?;
    drop(machine.cut());
    let pristine = dir.join("pristine.img");
    copy(&board.disk.path, &pristine)?;
    let kernel = fs::read(world.tools.kernel(false)?)?;
    let slot = length("root-b")?;
    let rows: [(&str, u64, &str); 5] = [
        ("kernel", board.disk.find("root-b", &kernel[8192..12288])? + 77, "hash_mismatch"),
        ("initrd", board.disk.find("root-b", b"070701")? + 4096 * 300, "hash_mismatch"),
        ("a file nobody reads", board.disk.find("root-b", b"works\n")?, "hash_mismatch"),
        ("proof", slot - 3 * 4096, "hash_mismatch"),
        ("no proof", slot - 4096, "meta_format"),
    ];
    for (what, at, code) in rows {
        copy(&pristine, &board.disk.path)?;
        board.disk.flip("root-b", at)?;
        let mut machine = board.power_on(180)?;
        let saw = || format!("altered: {what}");
        machine.expect(&format!("racklet: slot b refused: {code}")).with_context(saw)?;
        machine.expect("racklet: slot a, 1.0.0 verified, confirmed").with_context(saw)?;
        let told = machine.expect("\"did\":\"reverted\"").with_context(saw)?;
        let why = format!("the chooser refused slot b: {code}");
        ensure!(told.contains(&why), "{what}: the agent says {told}");
        machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
        drop(machine.cut());
        ensure!(board.flags()? == [[1, 0, 1], [0, 0, 0]], "{what}: {:?}", board.flags()?);
    }
    // A confirmed slot that was altered later: the other one is not bootable, so its flags stay.
    copy(&pristine, &board.disk.path)?;
    let at = board.disk.find("root-a", &kernel[8192..12288])? + 77;
    board.disk.flip("root-a", at)?;
    let mut machine = board.power_on(180)?;
    machine.expect("racklet: slot b, 1.1.0 verified, on trial, 1 tries left")?;
    machine.expect("@@ready slot=b version=1.1.0 root=dm-root")?;
    machine.send("reboot-now")?;
    machine.expect("racklet: slot b, 1.1.0 verified, confirmed")?;
    Ok("5 alterations refused, 5 times the other slot in the same boot".to_owned())
}

/// A byte of a file changes under the running system: an I/O error, never other bytes.
fn altered_later(world: &World, dir: &Path) -> Result<String> {
    let mut board = Board::new(world, dir, &Setup::default())?;
    let mut machine = board.power_on(240)?;
    machine.expect("racklet: root: slot a, /dev/dm-0, every block verified")?;
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    let mount = machine.ok("grep ' / / ' /proc/self/mountinfo")?;
    ensure!(mount.contains(" ro") && mount.contains("dm-0"), "/ is {mount}");
    ensure!(machine.run("touch /x")?.0 != 0, "something was written to the slot");
    let kernel = fs::read(world.tools.kernel(false)?)?;
    let hash = |bytes: &[u8]| -> Result<String> {
        let file = dir.join("expected");
        fs::write(&file, bytes)?;
        Ok(Cmd::new("sha256sum").arg(&file).read()?.chars().take(64).collect())
    };
    let good = hash(&kernel)?;
    let whole = "echo 3 >/proc/sys/vm/drop_caches; sha256sum /boot/vmlinuz";
    ensure!(machine.ok(whole)?.contains(&good), "the file before");
    let at = board.disk.find("root-a", &kernel[8192..12288])? + 77;
    board.disk.flip("root-a", at)?;
    let read = "echo 3 >/proc/sys/vm/drop_caches; cat /boot/vmlinuz >/run/before";
    let (code, said) = machine.run(read)?;
    ensure!(code != 0 && said.contains("Input/output error"), "{code} {said}");
    let before = machine.ok("sha256sum /run/before")?;
    ensure!(before.contains(&hash(&kernel[..8192])?), "bytes before the block: {before}");
    let behind = machine.ok("dd if=/boot/vmlinuz bs=4096 skip=3 2>/dev/null | sha256sum")?;
    ensure!(behind.contains(&hash(&kernel[12288..])?), "bytes behind the block: {behind}");
    let block = machine.run("dd if=/boot/vmlinuz bs=4096 skip=2 count=1 | sha256sum")?;
    ensure!(block.1.contains(&hash(b"")?), "the block was read: {block:?}");
    let kernel_says = machine.ok("dmesg | grep verity")?;
    ensure!(kernel_says.contains("is corrupted"), "the kernel says {kernel_says}");
    // By the signed chunk list, without dm-verity.
    let (code, said) = machine.run("agent verify --slot a")?;
    ensure!(code != 0 && said.contains("error["), "agent verify: {code} {said}");
    board.disk.flip("root-a", at)?;
    ensure!(machine.ok(whole)?.contains(&good), "the file is whole again");
    Ok("EIO for the block, every other byte right".to_owned())
}

pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    Cmd::new("cp").args(["--sparse=always"]).arg(from).arg(to).run()?;
    Ok(())
}

/// No slot can be booted: it waits, longer each time, and then does what it was told.
fn rescue(world: &World, dir: &Path) -> Result<String> {
    let settings = "watchdog_timeout = \"8s\"\nrescue_rounds = 2\nrescue = \"power-off\"\n";
    let mut board = Board::with_firmware(world, dir, &Setup::default(), settings)?;
    for number in ["2", "3"] {
        let clear = ["add", "-i", number, "-P", "0", "-T", "0", "-S", "0"];
        Cmd::new("cgpt").args(clear).arg(&board.disk.path).run()?;
    }
    let mut machine = board.power_on(120)?;
    let says = "boot_record: slot a is not bootable, slot b is not bootable";
    machine.expect(&format!("racklet: rescue: {says}; again in 5 s"))?;
    let first = machine.age();
    machine.expect(&format!("racklet: rescue: {says}; again in 10 s"))?;
    let second = machine.age();
    machine.expect(&format!("racklet: rescue: {says}; giving up: PowerOff"))?;
    let third = machine.age();
    let waits = [(second - first).as_secs_f64(), (third - second).as_secs_f64()];
    ensure!(waits[0] >= 4.9 && waits[1] >= 9.9, "it waited {waits:?} s");
    machine.ended().context("the machine was not switched off")?;
    Ok(format!("waited {:.1} s and {:.1} s, then off; the watchdog was fed", waits[0], waits[1]))
}

/// A release that cannot work: back on the old slot, with a reason.
fn broken(world: &World, dir: &Path, version: &'static str) -> Result<String> {
    // A trial that is long enough to hang in its middle.
    let usual = Setup { bundles: &[version], ..Setup::default() };
    let later = Setup { deadline: 90, period: "interval = \"20s\"\npasses = 4\n", ..usual };
    let setup = if version == "1.2.5" { later } else { usual };
    let mut board = Board::new(world, dir, &setup)?;
    let mut machine = board.power_on(600)?;
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    update(&mut machine, version)?;
    let trial = machine.age();
    for left in [1, 0] {
        let line = format!("racklet: slot b, {version} verified, on trial, {left} tries left");
        machine.expect(&line)?;
        machine.expect(&format!("@@start version={version}"))?;
    }
    machine.expect("racklet: slot a, 1.0.0 verified, confirmed")?;
    let told = machine.expect("\"did\":\"reverted\"")?;
    let back = (machine.age() - trial).as_secs_f64();
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    let refused = machine.run(&format!("agent apply --version {version} /data/{version}.tar"))?;
    ensure!(refused.1.contains("failed_before"), "not tried again: {refused:?}");
    drop(machine.cut());
    ensure!(board.flags()? == [[1, 0, 1], [0, 0, 0]], "by cgpt: {:?}", board.flags()?);
    let why = told.split("\"why\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let why: String = why.unwrap_or("?").chars().take(70).collect();
    Ok(format!("back after {back:.0} s: {why}"))
}

/// Power that fails at random moments of a boot changes nothing on a confirmed slot.
fn power_cycles(world: &World, dir: &Path, cuts: u32) -> Result<String> {
    let board = Board::new(world, dir, &Setup::default())?;
    let before = board.flags()?;
    ensure!(before == [[2, 0, 1], [0, 0, 0]], "by cgpt: {before:?}");
    let disk = board.disk.clone();
    let board = std::cell::RefCell::new(board);
    let done = power::cycles(
        &Subject {
            start: &|| board.borrow_mut().power_on(120),
            record: &|| {
                let disk = fs::read(&disk.path)?;
                Ok([&disk[..34 * 512], &disk[disk.len() - 33 * 512..]].concat())
            },
            marks: &[
                ("firmware", ""),
                ("chooser", "racklet: chooser"),
                ("after kexec", "racklet: slot a, 1.0.0 verified, confirmed; starting"),
                ("slot", "@@start version=1.0.0"),
            ],
            ready: "@@ready slot=a version=1.0.0 root=dm-root",
        },
        cuts,
    )?;
    let after = board.borrow().flags()?;
    ensure!(after == before, "by cgpt: {after:?}");
    Ok(done)
}
