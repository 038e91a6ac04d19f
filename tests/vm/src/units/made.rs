//! A disk that `signer factory` made, and nobody touched since.
//!
//! ```text
//!  signer factory ─► a 1.0.0, confirmed, its release known ─► first boot: an identity of its own
//!                    ─► apply 1.1.0 in mode auto, mostly from slot a ─► b 1.1.0, confirmed
//! ```

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use serde_json::Value;

use super::image::{Fault, SLOT};
use super::{Backend, Board, GUEST, SYSTEMD_BOOT, Site, VAR, after, site, status};
use crate::machine::Machine;
use crate::world::{KERNEL, World};

/// The machine id that all images share.
const SHARED: &str = "7261636b6c657400000000000000000a";

pub(super) fn story(world: &World, dir: &Path) -> Result<String> {
    let site = site(world, dir, &Backend { made: true, ..SYSTEMD_BOOT })?;
    let report = make(&site)?;
    let started = Instant::now();
    let board = Board { world, dir, server: &site.server, selected: false };
    let mut machine = board.power_on()?;
    machine.expect("@@shell slot=a version=1.0.0")?;
    let booted = machine.age();
    let known = status(&mut machine)?;
    let slot = &known["slots"]["a"];
    ensure!(known["runs"] == "1.0.0" && slot["confirmed"] == true, "it does not know {known:#}");
    ensure!(known["floor"]["security_version"] == 1, "its floor: {known:#}");
    let identity = identity(&mut machine)?;
    ensure!(identity != SHARED, "it has the machine id of all images");

    site.publish("1.1.0", Fault::None)?;
    machine.ok("systemctl restart update-agent.service")?;
    machine.expect("restarting: systemctl reboot")?;
    let from = machine.said.len();
    machine.expect("@@shell slot=b version=1.1.0")?;
    after(&mut machine, from, "slot b is confirmed")?;
    ensure!(self::identity(&mut machine)? == identity, "an update changed the machine id");
    let known = status(&mut machine)?;
    ensure!(known["runs"] == "1.1.0" && known["next"] == "b", "after the update: {known:#}");
    drop(machine.cut());
    judge(&site, &report)?;
    site.server.stop()?;
    Ok(format!(
        "2 boots in {:.0} s, the first in {:.0} s; a new machine id and disk GUID",
        started.elapsed().as_secs_f64(),
        booted.as_secs_f64()
    ))
}

/// Makes the disk; what `signer` reports of it.
fn make(site: &Site<'_>) -> Result<Value> {
    let Site { world, dir, .. } = site;
    let program = world.tools.file("usr/lib/systemd/boot/efi/systemd-bootx64.efi");
    let board = format!(
        "loader = \"systemd-boot\"\narchitecture = \"x86-64\"\n\
         [esp]\nsize = \"64MiB\"\nprogram = {program:?}\n\
         [kernel]\noptions = \"{KERNEL} {GUEST}\"\n\
         [slots]\nos = \"{}MiB\"\nkernel = \"20MiB\"\n[data]\nsize = \"{VAR}MiB\"\n",
        SLOT >> 20
    );
    fs::write(dir.join("board.toml"), board)?;
    let said = site
        .signer(&["factory", "--json", "--version", "1.0.0"])
        .arg("--config")
        .arg(dir.join("update-agent.toml"))
        .arg("--board")
        .arg(dir.join("board.toml"))
        .arg("--data")
        .arg(dir.join("var"))
        .arg("-o")
        .arg(dir.join("disk.img"))
        .read()?;
    let line = said.lines().find(|line| line.starts_with('{')).context("the report")?;
    serde_json::from_str(line).context("the report")
}

/// The machine id, once everything that makes it unique is done.
fn identity(machine: &mut Machine) -> Result<String> {
    let unit = machine.run("systemctl status --no-pager racklet-identity.service")?;
    machine.ok("systemctl is-active racklet-identity.service").context(unit.1)?;
    machine.ok("test ! -e /var/lib/update-agent.first-boot")?;
    let said = machine.ok("cat /etc/machine-id")?;
    let id = said.lines().find(|line| line.len() == 32).context("a machine id")?;
    Ok(id.to_owned())
}

/// What other people's tools find on the disk of a node that has updated itself.
fn judge(site: &Site<'_>, report: &Value) -> Result<()> {
    let disk = site.dir.join("disk.img");
    let verified = Cmd::new("sgdisk").arg("-v").arg(&disk).read()?;
    ensure!(verified.contains("No problems found"), "sgdisk -v: {verified}");
    let shown = Cmd::new("sgdisk").arg("-p").arg(&disk).read()?.to_lowercase();
    let made = report["disk_guid"].as_str().context("the GUID of the disk")?;
    ensure!(!shown.contains(made), "the disk still has the GUID of all disks: {shown}");
    // Slot b's kernel was zeros before the update.
    let parts = report["partitions"].as_array().context("its partitions")?;
    let esp = parts.iter().find(|part| part["label"] == "esp").context("its ESP")?;
    let at = esp["offset"].as_u64().context("an offset")?;
    let copied = site.dir.join("kernel-b");
    site.world
        .tools
        .program("usr/bin/mcopy")
        .env("MTOOLS_SKIP_CHECK", "1")
        .args(["-n", "-i", &format!("{}@@{at}", disk.display()), "::/racklet/b/vmlinuz"])
        .arg(&copied)
        .run()?;
    let kernel = fs::read(site.world.tools.kernel(true)?)?;
    ensure!(fs::read(&copied)?.starts_with(&kernel), "slot b has another kernel on the ESP");
    Ok(())
}
