//! Boot loaders by other people: systemd-boot, GRUB and U-Boot, each with the agent's backend for it.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;

use super::machine::{DISK, Hardware, Machine};
use super::platform;
use super::power::{self, Subject};
use super::world::{Disk, KERNEL, Setup, World, offset};

pub(super) const CELLS: &[super::Cell] = &[
    super::Cell::new("systemd-boot-cycle", "systemd-boot 252, mdir", |world, dir| {
        cycle(world, dir, &SYSTEMD_BOOT)
    }),
    super::Cell::new("grub-cycle", "GRUB 2.06, grub-editenv", |world, dir| {
        cycle(world, dir, &GRUB)
    }),
    super::Cell::new("uboot-cycle", "U-Boot 2023.01, fw_printenv", |world, dir| {
        cycle(world, dir, &UBOOT)
    }),
    super::Cell::new("systemd-boot-power-cycles", "mdir", |world, dir| {
        power_cycles(world, dir, &SYSTEMD_BOOT, &[])
    }),
    super::Cell::new("grub-power-cycles", "grub-editenv", |world, dir| {
        power_cycles(world, dir, &GRUB, CHOSEN)
    }),
    super::Cell::new("uboot-power-cycles", "fw_printenv", |world, dir| {
        power_cycles(world, dir, &UBOOT, CHOSEN)
    }),
    super::Cell::new("arm-systemd-boot-cycle", "systemd-boot 252, mdir", |world, dir| {
        cycle(&world.of_arm(&dir.join("world"))?, dir, &SYSTEMD_BOOT)
    }),
    super::Cell::new("arm-uboot-cycle", "U-Boot 2023.01, fw_printenv", |world, dir| {
        cycle(&world.of_arm(&dir.join("world"))?, dir, &UBOOT_ARM)
    }),
    super::Cell::new("uboot-torn", "U-Boot 2023.01, fw_printenv", uboot_torn),
];

/// One boot loader.
pub(super) struct Loader {
    /// Lines of `[boot]`.
    pub(super) boot: &'static str,
    pub(super) disk: &'static str,
    /// Further files of the data partition.
    files: &'static [(&'static str, &'static str)],
    /// Puts it on the disk, slot a confirmed.
    install: fn(&World, &Path, &Disk) -> Result<()>,
    /// How the machine starts it.
    hardware: fn(&World, &Path) -> Result<Vec<String>>,
    /// What its record says at the end, by other people's reader.
    record: fn(&World, &Path, &Disk) -> Result<String>,
    /// What the record must say: slot b confirmed, slot a cleared.
    expected: &'static str,
}

const SYSTEMD_BOOT: Loader = Loader {
    boot: "backend = \"systemd-boot\"\nesp = \"/esp\"\n",
    disk: "/dev/nvme0n1",
    files: &[("esp-at", "/dev/nvme0n1p1")],
    install: install_systemd_boot,
    hardware: uefi,
    record: |world, _, disk| {
        let text = esp(world, disk, "mdir", &["-b", "::/loader/entries"])?;
        let names = text.lines().filter_map(|line| line.rsplit('/').next());
        // The generation counts updates.
        let short = |name: &str| name.trim().replace(|c: char| c.is_ascii_digit(), "N");
        Ok(names.map(short).collect::<Vec<_>>().join(" "))
    },
    expected: "racklet-N-b.conf",
};

const GRUB: Loader = Loader {
    boot: "backend = \"grub-env\"\ngrub_env = \"/esp/grub/grubenv\"\n",
    disk: "/dev/nvme0n1",
    files: &[("esp-at", "/dev/nvme0n1p1")],
    install: install_grub,
    hardware: uefi,
    record: |world, dir, disk| {
        let file = dir.join("grubenv");
        esp(world, disk, "mcopy", &["-n", "-o", "::/grub/grubenv", &file.display().to_string()])?;
        Cmd::new("grub-editenv").arg(&file).arg("list").read()
    },
    expected: "BOOT_ORDER=B\nBOOT_A_LEFT=0\nBOOT_B_LEFT=9999999",
};

