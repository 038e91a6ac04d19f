//! Where a node stands after any interruption: from its record, its flags and the slot that runs.

use formats::boot_record::{Phase, Slot};
use formats::reason::Reason;

use super::evidence::BootLoader;
use super::node::Node;
use super::unknown;
use crate::boot::{BootFlags, select};

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
    /// The slot is next, but this boot started the other one without spending a try: something else
    /// than the boot loader's choice by its flags, as far as is known; or nobody asked a boot loader that has to be
    /// asked. The record does not say so yet.
    PassedOver,
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
    let asked = node.evidence.loader == BootLoader::Asked;
    match &unknown::phase_of(node, update) {
        Phase::Staging | Phase::Unknown { .. } => Standing::Interrupted,
        Phase::Staged => Standing::Staged,
        Phase::Reverting { .. } => Standing::RevertUnfinished,
        Phase::Trial { .. } if flags.confirmed() => Standing::ConfirmUnfinished,
        Phase::Trial { tries, .. } if runs => {
            Standing::OnTrial { tries_left: flags.tries, counted: asked || flags.tries < *tries }
        }
        // The record was written, the flags were not: the slot was never made next.
        Phase::Trial { .. } if flags.priority == 0 => Standing::Staged,
        Phase::Trial { boot_id, .. } if flags.bootable() && *boot_id == node.boot_id => {
            Standing::AwaitingReboot
        }
        // Once is no proof: kexec, a boot menu, a key press. A try that was spent proves the contrary.
        Phase::Trial { tries, .. }
            if flags.bootable() && (asked || update.passed_over == 0 || flags.tries < *tries) =>
        {
            Standing::PassedOver
        }
        Phase::Trial { .. } if flags.bootable() => Standing::Lost {
            reason: Reason::CountingInactive,
            detail: format!(
                "slot {} was next, but slot {} booted twice in a row and no try was spent: the boot \
                 loader does not read these flags",
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

/// The slot the boot loader will pick next, for reports.
pub fn next_slot(flags: BootFlags) -> Option<Slot> {
    select(flags).map(|selection| selection.slot)
}
