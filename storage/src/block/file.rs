//! A block device, loop device or plain file of the system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, Advice, FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::direct::Direct;
use super::{BlockDevice, DeviceError, check_range, in_use, read_into};

/// 64 KiB: the largest page that Linux has, on ARMv8.
const LARGEST_PAGE: u64 = 64 << 10;

/// What a device is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing while others use the device: a partition table on a disk whose partitions are mounted.
    Write,
    /// Exclusive writing: a slot. Refused with `slot_active` when the device is mounted, swapped to,
    /// or below another device; it cannot be mounted while it is open.
    Exclusive,
}

/// A device node or a plain file, used in place; the same code for both.
///
/// Never creates, truncates or grows anything.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: PathBuf,
    len: u64,
    sector_size: u32,
    is_node: bool,
    /// The file system or device below refuses to punch holes; it is not tried again.
    cannot_punch: AtomicBool,
    /// A flush failed, so every later one fails, too.
    sync_failed: AtomicBool,
    direct: Direct,
}

impl FileDevice {
    /// Opens a device. A symbolic link is refused, except one inside `/dev` that leads to a node
    /// inside `/dev`, as udev makes them (`/dev/disk/by-id/…`).
    pub fn open(path: &Path, access: Access) -> Result<Self, DeviceError> {
        let device = Self::open_unclaimed(path, access)?;
        if access == Access::Exclusive {
            in_use::check_loops(&device.file, path, 0..device.len)?;
        }
        Ok(device)
    }

    /// As [`FileDevice::open`], but a plain file's use through loop devices is left to the caller,
    /// who knows which part of it is wanted.
    pub(super) fn open_unclaimed(path: &Path, access: Access) -> Result<Self, DeviceError> {
        let path = &resolve_dev_link(path);
        let failed = |action, errno: Errno| DeviceError::Io {
            action,
            device: path.display().to_string(),
            offset: 0,
            source: errno.into(),
        };
        let mode = if access == Access::Read { OFlags::RDONLY } else { OFlags::RDWR };
        let flags = mode | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = |flags| match fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(DeviceError::Missing(path.clone())),
            Err(Errno::LOOP) => Err(DeviceError::Symlink(path.clone())),
            Err(Errno::ISDIR | Errno::NODEV) => Err(DeviceError::NotDevice(path.clone())),
            // A node whose driver has no such device, or a pipe.
            Err(Errno::NXIO) => Err(DeviceError::Missing(path.clone())),
            Err(Errno::BUSY) => Err(DeviceError::InUse {
                device: path.display().to_string(),
                by: "it or a part of it is mounted, swapped to or claimed".to_owned(),
            }),
            Err(errno) => Err(failed("open", errno)),
        };
        let mut fd = open(flags)?;
        let stat = fs::fstat(&fd).map_err(|errno| failed("stat", errno))?;
        let is_node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => true,
            FileType::RegularFile => false,
            _ => return Err(DeviceError::NotDevice(path.clone())),
        };
        if is_node && access == Access::Exclusive {
            // Only on nodes: without O_CREAT the flag means nothing on a file. Opened again
            // before anything is read; the node is compared in case it was exchanged.
            fd = open(flags | OFlags::EXCL)?;
            let again = fs::fstat(&fd).map_err(|errno| failed("stat", errno))?;
            if again.st_rdev != stat.st_rdev || again.st_mode != stat.st_mode {
                return Err(DeviceError::NotDevice(path.clone()));
            }
        }
        let (len, sector_size) = if is_node {
            let len = fs::seek(&fd, SeekFrom::End(0)).map_err(|errno| failed("measure", errno))?;
            (len, fs::ioctl_blksszget(&fd).map_err(|errno| failed("measure", errno))?)
        } else {
            (u64::try_from(stat.st_size).unwrap_or(0), 512)
        };
        Ok(FileDevice {
            file: File::from(fd),
            path: path.clone(),
            len,
            sector_size,
            is_node,
            cannot_punch: AtomicBool::new(false),
            sync_failed: AtomicBool::new(false),
            direct: Direct::default(),
        })
    }

    /// The same with another sector size, for plain files that stand for a 4 Kn disk; a device
    /// node knows its own.
    #[must_use]
    pub fn with_sector_size(mut self, bytes: u32) -> Self {
        if !self.is_node {
            self.sector_size = bytes;
        }
        self
    }

    /// Whether it is a device node, not a plain file.
    pub fn is_node(&self) -> bool {
        self.is_node
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn failed(&self, action: &'static str, offset: u64, source: io::Error) -> DeviceError {
        DeviceError::Io { action, device: self.describe(), offset, source }
    }

    /// Lets the system make a hole; `false` when it cannot. A hole reads as zeros: the kernel
    /// refuses the call on devices that promise less (`BLKDEV_ZERO_NOFALLBACK`).
    fn punch(&self, offset: u64, len: u64) -> Result<bool, DeviceError> {
        if self.cannot_punch.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            match fs::fallocate(&self.file, flags, offset, len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                    self.cannot_punch.store(true, Ordering::Relaxed);
                    return Ok(false);
                }
                Err(errno) => return Err(self.failed("zero", offset, errno.into())),
            }
        }
    }

    /// Advice: where it is not taken, reads are merely served from memory.
    fn advise_not_needed(&self, range: std::ops::Range<u64>) {
        // A length of zero would mean "to the end".
        if let Some(len) = std::num::NonZeroU64::new(range.end.saturating_sub(range.start)) {
            let _ = fs::fadvise(&self.file, range.start, Some(len), Advice::DontNeed);
        }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        const ZEROS: &[u8] = &[0; 1 << 20];
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let piece = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.file
                .write_all_at(&ZEROS[..piece], at)
                .map_err(|error| self.failed("zero", at, error))?;
            at += piece as u64;
        }
        Ok(())
    }
}

