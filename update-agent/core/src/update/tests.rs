//! Single stories of the machine; `explore.rs` has all of them.

#![cfg(test)]

use super::*;
use crate::boot::{FlagEdit, SlotFlags};
use formats::boot_record::{BootRecord, PerSlot, Phase, ReleaseId, Slot, Update};
use formats::digest::Sha256;
use formats::reason::{Reason, RecordedReason};
use formats::release::ComponentName;
use formats::version::Version;

fn release(version: &str) -> ReleaseId {
    let parsed: Version = version.parse().unwrap();
    ReleaseId { index: Sha256::of(version.as_bytes()), version: parsed.into(), security_version: 2 }
}

fn node() -> Node {
    Node {
        record: BootRecord::default(),
        flags: PerSlot {
            a: SlotFlags { priority: 1, tries: 0, successful: true },
            b: SlotFlags::CLEARED,
        },
        booted: Slot::A,
        boot_id: "1".to_owned(),
        floor: 0,
        evidence: Evidence::default(),
    }
}

fn on_trial(tries_left: u8, failed: Option<&str>) -> Node {
    let mut node = node();
    node.flags.b = SlotFlags { priority: 2, tries: tries_left, successful: false };
    node.booted = Slot::B;
    node.boot_id = "2".to_owned();
    let phase = Phase::Trial {
        boot_id: "1".to_owned(),
        since: 0,
        tries: 3,
        failed: failed.map(str::to_owned),
    };
    node.record.update = Some(Update::new(Slot::B, release("2"), phase));
    node
}

fn apply() -> Task {
    Task::Apply { release: release("2"), tries: 3, activate: true, named: false }
}

#[test]
fn where_a_node_stands() {
    let mut waiting = on_trial(3, None);
    waiting.booted = Slot::A;
    waiting.boot_id = "1".to_owned();
    let mut ignored = waiting.clone();
    ignored.boot_id = "2".to_owned();
    let mut twice = ignored.clone();
    twice.record.update.as_mut().unwrap().passed_over = 1;
    let mut counted = twice.clone();
    counted.flags.b.tries = 2;
    let mut never_made_next = ignored.clone();
    never_made_next.flags.b = SlotFlags::CLEARED;
    let mut used_up = ignored.clone();
    used_up.flags.b.tries = 0;
    let mut told = used_up.clone();
    told.record.update = on_trial(0, Some("web: refused")).record.update;
    let mut confirmed = on_trial(2, None);
    confirmed.flags.b.successful = true;

    let lost = |reason, detail: &str| Standing::Lost { reason, detail: detail.to_owned() };
    let rows = [
        ("no update", node(), Standing::Idle),
        ("first trial boot", on_trial(2, None), Standing::OnTrial { tries_left: 2, counted: true }),
        (
            "no try was spent",
            on_trial(3, None),
            Standing::OnTrial { tries_left: 3, counted: false },
        ),
        ("same boot", waiting, Standing::AwaitingReboot),
        ("one boot was not the boot loader's choice", ignored, Standing::PassedOver),
        (
            "the boot loader ignores the flags",
            twice,
            lost(
                Reason::CountingInactive,
                "slot b was next, but slot a booted twice in a row and no try was spent: the boot \
                 loader does not read these flags",
            ),
        ),
        ("it does: it spent a try before", counted, Standing::PassedOver),
        ("cut before the flags", never_made_next, Standing::Staged),
        (
            "tries used up in silence",
            used_up,
            lost(
                Reason::Unhealthy,
                "3 trial boots ended before the agent could say why (crash, hang or power cut)",
            ),
        ),
        ("tries used up, reason known", told, lost(Reason::Unhealthy, "web: refused")),
        ("confirmed, not recorded", confirmed, Standing::ConfirmUnfinished),
    ];
    for (name, node, expected) in rows {
        assert_eq!(stand(&node), expected, "{name}");
    }
}

#[test]
fn what_is_refused_and_why() {
    let mut unconfirmed = node();
    unconfirmed.flags.a = SlotFlags { priority: 1, tries: 2, successful: false };
    let mut not_counting = node();
    not_counting.record.counting = Some(false);
    let mut next = on_trial(3, None);
    next.booted = Slot::A;
    next.boot_id = "1".to_owned();
    let mut chosen = next.clone();
    chosen.record.update.as_mut().unwrap().named = true;
    let rows = [
        ("update during a trial", on_trial(2, None), apply(), Reason::TrialActive),
        ("nothing to revert to", unconfirmed, apply(), Reason::BootRecord),
        ("counting inactive", not_counting, apply(), Reason::CountingInactive),
        ("below the floor", Node { floor: 3, ..node() }, apply(), Reason::SecverFloor),
        ("same release is next", next, apply(), Reason::UpToDate),
        ("confirm without trial", node(), Task::Confirm, Reason::NotPending),
        ("probe without trial", node(), Task::Probe, Reason::NotPending),
        ("revert to nothing", node(), Task::Revert { detail: String::new() }, Reason::BootRecord),
        ("adopt during a trial", on_trial(2, None), Task::Adopt, Reason::TrialActive),
        ("withhold what nobody made next", node(), withhold(), Reason::NotPending),
        ("withhold what runs", on_trial(2, None), withhold(), Reason::NotPending),
        ("withhold what an operator chose", chosen, withhold(), Reason::NotPending),
    ];
    for (name, node, task, reason) in rows {
        assert_eq!(begin(node, task).unwrap_err().reason(), reason, "{name}");
    }
}

