//! Sections of a profile for boards whose boot loader is no program of UEFI.

use std::path::PathBuf;

use serde::Deserialize;

use super::Size;

/// `[[raw]]`: a program that lies outside of all partitions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// Its file, on the machine that builds the disk.
    pub file: PathBuf,
    /// Where it begins on the disk, in whole sectors of 512 bytes.
    pub offset: Size,
}

/// `[u-boot]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UBoot {
    /// The length of the partition with `boot.scr`.
    pub size: Size,
    /// The disk, as U-Boot names it: an interface and a number, `mmc 0`.
    pub device: String,
    /// Commands that load a slot from the partition `${racklet_type} ${racklet_part}` and start it.
    pub start: String,
    /// Where U-Boot's memory is free, for U-Boot without two copies: `racklet_ram` of `redundant.cmd`.
    #[serde(default = "ram")]
    pub ram: String,
}

/// `[env]`: the two copies of U-Boot's environment, in whole sectors of 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Env {
    /// Where the first copy begins: `CONFIG_ENV_OFFSET`.
    pub offset: Size,
    /// Where the second one begins: `CONFIG_ENV_OFFSET_REDUND`.
    pub redundant: Size,
    /// The length of each: `CONFIG_ENV_SIZE`.
    pub size: Size,
    /// The variables that U-Boot was built with, as its build writes them to `u-boot-initial-env`. `None`: U-Boot
    /// does not keep two copies itself, and the script does.
    #[serde(default)]
    pub initial: Option<PathBuf>,
}

impl UBoot {
    /// Interface and number of the disk, if `device` is these two words.
    pub fn interface(&self) -> Option<(&str, u32)> {
        let (interface, number) = self.device.split_once(' ')?;
        let plain =
            interface.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| plain && !interface.is_empty())?;
        Some((interface, number))
    }
}

impl Env {
    /// Where the copies begin, in U-Boot's order.
    pub fn offsets(&self) -> [u64; 2] {
        [self.offset.0, self.redundant.0]
    }
}

/// `[autoboot]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autoboot {
    /// The length of the partition with `autoboot.txt`.
    pub size: Size,
}

fn ram() -> String {
    "60".to_owned()
}
