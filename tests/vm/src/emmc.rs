//! An eMMC as Linux has it: `/dev/mmcblk0boot0` and `…boot1` behind an emulated SDHCI controller, and the agent in a
//! guest.
//!
//! ```text
//!  /dev/nvme0n1                     root-a, root-b: the system        data: state, bundles
//!  /dev/mmcblk0boot0, …boot1        the firmware of slot a, of slot b
//! ```
//!
//! A card keeps its register without power; QEMU forgets it with its process. So the harness reads it before the
//! machine is switched off, with `mmc extcsd read`, and gives it to the next one: what that boots is what a ROM would
//! be given. QEMU 10.0 refuses such a card beside a board's own; 11.1, of Debian's backports, takes it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use racklet_tools::cache;
use racklet_tools::debian::foreign::Foreign;

use super::Cell;
use super::flash::{BANK, Board, FIRMWARE, Flash, firmware, sha256};
use super::machine::Machine;
use super::tools::Tools;
use super::world::World;

pub(super) const CELLS: &[Cell] =
    &[Cell::new("emmc-boot", "mmc extcsd read, the card on the host", emmc_boot)];

/// Where the emulator comes from.
const SUITE: &str = "trixie";
const EMULATOR: &[&str] = &["qemu-system-x86"];
/// Bytes of the card beside its boot partitions.
const USER_AREA: u64 = 64 << 20;
/// PARTITION_CONFIG with BOOT_ACK and boot0 or boot1 enabled.
const FROM_BOOT0: u8 = 0x48;
const FROM_BOOT1: u8 = 0x50;

/// The node with its card.
struct Node<'a> {
    board: Board<'a>,
    tools: Tools,
    /// What the card's register said when the power went.
    config: u8,
}

impl Node<'_> {
    fn power_on(&mut self) -> Result<Machine> {
        let image = self.board.dir.join("emmc.img");
        let drive = format!("if=none,id=card,format=raw,cache=unsafe,file={}", image.display());
        let card =
            format!("emmc,drive=card,boot-partition-size={BANK},boot-config={}", self.config);
        let more = ["-drive", &drive, "-device", "sdhci-pci", "-device", &card];
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        self.board.start(&self.tools, 240, more)
    }

    /// Cuts the power; the card keeps its register.
    fn power_off(&mut self, mut machine: Machine) -> Result<()> {
        self.config = config(&mut machine)?;
        drop(machine.cut());
        Ok(())
    }

    /// A boot partition, on the host.
    fn partition(&self, number: usize) -> Result<Vec<u8>> {
        let image = fs::read(self.board.dir.join("emmc.img"))?;
        let found = image.get(number * BANK..(number + 1) * BANK);
        found.map(<[u8]>::to_vec).context("the card is too short")
    }
}

/// PARTITION_CONFIG, as mmc-utils reads it.
fn config(machine: &mut Machine) -> Result<u8> {
    let said = machine.ok("mmc extcsd read /dev/mmcblk0 | grep PARTITION_CONFIG")?;
    let value = said.split("[PARTITION_CONFIG: 0x").nth(1).and_then(|rest| rest.get(..2));
    let value = value.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    value.with_context(|| format!("mmc says {said}"))
}

fn expect_config(machine: &mut Machine, expected: u8, when: &str) -> Result<()> {
    let found = config(machine)?;
    ensure!(found == expected, "{when}: PARTITION_CONFIG is {found:#04x}, not {expected:#04x}");
    Ok(())
}

fn locked(machine: &mut Machine) -> Result<()> {
    let said =
        machine.ok("cat /sys/block/mmcblk0boot0/force_ro /sys/block/mmcblk0boot1/force_ro")?;
    ensure!(said.split_whitespace().eq(["1", "1"]), "force_ro: {said}");
    Ok(())
}

fn apply(machine: &mut Machine, version: &str) -> Result<String> {
    machine.ok(&format!(
        "agent apply --json --version {version} /data/{version}.tar 2>/run/progress; \
         cat /run/progress"
    ))
}

fn place(_: &str, device: &str) -> String {
    format!("{{ device = {device:?}, switch = \"emmc-boot\" }}")
}

