//! Taking back what is next: the slot stays written.

use formats::boot_record::{Phase, Update};

use super::super::effect::Event;
use super::super::node::Node;
use super::super::standing::Standing;
use super::super::task::{Outcome, Refusal};
use super::{At as Machine, Next};
use crate::boot::FlagEdit;

/// What taking back waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Persisting(Update),
    Clearing(Update),
    SwitchingBack(Update),
}

/// What is next is taken back; what runs, or what an operator chose, is not.
pub(super) fn begin(mut node: Node, standing: &Standing, why: String) -> Result<Next, Refusal> {
    match &mut node.record.update {
        Some(update) if *standing == Standing::AwaitingReboot && !update.named => {
            update.withheld = Some(why);
            let update = update.clone();
            Ok(node.persist(Machine::Withhold(At::Persisting(update))))
        }
        _ => Err(Refusal::NotPending),
    }
}

/// An update on trial whose slot is not bootable is staged, no more: its activation, or taking it back, was cut.
pub(super) fn finish(node: Node, update: Update) -> Next {
    let booted = node.booted;
    node.switch_back(Machine::Withhold(At::SwitchingBack(update)), booted)
}

pub(super) fn step(node: Node, at: At, event: Event) -> Next {
    let slot = node.booted.other();
    match (at, event) {
        // The flags first: a cut then leaves what was never made next, which settles to the same.
        (At::Persisting(update), Event::Done) => {
            node.edit(Machine::Withhold(At::Clearing(update)), FlagEdit::Clear(slot))
        }
        (At::Clearing(update), Event::Done) => finish(node, update),
        (At::SwitchingBack(update), Event::Done) => staged(node, update),
        _ => node.contradiction(),
    }
}

fn staged(mut node: Node, update: Update) -> Next {
    let outcome = match &update.withheld {
        Some(why) => Outcome::Withheld { slot: update.slot, why: why.clone() },
        None => Outcome::Settled,
    };
    node.record.update = Some(Update { phase: Phase::Staged, ..update });
    node.persist(Machine::Ending(outcome))
}
