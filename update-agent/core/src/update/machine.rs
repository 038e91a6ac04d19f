//! The states of a task and the steps between them.

use formats::boot_record::{Failure, Phase, ReleaseId, Slot, SlotContent, Update};
use formats::reason::{Reason, RecordedReason};
use formats::release::ComponentName;

use super::effect::{Effect, Event, Order};
use super::evidence::{BootLoader, adopt, observe};
use super::standing::{Node, Standing, stand};
use super::task::{Outcome, Refusal, Task};
use super::unknown::understand;
use crate::boot::FlagEdit;
use crate::image::StagedSlot;

/// What the machine waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Clearing,
    SwitchingOff,
    Marking,
    Writing,
    ReadingBack,
    PersistingStaged,
    PersistingTrial,
    Switching,
    Activating,
    Checking,
    Confirming,
    PersistingConfirmed,
    RaisingFloor,
    PersistingFailedCheck { detail: String },
    Restarting { detail: String },
    PersistingReverting,
    ClearingReverted,
    SwitchingBack,
    PersistingReverted,
    PersistingPassedOver,
    PersistingWithheld,
    ClearingWithheld,
    SwitchingStaged,
    PersistingTakenBack,
    Settling,
    SettlingFloor,
    Over,
}

/// A task under way. Consumed by [`step`], so nobody continues from an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    node: Node,
    at: At,
    tries: u8,
    activate: bool,
    named: bool,
    /// The release to be staged, until the record says so.
    applying: Option<ReleaseId>,
    /// Whether the inactive slot held something this agent wrote: parts of it may be wanted again.
    used: bool,
    /// Whether the release is only written off: another program has written its slot.
    writing_off: bool,
    /// Whether the boot loader spent a try for this boot; unknown when it is no trial.
    counted: Option<bool>,
    /// Whether the record had a phase that this version does not know.
    understood: bool,
    /// Kept for the outcome of a revert.
    reverting: Option<(Slot, RecordedReason, String)>,
}

/// Begins a task: the state to continue from, and the first effect. The record is brought up to what
/// this boot shows of its boot loader first.
pub fn begin(node: Node, task: Task) -> Result<(State, Effect), Refusal> {
    let (node, understood) = understand(node);
    let node = observe(node);
    let standing = stand(&node);
    let counted = match standing {
        // Of a phase that was read from the flags, nothing shows what was spent.
        Standing::OnTrial { counted, .. } if !understood => Some(counted),
        _ => None,
    };
    let mut state = State {
        node,
        at: At::Over,
        tries: 0,
        activate: false,
        named: false,
        applying: None,
        used: false,
        writing_off: false,
        counted,
        understood,
        reverting: None,
    };
    match task {
        Task::Apply { release, tries, activate, named } => {
            state.check_apply(&standing, &release)?;
            state.tries = tries.clamp(1, 15);
            (state.activate, state.named) = (activate, named);
            let slot = state.node.booted.other();
            state.applying = Some(release);
            // Also where the record has forgotten what: a run was cut while it wrote.
            let record = &state.node.record;
            let pending = record.update.as_ref().is_some_and(|update| update.slot == slot);
            state.used = pending || record.slots.of(slot).is_some();
            Ok(state.edit(At::Clearing, FlagEdit::Clear(slot)))
        }
        Task::Probe => match standing {
            Standing::OnTrial { .. } => Ok(state.go(At::Checking, Effect::CheckHealth)),
            _ => Err(Refusal::NotPending),
        },
        Task::Confirm => match standing {
            Standing::OnTrial { .. } | Standing::ConfirmUnfinished => Ok(state.confirm()),
            _ => Err(Refusal::NotPending),
        },
        Task::Adopt => match standing {
            Standing::OnTrial { .. } => Err(Refusal::TrialActive(state.node.booted)),
            Standing::Leaving => Err(Refusal::Leaving(state.node.booted)),
            // Half given up: confirmed now, it would be cleared later, when it may be the last.
            Standing::RevertUnfinished => Err(Refusal::Unsettled),
            _ => {
                state.node.record = adopt(state.node.record, &state.node.evidence);
                Ok(state.confirm())
            }
        },
        Task::Revert { detail } => state.begin_revert(&standing, detail, None),
        Task::MarkBad { slot, detail } => state.begin_revert(&standing, detail, Some(slot)),
        Task::Withhold { why } => state.begin_withhold(&standing, why),
        Task::Settle => Ok(state.settle(standing)),
    }
}