fn emmc_boot(world: &World, dir: &Path) -> Result<String> {
    let flash = Flash {
        banks: ["/dev/mmcblk0boot0", "/dev/mmcblk0boot1"],
        place,
        modules: &[("sdhci-pci", ""), ("mmc_block", "")],
        programs: ("mmc-utils", &["bin/mmc"]),
        boot: "",
    };
    let name = format!("emulator-{SUITE}-backports-{}", cache::digest(EMULATOR));
    let emulator = cache::entry(&name, |work| {
        eprintln!("fetching a newer QEMU and its libraries (once) …");
        let foreign = Foreign::with_backports(&work.join("apt"), "amd64", SUITE)?;
        foreign.unpack_all(&format!("{SUITE}-backports"), EMULATOR, work)?;
        fs::remove_dir_all(work.join("apt")).context("remove the lists of packages")
    })?;
    let board = Board::new(world, dir, &flash)?;
    let boot0 = fs::read(dir.join("bank-a.img"))?;
    ensure!(boot0.starts_with(&firmware(1)), "the factory filled slot a");
    let image = fs::File::create(dir.join("emmc.img"))?;
    std::os::unix::fs::FileExt::write_all_at(&image, &boot0, 0)?;
    image.set_len(2 * BANK as u64 + USER_AREA)?;
    let tools = world.tools.with_emulator(emulator);
    let mut node = Node { board, tools, config: FROM_BOOT0 };

    refused(&mut node, &boot0)?;
    updated(&mut node, &boot0)?;
    reverted(&mut node)?;
    Ok("refused while protected, switched, confirmed, reverted".to_owned())
}

/// What the firmware protected until the next power-on is not written.
fn refused(node: &mut Node<'_>, boot0: &[u8]) -> Result<()> {
    let mut machine = node.power_on()?;
    machine.expect("@@ready slot=a")?;
    expect_config(&mut machine, FROM_BOOT0, "from the factory")?;
    let said = machine.ok("agent doctor; true")?;
    ensure!(said.contains("which boots boot0; what boots can be changed: yes"), "doctor: {said}");
    machine.ok("mmc writeprotect boot set /dev/mmcblk0")?;
    let said = apply(&mut machine, "1.1.0")?;
    ensure!(said.contains("slot_io") && said.contains("until the next power-on"), "{said}");
    expect_config(&mut machine, FROM_BOOT0, "after a refused update")?;
    locked(&mut machine)?;
    node.power_off(machine)?;
    ensure!(node.partition(0)? == boot0, "not a byte of boot0");
    ensure!(node.partition(1)?.iter().all(|byte| *byte == 0), "not a byte of boot1");
    Ok(())
}

/// A set is written, switched, tried and confirmed.
fn updated(node: &mut Node<'_>, boot0: &[u8]) -> Result<()> {
    let mut machine = node.power_on()?;
    machine.expect("@@ready slot=a")?;
    let said = apply(&mut machine, "1.1.0")?;
    ensure!(said.contains("\"activated\":true"), "apply said {said}");
    expect_config(&mut machine, FROM_BOOT1, "after the update")?;
    locked(&mut machine)?;
    let read = "echo 3 >/proc/sys/vm/drop_caches; head -c";
    let read = machine.ok(&format!("{read} {FIRMWARE} /dev/mmcblk0boot1 | sha256sum"))?;
    ensure!(read.contains(&sha256(&firmware(2))), "boot1 holds another firmware: {read}");
    node.power_off(machine)?;
    ensure!(node.partition(1)?.starts_with(&firmware(2)), "the card holds it");
    ensure!(node.partition(0)? == boot0, "not a byte of the partition that booted");

    let mut machine = node.power_on()?;
    machine.expect("@@ready slot=b")?;
    let said = machine.ok("agent run --once --json 2>/run/progress")?;
    ensure!(said.contains("\"did\":\"confirmed\""), "run --once said {said}");
    let status = machine.ok("agent status --json")?;
    ensure!(status.contains("\"mixed\":[]"), "nothing is mixed: {status}");
    let said = apply(&mut machine, "1.2.0")?;
    ensure!(said.contains("\"activated\":true"), "apply said {said}");
    expect_config(&mut machine, FROM_BOOT0, "after the second update")?;
    node.power_off(machine)
}

/// A release that fails its trial: the boot loader reverts the system, the agent the card.
fn reverted(node: &mut Node<'_>) -> Result<()> {
    for nth in 1..=3 {
        let mut machine = node.power_on()?;
        machine.expect("@@ready slot=a")?;
        let (code, said) =
            machine.run("rm /run/healthy; agent run --once --json 2>/run/progress")?;
        ensure!(code != 0, "trial {nth}: {said}");
        node.power_off(machine)?;
    }
    ensure!(node.config == FROM_BOOT0, "the card still boots what failed");
    let mut machine = node.power_on()?;
    machine.expect("@@ready slot=b")?;
    let status = machine.ok("agent status --json")?;
    ensure!(status.contains("\"mixed\":[\"bmc\"]"), "status says so: {status}");
    machine.ok("agent run --once --json 2>/run/progress; true")?;
    expect_config(&mut machine, FROM_BOOT1, "after the revert")?;
    locked(&mut machine)?;
    node.power_off(machine)?;
    ensure!(node.partition(0)?.starts_with(&firmware(4)), "the failed release is where it was");
    ensure!(node.partition(1)?.starts_with(&firmware(2)), "and so is the one that boots");
    Ok(())
}
