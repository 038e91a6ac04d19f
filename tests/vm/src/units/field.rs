//! What happens to devices in the field, on a machine that systemd runs.
//!
//! ```text
//!  a 1.0.0  factory ─► apply 1.1.0 ─► kexec instead of a restart through the loader
//!  a 1.0.0  again: 1.1.0 is still next, and nothing has failed ─► the daemon restarts
//!  b 1.1.0  trial ─► confirmed ─► apply 1.2.0 ─► held: the flags go back ─► offered again
//!  a 1.2.0  trial ─► a check hangs; the restart at the deadline is refused twice, then forced
//!  b 1.1.0  reverted ─► 1.3.0
//!  a 1.3.0  trial ─► healthy, but the flags cannot be written ─► restart at the deadline
//!  b 1.1.0  reverted
//! ```

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::image::Fault;
use super::{Backend, Board, SYSTEMD_BOOT, Site, adopted, after, site, status};
use crate::machine::Machine;
use crate::world::{PRODUCT, World};

pub(super) fn story(world: &World, dir: &Path) -> Result<String> {
    let site = site(world, dir, &Backend { kexec: true, ..SYSTEMD_BOOT })?;
    let started = Instant::now();
    let board = Board { world, dir, server: &site.server, selected: false };
    let mut machine = board.power_on()?;
    machine.expect("@@shell slot=a version=1.0.0")?;
    adopted(&mut machine)?;

    site.publish("1.1.0", Fault::None)?;
    around_the_loader(&mut machine)?;
    site.publish("1.2.0", Fault::Hangs)?;
    held_while_next(&mut machine, &site)?;
    let refused = refused_restart(&mut machine)?;
    site.publish("1.3.0", Fault::ReadOnlyFlags)?;
    read_only_flags(&mut machine)?;
    drop(machine.cut());
    site.server.stop()?;
    Ok(format!("{:.0} s; a restart was refused {refused} times", started.elapsed().as_secs_f64()))
}

/// A boot that the loader did not choose is no failure of the release, which boots next.
fn around_the_loader(machine: &mut Machine) -> Result<()> {
    machine.ok("systemctl stop update-agent.service")?;
    machine.ok("update-agent apply")?;
    machine.ok("kexec -s -l /boot/vmlinuz --reuse-cmdline")?;
    machine.send("systemctl kexec")?;
    machine.expect("@@shell slot=a version=1.0.0")?;
    machine.expect("restarting: systemctl reboot")?;
    machine.expect("@@shell slot=b version=1.1.0")?;
    since_boot(machine, "slot b is confirmed")?;
    let status = status(machine)?;
    let failures = status["failures"].as_array().map(Vec::len);
    ensure!(failures == Some(0), "kexec is no failure of a release: {status:#}");
    ensure!(status["runs"] == "1.1.0", "it runs {status:#}");
    Ok(())
}

/// A release that is held while it is next does not boot; when it is offered again, it does.
fn held_while_next(machine: &mut Machine, site: &Site<'_>) -> Result<()> {
    let hold = ["channel", "hold", "--product", PRODUCT, "--channel", "stable"];
    machine.ok("systemctl stop update-agent.service")?;
    machine.ok("update-agent apply")?;
    ensure!(status(machine)?["next"] == "a", "1.2.0 is not next");
    site.signer(&hold).run()?;
    machine.ok("update-agent run --once")?;
    let held = status(machine)?;
    ensure!(held["next"] == "b", "1.2.0 is held, and still next: {held:#}");
    let told = machine.ok("update-agent status")?;
    ensure!(told.contains("held"), "its operator does not read why: {told}");
    site.signer(&hold).arg("--off").run()?;
    machine.send("systemctl start update-agent.service")?;
    machine.expect("restarting: systemctl reboot")?;
    machine.expect("@@shell slot=a version=1.2.0").map(drop)
}

/// How often systemd refused to restart a trial that had failed.
fn refused_restart(machine: &mut Machine) -> Result<usize> {
    let from = machine.said.len();
    machine.expect("@@shell slot=b version=1.1.0")?;
    let trial = machine.said.get(from..).unwrap_or_default();
    let refused = trial.iter().filter(|line| line.contains("boot.reboot_command `")).count();
    ensure!(refused >= 2, "the restart was refused {refused} times");
    let why = since_boot(machine, "slot a was given up")?;
    ensure!(why.contains("web"), "it says why: {why}");
    Ok(refused)
}

/// A trial that cannot be confirmed ends by its deadline, and its reason is read afterwards.
fn read_only_flags(machine: &mut Machine) -> Result<()> {
    machine.send("systemctl restart update-agent.service")?;
    machine.expect("@@shell slot=a version=1.3.0")?;
    machine.expect("@@shell slot=b version=1.1.0")?;
    let why = since_boot(machine, "slot a was given up")?;
    ensure!(!why.is_empty(), "it says why");
    let status = status(machine)?;
    ensure!(status["runs"] == "1.1.0" && status["next"] == "b", "it runs {status:#}");
    Ok(())
}

/// A line of this boot, which has come, or comes.
fn since_boot(machine: &mut Machine, marker: &str) -> Result<String> {
    let booted = machine.said.iter().rposition(|line| line.contains("Linux version "));
    after(machine, booted.unwrap_or_default(), marker)
}
