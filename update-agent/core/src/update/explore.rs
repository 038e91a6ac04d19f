//! Every state that the agent, the boot loader, power cuts and health results can lead to, as a
//! model that stateright walks.
//!
//! A [`World`] is what survives a power cut: record, flags, floor, the content of the slots, and the
//! bank of a component that starts by itself (a BMC beside the system: an update set over two
//! devices). From each world the agent starts every task it could start; at each effect it dies
//! before it, after it, or (a slot being written) in the middle; the power may fail in every world;
//! each boot is chosen by the same [`select`] the real chooser uses, and every step is the binary's
//! [`begin`] and [`step`]. A violated promise prints the shortest way to it.
//!
//! There are two kinds of boot loader: one that spends tries by itself, and one that boots the confirmed slot until
//! it is asked for a trial (`formats::autoboot`), whose tries the agent spends before it asks.
//!
//! Beside power cuts there is what a machine in the field does: a check that fails by chance, a medium
//! that takes no writes, a lock that is never free, a restart that is refused, a boot past the boot
//! loader (kexec, a menu), a channel that is held while its release is next.

#![cfg(test)]

use std::time::Duration;

use stateright::{Checker, Model, Path, Property};

use super::*;
use crate::boot::{BootFlags, FlagEdit, Selection, SlotFlags, select};
use crate::image::tests::staged;
use crate::{daemon, restart};
use formats::autoboot::Named;
use formats::boot_record::{BootRecord, PerSlot, Phase, ReleaseId, Slot, SlotContent, Update};
use formats::digest::Sha256;
use formats::reason::{Reason, RecordedReason};
use formats::version::Version;

/// What a slot really holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Content {
    Torn,
    Holds(ReleaseId),
}

/// The component with a switch of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Bank {
    /// The slot whose bank it starts from next.
    next: Slot,
    /// The slot whose bank it runs from.
    runs: Slot,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    record: BootRecord,
    flags: BootFlags,
    floor: u64,
    content: PerSlot<Content>,
    bank: Bank,
    booted: Slot,
    boot: u8,
    /// Whether the boot loader has to be asked for a trial.
    asks: bool,
    /// Boots in a row, this one included, that the boot loader did not choose; 2 stands for more.
    foreign: u8,
    /// Requests in this boot to leave it.
    asked: u32,
    /// A promise about a step, not about a state, that the last step broke.
    broken: Option<&'static str>,
}

/// A faulty agent or boot loader that the promises must catch.
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
    /// The other component is switched while its bank is being written.
    SwitchUnread,
    /// The other component is not switched back when the set is given up.
    NoSwitchBack,
    /// The boot loader spends no tries.
    SpendsNothing,
    /// A reset of the floor's file: it falls when a slot is given up.
    FloorFalls,
    /// A boot that lost its trial has its health checked again.
    ForgetsRequest,
    /// A trial is left to the interval of the polls.
    PollsOnTrial,
    /// A restart that is refused is only asked for again.
    NeverForces,
    /// A lost trial restarts only where the record can say why.
    RecordsOrStays,
    /// One boot past the boot loader proves that it does not count.
    BlamesAtOnce,
    /// What is withheld keeps its flags.
    WithholdsOnPaper,
    /// A boot loader that has to be asked is blamed for boots that nobody asked for.
    BlamesUnasked,
    /// The slot that does not boot is named for trials, also where it is being written.
    NamesTheOther,
    /// A trial is asked for without spending a try.
    AsksForNothing,
}

impl Fault {
    /// Whether it is one of nodes whose boot loader has to be asked.
    fn asks(self) -> bool {
        matches!(self, Fault::BlamesUnasked | Fault::NamesTheOther | Fault::AsksForNothing)
    }
}

/// What a check and a medium do while a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    /// Checks say what is so, and what is written is there.
    Good,
    /// A check fails by chance.
    Flaps,
    /// A check fails by chance, and nothing can be written.
    ReadOnly,
}

/// The model: a node with one fault, or none, and its kind of boot loader.
struct Explored {
    fault: Fault,
    asks: bool,
}

/// What happens next, and what it leads to.
#[derive(Debug, Clone, PartialEq)]
struct Action {
    /// The task and where the agent died in it, or the power cut.
    what: String,
    /// What it leads to: found once, where it is known.
    to: Box<World>,
}

