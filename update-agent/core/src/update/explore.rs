//! Every state that the agent, the boot loader, power cuts and health results can lead to.
//!
//! The world below is what survives a power cut: record, flags, floor, the content of the slots.
//! From each world the agent starts every task it could start; at each effect the power is cut
//! before it, after it, or (a slot being written) in the middle; each boot is chosen by the same
//! [`select`] the real chooser uses. A violated promise prints the shortest way to it.

#![cfg(test)]

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::boot::{FlagEdit, Flags};
use crate::image::tests::staged;
use formats::boot_record::PerSlot;
use formats::digest::Sha256;
use formats::version::Version;

/// What a slot really holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Content {
    Torn,
    Holds(ReleaseId),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    record: BootRecord,
    flags: BootFlags,
    floor: u64,
    content: PerSlot<Content>,
    booted: Slot,
    boot: u8,
}

/// A faulty agent that the invariants must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The slot is written without being cleared first.
    NoClear,
    /// The slot is made next before it was read back.
    ActivateUnread,
    /// The floor rises as soon as a release is activated.
    FloorBeforeConfirm,
    /// The booted slot is written.
    WriteBooted,
    /// A failed trial is confirmed.
    ConfirmUnhealthy,
}

fn release(version: &str, security_version: u64) -> ReleaseId {
    let parsed: Version = version.parse().unwrap();
    ReleaseId { index: Sha256::of(version.as_bytes()), version: parsed.into(), security_version }
}

fn is_bad(release: &ReleaseId) -> bool {
    release.version.to_string().starts_with("bad")
}

fn start() -> World {
    let old = release("1", 1);
    let content = SlotContent { release: old.clone(), components: vec![], confirmed: true };
    World {
        record: BootRecord { slots: PerSlot { a: Some(content), b: None }, ..Default::default() },
        flags: PerSlot { a: Flags { priority: 1, tries: 0, successful: true }, b: Flags::CLEARED },
        floor: 1,
        content: PerSlot { a: Content::Holds(old), b: Content::Torn },
        booted: Slot::A,
        boot: 0,
    }
}

impl World {
    fn node(&self) -> Node {
        Node {
            record: self.record.clone(),
            flags: self.flags,
            booted: self.booted,
            boot_id: self.boot.to_string(),
            floor: self.floor,
        }
    }

    /// Power off and on: the boot loader decides, memory is gone, the boot id is new.
    fn reboot(&self) -> Option<World> {
        let choice = select(self.flags)?;
        let named = match &self.record.update {
            Some(Update { phase: Phase::Trial { boot_id, .. }, .. }) => boot_id.clone(),
            _ => String::new(),
        };
        let boot = (0..3).find(|id| *id != self.boot && id.to_string() != named)?;
        Some(World { flags: choice.flags, booted: choice.slot, boot, ..self.clone() })
    }

    fn runs_bad(&self) -> bool {
        matches!(self.content.of(self.booted), Content::Holds(release) if is_bad(release))
    }

