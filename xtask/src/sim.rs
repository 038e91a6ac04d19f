//! `cargo xtask sim`: the power-cut proof. Builds `racklet-cuts` and runs it.

use std::ffi::OsString;

use anyhow::Result;
use racklet_tools::cmd::{Cmd, Finished};
use racklet_tools::{paths, programs};

/// Options of `cargo xtask sim`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What `racklet-cuts` is told: `--help`, `--deep`, `--seed N`, `--only TEXT`, `--replay FILE`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// `cargo xtask sim`
pub(crate) fn run(options: &Options) -> Result<()> {
    program(&options.arguments)?.watch()
}

/// Distinct states that `cargo xtask prove` asks for.
const STATES: &str = "250000";

/// What `cargo xtask prove` runs; its tables are part of what that shows.
pub(crate) fn check(build: bool) -> Result<Finished> {
    let arguments = ["--at-least", STATES].map(OsString::from);
    if build { program(&arguments)?.finish() } else { built(&arguments).finish() }
}

/// The same, as it was built last, on processors that nobody else wants (SCHED_IDLE): what runs beside it
/// waits for timeouts, disks and the network half of its time.
pub(crate) fn check_in_idle_time() -> Result<Finished> {
    let arguments = ["--at-least", STATES].map(OsString::from);
    built(&arguments).under("chrt", &["--idle"], "0").finish()
}

/// For so many minutes one seed after the other, as it was built last.
pub(crate) fn deep(minutes: &str) -> Result<Finished> {
    built(&["--deep", "--minutes", minutes].map(OsString::from)).finish()
}

/// Built with the features that everything else here has: after the tests, nothing is left to compile.
fn program(arguments: &[OsString]) -> Result<Cmd> {
    programs::command().args(["--bin", "racklet-cuts"]).watch()?;
    Ok(built(arguments))
}

fn built(arguments: &[OsString]) -> Cmd {
    let file = programs::tests_folder().join("racklet-cuts");
    Cmd::new(file).args(arguments).current_dir(&paths::root())
}