const UBOOT: Loader = Loader {
    boot: "backend = \"uboot-env\"\nenv_config = \"/data/fw_env.config\"\n",
    disk: "/dev/sda",
    files: &[("fw_env.config", "/dev/sda4 0x0 0x4000\n/dev/sda4 0x80000 0x4000\n")],
    install: |world, dir, disk| install_uboot(world, dir, disk, &PC_BOARD),
    hardware: |world, dir| {
        let drive = format!("{DISK}{}", dir.join("disk.img").display());
        let bios = world.tools.file("usr/lib/u-boot/qemu-x86/u-boot.rom").display().to_string();
        let words = ["-bios", &bios, "-drive", &drive, "-device", "ide-hd,drive=d0,bus=ide.0"];
        Ok(words.map(str::to_owned).to_vec())
    },
    record: |_, dir, _| {
        let names = ["BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT"];
        Cmd::new("fw_printenv").arg("-c").arg(dir.join("fw_env.config")).args(names).read()
    },
    expected: "BOOT_ORDER=B\nBOOT_A_LEFT=0\nBOOT_B_LEFT=9999999",
};

pub(super) const UBOOT_ARM: Loader = Loader {
    disk: "/dev/vda",
    files: &[("fw_env.config", "/dev/vda4 0x0 0x4000\n/dev/vda4 0x80000 0x4000\n")],
    install: |world, dir, disk| install_uboot(world, dir, disk, &ARM_BOARD),
    hardware: |world, dir| {
        let drive = format!("{DISK}{}", dir.join("disk.img").display());
        let bios = world.tools.file("usr/lib/u-boot/qemu_arm64/u-boot.bin").display().to_string();
        let words = ["-bios", &bios, "-drive", &drive, "-device", "virtio-blk-pci,drive=d0"];
        Ok(words.map(str::to_owned).to_vec())
    },
    ..UBOOT
};

/// A → B → confirm → a release whose kernel panics → back, by the loader's own counting.
fn cycle(world: &World, dir: &Path, loader: &Loader) -> Result<String> {
    cycle_to(world, dir, loader, "1.2.1")
}

/// The same, with another version of the release that panics.
pub(super) fn cycle_to(world: &World, dir: &Path, loader: &Loader, panics: &str) -> Result<String> {
    let setup = Setup {
        disk: loader.disk,
        boot: loader.boot,
        bundles: &["1.1.0", panics],
        files: loader.files,
        ..Setup::default()
    };
    let disk = world.disk(dir, &setup)?;
    (loader.install)(world, dir, &disk)?;
    updates(world, dir, loader, &disk, panics)
}

/// The same, on a disk that is there.
pub(super) fn updates(
    world: &World,
    dir: &Path,
    loader: &Loader,
    disk: &Disk,
    panics: &str,
) -> Result<String> {
    let mut machine = Hardware {
        tools: &world.tools,
        arguments: (loader.hardware)(world, dir)?,
        memory: 512,
        life: world.life(480),
        log: dir.join("serial.log"),
    }
    .start()?;
    machine.expect("@@ready slot=a version=1.0.0")?;
    let first = machine.age();
    update(&mut machine, "1.1.0")?;
    machine.expect("\"did\":\"confirmed\"")?;
    machine.expect("@@ready slot=b version=1.1.0")?;
    machine.send("reboot-now")?;
    machine.expect("@@ready slot=b version=1.1.0")?;
    update(&mut machine, panics)?;
    let starts = format!("@@start version={panics}");
    for _ in 0..2 {
        machine.expect_any(&[&starts, "@@boot"]).and_then(|line| {
            ensure!(line.contains(panics), "it came back too early: {line}");
            Ok(line)
        })?;
    }
    machine.expect("@@start version=1.1.0")?;
    machine.expect("\"did\":\"reverted\"")?;
    machine.expect("@@ready slot=b version=1.1.0")?;
    let refused = machine.run(&format!("agent apply --version {panics} /data/{panics}.tar"))?;
    ensure!(refused.1.contains("failed_before"), "not tried again: {refused:?}");
    let all = machine.age();
    drop(machine.cut());
    let record = (loader.record)(world, dir, disk)?;
    ensure!(record == loader.expected, "its record is {record:?}");
    let verified = Cmd::new("sgdisk").arg("-v").arg(&disk.path).read()?;
    ensure!(verified.contains("No problems found"), "sgdisk -v: {verified}");
    Ok(format!("6 boots in {:.0} s, the first in {:.0} s", all.as_secs_f64(), first.as_secs_f64()))
}

/// What the shipped scripts say before they boot a slot.
const CHOSEN: &[(&str, &str)] = &[("kernel", "racklet: slot A, confirmed")];

