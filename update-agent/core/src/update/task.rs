//! What the machine is asked to do, why it refuses to begin, and how it ends.

use formats::boot_record::{ReleaseId, Slot};
use formats::reason::{Reason, RecordedReason};

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
        /// Whether an operator chose it: what a channel says of it later does not count.
        named: bool,
    },
    /// Take back from being next what must not be tried for now; the slot stays written.
    Withhold {
        /// Why, in words.
        why: String,
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
        "the boot loader was seen not to spend a try, so a bad update would not revert; run \
         `update-agent doctor`"
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

/// How a task ended.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Outcome {
    /// The slot holds the release; it is not next.
    Staged(Slot),
    /// The slot is next.
    Activated(Slot),
    /// The booted slot is confirmed.
    Confirmed(Slot),
    /// This boot started the other slot than the one that is next; it stays next.
    PassedOver(Slot),
    /// The slot is not next any more, and holds the release as before.
    Withheld {
        /// The slot.
        slot: Slot,
        /// Why.
        why: String,
    },
    /// The record is up to date; nothing else was to be done.
    Settled,
    /// The slot was given up; the other one is next.
    Reverted {
        /// The slot that was given up.
        slot: Slot,
        /// Whether a reboot is needed to leave it.
        reboot: bool,
        /// Why.
        reason: RecordedReason,
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
