//! A flash through the kernel's MTD character device (`/dev/mtdN`).

use std::fs::{self as files, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, major, minor};
use rustix::io::Errno;

use super::{Flash, Geometry, Kind, failed};
use crate::block::{Access, DeviceError};
use crate::ioctl;

/// MTD_CHAR_MAJOR: the number of all MTD character devices.
const MAJOR: u32 = 90;
/// MTD_ABSENT, MTD_ROM and MTD_NANDFLASH, MTD_MLCNANDFLASH of `mtd-abi.h`.
const ABSENT: u8 = 0;
const ROM: u8 = 2;
const NAND: [u8; 2] = [4, 8];
/// MTD_WRITEABLE.
const WRITEABLE: u32 = 0x400;

/// Whether a path is an MTD character device.
pub fn is_mtd(path: &Path) -> bool {
    fs::stat(path).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && major(stat.st_rdev) == MAJOR
    })
}

/// An MTD character device.
#[derive(Debug)]
pub struct MtdFlash {
    file: File,
    path: PathBuf,
    geometry: Geometry,
}

impl MtdFlash {
    /// Opens `/dev/mtdN`. For writing alone it must not be mounted, attached to UBI, or the kernel's
    /// root; a read-only device and one with locked blocks are refused with what to do.
    pub fn open(path: &Path, access: Access) -> Result<Self, DeviceError> {
        let shown = path.display().to_string();
        let wrong = |action, errno: Errno| failed(action, &shown, 0, errno.into());
        let mode = if access == Access::Read { OFlags::RDONLY } else { OFlags::RDWR };
        let flags = mode | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match fs::open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO) => {
                return Err(DeviceError::Missing(path.to_owned()));
            }
            Err(errno) => return Err(wrong("open", errno)),
        };
        let file = File::from(fd);
        let stat = file.metadata().map_err(|error| failed("stat", &shown, 0, error))?;
        if major(stat.rdev()) != MAJOR {
            return Err(DeviceError::NotDevice(path.to_owned()));
        }
        let info = ioctl::mtd_info(&file).map_err(|errno| wrong("measure", errno))?;
        if info.kind == ABSENT || info.kind == ROM {
            return Err(DeviceError::NotDevice(path.to_owned()));
        }
        let kind = if NAND.contains(&info.kind) { Kind::Nand } else { Kind::Nor };
        let geometry = Geometry {
            kind,
            len: u64::from(info.size),
            erase: info.erase_size,
            page: info.write_size.max(1),
        }
        .check(&shown)?;
        let flash = MtdFlash { file, path: path.to_owned(), geometry };
        if access != Access::Read {
            flash.check_writable(info.flags)?;
        }
        if access == Access::Exclusive {
            // Odd minors are the read-only twins of the same device.
            flash.check_unused(minor(stat.rdev()) / 2)?;
        }
        Ok(flash)
    }

    fn check_writable(&self, flags: u32) -> Result<(), DeviceError> {
        let refuse =
            |why: &str| Err(failed("write", &self.describe(), 0, io::Error::other(why.to_owned())));
        if flags & WRITEABLE == 0 {
            return refuse("the kernel has it read-only; look at the partition in its device tree");
        }
        match ioctl::mtd_is_locked(&self.file, 0, self.geometry.erase) {
            Ok(true) => refuse("its blocks are locked; run `flash_unlock` before the agent"),
            // Most flashes have no lock bits.
            Ok(false) | Err(_) => Ok(()),
        }
    }

    /// Refuses a device on which something runs.
    fn check_unused(&self, number: u32) -> Result<(), DeviceError> {
        let in_use = |by: String| Err(DeviceError::InUse { device: self.describe(), by });
        let mounts = files::read_to_string("/proc/self/mounts").unwrap_or_default();
        let cmdline = files::read_to_string("/proc/cmdline").unwrap_or_default();
        if let Some(by) = user_of(number, &mounts, &cmdline) {
            return in_use(by);
        }
        // UBI that stands on it, mounted or not.
        for entry in files::read_dir("/sys/class/ubi").into_iter().flatten().flatten() {
            let attached = files::read_to_string(entry.path().join("mtd_num")).unwrap_or_default();
            if attached.trim().parse() == Ok(number) {
                return in_use(format!("{} is attached", entry.file_name().to_string_lossy()));
            }
        }
        Ok(())
    }
}

/// Who mounts MTD `number` or boots from it, by the texts of the kernel.
fn user_of(number: u32, mounts: &str, cmdline: &str) -> Option<String> {
    let names = [format!("/dev/mtdblock{number}"), format!("mtd{number}")];
    for line in mounts.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(source), Some(place)) = (words.next(), words.next())
            && names.iter().any(|name| name == source)
        {
            return Some(format!("it is mounted at {place}"));
        }
    }
    let word = cmdline.split_ascii_whitespace().find(|word| {
        let root = word.strip_prefix("root=").is_some_and(|root| names.iter().any(|n| n == root));
        let ubi = word.strip_prefix("ubi.mtd=").and_then(|rest| rest.split(',').next());
        root || ubi == Some(&number.to_string())
    });
    word.map(|word| format!("this system booted with {word}"))
}

impl Flash for MtdFlash {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn is_bad(&self, block: u64) -> Result<bool, DeviceError> {
        let at = block * u64::from(self.geometry.erase);
        match ioctl::mtd_is_bad(&self.file, at) {
            Ok(bad) => Ok(bad),
            // NOR knows no bad blocks.
            Err(Errno::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(failed("look at", &self.describe(), at, errno.into())),
        }
    }

    fn mark_bad(&self, block: u64) -> Result<(), DeviceError> {
        let at = block * u64::from(self.geometry.erase);
        ioctl::mtd_mark_bad(&self.file, at)
            .map_err(|errno| failed("mark", &self.describe(), at, errno.into()))
    }

    fn erase(&self, block: u64) -> Result<(), DeviceError> {
        let at = block * u64::from(self.geometry.erase);
        ioctl::mtd_erase(&self.file, at, u64::from(self.geometry.erase))
            .map_err(|errno| failed("erase", &self.describe(), at, errno.into()))
    }

    fn program(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| failed("program", &self.describe(), offset, error))
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        self.file
            .read_exact_at(buf, offset)
            .map_err(|error| failed("read", &self.describe(), offset, error))
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flash_that_runs_is_known_by_every_name() {
        let rows = [
            ("jffs2 by block device", "/dev/mtdblock3 / jffs2 rw 0 0", "", true),
            ("jffs2 by number", "mtd3 /data jffs2 rw 0 0", "", true),
            ("another number", "/dev/mtdblock33 / jffs2 rw 0 0", "", false),
            ("root", "", "quiet root=/dev/mtdblock3 ro", true),
            ("ubi", "", "ubi.mtd=3,2048 root=ubi0:rootfs", true),
            ("ubi on another", "", "ubi.mtd=31", false),
        ];
        for (name, mounts, cmdline, used) in rows {
            assert_eq!(user_of(3, mounts, cmdline).is_some(), used, "{name}");
        }
    }

    #[test]
    fn what_is_no_mtd_is_refused() {
        for path in ["/dev/null", "/dev/mtd-that-is-not-there"] {
            assert!(MtdFlash::open(Path::new(path), Access::Read).is_err(), "{path}");
            assert!(!is_mtd(Path::new(path)));
        }
    }
}
