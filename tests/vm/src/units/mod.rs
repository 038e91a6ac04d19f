//! Our units, as shipped, with our example configuration, as shipped, under a systemd that is the first
//! process of a Debian system.
//!
//! ```text
//!  a 1.0.0  factory ─► poll, apply 1.1.0 in mode auto ─► systemctl reboot
//!  b 1.1.0  trial ─► the example's checks ─► confirmed ─► apply 1.2.0, whose web page is gone
//!  a 1.2.0  trial ─► unhealthy until the deadline ─► restart; no try is left
//!  b 1.1.0  reverted, and says why
//! ```
//! All of it inside the limits of `update-agent.service`; the flags lie on a file system that
//! `ProtectSystem=strict` would make read-only.

mod debian;
mod field;
mod image;
mod made;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::rig::{Rig, Server};
use serde_json::Value;

use super::Cell;
use super::loaders::{grub_env, grub_program, make_esp, text, uefi};
use super::machine::{DISK, Hardware, Machine};
use super::world::{Disk, KERNEL, PRODUCT, World};
use image::Fault;

pub(super) const CELLS: &[Cell] = &[
    Cell::new("units-systemd-boot", "systemd 252, systemd-boot", |world, dir| {
        story(world, dir, &SYSTEMD_BOOT)
    }),
    Cell::new("units-grub-env", "systemd 252, GRUB 2.06", |world, dir| story(world, dir, &GRUB)),
    Cell::new("units-gpt-attributes", "systemd 252, boot-select", |world, dir| {
        story(world, dir, &GPT)
    }),
    Cell::new("units-field", "systemd 252, systemd-boot, kexec", field::story),
    Cell::new("factory-debian", "our packages, mmdebstrap, OVMF, systemd-boot", debian::story),
    Cell::new(
        "arm-factory-debian",
        "our packages, mmdebstrap, EDK II, systemd-boot",
        debian::story_on_arm,
    ),
    Cell::new("factory-systemd-boot", "systemd 252, systemd-boot, sgdisk, fsck.vfat", made::story),
];

/// Where the guest sees the server.
const SEEN: &str = "10.0.2.100";
const PORT: u16 = 5443;
/// The example's hardware.
const HARDWARE: &str = "racklet-cu-v1";
/// MiB of the node's own data.
const VAR: u64 = 128;
/// Label and MiB of the partitions: those of the example, the ESP, and what the node keeps.
const PARTITIONS: [(&str, u64); 6] = [
    ("esp", 48),
    ("root-a", image::SLOT >> 20),
    ("root-b", image::SLOT >> 20),
    ("fw-a", 1),
    ("fw-b", 1),
    ("var", VAR),
];

/// A boot loader and what its record asks of the configuration.
struct Backend {
    /// The line of `[boot]` that names it.
    line: &'static str,
    /// Where the ESP is mounted: the example's default.
    esp: &'static str,
    install: fn(&World, &Path, &Disk) -> Result<()>,
    /// Whether the system has a program to start a kernel without a boot loader.
    kexec: bool,
    /// Whether `signer factory` makes the disk, with kernels as components on the ESP.
    made: bool,
    /// Whether `boot-select` on this computer picks the slot at every start, in place of a loader.
    selected: bool,
}

const SYSTEMD_BOOT: Backend = Backend {
    line: "backend = \"systemd-boot\"",
    esp: "/efi",
    install: install_systemd_boot,
    kexec: false,
    made: false,
    selected: false,
};
const GRUB: Backend = Backend {
    line: "backend = \"grub-env\"",
    esp: "/boot",
    install: install_grub,
    kexec: false,
    made: false,
    selected: false,
};
const GPT: Backend = Backend {
    line: "backend = \"gpt-attributes\"",
    esp: "",
    install: |_, _, disk| {
        let confirmed = ["add", "-i", "2", "-P", "1", "-T", "0", "-S", "1"];
        Cmd::new("cgpt").args(confirmed).arg(&disk.path).run().map(drop)
    },
    kexec: false,
    made: false,
    selected: true,
};

/// Less talk, and a network device whose name is known.
const GUEST: &str = "systemd.show_status=0 net.ifnames=0";

