//! The flags that say which slot boots. Each boot loader's record of them is mapped to these:
//! [`gpt_attrs`](crate::gpt_attrs), [`boot_vars`](crate::boot_vars), [`bls`](crate::bls).
//!
//! | priority | successful | tries | the slot is |
//! |---|---|---|---|
//! | 0 | – | – | never booted |
//! | > 0 | yes | – | booted, spends nothing |
//! | > 0 | no | > 0 | booted, one try is spent first |
//! | > 0 | no | 0 | not booted: its tries are used up |

use crate::boot_record::PerSlot;

/// The flags of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SlotFlags {
    /// 0 to 15; 0 is never booted.
    pub priority: u8,
    /// 0 to 15 boots that are left to an unconfirmed slot.
    pub tries: u8,
    /// Whether the slot was confirmed; a confirmed slot spends no tries.
    pub successful: bool,
}

/// The flags of both slots.
pub type BootFlags = PerSlot<SlotFlags>;

impl SlotFlags {
    /// A slot that no boot loader picks: what a slot is while it is being written.
    pub const CLEARED: SlotFlags = SlotFlags { priority: 0, tries: 0, successful: false };

    /// Whether a boot loader may choose the slot.
    pub fn bootable(self) -> bool {
        self.priority > 0 && (self.successful || self.tries > 0)
    }

    /// Whether the slot is bootable and confirmed.
    pub fn confirmed(self) -> bool {
        self.priority > 0 && self.successful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_module() {
        for (priority, tries, successful, bootable, confirmed) in [
            (0, 0, false, false, false),
            (0, 3, true, false, false),
            (1, 0, false, false, false),
            (1, 1, false, true, false),
            (1, 0, true, true, true),
        ] {
            let flags = SlotFlags { priority, tries, successful };
            assert_eq!(flags.bootable(), bootable, "{flags:?}");
            assert_eq!(flags.confirmed(), confirmed, "{flags:?}");
        }
    }
}
