//! The history of the node, and what is forgotten when a task has ended.

use formats::boot_record::{BootRecord, HistoryEvent, Slot};
use formats::digest::Digest;
use formats::reason::Reason;
use update_core::update::Outcome;

use super::driver::Driver;
use crate::error::AgentError;

impl Driver<'_> {
    /// Writes the history and clears away what nobody needs any more.
    pub(super) fn remember(
        &self,
        before: &BootRecord,
        outcome: &Outcome,
    ) -> Result<(), AgentError> {
        let record = self.state.boot_record()?;
        let release_of = |record: &BootRecord, slot: Slot| {
            let pending = record.update.as_ref().filter(|update| update.slot == slot);
            let content = record.slots.of(slot).as_ref();
            pending
                .map(|update| update.release.clone())
                .or(content.map(|content| content.release.clone()))
        };
        let (event, slot, reason, detail) = match outcome {
            Outcome::Settled => return Ok(()),
            Outcome::Staged(slot) => ("staged", *slot, None, String::new()),
            Outcome::Activated(slot) => ("activated", *slot, None, String::new()),
            Outcome::Confirmed(slot) => ("confirmed", *slot, None, String::new()),
            Outcome::Reverted { slot, reason, detail, .. } => {
                ("reverted", *slot, Some(reason.clone()), detail.clone())
            }
            Outcome::TrialFailed(detail) => (
                "trial failed",
                self.disk.booted()?,
                Some(Reason::Unhealthy.into()),
                detail.clone(),
            ),
            Outcome::Failed { reason, detail } => {
                ("failed", self.disk.booted()?.other(), Some((*reason).into()), detail.clone())
            }
        };
        let release = release_of(before, slot).or_else(|| release_of(&record, slot));
        let release = match outcome {
            Outcome::Staged(_) | Outcome::Activated(_) => release_of(&record, slot),
            _ => release,
        };
        if matches!(outcome, Outcome::Staged(_) | Outcome::Activated(_) | Outcome::Confirmed(_)) {
            let contents = [&record.slots.a, &record.slots.b].into_iter().flatten();
            let needed: Vec<Digest> = contents
                .flat_map(|content| content.components.iter().map(|own| own.chunks.clone()))
                .collect();
            self.state.forget_chunk_lists(self.held, &needed)?;
        }
        let at = self.state.now();
        let slot = Some(slot);
        self.state.remember(
            self.held,
            HistoryEvent { at, event: event.to_owned(), release, slot, reason, detail },
        )
    }
}
