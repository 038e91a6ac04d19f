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
    match known_as(Path::new(&sysfs), number).map_err(failed)? {
        None => Ok(None),
        Some(kernel) if kernel.place == Some((start, len)) => {
            Ok(Some(Path::new("/dev").join(kernel.node)))
        }
        Some(_) => Err(DeviceError::InUse {
            device: disk.describe(),
            by: format!("the kernel knows partition {number} at another place; reboot first"),
        }),
    }
}

/// A partition, as the kernel knows it.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    /// Below `/dev`.
    node: String,
    /// Where it begins and how long it is, in bytes.
    place: Option<(u64, u64)>,
}

/// Looks a partition up in the kernel's folder of a disk. Names of nodes are never made from that of the disk:
/// drivers differ (`sda2`, `nvme0n1p2`, `mmcblk0p2`), and an eMMC has boot partitions that are disks
/// (`mmcblk0boot0`).
fn known_as(disk: &Path, number: u32) -> std::io::Result<Option<Known>> {
    for entry in std::fs::read_dir(disk)?.flatten() {
        let read = |name| std::fs::read_to_string(entry.path().join(name)).ok();
        let field = |name| read(name).and_then(|text| text.trim().parse::<u64>().ok());
        if field("partition") != Some(u64::from(number)) {
            continue;
        }
        // sysfs counts in 512 bytes, whatever the sector size.
        let place = field("start").zip(field("size")).map(|(start, size)| (start << 9, size << 9));
        // sysfs writes `!` for a `/` in the name of a node.
        let node = entry.file_name().to_string_lossy().replace('!', "/");
        return Ok(Some(Known { node, place }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn partitions_are_found_whatever_the_driver_calls_them() {
        let rows = [
            ("sda", "sda2", "sda2"),
            ("nvme0n1", "nvme0n1p2", "nvme0n1p2"),
            ("mmcblk0", "mmcblk0p2", "mmcblk0p2"),
            ("loop3", "loop3p2", "loop3p2"),
            ("cciss!c0d0", "cciss!c0d0p2", "cciss/c0d0p2"),
        ];
        for (disk, partition, node) in rows {
            let temp = tempfile::tempdir().unwrap();
            let folder = temp.path().join(disk);
            let file = |path: &str, text: &str| {
                let path = folder.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            };
            file("size", "30535680\n");
            // An eMMC's boot partitions, RPMB and the queue have no number.
            file(&format!("{disk}boot0/size"), "8192\n");
            file(&format!("{disk}boot1/size"), "8192\n");
            file("queue/logical_block_size", "512\n");
            for (number, start) in [(1, 2048), (2, 198_656)] {
                let name = format!("{}{number}", partition.trim_end_matches('2'));
                file(&format!("{name}/partition"), &format!("{number}\n"));
                file(&format!("{name}/start"), &format!("{start}\n"));
                file(&format!("{name}/size"), "196608\n");
            }
            let place = Some((198_656 * 512, 196_608 * 512));
            let known = Known { node: node.to_owned(), place };
            assert_eq!(known_as(&folder, 2).unwrap(), Some(known), "{disk}");
            assert_eq!(known_as(&folder, 3).unwrap(), None, "{disk}");
        }
    }
}