fn release(version: &str, security_version: u64) -> ReleaseId {
    let parsed: Version = version.parse().unwrap();
    ReleaseId { index: Sha256::of(version.as_bytes()), version: parsed.into(), security_version }
}

fn is_bad(release: &ReleaseId) -> bool {
    release.version.to_string().starts_with("bad")
}

fn start(asks: bool) -> World {
    let old = release("1", 1);
    let content =
        SlotContent { release: old.clone(), components: vec![], confirmed: true, order: vec![] };
    World {
        record: BootRecord { slots: PerSlot { a: Some(content), b: None }, ..Default::default() },
        flags: PerSlot {
            a: SlotFlags { priority: 1, tries: 0, successful: true },
            b: SlotFlags::CLEARED,
        },
        floor: 1,
        content: PerSlot { a: Content::Holds(old), b: Content::Torn },
        bank: Bank { next: Slot::A, runs: Slot::A },
        booted: Slot::A,
        boot: 0,
        asks,
        foreign: 0,
        asked: 0,
        broken: None,
    }
}

/// What a boot loader that has to be asked would boot.
fn named(flags: BootFlags, fault: Fault) -> Named {
    let named = Named::of(flags, Slot::A);
    match fault {
        Fault::NamesTheOther => Named { tried: named.default.other(), ..named },
        _ => named,
    }
}

/// The boot loader: the chooser's own function, or a faulty one.
fn choose(flags: BootFlags, asks: bool, fault: Fault) -> Option<Selection> {
    if asks {
        let slot = named(flags, fault).default;
        return flags.of(slot).bootable().then_some(Selection { slot, flags });
    }
    let choice = select(flags)?;
    let spared = fault == Fault::SpendsNothing;
    Some(if spared { Selection { flags, ..choice } } else { choice })
}

impl World {
    fn node(&self) -> Node {
        Node {
            record: self.record.clone(),
            flags: self.flags,
            booted: self.booted,
            boot_id: self.boot.to_string(),
            floor: self.floor,
            evidence: Evidence {
                loader: match self.asks {
                    true => BootLoader::Asked,
                    false => BootLoader::CannotTell,
                },
                ..Evidence::default()
            },
        }
    }

    /// The boot loader decides, memory is gone, the boot id is new, the other component starts.
    fn reboot(&self, fault: Fault) -> Option<World> {
        let choice = choose(self.flags, self.asks, fault)?;
        self.start(choice)
    }

    fn start(&self, choice: Selection) -> Option<World> {
        let named = match &self.record.update {
            Some(Update { phase: Phase::Trial { boot_id, .. }, .. }) => boot_id.clone(),
            _ => String::new(),
        };
        let boot = (0..3).find(|id| *id != self.boot && id.to_string() != named)?;
        let bank = Bank { runs: self.bank.next, ..self.bank.clone() };
        let (flags, booted) = (choice.flags, choice.slot);
        Some(World { flags, booted, boot, bank, foreign: 0, asked: 0, ..self.clone() })
    }

    /// Something else than the boot loader starts a slot that may be booted, and spends nothing. Of
    /// interest while an update is next or on trial, and up to what is proof against a boot loader.
    fn reboot_past_the_loader(&self, slot: Slot, fault: Fault) -> Option<World> {
        if !self.may_start(slot, fault) || !self.has_trial() || self.foreign == 2 {
            return None;
        }
        let started = self.reboot(Fault::None)?;
        let foreign = self.foreign + 1;
        Some(World { flags: self.flags, booted: slot, foreign, ..started })
    }

    /// A boot loader that has to be asked can be asked by anybody, at any time.
    fn may_start(&self, slot: Slot, fault: Fault) -> bool {
        self.flags.of(slot).bootable() || self.asks && named(self.flags, fault).tried == slot
    }

    /// The agent of a node whose boot loader has to be asked spends a try and asks. The boot loader hears it, or the
    /// power fails before.
    fn ask_to_try(&self, fault: Fault) -> Option<[World; 2]> {
        let next = select(self.flags).filter(|next| !self.flags.of(next.slot).successful)?;
        if !self.asks || stand(&self.node()) != Standing::AwaitingReboot {
            return None;
        }
        let flags = if fault == Fault::AsksForNothing { self.flags } else { next.flags };
        let spent = World { flags, ..self.clone() };
        let slot = named(flags, fault).tried;
        Some([spent.start(Selection { slot, flags })?, spent.reboot(fault)?])
    }

