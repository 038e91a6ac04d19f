//! A partition of a disk, through its own node where the kernel has one.
//!
//! A node matters: the kernel keeps separate page caches for a disk and its partitions, and only
//! the node can be claimed, so that a mounted partition is noticed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::{Access, BlockDevice, DeviceError, FileDevice, Window, in_use};

/// Opens partition `number` of `disk`: the bytes from `start` on, `len` of them.
///
/// On a device node the kernel's own partition of that number is used when it lies exactly there.
/// If the kernel has none, and on a plain file, it is a window of the disk. A kernel partition that
/// lies elsewhere means that the kernel has not read the table we have read: refused.
pub fn open_partition(
    disk: &Path,
    number: u32,
    start: u64,
    len: u64,
    access: Access,
) -> Result<Box<dyn BlockDevice>, DeviceError> {
    let probe = FileDevice::open_unclaimed(disk, Access::Read)?;
    if probe.is_node()
        && let Some(node) = kernel_partition(&probe, number, start, len)?
    {
        return Ok(Box::new(FileDevice::open(&node, access)?));
    }
    let whole = FileDevice::open_unclaimed(disk, access)?;
    if access == Access::Exclusive {
        in_use::check_loops(whole.file(), disk, start..start.saturating_add(len))?;
    }
    Ok(Box::new(Window::new(whole, start, len, &format!("partition {number}"))?))
}

/// The node of the kernel's partition of that number, if there is one.
fn kernel_partition(
    disk: &FileDevice,
    number: u32,
    start: u64,
    len: u64,
) -> Result<Option<PathBuf>, DeviceError> {
    let failed = |source| DeviceError::Io {
        action: "find partitions of",
        device: disk.describe(),
        offset: start,
        source,
    };
    let rdev = disk.file().metadata().map_err(failed)?.rdev();
    let sysfs = format!("/sys/dev/block/{}:{}", major(rdev), minor(rdev));
    for entry in std::fs::read_dir(sysfs).map_err(failed)?.flatten() {
        let read = |name| std::fs::read_to_string(entry.path().join(name)).ok();
        let field = |name| read(name).and_then(|text| text.trim().parse::<u64>().ok());
        if field("partition") != Some(u64::from(number)) {
            continue;
        }
        // sysfs counts in 512 bytes, whatever the sector size.
        let kernel = field("start").zip(field("size"));
        if kernel.map(|(start, size)| (start << 9, size << 9)) != Some((start, len)) {
            return Err(DeviceError::InUse {
                device: disk.describe(),
                by: format!("the kernel knows partition {number} at another place; reboot first"),
            });
        }
        // sysfs writes `!` for a `/` in the name of a node.
        let node = entry.file_name().to_string_lossy().replace('!', "/");
        return Ok(Some(Path::new("/dev").join(node)));
    }
    Ok(None)
}
