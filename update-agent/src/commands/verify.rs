//! `verify`: whether slots are what was signed.

use formats::reason::Exit;

use super::VerifyArgs;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::output::Output;
use crate::progress;

/// `verify`
pub(super) fn verify(agent: &Agent, args: VerifyArgs, output: Output) -> Result<Exit, AgentError> {
    let report = agent.verify(args.slot, progress::start(output.json).as_ref())?;
    let text = match report.verified.len() {
        1 => "1 image is exactly what was signed".to_owned(),
        images => format!("{images} images are exactly what was signed"),
    };
    output.report(&report, &text);
    Ok(Exit::Done)
}
