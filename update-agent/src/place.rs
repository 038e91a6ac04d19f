//! Where a component of a slot lies: a partition of `boot.disk`, or a device of its own.
//!
//! ```toml
//! [slots.a]
//! os  = "root-a"                                    # GPT label on boot.disk
//! bmc = { device = "/dev/mtd0", switch = ["bmc-bank", "a"], runs = { file = "/sys/…/bank", is = "0" } }
//! spl = { device = "/dev/mmcblk0boot0", switch = "emmc-boot" }
//! ```
//!
//! | form | is |
//! |---|---|
//! | `"label"` | a partition of `boot.disk`, switched with the boot flags |
//! | `device` | a block device, loop device, plain file, or an MTD character device |
//! | `flash` | makes a plain file a flash of that geometry |
//! | `switch` | makes the component start from here; run before the flags move, and when they move back |
//! | `runs` | says by the hardware's own state that this bank runs now: it is never written then |
//! | `switch = "emmc-boot"` | both for a boot partition of an eMMC, by the card's own register: `emmc` |
//! | `ext_csd` | makes plain files the boot partitions of a card with that register |
//!
//! A board with one bank has a copy of it in each slot instead, and the bank in `[single.NAME]`: see
//! [`crate::agent`].
//!
//! Without `switch` a component on its own device is read by the slot that boots, like a partition.

mod emmc;
mod switch;

use std::fmt;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use formats::boot_record::Slot;
use formats::reason::Reason;
use formats::release::ComponentName;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use storage::block::{Access, BlockDevice, DeviceError};
use storage::flash::{Bank, FileFlash, Kind, MtdFlash, is_mtd};
use storage::host::Host;

pub(crate) use self::emmc::EmmcBoot;
pub use self::switch::Switch;
use crate::error::{AgentError, Because as _};

/// Where one component of one slot lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    /// A partition of `boot.disk`, by its GPT label.
    Label(String),
    /// A device of its own.
    Device(Device),
}

/// Who needs the bytes of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    /// A component of a slot.
    Slot(Slot, &'a ComponentName),
    /// The only bank of a component.
    Bank(&'a ComponentName),
    /// Something that no update writes.
    Other,
}

/// A device of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its path.
    pub device: PathBuf,
    /// A plain file that stands for a flash.
    #[serde(default)]
    pub flash: Option<FlashFile>,
    /// A plain file that stands for the register of the eMMC whose boot partition the device stands for.
    #[serde(default)]
    pub ext_csd: Option<PathBuf>,
    /// Makes the component start from this device from now on.
    #[serde(default)]
    pub switch: Switch,
    /// How the hardware says that the component runs from this device.
    #[serde(default)]
    pub runs: Option<Runs>,
}

/// The geometry of a plain file that stands for a flash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FlashFile {
    /// NOR or NAND.
    pub kind: FlashKind,
    /// Bytes that are erased as one.
    pub erase: u32,
    /// Bytes that are programmed as one.
    #[serde(default = "one")]
    pub page: u32,
    /// Blocks that are bad from the factory.
    #[serde(default)]
    pub bad: Vec<u64>,
}

fn one() -> u32 {
    1
}

/// NOR or NAND.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FlashKind {
    /// Bits of bytes.
    Nor,
    /// Whole pages.
    Nand,
}

/// A file of the kernel that says which bank runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// The file.
    pub file: PathBuf,
    /// What it holds, but for white space, when this bank runs.
    pub is: String,
}

/// By hand, so that a misspelt member of a device is named.
impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a partition's label, or { device = … }")
            }

            fn visit_str<E>(self, label: &str) -> Result<Place, E> {
                Ok(Place::Label(label.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Place, A::Error> {
                Device::deserialize(MapAccessDeserializer::new(map)).map(Place::Device)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Place {
    /// Makes relative paths relative to `base`.
    pub(crate) fn resolve(&mut self, base: &Path) {
        if let Place::Device(own) = self {
            own.resolve(base);
        }
    }

    /// What two places of a configuration must not share.
    pub(crate) fn identity(&self) -> String {
        match self {
            Place::Label(label) => format!("partition {label:?}"),
            Place::Device(own) => own.device.display().to_string(),
        }
    }
}

impl Device {
    /// Makes relative paths relative to `base`.
    pub(crate) fn resolve(&mut self, base: &Path) {
        self.device = base.join(&self.device);
        if let Some(runs) = &mut self.runs {
            runs.file = base.join(&runs.file);
        }
        if let Some(ext_csd) = &mut self.ext_csd {
            *ext_csd = base.join(&*ext_csd);
        }
    }

    /// Opens it. A flash is written in blocks, its first one last; a bank that runs is refused for
    /// writing, and so is a boot partition that boots.
    pub(crate) fn open(
        &self,
        host: &dyn Host,
        access: Access,
    ) -> Result<Box<dyn BlockDevice>, AgentError> {
        let emmc = match self.is_emmc_boot() {
            true => Some(EmmcBoot::needed(self, host, Access::Read)?),
            false => EmmcBoot::of(self, host, Access::Read)?,
        };
        if let Some(emmc) = emmc {
            return emmc.open(self, host, access);
        }
        if access != Access::Read && self.runs(host)? {
            let text = format!("{} is the bank that runs", self.device.display());
            return Err(AgentError::new(Reason::SlotActive, text)
                .hint("its component has not restarted since it was switched; restart it first"));
        }
        let opened = match &self.flash {
            Some(flash) => open_file(host, &self.device, flash, access),
            None if is_mtd(&self.device) => {
                MtdFlash::open(&self.device, access).and_then(|flash| boxed(Bank::new(flash)))
            }
            None => host.open_device(&self.device, access),
        };
        Ok(opened?)
    }

    /// Whether the hardware says that the component runs from here. Without a way to know: no. An eMMC says from where
    /// it starts the next time.
    pub(crate) fn runs(&self, host: &dyn Host) -> Result<bool, AgentError> {
        if self.is_emmc_boot() {
            return EmmcBoot::needed(self, host, Access::Read)?.boots();
        }
        let Some(runs) = &self.runs else { return Ok(false) };
        let text = host
            .read_kernel(&runs.file)
            .because(Reason::BootRecord, format!("read {}", runs.file.display()))
            .map_err(|error| {
                error.hint("nothing is written while it is unknown which bank runs")
            })?;
        Ok(text.trim() == runs.is)
    }

    /// Makes the component start from here. Has to be harmless when it does already.
    pub(crate) fn switch(&self, host: &dyn Host) -> Result<(), AgentError> {
        match &self.switch {
            Switch::Command(argv) => switch::run(argv),
            Switch::EmmcBoot => EmmcBoot::needed(self, host, Access::Write)?.switch(),
        }
    }
}

fn open_file(
    host: &dyn Host,
    path: &Path,
    flash: &FlashFile,
    access: Access,
) -> Result<Box<dyn BlockDevice>, DeviceError> {
    let kind = match flash.kind {
        FlashKind::Nor => Kind::Nor,
        FlashKind::Nand => Kind::Nand,
    };
    let node = path.metadata().is_ok_and(|found| found.file_type().is_block_device());
    if node {
        return Err(DeviceError::NotDevice(path.to_owned()));
    }
    let file = host.open_device(path, access)?;
    let opened = FileFlash::over(file, kind, flash.erase, flash.page)?;
    boxed(Bank::new(opened.with_bad(flash.bad.iter().copied())))
}

fn boxed<F: storage::flash::Flash + 'static>(
    bank: Result<Bank<F>, DeviceError>,
) -> Result<Box<dyn BlockDevice>, DeviceError> {
    Ok(Box::new(bank?))
}