/// Power that fails at random moments of a boot changes nothing in the record of a confirmed slot.
fn power_cycles(
    world: &World,
    dir: &Path,
    loader: &Loader,
    marks: &[(&'static str, &'static str)],
) -> Result<String> {
    let Loader { boot, disk: node, files, .. } = *loader;
    let disk = world.disk(dir, &Setup { disk: node, boot, files, ..Setup::default() })?;
    (loader.install)(world, dir, &disk)?;
    let boots = Cell::new(0);
    let start = || {
        boots.set(boots.get() + 1);
        let arguments = (loader.hardware)(world, dir)?;
        let log = dir.join(format!("serial-{}.log", boots.get()));
        Hardware { tools: &world.tools, arguments, memory: 512, life: world.life(120), log }.start()
    };
    let record = || (loader.record)(world, dir, &disk).map(String::into_bytes);
    let marks = [&[("boot loader", "")], marks, &[("slot", "@@start version=1.0.0")]].concat();
    let ready = "@@ready slot=a version=1.0.0";
    power::cycles(&Subject { start: &start, record: &record, marks: &marks, ready }, world.cuts)
}

fn update(machine: &mut Machine, version: &str) -> Result<()> {
    let said = machine.ok(&format!(
        "agent apply --json --version {version} /data/{version}.tar 2>/run/progress"
    ))?;
    ensure!(said.contains("\"activated\":true"), "apply of {version} said {said}");
    machine.send("reboot-now")
}

/// Runs one of the mtools on the ESP inside the disk.
fn esp(world: &World, disk: &Disk, tool: &str, arguments: &[&str]) -> Result<String> {
    let image = format!("{}@@{}", disk.path.display(), offset("esp")?);
    world
        .tools
        .program(&format!("usr/bin/{tool}"))
        .env("MTOOLS_SKIP_CHECK", "1")
        .args(["-i", &image])
        .args(arguments)
        .read()
}

/// Makes the ESP with these files, written into `dir` first where they are texts.
pub(super) fn make_esp(
    world: &World,
    dir: &Path,
    disk: &Disk,
    files: &[(&str, PathBuf)],
) -> Result<()> {
    let fat = dir.join("esp.img");
    fs::File::create(&fat)?.set_len(48 << 20)?;
    world.tools.program("sbin/mkfs.vfat").args(["-F", "32", "-n", "ESP"]).arg(&fat).run()?;
    disk.put("esp", &fat)?;
    fs::remove_file(&fat)?;
    let mut made = Vec::new();
    for (path, from) in files {
        let mut folder = String::from("::");
        for part in path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            folder = format!("{folder}/{part}");
            if !made.contains(&folder) {
                esp(world, disk, "mmd", &[&folder])?;
                made.push(folder.clone());
            }
        }
        let to = format!("::/{path}");
        esp(world, disk, "mcopy", &["-o", &from.display().to_string(), &to])
            .with_context(|| format!("copy {path} to the ESP"))?;
    }
    Ok(())
}

/// A text as a file of the cell's folder.
pub(super) fn text(dir: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let file = dir.join(name);
    fs::write(&file, content)?;
    Ok(file)
}

fn install_systemd_boot(world: &World, dir: &Path, disk: &Disk) -> Result<()> {
    let entry = |slot: &str| {
        format!(
            "title slot {slot}\nsort-key racklet\nlinux /racklet/vmlinuz\n\
             options {} init=/init root=PARTLABEL=root-{slot} ro \
             racklet.slot={slot}\n",
            world.tools.platform.kernel
        )
    };
    let (a, b) = (text(dir, "a.conf", &entry("a"))?, text(dir, "b.conf", &entry("b"))?);
    let efi = world.tools.platform.efi;
    let program = world.tools.file(&format!("usr/lib/systemd/boot/efi/systemd-boot{efi}.efi"));
    let fallback = format!("EFI/BOOT/BOOT{}.EFI", efi.to_uppercase());
    let files = [
        (fallback.as_str(), program),
        ("loader/loader.conf", text(dir, "loader.conf", "timeout 0\n")?),
        ("loader/entries/racklet-1-a.conf", a.clone()),
        ("loader/racklet/a.conf", a),
        ("loader/racklet/b.conf", b),
        ("racklet/vmlinuz", world.tools.kernel(true)?),
    ];
    make_esp(world, dir, disk, &files)
}

