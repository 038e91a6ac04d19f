//! What a command says when Ctrl-C or SIGTERM ends it.

use storage::interrupt;

use super::args::{BundleArgs, ChannelCommand, Command, KeyCommand, ReleaseCommand};
use super::output;

const LOOKS: (&str, &str) = ("nothing was changed", "run it again");
const PUBLISHES: (&str, &str) =
    ("nodes see all of it or nothing", "run it again: it goes on from here");
const WRITES: (&str, &str) = ("it may be half done", "run it again");

/// From here on, the command says what stands when it is interrupted.
pub(super) fn watch(command: &Command, json: bool) {
    let (what, next) = stands(command);
    interrupt::stands(what, next);
    output::watch(json && !makes_standard_output(command));
}

fn stands(command: &Command) -> (&'static str, &'static str) {
    match command {
        Command::Change(change) if change.is_dry_run() => LOOKS,
        Command::Channel { command: ChannelCommand::Change(change) } if change.is_dry_run() => {
            LOOKS
        }
        Command::Release { command: ReleaseCommand::Change(change) } if change.is_dry_run() => {
            LOOKS
        }
        Command::Inspect { .. }
        | Command::Verify { .. }
        | Command::Lint(_)
        | Command::Status(_)
        | Command::Log { command: None, .. }
        | Command::PackageRoot { .. }
        | Command::Completions { .. }
        | Command::Fleet { .. }
        | Command::Channel { command: ChannelCommand::Show { .. } | ChannelCommand::List { .. } }
        | Command::Release { command: ReleaseCommand::List { .. } }
        | Command::Key { command: KeyCommand::List { .. } } => LOOKS,
        Command::Change(_)
        | Command::Channel { command: ChannelCommand::Change(_) }
        | Command::Release { command: ReleaseCommand::Change(_) }
        | Command::Commit { .. }
        | Command::Refresh { .. } => PUBLISHES,
        Command::Bundle(_) => ("the bundle is not complete", "run it again"),
        Command::Download(_) => ("there is no file under that name", "run it again"),
        Command::Factory(_) => ("there is no disk under that name", "run it again"),
        Command::Stage { .. } | Command::Sign(_) | Command::Log { .. } | Command::Key { .. } => {
            WRITES
        }
    }
}

fn makes_standard_output(command: &Command) -> bool {
    matches!(command, Command::Bundle(BundleArgs { output, .. }) if output.as_os_str() == "-")
}
