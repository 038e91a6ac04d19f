//! `reset`: asks, then makes the node forget its repository.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use formats::reason::{Exit, Reason};

use super::ResetArgs;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::output::Output;

/// `reset`
pub(super) fn reset(agent: &Agent, args: &ResetArgs, output: Output) -> Result<Exit, AgentError> {
    let approve = || if args.yes { Ok(()) } else { ask(output) };
    let report = agent.reset(args.root.as_deref(), approve)?;
    let from = match &report.new_root {
        Some(path) => format!("the root of {path}"),
        None => "the root it was given".to_owned(),
    };
    let text = format!(
        "this node has forgotten its repository and trusts {from}\n\
         slots and the security-version floor {} stay as they are; \
         `update-agent check` begins anew",
        report.floor
    );
    output.report(&report, &text);
    Ok(Exit::Done)
}

/// Asks a person, where there is one.
fn ask(output: Output) -> Result<(), AgentError> {
    let nobody = || {
        AgentError::new(
            Reason::Usage,
            "reset asks for confirmation, and there is no terminal to ask on",
        )
        .hint("add --yes if this node shall forget its repository")
    };
    if output.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(nobody());
    }
    let question =
        "Forget what this node trusts and begin again? Slots and the floor stay. [yes/no] ";
    let _ = write!(io::stderr(), "{question}").and_then(|()| io::stderr().flush());
    let mut answer = String::new();
    // An end of input is a no.
    let _ = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(AgentError::new(Reason::Declined, "nothing was changed")),
    }
}
