//! Writing one image to the inactive slot: ours, the plain pipe, SWUpdate, RAUC.
//!
//! The input of each lies in the page cache, the target is a fresh sparse file (behind a loop
//! device or not), and each ends with its data flushed. Ours verifies the repository, writes slot b,
//! reads it all back, compares and changes the boot record; the pipe does none of it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use racklet_tools::cmd::Cmd;

use super::peers;
use super::rig::{Bench, Booted, V2, length, settle};
use super::run::{Loop, Measured};
use super::table::{Goal, Row, Unit};

/// 32 MiB: what a small node can spare beside its services.
const MEMORY: f64 = 32.0 * 1048576.0;

/// One series per contender, a figure per repetition.
#[derive(Default)]
struct Series {
    ours_loop: Vec<f64>,
    ours_file: Vec<f64>,
    ours_update: Vec<f64>,
    pipe_default: Vec<f64>,
    pipe_large: Vec<f64>,
    pipe_file_default: Vec<f64>,
    pipe_file_large: Vec<f64>,
    swupdate: Vec<f64>,
    rauc: Vec<f64>,
    peaks: Vec<f64>,
}

/// Times and memory of `apply`.
pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let compressed = bench.zstd("v2.zst", &bench.v2, &["-3", "--long=27"])?;
    // Without --long: SWUpdate decodes with zstd's default window limit.
    let plain = bench.zstd("v2.plain.zst", &bench.v2, &["-3"])?;
    let swupdate = peers::Swupdate::prepare(bench, &plain);
    let rauc = peers::Rauc::start(bench);
    for file in [&compressed, &plain, &bench.v1, &bench.v2] {
        // Read once, so that nobody's first repetition pays for the disk.
        std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    }

    let mut found = Series::default();
    for number in 0..bench.repetitions {
        eprintln!("  apply, repetition {}", number + 1);
        const LARGE: &str = "bs=1M iflag=fullblock";
        found.pipe_default.push(pipe(bench, &compressed, true, "")?);
        found.pipe_large.push(pipe(bench, &compressed, true, LARGE)?);
        found.ours_loop.push(ours(bench, true, Booted::Nothing, &mut found.peaks)?);
        found.pipe_file_default.push(pipe(bench, &compressed, false, "")?);
        found.pipe_file_large.push(pipe(bench, &compressed, false, LARGE)?);
        found.ours_file.push(ours(bench, false, Booted::Nothing, &mut found.peaks)?);
        found.ours_update.push(ours(bench, true, Booted::Installed, &mut found.peaks)?);
        if let Ok(swupdate) = &swupdate {
            found.swupdate.push(peer(bench, &swupdate.device, swupdate.install())?);
        }
        if let Ok(rauc) = &rauc {
            found.rauc.push(peer(bench, &rauc.device, rauc.install())?);
        }
    }
    Ok(told(bench, &found, swupdate.err(), rauc.err()))
}

