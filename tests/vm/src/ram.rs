//! A system that runs from RAM: Alpine's kernel, and an initramfs that is all of its system, on A/B slots that are
//! files on the ESP. `ram-image` makes it, `signer factory` the disk by the profile that is shipped.
//!
//! ```text
//!  a 1.0.0  factory ─► / is memory; polls without news write nothing to the disk
//!           ─► apply 1.1.0 in mode auto ─► reboot
//!  b 1.1.0  trial ─► confirmed ─► apply 1.2.0, whose health check fails
//!  a 1.2.0  trial ─► unhealthy until the deadline ─► restart; no try is left
//!  b 1.1.0  reverted, and says why
//! ```

mod alpine;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::paths;
use racklet_tools::rig::{Rig, Server};
use serde_json::Value;

use super::Cell;
use super::machine::{DISK, Hardware, Machine};
use super::platform::uefi;
use super::units::{after, status};
use super::world::{HARDWARE, KERNEL, PRODUCT, World};

pub(super) const CELLS: &[Cell] = &[Cell::new(
    "ram-system",
    "Alpine 3.23: Linux 6.18, OpenRC 0.63, BusyBox; OVMF, systemd-boot, sgdisk, cmp",
    story,
)];

/// Where the guest sees the server.
const SEEN: &str = "10.0.2.100";
const PORT: u16 = 5443;
/// Seconds between two polls.
const INTERVAL: u64 = 5;
/// Where the daemon leaves its metrics: in memory.
const METRICS: &str = "/run/update-agent.prom";
const POLLED: &str = "update_agent_last_success_timestamp_seconds";
/// Seconds in which they are watched.
const WATCHED: u64 = 60;

fn story(world: &World, dir: &Path) -> Result<String> {
    let site = Site::new(world, dir)?;
    site.publish("1.0.0", true)?;
    site.disk()?;
    let started = Instant::now();
    let mut machine = site.power_on(1)?;
    machine.expect("@@shell slot=a version=1.0.0")?;
    let booted = machine.age();
    in_memory(&mut machine)?;
    let known = status(&mut machine)?;
    let slot = &known["slots"]["a"];
    ensure!(known["runs"] == "1.0.0" && slot["confirmed"] == true, "it does not know {known:#}");
    let (_, doctor) = machine.run("update-agent doctor")?;
    let bad: Vec<&str> = doctor.lines().filter(|line| line.contains("BAD ")).collect();
    ensure!(bad.is_empty(), "the doctor finds {bad:?}");
    let written = polls(&mut machine)?;

    site.publish("1.1.0", true)?;
    let mut machine = site.restarted(machine, 2)?;
    machine.expect("@@shell slot=b version=1.1.0")?;
    after(&mut machine, 0, "slot b is confirmed")?;
    in_memory(&mut machine)?;

    site.publish("1.2.0", false)?;
    let mut machine = site.restarted(machine, 3)?;
    machine.expect("@@shell slot=a version=1.2.0")?;
    let mut machine = site.restarted(machine, 4)?;
    machine.expect("@@shell slot=b version=1.1.0")?;
    let reverted = after(&mut machine, 0, "slot a was given up")?;
    let known = status(&mut machine)?;
    let failure = &known["failures"][0];
    ensure!(known["runs"] == "1.1.0" && known["next"] == "b", "after the revert: {known:#}");
    let failed = failure["release"]["version"] == "1.2.0" && failure["reason"] == "unhealthy";
    ensure!(failed, "of what failed it knows {known:#}; it said {reverted}");
    drop(machine.cut());
    site.judge()?;
    site.server.stop()?;
    Ok(format!(
        "4 boots in {:.0} s, the first in {:.0} s; / in memory; {written} sectors written in {} polls without news",
        started.elapsed().as_secs_f64(),
        booted.as_secs_f64(),
        WATCHED / INTERVAL
    ))
}

/// `/` is what the kernel unpacked into memory, and of the disk nothing is mounted but the ESP and the data.
fn in_memory(machine: &mut Machine) -> Result<()> {
    let root = machine.ok("stat -f -c %T /")?;
    ensure!(root.lines().any(|line| line == "tmpfs"), "/ is on {root}");
    machine.ok("grep -q '^rootfs / rootfs ' /proc/mounts")?;
    machine.ok("test \"$(stat -c %a:%u /)\" = 755:0")?;
    let mounted =
        machine.ok("sed -n 's,^/dev/[^ ]* \\([^ ]*\\) .*,at \\1,p' /proc/mounts | sort")?;
    let points: Vec<&str> = mounted.lines().filter_map(|line| line.strip_prefix("at ")).collect();
    ensure!(points == ["/data", "/efi"], "of the disk it has mounted {points:?}");
    let told = machine.ok("cat /proc/cmdline")?;
    ensure!(!told.contains("root="), "its kernel is told {told}");
    Ok(())
}

