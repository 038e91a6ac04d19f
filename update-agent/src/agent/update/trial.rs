//! The trial of the booted slot.

use update_core::update::{Node, Outcome, Standing, Task, stand};

use super::super::driver::Driver;
use super::{Probed, Trial, unexpected};
use crate::error::AgentError;
use crate::events::Event;

impl Trial {
    /// The trial that is under way, if one is.
    pub(in crate::agent) fn under_way(node: &Node) -> Option<Self> {
        match stand(node) {
            Standing::OnTrial { tries_left, counted } => {
                let update = node.record.update.as_ref();
                let version = update.map(|update| update.release.version.to_string());
                Some(Trial { slot: node.booted, version, tries_left, counted })
            }
            _ => None,
        }
    }

    /// Checks health, and confirms the slot or restarts the machine.
    pub(in crate::agent) fn probe(self, driver: &Driver<'_>) -> Result<Probed, AgentError> {
        if !self.counted {
            tracing::warn!("no try was spent for this boot: a hang would not revert");
        }
        let (slot, tries_left) = (self.slot, self.tries_left);
        Event::OnTrial { version: self.version.as_deref(), slot, tries_left }.tell();
        match driver.run(Task::Probe, None)?.outcome {
            Outcome::Confirmed(slot) => Ok(Probed::Confirmed(slot)),
            Outcome::TrialFailed(why) => Ok(Probed::Failed(why)),
            other => Err(unexpected("trial", &other)),
        }
    }
}
