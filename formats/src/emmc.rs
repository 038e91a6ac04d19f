//! Boot partitions of an eMMC: what its EXT_CSD register says of them, and the two commands that are sent to it.
//!
//! The register has 512 bytes. Of these the boot partitions are described by:
//!
//! | byte | name | bits | meaning |
//! |---|---|---|---|
//! | 173 | BOOT_WP | 0 | write-protected until the next power-on: both partitions, or with bit 7 the one that bit 1 names |
//! | | | 2 | write-protected for ever: both partitions, or with bit 7 the one that bit 3 names |
//! | 174 | BOOT_WP_STATUS | 1:0, 3:2 | the same of boot0 and of boot1: 0 not, 1 until the next power-on, 2 for ever; 0 on cards before 5.0 |
//! | 178 | BOOT_CONFIG_PROT | 0, 4 | byte 179 cannot be changed until the next power-on, for ever |
//! | 179 | PARTITION_CONFIG | 2:0 | PARTITION_ACCESS: what reads and writes reach; the kernel's own |
//! | | | 5:3 | BOOT_PARTITION_ENABLE: 0 none, 1 boot0, 2 boot1, 7 the user area; others are reserved |
//! | | | 6 | BOOT_ACK: whether the card acknowledges a boot |
//! | 226 | BOOT_SIZE_MULT | all | bytes of each boot partition, in 128 KiB |
//!
//! A command goes to the kernel as a `struct mmc_ioc_cmd` of `linux/mmc/ioctl.h`, in the machine's byte order:
//!
//! | offset | size | value |
//! |---|---|---|
//! | 0 | 4 | 1: the command writes |
//! | 8 | 4 | its number |
//! | 12 | 4 | its argument |
//! | 32 | 4 | `MMC_RSP_…` and `MMC_CMD_…` of `linux/mmc/core.h` |
//! | 36, 40 | 4, 4 | bytes of a block of data, number of blocks |
//! | 64 | 8 | address of the data |
//!
//! The other bytes are 0. Only two commands can be made: [`Command::read_ext_csd`] and [`Command::boot_from`].
//!
//! Source: JESD84-B51 §6.3.3, §6.6.1, §7.4.

use std::fmt;

#[cfg(test)]
mod tests;

/// Bytes of the register.
pub const EXT_CSD_LEN: usize = 512;
/// Bytes of `struct mmc_ioc_cmd`.
pub const REQUEST_LEN: usize = 72;

const BOOT_WP: usize = 173;
const BOOT_WP_STATUS: usize = 174;
const BOOT_CONFIG_PROT: usize = 178;
const PARTITION_CONFIG: u8 = 179;
const BOOT_SIZE_MULT: usize = 226;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BootPartition {
    /// `…boot0`, "boot partition 1" of the standard.
    Boot0,
    /// `…boot1`, "boot partition 2".
    Boot1,
}

impl BootPartition {
    /// Both, in order.
    pub const BOTH: [BootPartition; 2] = [BootPartition::Boot0, BootPartition::Boot1];

    /// The one that a device of this name is: `mmcblk0boot1`. The kernel ends the names of no other devices so.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|one| name.ends_with(one.name()))
    }

    /// How its device's name ends.
    pub fn name(self) -> &'static str {
        match self {
            BootPartition::Boot0 => "boot0",
            BootPartition::Boot1 => "boot1",
        }
    }

    /// Its value of BOOT_PARTITION_ENABLE.
    fn enable(self) -> u8 {
        match self {
            BootPartition::Boot0 => 1,
            BootPartition::Boot1 => 2,
        }
    }

    /// Its bit of a selector, and its place in BOOT_WP_STATUS.
    fn index(self) -> u8 {
        self.enable() - 1
    }
}

impl fmt::Display for BootPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the chip's ROM is given by the card at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootSource {
    /// Nothing.
    None,
    /// A boot partition.
    Partition(BootPartition),
    /// The user area: the disk itself.
    User,
    /// A value without a meaning, 3 to 6.
    Reserved(u8),
}

impl fmt::Display for BootSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootSource::None => f.write_str("nothing"),
            BootSource::Partition(one) => one.fmt(f),
            BootSource::User => f.write_str("the user area"),
            BootSource::Reserved(value) => write!(f, "the reserved value {value}"),
        }
    }
}

/// PARTITION_CONFIG, byte 179.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionConfig(pub u8);

impl PartitionConfig {
    const ACCESS: u8 = 0b111;
    const ENABLE: u8 = 0b111 << 3;

    /// What is enabled for boot.
    pub fn source(self) -> BootSource {
        match (self.0 & Self::ENABLE) >> 3 {
            0 => BootSource::None,
            1 => BootSource::Partition(BootPartition::Boot0),
            2 => BootSource::Partition(BootPartition::Boot1),
            7 => BootSource::User,
            other => BootSource::Reserved(other),
        }
    }

