//! Who keeps the boot flags: one module for each boot loader, behind one trait.
//!
//! | backend | its record | after a cut in an edit |
//! |---|---|---|
//! | `gpt-attributes` | attribute bits of partitions | the old flags or the new ones |
//! | `uboot-env` | variables in U-Boot's redundant environment | the old flags or the new ones |
//! | `systemd-boot` | counters in the names of entries on the ESP | the old flags or the new ones; a slot being activated may be cleared |
//! | `grub-env` | variables in GRUB's environment block | maybe no flags at all; `doctor` says so |
//!
//! All but the first keep an order of the slots instead of priorities; [`ranked`] says which flags
//! they cannot tell apart.

mod gpt_attributes;
mod grub_env;
mod systemd_boot;
mod uboot_env;

pub(crate) use uboot_env::extents as uboot_env_extents;

use formats::boot_record::PerSlot;
use formats::boot_vars;
use formats::gpt_attrs::SlotAttrs;
use formats::reason::Reason;
use update_core::boot::{BootFlags, FlagEdit, Flags, Selection, select};

use crate::config::Backend;
use crate::disk::Disk;
use crate::error::AgentError;

/// Who keeps the boot flags of the slots.
///
/// A crash inside [`BootControl::edit`] leaves the old flags or the new ones, as the boot loader
/// reads them, unless the backend's row above says otherwise; calling it again completes it.
pub trait BootControl {
    /// The flags of both slots, as the boot loader would read them now.
    fn flags(&self) -> Result<BootFlags, AgentError>;

    /// Changes them durably and gives what was read back.
    fn edit(&self, edit: FlagEdit) -> Result<BootFlags, AgentError>;

    /// Does what the boot loader does at a boot: picks a slot and spends its try, durably.
    fn choose(&self) -> Result<Selection, AgentError>;

    /// Opens the record as an edit would, and changes nothing.
    fn can_write(&self) -> Result<(), AgentError>;

    /// What this record cannot promise, or what of it is damaged, for `doctor`.
    fn weakness(&self) -> Result<Option<String>, AgentError> {
        Ok(None)
    }
}

impl Disk {
    fn control(&self) -> Box<dyn BootControl + '_> {
        match self.boot().backend {
            Backend::GptAttributes => Box::new(gpt_attributes::GptAttributes::new(self)),
            Backend::UbootEnv => {
                Box::new(uboot_env::UbootEnvironment::new(self.host(), self.boot()))
            }
            Backend::GrubEnv => Box::new(grub_env::GrubBlock::new(self.host(), self.boot())),
            Backend::SystemdBoot => {
                Box::new(systemd_boot::SystemdBoot::new(self.host(), self.boot()))
            }
        }
    }
}

impl BootControl for Disk {
    fn flags(&self) -> Result<BootFlags, AgentError> {
        self.control().flags()
    }

    fn edit(&self, edit: FlagEdit) -> Result<BootFlags, AgentError> {
        self.control().edit(edit)
    }

    fn choose(&self) -> Result<Selection, AgentError> {
        self.control().choose()
    }

    fn can_write(&self) -> Result<(), AgentError> {
        self.control().can_write()
    }

    fn weakness(&self) -> Result<Option<String>, AgentError> {
        self.control().weakness()
    }
}

/// What every boot loader picks, or the error that none can.
fn selection(flags: BootFlags) -> Result<Selection, AgentError> {
    select(flags).ok_or_else(|| {
        AgentError::new(Reason::BootRecord, "neither slot is bootable")
            .hint("write a good image to a slot from rescue media and mark it successful")
    })
}

/// What was read back must be what was written, as far as the record can tell.
fn same(wanted: BootFlags, found: BootFlags, place: &str) -> Result<BootFlags, AgentError> {
    if ranked(wanted) == ranked(found) {
        return Ok(found);
    }
    let text = format!("the boot flags on {place} are not what was written");
    Err(AgentError::new(Reason::Readback, text).hint("check the disk's health"))
}

/// The flags in the priorities that an order of the slots can express (2, 1, or 0 for neither),
/// and the tries that one digit can.
pub fn ranked(flags: BootFlags) -> BootFlags {
    of_attrs(boot_vars::ranked(to_attrs(flags)))
}

fn of_attrs(attrs: PerSlot<SlotAttrs>) -> BootFlags {
    let flags = |attrs: SlotAttrs| Flags {
        priority: attrs.priority,
        tries: attrs.tries,
        successful: attrs.successful,
    };
    PerSlot { a: flags(attrs.a), b: flags(attrs.b) }
}

fn to_attrs(flags: BootFlags) -> PerSlot<SlotAttrs> {
    let attrs = |flags: Flags| SlotAttrs {
        priority: flags.priority,
        tries: flags.tries,
        successful: flags.successful,
    };
    PerSlot { a: attrs(flags.a), b: attrs(flags.b) }
}
