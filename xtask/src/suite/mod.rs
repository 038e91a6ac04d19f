//! Everything CI runs: `cargo xtask test`. What it calls is installed beside the first steps.
//!
//! Each step runs even when an earlier one failed, so that one run tells everything; a failing
//! step shows its whole output. A long step gives a sign of life; the tests tell each binary as it ends. The last line is `N passed, N failed`: the tests of all binaries,
//! and one for each step that is not tests.

pub(crate) mod advisories;
mod deny;
mod keys;
mod progress;
mod purity;
mod release;
mod spdx;

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};
use formats::tuf::UnixTime;

use racklet_tools::cmd::{Cmd, Finished};
use racklet_tools::programs;
use racklet_tools::pulse::Pulse;
use racklet_tools::{paths, setup, show};

use crate::{dist, sim, vm};
use progress::Progress;

/// At the latest after so long a step gives a sign of life.
const PULSE: Duration = Duration::from_secs(45);

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The inner loop: nothing is installed, no docs, no release build, unit tests only. Not what CI runs.
    #[arg(long)]
    quick: bool,
    /// Only the steps whose name contains this.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
}

/// What one step found.
struct Outcome {
    passed: u64,
    failed: u64,
    /// Shown in full when something failed.
    output: String,
}

/// A run of the suite, as its steps see it.
struct Suite<'a> {
    options: &'a Options,
    /// The sign of life of the step that runs.
    pulse: Pulse,
    /// Begun as soon as it is built: it takes what the steps before its own leave of the processors.
    power_cuts: Option<JoinHandle<Result<Finished>>>,
    passed: u64,
    /// The steps in which something failed, and how much.
    failed: Vec<(&'static str, u64)>,
}

impl Suite<'_> {
    fn wants(&self, name: &str, only_in_full: bool) -> bool {
        let named = self.options.only.as_ref().is_none_or(|word| name.contains(word.as_str()));
        named && !(self.options.quick && only_in_full)
    }

    /// A cargo command as a step: the sign of life says which crate it is at.
    fn cargo(&self, args: &[&str]) -> Result<Outcome> {
        Ok(one(cargo_cmd(args).follow(|line| self.pulse.at(line.trim()))?))
    }

    fn perform(&mut self, steps: &'static [(&'static str, bool, Step)]) {
        for &(name, only_in_full, step) in steps {
            if !self.wants(name, only_in_full) {
                continue;
            }
            println!("== {name}");
            self.pulse = pulse();
            let started = Instant::now();
            let outcome = step(self).unwrap_or_else(|error| Outcome {
                passed: 0,
                failed: 1,
                output: format!("{error:#}\n"),
            });
            // Dropping the old one lets it say everything first.
            self.pulse = pulse();
            self.passed += outcome.passed;
            let word = if outcome.failed == 0 { "ok" } else { "FAILED" };
            if outcome.failed > 0 {
                print!("{}", outcome.output);
                self.failed.push((name, outcome.failed));
            }
            println!("   {word}, {}", show::time(started.elapsed()));
        }
    }
}

/// `cargo xtask test`: fails when any step did.
pub(crate) fn run(options: &Options) -> Result<()> {
    let setup = installing(options)?;
    let mut suite =
        Suite { options, pulse: pulse(), power_cuts: None, passed: 0, failed: Vec::new() };
    suite.perform(OF_THE_SOURCE);
    if let Some(setup) = setup {
        setup.join().map_err(|_| anyhow!("whoever installed packages panicked"))??;
    }
    suite.perform(OF_THE_PROGRAMS);
    let failed: u64 = suite.failed.iter().map(|(_, count)| count).sum();
    if failed > 0 {
        let names: Vec<&str> = suite.failed.iter().map(|(name, _)| *name).collect();
        println!("failed: {}", names.join(", "));
    }
    println!("{} passed, {failed} failed", suite.passed);
    // The line above says it; a second message after it would hide it from those who read the end.
    if failed > 0 { std::process::exit(1) } else { Ok(()) }
}

/// Installs what tests call, most of which a newcomer's machine lacks, beside the first steps. Whoever may not
/// install is told at once what is missing.
fn installing(options: &Options) -> Result<Option<JoinHandle<Result<()>>>> {
    let everything = setup::Options::everything();
    if options.quick {
        return Ok(None);
    }
    if !paths::is_root() {
        return setup::run(&everything).map(|()| None);
    }
    Ok(Some(thread::spawn(move || setup::run(&everything))))
}

fn pulse() -> Pulse {
    Pulse::new(PULSE, |line| println!("{line}"))
}