    fn broken_promise(&self) -> Option<&'static str> {
        for slot in Slot::BOTH {
            if self.flags.of(slot).bootable() && *self.content.of(slot) == Content::Torn {
                return Some("S2: a torn slot is bootable");
            }
        }
        // S3 and L3: follow the boot loader while every trial fails; it ends on a good slot.
        let mut flags = self.flags;
        for boots in 0.. {
            let Some(choice) = select(flags) else { return Some("S3: no slot boots") };
            if flags.of(choice.slot).successful {
                break;
            }
            if boots > 15 {
                return Some("L3: a trial never ends");
            }
            flags = choice.flags;
        }
        for slot in Slot::BOTH {
            let Content::Holds(release) = self.content.of(slot) else { continue };
            if self.flags.of(slot).bootable() && release.security_version < self.floor {
                return Some("S5: the floor is above a slot that may boot");
            }
            if self.flags.of(slot).confirmed() && is_bad(release) {
                return Some("an unhealthy release is confirmed");
            }
        }
        None
    }

    /// Performs one effect. The worlds a cut may leave, the world after it, and the event.
    fn perform(&self, effect: &Effect, fault: Fault) -> (Vec<World>, World, Event) {
        let mut cuts = vec![self.clone()];
        let mut after = self.clone();
        let mut event = Event::Done;
        match effect {
            Effect::Persist(record) => {
                after.record = *record.clone();
                // The list of failures is the policy's; the machine never reads it.
                after.record.failures.clear();
                let trial =
                    matches!(&record.update, Some(Update { phase: Phase::Trial { .. }, .. }));
                if fault == Fault::FloorBeforeConfirm && trial {
                    after.floor = record.update.as_ref().map_or(0, |u| u.release.security_version);
                }
            }
            Effect::EditFlags(edit) => {
                let skipped = fault == Fault::NoClear && matches!(edit, FlagEdit::Clear(_));
                if !skipped {
                    after.flags = edit.apply(self.flags);
                }
            }
            Effect::WriteSlot { slot, release } => {
                let slot = if fault == Fault::WriteBooted { slot.other() } else { *slot };
                *after.content.of_mut(slot) = Content::Torn;
                if fault == Fault::ActivateUnread {
                    after.flags = FlagEdit::Activate { slot, tries: 2 }.apply(after.flags);
                }
                cuts.push(after.clone());
                *after.content.of_mut(slot) = Content::Holds(release.clone());
            }
            Effect::SyncAndReadBack { slot } => {
                let written = self.record.update.as_ref().map(|update| update.release.clone());
                event = Event::ReadBack(staged(*slot, written.unwrap()));
            }
            Effect::CheckHealth => {
                let bad = self.runs_bad() && fault != Fault::ConfirmUnhealthy;
                event = Event::Health(if bad { Err("web".to_owned()) } else { Ok(()) });
            }
            Effect::RaiseFloor(floor) => after.floor = after.floor.max(*floor),
            Effect::Reboot | Effect::Finish(_) => {}
        }
        cuts.push(after.clone());
        (cuts, after, event)
    }
}

/// Runs a task to its end; every world that a cut on the way may leave is given to `cut`.
fn run(
    world: World,
    task: Task,
    fault: Fault,
    cut: &mut dyn FnMut(String, World),
) -> Option<(World, Outcome)> {
    let name = match &task {
        Task::Apply { release, activate, .. } => format!("apply {} {activate}", release.version),
        other => format!("{other:?}"),
    };
    let (mut state, mut effect) = begin(world.node(), task).ok()?;
    let mut now = world;
    loop {
        if let Effect::Finish(outcome) = effect {
            return Some((now, outcome));
        }
        let (cuts, after, event) = now.perform(&effect, fault);
        for (at, world) in cuts.into_iter().enumerate() {
            cut(format!("{name}: cut at {at} of {}", short(&effect)), world);
        }
        now = after;
        (state, effect) = step(state, event, 7);
    }
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::Persist(record) => {
            format!("persist {:?}", record.update.as_ref().map(|u| &u.phase))
        }
        other => format!("{other:?}"),
    }
}

fn tasks(world: &World) -> Vec<Task> {
    let apply =
        |version, sv, activate| Task::Apply { release: release(version, sv), tries: 2, activate };
    let mut tasks = vec![Task::Settle, Task::Probe, Task::Revert { detail: "by hand".to_owned() }];
    for activate in [true, false] {
        tasks.extend([
            apply("2", 2, activate),
            apply("bad3", 2, activate),
            apply("4", 3, activate),
        ]);
    }
    if !world.runs_bad() {
        tasks.push(Task::Confirm);
        tasks.push(Task::Adopt);
    }
    tasks
}

