//! `update-agent`: parses arguments, calls the library, turns the result into an exit code.

// They panic when nobody reads any more, or the disk under a log is full.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser as _;
use update_agent::commands::{Cli, explain_usage, run};
use update_agent::exhausted::{
    Memory, end_where_no_thread_starts, share_one_heap, survive_file_size,
};
use update_agent::{chooser, config};

#[global_allocator]
static MEMORY: Memory = Memory;

fn main() -> ExitCode {
    share_one_heap();
    end_where_no_thread_starts();
    survive_file_size();
    if chooser::is_root_init() {
        chooser::run_root();
    }
    if chooser::is_init() {
        // The kernel hands words it does not know to the first process: they are not for us.
        chooser::run(config::DEFAULT_PATH.as_ref());
    }
    let exit = match Cli::try_parse() {
        Ok(cli) => run(&cli),
        Err(error) => explain_usage(&error),
    };
    ExitCode::from(exit.code())
}
