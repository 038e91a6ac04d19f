//! The history of the node, and what is forgotten when a task has ended.

use formats::boot_record::{BootRecord, HistoryEvent, ReleaseId, Slot};
use formats::digest::Digest;
use formats::reason::Reason;
use update_core::update::Outcome;

use super::driver::Driver;
use crate::boot::bypass;
use crate::error::AgentError;
use crate::events::{Event, Why};
use crate::stage::Written;

impl Driver<'_> {
    /// Tells how a task ended, writes the history and clears away what nobody needs any more.
    pub(super) fn remember(
        &self,
        before: &BootRecord,
        outcome: &Outcome,
        moved: Written,
    ) -> Result<(), AgentError> {
        let record = self.parts.state.boot_record()?;
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
            Outcome::PassedOver(slot) => {
                let why = bypass::sentence(&self.parts.config.boot, *slot);
                tracing::warn!("{why}");
                ("passed over", *slot, None, why)
            }
            Outcome::Withheld { slot, why } => {
                ("withheld", *slot, Some(Reason::Deferred.into()), why.clone())
            }
            Outcome::Reverted { slot, reason, detail, .. } => {
                ("reverted", *slot, Some(reason.clone()), detail.clone())
            }
            Outcome::TrialFailed(detail) => (
                "trial failed",
                self.parts.disk.booted()?,
                Some(Reason::Unhealthy.into()),
                detail.clone(),
            ),
            Outcome::Failed { reason, detail } => (
                "failed",
                self.parts.disk.booted()?.other(),
                Some((*reason).into()),
                detail.clone(),
            ),
        };
        let release = release_of(before, slot).or_else(|| release_of(&record, slot));
        let release = match outcome {
            Outcome::Staged(_) | Outcome::Activated(_) => release_of(&record, slot),
            _ => release,
        };
        tell(outcome, release.as_ref(), moved);
        if matches!(outcome, Outcome::Staged(_) | Outcome::Activated(_) | Outcome::Confirmed(_)) {
            let contents = [&record.slots.a, &record.slots.b].into_iter().flatten();
            let needed: Vec<Digest> = contents
                .flat_map(|content| content.components.iter().map(|own| own.chunks.clone()))
                .collect();
            self.parts.state.forget_chunk_lists(self.held, &needed)?;
        }
        let at = self.parts.state.now();
        let slot = Some(slot);
        self.parts.state.remember(
            self.held,
            HistoryEvent { at, event: event.to_owned(), release, slot, reason, detail },
        )
    }
}

/// What ended well, or with a revert; what failed is told where it failed.
fn tell(outcome: &Outcome, release: Option<&ReleaseId>, moved: Written) {
    let version = release.map(|release| release.version.to_string());
    let version = version.as_deref();
    match (outcome, version) {
        (Outcome::Staged(slot), Some(version)) => {
            Event::Staged { version, slot: *slot, moved }.tell();
        }
        (Outcome::Activated(slot), Some(version)) => {
            Event::Activated { version, slot: *slot, moved }.tell();
        }
        (Outcome::Confirmed(slot), _) => Event::Confirmed { version, slot: *slot }.tell(),
        (Outcome::Reverted { slot, reason, detail, .. }, _) => {
            let why = Why { code: reason.code(), text: detail };
            Event::Reverted { version, slot: *slot, why }.tell();
        }
        _ => {}
    }
}