/// Continues a task after its last effect.
pub fn step(mut state: State, event: Event, now: u64) -> (State, Effect) {
    let at = std::mem::replace(&mut state.at, At::Over);
    if let Event::Failed { reason, detail } = event {
        return match at {
            // A trial that is lost ends, whether or not the record can say why: tries are counted.
            At::PersistingFailedCheck { detail } => state.restart(detail),
            _ => state.finish(Outcome::Failed { reason, detail }),
        };
    }
    let slot = state.node.booted.other();
    match (at, event) {
        // Only now: a record that says Staging beside flags that still boot the slot would let a
        // cut boot a slot that nobody knows to be on trial.
        (At::Clearing, Event::Done) => {
            let booted = state.node.booted;
            state.switch_back(At::SwitchingOff, booted)
        }
        (At::SwitchingOff, Event::Done) => {
            let Some(release) = state.applying.take() else { return state.contradiction() };
            let record = &mut state.node.record;
            *record.slots.of_mut(slot) = None;
            let named = state.named;
            record.update = Some(Update { named, ..Update::new(slot, release, Phase::Staging) });
            state.persist(At::Marking)
        }
        (At::Marking, Event::Done) if state.writing_off => state.finish(Outcome::Settled),
        (At::Marking, Event::Done) => match state.release() {
            Some(release) => {
                let used = state.used;
                state.go(At::Writing, Effect::WriteSlot { slot, release, used })
            }
            None => state.contradiction(),
        },
        (At::Writing, Event::Done) => state.go(At::ReadingBack, Effect::SyncAndReadBack { slot }),
        (At::ReadingBack, Event::ReadBack(staged)) => state.staged(staged),
        (At::PersistingStaged, Event::Done) => {
            if state.activate {
                state.set_trial(now);
                state.persist(At::PersistingTrial)
            } else {
                state.finish(Outcome::Staged(slot))
            }
        }
        // Before the flags: a system that boots on trial finds its set whole.
        (At::PersistingTrial, Event::Done) => {
            let order = Order::Stated(state.order_of(slot));
            state.go(At::Switching, Effect::Switch { slot, order })
        }
        (At::Switching, Event::Done) => {
            let tries = state.tries;
            state.edit(At::Activating, FlagEdit::Activate { slot, tries })
        }
        (At::Activating, Event::Done) => state.finish(Outcome::Activated(slot)),
        (At::Checking, Event::Health(Ok(()))) => state.confirm(),
        (At::Checking, Event::Health(Err(detail))) => {
            if let Some(Update { phase: Phase::Trial { failed, .. }, .. }) =
                &mut state.node.record.update
            {
                *failed = Some(detail.clone());
            }
            state.persist(At::PersistingFailedCheck { detail })
        }
        (At::PersistingFailedCheck { detail }, Event::Done) => state.restart(detail),
        (At::Restarting { detail }, Event::Done) => state.finish(Outcome::TrialFailed(detail)),
        (At::Confirming, Event::Done) => state.confirmed(),
        (At::PersistingConfirmed, Event::Done) => match state.floor_to_raise() {
            Some(floor) => state.go(At::RaisingFloor, Effect::RaiseFloor(floor)),
            None => state.finish_confirmed(),
        },
        (At::RaisingFloor, Event::Done) => state.finish_confirmed(),
        (At::PersistingReverting, Event::Done) => state.clear_reverted(),
        (At::ClearingReverted, Event::Done) => {
            let given_up = state.reverting.as_ref().map(|reverting| reverting.0);
            match given_up {
                Some(slot) => state.switch_back(At::SwitchingBack, slot.other()),
                None => state.contradiction(),
            }
        }
        (At::SwitchingBack, Event::Done) => {
            state.forget_reverted(now);
            state.persist(At::PersistingReverted)
        }
        // The flags first: a cut then leaves what was never made next, which settles to the same.
        (At::PersistingWithheld, Event::Done) => {
            state.edit(At::ClearingWithheld, FlagEdit::Clear(slot))
        }
        (At::ClearingWithheld, Event::Done) => {
            let booted = state.node.booted;
            state.switch_back(At::SwitchingStaged, booted)
        }
        (At::SwitchingStaged, Event::Done) => {
            let Some(update) = &mut state.node.record.update else { return state.contradiction() };
            update.phase = Phase::Staged;
            let withheld = update.withheld.is_some();
            state.persist(if withheld { At::PersistingTakenBack } else { At::Settling })
        }
        (At::PersistingTakenBack, Event::Done) => {
            let update = state.node.record.update.as_ref();
            let why = update.and_then(|update| update.withheld.clone()).unwrap_or_default();
            state.finish(Outcome::Withheld { slot, why })
        }
        (At::PersistingPassedOver, Event::Done) => state.finish(Outcome::PassedOver(slot)),
        (At::PersistingReverted, Event::Done) => state.finish_reverted(),
        (At::Settling | At::SettlingFloor, Event::Done) => state.finish(Outcome::Settled),
        // The driver reported something that was not asked for.
        _ => state.contradiction(),
    }
}

