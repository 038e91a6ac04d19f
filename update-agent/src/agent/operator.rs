//! What an operator does to a trial: confirming the booted slot, reverting, marking a slot bad.

use formats::boot_record::Slot;
use formats::reason::Reason;
use update_core::update::{Node, Outcome, Standing, Task, stand};

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
                self.tell_end(&held)?;
                return Ok(ConfirmReport { confirmed, floor: None });
            }
            if task == Task::Adopt {
                self.parts().slot_check().accept_disk(&held)?;
            }
            let Outcome::Confirmed(confirmed) = self.run(&held, task)?.outcome else {
                return Err(AgentError::new(Reason::BootRecord, "the slot was not confirmed"));
            };
            self.tell_end(&held)?;
            Ok(ConfirmReport { confirmed, floor: Some(self.judged_floor()?.floor) })
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
                _ => {
                    let node = self.node()?;
                    if leaves_booted(&node) {
                        self.check_fallback(&node)?;
                    }
                    self.owe_end(&held, None)?;
                    self.run(&held, Task::Revert { detail: options.reason.clone() })?.outcome
                }
            };
            self.tell_end(&held)?;
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
                    if slot == node.booted {
                        self.check_fallback(&node)?;
                    }
                    self.owe_end(&held, Some(slot))?;
                    let task = Task::MarkBad { slot, detail: options.reason.clone() };
                    self.run(&held, task)?.outcome
                }
            };
            self.tell_end(&held)?;
            reverted(outcome)
        })
    }

    /// Refuses to leave the booted slot for one that another program wrote.
    fn check_fallback(&self, node: &Node) -> Result<(), AgentError> {
        let slot = node.booted.other();
        self.parts().slot_check().check_fallback(slot, *node.evidence.foreign.of(slot))
    }
}

/// Whether a revert would leave the booted slot, and not only cancel what is next.
fn leaves_booted(node: &Node) -> bool {
    !matches!(
        stand(node),
        Standing::AwaitingReboot
            | Standing::Staged
            | Standing::Interrupted
            | Standing::RevertUnfinished
    )
}

fn reverted(outcome: Outcome) -> Result<RevertReport, AgentError> {
    let Outcome::Reverted { slot, reboot, detail, .. } = outcome else {
        return Err(AgentError::new(Reason::BootRecord, "the slot was not reverted"));
    };
    Ok(RevertReport { slot, next: slot.other(), reboot, why: detail })
}
