//! What an agent says of its floor.

use serde::Serialize;
use update_core::floor::{Guarantee, Judged};

use super::super::Agent;
use crate::error::AgentError;

/// The security-version floor, what keeps it, and which attacks that stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FloorReport {
    /// The floor: releases below it never run here again.
    pub security_version: u64,
    /// What keeps it.
    pub kept_in: KeptIn,
    /// Which attacks it stops, in words.
    pub guarantee: String,
    /// Whether this state is older than the TPM.
    pub older_state: bool,
    /// Unix seconds at which that was noticed, if ever.
    pub older_since: Option<u64>,
}

/// What keeps the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptIn {
    /// Two copies of a file.
    File,
    /// A counter of the TPM.
    Tpm,
    /// The TPM kept it, and is lost: updates are refused.
    Lost,
}

impl FloorReport {
    pub(crate) fn new(judged: &Judged, older_since: Option<u64>) -> Self {
        FloorReport {
            security_version: judged.floor,
            kept_in: match judged.guarantee {
                Guarantee::File | Guarantee::NotYet => KeptIn::File,
                Guarantee::Tpm => KeptIn::Tpm,
                Guarantee::Lost(_) => KeptIn::Lost,
            },
            guarantee: guarantee(judged),
            older_state: judged.older_state,
            older_since,
        }
    }
}

/// Which attacks the floor stops; said wherever it is shown.
pub(in crate::agent) fn guarantee(judged: &Judged) -> String {
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

impl Agent {
    /// The security-version floor. Changes nothing.
    pub fn floor(&self) -> Result<FloorReport, AgentError> {
        self.noting(|| self.floor_report(&self.judged_floor()?))
    }

    /// Begins anew with the TPM that is there now; only on an operator's word.
    pub fn renew_floor(&self) -> Result<FloorReport, AgentError> {
        self.noting(|| {
            let held = self.state.hold()?;
            self.floor_report(&self.parts().floor().renew(&held)?)
        })
    }

    /// The floor, and how far it can be believed.
    pub(crate) fn judged_floor(&self) -> Result<Judged, AgentError> {
        self.parts().floor().judged()
    }

    fn floor_report(&self, judged: &Judged) -> Result<FloorReport, AgentError> {
        Ok(FloorReport::new(judged, self.state.floor_record()?.older_since))
    }
}