fn withhold() -> Task {
    Task::Withhold { why: "channel stable is held".to_owned() }
}

/// Runs a task to its end; what it asked for in words, the record it left, and how it ended.
fn carried_out(node: Node, task: Task) -> (Vec<String>, BootRecord, Outcome) {
    let mut record = node.record.clone();
    let (mut state, mut effect) = begin(node, task).unwrap();
    let mut asked = Vec::new();
    loop {
        match &effect {
            Effect::Finish(outcome) => return (asked, record, outcome.clone()),
            Effect::Persist(new) => {
                record = *new.clone();
                asked.push("persist".to_owned());
            }
            other => asked.push(format!("{other:?}")),
        }
        (state, effect) = step(state, Event::Done, 0);
    }
}

/// One boot that the boot loader did not choose: the update stays next, and nothing failed.
#[test]
fn a_boot_that_passed_the_update_over_is_counted_once() {
    let mut before = on_trial(3, None);
    (before.booted, before.boot_id) = (Slot::A, "2".to_owned());
    let (asked, record, outcome) = carried_out(before.clone(), Task::Settle);
    assert_eq!((asked, outcome), (vec!["persist".to_owned()], Outcome::PassedOver(Slot::B)));
    assert_eq!(record.update.as_ref().map(|update| update.passed_over), Some(1));
    assert!(record.failures.is_empty() && record.counting.is_none(), "{record:?}");
    // The agent may be started again in the same boot.
    let same = Node { record: record.clone(), ..before.clone() };
    assert_eq!(stand(&same), Standing::AwaitingReboot);
    // The second in a row proves the boot loader, and still not the release.
    let second = Node { record, boot_id: "3".to_owned(), ..before };
    let (_, record, outcome) = carried_out(second, Task::Settle);
    let gave_up = matches!(
        outcome,
        Outcome::Reverted { reason: RecordedReason::Known(Reason::CountingInactive), .. }
    );
    assert!(gave_up, "{outcome:?}");
    assert_eq!((record.counting, record.update), (Some(false), None));
    assert!(record.failures.is_empty(), "{:?}", record.failures);
}

/// What is withheld is not next any more, stays in its slot, and says why, wherever the power fails.
#[test]
fn what_is_withheld_stays_staged() {
    let mut before = on_trial(3, None);
    (before.booted, before.boot_id) = (Slot::A, "1".to_owned());
    let (asked, record, outcome) = carried_out(before, withhold());
    let why = "channel stable is held".to_owned();
    assert_eq!(outcome, Outcome::Withheld { slot: Slot::B, why: why.clone() });
    let update = record.update.unwrap();
    assert_eq!((update.phase, update.withheld), (Phase::Staged, Some(why)));
    let clear = format!("{:?}", Effect::EditFlags(FlagEdit::Clear(Slot::B)));
    let back = Effect::Switch { slot: Slot::A, order: Order::Reversed(vec![]) };
    assert_eq!(asked, ["persist".to_owned(), clear, format!("{back:?}"), "persist".to_owned()]);
}

/// A medium that takes no record any more does not keep a lost trial running.
#[test]
fn a_trial_that_failed_restarts_also_where_nothing_can_be_written() {
    let (mut state, mut effect) = begin(on_trial(2, None), Task::Probe).unwrap();
    assert_eq!(effect, Effect::CheckHealth);
    (state, effect) = step(state, Event::Health(Err("web".to_owned())), 0);
    assert!(matches!(effect, Effect::Persist(_)));
    let read_only = Event::Failed { reason: Reason::StoreIo, detail: "EROFS".to_owned() };
    (state, effect) = step(state, read_only, 0);
    assert_eq!(effect, Effect::Reboot { why: "web".to_owned() });
    let (_, effect) = step(state, Event::Done, 0);
    assert_eq!(effect, Effect::Finish(Outcome::TrialFailed("web".to_owned())));
}

#[test]
fn a_failed_effect_ends_the_task() {
    let (mut state, mut effect) = begin(node(), apply()).unwrap();
    while !matches!(effect, Effect::WriteSlot { .. }) {
        (state, effect) = step(state, Event::Done, 0);
    }
    let failed = Event::Failed { reason: Reason::SlotIo, detail: "EIO".to_owned() };
    let (_, effect) = step(state, failed, 0);
    let outcome = Outcome::Failed { reason: Reason::SlotIo, detail: "EIO".to_owned() };
    assert_eq!(effect, Effect::Finish(outcome));
}

#[test]
fn an_answer_nobody_asked_for_changes_nothing() {
    let (state, _) = begin(node(), apply()).unwrap();
    let (_, effect) = step(state, Event::Health(Ok(())), 0);
    assert!(matches!(effect, Effect::Finish(Outcome::Failed { reason: Reason::BootRecord, .. })));
}

