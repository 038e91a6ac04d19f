//! The `signer` command.

use std::process::ExitCode;

use clap::Parser;
use signer::cli::{Arguments, harden, run};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    harden();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    run(Arguments::parse())
}