impl BlockDevice for FileDevice {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    // The standard library's `*_exact_at` and `*_all_at` go on after short transfers and EINTR.

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        check_range(self, offset, buf.len() as u64)?;
        self.file.read_exact_at(buf, offset).map_err(|error| self.failed("read", offset, error))
    }

    fn read_medium<'b>(
        &self,
        buffer: &'b mut Vec<u8>,
        offset: u64,
        len: usize,
    ) -> Result<&'b [u8], DeviceError> {
        check_range(self, offset, len as u64)?;
        let range = offset..offset + len as u64;
        let found = self.direct.read(&self.file, self.sector_size, self.len, buffer, range);
        match found.map_err(|error| self.failed("read", offset, error))? {
            Some(place) => Ok(&buffer[place]),
            None => read_into(self, buffer, offset, len),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        check_range(self, offset, bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed("write", offset, error))
    }

    fn write_medium(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        check_range(self, offset, bytes.len() as u64)?;
        let written = self.direct.write(&self.file, self.sector_size, bytes, offset);
        let written = written.map_err(|error| self.failed("write", offset, error))?;
        if written.is_empty() {
            self.write_at(bytes, offset)?;
            // What is dirty cannot be forgotten: the kernel begins to write it instead, and waits for nothing.
            self.advise_not_needed(offset..offset + bytes.len() as u64);
            return Ok(());
        }
        // Pages of which others write the rest, or have: the kernel's memory puts them together.
        self.write_at(&bytes[..written.start], offset)?;
        self.write_at(&bytes[written.end..], offset + written.end as u64)
    }

    fn reads_beside_writes(&self) -> bool {
        self.is_node
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        check_range(self, offset, len)?;
        // Holes are made of whole blocks; nodes refuse anything else.
        let block = u64::from(self.sector_size.max(4096));
        let start = offset.next_multiple_of(block).min(offset + len);
        let end = ((offset + len) / block * block).max(start);
        if end > start && self.punch(start, end - start)? {
            self.write_zeros(offset, start - offset)?;
            self.write_zeros(end, offset + len - end)
        } else {
            self.write_zeros(offset, len)
        }
    }

    fn sync(&self) -> Result<(), DeviceError> {
        let failed = |source| DeviceError::Sync { device: self.describe(), source };
        if self.sync_failed.load(Ordering::SeqCst) {
            return Err(failed(io::Error::other("an earlier flush failed")));
        }
        self.file.sync_all().map_err(|error| {
            self.sync_failed.store(true, Ordering::SeqCst);
            failed(error)
        })
    }

    fn forget_cached(&self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        // The kernel forgets whole pages only. A sector that shares its page with others would be read back from
        // memory; what lies beside it is merely read once more.
        let end = offset.saturating_add(len).div_ceil(LARGEST_PAGE).saturating_mul(LARGEST_PAGE);
        self.advise_not_needed(offset / LARGEST_PAGE * LARGEST_PAGE..end);
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// Links that udev makes inside `/dev`, where only root can make any, are resolved; every other
/// path is left as it is, to be refused when it is a link.
pub(crate) fn resolve_dev_link(path: &Path) -> PathBuf {
    let resolved = path.starts_with("/dev").then(|| path.canonicalize().ok()).flatten();
    resolved.filter(|real| real.starts_with("/dev")).unwrap_or_else(|| path.to_owned())
}
