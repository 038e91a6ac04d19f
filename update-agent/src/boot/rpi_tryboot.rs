//! `rpi-tryboot`: the partitions that `autoboot.txt` of a Raspberry Pi names (`formats::autoboot`,
//! `storage::autoboot`).
//!
//! The boot loader counts nothing and writes nothing: it boots the confirmed slot, until a restart asks it for a
//! tryboot. So the agent spends a try before it asks ([`BootControl::before_try`]), and what comes after a trial
//! that nobody confirmed is the confirmed slot, whatever ended the trial.
//!
//! | power cut | the next boot |
//! |---|---|
//! | before the try is spent | the confirmed slot; its agent asks for the trial |
//! | between that and the restart | the same, with one try less |
//! | during the trial | the same |
//! | before the confirm | the same |
//! | after it | the slot that was on trial |
//!
//! What runs is known from the boot loader's own word in the device tree, and not from whether this boot was a
//! tryboot: an update may begin, and does, in a boot that was one and is confirmed since.

use std::path::Path;

use formats::autoboot::{Autoboot, boots};
use formats::boot_record::{PerSlot, Slot};
use formats::gpt::Table;
use formats::reason::Reason;
use storage::autoboot::{edit, load, read};
use storage::block::{Access, BlockDevice};
use update_core::boot::{BootFlags, FlagEdit, Selection, select};

use super::{BootControl, same};
use crate::disk::Disk;
use crate::error::{AgentError, Because as _};

/// In the folder that stands for the boot loader's node of the device tree in a rehearsal: the argument of the
/// restart, for the boot that follows.
const ARGUMENT: &str = "reboot-argument";

/// The partition with `autoboot.txt`.
#[derive(Debug)]
pub(super) struct RpiTryboot<'a> {
    disk: &'a Disk,
}

impl<'a> RpiTryboot<'a> {
    pub(super) fn new(disk: &'a Disk) -> Self {
        RpiTryboot { disk }
    }

    fn open(&self, table: &Table, access: Access) -> Result<Box<dyn BlockDevice>, AgentError> {
        let label = &self.disk.boot().autoboot;
        let partition = table
            .find(label)
            .because(Reason::GptInvalid, format!("boot.autoboot: partition {label:?}"))?;
        let geometry = table.geometry();
        let (start, len) = (partition.offset(geometry), partition.len(geometry));
        let disk = self.disk;
        disk.host()
            .open_partition(disk.path(), partition.number, start, len, access)
            .map_err(|error| {
                AgentError::from(error).context("boot.autoboot").or_hint(
                    "the partition with autoboot.txt must not be mounted: the file is written in place",
                )
            })
    }

    fn load(&self, table: &Table) -> Result<Autoboot, AgentError> {
        Ok(load(&self.open(table, Access::Read)?)?)
    }

    fn flags_of(&self, table: &Table, file: &Autoboot) -> Result<BootFlags, AgentError> {
        file.flags(&self.disk.boot_partitions(table)?)
            .because(Reason::BootRecord, "autoboot.txt")
            .map_err(|error| error.or_hint("name the partition of a slot in it"))
    }

    fn put(&self, wanted: BootFlags, asked: Option<&str>) -> Result<BootFlags, AgentError> {
        let table = self.disk.table()?;
        let partitions = self.disk.boot_partitions(&table)?;
        let device = self.open(&table, Access::Exclusive)?;
        let file = edit(&device, |file| file.set(&partitions, wanted, asked))?;
        same(wanted, self.flags_of(&table, &file)?, "autoboot.txt")
    }
}

