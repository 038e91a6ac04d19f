//! Flash banks as Linux has them: `/dev/mtdN` of block2mtd and of nandsim, and the agent in a guest.
//!
//! ```text
//!  /dev/nvme0n1            root-a, root-b: the system         data: state, bundles, which bank is next
//!  /dev/mtd0, /dev/mtd1    bank a, bank b: another component, which starts from the bank it is told
//! ```
//!
//! The harness stands for the firmware: before every start it runs `boot-select --simulate` on the
//! disk and gives the kernel the command line that came out. The other boot loaders have cells of
//! their own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use racklet_testkit::random::Random;
use racklet_tools::cmd::Cmd;
use sha2::{Digest as _, Sha256};

use super::Cell;
use super::machine::{DISK, Hardware, Machine};
use super::nbd::{CutAt, Kind, Server, Torn};
use super::tools::Tools;
use super::tree::Tree;
use super::world::{BUSYBOX, Disk, HARDWARE, KERNEL, World, length, make_ext4};

pub(super) const CELLS: &[Cell] = &[
    Cell::new("flash-block2mtd", "mtdinfo, mtd_debug, the drive on the host", block2mtd),
    Cell::new("flash-nandsim", "nandwrite, nanddump", nandsim),
];

const PRODUCT: &str = "board";
/// Bytes that block2mtd erases as one: `guest/flash.sh` says the same.
const ERASE: u64 = 64 << 10;
/// Bytes of a bank.
pub(super) const BANK: usize = 4 << 20;
/// Bytes of a firmware: not whole blocks.
pub(super) const FIRMWARE: usize = (3 << 20) + 1234;
/// Bytes by which a boot loader knows an image.
const HEAD: usize = 64;

const MODULES: &[&str] = &["nvme", "crc32c_generic", "ext4"];

/// Bytes that no compressor shrinks and no two firmwares share.
pub(super) fn firmware(number: u64) -> Vec<u8> {
    Random::seeded(number).bytes(FIRMWARE)
}

/// A node with its disk, and the initramfs it is started with.
pub(super) struct Board<'a> {
    world: &'a World,
    pub(super) dir: PathBuf,
    disk: Disk,
    boots: u32,
}

