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
