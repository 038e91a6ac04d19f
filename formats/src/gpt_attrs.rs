//! The attribute bits that say which slot boots, as ChromeOS and Bottlerocket define them.
//!
//! | bits | meaning | cleared |
//! |---|---|---|
//! | 48–51 | priority: the highest bootable one boots; 0 is never booted | 0 |
//! | 52–55 | tries: boots left while not successful; the boot loader takes one away per boot | 0 |
//! | 56 | successful: this slot was confirmed and needs no tries | 0 |
//!
//! Every other bit of the 64 belongs to somebody else and is never changed.

use crate::boot_flags::SlotFlags;

const PRIORITY: u32 = 48;
const TRIES: u32 = 52;
const SUCCESSFUL: u32 = 56;
/// The bits that are ours: 48 to 56.
pub const MASK: u64 = 0x1ff << PRIORITY;

impl SlotFlags {
    /// The slot's flags in a partition's attributes.
    pub fn of_attributes(attributes: u64) -> Self {
        let nibble = |shift: u32| (attributes >> shift & 0xf) as u8;
        SlotFlags {
            priority: nibble(PRIORITY),
            tries: nibble(TRIES),
            successful: attributes >> SUCCESSFUL & 1 == 1,
        }
    }

    /// A partition's `attributes` with these flags in place of its own; numbers above 15 count as
    /// 15.
    pub fn put_into(self, attributes: u64) -> u64 {
        let bits = u64::from(self.priority.min(15)) << PRIORITY
            | u64::from(self.tries.min(15)) << TRIES
            | u64::from(self.successful) << SUCCESSFUL;
        attributes & !MASK | bits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bits_are_where_cgpt_has_them() {
        // `cgpt add -P 2 -T 3 -S 1` and `sgdisk --info`: 0132000000000000.
        let flags = SlotFlags { priority: 2, tries: 3, successful: true };
        assert_eq!(flags.put_into(0), 0x0132_0000_0000_0000);
    }

    proptest! {
        #[test]
        fn other_bits_are_not_touched(before: u64, priority in 0..16u8, tries in 0..16u8, successful: bool) {
            let flags = SlotFlags { priority, tries, successful };
            let after = flags.put_into(before);
            prop_assert_eq!(after & !MASK, before & !MASK);
            prop_assert_eq!(SlotFlags::of_attributes(after), flags);
        }
    }
}