/// What every slot's kernel is told.
fn words(slot: &str) -> String {
    format!("{KERNEL} {GUEST} root=PARTLABEL=root-{slot} ro")
}

fn install_systemd_boot(world: &World, dir: &Path, disk: &Disk) -> Result<()> {
    let entry = |slot: &str| {
        let words = words(slot);
        format!(
            "title slot {slot}\nsort-key racklet\nlinux /racklet/vmlinuz\n\
             options {words} racklet.slot={slot}\n"
        )
    };
    let (a, b) = (text(dir, "a.conf", &entry("a"))?, text(dir, "b.conf", &entry("b"))?);
    let files = [
        ("EFI/BOOT/BOOTX64.EFI", world.tools.file("usr/lib/systemd/boot/efi/systemd-bootx64.efi")),
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
             linux (hd0,gpt{number})/boot/vmlinuz {} $racklet_args\nboot\n}}\n",
            words(slot)
        )
    };
    let config = format!("{}{}source $prefix/racklet.cfg\n", boot("a", 2), boot("b", 3));
    let script = include_str!("../../../../update-agent/boot/grub/racklet.cfg");
    let files = [
        ("EFI/BOOT/BOOTX64.EFI", grub_program(world, dir)?),
        ("grub/grub.cfg", text(dir, "grub.cfg", &config)?),
        ("grub/racklet.cfg", text(dir, "racklet.cfg", script)?),
        ("grub/grubenv", grub_env(dir)?),
    ];
    make_esp(world, dir, disk, &files)
}

/// The repository and its releases.
struct Site<'a> {
    /// Whether the kernel is a component.
    kernels: bool,
    world: &'a World,
    dir: &'a Path,
    server: Server,
    base: PathBuf,
}

impl Site<'_> {
    fn signer(&self, command: &[&str]) -> Cmd {
        Cmd::new(self.world.signer_file())
            .args(command)
            .args(["--repo", &self.server.reference(), "--ca"])
            .arg(self.dir.join("ca.pem"))
            .arg("--token-file")
            .arg(self.dir.join("push-token"))
            .arg("--keys")
            .arg(self.dir.join("keys"))
    }

    /// Makes a release, publishes it, and has the channel offer it; its image.
    fn publish(&self, version: &str, fault: Fault) -> Result<PathBuf> {
        let image = image::release(self.dir, &self.base, version, fault)?;
        let firmware = self.dir.join("firmware");
        fs::write(&firmware, format!("firmware {version}\0").repeat(4096))?;
        let component = |name: &str, file: &Path| {
            ["--component".to_owned(), format!("{name}={},hw={HARDWARE}", file.display())]
        };
        self.signer(&[
            "publish",
            "--product",
            PRODUCT,
            "--version",
            version,
            "--channel",
            "stable",
        ])
        .args(component("os", &image))
        .args(match self.kernels {
            true => component("kernel", &self.world.tools.kernel(true)?),
            false => component("firmware", &firmware),
        })
        .run()?;
        Ok(image)
    }
}

/// A repository with the first release, and a disk that holds it.
fn site<'a>(world: &'a World, dir: &'a Path, backend: &Backend) -> Result<Site<'a>> {
    let rig = Rig::at(dir, world.server_dir());
    rig.credentials_for(&["127.0.0.1", SEEN])?;
    fs::create_dir(dir.join("repository"))?;
    let (server, kernels) = (rig.serve()?, backend.made);
    let mut site = Site { kernels, world, dir, server, base: PathBuf::new() };
    site.signer(&["init"]).run()?;
    let (base, var) = image::base(world, dir, backend)?;
    site.base = base;
    let first = site.publish("1.0.0", Fault::None)?;
    if backend.made {
        return Ok(site);
    }
    let disk = disk(dir, &[("root-a", &first), ("var", &var)])?;
    (backend.install)(world, dir, &disk)?;
    Ok(site)
}

