//! `racklet-cuts`: the power-cut proof as a program; `cargo xtask sim` builds and runs it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use racklet_cuts::node::Backend;
use racklet_cuts::rows::Name;
use racklet_cuts::scenario::Row;
use racklet_cuts::sweep::{self, Size};
use racklet_cuts::{faults, lying, report, store, story, variants};

/// Cuts the power at every operation of every scenario, on every boot backend.
#[derive(Parser)]
#[command(name = "cargo xtask sim", version)]
struct Cli {
    /// Only rows whose name contains this (`confirm / gpt`).
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only these parts: cuts, faults, variants, lying.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    part: Vec<String>,
    /// Decides every draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Goes on with one seed after the other; what was done is kept, and gone on from.
    #[arg(long)]
    deep: bool,
    /// With `--deep`: ends after the round in which so many minutes are over.
    #[arg(long, default_value_t = 480, value_name = "MINUTES")]
    minutes: u64,
    /// Fail when the cuts leave fewer distinct states than this.
    #[arg(long, value_name = "STATES", conflicts_with_all = ["only", "part", "deep"])]
    at_least: Option<usize>,
    /// Threads; two per processor when absent, because the runs wait for threads of their own.
    #[arg(long)]
    threads: Option<usize>,
    /// Where failing states, and what `--deep` has done, are kept.
    #[arg(long, default_value = "target/sim", value_name = "DIR")]
    out: PathBuf,
    /// Tells the story of a saved state, and judges it again.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

impl Cli {
    fn wants(&self, part: &str) -> bool {
        self.part.is_empty() || self.part.iter().any(|wanted| wanted == part)
    }

    fn rows(&self) -> Vec<Name> {
        let fits =
            |name: &Name| self.only.as_ref().is_none_or(|only| name.text().contains(only.as_str()));
        Name::all().into_iter().filter(fits).collect()
    }

