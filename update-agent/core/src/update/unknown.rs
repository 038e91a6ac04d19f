//! An update whose phase this version does not know: a newer agent recorded it, and a revert or a release
//! with an older agent has brought this one to it.
//!
//! The phase decides nothing then; the flags do, as the boot loader reads them:
//!
//! | flags of the update's slot | it runs | read as | what follows |
//! |---|---|---|---|
//! | confirmed | yes or no | trial | the confirm is recorded |
//! | bootable, or its last try is spent | yes | trial | health checks; without a confirm the tries run out |
//! | cleared | yes | reverting | the revert is finished, and the machine restarts |
//! | bootable | no | trial that this boot began | it is tried: the next two boots decide |
//! | its tries are used up | no | trial that failed | the failure is recorded: it is not installed again |
//! | cleared | no | staging | the slot is not booted; the next update writes it anew |
//!
//! So a confirmed slot is never given up and a slot that nobody confirmed never becomes one without its
//! checks, whatever the newer agent meant. The record keeps the phase as it was written until this agent
//! has to act on the update: then it has the phase that was read from the flags.

use formats::boot_record::{Phase, Slot, Update};
use formats::reason::Reason;

use super::node::Node;
use super::task::Refusal;
use crate::boot::{BootFlags, SlotFlags};

/// The slot to leave where nothing but the flags can be read: what waits for its trial, or what runs.
///
/// Errors: [`Refusal::NothingToRevertTo`].
pub fn slot_to_leave(flags: BootFlags, booted: Slot) -> Result<Slot, Refusal> {
    let other = flags.of(booted.other());
    let slot = if other.bootable() && !other.confirmed() { booted.other() } else { booted };
    match flags.of(slot.other()).confirmed() {
        true => Ok(slot),
        false => Err(Refusal::NothingToRevertTo(slot.other())),
    }
}

/// The update's phase, as this version goes on from it.
pub(super) fn phase_of(node: &Node, update: &Update) -> Phase {
    match &update.phase {
        Phase::Unknown { name } => by_flags(node, update.slot, name),
        known => known.clone(),
    }
}

/// The node with a phase that this version knows, and whether the record had another one.
pub(super) fn understand(mut node: Node) -> (Node, bool) {
    let Some(update) = &node.record.update else { return (node, false) };
    let unknown = matches!(update.phase, Phase::Unknown { .. });
    let phase = phase_of(&node, update);
    if let Some(update) = &mut node.record.update {
        update.phase = phase;
    }
    (node, unknown)
}

