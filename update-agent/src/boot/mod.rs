//! Who keeps the boot flags: one module for each boot loader, behind one trait.
//!
//! | backend | its record | after a cut in an edit |
//! |---|---|---|
//! | `gpt-attributes` | attribute bits of partitions | the old flags or the new ones |
//! | `uboot-env` | variables in U-Boot's redundant environment | the old flags or the new ones |
//! | `systemd-boot` | counters in the names of entries on the ESP | the old flags or the new ones; a slot being activated may be cleared |
//! | `grub-env` | variables in GRUB's environment block | maybe no flags at all; `doctor` says so |
//! | `rpi-tryboot` | partitions that `autoboot.txt` of a Raspberry Pi names | the old flags or the new ones |
//!
//! Others write there, too: `fw_setenv` and partitioning tools. Each edit of the first two takes the lock that
//! they take ([`storage::shared_lock`]).
//!
//! All but the first keep an order of the slots instead of priorities; [`boot_vars::ranked`] says which flags
//! they cannot tell apart.

pub(crate) mod bypass;
mod gpt_attributes;
mod grub_env;
mod rpi_tryboot;
mod systemd_boot;
mod uboot_env;

pub(crate) use uboot_env::extents as uboot_env_extents;

use formats::boot_vars;
use formats::reason::Reason;
use update_core::boot::{BootFlags, FlagEdit, Selection, select};

use crate::config::Backend;
use crate::disk::Disk;
use crate::error::AgentError;

/// Who keeps the boot flags of the slots.
///
/// A crash inside [`BootControl::write`] leaves the old flags or the new ones, as the boot loader
/// reads them, unless the backend's row above says otherwise; calling it again completes it.
pub trait BootControl {
    /// The flags of both slots, as the boot loader would read them now.
    fn flags(&self) -> Result<BootFlags, AgentError>;

    /// Makes an edit durable, after which the flags are `wanted`, and gives what was read back.
    fn write(&self, edit: FlagEdit, wanted: BootFlags) -> Result<BootFlags, AgentError>;

    /// Opens the record as an edit would, and changes nothing.
    fn can_write(&self) -> Result<(), AgentError>;

    /// What this record cannot promise, or what of it is damaged, for `doctor`.
    fn weakness(&self) -> Result<Option<String>, AgentError>;

    /// Repairs a damaged copy of the record, before a boot; the flags stay what they are.
    fn repair(&self) -> Result<(), AgentError> {
        Ok(())
    }

    /// Makes durable what the restart that is to try the slot that is next needs: the try that it spends, where the
    /// boot loader spends none. Done twice in one boot it is done once.
    fn before_try(&self) -> Result<(), AgentError> {
        Ok(())
    }

    /// Changes the flags durably and gives what was read back.
    fn edit(&self, edit: FlagEdit) -> Result<BootFlags, AgentError> {
        self.write(edit, edit.apply(self.flags()?))
    }

    /// Does what the boot loader does at a boot: picks a slot and spends its try, durably.
    ///
    /// Nothing is written when neither slot is bootable.
    fn choose(&self) -> Result<Selection, AgentError> {
        let flags = self.flags()?;
        let selection = select(flags).ok_or_else(|| {
            AgentError::new(Reason::BootRecord, "neither slot is bootable")
                .hint("write a good image to a slot from rescue media and mark it successful")
        })?;
        self.repair()?;
        if selection.flags != flags {
            self.write(FlagEdit::Spend(selection.slot), selection.flags)?;
        }
        Ok(selection)
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
            Backend::RpiTryboot => Box::new(rpi_tryboot::RpiTryboot::new(self)),
        }
    }
}

impl BootControl for Disk {
    fn flags(&self) -> Result<BootFlags, AgentError> {
        self.control().flags()
    }

    fn write(&self, edit: FlagEdit, wanted: BootFlags) -> Result<BootFlags, AgentError> {
        self.control().write(edit, wanted)
    }

    fn can_write(&self) -> Result<(), AgentError> {
        self.control().can_write()
    }

    fn weakness(&self) -> Result<Option<String>, AgentError> {
        self.control().weakness()
    }

    fn repair(&self) -> Result<(), AgentError> {
        self.control().repair()
    }

    fn before_try(&self) -> Result<(), AgentError> {
        self.control().before_try()
    }

    fn choose(&self) -> Result<Selection, AgentError> {
        self.control().choose()
    }
}

/// Does an edit that found its bytes changed by another program once more, from what is there now: only
/// then is it the medium's fault.
fn twice(edit: impl Fn() -> Result<BootFlags, AgentError>) -> Result<BootFlags, AgentError> {
    match edit() {
        Err(error) if error.reason() == Reason::Readback => {
            tracing::warn!("{}; once more, should another program be writing there", error.chain());
            edit()
        }
        done => done,
    }
}

/// What was read back must be what was written, as far as the record can tell.
fn same(wanted: BootFlags, found: BootFlags, place: &str) -> Result<BootFlags, AgentError> {
    if boot_vars::ranked(wanted) == boot_vars::ranked(found) {
        return Ok(found);
    }
    let text = format!("the boot flags on {place} are not what was written");
    Err(AgentError::new(Reason::Readback, text).hint("check the disk's health"))
}
