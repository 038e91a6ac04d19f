//! Which bytes of which medium a path stands for, by whatever name it is reached.
//!
//! | path | medium and bytes |
//! |---|---|
//! | plain file | the file, all of it |
//! | loop device | the bytes of its file or node from `loop/offset` on |
//! | partition | the bytes of its disk from `start` on; those of a loop device go on to its file |
//! | device mapper, md | all of every device below it |
//! | MTD character or block device | the flash; an MTD partition of a known master: its bytes of the master |
//! | any other block device | the disk, all of it |
//!
//! Two paths may destroy each other's bytes when an [`Extent`] of one [overlaps](Extent::overlaps) one of the other.
//! What cannot be looked up stands for itself, by its path.

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// Device numbers of `/dev/mtdN` (Linux, `Documentation/admin-guide/devices.txt`): characters, and blocks.
const MTD_CHARACTERS: u32 = 90;
const MTD_BLOCKS: u32 = 31;
/// Loop devices on loop devices: more levels than any real system has.
const DEPTH: usize = 8;

/// What bytes lie on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Medium {
    /// A file of a file system: device and inode.
    File(u64, u64),
    /// A disk: its device number.
    Disk(u64),
    /// A flash: its MTD number.
    Flash(u64),
    /// A path that the system cannot resolve to a device.
    Named(PathBuf),
}

/// A range of bytes of a medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// What they lie on.
    pub medium: Medium,
    /// First byte, and one past the last; `u64::MAX` where the length is unknown.
    pub range: Range<u64>,
}

impl Extent {
    /// Whether a byte belongs to both.
    pub fn overlaps(&self, other: &Extent) -> bool {
        self.medium == other.medium
            && self.range.start < other.range.end
            && other.range.start < self.range.end
    }

    /// The part of it from `start` on, `len` bytes.
    pub fn part(&self, start: u64, len: u64) -> Extent {
        let end = self.range.end;
        let start = self.range.start.saturating_add(start).min(end);
        Extent { medium: self.medium.clone(), range: start..start.saturating_add(len).min(end) }
    }

    /// All of a medium.
    pub fn whole(medium: Medium) -> Extent {
        Extent { medium, range: 0..u64::MAX }
    }
}

/// The first extent of `one` that overlaps one of `other`.
pub fn shared<'a>(one: &'a [Extent], other: &[Extent]) -> Option<&'a Extent> {
    one.iter().find(|extent| other.iter().any(|another| extent.overlaps(another)))
}

/// Looks devices up below `/sys`, or a copy of it.
#[derive(Debug, Clone)]
pub struct Sysfs(PathBuf);

impl Default for Sysfs {
    fn default() -> Self {
        Sysfs(PathBuf::from("/sys"))
    }
}

impl Sysfs {
    /// Another place than `/sys`.
    pub fn at(root: &Path) -> Self {
        Sysfs(root.to_owned())
    }

    /// What a path stands for; itself when it cannot be looked up.
    pub fn extents(&self, path: &Path) -> Vec<Extent> {
        let Ok(found) = fs::metadata(path) else {
            return vec![Extent::whole(Medium::Named(path.to_owned()))];
        };
        let kind = found.file_type();
        if kind.is_block_device() {
            self.of_node(found.rdev())
        } else if kind.is_char_device() && major(found.rdev()) == MTD_CHARACTERS {
            // Even numbers write, odd ones only read.
            vec![self.of_flash(u64::from(minor(found.rdev())) / 2)]
        } else {
            vec![of_file(found.dev(), found.ino())]
        }
    }

    /// What the file system that a path is in lies on.
    pub fn below(&self, path: &Path) -> Vec<Extent> {
        fs::metadata(path).map(|found| self.of_node(found.dev())).unwrap_or_default()
    }

    /// What every mounted file system lies on, with where it is mounted.
    ///
    /// # Errors
    ///
    /// `/proc/self/mountinfo` cannot be read.
    pub fn mounted(&self) -> io::Result<Vec<(PathBuf, Vec<Extent>)>> {
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        let of_line = |line: &str| {
            let mut words = line.split(' ').skip(2);
            let (major, minor) = words.next()?.split_once(':')?;
            let node = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
            let point = words.nth(1)?;
            Some((PathBuf::from(point), self.of_node(node)))
        };
        Ok(text.lines().filter_map(of_line).collect())
    }

    /// What a block device of this number stands for. A number without a device behind it (a file system in
    /// memory) stands for itself.
    pub fn of_node(&self, node: u64) -> Vec<Extent> {
        self.node(node, DEPTH)
    }