fn by_flags(node: &Node, slot: Slot, name: &str) -> Phase {
    let flags: SlotFlags = *node.flags.of(slot);
    let runs = node.booted == slot;
    let trial = |spent, failed| Phase::Trial {
        boot_id: node.boot_id.clone(),
        since: 0,
        // Whether the boot loader counts is known from elsewhere: a trial of ours, or not at all.
        tries: flags.tries.saturating_add(spent),
        failed,
    };
    match (runs, flags.priority == 0) {
        (true, true) => Phase::Reverting {
            reason: Reason::Operator.into(),
            detail: format!("a newer agent gave it up in phase {name:?}"),
        },
        (false, true) => Phase::Staging,
        (true, false) => trial(1, None),
        (false, false) if flags.bootable() => trial(0, None),
        (false, false) => {
            let why = "of a newer agent, which this version does not know";
            trial(1, Some(format!("its trial boots ended in phase {name:?} {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use formats::boot_record::{BootRecord, PerSlot, ReleaseId, SlotContent};
    use formats::digest::Sha256;
    use formats::version::Version;

    use super::*;
    use crate::boot::select;
    use crate::update::{Effect, Event, Evidence, Outcome, Standing, Task, begin, stand, step};

    const CLEARED: SlotFlags = SlotFlags { priority: 0, tries: 0, successful: false };
    const GOOD: SlotFlags = SlotFlags { priority: 1, tries: 0, successful: true };
    const BETTER: SlotFlags = SlotFlags { priority: 2, tries: 0, successful: true };
    const TRIES: SlotFlags = SlotFlags { priority: 2, tries: 2, successful: false };
    const USED_UP: SlotFlags = SlotFlags { priority: 2, tries: 0, successful: false };

    fn release(version: &str) -> ReleaseId {
        let parsed: Version = version.parse().unwrap();
        ReleaseId {
            index: Sha256::of(version.as_bytes()),
            version: parsed.into(),
            security_version: 1,
        }
    }

    fn content(version: &str) -> Option<SlotContent> {
        let release = release(version);
        Some(SlotContent { release, components: vec![], confirmed: true, order: vec![] })
    }

    fn node(b: SlotFlags, booted: Slot) -> Node {
        let phase = Phase::Unknown { name: "drained".to_owned() };
        let update = Some(Update::new(Slot::B, release("1.1.0"), phase));
        let slots = PerSlot { a: content("1.0.0"), b: content("1.1.0") };
        Node {
            record: BootRecord { slots, update, ..BootRecord::default() },
            flags: PerSlot { a: GOOD, b },
            booted,
            boot_id: "now".to_owned(),
            floor: 1,
            evidence: Evidence::default(),
        }
    }

    /// Runs a task to its end; every flag that was set is given back with the record.
    fn run(mut node: Node, task: Task, healthy: bool) -> (Node, Option<Outcome>) {
        let Ok((mut state, mut effect)) = begin(node.clone(), task) else { return (node, None) };
        loop {
            let event = match effect {
                Effect::Finish(outcome) => return (node, Some(outcome)),
                Effect::Persist(record) => {
                    node.record = *record;
                    Event::Done
                }
                Effect::EditFlags(edit) => {
                    node.flags = edit.apply(node.flags);
                    Event::Done
                }
                Effect::CheckHealth => {
                    Event::Health(if healthy { Ok(()) } else { Err("web".to_owned()) })
                }
                Effect::WriteSlot { .. } | Effect::SyncAndReadBack { .. } => {
                    let detail = "not written in this test".to_owned();
                    Event::Failed { reason: Reason::SlotIo, detail }
                }
                Effect::Switch { .. } | Effect::RaiseFloor(_) | Effect::Reboot { .. } => {
                    Event::Done
                }
            };
            (state, effect) = step(state, event, 7);
        }
    }

    #[test]
    fn the_flags_say_where_the_update_stands() {
        let rows = [
            ("confirmed, running", BETTER, Slot::B, "confirm_unfinished"),
            ("confirmed, the other runs", BETTER, Slot::A, "confirm_unfinished"),
            ("on trial", TRIES, Slot::B, "on_trial"),
            ("on its last trial", USED_UP, Slot::B, "on_trial"),
            ("given up while it runs", CLEARED, Slot::B, "revert_unfinished"),
            ("next", TRIES, Slot::A, "awaiting_reboot"),
            ("lost", USED_UP, Slot::A, "lost"),
            ("not bootable", CLEARED, Slot::A, "interrupted"),
        ];
        for (name, b, booted, expected) in rows {
            let found = match stand(&node(b, booted)) {
                Standing::ConfirmUnfinished => "confirm_unfinished",
                Standing::OnTrial { .. } => "on_trial",
                Standing::RevertUnfinished => "revert_unfinished",
                Standing::AwaitingReboot => "awaiting_reboot",
                Standing::Lost { .. } => "lost",
                Standing::Interrupted => "interrupted",
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn without_a_record_the_flags_say_what_to_leave() {
        let rows = [
            (GOOD, TRIES, Slot::A, Some(Slot::B)),
            (GOOD, TRIES, Slot::B, Some(Slot::B)),
            (GOOD, USED_UP, Slot::B, Some(Slot::B)),
            (GOOD, BETTER, Slot::A, Some(Slot::A)),
            (GOOD, BETTER, Slot::B, Some(Slot::B)),
            (GOOD, CLEARED, Slot::B, Some(Slot::B)),
            (GOOD, CLEARED, Slot::A, None),
            (GOOD, USED_UP, Slot::A, None),
            (CLEARED, TRIES, Slot::B, None),
            (CLEARED, BETTER, Slot::B, None),
        ];
        for (a, b, booted, expected) in rows {
            let flags = PerSlot { a, b };
            assert_eq!(slot_to_leave(flags, booted).ok(), expected, "{flags:?}, {booted} runs");
        }
    }

    fn ends_on_a_confirmed_slot(mut flags: BootFlags) -> bool {
        (0..20).any(|_| match select(flags) {
            Some(choice) if choice.flags.of(choice.slot).successful => true,
            Some(choice) => {
                flags = choice.flags;
                false
            }
            None => false,
        })
    }

    /// Every state of the flags, every slot that runs, every task, healthy or not.
    #[test]
    fn whatever_the_phase_meant_the_node_ends_on_a_confirmed_slot() {
        let mut ended: BTreeMap<&str, u32> = BTreeMap::new();
        for b in [CLEARED, BETTER, TRIES, USED_UP] {
            for booted in Slot::BOTH {
                let detail = || "by hand".to_owned();
                let apply = Task::Apply {
                    release: release("1.2.0"),
                    tries: 3,
                    activate: true,
                    named: false,
                };
                let bad = Task::MarkBad { slot: Slot::B, detail: detail() };
                let revert = Task::Revert { detail: detail() };
                let tasks =
                    [Task::Settle, Task::Probe, Task::Confirm, Task::Adopt, revert, bad, apply];
                for (task, healthy) in tasks.iter().flat_map(|task| [(task, true), (task, false)]) {
                    let before = node(b, booted);
                    let name = format!("{b:?}, {booted} runs, {task:?}, healthy {healthy}");
                    let (after, outcome) = run(before.clone(), task.clone(), healthy);
                    assert!(ends_on_a_confirmed_slot(after.flags), "{name}: {after:?}");
                    assert_eq!(after.record.counting, None, "{name}: nothing shows that it counts");
                    let on_purpose = matches!(task, Task::Confirm | Task::Adopt) || healthy;
                    if !before.flags.b.successful && after.flags.b.successful {
                        assert!(on_purpose && booted == Slot::B, "{name}");
                    }
                    *ended.entry(if outcome.is_some() { "ran" } else { "refused" }).or_default() +=
                        1;
                }
            }
        }
        assert!(ended["ran"] > 20 && ended["refused"] > 10, "{ended:?}");
    }

    #[test]
    fn a_lost_trial_is_remembered_and_what_waits_is_kept_until_it_has_to_be_acted_on() {
        let (after, outcome) = run(node(USED_UP, Slot::A), Task::Settle, true);
        assert!(matches!(outcome, Some(Outcome::Reverted { slot: Slot::B, reboot: false, .. })));
        assert!(after.record.failure_of(release("1.1.0").index).is_some());
        assert_eq!((after.record.update, after.flags.b), (None, CLEARED));

        let before = node(CLEARED, Slot::A);
        assert_eq!(run(before.clone(), Task::Settle, true).0.record, before.record);

        // Two boots show whether the boot loader reads the flags.
        let (mut after, _) = run(node(TRIES, Slot::A), Task::Settle, true);
        assert_eq!(stand(&after), Standing::AwaitingReboot);
        after.boot_id = "the next boot".to_owned();
        assert_eq!(stand(&after), Standing::PassedOver);
        let (mut after, _) = run(after, Task::Settle, true);
        assert_eq!(stand(&after), Standing::AwaitingReboot);
        after.boot_id = "the boot after it".to_owned();
        assert!(matches!(stand(&after), Standing::Lost { .. }));
    }
}
