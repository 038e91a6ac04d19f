//! The driver of the update machine: performs the effects that it asks for.

use std::path::Path;

use formats::boot_record::Slot;
use formats::reason::Reason;
use formats::release::ComponentName;
use formats::size;
use storage::interrupt;
use update_core::chooser::Proof;
use update_core::image::Tally;
use update_core::restart::Purpose;
use update_core::resume::SlotJournal;
use update_core::update::{Effect, Event, Outcome, Task, begin, step};

use super::node::NodeParts;
use super::this_boot::ThisBoot;
use crate::boot::BootControl as _;
use crate::environment::Environment;
use crate::error::AgentError;
use crate::progress::Progress;
use crate::release::Resolved;
use crate::source::Source;
use crate::stage::Written;
use crate::state::StateGuard;

/// 16 KiB: the records that an update begins with, and their second copies.
const ROOM: u64 = 16 << 10;

/// What performs effects: this node, and the right to change its state.
#[derive(Clone, Copy)]
pub(super) struct Driver<'a> {
    pub(super) parts: NodeParts<'a>,
    pub(super) environment: &'a dyn Environment,
    /// What is known of this boot.
    pub(super) boot: &'a ThisBoot,
    pub(super) held: &'a StateGuard,
}

/// What an apply needs beside the state.
pub(super) struct ApplyInputs<'a> {
    /// What to install.
    pub(super) resolved: &'a Resolved,
    /// Where its bytes may come from, in order of preference.
    pub(super) sources: &'a [&'a dyn Source],
    /// Files and devices that may hold some of them.
    pub(super) seeds: &'a [&'a Path],
    /// Progress sink.
    pub(super) progress: &'a dyn Progress,
    /// In which order components that start by themselves are switched.
    pub(super) order: &'a [ComponentName],
    /// What is kept behind the boot component, for a verifying chooser.
    pub(super) proof: Option<&'a Proof>,
}

/// How a task ended, and what it moved.
#[derive(Debug)]
pub(super) struct Ended {
    /// How it ended.
    pub(super) outcome: Outcome,
    /// What was written, if anything was.
    pub(super) written: Written,
}

impl Driver<'_> {
    /// Runs a task to its end.
    pub(super) fn run(
        &self,
        task: Task,
        inputs: Option<&ApplyInputs<'_>>,
    ) -> Result<Ended, AgentError> {
        let node = self.parts.node()?;
        let booted = node.booted;
        let before = node.record.clone();
        let (mut state, mut effect) = begin(node, task)?;
        let mut written = Written::default();
        let mut read = Vec::new();
        loop {
            if let Effect::Finish(outcome) = effect {
                if matches!(outcome, Outcome::Confirmed(_)) {
                    self.disarm();
                }
                self.remember(&before, &outcome, written)?;
                return Ok(Ended { outcome, written });
            }
            let event = match self.perform(&effect, booted, inputs, (&mut written, &mut read)) {
                Ok(event) => event,
                Err(error) => {
                    let failed = Event::Failed { reason: error.reason(), detail: error.chain() };
                    (state, effect) = step(state, failed, self.parts.state.now());
                    // The machine says what can still be done, otherwise the caller gets the error.
                    if matches!(effect, Effect::Finish(_)) {
                        return Err(error);
                    }
                    tracing::warn!(code = error.reason().code(), "{}", error.chain());
                    continue;
                }
            };
            (state, effect) = step(state, event, self.parts.state.now());
        }
    }

    fn perform(
        &self,
        effect: &Effect,
        booted: Slot,
        inputs: Option<&ApplyInputs<'_>>,
        (written, read): (&mut Written, &mut Vec<Tally>),
    ) -> Result<Event, AgentError> {
        let no_inputs = || AgentError::new(Reason::Usage, "there is nothing to write");
        match effect {
            Effect::Persist(record) => self.parts.state.save_boot_record(self.held, record)?,
            Effect::EditFlags(edit) => {
                self.parts.disk.edit(*edit)?;
            }
            Effect::Switch { slot, order } => {
                self.parts.single_banks().activate(self.held, *slot, booted, order)?
            }
            Effect::WriteSlot { slot, release, used } => {
                let inputs = inputs.ok_or_else(no_inputs)?;
                interrupt::stands(
                    format!("slot {slot} is not next, and keeps what was written"),
                    "`update-agent apply` goes on from here",
                );
                let components = &inputs.resolved.components;
                let names = components.iter().map(|component| &component.identity.name);
                let found = self.parts.state.journal();
                let journal = SlotJournal::new(found, *slot, release, *used, names);
                (*written, *read) = self.write_slot(*slot, journal, booted, inputs)?;
            }
            Effect::SyncAndReadBack { slot } => {
                let inputs = inputs.ok_or_else(no_inputs)?;
                let staged = self.read_back(*slot, booted, inputs, std::mem::take(read))?;
                self.keep_proof(*slot, booted, inputs)?;
                let index = inputs.resolved.release.index;
                let components = inputs.resolved.components.iter().map(|one| &one.identity);
                self.parts.slot_check().note_written(self.held, *slot, index, components)?;
                interrupt::finishing();
                return Ok(Event::ReadBack(staged));
            }
            Effect::CheckHealth => {
                return Ok(Event::Health(self.check_health()?));
            }
            Effect::RaiseFloor(floor) => self.parts.floor().raise(self.held, *floor)?,
            Effect::Reboot { why } => {
                let why = format!("the trial failed: {why}");
                self.restarter().ask(Some(self.held), Purpose::Leave, &why);
            }
            Effect::Finish(_) => {}
        }
        Ok(Event::Done)
    }

    /// Refuses to begin where the state has no room: the flags of the fallback are cleared before the
    /// record can say why.
    pub(super) fn check_room(&self) -> Result<(), AgentError> {
        let dir = &self.parts.config.state_dir;
        match self.environment.room(dir) {
            Some(free) if free < ROOM => {
                let (dir, free, needed) = (dir.display(), size(free), size(ROOM));
                let text =
                    format!("{dir} has {free} free, and the records of an update need {needed}");
                Err(AgentError::new(Reason::StoreIo, text)
                    .hint("free some space; nothing was changed"))
            }
            _ => Ok(()),
        }
    }
}