impl State {
    fn go(mut self, at: At, effect: Effect) -> (State, Effect) {
        self.at = at;
        (self, effect)
    }

    fn persist(self, at: At) -> (State, Effect) {
        let record = Box::new(self.node.record.clone());
        self.go(at, Effect::Persist(record))
    }

    fn edit(mut self, at: At, edit: FlagEdit) -> (State, Effect) {
        self.node.flags = edit.apply(self.node.flags);
        self.go(at, Effect::EditFlags(edit))
    }

    fn restart(self, detail: String) -> (State, Effect) {
        let why = detail.clone();
        self.go(At::Restarting { detail }, Effect::Reboot { why })
    }

    fn finish(self, outcome: Outcome) -> (State, Effect) {
        self.go(At::Over, Effect::Finish(outcome))
    }

    fn contradiction(self) -> (State, Effect) {
        self.finish(Outcome::Failed {
            reason: Reason::BootRecord,
            detail: "the update machine was told of something it had not asked for".to_owned(),
        })
    }

    /// Back to a slot, from what the other one holds.
    fn switch_back(self, at: At, slot: Slot) -> (State, Effect) {
        let order = Order::Reversed(self.order_of(slot.other()));
        self.go(at, Effect::Switch { slot, order })
    }

    fn order_of(&self, slot: Slot) -> Vec<ComponentName> {
        let content = self.node.record.slots.of(slot).as_ref();
        content.map_or_else(Vec::new, |content| content.order.clone())
    }

    fn release(&self) -> Option<ReleaseId> {
        self.node.record.update.as_ref().map(|update| update.release.clone())
    }

