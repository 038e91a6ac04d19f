//! Everything durable: files and directories, OCI image layouts, block devices.
//!
//! This crate does the I/O; it makes no decision about updates. Each operation states what a crash in
//! its middle leaves behind, and that sentence is its contract.
//!
//! ```text
//!  formats (bytes ↔ types) ──► storage (bytes ↔ medium) ──► directory, tar, block device
//! ```
//!
//! It refuses to follow symbolic links, to create devices and directories that must exist, and to wait for
//! pipes, sockets and devices.
//!
//! | module | is |
//! |---|---|
//! | [`autoboot`] | `autoboot.txt` of a Raspberry Pi, in place |
//! | [`dir`] | directories held open, the steps that changes in them are made of, their locks |
//! | [`block`] | bytes of disks, partitions, loop devices and files that stand for them |
//! | [`emmc`] | boot partitions of an eMMC, and which of them boots |
//! | [`esp`] | boot entries on an EFI system partition, without renaming what counts |
//! | [`files`] | small files, each replaced whole, and the private directory that holds them |
//! | [`flash`] | images in banks of NOR and NAND flash |
//! | [`grub_env`] | GRUB's environment block, in place |
//! | [`host`] | the machine that a program runs on: opens all of these by their paths |
//! | [`interrupt`] | Ctrl-C and SIGTERM: what is told, and by whom |
//! | [`layout`] | blobs and tags of an OCI image layout, as a directory or a tar |
//! | [`partition_table`] | both copies of a GPT, in the order that survives a power cut |
//! | [`private`] | configuration and trust roots that others must not change |
//! | [`record`] | checksummed records in two copies |
//! | [`report`] | whether standard output was written |
//! | [`secret`] | passphrases, tokens, keys and CA files, wherever operators keep them |
//! | [`shared_lock`] | locks that other programs take, too |
//! | [`uboot_env`] | both copies of U-Boot's environment |
//! | [`watchdog`] | the hardware watchdog |
//! | `sim` | simulated media, power cuts and faults, for tests; behind the feature `sim` |
//!
//! ```
//! use storage::layout::{Layout, LayoutDir};
//! let dir = tempfile::tempdir()?;
//! let layout = LayoutDir::create(&dir.path().join("repository"))?;
//! let digest = layout.put_blob(b"racklet")?;
//! assert_eq!(layout.read_blob(&digest, 100)?, b"racklet");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod autoboot;
pub mod block;
pub mod dir;
pub mod emmc;
mod error;
pub mod esp;
pub mod files;
pub mod flash;
pub mod grub_env;
pub mod host;
pub mod interrupt;
mod ioctl;
pub mod layout;
pub mod log;
mod open;
mod owner;
pub mod partition_table;
pub mod private;
pub mod record;
pub mod refused;
pub mod report;
pub mod secret;
pub mod shared_lock;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod uboot_env;
pub mod watchdog;

pub use error::{FileError, StoreError};
pub use open::{open_input, open_regular};
