//! Firmware whose trust root is newer than what the slots were written with.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use racklet_tools::cmd::Cmd;

use super::Cell;
use super::linuxboot::{Board, update};
use super::world::{Setup, World};

pub(super) const CELLS: &[Cell] = &[Cell::new("linuxboot-roots", "the signer, cgpt", roots)];

/// Root 2 replaces the timestamp key: both slots of before boot. Root 3 replaces the targets key:
/// neither does, until the old firmware is put back.
fn roots(world: &World, dir: &Path) -> Result<String> {
    let setup = Setup { bundles: &["1.1.0"], ..Setup::default() };
    let mut board = Board::new(world, dir, &setup)?;
    let mut machine = board.power_on(240)?;
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    update(&mut machine, "1.1.0")?;
    machine.expect("racklet: slot b, 1.1.0 verified, on trial, 1 tries left")?;
    machine.expect("\"did\":\"confirmed\"")?;
    machine.expect("@@ready slot=b version=1.1.0 root=dm-root")?;
    drop(machine.cut());

    board.fit(&next_root(world, dir, "timestamp")?)?;
    let mut machine = board.power_on(120)?;
    machine.expect("racklet: slot b, 1.1.0 verified, confirmed")?;
    machine.expect("@@ready slot=b version=1.1.0 root=dm-root")?;
    drop(machine.cut());
    Cmd::new("cgpt").args(["add", "-i", "2", "-P", "3"]).arg(&board.disk.path).run()?;
    let mut machine = board.power_on(120)?;
    machine.expect("racklet: slot a, 1.0.0 verified, confirmed")?;
    machine.expect("@@ready slot=a version=1.0.0 root=dm-root")?;
    drop(machine.cut());

    board.fit(&next_root(world, dir, "targets")?)?;
    let mut machine = board.power_on(120)?;
    for slot in ["a", "b"] {
        machine.expect(&format!("racklet: slot {slot} refused: sig_threshold"))?;
    }
    machine.expect("racklet: rescue: boot_record: slot a was refused (sig_threshold)")?;
    drop(machine.cut());

    board.fit(&world.trust_root()?)?;
    let mut machine = board.power_on(120)?;
    machine.expect("verified, confirmed")?;
    Ok("new online keys: both slots; a revoked targets key: neither; the old root: again"
        .to_owned())
}

/// The next root of a copy of the repository, with another key for that role.
fn next_root(world: &World, dir: &Path, role: &str) -> Result<Vec<u8>> {
    let later = dir.join("later");
    if !later.exists() {
        fs::create_dir(&later).context("make the copy of the repository")?;
        for part in ["repository", "keys"] {
            Cmd::new("cp").arg("-r").arg(world.dir.join(part)).arg(&later).run()?;
        }
    }
    let (old, new) = (format!("keys/{role}.pub"), format!("keys/{role}-2"));
    Cmd::new(world.signer_file()).args(["key", "new", "--out"]).arg(later.join(&new)).run()?;
    let replace = later.join(format!("{new}.pub"));
    let revoke = world.signer_at(&later, &["revoke"])?.arg(later.join(old));
    revoke.arg("--replace").arg(replace).run()?;
    fs::read(later.join("keys/root.json")).context("read the new root")
}
