//! What is checked, in tiers: `cargo xtask test`, `prove` and `night`. What they call is installed beside the
//! first steps.
//!
//! ```text
//! test     format, lints, docs, licences, advisories, purity, every test      25 minutes, 12 when built
//! prove    power cuts, I/O faults, faulty variants, machines, release builds  30 minutes
//! night    every cell, long fuzzing, seed after seed, ARMv8                   a night
//! ```
//!
//! Each step runs even when an earlier one failed, so that one run tells everything; a failing step shows its
//! whole output. A long step gives a sign of life; the tests tell each binary as it ends. A run ends with a
//! table of where its time went, the names of what failed, and the line `N passed, N failed`: the tests of all
//! binaries, the cells, and one for each other step.

pub(crate) mod advisories;
mod arm;
mod binaries;
mod deny;
mod keys;
mod night;
mod progress;
mod prove;
mod purity;
mod release;
mod runner;
mod spdx;
mod summary;
mod test;

use anyhow::Result;

use runner::{Suite, Wanted};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct TestOptions {
    /// The inner loop: installs nothing, builds no docs, runs unit tests only. Not what CI runs.
    #[arg(long)]
    quick: bool,
    /// Only the steps whose name contains this.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
    /// Run the steps of `cargo xtask prove` as well; power cuts begin beside the tests. What CI runs.
    #[arg(long, conflicts_with = "quick")]
    prove: bool,
}

/// Options of `cargo xtask prove` and `cargo xtask night`.
#[derive(clap::Args)]
pub(crate) struct ProveOptions {
    /// Only the steps whose name contains this.
    #[arg(long, value_name = "WORD")]
    only: Option<String>,
}

/// `cargo xtask test`
pub(crate) fn test(options: &TestOptions) -> Result<()> {
    let setup = test::begin_setup(options.quick)?;
    let TestOptions { quick, prove, only } = options;
    let mut suite = Suite::new(Wanted { quick: *quick, only: only.clone(), power_cuts: *prove });
    suite.perform(test::TIER, test::OF_THE_SOURCE);
    if let Err(error) = test::end_setup(setup) {
        suite.failed(test::TIER, "setup", &error);
    }
    suite.perform(test::TIER, test::OF_THE_PROGRAMS);
    if *prove {
        suite.perform(prove::TIER, prove::STEPS);
    }
    suite.end()
}

/// `cargo xtask prove`
pub(crate) fn prove(options: &ProveOptions) -> Result<()> {
    test::end_setup(test::begin_setup(false)?)?;
    let mut suite =
        Suite::new(Wanted { quick: false, only: options.only.clone(), power_cuts: true });
    suite.perform(prove::TIER, prove::STEPS);
    suite.end()
}

/// `cargo xtask night`
pub(crate) fn night(options: &ProveOptions) -> Result<()> {
    test::end_setup(test::begin_setup(false)?)?;
    let mut suite =
        Suite::new(Wanted { quick: false, only: options.only.clone(), power_cuts: false });
    suite.perform(night::TIER, night::STEPS);
    suite.end()
}