/// Components that start by themselves are switched as the release states it, and back the other way.
#[test]
fn the_order_of_the_release_is_obeyed_and_reversed() {
    let names: Vec<ComponentName> =
        ["bmc", "cpld", "fpga", "nic"].map(|name| name.parse().unwrap()).to_vec();
    let here: Vec<&ComponentName> = names.iter().collect();
    let stated = vec![names[2].clone(), names[0].clone()];
    let words = |order: Order| {
        let ordered = order.of(&here);
        ordered.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words(Order::Stated(stated.clone())), "fpga bmc cpld nic");
    assert_eq!(words(Order::Reversed(stated.clone())), "nic cpld bmc fpga");
    assert_eq!(words(Order::Stated(vec![])), "bmc cpld fpga nic");

    let (mut state, mut effect) = begin(node(), apply()).unwrap();
    let mut switched = Vec::new();
    loop {
        let event = match &effect {
            Effect::Switch { slot, order } => {
                switched.push((*slot, order.clone()));
                Event::Done
            }
            Effect::SyncAndReadBack { slot } => {
                let staged = crate::image::tests::staged(*slot, release("2"));
                Event::ReadBack(staged.ordered(stated.clone()))
            }
            Effect::Finish(_) => break,
            _ => Event::Done,
        };
        (state, effect) = step(state, event, 0);
    }
    // Nothing was in slot b before.
    let expected = [(Slot::A, Order::Reversed(vec![])), (Slot::B, Order::Stated(stated.clone()))];
    assert_eq!(switched, expected);

    // Given up: the record still says what the slot holds.
    let mut lost = on_trial(0, Some("web"));
    lost.booted = Slot::A;
    let content = crate::image::tests::staged(Slot::B, release("2")).ordered(stated.clone());
    lost.record.slots.b = Some(content.into_content());
    let (mut state, mut effect) = begin(lost, Task::Settle).unwrap();
    while !matches!(effect, Effect::Switch { .. } | Effect::Finish(_)) {
        (state, effect) = step(state, Event::Done, 0);
    }
    assert_eq!(effect, Effect::Switch { slot: Slot::A, order: Order::Reversed(stated) });
}

/// A node whose slot b waits for its boot, or was staged, and was written by another program.
#[test]
fn a_release_that_another_program_wrote_over_is_written_off() {
    let mut next = on_trial(3, None);
    (next.booted, next.boot_id) = (Slot::A, "1".to_owned());
    let mut staged = next.clone();
    staged.flags.b = SlotFlags::CLEARED;
    if let Some(update) = &mut staged.record.update {
        update.phase = Phase::Staged;
    }
    for (name, mut node) in [("next", next), ("staged", staged)] {
        node.evidence.foreign.b = Some(slot_check::Foreign::Content);
        let (mut state, mut effect) = begin(node, Task::Settle).unwrap();
        let mut effects = Vec::new();
        while !matches!(effect, Effect::Finish(_)) {
            effects.push(effect);
            (state, effect) = step(state, Event::Done, 1);
        }
        assert_eq!(effect, Effect::Finish(Outcome::Settled), "{name}");
        let [
            Effect::EditFlags(edit),
            Effect::Switch { slot: Slot::A, .. },
            Effect::Persist(record),
        ] = &effects[..]
        else {
            panic!("{name}: {effects:?}");
        };
        assert_eq!(*edit, crate::boot::FlagEdit::Clear(Slot::B), "{name}");
        let phase = record.update.as_ref().map(|update| &update.phase);
        assert_eq!((phase, &record.slots.b), (Some(&Phase::Staging), &None), "{name}");
        assert!(record.failures.is_empty(), "{name}");
    }
}

/// Of a slot that runs or that is only fallen back to, nothing is changed before an operator says so.
#[test]
fn adopting_forgets_what_a_slot_is_said_to_hold() {
    let mut node = node();
    let held = |version: &str| {
        Some(formats::boot_record::SlotContent {
            release: release(version),
            components: Vec::new(),
            confirmed: true,
            order: Vec::new(),
        })
    };
    node.record.slots = PerSlot { a: held("1"), b: held("2") };
    node.evidence.foreign.b = Some(slot_check::Foreign::Partition);
    let (_, effect) = begin(node.clone(), Task::Settle).unwrap();
    assert_eq!(effect, Effect::RaiseFloor(2), "slot b boots nothing");
    node.flags.b = SlotFlags { priority: 1, tries: 0, successful: true };
    let (_, effect) = begin(node.clone(), Task::Settle).unwrap();
    assert_eq!(effect, Effect::Finish(Outcome::Settled), "an unknown slot keeps the floor");
    let (state, _) = begin(node, Task::Adopt).unwrap();
    let (_, effect) = step(state, Event::Done, 1);
    let Effect::Persist(record) = effect else { panic!("{effect:?}") };
    assert_eq!((record.slots.a.is_some(), record.slots.b.is_some()), (true, false));
}
