//! Whether the system that runs is on `boot.disk` at all: of two disks with one system, a clone or one
//! whose name another disk has now, the one that is configured may not be the one that booted.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use formats::reason::Reason;
use storage::block::extent::{Extent, Medium, Sysfs};

use crate::disk::Disk;
use crate::error::AgentError;

impl Disk {
    /// Refuses when `/` lies on another disk.
    ///
    /// # Errors
    ///
    /// `boot_record`, naming both disks.
    pub(crate) fn check_root(&self) -> Result<(), AgentError> {
        // A simulated boot says nothing of the system around it.
        if self.boot().cmdline != Path::new("/proc/cmdline") {
            return Ok(());
        }
        let Ok(root) = fs::metadata("/") else { return Ok(()) };
        let below = Sysfs::default().of_node(root.dev());
        let hardware = |disk| sysfs(disk).join("device").exists();
        let Some(other) = elsewhere(&below, &self.host().extents(self.path()), hardware) else {
            return Ok(());
        };
        let (other, own) = (name(other), self.path().display());
        let text = format!("/ is on {other}, boot.disk is {own}");
        Err(AgentError::new(Reason::BootRecord, text).hint(
            "set boot.disk to the disk that runs, by a name that stays: /dev/disk/by-id/…; of two \
             disks with the same system, take one out",
        ))
    }
}

fn sysfs(disk: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(disk), rustix::fs::minor(disk));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// The kernel's name of a disk.
fn name(disk: u64) -> String {
    let folder = fs::canonicalize(sysfs(disk)).unwrap_or_default();
    folder.file_name().map_or_else(|| "another disk".to_owned(), |name| name.display().to_string())
}

/// The disk that `/` lies on, when it lies on pieces of hardware and none of them is below `boot.disk`.
/// File systems in memory, of a network, or in a file say nothing.
fn elsewhere(root: &[Extent], disk: &[Extent], hardware: impl Fn(u64) -> bool) -> Option<u64> {
    let own: BTreeSet<&Medium> = disk.iter().map(|extent| &extent.medium).collect();
    let mut first = None;
    for extent in root {
        match &extent.medium {
            Medium::Disk(disk) if hardware(*disk) && !own.contains(&extent.medium) => {
                first = first.or(Some(*disk));
            }
            _ => return None,
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_root_lies() {
        let disk = |number| Extent::whole(Medium::Disk(number));
        let file = || Extent::whole(Medium::File(1, 2));
        // 1 and 2 are hardware, 9 is memory.
        let rows = [
            ("a partition of it", vec![disk(1).part(5, 7)], vec![disk(1)], None),
            ("another disk", vec![disk(2).part(5, 7)], vec![disk(1)], Some(2)),
            ("another disk, a loop device", vec![disk(2)], vec![file()], Some(2)),
            ("mirrored on both", vec![disk(1), disk(2)], vec![disk(1)], None),
            ("both are others", vec![disk(2), disk(2)], vec![disk(1)], Some(2)),
            ("in memory", vec![disk(9)], vec![disk(1)], None),
            ("in a file", vec![file()], vec![disk(1)], None),
            ("unknown", vec![], vec![disk(1)], None),
        ];
        for (name, root, own, expected) in rows {
            assert_eq!(elsewhere(&root, &own, |disk| disk < 9), expected, "{name}");
        }
    }
}