    /// The same with another partition enabled. Reads and writes reach the user area: the kernel selects another
    /// one before it uses that.
    #[must_use]
    pub fn booting(self, partition: BootPartition) -> Self {
        PartitionConfig(self.0 & !Self::ENABLE & !Self::ACCESS | partition.enable() << 3)
    }

    /// Whether two values differ in no bit that outlives a command.
    pub fn same_boot(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::ACCESS == 0
    }
}

/// Whether something can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protection {
    /// It can.
    Off,
    /// Not until the next power-on.
    PowerOn,
    /// Never again.
    Permanent,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protection::Off => "off",
            Protection::PowerOn => "until the next power-on",
            Protection::Permanent => "permanent",
        })
    }
}

/// What the register says of the boot partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtCsd {
    /// Which partition boots.
    pub config: PartitionConfig,
    /// Whether that can be changed.
    pub config_protection: Protection,
    boot_wp: u8,
    boot_wp_status: u8,
    /// Bytes of each boot partition; 0 on a card that has none.
    pub boot_len: u64,
}

impl ExtCsd {
    /// Reads the register.
    pub fn parse(bytes: &[u8; EXT_CSD_LEN]) -> Self {
        let prot = bytes[BOOT_CONFIG_PROT];
        ExtCsd {
            config: PartitionConfig(bytes[usize::from(PARTITION_CONFIG)]),
            config_protection: strongest(prot & 1 << 4 != 0, prot & 1 != 0),
            boot_wp: bytes[BOOT_WP],
            boot_wp_status: bytes[BOOT_WP_STATUS],
            boot_len: u64::from(bytes[BOOT_SIZE_MULT]) << 17,
        }
    }

    /// Whether a boot partition can be written: by the worse of what was set and what the card says of it.
    pub fn protection(&self, partition: BootPartition) -> Protection {
        let bit = |bit: u8| self.boot_wp >> bit & 1;
        let concerns = |selector: u8| bit(7) == 0 || bit(selector) == partition.index();
        let set = strongest(bit(2) == 1 && concerns(3), bit(0) == 1 && concerns(1));
        let told = match self.boot_wp_status >> (2 * partition.index()) & 0b11 {
            0 => Protection::Off,
            1 => Protection::PowerOn,
            // 3 is reserved: what nobody knows is not written.
            _ => Protection::Permanent,
        };
        set.max(told)
    }
}

fn strongest(permanent: bool, power_on: bool) -> Protection {
    match (permanent, power_on) {
        (true, _) => Protection::Permanent,
        (false, true) => Protection::PowerOn,
        (false, false) => Protection::Off,
    }
}

/// MMC_RSP_PRESENT, MMC_RSP_CRC, MMC_RSP_OPCODE and MMC_RSP_SPI_S1: an answer with the card's status.
const R1: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 7;
/// MMC_RSP_BUSY and MMC_RSP_SPI_BUSY: the card is busy until it is done.
const BUSY: u32 = 1 << 3 | 1 << 10;
/// MMC_CMD_ADTC: with data.
const DATA: u32 = 1 << 5;

/// A command to a card. There is no way to make another one than these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    number: u32,
    argument: u32,
    flags: u32,
    writes: bool,
    /// Bytes of the block of data that the card answers with; 0: none.
    data: u32,
}

impl Command {
    /// CMD8, SEND_EXT_CSD: the card answers with the register.
    pub fn read_ext_csd() -> Self {
        let data = EXT_CSD_LEN as u32;
        Command { number: 8, argument: 0, flags: R1 | DATA, writes: false, data }
    }

    /// CMD6, SWITCH: the card writes byte 179, so that a boot partition is enabled and BOOT_ACK stays.
    pub fn boot_from(before: PartitionConfig, partition: BootPartition) -> Self {
        /// WRITE_BYTE, as the access of bits 25:24; CMD_SET_NORMAL in bits 2:0.
        const WRITE_BYTE: u32 = 3 << 24 | 1;
        let value = before.booting(partition).0;
        let argument = WRITE_BYTE | u32::from(PARTITION_CONFIG) << 16 | u32::from(value) << 8;
        Command { number: 6, argument, flags: R1 | BUSY, writes: true, data: 0 }
    }

    /// Bytes of data that come with its answer.
    pub fn data_len(&self) -> usize {
        self.data as usize
    }

    /// The `struct mmc_ioc_cmd`, with the address of [`data_len`](Command::data_len) bytes that may be written.
    pub fn request(&self, address: u64) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        let fields = [
            (0, u32::from(self.writes)),
            (8, self.number),
            (12, self.argument),
            (32, self.flags),
            (36, self.data),
            (40, u32::from(self.data > 0)),
        ];
        for (at, value) in fields {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        bytes[64..].copy_from_slice(&address.to_ne_bytes());
        bytes
    }
}

/// What a card does with a register that it keeps in a file: [`Command::boot_from`] of a rehearsal.
pub fn write_config(bytes: &mut [u8; EXT_CSD_LEN], config: PartitionConfig) {
    bytes[usize::from(PARTITION_CONFIG)] = config.0;
}
