//! `gpt-attributes`: bits 48 to 56 of the boot component's partitions (`formats::gpt_attrs`), read by
//! `boot-select` and by the boot loaders of ChromeOS and Bottlerocket.

use formats::boot_flags::SlotFlags;
use formats::boot_record::{PerSlot, Slot};
use formats::gpt::{Choice, Table, TableCopy};
use formats::reason::Reason;
use storage::block::Access;
use storage::partition_table;
use storage::shared_lock::SharedLock;
use update_core::boot::{BootFlags, FlagEdit, select};

use super::{BootControl, twice};
use crate::config::Backend;
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
            Ok::<SlotFlags, AgentError>(SlotFlags::of_attributes(partition.attributes))
        };
        Ok(PerSlot { a: of(Slot::A)?, b: of(Slot::B)? })
    }

    /// Whether a boot would find something in a table.
    fn says(&self) -> impl Fn(&Table) -> bool {
        |table| self.flags_of(table).is_ok_and(|flags| select(flags).is_some())
    }
}

impl Disk {
    /// The table that counts: the primary; where only the backup says something bootable, the backup.
    pub(crate) fn choice(&self) -> Result<Choice, AgentError> {
        let device = self.open(Access::Read)?;
        Ok(match self.boot().backend {
            Backend::GptAttributes => {
                partition_table::load_by(&device, &GptAttributes::new(self).says())?
            }
            // The flags are elsewhere: any table will do.
            _ => partition_table::load(&device)?,
        })
    }

    /// Keeps other programs from changing the partition table.
    fn lock(&self) -> Result<Option<SharedLock>, AgentError> {
        self.host()
            .lock_disk(self.path())
            .map_err(|error| AgentError::from(error).context("boot.disk"))
    }

    /// Makes both copies of the table of [`Disk::choice`] good; gives the one that was not. For who
    /// has chosen what to boot.
    pub(crate) fn repair_table(&self) -> Result<Option<TableCopy>, AgentError> {
        let _locked = self.lock()?;
        let device = self.open(Access::Write)?;
        Ok(partition_table::repair_by(&device, &GptAttributes::new(self).says())?.repair)
    }
}

impl BootControl for GptAttributes<'_> {
    fn flags(&self) -> Result<BootFlags, AgentError> {
        self.flags_of(&self.disk.table()?)
    }

    /// Both tables are written even when only one was damaged: one order of writes for all.
    fn write(&self, _: FlagEdit, wanted: BootFlags) -> Result<BootFlags, AgentError> {
        let _locked = self.disk.lock()?;
        twice(|| self.put(wanted))
    }

    fn can_write(&self) -> Result<(), AgentError> {
        self.disk.open(Access::Write).map(drop)
    }

    fn weakness(&self) -> Result<Option<String>, AgentError> {
        Ok(None)
    }

    fn repair(&self) -> Result<(), AgentError> {
        self.disk.repair_table().map(drop)
    }
}

impl GptAttributes<'_> {
    fn put(&self, wanted: BootFlags) -> Result<BootFlags, AgentError> {
        let table = self.disk.table()?;
        let mut changes = Vec::new();
        for slot in Slot::BOTH {
            let partition = self.disk.partition(&table, slot, &self.disk.boot().component)?;
            changes.push((partition.number, wanted.of(slot).put_into(partition.attributes)));
        }
        let path = self.disk.path().display();
        let device = self.disk.open(Access::Write)?;
        let changed = table
            .with_attributes(&changes)
            .because(Reason::GptInvalid, format!("change {path}"))?;
        partition_table::write_by(&device, &changed, &self.says())?;
        let found = self.flags_of(&partition_table::load_by(&device, &self.says())?.table)?;
        if found != wanted {
            let text = format!("the boot flags on {path} are not what was written");
            return Err(AgentError::new(Reason::Readback, text).hint("check the disk's health"));
        }
        Ok(found)
    }
}