    fn threads(&self) -> usize {
        let all = || 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(all)
    }
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    // A panic in a run is a finding; its backtrace would hide the table.
    if cli.replay.is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if let Some(path) = &cli.replay {
        return Ok(if story::replay(path)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let started = Instant::now();
    fs::create_dir_all(&cli.out).with_context(|| format!("make {}", cli.out.display()))?;
    let mut failed = 0;
    if cli.deep {
        failed += deep(&cli, started)?;
    } else {
        if cli.wants("cuts") {
            failed += cuts(&cli, Size::ci(cli.seed), None)?;
        }
        if cli.wants("faults") {
            failed += all_faults(&cli)?;
        }
        if cli.wants("variants") {
            failed += all_variants(&cli)?;
        }
        if cli.wants("lying") {
            all_lying(&cli)?;
        }
    }
    println!("seed {}, {:.0} s, {failed} failures", cli.seed, started.elapsed().as_secs_f64());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One seed after the other, each state once.
fn deep(cli: &Cli, started: Instant) -> Result<usize> {
    let round_file = cli.out.join(format!("deep-{}.round", cli.seed));
    let known = fs::read_to_string(&round_file).unwrap_or_default();
    let mut round: u64 = known.trim().parse().unwrap_or(0);
    let mut failed = 0;
    while started.elapsed() < Duration::from_secs(cli.minutes * 60) {
        println!("round {round}");
        let size = Size::deep(cli.seed.wrapping_add(round.wrapping_mul(0x9e37_79b9)));
        failed += cuts(cli, size, Some(&cli.out))?;
        round += 1;
        fs::write(&round_file, round.to_string())?;
    }
    Ok(failed)
}

fn cuts(cli: &Cli, size: Size, keep: Option<&Path>) -> Result<usize> {
    let mut total = report::Total::default();
    println!("{}", report::head());
    for name in cli.rows() {
        let row = match name.ready() {
            Ok(row) => row,
            Err(why) => {
                println!("{}: cannot run uncut: {why}", name.text());
                total.failed += 1;
                continue;
            }
        };
        let file_name = row.name().replace([' ', '/', '(', ')'], "-");
        let seen_file = keep.map(|dir| dir.join(format!("{file_name}-{}.seen", cli.seed)));
        let known = seen_file.as_deref().map(read_seen).unwrap_or_default();
        let (found, seen) = sweep::sweep_beyond(row.as_ref(), size, cli.threads(), known);
        if let Some(file) = &seen_file {
            write_seen(file, &seen)?;
        }
        println!("{}", report::line(row.as_ref(), &found));
        for (nth, failure) in found.failures.iter().enumerate() {
            let file = cli.out.join(format!("{file_name}-{nth}.json"));
            story::save(row.as_ref(), failure, &file)?;
            println!("  {}\n  cargo xtask sim --replay {}", failure.why, file.display());
            if nth == 0 {
                story::words(row.as_ref(), failure).iter().for_each(|line| println!("  | {line}"));
            }
        }
        total.add(&found);
    }
    println!("{}", total.words());
    if let Some(least) = cli.at_least.filter(|least| total.states() < *least) {
        println!("fewer than {least} distinct states: the scenarios or their size shrank");
        total.failed += 1;
    }
    Ok(total.failed)
}

fn read_seen(path: &Path) -> HashSet<u64> {
    let bytes = fs::read(path).unwrap_or_default();
    let (whole, _) = bytes.as_chunks();
    whole.iter().map(|hash| u64::from_le_bytes(*hash)).collect()
}

fn write_seen(path: &Path, seen: &HashSet<u64>) -> Result<()> {
    let bytes: Vec<u8> = seen.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

fn all_faults(cli: &Cli) -> Result<usize> {
    println!("{}", report::fault_head());
    let mut failed = 0;
    for name in cli.rows() {
        // The state files are the same on all of them: one goes through everything.
        if let Name::Node(scenario, backend) = name
            && backend != Backend::Gpt
            && !scenario.small
            && cli.only.is_none()
        {
            continue;
        }
        let row = name.ready().map_err(anyhow::Error::msg)?;
        let found = faults::inject(row.as_ref(), cli.threads()).map_err(anyhow::Error::msg)?;
        println!("{}", report::fault_line(row.as_ref(), &found));
        found.failures.iter().for_each(|failure| println!("  {failure}"));
        failed += found.failed;
    }
    Ok(failed)
}

fn all_variants(cli: &Cli) -> Result<usize> {
    println!("faulty programs, and what caught each");
    let mut escaped = 0;
    let size = Size::variant(cli.seed);
    let wanted = |name: &str| cli.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let mut tell = |name: &str, place: &str, caught: Result<Option<variants::Caught>, String>| {
        match caught.map_err(anyhow::Error::msg)? {
            Some(caught) => println!("{}", report::variant_line(name, place, &caught)),
            None => {
                println!("{name}: NOT CAUGHT");
                escaped += 1;
            }
        }
        anyhow::Ok(())
    };
    for variant in variants::ALL.iter().filter(|variant| wanted(variant.name)) {
        let place = format!("{} / {}", variant.scenario, variant.backend.name());
        tell(variant.name, &place, variant.catch(size, cli.threads()))?;
    }
    for variant in store::VARIANTS.iter().filter(|variant| wanted(variant.name)) {
        tell(variant.name, variant.scenario, variant.catch(size, cli.threads()))?;
    }
    Ok(escaped)
}

fn all_lying(cli: &Cli) -> Result<()> {
    println!("{}", report::lying_head());
    for name in cli.rows() {
        let Name::Node(scenario, backend) = name else { continue };
        if !["apply", "confirm"].contains(&scenario.name) && cli.only.is_none() {
            continue;
        }
        let row = Row::new(scenario, backend).map_err(anyhow::Error::msg)?;
        let found = lying::measure(&row, Size::variant(cli.seed)).map_err(anyhow::Error::msg)?;
        println!("{}", report::lying_line(&row, &found));
    }
    Ok(())
}
