//! `docs/first-disk.md`, from an empty directory to a Debian that updates itself, and whose package is purged at last:
//! the commands of the page, run as they are printed, with our packages.
//!
//! What differs from a reader's machine: packages are unpacked instead of installed, ports are free ones, the board
//! profile names systemd-boot where it was unpacked, and a hook gives the harness a shell in the guest. For ARMv8, what
//! the page says to change is changed.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::cross::Processor;
use racklet_tools::{paths, setup};

use super::{after, status};
use crate::machine::Machine;
use crate::world::World;

const PAGE: &str = "docs/first-disk.md";
const SECTION: &str = "## Debian from an empty directory";
/// Where the packages put what the page names.
const SHARED: &str = "/usr/share/racklet-signer";
/// How the name of the agent's package begins.
const AGENT: &str = "racklet-update-agent_";
/// Of the server, on the page.
const PORT: &str = "5443";

/// The machine whose disk is made.
struct Kind {
    /// Where its packages are, below the target directory.
    packages: &'static str,
    /// What `debian-image` is told beside what the page says.
    image: &'static str,
    /// What is changed in the board profile.
    board: &'static [(&'static str, &'static str)],
    /// systemd-boot, where its package has it, without the first slash.
    loader: &'static str,
    console: &'static str,
    /// How the command that starts QEMU begins.
    qemu: &'static str,
    firmware: &'static str,
}

/// The page's own.
const PC: Kind = Kind {
    packages: "packages",
    image: "",
    board: &[],
    loader: "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
    console: "ttyS0",
    qemu: "qemu-system-x86_64 ",
    firmware: "usr/share/ovmf/OVMF.fd",
};

/// What the page says of ARMv8.
const ARM: Kind = Kind {
    packages: "packages-aarch64",
    image: "--arch arm64 ",
    board: &[
        ("architecture = \"x86-64\"", "architecture = \"arm64\""),
        ("systemd-bootx64.efi", "systemd-bootaa64.efi"),
        ("ttyS0", "ttyAMA0"),
    ],
    loader: "usr/lib/systemd/boot/efi/systemd-bootaa64.efi",
    console: "ttyAMA0",
    // Without the ROM for a boot by network, which a reader's QEMU has and ours has not.
    qemu: "qemu-system-aarch64 -machine virt -cpu cortex-a72 -global virtio-net-pci.romfile= ",
    firmware: "usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
};

pub(super) fn story(world: &World, dir: &Path) -> Result<String> {
    first_disk(world, dir, &PC)
}

pub(super) fn story_on_arm(world: &World, dir: &Path) -> Result<String> {
    setup::emulation(Processor::Aarch64)?;
    Cmd::cargo().args(["xtask", "package", "--target", "aarch64"]).watch()?;
    let world = world.of_arm(&dir.join("world"))?;
    first_disk(&world, dir, &ARM)
}

fn first_disk(world: &World, dir: &Path, kind: &Kind) -> Result<String> {
    let started = Instant::now();
    setup::first_disk()?;
    let place = Place::new(world, dir, kind)?;
    let page = Page::read()?;
    fs::create_dir(dir.join("etc"))?;
    fs::write(dir.join("etc/update-agent.toml"), place.here(&page.configuration))?;
    let _server = place.server(&page.server)?;
    place.run(&page.disk)?;
    let made = started.elapsed();

    let mut machine = place.power_on(&page.start)?;
    machine.expect("@@shell slot=a version=1.0.0")?;
    let booted = machine.age();
    let known = status(&mut machine)?;
    ensure!(known["runs"] == "1.0.0", "it does not know what runs: {known:#}");
    ensure!(known["slots"]["a"]["confirmed"] == true, "slot a is not confirmed: {known:#}");
    healthy(&mut machine)?;
    let identity = machine.ok("cat /etc/machine-id")?;
    ensure!(identity.trim().len() == 32, "its machine id: {identity:?}");
    let (code, _) = machine.run("test -e /usr/bin/nano")?;
    ensure!(code != 0, "the first release has the editor of the second");

    let from = machine.said.len();
    place.run(&page.next)?;
    after(&mut machine, from, "@@shell slot=b version=1.1.0")?;
    after(&mut machine, from, "slot b is confirmed")?;
    machine.ok("dpkg --verify racklet-update-agent && dpkg-query -W nano")?;
    healthy(&mut machine)?;
    ensure!(machine.ok("cat /etc/machine-id")? == identity, "an update changed the machine id");
    let known = status(&mut machine)?;
    ensure!(known["runs"] == "1.1.0" && known["next"] == "b", "after the update: {known:#}");
    purged(&mut machine)?;
    drop(machine.cut());
    let verified = Cmd::new("sgdisk").arg("-v").arg(dir.join("node.img")).read()?;
    ensure!(verified.contains("No problems found"), "sgdisk -v: {verified}");
    Ok(format!(
        "{} commands, {:.0} s in all; the disk after {:.0} s, its first boot in {:.0} s",
        page.commands,
        started.elapsed().as_secs_f64(),
        made.as_secs_f64(),
        booted.as_secs_f64()
    ))
}