/// Sectors of 512 bytes that are written to the disk while the agent polls and nothing is new.
fn polls(machine: &mut Machine) -> Result<u64> {
    // What the boot itself has written is on the disk after that.
    machine.ok("sleep 45; sync; sleep 5")?;
    let (before, polled) = (written(machine)?, last_poll(machine)?);
    machine.ok(&format!("sleep {WATCHED}; sync"))?;
    let (after, again) = (written(machine)?, last_poll(machine)?);
    let least = (WATCHED - 2 * INTERVAL) as f64;
    ensure!(after == before, "{} sectors are written by polls without news", after - before);
    ensure!(again - polled >= least, "its last poll was at {polled}, a minute later at {again}");
    Ok(after - before)
}

/// Of `Documentation/block/stat.rst` the seventh: sectors written.
fn written(machine: &mut Machine) -> Result<u64> {
    let said = machine.ok("echo stat $(cat /sys/block/vda/stat)")?;
    let line = said.lines().find_map(|line| line.strip_prefix("stat ")).context("stat")?;
    line.split_whitespace().nth(6).context("sectors")?.parse().context("sectors")
}

/// When a repository has answered, Unix seconds, by the daemon's own word: its state keeps it hourly.
fn last_poll(machine: &mut Machine) -> Result<f64> {
    let said = machine.ok(&format!("grep ^{POLLED} {METRICS}"))?;
    let line = said.lines().find_map(|line| line.strip_prefix(POLLED)).context("its metrics")?;
    line.split_whitespace().next_back().context("a time")?.parse().context("a time")
}

/// The maintainer's folder, with a repository behind a server.
struct Site<'a> {
    world: &'a World,
    dir: &'a Path,
    server: Server,
    tree: PathBuf,
}

impl<'a> Site<'a> {
    fn new(world: &'a World, dir: &'a Path) -> Result<Self> {
        ensure!(paths::is_root(), "ram-image keeps owners of files: run it as root");
        let tree = alpine::tree(world)?;
        let rig = Rig::at(dir, world.server_dir());
        rig.credentials_for(&["127.0.0.1", SEEN])?;
        fs::create_dir(dir.join("repository"))?;
        let site = Site { world, dir, server: rig.serve()?, tree };
        site.signer(&["init"]).run()?;
        fs::create_dir(dir.join("etc"))?;
        for (name, from) in [("root.json", "keys/root.json"), ("ca.pem", "ca.pem")] {
            fs::copy(dir.join(from), dir.join("etc").join(name))?;
        }
        fs::write(dir.join("etc/update-agent.toml"), configuration(world))?;
        for (name, text) in [
            ("hook", include_str!("guest/ram-hook.sh")),
            ("ram-shell.sh", include_str!("guest/ram-shell.sh")),
        ] {
            fs::write(dir.join(name), text)?;
            Cmd::new("chmod").arg("755").arg(dir.join(name)).run()?;
        }
        Ok(site)
    }

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

    /// Makes a system and publishes it; one that does not work fails its own health check.
    fn publish(&self, version: &str, works: bool) -> Result<()> {
        if !works {
            fs::write(self.dir.join("broken"), "")?;
        }
        let made = self.dir.join(version);
        Cmd::new(paths::root().join("signer/images/ram-image"))
            .arg("--tree")
            .arg(&self.tree)
            .arg("--etc")
            .arg(self.dir.join("etc"))
            .arg("--agent")
            .arg(self.world.agent_file())
            .arg("--hook")
            .arg(self.dir.join("hook"))
            .args(["--version", version, "-o"])
            .arg(&made)
            .run()?;
        let component = |name: &str, file: &str| {
            let file = made.join(file);
            ["--component".to_owned(), format!("{name}={},hw={HARDWARE}", file.display())]
        };
        let publish =
            ["publish", "--product", PRODUCT, "--version", version, "--channel", "stable"];
        self.signer(&publish)
            .args(component("kernel", "vmlinuz"))
            .args(component("initrd", "initrd.img"))
            .args(["--raw", "initrd=the kernel unpacks it"])
            .run()
            .map(drop)
    }