fn told(
    bench: &Bench,
    found: &Series,
    no_swupdate: Option<anyhow::Error>,
    no_rauc: Option<anyhow::Error>,
) -> Vec<Row> {
    let ratio = |what: &str, ours: &[f64], theirs: &[f64], goal| {
        Row::ratio(what, Unit::Seconds, ours, theirs, goal)
    };
    let peer =
        |what: &str, theirs: &[f64], goal, error: Option<anyhow::Error>, note: &str| match error {
            Some(error) => Row::absent(what, format!("{error:#}")),
            None => ratio(what, &found.ours_loop, theirs, goal).note(bench.peers.note(note)),
        };
    let goal = Goal::AtMost(0.4);
    vec![
        ratio(
            "full apply to a loop device / `zstd -dc \\| dd conv=fsync`",
            &found.ours_loop,
            &found.pipe_default,
            goal,
        )
        .note("dd as it is: blocks of 512 bytes, one system call each"),
        ratio("… / the same with `bs=1M`", &found.ours_loop, &found.pipe_large, goal)
            .note("the stricter yardstick"),
        ratio(
            "full apply to a plain file / `zstd -dc \\| dd conv=fsync`",
            &found.ours_file,
            &found.pipe_file_default,
            goal,
        ),
        ratio("… / the same with `bs=1M`", &found.ours_file, &found.pipe_file_large, goal),
        peer(
            "full apply / `swupdate -i`",
            &found.swupdate,
            Goal::AtMost(0.55),
            no_swupdate,
            "SWUpdate: signed (CMS), zstd, raw handler; no read-back",
        ),
        peer(
            "full apply / `rauc install`",
            &found.rauc,
            Goal::AtMost(0.2),
            no_rauc,
            "RAUC: plain bundle, service on a private bus; no read-back",
        ),
        ratio(
            "update v1 → v2 with v1 booted / `zstd -dc \\| dd bs=1M conv=fsync` of v2",
            &found.ours_update,
            &found.pipe_large,
            Goal::None,
        )
        .note("v1 was installed by an earlier apply"),
        Row::figure(
            "agent: peak memory, 1 GiB image",
            Unit::Bytes,
            &found.peaks,
            Goal::AtMost(MEMORY),
        ),
    ]
}

/// One `apply` of v2 from the OCI layout; its slot is compared afterwards.
fn ours(bench: &Bench, on_loop: bool, booted: Booted, peaks: &mut Vec<f64>) -> Result<f64> {
    let repository = bench.repository();
    let source = format!("oci:{}", repository.display());
    let mut node = bench.node(&source, fs::metadata(&bench.v2)?.len(), booted)?;
    node.settle()?;
    if on_loop {
        node = node.on_loop(&source, &repository.with_extension("keys").join("root.json"))?;
    }
    let Measured { done, peak, .. } =
        bench.measure(node.agent().args(["apply", "--version", V2]), 120)?;
    node.settle()?;
    node.expect(&bench.v2)?;
    peaks.push(peak);
    Ok(done.took.as_secs_f64())
}

fn pipe(bench: &Bench, compressed: &Path, on_loop: bool, options: &str) -> Result<f64> {
    let target = Target::fresh(bench, on_loop)?;
    let line = format!(
        "zstd -q -dc --long=27 \"$1\" | dd of=\"$2\" conv=fsync,notrunc status=none {options}"
    );
    let took = bench.measure(bench.shell(&line, &[compressed, &target.path]), 120)?.seconds();
    target.expect(&bench.v2)?;
    Ok(took)
}

/// Another updater, whose configuration names `link` as the device to write.
fn peer(bench: &Bench, link: &Path, install: Cmd) -> Result<f64> {
    let target = Target::fresh(bench, true)?;
    drop(fs::remove_file(link));
    symlink(&target.path, link).with_context(|| format!("link {}", link.display()))?;
    let took = bench.measure(install, 120)?.seconds();
    target.expect(&bench.v2)?;
    Ok(took)
}

/// A fresh sparse file of the image's size, perhaps behind a loop device; removed when dropped.
struct Target {
    path: PathBuf,
    file: PathBuf,
    device: Option<Loop>,
}

impl Target {
    fn fresh(bench: &Bench, on_loop: bool) -> Result<Self> {
        let file = bench.path("target.img");
        File::create_new(&file)?.set_len(length(&bench.v2)? as u64)?;
        let mut target = Self { path: file.clone(), file, device: None };
        if on_loop {
            let device = Loop::over(&target.file)?;
            target.path = PathBuf::from(device.device());
            target.device = Some(device);
        }
        Ok(target)
    }

    fn expect(&self, image: &Path) -> Result<()> {
        settle(&self.file)?;
        let same = Cmd::new("cmp").arg(&self.path).arg(image).finish()?;
        ensure!(same.code == 0, "the target does not hold {}: {}", image.display(), same.output());
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.device.take());
        drop(fs::remove_file(&self.file));
    }
}
