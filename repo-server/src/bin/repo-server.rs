//! The `repo-server` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    repo_server::cli::main()
}