    /// What an agent that restarts leads to while nothing disturbs it.
    fn restart(&self, fault: Fault) -> Option<World> {
        match self.ask_to_try(fault) {
            Some([tried, _]) => Some(tried),
            None => self.reboot(fault),
        }
    }

    fn has_trial(&self) -> bool {
        let update = self.record.update.as_ref();
        update.is_some_and(|update| matches!(update.phase, Phase::Trial { .. }))
    }

    /// Without what no promise asks for any more.
    fn settled(mut self) -> World {
        if !self.has_trial() {
            self.foreign = 0;
        }
        if daemon::Boot::of(Some(&stand(&self.node()))) != daemon::Boot::Unproven {
            self.asked = 0;
        }
        self
    }

    /// What the daemon does first in this boot.
    fn next_action(&self, fault: Fault) -> daemon::Action {
        daemon::next(daemon::Facts {
            mode: daemon::Mode::Notify,
            standing: &stand(&self.node()),
            offer: daemon::Offer::NotAsked,
            lost: self.asked > 0 && fault != Fault::ForgetsRequest,
            taken_back: false,
        })
    }

    /// The deadline of a boot that has something to prove, with rounds that end like this.
    fn at_deadline(&self, ended: daemon::Ended, fault: Fault) -> Option<World> {
        let boot = match daemon::Boot::of(Some(&stand(&self.node()))) {
            daemon::Boot::Unproven if fault == Fault::PollsOnTrial => daemon::Boot::Settled,
            daemon::Boot::Unproven => daemon::Boot::Unproven,
            _ => return None,
        };
        let pace = daemon::Pace {
            failures: 1,
            interval: Duration::from_secs(3600),
            health: Duration::from_secs(5),
            left: Duration::ZERO,
            restart: Duration::ZERO,
        };
        Some(match daemon::after(ended, boot, pace) {
            daemon::Wake::Leave => self.request(fault)?,
            _ => World { broken: Some("L5: a trial outlives its deadline"), ..self.clone() },
        })
    }

    /// A request to leave this boot. All but the kernel may refuse it.
    fn request(&self, fault: Fault) -> Option<World> {
        let kernel = fault != Fault::NeverForces;
        let available = restart::Available { forced: kernel, kernel };
        match restart::means(restart::Purpose::Leave, available, self.asked) {
            restart::Means::Kernel => self.reboot(fault),
            _ if self.asked >= 4 => {
                Some(World { broken: Some("L5: a lost boot is not left"), ..self.clone() })
            }
            _ => Some(World { asked: self.asked + 1, ..self.clone() }),
        }
    }

    fn holds_bad(&self, slot: Slot) -> bool {
        matches!(self.content.of(slot), Content::Holds(release) if is_bad(release))
    }

    fn s2(&self, fault: Fault) -> bool {
        let torn = |slot: Slot| *self.content.of(slot) == Content::Torn;
        !torn(self.bank.next)
            && Slot::BOTH.into_iter().all(|slot| !self.may_start(slot, fault) || !torn(slot))
    }

    /// S3 and L3: follow the boot loader while every trial fails; it ends on a confirmed slot. One that has to be
    /// asked is on a slot that boots at once, and is asked for a bounded number of trials.
    fn ends_on_a_confirmed_slot(&self, fault: Fault) -> bool {
        let mut flags = self.flags;
        if self.asks && !flags.of(named(flags, fault).default).bootable() {
            return false;
        }
        for _ in 0..=15 {
            // For the agent that asks as for the boot loader that does not have to be asked.
            let Some(choice) = choose(flags, false, fault) else { return false };
            if flags.of(choice.slot).successful {
                return true;
            }
            let spends = fault != Fault::AsksForNothing;
            flags = if spends { choice.flags } else { flags };
        }
        false
    }

    fn s5(&self, fault: Fault) -> bool {
        Slot::BOTH.into_iter().all(|slot| match self.content.of(slot) {
            Content::Holds(release) if self.may_start(slot, fault) => {
                release.security_version >= self.floor
            }
            _ => true,
        })
    }

