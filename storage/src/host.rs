//! The machine under a program: every durable byte it reads or writes goes through a [`Host`].
//!
//! [`System`] is the real one. `sim::Machine` is one in memory, whose power can fail between any two
//! steps, so that whole runs of the agent can be cut.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use crate::block::extent::{Extent, Sysfs};
use crate::block::{self, Access, BlockDevice, DeviceError, FileDevice};
use crate::dir::{Dir, Directory, Policy};
use crate::error::{FileError, StoreError};
use crate::flash::{Bank, MtdFlash, is_mtd};
use crate::private;
use crate::secret::{self, Rule};
use crate::shared_lock::{SharedLock, SharedLockError};

/// Opens what is durable, by its path, and tells the time.
pub trait Host: Debug + Send + Sync {
    /// A disk, partition, loop device or plain file, used in place. Never creates anything.
    fn open_device(&self, path: &Path, access: Access)
    -> Result<Box<dyn BlockDevice>, DeviceError>;

    /// Partition `number` of `disk`: the bytes from `start` on, `len` of them.
    fn open_partition(
        &self,
        disk: &Path,
        number: u32,
        start: u64,
        len: u64,
        access: Access,
    ) -> Result<Box<dyn BlockDevice>, DeviceError>;

    /// A directory that exists.
    fn open_dir(&self, path: &Path, policy: Policy) -> Result<Box<dyn Dir>, FileError>;

    /// The same, made durably (not its parents) when it is missing.
    fn create_dir(&self, path: &Path, policy: Policy) -> Result<Box<dyn Dir>, FileError>;

    /// A file of at most `max` bytes that only root and the own user can change.
    fn read_trusted(&self, path: &Path, max: u64) -> Result<Vec<u8>, StoreError>;

    /// A file with a secret, see [`secret::read`].
    fn read_secret(
        &self,
        path: &Path,
        max: u64,
        rule: Rule,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError>;

    /// A file that describes this boot: the kernel's command line, the boot id, the machine id.
    fn read_kernel(&self, path: &Path) -> io::Result<String>;

    /// Writes such a file where a boot is simulated. Not durable.
    fn write_kernel(&self, path: &Path, text: &str) -> io::Result<()>;

    /// Unix seconds by the system clock; 0 before 1970.
    fn now(&self) -> u64;

    /// Keeps other programs from changing the partition table of a disk; see [`SharedLock::of_disk`].
    fn lock_disk(&self, path: &Path) -> Result<Option<SharedLock>, SharedLockError>;

    /// Takes a lock file that other programs take, too; see [`SharedLock::of_lock_file`].
    fn lock_file(&self, path: &Path) -> Result<Option<SharedLock>, SharedLockError>;

    /// The bytes of a medium that a path stands for.
    fn extents(&self, path: &Path) -> Vec<Extent>;

    /// Every mount point with what its file system lies on; empty where that cannot be read.
    fn mounted(&self) -> Vec<(PathBuf, Vec<Extent>)>;
}

/// The system this program runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Host for System {
    fn open_device(
        &self,
        path: &Path,
        access: Access,
    ) -> Result<Box<dyn BlockDevice>, DeviceError> {
        // A boot loader's environment may lie on flash: no order of blocks, unlike an image.
        if is_mtd(path) {
            return Ok(Box::new(Bank::without_header(MtdFlash::open(path, access)?)?));
        }
        Ok(Box::new(FileDevice::open(path, access)?))
    }

    fn open_partition(
        &self,
        disk: &Path,
        number: u32,
        start: u64,
        len: u64,
        access: Access,
    ) -> Result<Box<dyn BlockDevice>, DeviceError> {
        block::open_partition(disk, number, start, len, access)
    }

    fn open_dir(&self, path: &Path, policy: Policy) -> Result<Box<dyn Dir>, FileError> {
        Ok(Box::new(Directory::open(path, policy)?))
    }

    fn create_dir(&self, path: &Path, policy: Policy) -> Result<Box<dyn Dir>, FileError> {
        Ok(Box::new(Directory::open_or_create(path, policy)?))
    }

    fn read_trusted(&self, path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
        private::read_trusted(path, max)
    }

    fn read_secret(
        &self,
        path: &Path,
        max: u64,
        rule: Rule,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        secret::read(path, max, rule)
    }

    fn read_kernel(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn write_kernel(&self, path: &Path, text: &str) -> io::Result<()> {
        std::fs::write(path, text)
    }

    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn lock_disk(&self, path: &Path) -> Result<Option<SharedLock>, SharedLockError> {
        SharedLock::of_disk(path).map(Some)
    }

    fn lock_file(&self, path: &Path) -> Result<Option<SharedLock>, SharedLockError> {
        SharedLock::of_lock_file(path)
    }

    fn extents(&self, path: &Path) -> Vec<Extent> {
        Sysfs::default().extents(path)
    }

    fn mounted(&self) -> Vec<(PathBuf, Vec<Extent>)> {
        Sysfs::default().mounted().unwrap_or_default()
    }
}
