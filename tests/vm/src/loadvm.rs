//! Power that fails at a random moment of an update, again and again from one saved moment.
//!
//! ```text
//!  boot ─► ready ─► savevm          each trial: loadvm ─► apply … ✂ ─► boot: what does it run, and
//!                   └ once                                              what had been promised?
//! ```
//! A machine that is loaded goes on within a second, so the time goes into the boots that judge. The
//! disk is a qcow2, whose tables reach the file with the guest's flushes: a write that was not flushed
//! may really be lost with QEMU.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use racklet_testkit::random::Random;
use serde_json::{Value, json};

use super::Cell;
use super::machine::Machine;
use super::qmp::{self, Qmp};
use super::small::{Lab, Node, apply, in_pairs};
use super::world::World;

pub(super) const CELLS: &[Cell] = &[Cell::new("loadvm-cuts", "a boot after each cut", cuts)];

/// Every so many trials the update is carried to its end after the cut.
const CARRIED_ON: u32 = 5;

fn cuts(world: &World, dir: &Path) -> Result<String> {
    let lab = Lab::with_releases(world, dir, &["1.0.0", "1.1.0"])?;
    let bundles = lab.bundles(&["1.1.0"])?;
    let bench = Bench { lab: &lab, dir, bundles, saved: dir.join("saved.qcow2.img") };
    bench.save()?;
    let uncut = bench.uncut()?;
    let (seed, trials) = (world.seed(), world.proofs.trials);
    eprintln!("loadvm-cuts: {trials} cuts within {uncut:.1?} s, seed {seed}");
    let mut draw = Random::seeded(seed);
    // As many in each stage, however long it takes; and somewhat behind the end, which is a moment, too.
    let ends = [0.0, uncut[0], uncut[1], uncut[2] * 1.05];
    let times: Vec<(u32, Duration)> = (1..=trials)
        .map(|number| {
            let stage = number as usize % 3;
            let share = draw.below(1000) as f64 / 1000.0;
            let after = ends[stage] + (ends[stage + 1] - ends[stage]) * share;
            (number, Duration::from_secs_f64(after))
        })
        .collect();
    let seen: Mutex<BTreeMap<&'static str, u32>> = Mutex::default();
    in_pairs(times, &|(number, after)| {
        let phase = bench.trial(number, after).with_context(|| {
            format!("trial {number}, cut after {:.2} s, seed {seed}", after.as_secs_f64())
        })?;
        let mut seen = seen.lock().unwrap_or_else(|held| held.into_inner());
        *seen.entry(phase).or_default() += 1;
        Ok(())
    })?;
    let seen = seen.into_inner().unwrap_or_else(|held| held.into_inner());
    let of = |phase: &str| seen.get(phase).copied().unwrap_or(0);
    ensure!(of(APPLY) > 0 && of(APPLY) < trials, "the cuts fell in one place: {seen:?}");
    let phases: Vec<String> =
        seen.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    Ok(format!(
        "{trials} cuts, seed {seed}: {}; each booted; {} updated to the end",
        phases.join(", "),
        trials / CARRIED_ON
    ))
}

const APPLY: &str = "in apply";
const RESTART: &str = "in the restart";
const TRIAL: &str = "in the trial";
const CONFIRMED: &str = "after the confirm";

/// Where the power failed, by what the machine had said; and what it had promised by then.
fn phase(said: &str) -> &'static str {
    match () {
        () if said.contains("\"did\":\"confirmed\"") => CONFIRMED,
        () if said.contains("@@boot slot=b") => TRIAL,
        () if said.contains("\"activated\":true") => RESTART,
        () => APPLY,
    }
}

struct Bench<'a> {
    lab: &'a Lab<'a>,
    dir: &'a Path,
    bundles: PathBuf,
    saved: PathBuf,
}

