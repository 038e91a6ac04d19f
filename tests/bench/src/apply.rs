//! Writing one image to the inactive slot: ours, the plain pipe, the bare device, SWUpdate, RAUC.
//!
//! The input of each lies in the page cache, the target is a fresh sparse file (behind a loop
//! device or not), and each ends with its data flushed. Ours verifies the repository, writes slot b,
//! reads it all back, compares and changes the boot record; the pipe does none of it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
use racklet_tools::cmd::Cmd;

use super::peers::{Rauc, Swupdate};
use super::rig::{Bench, Booted, Node, V2, length, settle};
use super::run::Loop;
use super::server::Secure;
use super::table::{Goal, Row, Unit};

/// 32 MiB: what a small node can spare beside its services.
const MEMORY: f64 = 32.0 * 1048576.0;

/// One series per contender, a figure per repetition.
#[derive(Default)]
struct Series {
    ours_loop: Vec<f64>,
    ours_tls: Vec<f64>,
    ours_file: Vec<f64>,
    ours_update: Vec<f64>,
    pipe: Vec<f64>,
    pipe_file: Vec<f64>,
    direct: Vec<f64>,
    swupdate: Vec<f64>,
    rauc: Vec<f64>,
    peaks: Vec<f64>,
}

/// What ours is measured beside.
struct Contenders {
    /// v2 as one zstd stream.
    compressed: PathBuf,
    server: Result<Secure>,
    swupdate: Result<Swupdate>,
    rauc: Result<Rauc>,
}

/// Times and memory of `apply`.
pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let compressed = bench.zstd("v2.zst", &bench.v2, &["-3", "--long=27"])?;
    // Without --long: SWUpdate decodes with zstd's default window limit.
    let plain = bench.zstd("v2.plain.zst", &bench.v2, &["-3"])?;
    for file in [&compressed, &plain, &bench.v1, &bench.v2] {
        // Read once, so that nobody's first repetition pays for the disk.
        std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    }
    let contenders = Contenders {
        compressed,
        server: Secure::start(bench, &bench.repository()),
        swupdate: Swupdate::prepare(bench, &plain),
        rauc: Rauc::start(bench),
    };
    let mut found = Series::default();
    for number in 0..bench.repetitions {
        eprintln!("  apply, repetition {}", number + 1);
        found.repeat(bench, &contenders)?;
    }
    Ok(told(bench, &found, contenders))
}

impl Series {
    fn repeat(&mut self, bench: &Bench, contenders: &Contenders) -> Result<()> {
        let (compressed, peaks) = (&contenders.compressed, &mut self.peaks);
        self.pipe.push(pipe(bench, compressed, true)?);
        self.direct.push(direct(bench)?);
        self.ours_loop.push(ours(bench, on_loop(bench, Booted::Nothing)?, peaks)?);
        if let Ok(server) = &contenders.server {
            let node = server.secured(on_loop(bench, Booted::Nothing)?)?;
            self.ours_tls.push(ours(bench, node, peaks)?);
        }
        self.ours_update.push(ours(bench, on_loop(bench, Booted::Installed)?, peaks)?);
        self.pipe_file.push(pipe(bench, compressed, false)?);
        self.ours_file.push(ours(bench, node(bench, Booted::Nothing)?, peaks)?);
        if let Ok(swupdate) = &contenders.swupdate {
            self.swupdate.push(peer(bench, &swupdate.device, swupdate.install())?);
        }
        if let Ok(rauc) = &contenders.rauc {
            self.rauc.push(peer(bench, &rauc.device, rauc.install())?);
        }
        Ok(())
    }
}

