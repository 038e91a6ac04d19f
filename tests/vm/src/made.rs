//! A disk that `signer factory` made for a board with U-Boot, by the profile that is shipped.
//!
//! ```text
//!  signer factory ─► boot.scr, env 1 and 2, a 1.0.0 confirmed ─► U-Boot boots slot a
//!                    ─► the story of `uboot-cycle`: 1.1.0 in slot b, a release that panics, back
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;
use racklet_tools::paths;
use serde_json::Value;

use super::loaders::{UBOOT_ARM, updates};
use super::world::{Disk, Setup, World, agent_toml};

pub(super) const CELLS: &[super::Cell] = &[super::Cell::new(
    "factory-uboot-arm64",
    "U-Boot 2023.01, fw_printenv, sgdisk",
    |world, dir| story(&world.of_arm(&dir.join("world"))?, dir),
)];

/// What the shipped profile says, and this machine's part of it.
const EDITS: [(&str, &str); 4] = [
    ("os = \"2GiB\"", "os = \"80MiB\""),
    ("size = \"1GiB\"", "size = \"200MiB\""),
    ("mount = \"/var\"", "mount = \"/data\""),
    ("architecture = \"arm64\"", "architecture = \"arm64\"\nconfig = \"/data/agent.toml\""),
];

fn story(world: &World, dir: &Path) -> Result<String> {
    let report = make(world, dir)?;
    let lines = report["env_config"].as_str().context("the lines of fw_env.config")?;
    let disk = Disk { path: dir.join("disk.img") };
    // For fw_printenv on this computer, as for the machine's own.
    let here = lines.replace(UBOOT_ARM.disk, &disk.path.display().to_string());
    fs::write(dir.join("fw_env.config"), here)?;
    let names = ["BOOT_ORDER", "BOOT_A_LEFT", "BOOT_B_LEFT"];
    let flags =
        Cmd::new("fw_printenv").arg("-c").arg(dir.join("fw_env.config")).args(names).read()?;
    let first = "BOOT_ORDER=A\nBOOT_A_LEFT=9999999\nBOOT_B_LEFT=0";
    ensure!(flags == first, "before the first boot: {flags}");
    updates(world, dir, &UBOOT_ARM, &disk, "1.2.1")
}

/// Makes the disk; what `signer` reports of it.
fn make(world: &World, dir: &Path) -> Result<Value> {
    let mut board = fs::read_to_string(paths::root().join("signer/boards/u-boot-arm64.toml"))?;
    let told = world.tools.platform.kernel;
    let words = ("console=ttyAMA0 quiet", told);
    for (from, to) in EDITS.into_iter().chain([words]) {
        ensure!(board.matches(from).count() == 1, "the profile says {from:?} not just once");
        board = board.replace(from, to);
    }
    fs::write(dir.join("board.toml"), board)?;
    let (data, config) = (dir.join("data"), dir.join("agent.toml"));
    fs::create_dir_all(&data)?;
    for version in ["1.1.0", "1.2.1"] {
        fs::copy(world.bundle(version)?, data.join(format!("{version}.tar")))?;
    }
    // The factory reads no device tree.
    let node = format!("hardware = [{:?}]", world.tools.platform.hardware);
    let setup = Setup {
        node: &node,
        disk: UBOOT_ARM.disk,
        boot: UBOOT_ARM.boot,
        deadline: world.life(8).as_secs(),
        ..Setup::default()
    };
    fs::write(&config, agent_toml(&setup))?;
    let said = world
        .signer_at(&world.dir, &["factory", "--json", "--version", "1.0.0"])?
        .arg("--config")
        .arg(&config)
        .arg("--board")
        .arg(dir.join("board.toml"))
        .arg("--data")
        .arg(&data)
        .arg("-o")
        .arg(dir.join("disk.img"))
        .read()?;
    let line = said.lines().find(|line| line.starts_with('{')).context("the report")?;
    serde_json::from_str(line).context("the report")
}
