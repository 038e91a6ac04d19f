//! Writing a release to the inactive slot, and making it next.

use formats::boot_record::{Phase, ReleaseId, Slot, SlotContent, Update};
use formats::release::ComponentName;

use super::super::effect::{Effect, Event, Order};
use super::super::node::Node;
use super::super::standing::Standing;
use super::super::task::{Outcome, Refusal};
use super::{At as Machine, Next};
use crate::boot::FlagEdit;
use crate::image::StagedSlot;

/// What the inactive slot is cleared for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// Another program wrote it: what it holds is unknown from now on.
    WriteOff,
    /// A release is written to it.
    Write {
        /// Whether an operator chose the release.
        named: bool,
        /// Whether the slot held something that this agent wrote: parts of it may be wanted again.
        used: bool,
        /// The tries it gets when it is made next; nothing when it only is staged.
        tries: Option<u8>,
    },
}

/// What staging and activating wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Clearing { release: ReleaseId, goal: Goal },
    SwitchingOff { release: ReleaseId, goal: Goal },
    Marking { update: Update, used: bool, tries: Option<u8> },
    Writing { update: Update, tries: Option<u8> },
    ReadingBack { update: Update, tries: Option<u8> },
    PersistingStaged { update: Update, order: Vec<ComponentName>, tries: u8 },
    PersistingTrial { order: Vec<ComponentName>, tries: u8 },
    Switching { tries: u8 },
}

/// Whether the release may be written to the inactive slot of this node.
pub(super) fn check(node: &Node, standing: &Standing, release: &ReleaseId) -> Result<(), Refusal> {
    match standing {
        Standing::OnTrial { .. } => return Err(Refusal::TrialActive(node.booted)),
        Standing::AwaitingReboot => {
            let next = node.record.update.as_ref().map(|update| update.release.index);
            if next == Some(release.index) {
                return Err(Refusal::AlreadyNext(release.version.to_string()));
            }
        }
        Standing::PassedOver => return Err(Refusal::Unsettled),
        Standing::Leaving => return Err(Refusal::Leaving(node.booted)),
        Standing::Idle | Standing::Interrupted | Standing::Staged => {}
        Standing::ConfirmUnfinished | Standing::Lost { .. } | Standing::RevertUnfinished => {
            return Err(Refusal::Unsettled);
        }
    }
    if release.security_version < node.floor {
        return Err(Refusal::BelowFloor { offered: release.security_version, floor: node.floor });
    }
    if !node.flags.of(node.booted).confirmed() {
        return Err(Refusal::NotConfirmed(node.booted));
    }
    if node.record.counting == Some(false) {
        return Err(Refusal::CountingInactive);
    }
    Ok(())
}

/// Begins to write a release, which [`check`] admits.
pub(super) fn apply(node: Node, release: ReleaseId, named: bool, tries: Option<u8>) -> Next {
    let slot = node.booted.other();
    // A run that was cut while it wrote has forgotten the content, but not the update.
    let pending = node.record.update.as_ref().is_some_and(|update| update.slot == slot);
    let used = pending || node.record.slots.of(slot).is_some();
    clear(node, release, Goal::Write { named, used, tries })
}

/// The slot's content is unknown from now on, as if writing it had been interrupted. The release is
/// no failure: an apply writes it again.
pub(super) fn write_off(node: Node, release: ReleaseId) -> Next {
    clear(node, release, Goal::WriteOff)
}

fn clear(node: Node, release: ReleaseId, goal: Goal) -> Next {
    let slot = node.booted.other();
    node.edit(Machine::Stage(At::Clearing { release, goal }), FlagEdit::Clear(slot))
}

pub(super) fn step(node: Node, at: At, event: Event, now: u64) -> Next {
    let slot = node.booted.other();
    match (at, event) {
        // Only now: a record that says Staging beside flags that still boot the slot would let a
        // cut boot a slot that nobody knows to be on trial.
        (At::Clearing { release, goal }, Event::Done) => {
            let booted = node.booted;
            node.switch_back(Machine::Stage(At::SwitchingOff { release, goal }), booted)
        }
        (At::SwitchingOff { release, goal }, Event::Done) => mark(node, slot, release, goal),
        (At::Marking { update, used, tries }, Event::Done) => {
            let release = update.release.clone();
            let at = Machine::Stage(At::Writing { update, tries });
            node.go(at, Effect::WriteSlot { slot, release, used })
        }
        (At::Writing { update, tries }, Event::Done) => {
            let at = Machine::Stage(At::ReadingBack { update, tries });
            node.go(at, Effect::SyncAndReadBack { slot })
        }
        (At::ReadingBack { update, tries }, Event::ReadBack(proof)) => {
            match content_of(proof, slot, &update.release) {
                Some(content) => staged(node, update, content, tries),
                None => node.contradiction(),
            }
        }
        (At::PersistingStaged { update, order, tries }, Event::Done) => {
            make_trial(node, update, order, tries, now)
        }
        // Before the flags: a system that boots on trial finds its set whole.
        (At::PersistingTrial { order, tries }, Event::Done) => {
            let order = Order::Stated(order);
            node.go(Machine::Stage(At::Switching { tries }), Effect::Switch { slot, order })
        }
        (At::Switching { tries }, Event::Done) => {
            let outcome = Outcome::Activated(slot);
            node.edit(Machine::Ending(outcome), FlagEdit::Activate { slot, tries })
        }
        _ => node.contradiction(),
    }
}

/// The record forgets what the slot held, and names what is written to it.
fn mark(mut node: Node, slot: Slot, release: ReleaseId, goal: Goal) -> Next {
    let mut update = Update::new(slot, release, Phase::Staging);
    *node.record.slots.of_mut(slot) = None;
    let at = match goal {
        Goal::WriteOff => Machine::Ending(Outcome::Settled),
        Goal::Write { named, used, tries } => {
            update.named = named;
            Machine::Stage(At::Marking { update: update.clone(), used, tries })
        }
    };
    node.record.update = Some(update);
    node.persist(at)
}

/// What the proof of a read-back says that this slot holds, if it is about this slot and release.
fn content_of(proof: StagedSlot, slot: Slot, release: &ReleaseId) -> Option<SlotContent> {
    let here = proof.slot() == slot;
    let content = proof.into_content();
    (here && content.release == *release).then_some(content)
}

/// The only way to a bootable mark: its content is from the proof of a read-back.
fn staged(mut node: Node, mut update: Update, content: SlotContent, tries: Option<u8>) -> Next {
    let slot = update.slot;
    update.phase = Phase::Staged;
    node.record.update = Some(update.clone());
    let order = content.order.clone();
    *node.record.slots.of_mut(slot) = Some(content);
    node.persist(match tries {
        Some(tries) => Machine::Stage(At::PersistingStaged { update, order, tries }),
        None => Machine::Ending(Outcome::Staged(slot)),
    })
}

fn make_trial(
    mut node: Node,
    mut update: Update,
    order: Vec<ComponentName>,
    tries: u8,
    now: u64,
) -> Next {
    let boot_id = node.boot_id.clone();
    update.phase = Phase::Trial { boot_id, since: now, tries, failed: None };
    node.record.update = Some(update);
    node.persist(Machine::Stage(At::PersistingTrial { order, tries }))
}
