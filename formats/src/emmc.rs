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

#[cfg(test)]
mod tests {
    use super::BootPartition::{Boot0, Boot1};
    use super::Protection::{Off, Permanent, PowerOn};
    use super::*;

    fn register(fields: &[(usize, u8)]) -> ExtCsd {
        let mut bytes = [0; EXT_CSD_LEN];
        for (at, value) in fields {
            bytes[*at] = *value;
        }
        ExtCsd::parse(&bytes)
    }

    #[test]
    fn every_value_of_byte_179_is_one_answer() {
        let mut counts = [0; 5];
        for value in 0..=u8::MAX {
            let found = register(&[(179, value)]).config;
            assert_eq!(found, PartitionConfig(value));
            let (expected, count) = match value / 8 % 8 {
                0 => (BootSource::None, 0),
                1 => (BootSource::Partition(Boot0), 1),
                2 => (BootSource::Partition(Boot1), 2),
                7 => (BootSource::User, 3),
                other => (BootSource::Reserved(other), 4),
            };
            counts[count] += 1;
            assert_eq!(found.source(), expected, "{value:#010b}");
        }
        assert_eq!(counts, [32, 32, 32, 32, 128]);
    }

    #[test]
    fn a_switch_of_every_value_changes_what_boots_and_nothing_that_lasts_beside() {
        for value in 0..=u8::MAX {
            for partition in BootPartition::BOTH {
                let before = PartitionConfig(value);
                let after = before.booting(partition);
                assert_eq!(after.source(), BootSource::Partition(partition), "{value:#010b}");
                assert_eq!(after.0 & 0b1100_0000, value & 0b1100_0000, "BOOT_ACK and bit 7 stay");
                assert_eq!(after.0 & 0b111, 0, "reads and writes reach the user area");
                let same = before.source() == BootSource::Partition(partition);
                assert_eq!(before.same_boot(after), same, "{value:#010b}");
            }
        }
    }

    #[test]
    fn protection_is_the_worse_of_what_is_set_and_told() {
        // BOOT_WP, BOOT_WP_STATUS; boot0, boot1
        let rows = [
            (0, 0, Off, Off),
            (0b1, 0, PowerOn, PowerOn),
            (0b100, 0, Permanent, Permanent),
            (0b101, 0, Permanent, Permanent),
            // Bits 6 and 4 forbid to protect.
            (0b0101_0000, 0, Off, Off),
            // Bit 7: the partition that the selectors name.
            (0b1000_0001, 0, PowerOn, Off),
            (0b1000_0011, 0, Off, PowerOn),
            (0b1000_0100, 0, Permanent, Off),
            (0b1000_1100, 0, Off, Permanent),
            (0b1000_1101, 0, PowerOn, Permanent),
            // Selectors without bit 7 select nothing.
            (0b0000_1011, 0, PowerOn, PowerOn),
            (0, 0b0001, PowerOn, Off),
            (0, 0b0100, Off, PowerOn),
            (0, 0b0010, Permanent, Off),
            (0, 0b1000, Off, Permanent),
            (0, 0b0011, Permanent, Off),
            (0b1, 0b1000, PowerOn, Permanent),
        ];
        for (set, told, boot0, boot1) in rows {
            let found = register(&[(173, set), (174, told)]);
            let found = BootPartition::BOTH.map(|one| found.protection(one));
            assert_eq!(found, [boot0, boot1], "{set:#010b} {told:#06b}");
        }
        let rows = [(0, Off), (1, PowerOn), (1 << 4, Permanent), (1 << 4 | 1, Permanent)];
        for (value, expected) in rows {
            assert_eq!(register(&[(178, value)]).config_protection, expected);
        }
    }

    #[test]
    fn partitions_are_measured_in_128_kib() {
        for (value, len) in [(0, 0), (0x20, 4 << 20), (0xff, 255 << 17)] {
            assert_eq!(register(&[(226, value)]).boot_len, len);
        }
    }

    /// What mmc-utils 1.0 sends for `mmc extcsd read`, and for `mmc bootpart enable 2 1`.
    #[test]
    fn requests_are_those_of_mmc_utils() {
        let field = |bytes: &[u8; REQUEST_LEN], at: usize| {
            u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap())
        };
        let read = Command::read_ext_csd().request(0x1234_5678_9abc);
        let found = [0, 4, 8, 12, 32, 36, 40].map(|at| field(&read, at));
        assert_eq!(found, [0, 0, 8, 0, 0xb5, 512, 1]);
        assert_eq!(read[64..], 0x1234_5678_9abc_u64.to_ne_bytes());
        let switch = Command::boot_from(PartitionConfig(0x48), Boot1);
        assert_eq!(switch.data_len(), 0);
        let switch = switch.request(0);
        let found = [0, 4, 8, 12, 32, 36, 40].map(|at| field(&switch, at));
        assert_eq!(found, [1, 0, 6, 0x03b3_5001, 0x49d, 0, 0]);
    }

    /// Whatever the register held: byte 179 is written, and no other.
    #[test]
    fn no_other_byte_is_ever_switched() {
        for value in 0..=u8::MAX {
            for partition in BootPartition::BOTH {
                let argument = Command::boot_from(PartitionConfig(value), partition).argument;
                assert_eq!(argument & 0xffff_00ff, 0x03b3_0001, "{value:#04x}");
            }
        }
    }

    #[test]
    fn devices_are_known_by_the_ends_of_their_names() {
        let rows = [
            ("mmcblk0boot0", Some(Boot0)),
            ("mmcblk12boot1", Some(Boot1)),
            ("mmcblk0", None),
            ("mmcblk0p1", None),
            ("mmcblk0rpmb", None),
            ("mmcblk0boot2", None),
        ];
        for (name, expected) in rows {
            assert_eq!(BootPartition::of_name(name), expected, "{name}");
        }
    }
}
