//! Whether loop devices stand on a file or device.
//!
//! The kernel refuses `O_EXCL` on nodes that are mounted, swapped to or claimed by dm and md. It
//! does not for a file or node below a loop device, so those are looked up in sysfs.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::DeviceError;

/// Refuses `range` (bytes) of the file or node when a loop device stands on a part of it.
pub(super) fn check_loops(file: &File, shown: &Path, range: Range<u64>) -> Result<(), DeviceError> {
    let Ok(own) = file.metadata() else { return Ok(()) };
    // Without sysfs there is no way to know, and no loop device anybody could have set up.
    let Ok(devices) = std::fs::read_dir("/sys/block") else { return Ok(()) };
    for device in devices.flatten() {
        let loop_dir = device.path().join("loop");
        let read = |name| std::fs::read_to_string(loop_dir.join(name)).ok();
        let Some(backing) = read("backing_file") else { continue };
        let Ok(backing) = Path::new(backing.trim_end_matches('\n')).metadata() else { continue };
        let same_file = (own.dev(), own.ino()) == (backing.dev(), backing.ino());
        let same_node = own.rdev() != 0 && own.rdev() == backing.rdev();
        if !same_file && !same_node {
            continue;
        }
        let number = |name| read(name).and_then(|text| text.trim().parse::<u64>().ok());
        let start = number("offset").unwrap_or(0);
        // 0 means "to the end".
        let len = number("sizelimit").filter(|len| *len != 0).unwrap_or(u64::MAX);
        if start < range.end && range.start < start.saturating_add(len) {
            let name = device.file_name();
            return Err(DeviceError::InUse {
                device: shown.display().to_string(),
                by: format!("/dev/{} stands on it", name.to_string_lossy()),
            });
        }
    }
    Ok(())
}
