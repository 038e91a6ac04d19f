//! The kernel's own calls that no crate of ours wraps: device mapper, kexec, the watchdog.
//!
//! The only unsafe code of the agent. Each call gets a buffer that is built and measured here.

#![expect(unsafe_code, reason = "four system calls without a safe wrapper")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use rustix::fd::AsFd;

/// Bytes of `struct dm_ioctl` (`linux/dm-ioctl.h`), in front of every request.
pub(super) const DM_HEADER: usize = 312;

/// What is asked of device mapper.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(super) enum DmCommand {
    /// `DM_DEV_CREATE`
    Create = 3,
    /// `DM_DEV_REMOVE`
    Remove = 4,
    /// `DM_DEV_SUSPEND`, which without its flag resumes.
    Resume = 6,
    /// `DM_TABLE_LOAD`
    Load = 9,
    /// `DM_TABLE_STATUS`
    Status = 12,
}

/// Sends a request, which the answer overwrites. `buffer` begins with a `dm_ioctl` whose `data_size`
/// is the buffer's length.
pub(super) fn device_mapper(
    control: &File,
    command: DmCommand,
    buffer: &mut [u8],
) -> io::Result<()> {
    let told = buffer.get(12..16).and_then(|size| <[u8; 4]>::try_from(size).ok());
    let told = told.map(u32::from_ne_bytes).and_then(|size| usize::try_from(size).ok());
    assert!(buffer.len() >= DM_HEADER && told == Some(buffer.len()), "the kernel writes so much");
    // _IOWR(0xfd, command, struct dm_ioctl)
    let request = 3 << 30 | (DM_HEADER as u64) << 16 | 0xfd << 8 | command as u64;
    // SAFETY: the kernel reads and writes at most `data_size` bytes from the start of the buffer,
    // which is its length, as was just checked.
    let done =
        unsafe { libc::ioctl(control.as_raw_fd(), request as libc::Ioctl, buffer.as_mut_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the kernel look at a disk's partition table again. No partition of it may be in use.
pub(super) fn reread_partitions(disk: &File) -> io::Result<()> {
    // BLKRRPART, _IO(0x12, 95)
    const BLKRRPART: u64 = 0x12 << 8 | 95;
    // SAFETY: the request has no argument.
    let done = unsafe { libc::ioctl(disk.as_raw_fd(), BLKRRPART as libc::Ioctl) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Loads the next kernel. The running one checks signatures where it is configured to.
pub(super) fn kexec_file_load(
    kernel: BorrowedFd<'_>,
    initrd: Option<BorrowedFd<'_>>,
    command_line: &CStr,
) -> io::Result<()> {
    const NO_INITRAMFS: libc::c_ulong = 4;
    let flags = if initrd.is_some() { 0 } else { NO_INITRAMFS };
    // SAFETY: the command line is terminated and its length counts the terminator; the kernel
    // copies it before it returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.map_or(-1, |fd| fd.as_raw_fd()),
            command_line.count_bytes() + 1,
            command_line.as_ptr(),
            flags,
        )
    };
    if done >= 0 {
        return Ok(());
    }
    Err(match io::Error::last_os_error() {
        // Debian's kernels for ARMv8, for one.
        error if error.raw_os_error() == Some(libc::ENOSYS) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel has no kexec_file_load: build the firmware's with CONFIG_KEXEC_FILE",
        ),
        error => error,
    })
}

/// Sets after how long an unfed watchdog restarts the machine; gives what the driver made of it.
pub(super) fn set_watchdog_timeout(watchdog: &File, after: Duration) -> io::Result<Duration> {
    // _IOWR('W', 6, int)
    const WDIOC_SETTIMEOUT: u64 = 3 << 30 | 4 << 16 | 0x57 << 8 | 6;
    let mut seconds = libc::c_int::try_from(after.as_secs()).unwrap_or(libc::c_int::MAX);
    let fd = watchdog.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes one int.
    let done = unsafe { libc::ioctl(fd, WDIOC_SETTIMEOUT as libc::Ioctl, &raw mut seconds) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
