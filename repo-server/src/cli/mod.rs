//! The command line: arguments to a configuration, errors to codes.

mod args;
mod fleet;
mod maintain;
mod output;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use formats::reason::Exit;
use storage::interrupt::{self, Ending};
use tokio::signal::unix::{SignalKind, signal};

use self::args::{Cli, Command};
use self::maintain::{collect, scrub};
use self::output::{explain_usage, print, tell_error};
use self::serve::serve;
use crate::ServerError;

/// The definition of the command line, for manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain_usage(error),
    };
    watch(&cli.command, cli.json);
    let done = survive_file_limits().and_then(|()| match &cli.command {
        Command::Serve(args) => serve(args, cli.json),
        Command::Scrub { place } => scrub(place, cli.json),
        Command::Gc { place, grace, states, dry_run } => {
            collect(place, (Duration::from_secs(*grace), *states), *dry_run, cli.json)
        }
        Command::Fleet(command) => fleet::run(command, cli.json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "repo-server", &mut script);
            print(&script).map(|()| Exit::Done)
        }
    });
    match done {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            interrupt::outcome();
            tell_error(&error, cli.json)
        }
    }
}

/// From here on, Ctrl-C and SIGTERM say what stands. The server stops in order instead.
fn watch(command: &Command, json: bool) {
    let what = match command {
        Command::Serve(_) | Command::Fleet(_) | Command::Completions { .. } => return,
        Command::Scrub { .. } => "not every blob was read, and nothing was changed",
        Command::Gc { dry_run: true, .. } => "nothing was deleted",
        Command::Gc { .. } => "not everything was looked at, and what was deleted was garbage",
    };
    interrupt::stands(what, "");
    interrupt::watch(move |ending| {
        if let Ending::Now(signal, stands) = ending {
            tell_error(&ServerError::Interrupted { signal, stands: stands.clone() }, json);
        }
    });
}

/// Makes a write beyond the file-size limit an error that is told, not the end of this program: the
/// kernel sends SIGXFSZ, and a program that handles it gets EFBIG.
fn survive_file_limits() -> Result<(), ServerError> {
    let failed = |source| ServerError::Io {
        doing: "handle SIGXFSZ of",
        path: PathBuf::from("this process"),
        source,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let _inside = runtime.enter();
    let number = rustix::process::Signal::XFSZ.as_raw();
    // The handler stays when what listens to it is gone.
    signal(SignalKind::from_raw(number)).map(drop).map_err(failed)
}
