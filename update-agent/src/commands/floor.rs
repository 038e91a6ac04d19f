//! `floor`: the security-version floor, what keeps it, and a new beginning after a lost TPM.

use formats::reason::{Exit, Reason};
use serde_json::{Value, json};
use update_core::floor::{Guarantee, Judged};

use super::FloorArgs;
use crate::agent::Agent;
use crate::error::AgentError;
use crate::output::Output;

/// `floor`
pub(super) fn floor(agent: &Agent, args: FloorArgs, output: Output) -> Result<Exit, AgentError> {
    let judged = if args.renew { agent.renew_floor()? } else { agent.floor()? };
    let since = agent.state.floor_record()?.older_since;
    let text = format!("security version {} ({})", judged.floor, guarantee(&judged));
    output.result(value(&judged, since), &text);
    match judged.guarantee {
        Guarantee::Lost(_) => Ok(Reason::FloorLost.exit()),
        _ => Ok(Exit::Done),
    }
}

/// What `status` and `floor` say of it.
pub(super) fn value(judged: &Judged, older_since: Option<u64>) -> Value {
    let kept_in = match judged.guarantee {
        Guarantee::File | Guarantee::NotYet => "file",
        Guarantee::Tpm => "tpm",
        Guarantee::Lost(_) => "lost",
    };
    json!({
        "security_version": judged.floor,
        "kept_in": kept_in,
        "guarantee": guarantee(judged),
        "older_state": judged.older_state,
        "older_since": older_since,
    })
}

/// Which attacks the floor stops; said wherever it is shown.
pub(super) fn guarantee(judged: &Judged) -> String {
    match &judged.guarantee {
        Guarantee::File => {
            "kept in two files: stops remote rollback, not a replaced disk".to_owned()
        }
        Guarantee::NotYet => {
            "kept in two files until the TPM's counter is made, at the next update".to_owned()
        }
        Guarantee::Tpm if judged.older_state => {
            "kept in the TPM; this state is older: an old disk was put back, or it was lost"
                .to_owned()
        }
        Guarantee::Tpm if judged.open => {
            "kept in the TPM by an older agent: whoever may open the TPM can stop updates; run \
             `update-agent floor --renew`"
                .to_owned()
        }
        Guarantee::Tpm => "kept in the TPM: a replaced disk does not lower it".to_owned(),
        Guarantee::Lost(why) => format!("lost, updates are refused: {why}"),
    }
}
