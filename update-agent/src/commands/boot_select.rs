//! `boot-select --simulate`: what the boot loader does, on the same disk, without booting.

use formats::reason::Exit;

use crate::agent::Agent;
use crate::error::AgentError;
use crate::output::Output;

/// `boot-select --simulate`
pub(super) fn simulate(agent: &Agent, output: Output) -> Result<Exit, AgentError> {
    let report = agent.simulate_boot()?;
    let left = if report.successful {
        "confirmed".to_owned()
    } else {
        format!("on trial, {} tries left", report.tries)
    };
    output.report(&report, &format!("slot {} boots ({left})", report.slot));
    Ok(Exit::Done)
}