/// No unit has failed: what a new node's owner would look at first.
fn healthy(machine: &mut Machine) -> Result<()> {
    // The journal comes by the same line, and so may an echo of the command.
    let said =
        machine.ok("systemctl list-units --failed --plain --no-legend | sed 's/^/@@failed /'")?;
    let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("@@failed")).collect();
    ensure!(failed.is_empty(), "failed units: {failed:?}");
    Ok(())
}

/// The package goes, as an operator takes it off: the agent ends, its configuration and state are kept and named.
fn purged(machine: &mut Machine) -> Result<()> {
    machine.ok("mount -o remount,rw /")?;
    let said = machine.ok(
        "systemctl disable --now update-agent.service && dpkg --purge racklet-update-agent 2>&1",
    )?;
    for folder in ["/etc/update-agent", "/var/lib/update-agent"] {
        ensure!(said.contains(&format!("rm -r {folder}")), "purge does not name {folder}: {said}");
        machine.ok(&format!("test -d {folder}"))?;
    }
    machine.ok(
        "test ! -e /usr/bin/update-agent && ! dpkg-query -W racklet-update-agent 2>/dev/null",
    )?;
    let left = machine.ok("systemctl list-unit-files --plain --no-legend 'update-agent*' || :")?;
    ensure!(left.trim().is_empty(), "units are left: {left}");
    healthy(machine)
}

/// What the page says to do.
struct Page {
    configuration: String,
    /// Certificates, the server in the background, keys.
    server: String,
    disk: String,
    /// The command that starts QEMU, without what follows it.
    start: String,
    next: String,
    commands: usize,
}

impl Page {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(paths::root().join(PAGE)).context(PAGE)?;
        let (_, section) = text.split_once(SECTION).context("the section")?;
        let section = section.split("\n## ").next().unwrap_or_default();
        let fences = section.split("```").skip(1).step_by(2);
        let blocks: Vec<&str> =
            fences.filter_map(|block| Some(block.split_once('\n')?.1)).collect();
        // The first installs packages; the last makes a file system of another tree.
        let [_, configuration, server, disk, rest, _] = blocks[..] else {
            bail!("{PAGE} has {} blocks in {SECTION:?}, not 6", blocks.len());
        };
        let (start, next) = first_command(rest).context("what follows QEMU")?;
        ensure!(start.starts_with("qemu-system-"), "the last block begins with {start}");
        let commands = [server, disk, rest].map(commands_in);
        Ok(Page {
            configuration: configuration.to_owned(),
            server: server.to_owned(),
            disk: disk.to_owned(),
            start: start.to_owned(),
            next: next.to_owned(),
            commands: commands.iter().sum(),
        })
    }
}

/// A command, whose lines but the last end with a backslash, and what follows it.
fn first_command(block: &str) -> Option<(&str, &str)> {
    let mut lines = block.match_indices('\n').map(|(at, _)| at);
    let end = lines.find(|end| !block[..*end].ends_with('\\'))?;
    Some((&block[..end], &block[end + 1..]))
}

fn commands_in(block: &str) -> usize {
    std::iter::successors(first_command(block), |(_, rest)| first_command(rest)).count()
}

/// The reader's directory and what was installed there.
struct Place<'a> {
    world: &'a World,
    dir: &'a Path,
    kind: &'a Kind,
    installed: PathBuf,
    port: u16,
}

