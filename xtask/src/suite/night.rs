//! The steps of `cargo xtask night`: what takes hours.

use anyhow::Result;
use racklet_tools::cross::Processor;
use racklet_tools::paths;
use racklet_tools::programs::Place;

use super::arm;
use super::progress::{Progress, together};
use super::prove::virtual_machines;
use super::runner::{Outcome, Step, Suite, build_programs};
use crate::{book, fuzz, package, previous, sim};

/// The name of the tier.
pub(super) const TIER: &str = "night";

/// Seconds for each fuzz target: with about 30 targets on two processors, an hour.
const FUZZ_SECONDS: u64 = 240;
/// Minutes of power cuts with one seed after the other.
const CUT_MINUTES: &str = "120";

/// Everything that the other tiers take a sample of.
pub(super) const STEPS: &[Step] = &[
    Step { name: "programs are built", quick: false, run: |suite| suite.build(build_programs()) },
    Step { name: "the previous landing's agent and this one", quick: false, run: both_ways },
    Step {
        name: "virtual machines, every cell, 200 cuts at random moments",
        quick: false,
        run: |suite| virtual_machines(suite, &["--trials", "200", "--patience", "3"]),
    },
    Step {
        name: "packages: policy, two builds, install, upgrade, purge",
        quick: false,
        run: |_| packages(Place::here()),
    },
    Step { name: "the book", quick: false, run: |_| the_book() },
    Step { name: "power cuts, seed after seed", quick: false, run: |_| power_cuts() },
    Step { name: "ARMv8: tests, emulated", quick: false, run: arm::tests },
    Step {
        name: "ARMv8: what is published has the same bytes",
        quick: false,
        run: |_| arm::same_bytes(),
    },
    Step {
        name: "ARMv8: two builds of the agent are the same",
        quick: false,
        run: |_| arm::same_agent(),
    },
    Step {
        name: "ARMv8: packages: policy, two builds, install, upgrade, purge",
        quick: false,
        run: |_| packages(Place::cross(Processor::Aarch64)?),
    },
    Step { name: "fuzz", quick: false, run: |_| fuzz() },
];

/// A clone without the previous landing fails here: nothing would have been shown.
fn both_ways(suite: &mut Suite) -> Result<Outcome> {
    let mut progress = Progress::new(&suite.pulse);
    let done = previous::both_ways()?.follow(|line| progress.line(line))?;
    Ok(together(vec![(progress.end(), done)]).0)
}

fn power_cuts() -> Result<Outcome> {
    let done = sim::deep(CUT_MINUTES)?;
    print!("{}", done.stdout);
    Ok(Outcome { output: done.stderr.clone(), ..Outcome::of_command(&done) })
}

fn packages(place: Place) -> Result<Outcome> {
    let (passed, failures) = package::judge::judge(place)?;
    let output = failures.iter().map(|fault| format!("{fault}\n")).collect();
    Ok(Outcome { passed, failed: failures.len() as u64, failures, output })
}

/// Without a warning, and with no link that leads nowhere.
fn the_book() -> Result<Outcome> {
    book::build(&paths::target().join("book"))?;
    Ok(Outcome { passed: 1, failed: 0, failures: Vec::new(), output: String::new() })
}

fn fuzz() -> Result<Outcome> {
    fuzz::run(&fuzz::Options::all(FUZZ_SECONDS))?;
    Ok(Outcome { passed: 1, failed: 0, failures: Vec::new(), output: String::new() })
}
