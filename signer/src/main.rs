//! The `signer` command.

// They panic when the reader has gone or the disk under a log is full.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use signer::cli::{Arguments, explain_usage, harden, run, survive_file_limits};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    harden();
    survive_file_limits();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(storage::log::stderr)
        // Colours are escapes, and of those none passes.
        .with_ansi(false)
        // It would be told on the same standard error, with a panic where that is full.
        .log_internal_errors(false)
        .init();
    match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(error) => explain_usage(&error),
    }
}
