//! What an operator does to a trial: confirming the booted slot, reverting, marking a slot bad.

use formats::boot_record::Slot;
use formats::reason::Reason;
use update_core::update::{Outcome, Task};

use super::{Agent, ConfirmReport, RevertReport};
use crate::error::AgentError;

/// How [`Agent::revert`] is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevertOptions {
    /// Why, for the history.
    pub reason: String,
}

/// Which slot [`Agent::mark_bad`] marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkBadOptions {
    /// The slot; the one on trial or next when absent.
    pub slot: Option<Slot>,
    /// Why, for the history.
    pub reason: String,
}

impl Agent {
    /// Ends the trial of the booted slot as passed.
    ///
    /// Errors: `not_pending` when no trial is under way.
    pub fn confirm(&self) -> Result<ConfirmReport, AgentError> {
        self.end_trial(Task::Confirm)
    }

    /// Marks the booted slot as working although no trial is under way: a first installation.
    pub fn adopt(&self) -> Result<ConfirmReport, AgentError> {
        self.end_trial(Task::Adopt)
    }

    fn end_trial(&self, task: Task) -> Result<ConfirmReport, AgentError> {
        self.noting(|| {
            let held = self.state.hold()?;
            if let Outcome::Confirmed(confirmed) = self.settle(&held)? {
                return Ok(ConfirmReport { confirmed, floor: None });
            }
            let Outcome::Confirmed(confirmed) = self.run(&held, task)?.outcome else {
                return Err(AgentError::new(Reason::BootRecord, "the slot was not confirmed"));
            };
            Ok(ConfirmReport { confirmed, floor: Some(self.floor()?.floor) })
        })
    }

    /// Cancels what is next or on trial, or goes back to the other slot. The caller restarts the
    /// machine where the report says that it is needed.
    pub fn revert(&self, options: &RevertOptions) -> Result<RevertReport, AgentError> {
        self.noting(|| {
            let held = self.state.hold()?;
            let settled = match self.settle(&held) {
                Err(error) if error.reason() == Reason::StoreNewer => {
                    return self.revert_by_flags(&held, &options.reason);
                }
                settled => settled?,
            };
            let outcome = match settled {
                // An earlier revert was cut, or the boot loader reverted already: that was it.
                Outcome::Reverted { .. } => settled,
                _ => self.run(&held, Task::Revert { detail: options.reason.clone() })?.outcome,
            };
            reverted(outcome)
        })
    }

    /// Marks a slot bad permanently: its release is not tried again, and it is no fallback. The
    /// caller restarts the machine where the report says that it is needed.
    pub fn mark_bad(&self, options: &MarkBadOptions) -> Result<RevertReport, AgentError> {
        self.noting(|| {
            let held = self.state.hold()?;
            let settled = self.settle(&held)?;
            let node = self.node()?;
            let pending = node.record.update.as_ref().map(|update| update.slot);
            let outcome = match (settled, options.slot.or(pending)) {
                (settled @ Outcome::Reverted { slot: bad, .. }, slot)
                    if slot.is_none_or(|slot| slot == bad) =>
                {
                    settled
                }
                (_, None) => {
                    return Err(AgentError::new(Reason::NotPending, "no update is under way")
                        .hint("name the slot: --slot a or --slot b"));
                }
                (_, Some(slot)) => {
                    let task = Task::MarkBad { slot, detail: options.reason.clone() };
                    self.run(&held, task)?.outcome
                }
            };
            reverted(outcome)
        })
    }
}

fn reverted(outcome: Outcome) -> Result<RevertReport, AgentError> {
    let Outcome::Reverted { slot, reboot, detail, .. } = outcome else {
        return Err(AgentError::new(Reason::BootRecord, "the slot was not reverted"));
    };
    Ok(RevertReport { slot, next: slot.other(), reboot, why: detail })
}
