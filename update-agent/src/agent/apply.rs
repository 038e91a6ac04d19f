//! Writing the inactive slot: every component, its read-back, and the proof behind the image.

use formats::boot_record::Slot;
use formats::reason::Reason;
use update_core::image::{StagedSlot, Tally};
use update_core::resume::SlotJournal;

use super::driver::{ApplyInputs, Driver};
use super::reuse::{ReuseFinder, operator_seeds};
use crate::chooser;
use crate::error::{AgentError, Because as _};
use crate::stage::{self, Image, JournalPoint, StageError, Written};

impl Driver<'_> {
    fn reuse_finder(&self) -> ReuseFinder<'_> {
        let product = &self.parts.config.node.product;
        ReuseFinder { product, state: self.parts.state, disk: self.parts.disk }
    }

    pub(super) fn write_slot(
        &self,
        slot: Slot,
        mut journal: SlotJournal,
        booted: Slot,
        inputs: &ApplyInputs<'_>,
    ) -> Result<(Written, Vec<Tally>), AgentError> {
        let record = self.parts.state.boot_record()?;
        let operator_seeds =
            operator_seeds(self.parts.host, inputs.seeds, self.parts.state, inputs.progress);
        let finder = self.reuse_finder();
        let mut total = Written::default();
        let mut tallies = Vec::new();
        for (number, component) in inputs.resolved.components.iter().enumerate() {
            let name = &component.identity.name;
            let target = self.parts.disk.open_to_write(slot, name, booted)?;
            // Kept first: what is cut in the middle goes on without fetching it again.
            self.parts.state.keep_chunk_list(self.held, &component.list)?;
            let reuse = finder.reuse(
                &record,
                booted,
                component,
                &operator_seeds,
                inputs.sources,
                inputs.progress,
            );
            let (seeds, deltas) = (reuse.seeds(), reuse.deltas());
            let image = Image {
                component: name,
                product: &self.parts.config.node.product,
                list: &component.list,
                blobs: &component.images,
                deltas: &deltas,
                target: target.as_ref(),
            };
            // From here on the slot may hold parts of this image, whatever happens: the next run
            // looks, even when this one is cut before its first flush.
            let resume = journal.begin(number);
            self.parts.state.save_journal(self.held, Some(journal.journal()))?;
            let so_far = total.fetched;
            let mut note = |point: JournalPoint| {
                journal.flushed(number, point.next_chunk, so_far + point.fetched);
                self.parts
                    .state
                    .save_journal(self.held, Some(journal.journal()))
                    .map_err(StageError::Journal)
            };
            let (done, tally) = stage::write_image_at(
                &self.environment.pace(),
                &image,
                inputs.sources,
                &seeds,
                resume,
                inputs.progress,
                &mut note,
            )?;
            // The header of a flash bank, now that the rest is there.
            target.complete()?;
            total += done;
            tallies.push(tally);
        }
        Ok((total, tallies))
    }

    /// `before`: what of each component was read back while it was written; it may be empty.
    pub(super) fn read_back(
        &self,
        slot: Slot,
        booted: Slot,
        inputs: &ApplyInputs<'_>,
        before: Vec<Tally>,
    ) -> Result<StagedSlot, AgentError> {
        let mut proofs = Vec::new();
        let mut before = before.into_iter();
        for component in &inputs.resolved.components {
            let (list, progress) = (&component.list, inputs.progress);
            let tally = before.next().filter(|tally| tally.list() == list.digest());
            let tally = tally.unwrap_or_else(|| Tally::new(list));
            let name = &component.identity.name;
            let target = self.parts.disk.open_to_write(slot, name, booted)?;
            target.sync()?;
            proofs.push(stage::read_back(name, target.as_ref(), list, tally, progress)?);
        }
        let components =
            inputs.resolved.components.iter().map(|component| component.identity.clone()).collect();
        StagedSlot::new(slot, inputs.resolved.release.clone(), components, proofs)
            .map(|staged| staged.ordered(inputs.order.to_vec()))
            .because(Reason::Readback, format!("slot {slot}"))
    }

    /// Puts the proof behind the image: without it a verifying chooser would refuse the slot.
    pub(super) fn keep_proof(
        &self,
        slot: Slot,
        booted: Slot,
        inputs: &ApplyInputs<'_>,
    ) -> Result<(), AgentError> {
        let Some(proof) = inputs.proof else { return Ok(()) };
        let name = &self.parts.config.boot.component;
        let own = inputs.resolved.components.iter().find(|one| one.identity.name == *name);
        let used = own.map_or(0, |own| own.identity.raw_size);
        let target = self.parts.disk.open_to_write(slot, name, booted)?;
        chooser::write_proof(target.as_ref(), proof, used)
    }
}