    /// The disk of the first release, by the profile that is shipped.
    fn disk(&self) -> Result<()> {
        let loader = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
        let unpacked = self.world.tools.file(loader).display().to_string();
        let edits = [
            (format!("/{loader}"), unpacked),
            ("console=tty0 console=ttyS0 quiet".to_owned(), KERNEL.to_owned()),
        ];
        let mut board = fs::read_to_string(paths::root().join("signer/boards/ram-uefi.toml"))?;
        for (from, to) in edits {
            ensure!(board.matches(&from).count() == 1, "the profile says {from:?} not just once");
            board = board.replace(&from, &to);
        }
        fs::write(self.dir.join("board.toml"), board)?;
        let said = self
            .signer(&["factory", "--json", "--version", "1.0.0"])
            .arg("--config")
            .arg(self.dir.join("etc/update-agent.toml"))
            .arg("--board")
            .arg(self.dir.join("board.toml"))
            .arg("-o")
            .arg(self.dir.join("disk.img"))
            .read()?;
        let line = said.lines().find(|line| line.starts_with('{')).context("the report")?;
        let report: Value = serde_json::from_str(line).context("the report")?;
        let notes = &report["notes"];
        ensure!(notes.as_array().is_some_and(Vec::is_empty), "the factory notes {notes}");
        Ok(())
    }

    /// The next boot. The firmware unpacks itself in seconds when it is switched on, and in minutes when this kernel has
    /// reset the emulated machine: so a reset ends QEMU, which is started again.
    fn restarted(&self, mut machine: Machine, boot: u32) -> Result<Machine> {
        machine.ended()?;
        // It gives back its leave for the next one.
        drop(machine);
        self.power_on(boot)
    }

    fn power_on(&self, boot: u32) -> Result<Machine> {
        let port = self.server.address.rsplit(':').next().unwrap_or_default();
        let forward = format!(
            "user,id=n,restrict=on,guestfwd=tcp:{SEEN}:{PORT}-cmd:{} nc 127.0.0.1 {port}",
            self.world.tools.file("bin/busybox").display()
        );
        let mut arguments = uefi(&self.world.tools, &self.dir.join("vars.fd"))?;
        let disk = format!("{DISK}{}", self.dir.join("disk.img").display());
        let network = "virtio-net-pci,netdev=n,romfile=";
        let words = ["-drive", &disk, "-device", "virtio-blk-pci,drive=d0", "-netdev", &forward];
        let words = words.into_iter().chain(["-device", network, "-no-reboot"]);
        arguments.extend(words.map(str::to_owned));
        let (tools, life) = (&self.world.tools, self.world.life(900));
        let log = self.dir.join(format!("serial-{boot}.log"));
        Hardware { tools, arguments, memory: 512, life, log }.start()
    }

    /// What other people's tools find on the disk of a node that has updated itself.
    fn judge(&self) -> Result<()> {
        let disk = self.dir.join("disk.img");
        let verified = Cmd::new("sgdisk").arg("-v").arg(&disk).read()?;
        ensure!(verified.contains("No problems found"), "sgdisk -v: {verified}");
        // The ESP begins after the first MiB. Slot b was zeros before the update.
        let esp = format!("{}@@1M", disk.display());
        for file in ["vmlinuz", "initrd.img"] {
            let copied = self.dir.join(format!("b-{file}.img"));
            self.world
                .tools
                .program("usr/bin/mcopy")
                .env("MTOOLS_SKIP_CHECK", "1")
                .args(["-n", "-i", &esp, &format!("::/racklet/b/{file}")])
                .arg(&copied)
                .run()?;
            let own = self.dir.join("1.1.0").join(file);
            let len = fs::metadata(&own)?.len().to_string();
            Cmd::new("cmp").args(["-n", &len]).arg(own).arg(copied).run()?;
        }
        Ok(())
    }
}

/// What `docs/ram-system.md` has, with the names of this place and less patience.
fn configuration(world: &World) -> String {
    let deadline = world.life(30).as_secs();
    format!(
        "state_dir = \"/data/update-agent\"\n\
         [node]\nproduct = {PRODUCT:?}\nhardware = [{HARDWARE:?}]\nid = \"ram\"\n\
         [trust]\nroot = \"root.json\"\n\
         [[source]]\nurl = \"docker://{SEEN}:{PORT}/racklet\"\nca = \"ca.pem\"\n\
         [boot]\nbackend = \"systemd-boot\"\ndisk = \"/dev/vda\"\ncomponent = \"initrd\"\ntries = 1\n\
         reboot_command = [\"reboot\"]\nforced_reboot_command = [\"reboot\", \"-f\"]\n\
         [slots.a]\nkernel = {{ device = \"/efi/racklet/a/vmlinuz\" }}\n\
         initrd = {{ device = \"/efi/racklet/a/initrd.img\" }}\n\
         [slots.b]\nkernel = {{ device = \"/efi/racklet/b/vmlinuz\" }}\n\
         initrd = {{ device = \"/efi/racklet/b/initrd.img\" }}\n\
         [health]\ndeadline = \"{deadline}s\"\ninterval = \"1s\"\npasses = 2\n\
         [[health.check]]\nname = \"own\"\ncommand = [\"test\", \"-e\", \"/etc/works\"]\n\
         [policy]\nmode = \"auto\"\ninterval = \"{INTERVAL}s\"\n[metrics]\ntextfile = {METRICS:?}\n"
    )
}
