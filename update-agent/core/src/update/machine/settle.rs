//! Bringing the record up to date with what happened.

use formats::boot_record::{Phase, Update};

use super::super::effect::Effect;
use super::super::evidence::BootLoader;
use super::super::node::Node;
use super::super::standing::Standing;
use super::super::task::Outcome;
use super::revert::GivenUp;
use super::{At as Machine, Next, revert, stage, trial, withhold};

/// Begins what a node has to do where it stands. `unknown`: whether the record had a phase that this
/// version does not know.
pub(super) fn begin(node: Node, standing: Standing, unknown: bool) -> Next {
    match node.record.update.clone() {
        Some(update) => settle(node, update, standing, unknown),
        None if standing == Standing::Idle => raise_floor(node),
        None => node.finish(Outcome::Settled),
    }
}

fn settle(mut node: Node, update: Update, standing: Standing, unknown: bool) -> Next {
    if let Some(given_up) = GivenUp::recorded(&update) {
        return revert::clear(node, given_up);
    }
    match standing {
        Standing::Staged | Standing::AwaitingReboot if is_foreign(&node, &update) => {
            stage::write_off(node, update.release)
        }
        Standing::ConfirmUnfinished if update.slot == node.booted => trial::confirm(node, None),
        Standing::ConfirmUnfinished => {
            if let Some(content) = node.record.slots.of_mut(update.slot) {
                content.confirmed = true;
            }
            node.record.update = None;
            node.persist(Machine::Ending(Outcome::Settled))
        }
        Standing::Lost { reason, detail } => revert::lost(node, update, reason, detail),
        Standing::PassedOver => pass_over(node, update),
        // The activation was cut before the flags: it is staged, no more.
        Standing::Staged if matches!(update.phase, Phase::Trial { .. }) => {
            withhold::finish(node, update)
        }
        // So that the next boot shows whether the boot loader reads the flags.
        Standing::AwaitingReboot if unknown => node.persist(Machine::Ending(Outcome::Settled)),
        _ => node.finish(Outcome::Settled),
    }
}

/// A confirm that was cut before the floor rose: it rises now.
fn raise_floor(node: Node) -> Next {
    match trial::floor_to_raise(&node) {
        Some(floor) => node.go(Machine::Ending(Outcome::Settled), Effect::RaiseFloor(floor)),
        None => node.finish(Outcome::Settled),
    }
}

/// The update stays next, from this boot on.
fn pass_over(mut node: Node, mut update: Update) -> Next {
    let counts = node.evidence.loader != BootLoader::Asked;
    // Where nobody asked for the trial, it says so once: no number of such boots proves anything.
    update.passed_over = if counts { update.passed_over.saturating_add(1) } else { 1 };
    if let Phase::Trial { boot_id, .. } = &mut update.phase {
        boot_id.clone_from(&node.boot_id);
    }
    let outcome = Outcome::PassedOver(update.slot);
    node.record.update = Some(update);
    node.persist(Machine::Ending(outcome))
}

/// Whether another program has written the slot of an update that does not run yet.
fn is_foreign(node: &Node, update: &Update) -> bool {
    update.slot == node.booted.other() && node.evidence.foreign.of(update.slot).is_some()
}
