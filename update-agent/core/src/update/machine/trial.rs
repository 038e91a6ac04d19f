//! Checking a trial, and confirming a slot.

use formats::boot_record::{Phase, Slot, SlotContent, Update};

use super::super::effect::{Effect, Event};
use super::super::evidence::BootLoader;
use super::super::node::Node;
use super::super::task::Outcome;
use super::{At as Machine, Next};
use crate::boot::FlagEdit;

/// What checking and confirming wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Checking { counted: Option<bool> },
    PersistingFailure { why: String },
    Confirming { counted: Option<bool> },
    PersistingConfirmed,
}

/// Begins to check the trial of this boot. `counted`: whether the boot loader spent a try for it, if
/// that is known.
pub(super) fn probe(node: Node, counted: Option<bool>) -> Next {
    node.go(Machine::Trial(At::Checking { counted }), Effect::CheckHealth)
}

/// Begins to confirm the booted slot. `counted`: whether the boot loader spent a try for this boot; unknown
/// when it is no trial.
pub(super) fn confirm(node: Node, counted: Option<bool>) -> Next {
    let slot = node.booted;
    node.edit(Machine::Trial(At::Confirming { counted }), FlagEdit::Confirm(slot))
}

/// Restarts out of a trial that is lost.
pub(super) fn restart(node: Node, why: String) -> Next {
    node.go(Machine::Ending(Outcome::TrialFailed(why.clone())), Effect::Reboot { why })
}

pub(super) fn step(node: Node, at: At, event: Event) -> Next {
    match (at, event) {
        (At::Checking { counted }, Event::Health(Ok(()))) => confirm(node, counted),
        (At::Checking { .. }, Event::Health(Err(why))) => failed(node, why),
        (At::PersistingFailure { why }, Event::Done) => restart(node, why),
        (At::Confirming { counted }, Event::Done) => confirmed(node, counted),
        (At::PersistingConfirmed, Event::Done) => {
            let outcome = Outcome::Confirmed(node.booted);
            match floor_to_raise(&node) {
                Some(floor) => node.go(Machine::Ending(outcome), Effect::RaiseFloor(floor)),
                None => node.finish(outcome),
            }
        }
        _ => node.contradiction(),
    }
}

fn failed(mut node: Node, why: String) -> Next {
    if let Some(Update { phase: Phase::Trial { failed, .. }, .. }) = &mut node.record.update {
        *failed = Some(why.clone());
    }
    node.persist(Machine::Trial(At::PersistingFailure { why }))
}

fn confirmed(mut node: Node, counted: Option<bool>) -> Next {
    let booted = node.booted;
    let record = &mut node.record;
    record.counting = counted.or(record.counting);
    if record.update.as_ref().is_some_and(|update| update.slot == booted) {
        record.update = None;
    }
    if let Some(content) = record.slots.of_mut(booted) {
        content.confirmed = true;
        let index = content.release.index;
        record.failures.retain(|failure| failure.release.index != index);
    }
    node.persist(Machine::Trial(At::PersistingConfirmed))
}

/// The floor may rise to what every slot that can still boot has; an unknown slot keeps it. A boot loader that
/// has to be asked can be asked by anybody, also for a slot whose tries are used up.
pub(super) fn floor_to_raise(node: &Node) -> Option<u64> {
    let mut lowest = None;
    for slot in Slot::BOTH {
        let flags = *node.flags.of(slot);
        let asked = node.evidence.loader == BootLoader::Asked && flags.priority > 0;
        if !flags.bootable() && !asked {
            continue;
        }
        if node.evidence.foreign.of(slot).is_some() {
            return None;
        }
        let content: &SlotContent = node.record.slots.of(slot).as_ref()?;
        let version = content.release.security_version;
        lowest = Some(lowest.map_or(version, |known: u64| known.min(version)));
    }
    lowest.filter(|lowest| *lowest > node.floor)
}
