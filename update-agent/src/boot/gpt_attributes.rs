//! `gpt-attributes`: bits 48 to 56 of the boot component's partitions (`formats::gpt_attrs`), read by
//! `boot-select` and by the boot loaders of ChromeOS and Bottlerocket.

use formats::boot_record::{PerSlot, Slot};
use formats::gpt::Table;
use formats::gpt_attrs::SlotAttrs;
use formats::reason::Reason;
use storage::block::Access;
use storage::partition_table;
use update_core::boot::{BootFlags, FlagEdit, Selection};

use super::{BootControl, of_attrs, selection, to_attrs};
use crate::disk::Disk;
use crate::error::{AgentError, Because as _};

/// The partition table of the disk with the slots.
#[derive(Debug)]
pub(super) struct GptAttributes<'a> {
    disk: &'a Disk,
}

impl<'a> GptAttributes<'a> {
    pub(super) fn new(disk: &'a Disk) -> Self {
        GptAttributes { disk }
    }

    fn flags_of(&self, table: &Table) -> Result<BootFlags, AgentError> {
        let of = |slot| {
            let partition = self.disk.partition(table, slot, &self.disk.boot().component)?;
            Ok::<SlotAttrs, AgentError>(SlotAttrs::of(partition.attributes))
        };
        Ok(of_attrs(PerSlot { a: of(Slot::A)?, b: of(Slot::B)? }))
    }

    /// Both tables are written even when only one was damaged: one order of writes for all.
    fn write_flags(&self, table: &Table, flags: BootFlags) -> Result<BootFlags, AgentError> {
        let mut changes = Vec::new();
        let attrs = to_attrs(flags);
        for slot in Slot::BOTH {
            let partition = self.disk.partition(table, slot, &self.disk.boot().component)?;
            changes.push((partition.number, attrs.of(slot).put_into(partition.attributes)));
        }
        let path = self.disk.path().display();
        let device = self.disk.open(Access::Write)?;
        let changed = table
            .with_attributes(&changes)
            .because(Reason::GptInvalid, format!("change {path}"))?;
        partition_table::write(&device, &changed)?;
        let found = self.flags_of(&partition_table::load(&device)?.table)?;
        if found != flags {
            let text = format!("the boot flags on {path} are not what was written");
            return Err(AgentError::new(Reason::Readback, text).hint("check the disk's health"));
        }
        Ok(found)
    }
}

impl BootControl for GptAttributes<'_> {
    fn flags(&self) -> Result<BootFlags, AgentError> {
        self.flags_of(&self.disk.table()?)
    }

    fn edit(&self, edit: FlagEdit) -> Result<BootFlags, AgentError> {
        let table = self.disk.table()?;
        let flags = edit.apply(self.flags_of(&table)?);
        self.write_flags(&table, flags)
    }

    fn choose(&self) -> Result<Selection, AgentError> {
        let table = partition_table::repair(&self.disk.open(Access::Write)?)?.table;
        let flags = self.flags_of(&table)?;
        let selection = selection(flags)?;
        if selection.flags != flags {
            self.write_flags(&table, selection.flags)?;
        }
        Ok(selection)
    }

    fn can_write(&self) -> Result<(), AgentError> {
        self.disk.open(Access::Write).map(drop)
    }
}