fn install_grub(world: &World, dir: &Path, disk: &Disk) -> Result<()> {
    let boot = |slot: &str, number: u32| {
        format!(
            "function racklet_boot_{slot} {{\n\
             linux (hd0,gpt{number})/boot/vmlinuz {KERNEL} $racklet_args\n\
             initrd (hd0,gpt{number})/boot/initrd.img\nboot\n}}\n"
        )
    };
    let config = format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\n{}{}source $prefix/racklet.cfg\n",
        boot("a", 2),
        boot("b", 3)
    );
    let script = include_str!("../../../update-agent/boot/grub/racklet.cfg");
    let files = [
        ("EFI/BOOT/BOOTX64.EFI", grub_program(world, dir)?),
        ("grub/grub.cfg", text(dir, "grub.cfg", &config)?),
        ("grub/racklet.cfg", text(dir, "racklet.cfg", script)?),
        ("grub/grubenv", grub_env(dir)?),
    ];
    make_esp(world, dir, disk, &files)
}

/// GRUB as a program for the ESP.
pub(super) fn grub_program(world: &World, dir: &Path) -> Result<PathBuf> {
    let program = dir.join("BOOTX64.EFI");
    let modules = [
        "part_gpt",
        "fat",
        "ext2",
        "normal",
        "linux",
        "loadenv",
        "test",
        "echo",
        "sleep",
        "reboot",
        "serial",
        "terminal",
        "boot",
        "configfile",
    ];
    Cmd::new("grub-mkimage")
        .args(["-O", "x86_64-efi", "-p", "(hd0,gpt1)/grub", "-o"])
        .arg(&program)
        .arg("-d")
        .arg(world.tools.file("usr/lib/grub/x86_64-efi"))
        .args(modules)
        .run()?;
    Ok(program)
}

/// An environment block with slot a confirmed.
pub(super) fn grub_env(dir: &Path) -> Result<PathBuf> {
    let env = dir.join("grubenv.new");
    Cmd::new("grub-editenv").arg(&env).arg("create").run()?;
    let factory = ["BOOT_ORDER=A", "BOOT_A_LEFT=9999999", "BOOT_B_LEFT=0"];
    Cmd::new("grub-editenv").arg(&env).arg("set").args(factory).run()?;
    Ok(env)
}

