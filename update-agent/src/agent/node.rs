//! The parts of this node, which operations take instead of the agent.

use std::path::Path;

use storage::host::Host;
use update_core::update::Node;

use super::floor::FloorKeeper;
use super::single_bank::SingleBanks;
use super::slot_check::SlotCheck;
use crate::config::Config;
use crate::disk::Disk;
use crate::error::AgentError;
use crate::state::State;

/// The name that systemd gives a machine (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// What operations read of this node. Who changes it has the state's lock as well.
#[derive(Clone, Copy)]
pub(super) struct NodeParts<'a> {
    pub(super) config: &'a Config,
    pub(super) state: &'a State,
    pub(super) disk: &'a Disk,
    pub(super) host: &'a dyn Host,
}

impl<'a> NodeParts<'a> {
    /// The name by which it is put into waves: `node.id`, or the machine's. Whether it tells this
    /// node from others is [`shared_id`](update_core::policy::shared_id)'s to say.
    pub(super) fn id(self) -> String {
        let machine = || self.host.read_kernel(Path::new(MACHINE_ID)).unwrap_or_default();
        self.config.node.id.clone().unwrap_or_else(machine).trim().to_owned()
    }

    /// The node as it is now.
    pub(super) fn node(self) -> Result<Node, AgentError> {
        self.slot_check().node(self.state.boot_record()?, self.floor().judged()?.floor)
    }

    /// Refuses a node that must install nothing.
    pub(super) fn check(self) -> Result<(), AgentError> {
        self.disk.check_root()?;
        self.slot_check().same_disk()?;
        self.single_banks().accepted()
    }

    pub(super) fn floor(self) -> FloorKeeper<'a> {
        let NodeParts { config, state, disk, host } = self;
        FloorKeeper { config: &config.floor, state, disk, host }
    }

    pub(super) fn slot_check(self) -> SlotCheck<'a> {
        SlotCheck { state: self.state, disk: self.disk }
    }

    pub(super) fn single_banks(self) -> SingleBanks<'a> {
        SingleBanks { state: self.state, disk: self.disk }
    }
}
