//! What was noted of the slots when they were written, and of the node: to notice that another program
//! writes there, too, and that a state directory is another node's.
//!
//! It only informs: a damaged record, or one of a newer agent that cannot be read, is none.

use formats::boot_record::PerSlot;
use formats::digest::Sha256;
use formats::reason::Reason;
use formats::release::ComponentName;
use serde::{Deserialize, Serialize};

use super::{State, StateGuard, newer};
use crate::error::{AgentError, Because as _};

/// The record `noted`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Noted {
    /// Of each slot, since an agent that notes anything wrote it.
    #[serde(default)]
    pub(crate) slots: PerSlot<Option<NotedSlot>>,
    /// The GUID of the partition table on `boot.disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disk: Option<String>,
}

/// One slot, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotedSlot {
    /// The release: a slot that an older agent wrote since is not what this is about.
    pub(crate) index: Sha256,
    /// Its components.
    pub(crate) components: Vec<NotedComponent>,
}

/// One component of a slot, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotedComponent {
    /// Its name.
    pub(crate) name: ComponentName,
    /// The GUID of its partition; absent for a device of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<String>,
    /// Length of the partition or device in bytes.
    pub(crate) len: u64,
    /// Whether the system in it was seen to have it mounted writable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lived_in: bool,
}

impl State {
    /// What was noted.
    pub(crate) fn noted(&self) -> Noted {
        self.kept("noted").unwrap_or_default()
    }

    /// Makes it durable, with what a newer agent noted beyond it.
    pub(crate) fn save_noted(&self, _: &StateGuard, noted: &Noted) -> Result<(), AgentError> {
        let stored = self.payload("noted").ok().flatten().unwrap_or_default();
        let payload = newer::carried(&stored, noted);
        let payload = payload.because(Reason::StoreIo, "write what was noted")?;
        Ok(self.replace("noted", &payload)?)
    }
}
