//! What an update reads of its node.

use storage::host::Host;

use super::floor::FloorKeeper;
use super::single_bank::SingleBanks;
use super::slot_check::SlotCheck;
use crate::config::Config;
use crate::disk::Disk;
use crate::error::AgentError;
use crate::state::State;

/// What the stations read of this node.
pub(super) struct NodeInputs<'a> {
    pub(super) config: &'a Config,
    pub(super) state: &'a State,
    pub(super) disk: &'a Disk,
    pub(super) host: &'a dyn Host,
    /// The name by which it is put into waves.
    pub(super) id: String,
}

impl NodeInputs<'_> {
    /// Refuses a node that must install nothing.
    pub(super) fn check(&self) -> Result<(), AgentError> {
        self.disk.check_root()?;
        self.slot_check().same_disk()?;
        self.single_banks().accepted()
    }

    pub(super) fn floor(&self) -> FloorKeeper<'_> {
        let (state, disk, host) = (self.state, self.disk, self.host);
        FloorKeeper { config: &self.config.floor, state, disk, host }
    }

    pub(super) fn slot_check(&self) -> SlotCheck<'_> {
        SlotCheck { state: self.state, disk: self.disk }
    }

    pub(super) fn single_banks(&self) -> SingleBanks<'_> {
        SingleBanks { state: self.state, disk: self.disk }
    }
}
