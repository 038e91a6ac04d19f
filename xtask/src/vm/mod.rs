//! `cargo xtask vm`: the boot loaders themselves, in virtual machines.
//!
//! ```text
//!  tools (.cache/vm) ─► world: releases, bundles, factory disks ─► cell: one or more machines
//!  signer, agent     ─┘                                             └ what chooser, kernel and agent
//!                                                                     say on the serial line, and what
//!                                                                     other people's tools find on the
//!                                                                     disk afterwards
//! ```
//!
//! Two machines at a time, each with a limit on its life. A cell fails with the last lines of its
//! serial line; the whole of it is kept in `target/vm/CELL/`.

mod flash;
mod floor;
mod linuxboot;
mod loaders;
mod loadvm;
mod machine;
mod nbd;
mod power;
mod qmp;
mod rack;
mod recorded;
mod roots;
mod small;
mod tools;
mod tree;
mod units;
mod world;

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use racklet_tools::{paths, show};
use tools::Tools;
use world::World;

/// Options of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only cells whose name contains this; may be given several times.
    #[arg(long, value_name = "NAME")]
    cell: Vec<String>,
    /// Say which cells there are.
    #[arg(long)]
    list: bool,
    /// Machines at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How many times longer than usual a machine may live: for a computer that is busy otherwise.
    #[arg(long, default_value_t = 1, value_name = "N")]
    patience: u32,
    /// Power cuts of each cell `…-power-cycles`.
    #[arg(long, default_value_t = 50, value_name = "N")]
    cuts: u32,
    /// Take our programs as they were built last.
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    proofs: Proofs,
}

/// How far the proofs go, and how one of their states is had again.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Proofs {
    /// Draws of `recorded` and `loadvm-cuts`; without, `recorded` takes 1 and the others the clock.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Cuts of `loadvm-cuts`; 200 at night.
    #[arg(long, value_name = "N", default_value_t = 50)]
    trials: u32,
    /// States of `recorded` that are booted, too.
    #[arg(long, value_name = "N", default_value_t = 8)]
    sample: usize,
    /// Take the last recording of `recorded` instead of making one: with another seed, say.
    #[arg(long)]
    keep_recording: bool,
    /// Rebuild only this state of the last recording, boot it and keep its disk.
    #[arg(long, value_name = "N")]
    state: Option<usize>,
}

impl Options {
    /// The cells of every CI run, two machines at a time, within a quarter of an hour also where a boot
    /// takes half a minute. Each loader and the flash go through their cycle (the chooser's is the rack's),
    /// and the units with the loader whose flags they could not write by themselves; what else there is,
    /// `cargo xtask vm` runs at night.
    pub(crate) fn tier() -> Self {
        // Its Debian is debootstrap's.
        const BY_ROOT: &str = "units-systemd-boot";
        const TIER: &[&str] = &[
            "rack",
            "recorded",
            BY_ROOT,
            "systemd-boot-cycle",
            "grub-cycle",
            "uboot-cycle",
            "flash-block2mtd",
            "flash-nandsim",
            "linuxboot-rescue",
        ];
        let root = paths::is_root();
        if !root {
            println!("left out, because it needs root: {BY_ROOT}");
        }
        let chosen = TIER.iter().filter(|name| root || **name != BY_ROOT);
        let cell = chosen.map(|name| (*name).to_owned()).collect();
        let proofs =
            Proofs { seed: None, trials: 50, sample: 2, keep_recording: false, state: None };
        Options {
            cell,
            list: false,
            jobs: 2,
            // Limits are for what hangs: processors differ by a factor of three.
            patience: 3,
            cuts: 50,
            no_build: false,
            proofs,
        }
    }
}

/// One cell: its name, who judges it beside the serial line, and what it does. It ends with what it
/// saw, in a few words.
type Cell = (&'static str, &'static str, fn(&World, &Path) -> Result<String>);

/// All of them, the longest first, so that two at a time end together.
fn cells() -> Vec<Cell> {
    [
        loadvm::CELLS,
        rack::CELLS,
        recorded::CELLS,
        units::CELLS,
        loaders::CELLS,
        flash::CELLS,
        linuxboot::CELLS,
        roots::CELLS,
        floor::CELLS,
    ]
    .concat()
}

/// What became of a cell.
pub(crate) struct Done {
    /// Its name.
    pub(crate) name: &'static str,
    judges: &'static str,
    took: Duration,
    /// What it saw, or why it failed.
    pub(crate) result: Result<String>,
}

/// `cargo xtask vm`
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        for (name, judges, _) in cells() {
            println!("{name:<28} {judges}");
        }
        return Ok(());
    }
    let started = Instant::now();
    let done = perform(options)?;
    println!("{}", table(&done));
    let failed = done.iter().filter(|cell| cell.result.is_err()).count();
    println!("{} passed, {failed} failed, {}", done.len() - failed, show::time(started.elapsed()));
    if failed > 0 { bail!("{failed} cells failed") } else { Ok(()) }
}

/// Runs the cells that were asked for; all when none was.
pub(crate) fn perform(options: &Options) -> Result<Vec<Done>> {
    let (wanted, jobs) = (&options.cell, options.jobs);
    let all = cells();
    let chosen: Vec<Cell> = all
        .into_iter()
        .filter(|(name, ..)| wanted.is_empty() || wanted.iter().any(|word| name.contains(word)))
        .collect();
    if chosen.is_empty() {
        bail!("no cell of that name; see cargo xtask vm --list");
    }
    let tools = Tools::prepare(jobs)?;
    let dir = paths::target().join("vm");
    machine::fresh(&dir)?;
    let mut world =
        World::build(tools, &dir, !options.no_build, options.patience, options.proofs.clone())?;
    world.cuts = options.cuts;
    let queue = Mutex::new(chosen.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().map(|mut queue| queue.next());
                    let Ok(Some((number, (name, judges, work)))) = next else { return };
                    let cell = one(&world, &dir.join(name), name, judges, work);
                    if let Ok(mut done) = done.lock() {
                        done.push((number, cell));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|held| held.into_inner());
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, cell)| cell).collect())
}

fn one(
    world: &World,
    dir: &Path,
    name: &'static str,
    judges: &'static str,
    work: fn(&World, &Path) -> Result<String>,
) -> Done {
    let started = Instant::now();
    let result = machine::fresh(dir).and_then(|()| work(world, dir));
    let took = started.elapsed();
    match &result {
        Ok(saw) => {
            eprintln!("ok      {name:<28} {:>8}  {saw}", show::time(took));
            // Disks are large, and the story is in the logs.
            drop(remove_images(dir));
        }
        Err(error) => eprintln!("FAILED  {name:<28} {:>8}\n{error:#}", show::time(took)),
    }
    Done { name, judges, took, result }
}

fn remove_images(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry.path().extension().is_some_and(|kind| kind == "img" || kind == "cpio") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The cells as a table.
pub(crate) fn table(done: &[Done]) -> String {
    let mut rows = vec![["cell", "result", "time", "judged by", "saw"].map(str::to_owned).to_vec()];
    for cell in done {
        let (word, saw) = match &cell.result {
            Ok(saw) => ("ok", saw.clone()),
            Err(error) => ("FAILED", error.to_string().lines().next().unwrap_or("").to_owned()),
        };
        let (name, judges) = (cell.name.to_owned(), cell.judges.to_owned());
        rows.push(vec![name, word.to_owned(), show::time(cell.took), judges, saw]);
    }
    show::table(&rows)
}
