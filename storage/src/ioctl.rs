//! Requests to device drivers that no crate has a safe function for. The only module of this crate with
//! `unsafe` code: each function below states which request it makes and why its memory is right.
//!
//! | request | number | argument | source |
//! |---|---|---|---|
//! | MEMGETINFO | `_IOR('M', 1)` | `struct mtd_info_user`, 32 bytes | `mtd/mtd-abi.h` |
//! | MEMERASE64 | `_IOW('M', 20)` | `struct erase_info_user64`, 16 bytes | " |
//! | MEMGETBADBLOCK | `_IOW('M', 11)` | `__kernel_loff_t`; answers 1 when bad | " |
//! | MEMSETBADBLOCK | `_IOW('M', 12)` | `__kernel_loff_t` | " |
//! | MEMISLOCKED | `_IOR('M', 23)` | `struct erase_info_user`, 8 bytes; answers 1 when locked | " |
//! | WDIOC_SETTIMEOUT | `_IOWR('W', 6)` | `int`, seconds | `linux/watchdog.h` |
//! | MMC_IOC_CMD | `_IOWR(179, 0)` | `struct mmc_ioc_cmd`, 72 bytes: [`formats::emmc`] | `linux/mmc/ioctl.h` |

#![expect(unsafe_code, reason = "requests to drivers, each reviewed here")]

use std::ffi::c_void;
use std::fs::File;

use formats::emmc::{Command, EXT_CSD_LEN, REQUEST_LEN};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode};

/// `struct mtd_info_user`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct MtdInfo {
    pub(crate) kind: u8,
    pub(crate) flags: u32,
    pub(crate) size: u32,
    pub(crate) erase_size: u32,
    pub(crate) write_size: u32,
    oob_size: u32,
    padding: u64,
}

/// `struct erase_info_user64`.
#[repr(C)]
struct EraseInfo64 {
    start: u64,
    length: u64,
}

/// `struct erase_info_user`.
#[repr(C)]
struct EraseInfo {
    start: u32,
    length: u32,
}

const GET_INFO: Opcode = opcode::read::<MtdInfo>(b'M', 1);
const ERASE64: Opcode = opcode::write::<EraseInfo64>(b'M', 20);
const GET_BAD_BLOCK: Opcode = opcode::write::<i64>(b'M', 11);
const SET_BAD_BLOCK: Opcode = opcode::write::<i64>(b'M', 12);
const IS_LOCKED: Opcode = opcode::read::<EraseInfo>(b'M', 23);
const WATCHDOG_SET_TIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
/// The group is MMC_BLOCK_MAJOR.
const MMC_COMMAND: Opcode = opcode::read_write::<[u8; REQUEST_LEN]>(179, 0);

/// What an MTD device is.
pub(crate) fn mtd_info(file: &File) -> Result<MtdInfo, Errno> {
    // SAFETY: MEMGETINFO fills a `struct mtd_info_user`, which is `MtdInfo`; all its bit patterns
    // are values.
    unsafe { ioctl(file, Getter::<GET_INFO, MtdInfo>::new()) }
}

/// Erases whole blocks.
pub(crate) fn mtd_erase(file: &File, start: u64, length: u64) -> Result<(), Errno> {
    // SAFETY: MEMERASE64 reads a `struct erase_info_user64` and writes no memory of ours.
    unsafe { ioctl(file, Setter::<ERASE64, EraseInfo64>::new(EraseInfo64 { start, length })) }
}

/// Whether the block at an offset is bad.
pub(crate) fn mtd_is_bad(file: &File, offset: u64) -> Result<bool, Errno> {
    let argument = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    // SAFETY: MEMGETBADBLOCK reads a `loff_t` and answers by its return value.
    unsafe { ioctl(file, Asked::<GET_BAD_BLOCK, i64> { argument }) }
}

/// Marks the block at an offset.
pub(crate) fn mtd_mark_bad(file: &File, offset: u64) -> Result<(), Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::INVAL)?;
    // SAFETY: MEMSETBADBLOCK reads a `loff_t` and writes no memory of ours.
    unsafe { ioctl(file, Setter::<SET_BAD_BLOCK, i64>::new(offset)) }
}

/// Whether blocks are locked against writing.
pub(crate) fn mtd_is_locked(file: &File, start: u32, length: u32) -> Result<bool, Errno> {
    // SAFETY: MEMISLOCKED reads a `struct erase_info_user` and answers by its return value.
    unsafe { ioctl(file, Asked::<IS_LOCKED, EraseInfo> { argument: EraseInfo { start, length } }) }
}

/// Sets how long a watchdog waits; gives what the driver took instead.
pub(crate) fn watchdog_set_timeout(file: &File, seconds: i32) -> Result<i32, Errno> {
    let mut seconds = seconds;
    // SAFETY: WDIOC_SETTIMEOUT reads an `int` and writes the seconds it took into it.
    unsafe { ioctl(file, Updater::<WATCHDOG_SET_TIMEOUT, i32>::new(&mut seconds)) }?;
    Ok(seconds)
}

/// Sends a command to an eMMC, and gives the data that it answers with; zeros where it has none.
pub(crate) fn mmc_command(file: &File, command: &Command) -> Result<[u8; EXT_CSD_LEN], Errno> {
    let mut data = [0_u8; EXT_CSD_LEN];
    if command.data_len() > data.len() {
        return Err(Errno::INVAL);
    }
    let mut request = command.request((&raw mut data).expose_provenance() as u64);
    // SAFETY: MMC_IOC_CMD reads and writes a `struct mmc_ioc_cmd`, which is `request`, and reads or writes the
    // data that it names: at most the bytes of `data`, which outlives the call; all bit patterns are values.
    unsafe { ioctl(file, Updater::<MMC_COMMAND, [u8; REQUEST_LEN]>::new(&mut request)) }?;
    Ok(data)
}

/// A request that reads its argument and answers 0 or 1 by its return value.
struct Asked<const OPCODE: Opcode, T> {
    argument: T,
}

// SAFETY: the pointer is that of a live `T`, which the requests made through this type read and do
// not write; the output is made of the return value alone.
unsafe impl<const OPCODE: Opcode, T> Ioctl for Asked<OPCODE, T> {
    type Output = bool;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.argument).cast()
    }

    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> rustix::io::Result<bool> {
        Ok(answer == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the kernel's headers, computed elsewhere.
    #[test]
    fn requests_have_the_numbers_of_the_headers() {
        assert_eq!(size_of::<MtdInfo>(), 32);
        let rows = [
            (GET_INFO, 0x8020_4d01),
            (ERASE64, 0x4010_4d14),
            (GET_BAD_BLOCK, 0x4008_4d0b),
            (SET_BAD_BLOCK, 0x4008_4d0c),
            (IS_LOCKED, 0x8008_4d17),
            (WATCHDOG_SET_TIMEOUT, 0xc004_5706),
            (MMC_COMMAND, 0xc048_b300),
        ];
        for (found, expected) in rows {
            assert_eq!(found as u64, expected, "{expected:x}");
        }
    }
}
