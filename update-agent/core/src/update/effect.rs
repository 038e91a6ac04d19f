//! What the machine asks of its driver, one thing at a time, and what the driver reports.

use formats::boot_record::{BootRecord, ReleaseId, Slot};
use formats::reason::Reason;
use formats::release::ComponentName;

use super::task::Outcome;
use crate::boot::FlagEdit;
use crate::image::StagedSlot;

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
        /// Whether the slot may hold parts of an image, by the boot record.
        used: bool,
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
    /// Restart the machine out of a trial that is lost.
    Reboot {
        /// Why.
        why: String,
    },
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