fn story(world: &World, dir: &Path, backend: &Backend) -> Result<String> {
    let site = site(world, dir, backend)?;
    let started = Instant::now();
    let board = Board { world, dir, server: &site.server, selected: backend.selected };
    let mut machine = board.power_on()?;

    machine.expect("@@shell slot=a version=1.0.0")?;
    let booted = machine.age();
    adopted(&mut machine)?;
    site.publish("1.1.0", Fault::None)?;
    machine.send("systemctl start update-agent.service")?;
    machine.expect("restarting: systemctl reboot")?;
    let (mut machine, from) = board.next(machine)?;
    machine.expect("@@shell slot=b version=1.1.0")?;
    let confirmed = after(&mut machine, from, "slot b is confirmed")?;
    left_alone(&mut machine)?;

    site.publish("1.2.0", Fault::NoPage)?;
    machine.send("systemctl restart update-agent.service")?;
    machine.expect("restarting: systemctl reboot")?;
    let (mut machine, from) = board.next(machine)?;
    machine.expect("@@shell slot=a version=1.2.0")?;
    // What is said after the restart was asked for may be lost with the system.
    let failed = after(&mut machine, from, "failing web")?;
    let from = machine.said.len();
    after(&mut machine, from, "restarting: systemctl reboot")?;
    let (mut machine, from) = board.next(machine)?;
    machine.expect("@@shell slot=b version=1.1.0")?;
    let reverted = after(&mut machine, from, "slot a was given up")?;
    ensure!(reverted.contains("answers 404"), "it says why: {reverted}");
    recorded(&mut machine)?;
    drop(machine.cut());
    site.server.stop()?;
    for line in [&confirmed, &failed, &reverted] {
        eprintln!("        {}", line.trim());
    }
    Ok(format!(
        "4 boots in {:.0} s, the first in {:.0} s; confirmed, then reverted: 404",
        started.elapsed().as_secs_f64(),
        booted.as_secs_f64()
    ))
}

/// A disk as it leaves the factory, with these images.
fn disk(dir: &Path, images: &[(&str, &Path)]) -> Result<Disk> {
    let path = dir.join("disk.img");
    let total: u64 = PARTITIONS.iter().map(|(_, len)| len).sum();
    fs::File::create(&path)?.set_len((total + 2) << 20)?;
    let mut sgdisk = Cmd::new("sgdisk").args(["-a", "1", "-o"]);
    let mut at = 1;
    for (number, (label, len)) in (1..).zip(PARTITIONS) {
        sgdisk = sgdisk.args(["-n".to_owned(), format!("{number}:{at}M:+{len}M")]);
        sgdisk = sgdisk.args(["-c".to_owned(), format!("{number}:{label}")]);
        if let Some((_, image)) = images.iter().find(|(name, _)| *name == label) {
            let copy = "dd if=\"$1\" of=\"$2\" bs=1M seek=\"$3\" conv=notrunc,sparse status=none";
            let words = ["-ec", copy, "sh"];
            Cmd::new("sh").args(words).arg(image).arg(&path).arg(at.to_string()).run()?;
        }
        at += len;
    }
    sgdisk.args(["-t", "1:ef00"]).arg(&path).run()?;
    Ok(Disk { path })
}

/// The machine, which is switched on once, or again for every boot.
struct Board<'a> {
    world: &'a World,
    dir: &'a Path,
    server: &'a Server,
    selected: bool,
}

