//! Real boot loaders in virtual machines; `cargo xtask vm` builds and runs this program.
//!
//! ```text
//!  tools (cached)    ─► world: releases, bundles, factory disks ─► cell: one or more machines
//!  signer, agent     ─┘                                             └ what chooser, kernel and agent
//!                                                                     say on the serial line, and what
//!                                                                     other people's tools find on the
//!                                                                     disk afterwards
//! ```
//!
//! Two machines at a time, each with a limit on its life. A cell fails with the last lines of its
//! serial line; the whole of it is kept in `target/vm/CELL/`.

mod emmc;
mod flash;
mod floor;
mod linuxboot;
mod loaders;
mod loadvm;
mod machine;
mod made;
mod nbd;
mod platform;
mod power;
mod qmp;
mod rack;
mod ram;
mod recorded;
mod report;
mod roots;
mod small;
mod tools;
mod tree;
mod units;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;
use racklet_tools::{paths, show};

use report::Done;
use tools::Tools;
use world::World;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask vm", about = "Boot real machines under QEMU, cell by cell", version)]
struct Options {
    /// Only the cell of this name, or else those whose names contain it; may be given several times.
    #[arg(long, value_name = "NAME")]
    cell: Vec<String>,
    /// Only the cells that `cargo xtask prove` boots.
    #[arg(long, conflicts_with = "cell")]
    prove: bool,
    /// Print the names of the cells.
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
    /// Use our programs as they were built last.
    #[arg(long)]
    no_build: bool,
    /// Write what became of each cell to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    proofs: Proofs,
}

/// How far the proofs go, and how one of their states is had again.
#[derive(Debug, Clone, Default, clap::Args)]
struct Proofs {
    /// Draws of `recorded` and `loadvm-cuts`; without, `recorded` takes 1 and the others the clock.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Cuts of `loadvm-cuts`; `cargo xtask night` takes 200.
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

/// The cells of every CI run, two machines at a time, within a quarter of an hour also where a boot takes half a
/// minute. Each loader and the flash go through their cycle (the chooser's is the rack's), and the units with the
/// loader whose flags they could not write by themselves; the rest is for `cargo xtask night`.
const PROVE: &[&str] = &[
    "rack",
    "recorded",
    NEEDS_ROOT,
    "systemd-boot-cycle",
    "grub-cycle",
    "uboot-cycle",
    "flash-block2mtd",
    "flash-nandsim",
    "linuxboot-rescue",
];
/// Its Debian is debootstrap's.
const NEEDS_ROOT: &str = "units-systemd-boot";

impl Options {
    /// What `--prove` stands for: fewer boots, and more patience, because limits are for what hangs and processors
    /// differ by a factor of three.
    fn completed(mut self) -> Self {
        if self.prove {
            let root = paths::is_root();
            if !root {
                println!("left out, because it needs root: {NEEDS_ROOT}");
            }
            let chosen = PROVE.iter().filter(|name| root || **name != NEEDS_ROOT);
            self.cell = chosen.map(|name| (*name).to_owned()).collect();
            self.patience = self.patience.max(3);
            self.proofs.sample = 2;
        }
        self
    }
}

/// One test on machines: who judges it beside the serial line, and what it does.
#[derive(Clone, Copy)]
struct Cell {
    name: &'static str,
    judges: &'static str,
    /// Ends with what it saw, in a few words.
    work: fn(&World, &Path) -> Result<String>,
}

impl Cell {
    const fn new(
        name: &'static str,
        judges: &'static str,
        work: fn(&World, &Path) -> Result<String>,
    ) -> Self {
        Self { name, judges, work }
    }

    fn run(self, world: &World, dir: &Path) -> Done {
        let started = Instant::now();
        let result = machine::fresh(dir).and_then(|()| (self.work)(world, dir));
        let took = started.elapsed();
        let Self { name, judges, .. } = self;
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
}

/// All of them, the longest first, so that two at a time end together.
fn cells() -> Vec<Cell> {
    [
        loadvm::CELLS,
        rack::CELLS,
        recorded::CELLS,
        units::CELLS,
        loaders::CELLS,
        made::CELLS,
        ram::CELLS,
        flash::CELLS,
        emmc::CELLS,
        linuxboot::CELLS,
        roots::CELLS,
        floor::CELLS,
    ]
    .concat()
}

fn main() -> ExitCode {
    match run(&Options::parse().completed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.list {
        for cell in cells() {
            println!("{:<28} {}", cell.name, cell.judges);
        }
        return Ok(());
    }
    let started = Instant::now();
    let done = perform(options)?;
    if let Some(file) = &options.report {
        std::fs::write(file, report::json(&done)?)
            .with_context(|| format!("write {}", file.display()))?;
    }
    println!("{}", report::table(&done));
    let failed = done.iter().filter(|cell| cell.result.is_err()).count();
    println!("{} passed, {failed} failed, {}", done.len() - failed, show::time(started.elapsed()));
    if failed > 0 { bail!("{failed} cells failed") } else { Ok(()) }
}

/// The cells that these words mean: each the cell of that name or, where there is none, those whose names contain it.
/// Without a word all of them.
fn chosen(mut cells: Vec<Cell>, words: &[String]) -> Vec<Cell> {
    let exact: Vec<bool> =
        words.iter().map(|word| cells.iter().any(|cell| cell.name == word)).collect();
    let means = |(word, exact): (&String, &bool), name: &str| match exact {
        true => name == word,
        false => name.contains(word.as_str()),
    };
    cells.retain(|cell| {
        words.is_empty() || words.iter().zip(&exact).any(|pair| means(pair, cell.name))
    });
    cells
}

/// Runs the cells that were asked for; all when none was.
fn perform(options: &Options) -> Result<Vec<Done>> {
    let (wanted, jobs) = (&options.cell, options.jobs);
    let chosen = chosen(cells(), wanted);
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
                    let Ok(Some((number, cell))) = next else { return };
                    let ended = cell.run(&world, &dir.join(cell.name));
                    if let Ok(mut done) = done.lock() {
                        done.push((number, ended));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|held| held.into_inner());
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, cell)| cell).collect())
}

fn remove_images(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry.path().extension().is_some_and(|kind| kind == "img" || kind == "cpio") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cells_are_unique_and_those_of_a_proof_exist() {
        let names: Vec<&str> = cells().iter().map(|cell| cell.name).collect();
        let unique: std::collections::BTreeSet<&&str> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        assert!(PROVE.iter().all(|name| names.contains(name)), "{names:?}");
    }

    #[test]
    fn a_word_means_the_cell_of_that_name_or_those_that_contain_it() {
        let named = |words: &[&str]| -> Vec<&str> {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            chosen(cells(), &words).iter().map(|cell| cell.name).collect()
        };
        assert_eq!(named(&["rack"]), ["rack"]);
        assert_eq!(named(&["mixed-rack", "rack"]), ["rack", "arm-mixed-rack"]);
        assert!(named(&["linuxboot-"]).len() > 1);
        assert_eq!(named(&[]).len(), cells().len());
        assert!(named(&["no such cell"]).is_empty());
    }
}
