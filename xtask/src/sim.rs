//! `cargo xtask sim`: the power-cut proof. Builds `racklet-cuts` and runs it.

use std::ffi::OsString;

use anyhow::Result;

use crate::cmd::{Cmd, Finished};
use crate::paths;

/// Options of `cargo xtask sim`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What `racklet-cuts` is told: `--help`, `--deep`, `--seed N`, `--only TEXT`, `--replay FILE`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// `cargo xtask sim`
pub(crate) fn run(options: &Options) -> Result<()> {
    build()?;
    program(&options.arguments).watch()
}

/// What CI runs; its tables are part of what CI shows.
pub(crate) fn check() -> Result<Finished> {
    crate::dist::for_tests()?;
    program(&[]).finish()
}

fn build() -> Result<()> {
    Cmd::cargo().args(["build", "--locked", "-p", "racklet-cuts"]).run().map(drop)
}

fn program(arguments: &[OsString]) -> Cmd {
    Cmd::new(paths::target().join("debug/racklet-cuts")).args(arguments).current_dir(&paths::root())
}
