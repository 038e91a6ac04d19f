//! The steps of `cargo xtask night`: what takes hours.

use anyhow::Result;

use super::prove::virtual_machines;
use super::runner::{Outcome, Step, build_programs};
use crate::{fuzz, sim};

/// The name of the tier.
pub(super) const TIER: &str = "night";

/// Seconds for each fuzz target: with about 30 targets on two processors, an hour.
const FUZZ_SECONDS: u64 = 240;
/// Minutes of power cuts with one seed after the other.
const CUT_MINUTES: &str = "120";

/// Everything that the other tiers take a sample of.
pub(super) const STEPS: &[Step] = &[
    Step { name: "programs are built", quick: false, run: |suite| suite.build(build_programs()) },
    Step {
        name: "virtual machines, every cell, 200 cuts at random moments",
        quick: false,
        run: |suite| virtual_machines(suite, &["--trials", "200", "--patience", "3"]),
    },
    Step { name: "power cuts, seed after seed", quick: false, run: |_| power_cuts() },
    Step { name: "fuzz", quick: false, run: |_| fuzz() },
];

fn power_cuts() -> Result<Outcome> {
    let done = sim::deep(CUT_MINUTES)?;
    print!("{}", done.stdout);
    Ok(Outcome { output: done.stderr.clone(), ..Outcome::of_command(&done) })
}

fn fuzz() -> Result<Outcome> {
    fuzz::run(&fuzz::Options::all(FUZZ_SECONDS))?;
    Ok(Outcome { passed: 1, failed: 0, failures: Vec::new(), output: String::new() })
}