/// What the scripts for U-Boot have to know of a board.
struct Board {
    /// The processor, as mkimage names it.
    processor: &'static str,
    /// The interface of the disk, as U-Boot names it.
    interface: &'static str,
    /// Further words for the kernel.
    words: &'static str,
    /// `racklet_ram` of `redundant.cmd`.
    ram: &'static str,
    /// Where kernel and initrd are loaded to.
    load: [&'static str; 2],
    /// Starts them.
    start: &'static str,
}

/// Without nokaslr this kernel, started by this U-Boot, may unpack itself over the initrd.
const PC_BOARD: Board = Board {
    processor: "x86",
    interface: "scsi",
    words: " nokaslr",
    ram: "60",
    load: ["0x2000000", "0x8000000"],
    start: "zboot 0x2000000 ${racklet_size} 0x8000000 ${filesize}",
};

/// Its memory begins at 1 GiB, with the device tree.
const ARM_BOARD: Board = Board {
    processor: "arm64",
    interface: "virtio",
    words: "",
    ram: "480",
    load: ["0x40400000", "0x44000000"],
    start: "booti 0x40400000 0x44000000:${filesize} ${fdt_addr}",
};

fn install_uboot(world: &World, dir: &Path, disk: &Disk, board: &Board) -> Result<()> {
    let Board { processor, interface, words, ram, load: [kernel, initrd], start } = *board;
    let boot = |slot: &str, number: u32| {
        format!(
            "setenv racklet_boot_{slot} 'ext4load {interface} 0:{number} {kernel} /boot/vmlinuz && \
             setenv racklet_size ${{filesize}} && \
             ext4load {interface} 0:{number} {initrd} /boot/initrd.img && {start}'\n"
        )
    };
    let told = world.tools.platform.kernel;
    let mut lines = format!(
        "setenv racklet_ram {ram}\nsetenv bootargs '{told}{words}'\n{}{}",
        boot("a", 2),
        boot("b", 3)
    );
    for (copy, memory) in [(1, "00000"), (2, "10000")] {
        let sector = copy_at(copy)? / 512;
        lines += &format!(
            "setenv racklet_read_{copy} '{interface} read 0x{ram}{memory} 0x{sector:x} 0x20'\n\
             setenv racklet_write_{copy} '{interface} write 0x{ram}20000 0x{sector:x} 0x20'\n"
        );
    }
    let source = lines
        + include_str!("../../../update-agent/boot/uboot/redundant.cmd")
        + include_str!("../../../update-agent/boot/uboot/boot.cmd");
    let source = text(dir, "boot.cmd", &source)?;
    let script = dir.join("boot.scr");
    world
        .tools
        .program("usr/bin/mkimage")
        .args(["-A", processor, "-T", "script", "-C", "none", "-d"])
        .arg(&source)
        .arg(&script)
        .run()?;
    make_esp(world, dir, disk, &[("boot.scr", script)])?;
    let file = disk.path.display();
    let place = format!("{file} 0x{:x} 0x4000\n{file} 0x{:x} 0x4000\n", copy_at(1)?, copy_at(2)?);
    let place = text(dir, "fw_env.config", &place)?;
    let factory = "BOOT_ORDER=A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT=0\n";
    let factory = text(dir, "factory.env", factory)?;
    // Twice: one copy each.
    for _ in 0..2 {
        Cmd::new("fw_setenv")
            .arg("-c")
            .arg(&place)
            .arg("-f")
            .arg(&factory)
            .arg("-s")
            .arg(&factory)
            .run()?;
    }
    Ok(())
}

/// Where a copy of U-Boot's environment begins on the disk.
fn copy_at(copy: u32) -> Result<u64> {
    Ok(offset("env")? + u64::from(copy - 1) * 0x80000)
}

/// The copy of U-Boot's environment that counts is torn after an update was made next: U-Boot and the
/// agent take the other one, which knows nothing of the update, and the next update mends it.
fn uboot_torn(world: &World, dir: &Path) -> Result<String> {
    let setup = Setup {
        disk: UBOOT.disk,
        boot: UBOOT.boot,
        bundles: &["1.1.0"],
        files: UBOOT.files,
        ..Setup::default()
    };
    let disk = world.disk(dir, &setup)?;
    install_uboot(world, dir, &disk, &PC_BOARD)?;
    let start = |log: &str| {
        Hardware {
            tools: &world.tools,
            arguments: (UBOOT.hardware)(world, dir)?,
            memory: 512,
            life: world.life(240),
            log: dir.join(log),
        }
        .start()
    };
    let record = || (UBOOT.record)(world, dir, &disk);
    let mut machine = start("serial-1.log")?;
    machine.expect("@@ready slot=a version=1.0.0")?;
    let apply = "agent apply --json --version 1.1.0 /data/1.1.0.tar 2>/run/progress";
    machine.ok(apply)?;
    drop(machine.cut());
    let made_next = record()?;
    ensure!(made_next.starts_with("BOOT_ORDER=B A"), "slot b is next: {made_next}");
    // What is torn is in the copy that counts: half of it is from before.
    let content = disk.content("env")?;
    let (first, second) = (&content[..0x4000], &content[0x80000..0x84000]);
    let counts = match (first[4], second[4]) {
        (0xff, 0) => 2,
        (0, 0xff) => 1,
        (first, second) if second > first => 2,
        _ => 1,
    };
    let at = copy_at(counts)? - offset("env")?;
    for byte in [40, 41] {
        disk.flip("env", at + byte)?;
    }
    let before = record()?;
    ensure!(before.starts_with("BOOT_ORDER=A\n"), "fw_printenv takes the older copy: {before}");
    let mut machine = start("serial-2.log")?;
    machine.expect(&format!("racklet: copy {counts} of the environment is not whole"))?;
    machine.expect("racklet: slot A, confirmed, 0 tries left")?;
    machine.expect("@@ready slot=a version=1.0.0")?;
    let doctor = machine.run("agent doctor")?.1;
    ensure!(doctor.contains("is not whole"), "doctor says so: {doctor}");
    machine.ok(apply)?;
    machine.send("reboot-now")?;
    machine.expect("racklet: slot B, trial, 1 tries left")?;
    machine.expect("\"did\":\"confirmed\"")?;
    machine.expect("@@ready slot=b version=1.1.0")?;
    let all = machine.age();
    drop(machine.cut());
    let record = record()?;
    ensure!(record.contains("BOOT_B_LEFT=9999999"), "both copies are whole again: {record}");
    Ok(format!("copy {counts} torn, booted by the other one, mended, {:.0} s", all.as_secs_f64()))
}

/// UEFI with variables of its own, the disk on NVMe.
pub(super) fn uefi(world: &World, dir: &Path) -> Result<Vec<String>> {
    let mut words = platform::uefi(&world.tools, &dir.join("vars.fd"))?;
    let disk = format!("{DISK}{}", dir.join("disk.img").display());
    words.extend(["-drive", &disk, "-device", "nvme,drive=d0,serial=d0"].map(str::to_owned));
    Ok(words)
}