impl BootControl for RpiTryboot<'_> {
    fn flags(&self) -> Result<BootFlags, AgentError> {
        let table = self.disk.table()?;
        self.flags_of(&table, &self.load(&table)?)
    }

    fn write(&self, _: FlagEdit, wanted: BootFlags) -> Result<BootFlags, AgentError> {
        self.put(wanted, None)
    }

    fn can_write(&self) -> Result<(), AgentError> {
        self.open(&self.disk.table()?, Access::Exclusive).map(drop)
    }

    fn weakness(&self) -> Result<Option<String>, AgentError> {
        self.flags()?;
        let node = &self.disk.boot().firmware_node;
        if self.disk.partition_by_firmware()?.is_none() {
            return Ok(Some(format!(
                "{} does not name the partition that booted: update the boot loader's EEPROM; until \
                 then only the kernel's command line says what runs",
                node.join("partition").display()
            )));
        }
        Ok(Some(
            "proved against the documented rules of the boot loader, not on a Raspberry Pi: watch the first \
             update of each model, with its kernel and its EEPROM; autoboot.txt has one copy, which a medium \
             that tears a sector may lose"
                .to_owned(),
        ))
    }

    /// Once for each boot: whoever asks a second time because the first request was refused has spent the try.
    fn before_try(&self) -> Result<(), AgentError> {
        let table = self.disk.table()?;
        let file = self.load(&table)?;
        let flags = self.flags_of(&table, &file)?;
        let boot = self.disk.boot_id()?;
        match select(flags) {
            Some(next) if file.tries_another() && !file.asked_in(&boot) => {
                self.put(next.flags, Some(&boot)).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// What the boot loader boots, and what it tells the kernel of it. Spends nothing.
    fn choose(&self) -> Result<Selection, AgentError> {
        let (disk, table) = (self.disk, self.disk.table()?);
        let node = &disk.boot().firmware_node;
        let argument = disk.host().read_kernel(&node.join(ARGUMENT)).unwrap_or_default();
        let tryboot = argument.contains(" tryboot");
        let number = boots(&read(&self.open(&table, Access::Read)?)?, tryboot);
        let slot = slot_of(&disk.boot_partitions(&table)?, number).ok_or_else(|| {
            let text = format!("autoboot.txt boots partition {number}, which is that of no slot");
            AgentError::new(Reason::BootRecord, text)
        })?;
        let tell = |name: &str, number: u32| {
            let path = node.join(name);
            let bytes = number.to_be_bytes().map(char::from).iter().collect::<String>();
            write_unless_real(disk, &path, &bytes)
        };
        tell("partition", number)?;
        tell("tryboot", u32::from(tryboot))?;
        // It holds for one boot.
        write_unless_real(disk, &node.join(ARGUMENT), "")?;
        Ok(Selection { slot, flags: self.flags()? })
    }
}

fn write_unless_real(disk: &Disk, path: &Path, text: &str) -> Result<(), AgentError> {
    if path.starts_with("/proc") || path.starts_with("/sys") {
        return Ok(());
    }
    let shown = format!("write {}", path.display());
    disk.host().write_kernel(path, text).because(Reason::StoreIo, shown)
}

fn slot_of(partitions: &PerSlot<u32>, number: u32) -> Option<Slot> {
    Slot::BOTH.into_iter().find(|slot| *partitions.of(*slot) == number)
}

impl Disk {
    /// The partitions that the boot loader boots the slots from.
    pub(super) fn boot_partitions(&self, table: &Table) -> Result<PerSlot<u32>, AgentError> {
        let component = &self.boot().component;
        let of = |slot| self.partition(table, slot, component).map(|found| found.number);
        Ok(PerSlot { a: of(Slot::A)?, b: of(Slot::B)? })
    }

    /// The partition that booted, in the boot loader's own word. None where it does not say: some versions leave
    /// it out, and some write 0.
    fn partition_by_firmware(&self) -> Result<Option<u32>, AgentError> {
        let path = self.boot().firmware_node.join("partition");
        let text = match self.host().read_kernel(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let what = format!("read {}", path.display());
                return Err(AgentError::from_cause(Reason::BootRecord, what, error));
            }
        };
        // Four bytes, the highest first. A number above 127 is no text, and of no partition here.
        let number = <[u8; 4]>::try_from(text.as_bytes()).map(u32::from_be_bytes);
        Ok(number.ok().filter(|number| *number != 0))
    }

    /// The slot that booted, in the boot loader's own word.
    pub(crate) fn slot_by_firmware(&self, table: &Table) -> Result<Option<Slot>, AgentError> {
        let Some(number) = self.partition_by_firmware()? else { return Ok(None) };
        let slot = slot_of(&self.boot_partitions(table)?, number).ok_or_else(|| {
            let text = format!("the boot loader booted partition {number}, which is that of no slot");
            AgentError::new(Reason::BootRecord, text).hint(
                "it falls back to another partition where autoboot.txt names one that it cannot boot; \
                 compare [slots] of the configuration with the partition table",
            )
        })?;
        Ok(Some(slot))
    }
}