    fn node(&self, node: u64, depth: usize) -> Vec<Extent> {
        let own = || vec![Extent::whole(Medium::Disk(node))];
        if major(node) == MTD_BLOCKS {
            return vec![self.of_flash(u64::from(minor(node)))];
        }
        let Ok(folder) =
            fs::canonicalize(self.0.join(format!("dev/block/{}:{}", major(node), minor(node))))
        else {
            return own();
        };
        let Some(depth) = depth.checked_sub(1) else { return own() };
        if folder.join("partition").exists() {
            let disk = folder.parent().and_then(|disk| number_of(&disk.join("dev")));
            let (start, size) = (number(&folder.join("start")), number(&folder.join("size")));
            let (Some(disk), Some(start), Some(size)) = (disk, start, size) else { return own() };
            let (start, len) = (start.saturating_mul(512), size.saturating_mul(512));
            return parts(&self.node(disk, depth), start, len);
        }
        if let Ok(file) = fs::read_to_string(folder.join("loop/backing_file")) {
            return self
                .below_loop(&folder, Path::new(file.trim_end_matches('\n')), depth)
                .unwrap_or_else(own);
        }
        let below: Vec<Extent> = fs::read_dir(folder.join("slaves"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|slave| number_of(&slave.path().join("dev")))
            .flat_map(|slave| self.node(slave, depth))
            .collect();
        if below.is_empty() { own() } else { below }
    }

    fn below_loop(&self, folder: &Path, file: &Path, depth: usize) -> Option<Vec<Extent>> {
        let found = fs::metadata(file).ok()?;
        let below = if found.file_type().is_block_device() {
            self.node(found.rdev(), depth)
        } else {
            vec![of_file(found.dev(), found.ino())]
        };
        let start = number(&folder.join("loop/offset")).unwrap_or(0);
        // 0 means "to the end".
        let len =
            number(&folder.join("loop/sizelimit")).filter(|len| *len != 0).unwrap_or(u64::MAX);
        Some(parts(&below, start, len))
    }

    /// A partition of a flash lies below its master, where the kernel keeps one.
    fn of_flash(&self, mtd: u64) -> Extent {
        let own = Extent::whole(Medium::Flash(mtd));
        let Ok(folder) = fs::canonicalize(self.0.join(format!("class/mtd/mtd{mtd}"))) else {
            return own;
        };
        let master = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        let master = master.and_then(|name| name.strip_prefix("mtd")?.parse().ok());
        let (offset, size) = (number(&folder.join("offset")), number(&folder.join("size")));
        match (master, offset, size) {
            (Some(master), Some(offset), Some(size)) => {
                Extent::whole(Medium::Flash(master)).part(offset, size)
            }
            _ => own,
        }
    }
}

fn of_file(dev: u64, ino: u64) -> Extent {
    Extent::whole(Medium::File(dev, ino))
}

fn parts(of: &[Extent], start: u64, len: u64) -> Vec<Extent> {
    of.iter().map(|extent| extent.part(start, len)).collect()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A device number, `MAJOR:MINOR`.
fn number_of(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn disk(node: (u32, u32), range: Range<u64>) -> Extent {
        Extent { medium: Medium::Disk(rustix::fs::makedev(node.0, node.1)), range }
    }

    #[test]
    fn extents_overlap_by_medium_and_bytes() {
        let rows = [
            (disk((8, 0), 0..10), disk((8, 0), 9..20), true),
            (disk((8, 0), 0..10), disk((8, 0), 10..20), false),
            (disk((8, 0), 0..10), disk((8, 16), 0..10), false),
            (disk((8, 0), 5..6), disk((8, 0), 0..u64::MAX), true),
            (disk((8, 0), 5..5), disk((8, 0), 0..5), false),
        ];
        for (one, other, expected) in rows {
            assert_eq!(one.overlaps(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.overlaps(&one), expected, "{other:?} {one:?}");
        }
        assert_eq!(disk((8, 0), 100..200).part(50, 100), disk((8, 0), 150..200));
        assert_eq!(disk((8, 0), 100..200).part(u64::MAX, 1), disk((8, 0), 200..200));
    }

    /// A copy of sysfs: a disk with a partition, device mapper over it, and a flash with a partition.
    #[test]
    fn devices_are_seen_through() {
        let temp = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = temp.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let link = |to: &str, name: &str| {
            let name = temp.path().join(name);
            fs::create_dir_all(name.parent().unwrap()).unwrap();
            symlink(temp.path().join(to), name).unwrap();
        };
        file("devices/sda/dev", "8:0\n");
        file("devices/sda/sda2/dev", "8:2\n");
        file("devices/sda/sda2/partition", "2\n");
        file("devices/sda/sda2/start", "2048\n");
        file("devices/sda/sda2/size", "8\n");
        file("devices/dm-0/dev", "253:0\n");
        link("devices/sda/sda2", "devices/dm-0/slaves/sda2");
        link("devices/sda", "dev/block/8:0");
        link("devices/sda/sda2", "dev/block/8:2");
        link("devices/dm-0", "dev/block/253:0");
        file("devices/mtd0/mtd1/offset", "65536\n");
        file("devices/mtd0/mtd1/size", "4096\n");
        file("devices/mtd0/name", "flash\n");
        link("devices/mtd0", "class/mtd/mtd0");
        link("devices/mtd0/mtd1", "class/mtd/mtd1");
        let sysfs = Sysfs::at(temp.path());
        let of = |major, minor| sysfs.of_node(rustix::fs::makedev(major, minor));
        let partition = disk((8, 0), 2048 * 512..2056 * 512);
        assert_eq!(of(8, 0), [disk((8, 0), 0..u64::MAX)]);
        assert_eq!(of(8, 2), std::slice::from_ref(&partition));
        assert_eq!(of(253, 0), [partition]);
        assert_eq!(of(7, 99), [disk((7, 99), 0..u64::MAX)]);
        let flash = |range| Extent { medium: Medium::Flash(0), range };
        assert_eq!(of(31, 1), [flash(65536..69632)]);
        assert_eq!(of(31, 0), [flash(0..u64::MAX)]);
        assert!(shared(&of(31, 0), &of(31, 1)).is_some());
    }

    #[test]
    fn names_of_one_file_are_one_medium() {
        let temp = tempfile::tempdir().unwrap();
        let (one, hard, soft) =
            (temp.path().join("one"), temp.path().join("hard"), temp.path().join("soft"));
        fs::write(&one, "x").unwrap();
        fs::hard_link(&one, &hard).unwrap();
        symlink(&one, &soft).unwrap();
        let sysfs = Sysfs::default();
        for other in [&hard, &soft] {
            assert!(shared(&sysfs.extents(&one), &sysfs.extents(other)).is_some());
        }
        let none = sysfs.extents(&temp.path().join("none"));
        assert!(shared(&none, &sysfs.extents(&one)).is_none());
        assert!(shared(&none, &none.clone()).is_some());
    }
}
