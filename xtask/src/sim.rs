//! `cargo xtask sim`: the power-cut proof. Builds `racklet-cuts` and runs it.

use std::ffi::OsString;

use anyhow::Result;

use racklet_tools::cmd::{Cmd, Finished};
use racklet_tools::paths;
use racklet_tools::programs;

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

/// What CI runs; its tables are part of what CI shows.
pub(crate) fn check() -> Result<Finished> {
    program(&[])?.finish()
}

/// The same, as it was built last, on processors that nobody else wants (SCHED_IDLE): what runs beside it
/// waits for timeouts, disks and the network half of its time.
pub(crate) fn check_in_idle_time() -> Result<Finished> {
    built(&[]).under("chrt", &["--idle"], "0").finish()
}

/// The one that tests are built with: after them, nothing is left to compile.
fn program(arguments: &[OsString]) -> Result<Cmd> {
    programs::for_tests()?;
    Ok(built(arguments))
}

fn built(arguments: &[OsString]) -> Cmd {
    let file = programs::tests_folder().join("racklet-cuts");
    Cmd::new(file).args(arguments).current_dir(&paths::root())
}
