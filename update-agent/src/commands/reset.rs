//! `reset`: the node forgets its repository and begins again; what it runs stays as it is.
//!
//! ```text
//!  on trial? refused ── next? given up ── asked? ── marker durable ─► forgotten ─► marker removed
//!                                                   from here on the node is a new one
//! ```
//!
//! What stays: both slots and what is known of them, the boot flags, the security-version floor. They
//! are what keeps a reset from being a way back to an older system.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use formats::reason::{Exit, Reason};
use serde_json::json;
use update_core::boot::BootFlags;
use update_core::update::Task;

use super::ResetArgs;
use crate::agent::{Agent, ROOT_LIMIT};
use crate::error::AgentError;
use crate::output::Output;
use crate::state::StateGuard;
use crate::trust;

/// `reset`
pub(super) fn reset(agent: &Agent, args: &ResetArgs, output: Output) -> Result<Exit, AgentError> {
    let held = agent.state.hold()?;
    agent.settle(&held)?;
    let root = args.root.as_deref().map(|path| new_root(agent, path)).transpose()?;
    // Also without a new one: a node whose root cannot be read would know nothing afterwards.
    if root.is_none() {
        agent.shipped_root()?;
    }
    refuse_trial(agent)?;
    if !args.yes {
        ask(output)?;
    }
    give_up_next(agent, &held)?;
    agent.state.reset(&held, root.as_deref())?;
    let floor = agent.floor()?.floor;
    let value = json!({
        "reset": true,
        "booted": agent.disk.booted()?,
        "floor": floor,
        "new_root": args.root.as_deref().map(Path::display).map(|path| path.to_string()),
    });
    let from = match &args.root {
        Some(path) => format!("the root of {}", path.display()),
        None => "the root it was given".to_owned(),
    };
    let text = format!(
        "this node has forgotten its repository and trusts {from}\n\
         slots and the security-version floor {floor} stay as they are; \
         `update-agent check` begins anew"
    );
    output.result(value, &text);
    Ok(Exit::Done)
}

/// A root that its own keys signed, from a file that others cannot change.
fn new_root(agent: &Agent, path: &Path) -> Result<Vec<u8>, AgentError> {
    let bytes = agent.host.read_trusted(path, ROOT_LIMIT).map_err(|error| {
        AgentError::from(error)
            .or_config()
            .context("--root")
            .hint("give the root.json of the repository that this node shall belong to from now on")
    })?;
    trust::check_root(&bytes, agent.state.now())
        .map_err(|error| error.context(path.display().to_string()))?;
    Ok(bytes)
}

/// The slot that runs has to be one that the node can keep.
fn refuse_trial(agent: &Agent) -> Result<(), AgentError> {
    let booted = agent.disk.booted()?;
    let flags: BootFlags = agent.flags()?;
    let on_trial = agent.state.boot_record()?.update.is_some_and(|update| update.slot == booted);
    if on_trial || !flags.of(booted).confirmed() {
        let why = format!("slot {booted} is on trial: nobody knows yet whether it works");
        return Err(AgentError::new(Reason::TrialActive, why).hint(
            "wait for its checks, or run `update-agent confirm` (a first installation: \
                 `confirm --adopt`) or `update-agent revert`",
        ));
    }
    Ok(())
}

/// What waits for the next boot comes from the repository that is forgotten.
fn give_up_next(agent: &Agent, held: &StateGuard) -> Result<(), AgentError> {
    if agent.state.boot_record()?.update.is_none() {
        return Ok(());
    }
    let detail = "the node is reset".to_owned();
    agent.run(held, Task::Revert { detail }, None).map(drop)
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
    if output.json || output.quiet || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
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