/// What differs between the boards.
pub(super) struct Flash {
    /// The devices of both banks in the guest.
    pub(super) banks: [&'static str; 2],
    /// What the agent is told of a bank: by its slot and device.
    pub(super) place: fn(&str, &str) -> String,
    /// Modules and their parameters.
    pub(super) modules: &'static [(&'static str, &'static str)],
    /// Programs of the guest, below `/usr`, and the package that they come from.
    pub(super) programs: (&'static str, &'static [&'static str]),
    /// Lines of `[boot]`.
    pub(super) boot: &'static str,
}

const MTD_UTILS: (&str, &[&str]) =
    ("mtd-utils", &["sbin/mtdinfo", "sbin/mtd_debug", "sbin/nanddump", "sbin/nandwrite"]);
/// Releases by the numbers of their firmware; the last two are bundles in its data.
const RELEASES: [(u64, &str); 3] = [(1, "1.0.0"), (2, "1.1.0"), (4, "1.2.0")];

/// A bank that is switched by a command.
fn switched(slot: &str, device: &str) -> String {
    format!(
        "{{ device = {device:?}, \
         switch = [\"sh\", \"-c\", \"echo {slot} >/data/bank-next && sync\"], \
         runs = {{ file = \"/run/bank-runs\", is = {slot:?} }} }}"
    )
}

impl<'a> Board<'a> {
    /// As it leaves the factory: 1.0.0 in slot a, confirmed; bundles of later releases in its data.
    pub(super) fn new(world: &'a World, dir: &Path, flash: &Flash) -> Result<Self> {
        let signer = |command: &[&str]| world.signer_at(dir, command);
        signer(&["init"])?.run()?;
        for (number, version) in RELEASES {
            let (os, bmc) = (dir.join("os.bin"), dir.join("bmc.bin"));
            fs::write(&os, format!("system {version}\0").repeat(50_000))?;
            fs::write(&bmc, firmware(number))?;
            let component = |name: &str, file: &Path| {
                ["--component".to_owned(), format!("{name}={},hw={HARDWARE}", file.display())]
            };
            signer(&["publish", "--product", PRODUCT, "--version", version])?
                .args(component("os", &os))
                .args(component("bmc", &bmc))
                .args(["--mixed", "bmc=1.0.0,1.1.0,1.2.0"])
                .run()?;
            signer(&["bundle", "--product", PRODUCT, "--version", version])?
                .arg("-o")
                .arg(dir.join(format!("{version}.tar")))
                .run()?;
        }
        let disk = Disk::create(&dir.join("disk.img"))?;
        fs::create_dir_all(dir.join("data"))?;
        fs::copy(dir.join("keys/root.json"), dir.join("data/root.json"))?;
        let board = Board { world, dir: dir.to_owned(), disk, boots: 0 };
        board.factory()?;
        board.fill_data(flash)?;
        board.initramfs(flash)?;
        Ok(board)
    }

    /// The agent itself writes the first slot, as if the other one were running; there the banks are
    /// plain files.
    fn factory(&self) -> Result<()> {
        let bank = |slot: &str| format!("{{ device = \"bank-{slot}.img\" }}");
        let boot = "cmdline = \"cmdline\"\nboot_id = \"boot_id\"\n";
        let banks = [bank("a"), bank("b")];
        let config = agent_toml("data/", "disk.img", boot, &banks, "\"true\"");
        fs::write(self.dir.join("host.toml"), config)?;
        for bank in ["bank-a.img", "bank-b.img"] {
            fs::write(self.dir.join(bank), vec![0xff; BANK])?;
        }
        fs::write(self.dir.join("cmdline"), "racklet.slot=b\n")?;
        fs::write(self.dir.join("boot_id"), "factory\n")?;
        let slot_b = |flags: [&str; 6]| {
            Cmd::new("cgpt").args(["add", "-i", "3"]).args(flags).arg(&self.disk.path).run()
        };
        slot_b(["-P", "1", "-T", "0", "-S", "1"])?;
        let bundle = self.dir.join("1.0.0.tar");
        self.agent().args(["apply", "--version", "1.0.0"]).arg(bundle).run()?;
        self.boot_select()?;
        self.agent().args(["run", "--once"]).run()?;
        slot_b(["-P", "0", "-T", "0", "-S", "0"])?;
        Ok(())
    }

    fn fill_data(&self, flash: &Flash) -> Result<()> {
        let data = self.dir.join("data");
        let banks = [(flash.place)("a", flash.banks[0]), (flash.place)("b", flash.banks[1])];
        let check = "\"test\", \"-e\", \"/run/healthy\"";
        let config = agent_toml("", "/dev/nvme0n1", flash.boot, &banks, check);
        fs::write(data.join("agent.toml"), config)?;
        fs::write(data.join("bank-next"), "a\n")?;
        fs::write(data.join("bmc-1.0.0.bin"), firmware(1))?;
        for (_, version) in &RELEASES[1..] {
            let bundle = format!("{version}.tar");
            fs::copy(self.dir.join(&bundle), data.join(&bundle))?;
        }
        let image = self.dir.join("data.img");
        make_ext4(&data, &image, length("data")?, "data")?;
        self.disk.put("data", &image)
    }

    /// busybox, the agent, other people's programs with the library they need, modules.
    fn initramfs(&self, flash: &Flash) -> Result<()> {
        let tools = &self.world.tools;
        let mut tree = Tree::default();
        for folder in ["proc", "sys", "dev", "run", "data", "tmp"] {
            tree.folder(folder);
        }
        tree.copy("bin/busybox", &tools.file("bin/busybox"))?;
        for applet in BUSYBOX {
            tree.link(&format!("bin/{applet}"), "busybox");
        }
        tree.copy("bin/update-agent", self.world.agent_file())?;
        tree.program("init", include_str!("guest/flash.sh"));
        tree.file("etc/os-release", "IMAGE_VERSION=0\n");
        let (package, programs) = flash.programs;
        let utils = tools.further(&[package, "libc6"])?;
        for program in programs {
            tree.copy(program, &utils.join("usr").join(program))?;
        }
        for library in ["lib/x86_64-linux-gnu/libc.so.6", "lib64/ld-linux-x86-64.so.2"] {
            tree.copy(library, &utils.join(library))?;
        }
        let mut list = String::new();
        for (name, parameters) in
            MODULES.iter().map(|name| (*name, "")).chain(flash.modules.iter().copied())
        {
            for module in tools.modules(false, &[name])? {
                let file = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let path = format!("lib/modules/{file}");
                if list.contains(&format!("/{path}")) {
                    continue;
                }
                tree.copy(&path, &module)?;
                let own = file.starts_with(&format!("{name}."));
                list.push_str(&format!("/{path} {}\n", if own { parameters } else { "" }));
            }
        }
        tree.file("etc/modules", list);
        fs::write(self.dir.join("flash.cpio"), tree.cpio()).context("write the initramfs")
    }

    /// The agent on this computer, on the same disk.
    fn agent(&self) -> Cmd {
        self.world.agent().arg("--config").arg(self.dir.join("host.toml"))
    }

    /// What the firmware does at a start; the kernel's command line.
    fn boot_select(&self) -> Result<String> {
        let said = self.agent().args(["boot-select", "--simulate", "--json"]).read()?;
        let value: serde_json::Value = serde_json::from_str(&said)?;
        let line = value["cmdline"].as_str().with_context(|| format!("boot-select: {said}"))?;
        Ok(line.to_owned())
    }

    fn power_on(&mut self, life: u64, drives: &[String]) -> Result<Machine> {
        let mut more = Vec::new();
        for (number, drive) in drives.iter().enumerate() {
            let id = format!("bank{number}");
            more.extend(["-drive".to_owned(), format!("if=none,id={id},{drive}")]);
            // Slots of the bus in this order, so that the first one is vda.
            let device = format!("virtio-blk-pci,drive={id},addr=0x{:x}", 0x10 + number);
            more.extend(["-device".to_owned(), device]);
        }
        let world = self.world;
        self.start(&world.tools, life, more)
    }

    /// Switches it on with devices beside its disk.
    pub(super) fn start(&mut self, tools: &Tools, life: u64, more: Vec<String>) -> Result<Machine> {
        self.boots += 1;
        let line = format!("{KERNEL} {}", self.boot_select()?);
        let kernel = tools.chooser_kernel()?.display().to_string();
        let initrd = self.dir.join("flash.cpio").display().to_string();
        let drive = format!("{DISK}{}", self.disk.path.display());
        let mut arguments: Vec<String> = [
            ["-kernel", &kernel],
            ["-initrd", &initrd],
            ["-append", &line],
            ["-drive", &drive],
            ["-device", "nvme,drive=d0,serial=d0"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        arguments.extend(more);
        Hardware {
            tools,
            arguments,
            memory: 384,
            life: self.world.life(life),
            log: self.dir.join(format!("serial-{}.log", self.boots)),
        }
        .start()
    }
}

fn agent_toml(data: &str, disk: &str, boot: &str, banks: &[String; 2], check: &str) -> String {
    let [a, b] = banks;
    format!(
        "state_dir = \"{data}state\"\n\
         [node]\nproduct = {PRODUCT:?}\nhardware = [{HARDWARE:?}]\nid = \"vm\"\n\
         [trust]\nroot = \"{data}root.json\"\n\
         [boot]\ndisk = {disk:?}\nreboot_command = [\"true\"]\n{boot}\
         [slots.a]\nos = \"root-a\"\nbmc = {a}\n[slots.b]\nos = \"root-b\"\nbmc = {b}\n\
         [health]\ndeadline = \"20s\"\ninterval = \"200ms\"\npasses = 2\n\
         [[health.check]]\nname = \"own\"\ncommand = [{check}]\ntimeout = \"3s\"\n"
    )
}

const APPLY: &str = "agent apply --json --version 1.1.0 /data/1.1.0.tar 2>/run/progress";

/// block2mtd: what was programmed outlives the machine, so its power may fail. Each cut falls into a
/// write of the bank that was chosen before, of which half arrives.
fn block2mtd(world: &World, dir: &Path) -> Result<String> {
    const CUTS: [(&str, CutAt); 4] = [
        ("the first erase", CutAt { kind: Kind::Erase, after: 0, first: 0, end: ERASE }),
        ("an erase", CutAt { kind: Kind::Erase, after: 20, first: ERASE, end: BANK as u64 }),
        ("a program", CutAt { kind: Kind::Program, after: 40, first: ERASE, end: BANK as u64 }),
        (
            "the first program of the header's block",
            CutAt { kind: Kind::Program, after: 0, first: 0, end: ERASE },
        ),
    ];
    let flash = Flash {
        banks: ["/dev/mtd0", "/dev/mtd1"],
        place: switched,
        modules: &[("virtio_pci", ""), ("virtio_blk", ""), ("block2mtd", "")],
        programs: MTD_UTILS,
        boot: "",
    };
    let mut board = Board::new(world, dir, &flash)?;
    let (a, b) = (dir.join("bank-a.img"), dir.join("bank-b.img"));
    let (old, new) = (padded(firmware(3)), firmware(2));
    ensure!(fs::read(&a)?.starts_with(&firmware(1)), "the factory filled bank a");
    // Bank b holds an image that was once whole.
    fs::write(&b, &old)?;
    let running = fs::read(&a)?;
    // Names of sockets are short.
    let sockets = tempfile::tempdir()?;
    let server = Server::start(&b, &sockets.path().join("bank-b"))?;
    let drives = [format!("format=raw,cache=unsafe,file={}", a.display()), server.option()];

    let mut saw = Vec::new();
    for (what, cut) in CUTS {
        let mut machine = board.power_on(120, &drives)?;
        machine.expect("@@ready slot=a")?;
        if saw.is_empty() {
            let info = machine.ok("mtdinfo /dev/mtd1")?;
            ensure!(info.contains("Eraseblock size:                65536"), "mtdinfo: {info}");
        }
        not_next(&mut machine, what)?;
        server.cut_at(cut);
        machine.send(APPLY)?;
        let torn = server.torn(world.life(60))?;
        drop(machine.cut());
        saw.push(inspect(what, cut.kind, torn, &fs::read(&b)?, &old, &new)?);
        ensure!(fs::read(&a)? == running, "after {what}: not a byte of the bank that runs");
    }
    let mut machine = board.power_on(180, &drives)?;
    machine.expect("@@ready slot=a")?;
    not_next(&mut machine, "the last cut")?;
    // Nothing is cut any more: writes may wait for each other.
    machine
        .ok("echo 20 >/proc/sys/vm/dirty_ratio; echo 10 >/proc/sys/vm/dirty_background_ratio")?;
    let said = machine.ok(APPLY)?;
    ensure!(said.contains("\"activated\":true"), "apply said {said}");
    let read = machine.ok(&format!(
        "mtd_debug read /dev/mtd1 0 {FIRMWARE} /run/b >/dev/null && sha256sum </run/b"
    ))?;
    ensure!(read.contains(&sha256(&new)), "mtd_debug reads another firmware: {read}");
    drop(machine.cut());
    ensure!(fs::read(&b)?.starts_with(&new), "the drive holds it");
    confirmed(&mut board, &drives)?;
    ensure!(fs::read(&a)? == running && fs::read(&b)?.starts_with(&new), "both banks are whole");
    Ok(saw.join("; "))
}

/// The slot whose bank was torn is neither next nor complete, for the agent and by its flags.
fn not_next(machine: &mut Machine, when: &str) -> Result<()> {
    let settled = machine.ok("agent run --once --json 2>/run/progress; true")?;
    let status = machine.ok("agent status --json")?;
    let value: serde_json::Value = serde_json::from_str(&status)?;
    let (next, b) = (&value["next"], &value["slots"]["b"]);
    ensure!(
        next == "a" && b["bootable"] == false && b["confirmed"] == false,
        "after {when}: {settled} {status}"
    );
    Ok(())
}

/// What a cut left in the bank, on the host: which phase it hit, and that nobody takes the bank for an
/// image.
fn inspect(
    what: &str,
    kind: Kind,
    torn: Torn,
    found: &[u8],
    old: &[u8],
    new: &[u8],
) -> Result<String> {
    let (start, len) = (torn.offset as usize, torn.len as usize);
    let half = start + len / 2;
    let end = (start + len).min(found.len());
    let empty = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0xff);
    let (first, second) = (&found[start..half], &found[half..end]);
    match kind {
        Kind::Erase => ensure!(
            empty(first) && !empty(second),
            "{what}: the first half is erased, the second is not"
        ),
        Kind::Program => ensure!(
            !empty(first)
                && first != &old[start..half]
                && second != &new[half.min(new.len())..end.min(new.len())],
            "{what}: the first half is programmed, the second is not"
        ),
    }
    // Of the first erase half a write arrives: the old head may be in the other half of its block, but
    // never the whole old image.
    ensure!(!found.starts_with(new) && found != old, "{what}: the bank holds a whole image");
    if start > 0 || kind == Kind::Program {
        ensure!(empty(&found[..HEAD]), "{what}: there is a head before the rest is there");
    }
    let blocks = |image: &[u8]| {
        let pairs = image.chunks_exact(ERASE as usize).zip(found.chunks_exact(ERASE as usize));
        pairs.filter(|(image, found)| image == found).count()
    };
    Ok(format!(
        "{what}: {} of {len} bytes at {start:#x} ({} old blocks, {} new)",
        len / 2,
        blocks(old),
        blocks(new)
    ))
}

/// The set is tried and confirmed: the other component runs from bank b as well.
fn confirmed(board: &mut Board<'_>, drives: &[String]) -> Result<()> {
    let mut machine = board.power_on(120, drives)?;
    machine.expect("@@ready slot=b")?;
    let runs = machine.ok("cat /run/bank-runs")?;
    ensure!(runs.trim() == "b", "the other component runs from {runs}");
    let said = machine.ok("agent run --once --json 2>/run/progress")?;
    ensure!(said.contains("\"did\":\"confirmed\""), "run --once said {said}");
    let status = machine.ok("agent status --json")?;
    ensure!(status.contains("\"mixed\":[]"), "nothing is mixed: {status}");
    drop(machine.cut());
    Ok(())
}

pub(super) fn padded(mut image: Vec<u8>) -> Vec<u8> {
    image.resize(BANK, 0xff);
    image
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// nandsim: bits are only cleared, pages are programmed in order, blocks are bad or go bad. It
/// forgets everything with its machine, so the node restarts in the guest, by `boot-select
/// --simulate`, and the agent is killed instead of the machine.
fn nandsim(world: &World, dir: &Path) -> Result<String> {
    let flash = Flash {
        banks: ["/dev/mtd0", "/dev/mtd1"],
        place: switched,
        programs: MTD_UTILS,
        modules: &[(
            "nandsim",
            // 256 MiB, pages of 2 KiB, blocks of 128 KiB; two banks of 32. Of bank b block 2 is bad,
            // and block 13 cannot be erased. A page takes 2 ms.
            "id_bytes=0x20,0xaa,0x00,0x15 parts=32,32 badblocks=34 weakblocks=45:0 \
             do_delays=1 programm_delay=2000",
        )],
        boot: "cmdline = \"/run/cmdline\"\nboot_id = \"/run/boot_id\"\n",
    };
    let mut board = Board::new(world, dir, &flash)?;
    let new = firmware(2);
    let mut machine = board.power_on(240, &[])?;
    machine.expect("@@ready slot=a")?;
    let info = machine.ok("mtdinfo /dev/mtd1")?;
    for line in ["nand", "131072 bytes", "2048 bytes", "Bad blocks are allowed:         true"] {
        ensure!(info.contains(line), "mtdinfo: {info}");
    }
    let restart = "cp /data/bank-next /run/bank-runs && agent boot-select --simulate";
    ensure!(machine.ok(restart)?.contains("slot a"), "slot a boots");
    machine.ok("nandwrite -q -p /dev/mtd0 /data/bmc-1.0.0.bin")?;
    machine.ok("nandwrite -q -p /dev/mtd1 /data/bmc-1.0.0.bin")?;
    let running = dump(&mut machine, 0, "")?;

    // A worn block is found by its first erase, marked, and is the end of this attempt.
    let (code, said) = machine.run(&format!("{APPLY}; cat /run/progress"))?;
    ensure!(code == 0 && said.contains("slot_io"), "a block cannot be erased: {said}");
    not_next(&mut machine, "the worn block")?;
    // The next one is killed in the middle: when page 0 of block 20 has been programmed.
    let seen = sha256(&new[(20 - 2) * (128 << 10)..][..2048]);
    machine.ok(&format!(
        "{} & pid=$!; until dd if=/dev/mtd1 bs=2048 skip=$((20 * 64)) count=1 2>/dev/null \
         | sha256sum | grep -q {seen}; do :; done; kill -9 $pid; wait $pid; true",
        // Not the shell's function: the process that is killed has to be the agent.
        APPLY.replace("agent ", "update-agent --config /data/agent.toml ")
    ))?;
    let torn = dump(&mut machine, 1, "-l 2048")?;
    ensure!(torn == sha256(&[0xff; 2048]), "there is no head in a bank that was left");
    not_next(&mut machine, "a kill")?;
    let bad = machine.ok("cat /sys/class/mtd/mtd1/bad_blocks; true")?;
    let said = machine.ok(APPLY)?;
    ensure!(said.contains("\"activated\":true"), "apply said {said}");
    let read = machine.ok(&format!(
        "nanddump -q --bb=skipbad -f /run/b /dev/mtd1 && head -c {FIRMWARE} /run/b | sha256sum"
    ))?;
    ensure!(read.contains(&sha256(&new)), "nanddump reads another firmware: {read}");
    ensure!(dump(&mut machine, 0, "")? == running, "not a byte of the bank that runs");
    ensure!(machine.ok(restart)?.contains("slot b"), "slot b boots");
    let said = machine.ok("agent run --once --json 2>/run/progress")?;
    ensure!(said.contains("\"did\":\"confirmed\""), "run --once said {said}");
    let all = machine.age();
    drop(machine.cut());
    Ok(format!("{} bad blocks skipped, killed once, {:.0} s", bad.trim(), all.as_secs_f64()))
}

/// The digest of a bank's good blocks, by nanddump.
fn dump(machine: &mut Machine, number: u32, options: &str) -> Result<String> {
    let said = machine.ok(&format!(
        "nanddump -q --bb=skipbad {options} -f /run/dump /dev/mtd{number} && sha256sum </run/dump"
    ))?;
    Ok(said.split_whitespace().next().unwrap_or_default().to_owned())
}
