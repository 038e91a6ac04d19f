//! What looks at a node and changes nothing: its history, and whether its slots are what was signed.

use formats::boot_record::{HistoryEvent, Slot};
use formats::reason::Reason;
use formats::release::ComponentName;
use serde::Serialize;
use update_core::image::Tally;

use super::Agent;
use crate::error::AgentError;
use crate::progress::Progress;
use crate::stage;

/// What happened on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryReport {
    /// The oldest first.
    pub events: Vec<HistoryEvent>,
}

/// Images that are exactly what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// At least one.
    pub verified: Vec<VerifiedImage>,
}

/// An image that is exactly what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedImage {
    /// The slot that holds it.
    pub slot: Slot,
    /// Its component.
    pub component: ComponentName,
}

impl Agent {
    /// What happened on this node. Changes nothing, and waits for no other agent.
    pub fn history(&self) -> Result<HistoryReport, AgentError> {
        self.keeping_error(|| Ok(HistoryReport { events: self.state.history()?.events }))
    }

    /// Reads a slot, or both, whole and compares every chunk with the list that was signed. Changes nothing.
    ///
    /// Errors: `boot_record` when no agent wrote what is asked for; those of a chunk that is another.
    pub fn verify(
        &self,
        slot: Option<Slot>,
        progress: &dyn Progress,
    ) -> Result<VerifyReport, AgentError> {
        self.noting(|| {
            let verified = match slot {
                Some(slot) => self.verify_slot(slot, progress)?.ok_or_else(|| {
                    let text = format!("slot {slot} holds nothing this agent wrote");
                    AgentError::new(Reason::BootRecord, text)
                })?,
                None => {
                    let mut both = Vec::new();
                    for slot in Slot::BOTH {
                        both.extend(self.verify_slot(slot, progress)?.unwrap_or_default());
                    }
                    both
                }
            };
            if verified.is_empty() {
                let text = "neither slot holds anything this agent wrote: nothing was verified";
                return Err(AgentError::new(Reason::BootRecord, text)
                    .hint("a slot can be compared once an update has written it"));
            }
            Ok(VerifyReport { verified })
        })
    }

    /// `None`: no agent wrote the slot.
    fn verify_slot(
        &self,
        slot: Slot,
        progress: &dyn Progress,
    ) -> Result<Option<Vec<VerifiedImage>>, AgentError> {
        let record = self.state.boot_record()?;
        let Some(content) = record.slots.of(slot) else { return Ok(None) };
        let mut verified = Vec::new();
        for component in &content.components {
            let Some(list) = self.state.chunk_list(&component.chunks) else {
                let text = format!("the chunk list of {} in slot {slot} is gone", component.name);
                return Err(AgentError::new(Reason::StoreCorrupt, text)
                    .hint("it comes back with the next update"));
            };
            let device = self.disk.open_to_read(slot, &component.name)?;
            let nothing = Tally::new(&list);
            stage::read_back(&component.name, device.as_ref(), &list, nothing, progress)
                .map_err(|error| AgentError::from(error).context(format!("slot {slot}")))?;
            verified.push(VerifiedImage { slot, component: component.name.clone() });
        }
        Ok(Some(verified))
    }
}
