//! `update-agent`: parses arguments, calls the library, turns the result into an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use update_agent::commands::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(run(&cli).code())
}
