//! The update machine: what is done next, and what must be durable before.
//!
//! ```text
//! stage     clear slot ─► switch back ─► persist Staging ─► write ─► sync, read back ─► persist Staged
//! activate  persist Trial ─► switch ─► make next
//! trial     (boot) check health ─┬ passed ─► confirm ─► persist ─► raise floor
//!                                └ failed ─► persist why ─► reboot … no tries left ─► the boot loader reverts
//! revert    persist Reverting ─► clear slot ─► switch back ─► persist failure ─► reboot
//! ```
//!
//! *Switch* is for the components that start by themselves, from a bank of their own: a BMC beside
//! the system. The flags move every other component; the record is the commit of both.
//!
//! [`stand`] says where a node stands after any interruption; [`begin`] starts a piece of work and
//! [`step`] continues it. One effect is under way at a time, and an effect that relies on another
//! is only asked for after that one was reported durable. Cut the power before or after any
//! effect: `explore.rs` walks every state that this can lead to.

use formats::boot_record::{BootRecord, Failure, Phase, ReleaseId, Slot, SlotContent, Update};
use formats::reason::Reason;
use formats::release::ComponentName;

use crate::boot::{BootFlags, FlagEdit, select};
use crate::image::StagedSlot;

#[cfg(test)]
mod explore;
mod leave;
#[cfg(test)]
mod tests;

pub use leave::{Known, Leave, leave_failed_trial};

/// Everything the machine needs to know of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// The durable boot record.
    pub record: BootRecord,
    /// The boot flags, as just read.
    pub flags: BootFlags,
    /// The slot that runs.
    pub booted: Slot,
    /// Identifies this boot.
    pub boot_id: String,
    /// The durable security-version floor.
    pub floor: u64,
}

/// Where a node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No update is under way.
    Idle,
    /// Staging was interrupted; the slot is not bootable.
    Interrupted,
    /// The slot holds the release and is not bootable yet.
    Staged,
    /// The slot is next; this boot is the one that activated it.
    AwaitingReboot,
    /// This boot is a trial.
    OnTrial {
        /// Boots that are left after this one.
        tries_left: u8,
        /// Whether the boot loader spent a try for this boot.
        counted: bool,
    },
    /// The slot was confirmed, the record does not say so yet.
    ConfirmUnfinished,
    /// The trial is over and lost, the record does not say so yet.
    Lost {
        /// Why.
        reason: Reason,
        /// In words.
        detail: String,
    },
    /// A revert was begun and is not finished.
    RevertUnfinished,
    /// The booted slot was given up; a reboot leaves it.
    Leaving,
}

/// Where the node stands, from its record, its flags and which slot runs.
pub fn stand(node: &Node) -> Standing {
    let given_up =
        node.flags.of(node.booted).priority == 0 && node.flags.of(node.booted.other()).confirmed();
    let Some(update) = &node.record.update else {
        return if given_up { Standing::Leaving } else { Standing::Idle };
    };
    let flags = *node.flags.of(update.slot);
    let runs = node.booted == update.slot;
    match &update.phase {
        Phase::Staging => Standing::Interrupted,
        Phase::Staged => Standing::Staged,
        Phase::Reverting { .. } => Standing::RevertUnfinished,
        Phase::Trial { .. } if flags.confirmed() => Standing::ConfirmUnfinished,
        Phase::Trial { tries, .. } if runs => {
            Standing::OnTrial { tries_left: flags.tries, counted: flags.tries < *tries }
        }
        // The record was written, the flags were not: the slot was never made next.
        Phase::Trial { .. } if flags.priority == 0 => Standing::Staged,
        Phase::Trial { boot_id, .. } if flags.bootable() && *boot_id == node.boot_id => {
            Standing::AwaitingReboot
        }
        Phase::Trial { .. } if flags.bootable() => Standing::Lost {
            reason: Reason::CountingInactive,
            detail: format!(
                "slot {} was next, but slot {} booted and no try was spent: the boot loader does \
                 not read these flags",
                update.slot, node.booted
            ),
        },
        Phase::Trial { failed, tries, .. } => Standing::Lost {
            reason: Reason::Unhealthy,
            detail: failed.clone().unwrap_or_else(|| {
                format!(
                    "{tries} trial boots ended before the agent could say why (crash, hang or \
                     power cut)"
                )
            }),
        },
    }
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Write a release to the inactive slot; make it next when `activate`.
    Apply {
        /// The release.
        release: ReleaseId,
        /// Trial boots it gets, 1 to 15.
        tries: u8,
        /// Whether to make it next.
        activate: bool,
    },
    /// Check the booted slot's health and end the trial.
    Probe,
    /// End the trial as passed, on an operator's word.
    Confirm,
    /// Mark the booted slot as working although no trial is under way: the first installation.
    Adopt,
    /// Go back to the other slot, or cancel what is next.
    Revert {
        /// Why, in words.
        detail: String,
    },
    /// Give up a slot for good: its release is not tried again here, and it is no fallback.
    MarkBad {
        /// The slot.
        slot: Slot,
        /// Why, in words.
        detail: String,
    },
    /// Bring the record up to date with what happened.
    Settle,
}

