//! The floor in a TPM, and a chooser that looks at it: an old disk put back, a TPM cleared, a TPM gone.
//!
//! The TPM is swtpm, which other people wrote; its state outlives the machines, as that of a real one.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::{Cmd, which};
use tempfile::TempDir;

use super::Cell;
use super::linuxboot::{Board, copy, update};
use super::world::{Setup, World};

pub(super) const CELLS: &[Cell] = &[Cell::new("linuxboot-floor", "swtpm, cgpt", floor)];

/// Both the chooser's configuration and the agent's.
const SECTION: &str = "[floor]\ntpm = \"/dev/tpmrm0\"\n";

/// A TPM for one machine.
struct Tpm {
    child: Child,
    /// Short, because a socket's path is.
    place: TempDir,
}

impl Tpm {
    /// Switches it on with the state in `dir`.
    fn start(dir: &Path) -> Result<Self> {
        ensure!(which("swtpm").is_some(), "swtpm is missing: run cargo xtask setup");
        fs::create_dir_all(dir)?;
        let place = tempfile::tempdir()?;
        let socket = place.path().join("sock");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "startup-clear", "--tpmstate"])
            .arg(format!("dir={}", dir.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start swtpm")?;
        let tpm = Tpm { child, place };
        let until = Instant::now() + Duration::from_secs(20);
        // There is a moment between its name and its first connection, in which it refuses.
        while UnixStream::connect(&socket).is_err() {
            ensure!(Instant::now() < until, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(tpm)
    }

    /// How QEMU is told.
    fn devices(&self) -> Vec<String> {
        let socket: PathBuf = self.place.path().join("sock");
        [
            "-chardev",
            &format!("socket,id=tpm,path={}", socket.display()),
            "-tpmdev",
            "emulator,id=tpm0,chardev=tpm",
            "-device",
            "tpm-crb,tpmdev=tpm0",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Writes the flags of both slots: priority of a confirmed one, 0 for none.
fn confirmed(board: &Board<'_>, priorities: [u8; 2]) -> Result<()> {
    for (number, priority) in ["2", "3"].into_iter().zip(priorities) {
        let (priority, successful) = (priority.to_string(), u8::from(priority > 0).to_string());
        Cmd::new("cgpt")
            .args(["add", "-i", number, "-P", &priority, "-T", "0", "-S", &successful])
            .arg(&board.disk.path)
            .run()?;
    }
    Ok(())
}

fn floor(world: &World, dir: &Path) -> Result<String> {
    let setup = Setup { bundles: &["1.3.0", "1.4.0"], more: SECTION, ..Setup::default() };
    let mut board = Board::new(world, dir, &setup)?;
    let state = dir.join("tpm");
    let (old, new) = (dir.join("old.img"), dir.join("new.img"));

    // A fresh TPM: no floor yet, and the agent makes its counter. Slot a is from before the hole.
    let mut tpm = Tpm::start(&state)?;
    board.devices = tpm.devices();
    let mut machine = board.power_on(480)?;
    machine.expect("racklet: no floor: no_counter")?;
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    update(&mut machine, "1.3.0")?;
    let before = machine.expect("racklet: floor ")?;
    machine.expect("\"did\":\"confirmed\"")?;
    machine.expect("@@ready slot=b version=1.3.0 root=dm-root")?;
    copy(&board.disk.path, &old)?;
    // Two releases without the hole: the fallback is no longer below.
    update(&mut machine, "1.4.0")?;
    machine.expect("\"did\":\"confirmed\"")?;
    machine.expect("@@ready slot=a version=1.4.0 root=dm-root")?;
    let status = machine.ok("agent status --json")?;
    ensure!(status.contains("\"kept_in\":\"tpm\""), "{status}");
    machine.send("reboot-now")?;
    machine.expect("racklet: floor 2, by the TPM")?;
    machine.expect("@@ready slot=a version=1.4.0 root=dm-root")?;
    drop(machine.cut());
    copy(&board.disk.path, &new)?;

    // The old disk is put back, its old slot first: refused, and the agent notices.
    copy(&old, &board.disk.path)?;
    confirmed(&board, [3, 1])?;
    let mut machine = board.power_on(240)?;
    machine.expect("racklet: slot a refused: secver_floor")?;
    machine.expect("racklet: slot b, 1.3.0 verified, confirmed")?;
    machine.expect("@@ready slot=b version=1.3.0 root=dm-root")?;
    let status = machine.ok("agent status")?;
    for said in ["noticed", "chooser  refused slot a: secver_floor", "security version 2"] {
        ensure!(status.contains(said), "no {said:?} in {status}");
    }
    drop(machine.cut());
    ensure!(board.flags()?[0] == [3, 0, 0], "slot a keeps its flags: {:?}", board.flags()?);

    // With nothing but the old slot it boots, says so, and keeps the flags.
    copy(&old, &board.disk.path)?;
    confirmed(&board, [3, 0])?;
    let mut machine = board.power_on(240)?;
    machine.expect("racklet: slot a refused: secver_floor")?;
    machine.expect("racklet: floor above every slot; booting slot a without, its flags stay")?;
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    let status = machine.ok("agent status")?;
    ensure!(status.contains("chooser  booted without a floor: above_all"), "{status}");
    drop(machine.cut());
    ensure!(board.flags()?[0] == [3, 0, 1], "the last slot lost its flags: {:?}", board.flags()?);

    // The TPM is cleared: a named error, no update, but it boots, reverts and begins anew.
    copy(&new, &board.disk.path)?;
    drop(tpm);
    fs::remove_dir_all(&state)?;
    tpm = Tpm::start(&state)?;
    board.devices = tpm.devices();
    let mut machine = board.power_on(360)?;
    machine.expect("racklet: no floor: no_counter")?;
    machine.expect("@@ready slot=a version=1.4.0 root=dm-root")?;
    let refused = machine.run("agent apply --version 1.3.0 --retry /data/1.3.0.tar")?;
    ensure!(refused.0 != 0, "an update without a floor: {refused:?}");
    let asked = machine.run("agent floor --json")?;
    ensure!(asked.0 == 12 && asked.1.contains("lost"), "agent floor: {asked:?}");
    let status = machine.ok("agent status")?;
    ensure!(status.contains("chooser  booted without a floor: no_counter"), "{status}");
    machine.ok("agent revert")?;
    machine.send("reboot-now")?;
    machine.expect("racklet: slot b, 1.3.0 verified, confirmed")?;
    machine.expect("@@ready slot=b version=1.3.0 root=dm-root")?;
    machine.ok("agent floor --renew")?;
    machine.send("reboot-now")?;
    machine.expect("racklet: floor 2, by the TPM")?;
    machine.expect("@@ready slot=b version=1.3.0 root=dm-root")?;
    drop(machine.cut());

    // The TPM is gone: the same.
    board.devices.clear();
    let mut machine = board.power_on(240)?;
    machine.expect("racklet: no floor: unusable")?;
    machine.expect("@@ready slot=b version=1.3.0 root=dm-root")?;
    let asked = machine.run("agent floor --json")?;
    ensure!(asked.0 == 12 && asked.1.contains("lost"), "agent floor: {asked:?}");
    drop(machine.cut());
    drop(tpm);
    Ok(format!("{before}, then 2; old slot refused, alone booted; cleared and gone: named, booted"))
}