    /// Performs one effect. The worlds a death may leave, the world after it, and the event.
    fn perform(&self, effect: &Effect, fault: Fault, luck: Luck) -> (Vec<World>, World, Event) {
        let mut cuts = vec![self.clone()];
        let mut after = self.clone();
        let mut event = Event::Done;
        match effect {
            Effect::Persist(_)
            | Effect::EditFlags(_)
            | Effect::Switch { .. }
            | Effect::WriteSlot { .. }
            | Effect::SyncAndReadBack { .. }
            | Effect::RaiseFloor(_)
                if luck == Luck::ReadOnly =>
            {
                event = Event::Failed { reason: Reason::StoreIo, detail: "EROFS".to_owned() };
            }
            Effect::Persist(record) => {
                after.record = *record.clone();
                // The list of failures is the policy's; the machine never reads it.
                after.record.failures.clear();
                let update = record.update.as_ref();
                let phase = update.map(|update| &update.phase);
                if fault == Fault::FloorBeforeConfirm && matches!(phase, Some(Phase::Trial { .. }))
                {
                    after.floor = update.map_or(0, |update| update.release.security_version);
                }
                if fault == Fault::FloorFalls && matches!(phase, Some(Phase::Reverting { .. })) {
                    after.floor = 0;
                }
            }
            Effect::EditFlags(edit) => {
                let withholds = self.record.update.as_ref().is_some_and(|u| u.withheld.is_some());
                let skipped = matches!(edit, FlagEdit::Clear(_))
                    && (fault == Fault::NoClear || fault == Fault::WithholdsOnPaper && withholds);
                if !skipped {
                    after.flags = edit.apply(self.flags);
                }
            }
            Effect::Switch { slot, .. } => {
                let back = self.record.update.as_ref().is_some_and(|update| {
                    matches!(update.phase, Phase::Reverting { .. }) && update.slot != *slot
                });
                if !(back && fault == Fault::NoSwitchBack) {
                    after.bank.next = *slot;
                }
            }
            // It runs from that bank: the driver sees so from the hardware, and refuses.
            Effect::WriteSlot { slot, .. } if self.bank.runs == *slot => {
                let detail = "the bank runs".to_owned();
                event = Event::Failed { reason: Reason::SlotActive, detail };
            }
            Effect::WriteSlot { slot, release, .. } => {
                let slot = if fault == Fault::WriteBooted { slot.other() } else { *slot };
                *after.content.of_mut(slot) = Content::Torn;
                match fault {
                    Fault::ActivateUnread => {
                        after.flags = FlagEdit::Activate { slot, tries: 2 }.apply(after.flags);
                    }
                    Fault::SwitchUnread => after.bank.next = slot,
                    _ => {}
                }
                cuts.push(after.clone());
                *after.content.of_mut(slot) = Content::Holds(release.clone());
            }
            Effect::SyncAndReadBack { slot } => {
                let written = self.record.update.as_ref().map(|update| update.release.clone());
                event = Event::ReadBack(staged(*slot, written.unwrap()));
            }
            Effect::CheckHealth => {
                let bad = self.holds_bad(self.booted) && fault != Fault::ConfirmUnhealthy
                    || luck != Luck::Good;
                event = Event::Health(if bad { Err("web".to_owned()) } else { Ok(()) });
            }
            Effect::RaiseFloor(floor) => after.floor = after.floor.max(*floor),
            Effect::Reboot { .. } => after.asked = (self.asked + 1).min(4),
            Effect::Finish(_) => {}
        }
        cuts.push(after.clone());
        for world in cuts.iter_mut().chain([&mut after]) {
            let wrote = world.content.of(self.booted) != self.content.of(self.booted)
                || world.content.of(self.bank.runs) != self.content.of(self.bank.runs);
            if wrote {
                world.broken = Some("S1: what runs was written");
            } else if world.floor < self.floor {
                world.broken = Some("S5: the floor fell");
            }
        }
        (cuts, after, event)
    }
}

/// Where a task may die, and how it ends; nothing when it is refused.
struct Ran {
    deaths: Vec<(String, World)>,
    end: World,
    outcome: Outcome,
}

