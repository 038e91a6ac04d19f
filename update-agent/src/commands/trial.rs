//! `confirm`, `revert` and `mark-bad`: ending a trial by hand.

use formats::reason::Exit;

use super::{ConfirmArgs, MarkBadArgs, RevertArgs};
use crate::agent::{Agent, MarkBadOptions, RevertOptions, RevertReport};
use crate::error::AgentError;
use crate::output::Output;

/// `confirm`
pub(super) fn confirm(
    agent: &Agent,
    args: ConfirmArgs,
    output: Output,
) -> Result<Exit, AgentError> {
    let report = if args.adopt { agent.adopt()? } else { agent.confirm()? };
    let slot = report.confirmed;
    let text = match report.floor {
        Some(floor) => format!("slot {slot} is confirmed; security-version floor {floor}"),
        None => format!("slot {slot} is confirmed"),
    };
    output.report(&report, &text);
    Ok(Exit::Done)
}

/// `revert`
pub(super) fn revert(agent: &Agent, args: &RevertArgs, output: Output) -> Result<Exit, AgentError> {
    let report = agent.revert(&RevertOptions { reason: args.reason.clone() })?;
    reverted(agent, &report, args.reboot, output)
}

/// `mark-bad`
pub(super) fn mark_bad(
    agent: &Agent,
    args: &MarkBadArgs,
    output: Output,
) -> Result<Exit, AgentError> {
    let options = MarkBadOptions { slot: args.slot, reason: args.reason.clone() };
    let report = agent.mark_bad(&options)?;
    reverted(agent, &report, args.reboot, output)
}

fn reverted(
    agent: &Agent,
    report: &RevertReport,
    reboot_now: bool,
    output: Output,
) -> Result<Exit, AgentError> {
    let RevertReport { slot, next, why, .. } = report;
    let then = if report.reboot {
        format!("reboot to leave it for slot {next}")
    } else {
        format!("slot {next} stays in use")
    };
    output.report(report, &format!("slot {slot} is marked bad ({why}); {then}"));
    if report.reboot && reboot_now {
        agent.noting(|| agent.reboot())?;
    }
    Ok(Exit::Done)
}
