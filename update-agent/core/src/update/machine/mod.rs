//! The states of a task and the steps between them.
//!
//! A state owns the data that the rest of its task uses, and passes it on by value: a step neither asks
//! the record again what the task is about, nor finds data of another task.
//!
//! | module | part of a task |
//! |---|---|
//! | [`stage`] | write a release, make it next |
//! | [`trial`] | check a trial, confirm a slot |
//! | [`revert`] | give a slot up |
//! | [`withhold`] | take back what is next |
//! | [`settle`] | bring the record up to date with what happened |

use formats::boot_record::Slot;
use formats::reason::Reason;

use super::effect::{Effect, Event, Order};
use super::node::Node;
use super::observe::{adopt, observe};
use super::standing::{Standing, stand};
use super::task::{Outcome, Refusal, Task};
use super::unknown::understand;
use crate::boot::FlagEdit;

mod revert;
mod settle;
mod stage;
mod trial;
mod withhold;

/// What the machine waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Stage(stage::At),
    Trial(trial::At),
    Revert(revert::At),
    Withhold(withhold::At),
    /// The last effect of the task, which ends so when the effect is done.
    Ending(Outcome),
    Over,
}

/// A task under way. Consumed by [`step`], so nobody continues from an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    node: Node,
    at: At,
}

/// A state, and the effect that it waits for.
type Next = (State, Effect);

/// Begins a task: the state to continue from, and the first effect. The record is brought up to what
/// this boot shows of its boot loader first.
pub fn begin(node: Node, task: Task) -> Result<(State, Effect), Refusal> {
    let (node, unknown) = understand(node);
    let node = observe(node);
    let standing = stand(&node);
    // Of a phase that was read from the flags, nothing shows what was spent.
    let spent = |counted: bool| (!unknown).then_some(counted);
    match task {
        Task::Apply { release, tries, activate, named } => {
            stage::check(&node, &standing, &release)?;
            let tries = activate.then(|| tries.clamp(1, 15));
            Ok(stage::apply(node, release, named, tries))
        }
        Task::Probe => match standing {
            Standing::OnTrial { counted, .. } => Ok(trial::probe(node, spent(counted))),
            _ => Err(Refusal::NotPending),
        },
        Task::Confirm => match standing {
            Standing::OnTrial { counted, .. } => Ok(trial::confirm(node, spent(counted))),
            Standing::ConfirmUnfinished => Ok(trial::confirm(node, None)),
            _ => Err(Refusal::NotPending),
        },
        Task::Adopt => match standing {
            Standing::OnTrial { .. } => Err(Refusal::TrialActive(node.booted)),
            Standing::Leaving => Err(Refusal::Leaving(node.booted)),
            // Half given up: if it were confirmed now, it would be cleared later, when it may be the last.
            Standing::RevertUnfinished => Err(Refusal::Unsettled),
            _ => {
                let record = adopt(node.record, &node.evidence);
                Ok(trial::confirm(Node { record, ..node }, None))
            }
        },
        Task::Revert { detail } => revert::begin(node, &standing, detail, None),
        Task::MarkBad { slot, detail } => revert::begin(node, &standing, detail, Some(slot)),
        Task::Withhold { why } => withhold::begin(node, &standing, why),
        Task::Settle => Ok(settle::begin(node, standing, unknown)),
    }
}

/// Continues a task after its last effect.
pub fn step(state: State, event: Event, now: u64) -> (State, Effect) {
    let State { node, at } = state;
    match (at, event) {
        // A lost trial ends, whether or not the record can say why: tries are counted.
        (At::Trial(trial::At::PersistingFailure { why }), Event::Failed { .. }) => {
            trial::restart(node, why)
        }
        (_, Event::Failed { reason, detail }) => node.finish(Outcome::Failed { reason, detail }),
        (At::Stage(at), event) => stage::step(node, at, event, now),
        (At::Trial(at), event) => trial::step(node, at, event),
        (At::Revert(at), event) => revert::step(node, at, event, now),
        (At::Withhold(at), event) => withhold::step(node, at, event),
        (At::Ending(outcome), Event::Done) => node.finish(outcome),
        (At::Ending(_) | At::Over, _) => node.contradiction(),
    }
}

/// The ways on from a node.
impl Node {
    fn go(self, at: At, effect: Effect) -> Next {
        (State { node: self, at }, effect)
    }

    fn persist(self, at: At) -> Next {
        let record = Box::new(self.record.clone());
        self.go(at, Effect::Persist(record))
    }

    fn edit(mut self, at: At, edit: FlagEdit) -> Next {
        self.flags = edit.apply(self.flags);
        self.go(at, Effect::EditFlags(edit))
    }

    /// Back to a slot, in the reverse order of what the other one holds.
    fn switch_back(self, at: At, slot: Slot) -> Next {
        let content = self.record.slots.of(slot.other()).as_ref();
        let order = content.map_or_else(Vec::new, |content| content.order.clone());
        self.go(at, Effect::Switch { slot, order: Order::Reversed(order) })
    }

    fn finish(self, outcome: Outcome) -> Next {
        self.go(At::Over, Effect::Finish(outcome))
    }

    /// The driver reported something that the effect does not lead to.
    fn contradiction(self) -> Next {
        self.finish(Outcome::Failed {
            reason: Reason::BootRecord,
            detail: "the update machine was told of something it had not asked for".to_owned(),
        })
    }
}