fn run(world: &World, task: Task, fault: Fault, luck: Luck) -> Option<Ran> {
    let checks = task == Task::Probe;
    let mut node = world.node();
    if let Some(update) = &mut node.record.update
        && fault == Fault::BlamesAtOnce
    {
        update.passed_over = 1;
    }
    if fault == Fault::BlamesUnasked {
        node.evidence.loader = BootLoader::CannotTell;
    }
    let (mut state, mut effect) = begin(node, task).ok()?;
    let mut end = world.clone();
    let mut deaths = Vec::new();
    loop {
        if let Effect::Finish(outcome) = effect {
            if let Outcome::Reverted { slot, .. } = &outcome
                && end.bank.next == *slot
            {
                end.broken = Some("set: it starts from the slot that was given up");
            }
            match &outcome {
                Outcome::Reverted {
                    reason: RecordedReason::Known(Reason::CountingInactive),
                    ..
                } if world.has_trial() && world.foreign < 2 => {
                    end.broken = Some("field: one boot past the boot loader is no proof");
                }
                Outcome::Reverted {
                    reason: RecordedReason::Known(Reason::CountingInactive),
                    ..
                } if world.asks => {
                    end.broken = Some("field: boots that nobody asked for are no proof");
                }
                Outcome::Withheld { slot, .. }
                    if end.flags.of(*slot).bootable() || end.bank.next == *slot =>
                {
                    end.broken = Some("field: what is withheld may still start");
                }
                Outcome::Confirmed(_) if checks && world.asked > 0 => {
                    end.broken = Some("L5: a boot that lost its trial confirms itself");
                }
                Outcome::Failed { .. } if checks && luck == Luck::ReadOnly => {
                    end.broken = Some("L5: a lost trial goes on where nothing can be written");
                }
                _ => {}
            }
            return Some(Ran { deaths, end, outcome });
        }
        let (cuts, after, mut event) = end.perform(&effect, fault, luck);
        for (at, world) in cuts.into_iter().enumerate() {
            deaths.push((format!("{at} of {}", short(&effect)), world));
        }
        end = after;
        if let (Fault::RecordsOrStays, Event::Failed { reason, detail }) = (fault, &event) {
            let outcome = Outcome::Failed { reason: *reason, detail: detail.clone() };
            (effect, event) = (Effect::Finish(outcome), Event::Done);
            let _ = event;
            continue;
        }
        (state, effect) = step(state, event, 7);
    }
}

fn short(effect: &Effect) -> String {
    match effect {
        Effect::Persist(record) => match record.update.as_ref().map(|update| &update.phase) {
            None => "persist without update".to_owned(),
            Some(Phase::Staging) => "persist Staging".to_owned(),
            Some(Phase::Staged) => "persist Staged".to_owned(),
            Some(Phase::Trial { .. }) => "persist Trial".to_owned(),
            Some(Phase::Reverting { .. }) => "persist Reverting".to_owned(),
            Some(Phase::Unknown { .. }) => "persist an unknown phase".to_owned(),
        },
        Effect::WriteSlot { slot, release, .. } => format!("write {} to {slot}", release.version),
        other => format!("{other:?}"),
    }
}

fn tasks(world: &World) -> Vec<Task> {
    let apply = |version, sv, activate| Task::Apply {
        release: release(version, sv),
        tries: 2,
        activate,
        named: false,
    };
    let mut tasks = vec![Task::Settle, Task::Revert { detail: "by hand".to_owned() }];
    tasks.push(Task::Withhold { why: "held".to_owned() });
    // After a boot past the boot loader only what begins a trial is of interest.
    let ways: &[bool] = if world.foreign == 0 { &[true, false] } else { &[true] };
    for &activate in ways {
        tasks.extend([
            apply("2", 2, activate),
            apply("bad3", 2, activate),
            apply("4", 3, activate),
        ]);
    }
    if !world.holds_bad(world.booted) {
        tasks.push(Task::Confirm);
        tasks.push(Task::Adopt);
    }
    tasks
}