/// Why a task cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The booted slot is on trial.
    #[error("slot {0} is on trial; confirm or revert it before the next update")]
    TrialActive(Slot),
    /// The booted slot could not be booted again.
    #[error(
        "the booted slot {0} is not marked successful, so nothing could be reverted to; if this \
         system works, run `update-agent confirm --adopt` once"
    )]
    NotConfirmed(Slot),
    /// The boot loader was seen not to count.
    #[error(
        "the boot loader did not spend a try at the last trial, so a bad update would not revert; \
         run `update-agent doctor`"
    )]
    CountingInactive,
    /// No trial.
    #[error("no trial is under way")]
    NotPending,
    /// Nothing to go back to.
    #[error("the other slot {0} is not confirmed; there is nothing to revert to")]
    NothingToRevertTo(Slot),
    /// The booted slot was given up.
    #[error("slot {0} was given up; reboot to leave it, then try again")]
    Leaving(Slot),
    /// Something that happened is not recorded yet.
    #[error("the last update is not settled yet; run `update-agent status`, then try again")]
    Unsettled,
    /// Rollback: releases below the floor never run here again.
    #[error("security version {offered} is below this node's floor {floor}")]
    BelowFloor {
        /// The release's.
        offered: u64,
        /// The node's.
        floor: u64,
    },
    /// The release is next already.
    #[error("{0} is staged and next; reboot to try it")]
    AlreadyNext(String),
}

impl Refusal {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            Refusal::TrialActive(_) => Reason::TrialActive,
            Refusal::NotConfirmed(_)
            | Refusal::NothingToRevertTo(_)
            | Refusal::Leaving(_)
            | Refusal::Unsettled => Reason::BootRecord,
            Refusal::CountingInactive => Reason::CountingInactive,
            Refusal::NotPending => Reason::NotPending,
            Refusal::BelowFloor { .. } => Reason::SecverFloor,
            Refusal::AlreadyNext(_) => Reason::UpToDate,
        }
    }
}

/// One thing for the driver to do. It reports an [`Event`] when it is done and durable.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Effect {
    /// Make the boot record durable.
    Persist(Box<BootRecord>),
    /// Change the boot flags durably, read back.
    EditFlags(FlagEdit),
    /// Write the release to the slot, each chunk verified before it is written.
    WriteSlot {
        /// The slot; never the booted one.
        slot: Slot,
        /// The release.
        release: ReleaseId,
    },
    /// Make the components that start by themselves start from this slot. Nothing to do on a node
    /// without such components.
    Switch {
        /// The slot.
        slot: Slot,
        /// In which order.
        order: Order,
    },
    /// Flush the slot, read it back whole and compare it with the signed digests.
    SyncAndReadBack {
        /// The slot.
        slot: Slot,
    },
    /// Run the health checks until they pass or their deadline is over.
    CheckHealth,
    /// Make the floor durable at no less than this.
    RaiseFloor(u64),
    /// Restart the machine.
    Reboot,
    /// The work is over.
    Finish(Outcome),
}

/// The order in which components that start by themselves are switched.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Order {
    /// As the release to be activated states it.
    Stated(Vec<ComponentName>),
    /// The other way round: that release is given up.
    Reversed(Vec<ComponentName>),
}

impl Order {
    /// These components in that order. What is not named comes last, by name; of an order the other
    /// way round, first.
    pub fn of<'a>(&self, names: &[&'a ComponentName]) -> Vec<&'a ComponentName> {
        let (Order::Stated(stated) | Order::Reversed(stated)) = self;
        let rank = |name: &ComponentName| {
            stated.iter().position(|other| other == name).unwrap_or(stated.len())
        };
        let mut ordered = names.to_vec();
        ordered.sort_by_key(|name| (rank(name), *name));
        if matches!(self, Order::Reversed(_)) {
            ordered.reverse();
        }
        ordered
    }
}

/// How a task ended.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Outcome {
    /// The slot holds the release; it is not next.
    Staged(Slot),
    /// The slot is next.
    Activated(Slot),
    /// The booted slot is confirmed.
    Confirmed(Slot),
    /// The record is up to date; nothing else was to be done.
    Settled,
    /// The slot was given up; the other one is next.
    Reverted {
        /// The slot that was given up.
        slot: Slot,
        /// Whether a reboot is needed to leave it.
        reboot: bool,
        /// Why.
        reason: Reason,
        /// In words.
        detail: String,
    },
    /// The trial failed; the machine restarts and the boot loader decides.
    TrialFailed(String),
    /// The driver could not do its part; the slot stays as it is.
    Failed {
        /// Why.
        reason: Reason,
        /// In words.
        detail: String,
    },
}