impl Board<'_> {
    fn power_on(&self) -> Result<Machine> {
        let port = self.server.address.rsplit(':').next().unwrap_or_default();
        let forward = format!(
            "user,id=n,restrict=on,guestfwd=tcp:{SEEN}:{PORT}-cmd:{} nc 127.0.0.1 {port}",
            self.world.tools.file("bin/busybox").display()
        );
        let mut arguments =
            if self.selected { self.select()? } else { uefi(self.world, self.dir)? };
        arguments.extend(["-netdev".to_owned(), forward]);
        arguments.extend(["-device", "virtio-net-pci,netdev=n,romfile="].map(str::to_owned));
        let number = fs::read_dir(self.dir)?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("serial"))
            .count();
        let log = self.dir.join(format!("serial-{number}.log"));
        let (tools, life) = (&self.world.tools, self.world.life(600));
        Hardware { tools, arguments, memory: 512, life, log }.start()
    }

    /// The next boot, and how much the machine had said before it.
    fn next(&self, mut machine: Machine) -> Result<(Machine, usize)> {
        if self.selected {
            machine.ended()?;
            // It gives back its leave for the next one.
            drop(machine);
            machine = self.power_on()?;
        }
        let from = machine.said.len();
        Ok((machine, from))
    }

    /// The slot that the flags on the disk choose, with its try spent, as a boot loader starts it.
    fn select(&self) -> Result<Vec<String>> {
        let here = self.dir.join("loader");
        fs::create_dir_all(&here)?;
        let disk = self.dir.join("disk.img");
        let text = format!(
            "state_dir = \"state\"\n[node]\nproduct = {PRODUCT:?}\nhardware = [{HARDWARE:?}]\n\
             [trust]\nroot = \"root.json\"\n[boot]\ndisk = {disk:?}\ncmdline = \"cmdline\"\n\
             boot_id = \"boot_id\"\n[slots.a]\nos = \"root-a\"\n[slots.b]\nos = \"root-b\"\n"
        );
        let config = here.join("agent.toml");
        fs::write(&config, text)?;
        self.world
            .agent()
            .arg("--config")
            .arg(&config)
            .args(["boot-select", "--simulate"])
            .run()?;
        let said = fs::read_to_string(here.join("cmdline"))?;
        let told = format!("{KERNEL} {GUEST} {}", said.trim());
        let kernel = self.world.tools.kernel(true)?.display().to_string();
        let drive = format!("{DISK}{}", disk.display());
        let words = ["-no-reboot", "-kernel", &kernel, "-append", &told, "-drive", &drive];
        let device = ["-device", "nvme,drive=d0,serial=d0"];
        Ok(words.iter().chain(&device).map(|word| (*word).to_owned()).collect())
    }
}

/// What a new owner does: adopts the running system, and asks the doctor inside the unit.
fn adopted(machine: &mut Machine) -> Result<()> {
    machine.ok("systemctl stop update-agent.service")?;
    machine.ok("update-agent confirm --adopt")?;
    let (_, outside) = machine.run("update-agent doctor")?;
    ensure!(outside.contains("update-agent-doctor.service"), "of its limits: {outside}");
    machine.run("systemctl start update-agent-doctor.service")?;
    let inside = journal(machine, "update-agent-doctor.service")?;
    ensure!(inside.contains("judged inside the limits"), "inside: {inside}");
    let bad: Vec<&str> = inside.lines().filter(|line| line.contains("BAD ")).collect();
    ensure!(bad.is_empty(), "the doctor inside the unit finds {bad:?}");
    Ok(())
}

/// A confirmed system is never restarted, whatever becomes of its agent.
fn left_alone(machine: &mut Machine) -> Result<()> {
    machine.ok("systemctl start update-agent-trial-failed.service")?;
    let said = journal(machine, "update-agent-trial-failed.service")?;
    ensure!(said.contains("this boot is no trial: nothing is done"), "it said {said}");
    Ok(())
}

/// Afterwards the node knows what runs, and what does not and why.
fn recorded(machine: &mut Machine) -> Result<()> {
    let status = status(machine)?;
    let (runs, failure) = (&status["slots"]["b"], &status["failures"][0]);
    ensure!(runs["version"] == "1.1.0" && runs["confirmed"] == true, "it runs {status:#}");
    let failed = failure["release"]["version"] == "1.2.0" && failure["reason"] == "unhealthy";
    ensure!(failed, "of what failed it knows {status:#}");
    let history = machine.ok("update-agent history")?;
    ensure!(history.contains("answers 404 Not Found (unhealthy)"), "its history: {history}");
    Ok(())
}

pub(super) fn status(machine: &mut Machine) -> Result<Value> {
    let said = machine.ok("update-agent status --json")?;
    let line = said.lines().find(|line| line.starts_with('{')).context("its status")?;
    serde_json::from_str(line).context("its status")
}

/// What a unit has said in this boot.
fn journal(machine: &mut Machine, unit: &str) -> Result<String> {
    machine.ok(&format!("journalctl --sync; journalctl --no-pager -b -o cat -u {unit}"))
}

/// A line that has come since, or that comes.
pub(super) fn after(machine: &mut Machine, from: usize, marker: &str) -> Result<String> {
    let came = machine.said.iter().skip(from).find(|line| line.contains(marker)).cloned();
    came.map_or_else(|| machine.expect(marker), Ok)
}
