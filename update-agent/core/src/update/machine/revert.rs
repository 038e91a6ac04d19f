//! Giving a slot up.

use formats::boot_record::{Failure, Phase, ReleaseId, Slot, Update};
use formats::reason::{Reason, RecordedReason};

use super::super::effect::Event;
use super::super::node::Node;
use super::super::standing::Standing;
use super::super::task::{Outcome, Refusal};
use super::{At as Machine, Next};
use crate::boot::FlagEdit;

/// A slot that is given up, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GivenUp {
    slot: Slot,
    /// What it holds, where an agent wrote it.
    release: Option<ReleaseId>,
    reason: RecordedReason,
    detail: String,
}

impl GivenUp {
    /// The update, if the record says that it is given up.
    pub(super) fn recorded(update: &Update) -> Option<Self> {
        let Phase::Reverting { reason, detail } = &update.phase else { return None };
        let (reason, detail) = (reason.clone(), detail.clone());
        Some(GivenUp { slot: update.slot, release: Some(update.release.clone()), reason, detail })
    }

    fn phase(&self) -> Phase {
        Phase::Reverting { reason: self.reason.clone(), detail: self.detail.clone() }
    }
}

/// What a revert waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Persisting(GivenUp),
    Clearing(GivenUp),
    SwitchingBack(GivenUp),
}

/// Begins to give up the chosen slot, or without one what is next or runs.
pub(super) fn begin(
    node: Node,
    standing: &Standing,
    detail: String,
    chosen: Option<Slot>,
) -> Result<Next, Refusal> {
    let update = node.record.update.clone();
    if let Some(given_up) = update.as_ref().and_then(GivenUp::recorded) {
        return Ok(clear(node, given_up));
    }
    let booted = node.booted;
    // What is next but does not run yet is cancelled; otherwise the booted slot is left.
    let slot = chosen.unwrap_or(match standing {
        Standing::AwaitingReboot
        | Standing::PassedOver
        | Standing::Staged
        | Standing::Interrupted => booted.other(),
        _ => booted,
    });
    if !node.flags.of(slot.other()).confirmed() {
        return Err(Refusal::NothingToRevertTo(slot.other()));
    }
    let held = node.record.slots.of(slot).as_ref().map(|content| content.release.clone());
    let release = match (update, held) {
        (Some(update), _) if update.slot == slot => Some(update.release),
        // Marking a slot that is not the update's would forget the update: settle that first.
        (Some(_), Some(_)) => return Err(Refusal::Unsettled),
        (_, held) => held,
    };
    let given_up = GivenUp { slot, release, reason: Reason::Operator.into(), detail };
    Ok(match given_up.release.clone() {
        Some(release) => {
            let update = Update::new(slot, release, given_up.phase());
            record(node, update, given_up)
        }
        // Content that no agent wrote: nothing to remember, the flags alone decide.
        None => clear(node, given_up),
    })
}

/// Gives up an update whose trial is lost.
pub(super) fn lost(mut node: Node, update: Update, reason: Reason, detail: String) -> Next {
    if reason == Reason::CountingInactive {
        node.record.counting = Some(false);
    }
    let (slot, release) = (update.slot, Some(update.release.clone()));
    let given_up = GivenUp { slot, release, reason: reason.into(), detail };
    record(node, Update { phase: given_up.phase(), ..update }, given_up)
}

/// The record says what is given up, and why, before it is.
fn record(mut node: Node, update: Update, given_up: GivenUp) -> Next {
    node.record.update = Some(update);
    node.persist(Machine::Revert(At::Persisting(given_up)))
}

/// Gives a slot up. The record says so already, unless no agent wrote the slot.
pub(super) fn clear(node: Node, given_up: GivenUp) -> Next {
    let edit = FlagEdit::Clear(given_up.slot);
    node.edit(Machine::Revert(At::Clearing(given_up)), edit)
}

pub(super) fn step(node: Node, at: At, event: Event, now: u64) -> Next {
    match (at, event) {
        (At::Persisting(given_up), Event::Done) => clear(node, given_up),
        (At::Clearing(given_up), Event::Done) => {
            let slot = given_up.slot.other();
            node.switch_back(Machine::Revert(At::SwitchingBack(given_up)), slot)
        }
        (At::SwitchingBack(given_up), Event::Done) => forget(node, given_up, now),
        _ => node.contradiction(),
    }
}

/// The record forgets the update, and remembers that its release failed.
fn forget(mut node: Node, given_up: GivenUp, now: u64) -> Next {
    let GivenUp { slot, release, reason, detail } = given_up;
    node.record.update = None;
    // A release that never ran has not failed.
    if let Some(release) = release.filter(|_| reason != Reason::CountingInactive) {
        let (reason, detail) = (reason.clone(), detail.clone());
        node.record.remember(Failure { release, at: now, reason, detail });
    }
    let reboot = slot == node.booted;
    node.persist(Machine::Ending(Outcome::Reverted { slot, reboot, reason, detail }))
}