fn told(bench: &Bench, found: &Series, contenders: Contenders) -> Vec<Row> {
    let ratio = |what: &str, ours: &[f64], theirs: &[f64], goal| {
        Row::ratio(what, Unit::Seconds, ours, theirs, goal)
    };
    let unless = |error: Option<Error>, row: Row| match error {
        Some(error) => row.missing(format!("{error:#}")),
        None => row,
    };
    let ours = &found.ours_loop;
    vec![
        ratio(
            "full apply to a loop device / `zstd -dc \\| dd bs=1M conv=fsync`",
            ours,
            &found.pipe,
            Goal::AtMost(0.5),
        ),
        ratio(
            "… / `dd bs=4M oflag=direct conv=fsync` of the plain image and reading it back with `iflag=direct`",
            ours,
            &found.direct,
            Goal::AtMost(1.2),
        )
        .note("what the device can do: nothing is unpacked or hashed, but zeros are written"),
        ratio(
            "full apply to a plain file / `zstd -dc \\| dd bs=1M conv=fsync`",
            &found.ours_file,
            &found.pipe_file,
            Goal::AtMost(0.5),
        ),
        unless(
            contenders.swupdate.err(),
            ratio("full apply / `swupdate -i`", ours, &found.swupdate, Goal::AtMost(0.65)).note(
                bench.peers.note("SWUpdate: signed (CMS), zstd, raw handler; no read-back"),
            ),
        ),
        unless(
            contenders.rauc.err(),
            ratio("full apply / `rauc install`", ours, &found.rauc, Goal::AtMost(0.2)).note(
                bench.peers.note("RAUC: plain bundle, service on a private bus; no read-back"),
            ),
        ),
        unless(
            contenders.server.err(),
            ratio(
                "full apply over TLS from repo-server / from a directory",
                &found.ours_tls,
                ours,
                Goal::AtMost(1.05),
            )
            .note("the server on the same two processors"),
        ),
        ratio(
            "update v1 → v2 with v1 booted / full install of v2",
            &found.ours_update,
            ours,
            Goal::AtMost(0.8),
        )
        .note("both from a directory; v1 was installed by an earlier apply"),
        Row::figure(
            "agent: peak memory, 1 GiB image",
            Unit::Bytes,
            &found.peaks,
            Goal::AtMost(MEMORY),
        ),
    ]
}

/// A node that reads the OCI layout.
fn node(bench: &Bench, booted: Booted) -> Result<Node> {
    bench.node(&source(bench), fs::metadata(&bench.v2)?.len(), booted)
}

fn on_loop(bench: &Bench, booted: Booted) -> Result<Node> {
    let root = bench.repository().with_extension("keys").join("root.json");
    node(bench, booted)?.on_loop(&source(bench), &root)
}

fn source(bench: &Bench) -> String {
    format!("oci:{}", bench.repository().display())
}

/// One `apply` of v2; its slot is compared afterwards.
fn ours(bench: &Bench, node: Node, peaks: &mut Vec<f64>) -> Result<f64> {
    let measured = bench.measure(node.agent().args(["apply", "--version", V2]), 120)?;
    node.settle()?;
    node.expect(&bench.v2)?;
    peaks.push(measured.peak);
    Ok(measured.seconds())
}

fn pipe(bench: &Bench, compressed: &Path, on_loop: bool) -> Result<f64> {
    let line = "zstd -q -dc --long=27 \"$1\" | \
        dd of=\"$2\" bs=1M iflag=fullblock conv=fsync,notrunc status=none";
    written(bench, line, compressed, on_loop)
}

/// Past every cache of the device, as fast as it writes and reads.
fn direct(bench: &Bench) -> Result<f64> {
    let line = "dd if=\"$1\" of=\"$2\" bs=4M oflag=direct conv=fsync,notrunc status=none; \
        dd if=\"$2\" of=/dev/null bs=4M iflag=direct status=none";
    written(bench, line, &bench.v2, true)
}

/// A shell line that writes v2 from its first parameter to its second.
fn written(bench: &Bench, line: &str, from: &Path, on_loop: bool) -> Result<f64> {
    let target = Target::fresh(bench, on_loop)?;
    let took = bench.measure(bench.shell(line, &[from, &target.path]), 120)?.seconds();
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
