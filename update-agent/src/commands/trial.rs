//! `confirm`, `revert` and `mark-bad`: ending a trial by hand.

use formats::reason::{Exit, Reason};
use serde_json::json;
use update_core::update::{Outcome, Task};

use super::{ConfirmArgs, MarkBadArgs, RevertArgs};
use crate::agent::Agent;
use crate::error::AgentError;
use crate::output::Output;
use crate::state::StateGuard;

/// `confirm`
pub(super) fn confirm(
    agent: &Agent,
    args: ConfirmArgs,
    output: Output,
) -> Result<Exit, AgentError> {
    let held = agent.state.hold()?;
    let settled = agent.settle(&held)?;
    if let Outcome::Confirmed(slot) = settled {
        output.result(json!({ "confirmed": slot }), &format!("slot {slot} is confirmed"));
        return Ok(Exit::Done);
    }
    let task = if args.adopt { Task::Adopt } else { Task::Confirm };
    let ended = agent.run(&held, task, None)?;
    let Outcome::Confirmed(slot) = ended.outcome else {
        return Err(AgentError::new(Reason::BootRecord, "the slot was not confirmed"));
    };
    let floor = agent.floor()?.floor;
    let value = json!({ "confirmed": slot, "floor": floor });
    output.result(value, &format!("slot {slot} is confirmed; security-version floor {floor}"));
    Ok(Exit::Done)
}

/// `revert`
pub(super) fn revert(agent: &Agent, args: &RevertArgs, output: Output) -> Result<Exit, AgentError> {
    let held = agent.state.hold()?;
    let settled = agent.settle(&held)?;
    let outcome = match settled {
        // An earlier revert was cut, or the boot loader reverted already: that was it.
        Outcome::Reverted { .. } => settled,
        _ => agent.run(&held, Task::Revert { detail: args.reason.clone() }, None)?.outcome,
    };
    given_up(agent, held, outcome, args.reboot, output)
}

/// `mark-bad`
pub(super) fn mark_bad(
    agent: &Agent,
    args: &MarkBadArgs,
    output: Output,
) -> Result<Exit, AgentError> {
    let held = agent.state.hold()?;
    let settled = agent.settle(&held)?;
    let node = agent.node()?;
    let pending = node.record.update.as_ref().map(|update| update.slot);
    let outcome = match (settled, args.slot.or(pending)) {
        (settled @ Outcome::Reverted { slot: bad, .. }, slot) if slot.is_none_or(|s| s == bad) => {
            settled
        }
        (_, None) => {
            return Err(AgentError::new(Reason::NotPending, "no update is under way")
                .hint("name the slot: --slot a or --slot b"));
        }
        (_, Some(slot)) => {
            let task = Task::MarkBad { slot, detail: args.reason.clone() };
            agent.run(&held, task, None)?.outcome
        }
    };
    given_up(agent, held, outcome, args.reboot, output)
}

fn given_up(
    agent: &Agent,
    held: StateGuard,
    outcome: Outcome,
    reboot_now: bool,
    output: Output,
) -> Result<Exit, AgentError> {
    let Outcome::Reverted { slot, reboot, detail, .. } = outcome else {
        return Err(AgentError::new(Reason::BootRecord, "the slot was not given up"));
    };
    let next = if reboot {
        format!("reboot to leave it for slot {}", slot.other())
    } else {
        format!("slot {} goes on", slot.other())
    };
    let value = json!({ "given_up": slot, "next": slot.other(), "reboot": reboot, "why": detail });
    output.result(value, &format!("slot {slot} is given up ({detail}); {next}"));
    if reboot && reboot_now {
        drop(held);
        agent.reboot()?;
    }
    Ok(Exit::Done)
}
