//! Boot partitions of an eMMC: written like a block device, while the kernel is told to allow it; and the register
//! of the card, which says what boots.
//!
//! ```text
//!  /dev/mmcblk0boot0 ─► BootArea ─► force_ro 0 ─► FileDevice ─► force_ro 1
//!                          └──────► MMC_IOC_CMD on /dev/mmcblk0 ─┐
//!  a plain file of 512 bytes ─────► RegisterFile ─────────────────┴► Registers
//! ```
//!
//! The kernel refuses writes to a boot partition until `/sys/block/…/force_ro` is 0, and sets it to 1 at each start.
//! MMC_IOC_CMD asks for the capability CAP_SYS_RAWIO.

use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use formats::emmc::{
    BootPartition, BootSource, Command, EXT_CSD_LEN, ExtCsd, PartitionConfig, write_config,
};
use rustix::fs::{major, minor};

use crate::block::{Access, BlockDevice, DeviceError, FileDevice, resolve_dev_link};
use crate::flash::failed;
use crate::ioctl;

#[cfg(test)]
mod tests;

/// The register of a card, as far as it is used.
pub trait Registers: Send + Sync {
    /// Reads it.
    fn read(&self) -> Result<ExtCsd, DeviceError>;

    /// Enables a partition for boot, where byte 179 was `before`: one byte of the card, which keeps its old or its new
    /// value in a crash, as every program that switches boot partitions takes for granted.
    fn boot_from(
        &self,
        before: PartitionConfig,
        partition: BootPartition,
    ) -> Result<(), DeviceError>;

    /// What to call it in messages.
    fn describe(&self) -> String;
}

/// Makes a partition the one that boots, and reads back that it is. Nothing is sent when it is already.
///
/// # Errors
///
/// The card does not answer, or says afterwards that something else boots.
pub fn enable(card: &dyn Registers, partition: BootPartition) -> Result<(), DeviceError> {
    let wanted = BootSource::Partition(partition);
    let before = card.read()?.config;
    if before.source() == wanted {
        return Ok(());
    }
    card.boot_from(before, partition)?;
    let after = card.read()?.config;
    if after.same_boot(before.booting(partition)) {
        return Ok(());
    }
    let why = format!(
        "PARTITION_CONFIG is {:#04x} after it was set to {:#04x}",
        after.0,
        before.booting(partition).0
    );
    Err(failed("switch", &card.describe(), 0, io::Error::other(why)))
}

/// A boot partition of a card that the kernel drives.
#[derive(Debug, Clone)]
pub struct BootArea {
    /// Which one.
    pub partition: BootPartition,
    node: PathBuf,
    card: PathBuf,
    force_ro: PathBuf,
}

impl BootArea {
    /// The boot partition that a path leads to; `None` when it is something else.
    pub fn at(path: &Path) -> Option<Self> {
        let node = resolve_dev_link(path);
        let found = fs::metadata(&node).ok()?;
        if !found.file_type().is_block_device() {
            return None;
        }
        let number = format!("{}:{}", major(found.rdev()), minor(found.rdev()));
        let folder = Path::new("/sys/dev/block").join(number).canonicalize().ok()?;
        Self::of(node, &folder)
    }

    /// By the kernel's folder of the device, which lies in that of its card: `…/block/mmcblk0/mmcblk0boot0`.
    fn of(node: PathBuf, folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?;
        let card = folder.parent()?.file_name()?.to_str()?;
        let force_ro = folder.join("force_ro");
        let partition = BootPartition::of_name(name)?;
        let own = name.strip_suffix(partition.name()) == Some(card) && force_ro.exists();
        let card = Path::new("/dev").join(card);
        own.then_some(BootArea { partition, node, card, force_ro })
    }

    /// Opens it. For writing, `force_ro` is 0 until the device is dropped; after a crash it is the kernel's.
    pub fn open(&self, access: Access) -> Result<Box<dyn BlockDevice>, DeviceError> {
        if access == Access::Read {
            return Ok(Box::new(FileDevice::open(&self.node, access)?));
        }
        let unlocked = Unlocked::of(&self.force_ro)?;
        let device = FileDevice::open(&self.node, access)?;
        Ok(Box::new(Writable { device, _unlocked: unlocked }))
    }

    /// Whether the kernel allows writes: so it is while somebody writes, or after a writer was killed.
    pub fn is_unlocked(&self) -> bool {
        fs::read_to_string(&self.force_ro).is_ok_and(|text| text.trim() == "0")
    }

    fn send(
        &self,
        action: &'static str,
        command: &Command,
    ) -> Result<[u8; EXT_CSD_LEN], DeviceError> {
        let error = |error| failed(action, &self.describe(), 0, error);
        let card = File::open(&self.card).map_err(error)?;
        ioctl::mmc_command(&card, command).map_err(|errno| error(errno.into()))
    }
}

/// Those of its card.
impl Registers for BootArea {
    fn read(&self) -> Result<ExtCsd, DeviceError> {
        self.send("read EXT_CSD of", &Command::read_ext_csd()).map(|bytes| ExtCsd::parse(&bytes))
    }

    fn boot_from(
        &self,
        before: PartitionConfig,
        partition: BootPartition,
    ) -> Result<(), DeviceError> {
        self.send("switch", &Command::boot_from(before, partition)).map(drop)
    }

    fn describe(&self) -> String {
        self.card.display().to_string()
    }
}

/// While it lives, the kernel allows writes.
#[derive(Debug)]
struct Unlocked(PathBuf);

impl Unlocked {
    fn of(force_ro: &Path) -> Result<Self, DeviceError> {
        fs::write(force_ro, "0")
            .map_err(|error| failed("unlock", &force_ro.display().to_string(), 0, error))?;
        Ok(Unlocked(force_ro.to_owned()))
    }
}

impl Drop for Unlocked {
    fn drop(&mut self) {
        // Where that fails, writes stay allowed until the next boot: `is_unlocked` tells.
        let _stays = fs::write(&self.0, "1");
    }
}

/// A boot partition that may be written. The device is closed before the kernel locks it again: its last writes
/// leave memory then.
struct Writable {
    device: FileDevice,
    _unlocked: Unlocked,
}

impl Deref for Writable {
    type Target = FileDevice;

    fn deref(&self) -> &FileDevice {
        &self.device
    }
}

/// A plain file of 512 bytes that stands for the register of a card, for rehearsals without one.
pub struct RegisterFile(Box<dyn BlockDevice>);

impl RegisterFile {
    /// Over a device that is opened for writing where [`Registers::boot_from`] is called.
    pub fn over(device: Box<dyn BlockDevice>) -> Self {
        RegisterFile(device)
    }

    fn bytes(&self) -> Result<[u8; EXT_CSD_LEN], DeviceError> {
        let mut bytes = [0; EXT_CSD_LEN];
        self.0.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

impl Registers for RegisterFile {
    fn read(&self) -> Result<ExtCsd, DeviceError> {
        self.bytes().map(|bytes| ExtCsd::parse(&bytes))
    }

    fn boot_from(
        &self,
        before: PartitionConfig,
        partition: BootPartition,
    ) -> Result<(), DeviceError> {
        let mut bytes = self.bytes()?;
        write_config(&mut bytes, before.booting(partition));
        self.0.write_at(&bytes, 0)?;
        self.0.sync()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}