impl Model for Explored {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![start(self.asks)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // Nothing is learnt beyond a broken promise.
        if world.broken.is_some() {
            return;
        }
        let mut add =
            |what: String, to: World| actions.push(Action { what, to: Box::new(to.settled()) });
        let broken = Some("S3: no slot boots");
        let dark = || World { broken, ..world.clone() };
        add("power cut".to_owned(), world.reboot(self.fault).unwrap_or_else(dark));
        for slot in Slot::BOTH {
            if let Some(to) = world.reboot_past_the_loader(slot, self.fault) {
                add(format!("power cut, something else starts {slot}"), to);
            }
        }
        if let Some([tried, lost]) = world.ask_to_try(self.fault) {
            add("a trial is asked for".to_owned(), tried);
            add("a trial is asked for, and the power fails".to_owned(), lost);
        }
        let ends = [
            ("it cannot write", daemon::Ended::Failed),
            ("the lock is never free", daemon::Ended::Unreached),
            ("its configuration is wrong", daemon::Ended::Misconfigured),
        ];
        for (what, ended) in ends {
            if let Some(to) = world.at_deadline(ended, self.fault) {
                add(format!("the deadline, and {what}"), to);
            }
        }
        let mut work: Vec<(Task, Luck)> =
            tasks(world).into_iter().map(|task| (task, Luck::Good)).collect();
        match world.next_action(self.fault) {
            daemon::Action::Probe => {
                work.extend(
                    [Luck::Good, Luck::Flaps, Luck::ReadOnly].map(|luck| (Task::Probe, luck)),
                );
            }
            daemon::Action::Restart if world.asked > 0 => {
                if let Some(to) = world.request(self.fault) {
                    add("the restart is refused, and asked for again".to_owned(), to);
                }
            }
            _ => {}
        }
        for (task, luck) in work {
            let name = match &task {
                Task::Apply { release, activate: true, .. } => format!("apply {}", release.version),
                Task::Apply { release, .. } => format!("stage {}", release.version),
                Task::Probe => format!("probe ({luck:?})"),
                other => format!("{other:?}"),
            };
            let Some(ran) = run(world, task, self.fault, luck) else { continue };
            for (at, to) in ran.deaths {
                add(format!("{name}, dies at {at}"), to);
            }
            add(name, ran.end);
        }
    }

    fn next_state(&self, _: &World, action: Action) -> Option<World> {
        Some(*action.to)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("step by step: S1, S5, L5, sets, field", |_, world: &World| {
                world.broken.is_none()
            }),
            Property::always("S2: what may start is whole", |model: &Explored, world: &World| {
                world.s2(model.fault)
            }),
            Property::always(
                "S3 and L3: trials end on a confirmed slot",
                |model: &Explored, world: &World| world.ends_on_a_confirmed_slot(model.fault),
            ),
            Property::always(
                "S5: no slot that may boot is below the floor",
                |model: &Explored, world: &World| world.s5(model.fault),
            ),
            Property::always("no unhealthy release is confirmed", |_, world: &World| {
                let confirmed = |slot: &Slot| world.flags.of(*slot).confirmed();
                !Slot::BOTH.iter().filter(|slot| confirmed(slot)).any(|slot| world.holds_bad(*slot))
            }),
            Property::always(
                "L1: the newest release is reached",
                |model: &Explored, world: &World| model.fault != Fault::None || reaches_goal(world),
            ),
            Property::sometimes("a release is confirmed", |_, world: &World| world.floor == 2),
            Property::sometimes("a boot passes an update over", |_, world: &World| {
                world.record.update.as_ref().is_some_and(|update| update.passed_over > 0)
            }),
            Property::sometimes("a release is withheld", |_, world: &World| {
                world.record.update.as_ref().is_some_and(|update| update.withheld.is_some())
            }),
            Property::sometimes("a restart is refused three times", |_, world: &World| {
                world.asked == 3
            }),
            Property::sometimes("a set is mixed after a revert", |_, world: &World| {
                world.bank.runs != world.booted
            }),
        ]
    }
}