    fn check_apply(&self, standing: &Standing, release: &ReleaseId) -> Result<(), Refusal> {
        let node = &self.node;
        match standing {
            Standing::OnTrial { .. } => return Err(Refusal::TrialActive(node.booted)),
            Standing::AwaitingReboot => {
                if self.release().is_some_and(|next| next.index == release.index) {
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
            return Err(Refusal::BelowFloor {
                offered: release.security_version,
                floor: node.floor,
            });
        }
        if !node.flags.of(node.booted).confirmed() {
            return Err(Refusal::NotConfirmed(node.booted));
        }
        if node.record.counting == Some(false) {
            return Err(Refusal::CountingInactive);
        }
        Ok(())
    }

    /// The only way to a bootable mark: by the proof of a read-back.
    fn staged(mut self, staged: StagedSlot) -> (State, Effect) {
        let slot = self.node.booted.other();
        let content = match (staged.slot() == slot, self.release()) {
            (true, Some(release)) => {
                let content = staged.into_content();
                (content.release == release).then_some(content)
            }
            _ => None,
        };
        let Some(content) = content else { return self.contradiction() };
        *self.node.record.slots.of_mut(slot) = Some(content);
        if let Some(update) = &mut self.node.record.update {
            update.phase = Phase::Staged;
        }
        self.persist(At::PersistingStaged)
    }

    fn set_trial(&mut self, now: u64) {
        let boot_id = self.node.boot_id.clone();
        if let Some(update) = &mut self.node.record.update {
            update.phase = Phase::Trial { boot_id, since: now, tries: self.tries, failed: None };
        }
    }

    fn confirm(self) -> (State, Effect) {
        let slot = self.node.booted;
        self.edit(At::Confirming, FlagEdit::Confirm(slot))
    }

    fn confirmed(mut self) -> (State, Effect) {
        let booted = self.node.booted;
        let record = &mut self.node.record;
        record.counting = self.counted.or(record.counting);
        if record.update.as_ref().is_some_and(|update| update.slot == booted) {
            record.update = None;
        }
        if let Some(content) = record.slots.of_mut(booted) {
            content.confirmed = true;
            let index = content.release.index;
            record.failures.retain(|failure| failure.release.index != index);
        }
        self.persist(At::PersistingConfirmed)
    }

    /// The floor may rise to what every slot that can still boot has; an unknown slot keeps it. A boot loader that
    /// has to be asked can be asked by anybody, also for a slot whose tries are used up.
    fn floor_to_raise(&self) -> Option<u64> {
        let mut lowest = None;
        for slot in Slot::BOTH {
            let flags = *self.node.flags.of(slot);
            let asked = self.node.evidence.loader == BootLoader::Asked && flags.priority > 0;
            if !flags.bootable() && !asked {
                continue;
            }
            if self.node.evidence.foreign.of(slot).is_some() {
                return None;
            }
            let content: &SlotContent = self.node.record.slots.of(slot).as_ref()?;
            let version = content.release.security_version;
            lowest = Some(lowest.map_or(version, |known: u64| known.min(version)));
        }
        lowest.filter(|lowest| *lowest > self.node.floor)
    }

    fn finish_confirmed(self) -> (State, Effect) {
        let slot = self.node.booted;
        self.finish(Outcome::Confirmed(slot))
    }

    fn begin_revert(
        mut self,
        standing: &Standing,
        detail: String,
        chosen: Option<Slot>,
    ) -> Result<(State, Effect), Refusal> {
        if *standing == Standing::RevertUnfinished {
            return Ok(self.settle(Standing::RevertUnfinished));
        }
        let booted = self.node.booted;
        let pending = self.node.record.update.as_ref().map(|update| update.slot);
        // What is next but does not run yet is cancelled; otherwise the booted slot is left.
        let slot = match standing {
            _ if chosen.is_some() => chosen.unwrap_or(booted),
            Standing::AwaitingReboot
            | Standing::PassedOver
            | Standing::Staged
            | Standing::Interrupted => booted.other(),
            _ => booted,
        };
        if !self.node.flags.of(slot.other()).confirmed() {
            return Err(Refusal::NothingToRevertTo(slot.other()));
        }
        let release = match (pending == Some(slot), self.node.record.slots.of(slot)) {
            (true, _) => self.release(),
            (false, Some(content)) => Some(content.release.clone()),
            (false, None) => None,
        };
        match release {
            // Marking a slot that is not the update's would forget the update: settle that first.
            Some(_) if pending.is_some_and(|pending| pending != slot) => Err(Refusal::Unsettled),
            Some(release) => {
                let phase = Phase::Reverting { reason: Reason::Operator.into(), detail };
                self.node.record.update = Some(Update::new(slot, release, phase));
                Ok(self.persist(At::PersistingReverting))
            }
            // Content that no agent wrote: nothing to remember, the flags alone decide.
            None => {
                self.reverting = Some((slot, Reason::Operator.into(), detail));
                Ok(self.edit(At::ClearingReverted, FlagEdit::Clear(slot)))
            }
        }
    }

    fn clear_reverted(mut self) -> (State, Effect) {
        let Some(Update { slot, phase: Phase::Reverting { reason, detail }, .. }) =
            &self.node.record.update
        else {
            return self.contradiction();
        };
        let slot = *slot;
        self.reverting = Some((slot, reason.clone(), detail.clone()));
        self.edit(At::ClearingReverted, FlagEdit::Clear(slot))
    }

    fn forget_reverted(&mut self, now: u64) {
        let record = &mut self.node.record;
        if let Some(Update { release, phase: Phase::Reverting { reason, detail }, .. }) =
            record.update.take()
        {
            // A release that never ran has not failed.
            if reason != Reason::CountingInactive {
                record.remember(Failure { release, at: now, reason, detail });
            }
        }
    }

    /// What is next is taken back; what runs, or what an operator chose, is not.
    fn begin_withhold(
        mut self,
        standing: &Standing,
        why: String,
    ) -> Result<(State, Effect), Refusal> {
        match &mut self.node.record.update {
            Some(update) if *standing == Standing::AwaitingReboot && !update.named => {
                update.withheld = Some(why);
                Ok(self.persist(At::PersistingWithheld))
            }
            _ => Err(Refusal::NotPending),
        }
    }

    /// The update stays next, from this boot on.
    fn pass_over(mut self) -> (State, Effect) {
        let this = self.node.boot_id.clone();
        let counts = self.node.evidence.loader != BootLoader::Asked;
        if let Some(update) = &mut self.node.record.update {
            // Where nobody asked for the trial, it says so once: no number of such boots proves anything.
            update.passed_over = if counts { update.passed_over.saturating_add(1) } else { 1 };
            if let Phase::Trial { boot_id, .. } = &mut update.phase {
                *boot_id = this;
            }
        }
        self.persist(At::PersistingPassedOver)
    }

    fn finish_reverted(mut self) -> (State, Effect) {
        let booted = self.node.booted;
        match self.reverting.take() {
            Some((slot, reason, detail)) => {
                let reboot = slot == booted;
                self.finish(Outcome::Reverted { slot, reboot, reason, detail })
            }
            None => self.contradiction(),
        }
    }

    fn settle(mut self, standing: Standing) -> (State, Effect) {
        match standing {
            Standing::Staged | Standing::AwaitingReboot if self.update_is_foreign() => {
                self.write_off()
            }
            Standing::ConfirmUnfinished if self.runs_update() => self.confirm(),
            Standing::ConfirmUnfinished => {
                let slot = self.node.booted.other();
                if let Some(content) = self.node.record.slots.of_mut(slot) {
                    content.confirmed = true;
                }
                self.node.record.update = None;
                self.persist(At::Settling)
            }
            Standing::Lost { reason, detail } => {
                if let Some(update) = &mut self.node.record.update {
                    if reason == Reason::CountingInactive {
                        self.node.record.counting = Some(false);
                    }
                    update.phase = Phase::Reverting { reason: reason.into(), detail };
                }
                self.persist(At::PersistingReverting)
            }
            Standing::RevertUnfinished => self.clear_reverted(),
            Standing::PassedOver => self.pass_over(),
            // The activation was cut before the flags: it is staged, no more.
            Standing::Staged if self.says_trial() => {
                let booted = self.node.booted;
                self.switch_back(At::SwitchingStaged, booted)
            }
            // So that the next boot shows whether the boot loader reads the flags.
            Standing::AwaitingReboot if self.understood => self.persist(At::Settling),
            // A confirm that was cut before the floor rose: it rises now.
            Standing::Idle => match self.floor_to_raise() {
                Some(floor) => self.go(At::SettlingFloor, Effect::RaiseFloor(floor)),
                None => self.finish(Outcome::Settled),
            },
            _ => self.finish(Outcome::Settled),
        }
    }

    /// Whether another program has written the slot of an update that does not run yet.
    fn update_is_foreign(&self) -> bool {
        let slot = self.node.booted.other();
        let update = self.node.record.update.as_ref();
        update.is_some_and(|update| update.slot == slot)
            && self.node.evidence.foreign.of(slot).is_some()
    }

    /// The slot's content is unknown from now on, as if writing it had been interrupted. The release is
    /// no failure: an apply writes it again.
    fn write_off(mut self) -> (State, Effect) {
        self.applying = self.release();
        self.writing_off = true;
        let slot = self.node.booted.other();
        self.edit(At::Clearing, FlagEdit::Clear(slot))
    }

    fn runs_update(&self) -> bool {
        self.node.record.update.as_ref().is_some_and(|update| update.slot == self.node.booted)
    }

    fn says_trial(&self) -> bool {
        let update = self.node.record.update.as_ref();
        update.is_some_and(|update| matches!(update.phase, Phase::Trial { .. }))
    }
}