/// What the driver reports.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The last effect is done and durable.
    Done,
    /// The slot was read back and is what was signed.
    ReadBack(StagedSlot),
    /// The health checks ended: passed, or why not.
    Health(Result<(), String>),
    /// The last effect failed.
    Failed {
        /// Why.
        reason: Reason,
        /// In words.
        detail: String,
    },
}

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
    SwitchingStaged,
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
    /// The release to be staged, until the record says so.
    applying: Option<ReleaseId>,
    /// Whether the boot loader spent a try for this boot; unknown when it is no trial.
    counted: Option<bool>,
    /// Kept for the outcome of a revert.
    reverting: Option<(Slot, Reason, String)>,
}

/// Begins a task: the state to continue from, and the first effect.
pub fn begin(node: Node, task: Task) -> Result<(State, Effect), Refusal> {
    let standing = stand(&node);
    let counted = match standing {
        Standing::OnTrial { counted, .. } => Some(counted),
        _ => None,
    };
    let mut state = State {
        node,
        at: At::Over,
        tries: 0,
        activate: false,
        applying: None,
        counted,
        reverting: None,
    };
    match task {
        Task::Apply { release, tries, activate } => {
            state.check_apply(&standing, &release)?;
            state.tries = tries.clamp(1, 15);
            state.activate = activate;
            let slot = state.node.booted.other();
            state.applying = Some(release);
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
            _ => Ok(state.confirm()),
        },
        Task::Revert { detail } => state.begin_revert(&standing, detail, None),
        Task::MarkBad { slot, detail } => state.begin_revert(&standing, detail, Some(slot)),
        Task::Settle => Ok(state.settle(standing)),
    }
}

/// Continues a task after its last effect.
pub fn step(mut state: State, event: Event, now: u64) -> (State, Effect) {
    if let Event::Failed { reason, detail } = event {
        return state.finish(Outcome::Failed { reason, detail });
    }
    let at = std::mem::replace(&mut state.at, At::Over);
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
            record.update = Some(Update { slot, release, phase: Phase::Staging });
            state.persist(At::Marking)
        }
        (At::Marking, Event::Done) => match state.release() {
            Some(release) => state.go(At::Writing, Effect::WriteSlot { slot, release }),
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
        (At::PersistingFailedCheck { detail }, Event::Done) => {
            state.go(At::Restarting { detail }, Effect::Reboot)
        }
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
        (At::SwitchingStaged, Event::Done) => {
            if let Some(update) = &mut state.node.record.update {
                update.phase = Phase::Staged;
            }
            state.persist(At::Settling)
        }
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

    /// The floor may rise to what every slot that can still boot has; an unknown slot keeps it.
    fn floor_to_raise(&self) -> Option<u64> {
        let mut lowest = None;
        for slot in Slot::BOTH {
            if !self.node.flags.of(slot).bootable() {
                continue;
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
            Standing::AwaitingReboot | Standing::Staged | Standing::Interrupted => booted.other(),
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
                let phase = Phase::Reverting { reason: Reason::Operator, detail };
                self.node.record.update = Some(Update { slot, release, phase });
                Ok(self.persist(At::PersistingReverting))
            }
            // Content that no agent wrote: nothing to remember, the flags alone decide.
            None => {
                self.reverting = Some((slot, Reason::Operator, detail));
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
        self.reverting = Some((slot, *reason, detail.clone()));
        self.edit(At::ClearingReverted, FlagEdit::Clear(slot))
    }

    fn forget_reverted(&mut self, now: u64) {
        let record = &mut self.node.record;
        if let Some(Update { release, phase: Phase::Reverting { reason, detail }, .. }) =
            record.update.take()
        {
            record.remember(Failure { release, at: now, reason, detail });
        }
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
                    update.phase = Phase::Reverting { reason, detail };
                }
                self.persist(At::PersistingReverting)
            }
            Standing::RevertUnfinished => self.clear_reverted(),
            // The activation was cut before the flags: it is staged, no more.
            Standing::Staged if self.says_trial() => {
                let booted = self.node.booted;
                self.switch_back(At::SwitchingStaged, booted)
            }
            // A confirm that was cut before the floor rose: it rises now.
            Standing::Idle => match self.floor_to_raise() {
                Some(floor) => self.go(At::SettlingFloor, Effect::RaiseFloor(floor)),
                None => self.finish(Outcome::Settled),
            },
            _ => self.finish(Outcome::Settled),
        }
    }

    fn runs_update(&self) -> bool {
        self.node.record.update.as_ref().is_some_and(|update| update.slot == self.node.booted)
    }

    fn says_trial(&self) -> bool {
        let update = self.node.record.update.as_ref();
        update.is_some_and(|update| matches!(update.phase, Phase::Trial { .. }))
    }
}

/// The slot the boot loader will pick next, for reports.
pub fn next_slot(flags: BootFlags) -> Option<Slot> {
    select(flags).map(|selection| selection.slot)
}