/// Whether an undisturbed node gets there: settle, end a trial, apply, reboot, end the trial. The
/// whole set has to: also the component with a switch of its own runs the goal.
fn reaches_goal(world: &World) -> bool {
    let fault = Fault::None;
    let goal = release("4", 3);
    let mut now = world.clone();
    for _ in 0..20 {
        let Some(settled) = run(&now, Task::Settle, fault, Luck::Good) else { return false };
        now = settled.end;
        if matches!(settled.outcome, Outcome::Reverted { reboot: true, .. }) {
            let Some(rebooted) = now.reboot(fault) else { return false };
            now = rebooted;
            continue;
        }
        let runs_goal = |slot: Slot| *now.content.of(slot) == Content::Holds(goal.clone());
        if runs_goal(now.booted)
            && runs_goal(now.bank.runs)
            && now.flags.of(now.booted).confirmed()
            && now.record.update.is_none()
        {
            return true;
        }
        let task = match stand(&now.node()) {
            Standing::OnTrial { .. } if now.asked > 0 => None,
            Standing::OnTrial { .. } => Some(Task::Probe),
            Standing::AwaitingReboot | Standing::Leaving => None,
            _ => {
                let (release, activate) = (goal.clone(), true);
                let apply = Task::Apply { release, tries: 2, activate, named: false };
                match begin(now.node(), apply.clone()) {
                    // A boot loader that was not seen to count: an operator adopts it.
                    Err(Refusal::CountingInactive) => Some(Task::Adopt),
                    // Something else started what may not be left behind: the boot loader does.
                    Err(Refusal::NotConfirmed(_)) => None,
                    _ => Some(apply),
                }
            }
        };
        let done = task.map(|task| run(&now, task, fault, Luck::Good));
        now = match done {
            Some(None) => return false,
            Some(Some(Ran { end, outcome: Outcome::Confirmed(_), .. })) => end,
            // It ended with something a reboot carries on.
            Some(Some(Ran { end, .. })) => match end.restart(fault) {
                Some(rebooted) => rebooted,
                None => return false,
            },
            None => match now.restart(fault) {
                Some(rebooted) => rebooted,
                None => return false,
            },
        };
    }
    false
}

fn way(path: Path<World, Action>) -> Vec<String> {
    path.into_actions().into_iter().map(|action| action.what).collect()
}

fn keeps_every_promise(asks: bool) {
    let model = Explored { fault: Fault::None, asks };
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!(
        "stateright: {} unique states, {} generated, depth {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    for property in checker.model().properties() {
        println!("  {:?} {}", property.expectation, property.name);
    }
    for (name, path) in checker.discoveries() {
        let sometimes = name.starts_with("a ");
        assert!(sometimes, "{name} is broken:\n  {}", way(path).join("\n  "));
    }
    checker.assert_properties();
    assert!(checker.unique_state_count() > 10_000, "the exploration shrank");
}

#[test]
fn every_state_keeps_every_promise() {
    keeps_every_promise(false);
}

/// The same with a boot loader that spends nothing and has to be asked for a trial.
#[test]
fn every_state_keeps_every_promise_where_trials_are_asked_for() {
    keeps_every_promise(true);
}

/// The promises that are broken at the first depth at which one is, each with a shortest way there.
fn shortest(fault: Fault) -> Option<Vec<(&'static str, Vec<String>)>> {
    (2..10).find_map(|depth| {
        let model = Explored { fault, asks: fault.asks() };
        let model = model.checker().target_max_depth(depth).threads(2);
        let broken = model.spawn_bfs().join().discoveries().into_iter();
        let broken = broken.filter(|(name, _)| !name.starts_with("a "));
        let broken: Vec<_> = broken.map(|(name, path)| (name, way(path))).collect();
        (!broken.is_empty()).then_some(broken)
    })
}

#[test]
fn faulty_agents_are_caught() {
    let rows = [
        (Fault::NoClear, "S2"),
        (Fault::ActivateUnread, "S2"),
        (Fault::FloorBeforeConfirm, "S5"),
        (Fault::WriteBooted, "step by step"),
        (Fault::ConfirmUnhealthy, "no unhealthy release"),
        (Fault::SwitchUnread, "S2"),
        (Fault::NoSwitchBack, "step by step"),
        (Fault::SpendsNothing, "S3 and L3"),
        (Fault::FloorFalls, "step by step"),
        (Fault::ForgetsRequest, "step by step"),
        (Fault::PollsOnTrial, "step by step"),
        (Fault::NeverForces, "step by step"),
        (Fault::RecordsOrStays, "step by step"),
        (Fault::BlamesAtOnce, "step by step"),
        (Fault::WithholdsOnPaper, "step by step"),
        (Fault::BlamesUnasked, "step by step"),
        (Fault::NamesTheOther, "S2"),
        (Fault::AsksForNothing, "S3 and L3"),
    ];
    for (fault, expected) in rows {
        let broken = shortest(fault).unwrap_or_else(|| panic!("{fault:?} is not caught"));
        let names: Vec<&str> = broken.iter().map(|(name, _)| *name).collect();
        let (promise, way) = broken
            .iter()
            .find(|(name, _)| name.starts_with(expected))
            .unwrap_or_else(|| panic!("{fault:?} is not caught by {expected}, but by {names:?}"));
        println!("{fault:?}: {promise}, after\n  {}", way.join("\n  "));
    }
}