impl Bench<'_> {
    fn power_on(&self, disk: &Path, more: &[String], log: &str) -> Result<Machine> {
        let mut arguments = self.lab.board(Some(&self.bundles))?;
        let drive = format!("if=none,id=d0,format=qcow2,cache=unsafe,file={}", disk.display());
        arguments.extend(["-drive".to_owned(), drive]);
        arguments.extend(more.iter().cloned());
        self.lab.start(arguments, 120, &self.dir.join(log))
    }

    /// Boots once and saves the moment at which everything is ready for an update.
    fn save(&self) -> Result<()> {
        let disk = self.dir.join("disk.img");
        self.lab.disk(&disk, "1.0.0", &Node::default())?;
        let convert = ["convert", "-f", "raw", "-O", "qcow2"];
        let image = self.lab.world.tools.program("usr/bin/qemu-img");
        image.args(convert).args([&disk, &self.saved]).run()?;
        fs::remove_file(&disk)?;
        let socket = self.dir.join("qmp");
        let mut machine = self.power_on(&self.saved, &qmp::arguments(&socket), "saved.log")?;
        machine.expect("@@ready slot=a version=1.0.0")?;
        let mut line = Qmp::connect(&socket, self.lab.world.life(30))?;
        line.monitor("savevm ready")?;
        line.execute("quit", &json!({}))?;
        machine.ended()
    }

    /// Goes on from the saved moment, on a copy.
    fn load(&self, disk: &Path, log: &str) -> Result<Machine> {
        fs::copy(&self.saved, disk)?;
        let mut machine = self.power_on(disk, &["-loadvm".to_owned(), "ready".to_owned()], log)?;
        machine.send(&format!("{} && reboot-now", apply("1.1.0")))?;
        Ok(machine)
    }

    /// Seconds from there to the end of `apply`, to the trial boot's system, to its confirm.
    fn uncut(&self) -> Result<[f64; 3]> {
        let disk = self.dir.join("uncut.img");
        let mut machine = self.load(&disk, "uncut.log")?;
        let stages =
            ["\"activated\":true", "@@boot slot=b version=1.1.0", "@@ready slot=b version=1.1.0"];
        let mut took = [0.0; 3];
        for (stage, took) in stages.into_iter().zip(&mut took) {
            machine.expect(stage)?;
            *took = machine.age().as_secs_f64();
        }
        drop(machine);
        fs::remove_file(&disk)?;
        Ok(took)
    }

    /// One cut, and the boot that judges it. Where it fell.
    fn trial(&self, number: u32, after: Duration) -> Result<&'static str> {
        let disk = self.dir.join(format!("trial-{number}.img"));
        let machine = self.load(&disk, &format!("trial-{number}.log"))?;
        std::thread::sleep(after.saturating_sub(machine.age()));
        let said = machine.cut().join("\n");
        let phase = phase(&said);
        let mut machine = self.power_on(&disk, &[], &format!("trial-{number}-boot.log"))?;
        let chosen = machine.expect_any(&[
            "racklet: slot a, 1.0.0 verified, confirmed",
            "racklet: slot b, 1.1.0 verified",
        ])?;
        let in_b = chosen.contains("slot b");
        ensure!(phase == APPLY || in_b, "exit 0 meant that it was next ({phase}): {chosen}");
        ensure!(phase != CONFIRMED || chosen.contains(", confirmed"), "it was confirmed: {chosen}");
        machine.expect(if in_b {
            "@@ready slot=b version=1.1.0"
        } else {
            "@@ready slot=a version=1.0.0"
        })?;
        if number.is_multiple_of(CARRIED_ON) {
            if !in_b {
                machine.send(&format!("{} && reboot-now", apply("1.1.0")))?;
                machine.expect("\"activated\":true")?;
                machine.expect("racklet: slot b, 1.1.0 verified, on trial, 1 tries left")?;
                machine.expect("@@ready slot=b version=1.1.0")?;
            }
            let status = machine.ok("agent status --json")?;
            let status: Value = serde_json::from_str(status.trim()).context("its status")?;
            let runs = &status["slots"]["b"];
            let done = runs["version"] == "1.1.0" && runs["confirmed"] == true;
            ensure!(done && status["booted"] == "b", "after the cut and another run: {status:#}");
        }
        drop(machine);
        fs::remove_file(&disk)?;
        Ok(phase)
    }
}
