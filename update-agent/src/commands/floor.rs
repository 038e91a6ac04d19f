//! `floor`: the security-version floor, what keeps it, and a new beginning after a lost TPM.

use formats::reason::{Exit, Reason};

use super::FloorArgs;
use crate::agent::{Agent, KeptIn};
use crate::error::AgentError;
use crate::output::Output;

/// `floor`
pub(super) fn floor(agent: &Agent, args: FloorArgs, output: Output) -> Result<Exit, AgentError> {
    let report = if args.renew { agent.renew_floor()? } else { agent.floor()? };
    let text = format!("security version {} ({})", report.security_version, report.guarantee);
    output.report(&report, &text);
    match report.kept_in {
        KeptIn::Lost => Ok(Reason::FloorLost.exit()),
        KeptIn::File | KeptIn::Tpm => Ok(Exit::Done),
    }
}