/// All worlds, or the shortest way to a broken promise.
fn explore(fault: Fault) -> Result<usize, (&'static str, Vec<String>)> {
    let mut seen: HashMap<World, Option<(World, String)>> = HashMap::new();
    let mut queue = VecDeque::from([start()]);
    seen.insert(start(), None);
    while let Some(world) = queue.pop_front() {
        if let Some(promise) = world.broken_promise() {
            return Err((promise, way_to(&seen, world)));
        }
        let mut next = Vec::new();
        for task in tasks(&world) {
            let before = world.clone();
            let s1 = std::cell::Cell::new(false);
            let mut cut = |name: String, torn: World| {
                s1.set(
                    s1.get() || torn.content.of(before.booted) != before.content.of(before.booted),
                );
                // A cut is a reboot; the world before it must keep the promises, too.
                if let Some(rebooted) = torn.reboot() {
                    next.push((name.clone(), rebooted));
                }
                next.push((name, torn));
            };
            let name = format!("{task:?}");
            if let Some((after, _)) = run(world.clone(), task, fault, &mut cut) {
                next.push((name.clone(), after));
            }
            if s1.get() {
                let mut way = way_to(&seen, world);
                way.push(name);
                return Err(("S1: the booted slot was written", way));
            }
        }
        match world.reboot() {
            Some(rebooted) => next.push(("power cut".to_owned(), rebooted)),
            None => return Err(("S3: no slot boots", way_to(&seen, world))),
        }
        for (name, world_after) in next {
            if world_after.floor < world.floor {
                return Err(("S5: the floor fell", way_to(&seen, world)));
            }
            if !seen.contains_key(&world_after) {
                seen.insert(world_after.clone(), Some((world.clone(), name)));
                queue.push_back(world_after);
            }
        }
    }
    // L1: from every world, an honest run or two reach a good release.
    for world in seen.keys() {
        reaches_goal(world).map_err(|why| (why, way_to(&seen, world.clone())))?;
    }
    Ok(seen.len())
}

fn way_to(seen: &HashMap<World, Option<(World, String)>>, mut world: World) -> Vec<String> {
    let mut way = Vec::new();
    while let Some(Some((from, name))) = seen.get(&world) {
        way.push(name.clone());
        world = from.clone();
    }
    way.reverse();
    way
}

/// What an undisturbed node does: settle, end a trial, apply, reboot, end the trial.
fn reaches_goal(world: &World) -> Result<(), &'static str> {
    let goal = release("4", 3);
    let mut now = world.clone();
    for _ in 0..12 {
        let done = |task| run(now.clone(), task, Fault::None, &mut |_, _| ());
        let Some((settled, outcome)) = done(Task::Settle) else { return Err("L1: settle refused") };
        now = settled;
        if matches!(outcome, Outcome::Reverted { reboot: true, .. }) {
            now = now.reboot().ok_or("L1: nothing boots")?;
            continue;
        }
        if *now.content.of(now.booted) == Content::Holds(goal.clone())
            && now.flags.of(now.booted).confirmed()
            && now.record.update.is_none()
        {
            return Ok(());
        }
        let task = match stand(&now.node()) {
            Standing::OnTrial { .. } => Task::Probe,
            Standing::AwaitingReboot | Standing::Leaving => {
                now = now.reboot().ok_or("L1: nothing boots")?;
                continue;
            }
            _ => Task::Apply { release: goal.clone(), tries: 2, activate: true },
        };
        match run(now.clone(), task, Fault::None, &mut |_, _| ()) {
            Some((after, Outcome::Confirmed(_))) => now = after,
            Some((after, _)) => now = after.reboot().ok_or("L1: nothing boots")?,
            None => return Err("L1: the goal is refused"),
        }
    }
    Err("L1: the goal is not reached")
}

#[test]
fn every_state_keeps_every_promise() {
    match explore(Fault::None) {
        Ok(states) => {
            println!("{states} states, all promises hold");
            assert!(states > 1000, "the exploration shrank to {states} states");
        }
        Err((promise, way)) => panic!("{promise}\n  {}", way.join("\n  ")),
    }
}

#[test]
fn faulty_agents_are_caught() {
    let rows = [
        (Fault::NoClear, "S2"),
        (Fault::ActivateUnread, "S2"),
        (Fault::FloorBeforeConfirm, "S5"),
        (Fault::WriteBooted, "S1"),
        (Fault::ConfirmUnhealthy, "an unhealthy release is confirmed"),
    ];
    for (fault, expected) in rows {
        let (promise, way) = explore(fault).expect_err(&format!("{fault:?} was not caught"));
        println!("{fault:?}: {promise} after {} steps", way.len());
        assert!(promise.starts_with(expected), "{fault:?}: {promise}\n  {}", way.join("\n  "));
    }
}