type Step = fn(&mut Suite<'_>) -> Result<Outcome>;

/// Name, whether `--quick` leaves it out, and what it does; cheapest first. These need nothing but cargo.
const OF_THE_SOURCE: &[(&str, bool, Step)] = &[
    ("format", false, |suite| suite.cargo(&["fmt", "--all", "--check"])),
    ("lock file committed and complete", false, |_| lock_file()),
    ("licences, sources, bans", false, |_| findings(deny::check()?)),
    ("advisories", false, |_| findings(advisories::check(now()?)?)),
    ("the pure crates do no I/O", false, |_| findings(purity::check()?)),
    ("no example key in anything packaged", false, |_| findings(keys::check()?)),
    ("clippy", false, |suite| {
        suite.cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
    }),
    ("docs", true, |suite| suite.cargo(&["doc", "--workspace", "--no-deps", "--locked"])),
];

/// These call other people's programs.
const OF_THE_PROGRAMS: &[(&str, bool, Step)] = &[
    ("tests", false, tests),
    ("virtual machines", true, |_| virtual_machines()),
    ("release programs hold no fault injection", true, |_| findings(release::check()?)),
    ("two builds of the agent are the same", true, |_| findings(dist::reproduce::agent()?)),
    (POWER_CUTS, true, power_cuts),
];

const POWER_CUTS: &str = "power cuts";

/// `cargo` as CI must see it: no colour, no snapshot updates, warnings in docs denied.
fn cargo_cmd(args: &[&str]) -> Cmd {
    Cmd::cargo()
        .args(args)
        .env("CI", "true")
        .env("INSTA_UPDATE", "no")
        .env("RUSTDOCFLAGS", "-D warnings")
}

fn now() -> Result<UnixTime> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(UnixTime::from_secs(since.as_secs().try_into()?))
}

/// A command counts as one: passed when it exits 0.
fn one(done: Finished) -> Outcome {
    let good = u64::from(done.code == 0);
    Outcome { passed: good, failed: 1 - good, output: done.output() }
}

/// A list of faults counts as one: passed when it is empty.
fn findings(faults: Vec<String>) -> Result<Outcome> {
    let good = u64::from(faults.is_empty());
    Ok(Outcome {
        passed: good,
        failed: 1 - good,
        output: faults.iter().map(|f| format!("{f}\n")).collect(),
    })
}

fn lock_file() -> Result<Outcome> {
    let tracked = Cmd::new("git")
        .args(["ls-files", "--error-unmatch", "Cargo.lock"])
        .current_dir(&paths::root())
        .finish()?;
    if tracked.code != 0 {
        return Ok(one(tracked));
    }
    let mut done = cargo_cmd(&["metadata", "--locked", "--format-version", "1"]).finish()?;
    done.stdout.clear();
    Ok(one(done))
}

/// Its tables are shown however it ends: what was cut, and that nothing was lost.
fn power_cuts(suite: &mut Suite<'_>) -> Result<Outcome> {
    let done = match suite.power_cuts.take() {
        Some(begun) => begun.join().map_err(|_| anyhow!("whoever waited for it panicked"))??,
        None => sim::check()?,
    };
    print!("{}", done.stdout);
    Ok(Outcome { output: done.stderr.clone(), ..one(done) })
}

fn tests(suite: &mut Suite<'_>) -> Result<Outcome> {
    let mut args = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    if suite.options.quick {
        args.extend(["--lib", "--bins"]);
    } else {
        programs::for_tests()?;
        if suite.wants(POWER_CUTS, true) {
            suite.power_cuts = Some(thread::spawn(sim::check_in_idle_time));
        }
    }
    // Half of the time they wait: for timeouts of the network, for disks.
    let threads = thread::available_parallelism().map_or(2, |count| 2 * count.get());
    let command = cargo_cmd(&args).env("RUST_TEST_THREADS", threads.to_string());
    let mut progress = Progress::new(&suite.pulse);
    let done = command.follow(|line| progress.line(line))?;
    let progress::Counts { passed, mut failed } = progress.sum();
    // A crate that does not build, or a test binary that dies, prints no result line.
    let output = if done.code != 0 && failed == 0 {
        failed = 1;
        done.output()
    } else {
        progress::failing(&done.stdout)
    };
    Ok(Outcome { passed, failed, output })
}

/// Each cell counts as one. The table is shown whatever came of it.
fn virtual_machines() -> Result<Outcome> {
    let done = vm::perform(&vm::Options::tier())?;
    println!("{}", vm::table(&done));
    let failures: Vec<String> = done
        .iter()
        .filter_map(|cell| Some(format!("{}: {:#}\n", cell.name, cell.result.as_ref().err()?)))
        .collect();
    let failed = failures.len() as u64;
    Ok(Outcome { passed: done.len() as u64 - failed, failed, output: failures.concat() })
}

/// Files git knows, relative to the workspace root.
fn tracked_files() -> Result<Vec<String>> {
    let text = Cmd::new("git").arg("ls-files").current_dir(&paths::root()).read()?;
    Ok(text.lines().map(str::to_string).collect())
}
