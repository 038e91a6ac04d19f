//! What an agent still does where a newer one has left a record that it cannot read: it shows the node,
//! and goes back to the confirmed slot.

use formats::boot_record::{BootRecord, HistoryEvent, Slot};
use formats::reason::Reason;
use update_core::boot::FlagEdit;
use update_core::floor::{Guarantee, Judged};
use update_core::update::{Node, Order, slot_to_leave};

use super::{Agent, RevertReport};
use crate::boot::BootControl as _;
use crate::error::AgentError;
use crate::state::StateGuard;

impl Agent {
    /// The node as far as it can be read, to be shown and not to be changed.
    pub(crate) fn node_to_show(&self) -> Result<(Node, Judged), AgentError> {
        let floor = match self.judged_floor() {
            Err(error) if error.reason() == Reason::StoreNewer => {
                let guarantee = Guarantee::Lost(error.chain());
                Judged { floor: 0, guarantee, older_state: false, open: false }
            }
            judged => judged?,
        };
        let record = match self.state.boot_record() {
            Err(error) if error.reason() == Reason::StoreNewer => BootRecord::default(),
            record => record?,
        };
        Ok((self.parts().slot_check().node(record, floor.floor)?, floor))
    }

    /// Goes back by the flags alone: the record cannot be read, and is left as it is. A crash leaves the
    /// flags as they were, or the slot given up.
    pub(super) fn revert_by_flags(
        &self,
        held: &StateGuard,
        why: &str,
    ) -> Result<RevertReport, AgentError> {
        let (flags, booted) = (self.disk.flags()?, self.disk.booted()?);
        let slot: Slot = slot_to_leave(flags, booted)?;
        self.disk.edit(FlagEdit::Clear(slot))?;
        let order = Order::Reversed(Vec::new());
        self.parts().single_banks().activate(held, slot.other(), booted, &order)?;
        let event = HistoryEvent {
            at: self.state.now(),
            event: "reverted".to_owned(),
            release: None,
            slot: Some(slot),
            reason: Some(Reason::Operator.into()),
            detail: format!("{why}; the boot record of a newer agent was left as it is"),
        };
        self.state.remember(held, event)?;
        let (next, reboot) = (slot.other(), slot == booted);
        Ok(RevertReport { slot, next, reboot, why: why.to_owned() })
    }
}
