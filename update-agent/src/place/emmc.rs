//! A boot partition of an eMMC as a place: written only while the other one boots, and switched by the card itself.
//!
//! ```text
//! stage      the card boots the other partition, this one is not protected ─► written, read back
//! activate   SWITCH of byte 179 ─► read back: this one boots      one byte of the card: the old or the new value
//! given up   the same with the other partition
//! ```
//!
//! The order is that of every set: the switch comes before the boot flags move, and after they moved back.

use formats::emmc::{BootPartition, BootSource, ExtCsd, Protection};
use formats::reason::Reason;
use storage::block::{Access, BlockDevice, DeviceError};
use storage::emmc::{BootArea, RegisterFile, Registers, enable};
use storage::host::Host;
use update_core::emmc::{Refused, may_switch, may_write};

use super::{Device, Switch};
use crate::error::AgentError;

/// A boot partition, and the register of its card.
pub(crate) struct EmmcBoot {
    partition: BootPartition,
    /// What it is called in messages.
    name: String,
    /// The kernel's; `None` where files stand for a card.
    area: Option<BootArea>,
    card: Box<dyn Registers>,
}

impl EmmcBoot {
    /// The boot partition that a place is; `None` when it is something else. `access` is that of the register.
    pub(crate) fn of(
        place: &Device,
        host: &dyn Host,
        access: Access,
    ) -> Result<Option<Self>, AgentError> {
        let name = place.device.display().to_string();
        if let Some(file) = &place.ext_csd {
            let partition = place.device.file_name().and_then(|name| name.to_str());
            let Some(partition) = partition.and_then(BootPartition::of_name) else {
                return Ok(None);
            };
            let card = Box::new(RegisterFile::over(host.open_device(file, access)?));
            return Ok(Some(EmmcBoot { partition, name, area: None, card }));
        }
        let Some(area) = BootArea::at(&place.device) else { return Ok(None) };
        let card = Box::new(area.clone());
        Ok(Some(EmmcBoot { partition: area.partition, name, area: Some(area), card }))
    }

    /// [`EmmcBoot::of`] a place that the configuration says to be one.
    pub(crate) fn needed(
        place: &Device,
        host: &dyn Host,
        access: Access,
    ) -> Result<Self, AgentError> {
        if let Some(found) = Self::of(place, host, access)? {
            return Ok(found);
        }
        if !place.device.exists() {
            return Err(DeviceError::Missing(place.device.clone()).into());
        }
        let text = format!("{} is no boot partition of an eMMC", place.device.display());
        Err(AgentError::new(Reason::SlotIo, text)
            .hint("switch = \"emmc-boot\" is for /dev/mmcblkNboot0 and …boot1"))
    }

    fn register(&self) -> Result<ExtCsd, AgentError> {
        self.card.read().map_err(|error| {
            AgentError::from(error).or_hint(
                "nothing is written while it is unknown which partition boots; the agent needs \
                 CAP_SYS_RAWIO for the card: its unit has it with the drop-in systemd/emmc-boot.conf",
            )
        })
    }

    /// Whether the card starts the component from here.
    pub(super) fn boots(&self) -> Result<bool, AgentError> {
        Ok(self.register()?.config.source() == BootSource::Partition(self.partition))
    }

    /// Opens the partition; for writing, when the card says that it may be.
    pub(super) fn open(
        &self,
        place: &Device,
        host: &dyn Host,
        access: Access,
    ) -> Result<Box<dyn BlockDevice>, AgentError> {
        if access != Access::Read {
            let register = self.register()?;
            self.may(may_write(&register, self.partition))?;
        }
        Ok(match &self.area {
            Some(area) => area.open(access)?,
            None => host.open_device(&place.device, access)?,
        })
    }

    /// Makes the card start the component from here.
    pub(super) fn switch(&self) -> Result<(), AgentError> {
        let register = self.register()?;
        self.may(may_switch(&register, self.partition))?;
        enable(self.card.as_ref(), self.partition).map_err(|error| {
            AgentError::from_cause(
                Reason::BootRecord,
                format!("make {} the partition that boots", self.name),
                error,
            )
            .hint("compare `mmc extcsd read` of the card; what booted before boots on")
        })
    }

    /// What an operator wants to know of it, and whether that is less than it could be.
    pub(crate) fn judge(&self) -> Result<(String, bool), AgentError> {
        let register = self.register()?;
        let source = register.config.source();
        let known = matches!(source, BootSource::Partition(_));
        let text = format!(
            "{} of an eMMC with {} of {}, which boots {source}; what boots can be changed: {}; \
             write protection: {}",
            self.name,
            BootPartition::BOTH.map(BootPartition::name).join(" and "),
            formats::size(register.boot_len),
            match register.config_protection {
                Protection::Off => "yes",
                Protection::PowerOn => "not until the next power-on",
                Protection::Permanent => "never",
            },
            register.protection(self.partition)
        );
        let unlocked = self.area.as_ref().is_some_and(BootArea::is_unlocked);
        let text = match unlocked {
            true => format!("{text}; force_ro is 0: a program that wrote it was killed"),
            false => text,
        };
        let stuck = register.config_protection != Protection::Off;
        Ok((text, !known || stuck || unlocked))
    }

    fn may(&self, judged: Result<(), Refused>) -> Result<(), AgentError> {
        let (name, card) = (&self.name, self.card.describe());
        let refuse = |reason, text, hint: &str| Err(AgentError::new(reason, text).hint(hint));
        match judged {
            Ok(()) => Ok(()),
            Err(Refused::Boots) => refuse(
                Reason::SlotActive,
                format!("{name} is the partition that {card} boots"),
                "compare [slots] of the configuration with `mmc extcsd read`",
            ),
            Err(Refused::Unknown(source)) => refuse(
                Reason::BootRecord,
                format!("{card} boots {source}, and neither boot partition"),
                "enable the one with the firmware that runs, once: `mmc bootpart enable 1 1 \
                 /dev/mmcblk0`; nothing is written while nobody knows which one runs",
            ),
            Err(Refused::Protected(Protection::Permanent)) => refuse(
                Reason::SlotIo,
                format!("{name} is write-protected for ever (BOOT_WP of {card})"),
                "it can never be updated: leave the component out of [slots]",
            ),
            Err(Refused::Protected(_)) => refuse(
                Reason::SlotIo,
                format!("{name} is write-protected until the next power-on (BOOT_WP of {card})"),
                "what protects it at each start (firmware, ro_lock_until_next_power_on) must leave \
                 out the partition that does not boot",
            ),
            Err(Refused::Stuck(protection)) => refuse(
                Reason::BootRecord,
                format!("what {card} boots cannot be changed: BOOT_CONFIG_PROT is {protection}"),
                "nothing is written that could not start; power the node off and on, and see that \
                 its firmware does not set it at each start",
            ),
        }
    }
}

impl Device {
    /// Whether an eMMC switches the component.
    pub(crate) fn is_emmc_boot(&self) -> bool {
        self.switch == Switch::EmmcBoot
    }
}