impl<'a> Place<'a> {
    /// Builds our packages for this computer and unpacks those of the signer and the server.
    fn new(world: &'a World, dir: &'a Path, kind: &'a Kind) -> Result<Self> {
        Cmd::cargo().args(["xtask", "package"]).watch()?;
        let installed = dir.join("installed");
        for (name, file) in packages(PC.packages)? {
            if !name.starts_with(AGENT) {
                Cmd::new("dpkg-deb").arg("-x").arg(file).arg(&installed).run()?;
            }
        }
        for (name, file) in packages(kind.packages)? {
            if name.starts_with(AGENT) {
                fs::copy(file, dir.join(name))?;
            }
        }
        let board = installed.join(&SHARED[1..]).join("boards/generic-uefi.toml");
        let mut text = fs::read_to_string(&board).with_context(|| board.display().to_string())?;
        let unpacked = world.tools.file(kind.loader).display().to_string();
        let loader = format!("/{}", kind.loader);
        for (page, ours) in kind.board.iter().chain([&(loader.as_str(), unpacked.as_str())]) {
            ensure!(text.contains(page), "{} has no {page}", board.display());
            text = text.replace(page, ours);
        }
        fs::write(&board, text)?;
        let hook = dir.join("guest");
        fs::write(&hook, include_str!("guest.sh").replace("ttyS0", kind.console))?;
        Cmd::new("chmod").arg("755").arg(&hook).run()?;
        fs::write(dir.join("shell"), include_str!("shell.sh"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Place { world, dir, kind, installed, port })
    }

    /// What the page says, on this machine.
    fn here(&self, text: &str) -> String {
        let shared = self.installed.join(&SHARED[1..]).display().to_string();
        text.replace(PORT, &self.port.to_string())
            .replace(SHARED, &shared)
            .replace("/debian-image ", &format!("/debian-image {}--hook ./guest ", self.kind.image))
    }

    fn path(&self) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{}:{path}:/usr/sbin:/sbin", self.installed.join("usr/bin").display())
    }

    fn run(&self, commands: &str) -> Result<()> {
        let script = self.here(commands);
        let shell = Cmd::new("sh").args(["-exc", &script]).current_dir(self.dir);
        shell.env("PATH", self.path()).run().map(drop)
    }

    /// Runs a block that leaves the server running, which must not hold what this program reads.
    fn server(&self, commands: &str) -> Result<Background> {
        self.run(&format!("exec >server.out 2>&1\n{commands}\necho $! >server.pid"))?;
        let pid = fs::read_to_string(self.dir.join("server.pid"))?;
        Ok(Background { pid: pid.trim().to_owned() })
    }

    /// Starts QEMU, by the page's own command.
    fn power_on(&self, line: &str) -> Result<Machine> {
        let tools = &self.world.tools;
        let libraries = tools.libraries();
        let (program, machine) = self.kind.qemu.split_once(' ').unwrap_or_default();
        let qemu = format!(
            "exec env LD_LIBRARY_PATH={} {} -L {} -L {} {machine}",
            libraries.to_string_lossy(),
            tools.file("usr/bin").join(program).display(),
            tools.file("usr/share/qemu").display(),
            tools.file("usr/share/seabios").display()
        );
        let firmware = tools.file(self.kind.firmware).display().to_string();
        let line = line.replace(PC.qemu, &qemu).replace(&format!("/{}", PC.firmware), &firmware);
        let mut command = Command::new("sh");
        command.args(["-c", &line]).current_dir(self.dir);
        Machine::begin(command, tools, self.world.life(2400), self.dir.join("serial.log"))
    }
}

/// The files of packages in a folder below the target directory, and their names.
fn packages(folder: &str) -> Result<Vec<(String, PathBuf)>> {
    let folder = paths::target().join(folder);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?.flatten();
    let named =
        entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()));
    Ok(named.filter(|(name, _)| name.ends_with(".deb")).collect())
}

/// A program that one of the commands left running.
struct Background {
    pid: String,
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = Cmd::new("kill").arg(&self.pid).finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page promises twelve commands.
    #[test]
    fn the_page_has_the_blocks_that_are_run() {
        let page = Page::read().unwrap();
        assert_eq!(page.commands, 12);
        assert!(page.start.ends_with("if=virtio"), "{}", page.start);
        assert!(page.next.starts_with("/usr/share/"), "{}", page.next);
    }
}
