//! What a command says when Ctrl-C or SIGTERM ends it.

use storage::interrupt;

use super::Command;
use crate::output::Output;

/// From here on, the command says what stands when it is interrupted.
///
/// The daemon dies in silence: whoever stops it has its journal, and the next round settles what was
/// cut. So does what runs in an initramfs, where nobody reads.
pub(super) fn watch(command: &Command, output: Output) {
    if let Some((what, next)) = stands(command) {
        interrupt::stands(what, next);
        output.watch();
    }
}

/// What stands from the start; [`Plan::install`](crate::agent) knows more later.
fn stands(command: &Command) -> Option<(&'static str, &'static str)> {
    match command {
        Command::Run(args) if !args.once => None,
        Command::RestartTrial | Command::MapRoot(_) | Command::Completions { .. } => None,
        Command::Check
        | Command::Plan(_)
        | Command::Apply(_)
        | Command::Status
        | Command::Explain
        | Command::History
        | Command::Doctor
        | Command::Config(_)
        | Command::Health
        | Command::Verify(_)
        | Command::Metrics(_)
        | Command::Report(_) => Some(("no slot was changed", "run it again")),
        Command::Run(_) => {
            Some(("the round is not complete", "run it again: it goes on from here"))
        }
        Command::Confirm(_)
        | Command::Revert(_)
        | Command::MarkBad(_)
        | Command::Floor(_)
        | Command::Reset(_)
        | Command::BootSelect(_) => Some((
            "it may be half done",
            "run it again: it goes on from here; `update-agent status` tells how the node stands",
        )),
    }
}
