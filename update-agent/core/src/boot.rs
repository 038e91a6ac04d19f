//! Boot flags of the two slots, and what a boot loader makes of them.
//!
//! The flags, and which slot is bootable by them, are in [`formats::boot_flags`]; every backend maps
//! its own record to them. The chooser that boots (`update-agent boot-select`) and the models in the tests call
//! these same functions.
//!
//! Of the bootable slots the one with the highest priority is chosen; A before B on a tie.

pub use formats::boot_flags::{BootFlags, SlotFlags};
use formats::boot_record::Slot;

/// What a boot loader does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// The slot it boots.
    pub slot: Slot,
    /// The flags it writes before it does.
    pub flags: BootFlags,
}

/// The slot the boot loader picks, and the try it spends. `None` when neither is bootable.
pub fn select(flags: BootFlags) -> Option<Selection> {
    let slot = Slot::BOTH
        .into_iter()
        .filter(|slot| flags.of(*slot).bootable())
        .min_by_key(|slot| (u8::MAX - flags.of(*slot).priority, *slot))?;
    let mut after = flags;
    let chosen = after.of_mut(slot);
    if !chosen.successful {
        chosen.tries = chosen.tries.saturating_sub(1);
    }
    Some(Selection { slot, flags: after })
}

/// A change of the flags. Each is one write of the boot record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlagEdit {
    /// The slot is no longer bootable.
    Clear(Slot),
    /// The slot becomes next, with that many tries; the other one is the fallback.
    Activate {
        /// The slot.
        slot: Slot,
        /// 1 to 15.
        tries: u8,
    },
    /// The slot works: it spends no more tries.
    Confirm(Slot),
    /// The slot becomes next as it is; it must be confirmed.
    Prefer(Slot),
    /// The chooser boots the slot: one try less, unless it is confirmed.
    Spend(Slot),
    /// The chooser found that the slot is not what was signed: as if its tries were used up, so
    /// that the agent takes it for a trial that was lost.
    Refuse(Slot),
}

impl FlagEdit {
    /// The flags after the change.
    pub fn apply(self, flags: BootFlags) -> BootFlags {
        let mut after = flags;
        match self {
            FlagEdit::Clear(slot) => *after.of_mut(slot) = SlotFlags::CLEARED,
            FlagEdit::Activate { slot, tries } => {
                *after.of_mut(slot) =
                    SlotFlags { priority: 2, tries: tries.clamp(1, 15), successful: false };
                demote(after.of_mut(slot.other()));
            }
            FlagEdit::Confirm(slot) => {
                let own = after.of_mut(slot);
                *own = SlotFlags { priority: own.priority.max(1), tries: 0, successful: true };
            }
            FlagEdit::Prefer(slot) => {
                after.of_mut(slot).priority = 2;
                demote(after.of_mut(slot.other()));
            }
            FlagEdit::Spend(slot) => {
                let own = after.of_mut(slot);
                if !own.successful {
                    own.tries = own.tries.saturating_sub(1);
                }
            }
            FlagEdit::Refuse(slot) => {
                let own = after.of_mut(slot);
                *own = SlotFlags { tries: 0, successful: false, ..*own };
            }
        }
        after
    }
}

fn demote(flags: &mut SlotFlags) {
    flags.priority = flags.priority.min(1);
}

#[cfg(test)]
mod tests {
    use formats::boot_record::PerSlot;

    use super::*;

    fn flags(priority: u8, tries: u8, successful: bool) -> SlotFlags {
        SlotFlags { priority, tries, successful }
    }

    #[test]
    fn the_table_of_choices() {
        let confirmed = |priority| flags(priority, 0, true);
        let rows = [
            ("both confirmed, B higher", confirmed(1), confirmed(2), Some((Slot::B, 0))),
            ("both confirmed, tie", confirmed(1), confirmed(1), Some((Slot::A, 0))),
            ("B on trial", confirmed(1), flags(2, 3, false), Some((Slot::B, 2))),
            ("B's last try", confirmed(1), flags(2, 1, false), Some((Slot::B, 0))),
            ("B used up", confirmed(1), flags(2, 0, false), Some((Slot::A, 0))),
            ("B cleared", confirmed(1), SlotFlags::CLEARED, Some((Slot::A, 0))),
            ("tries without priority", confirmed(1), flags(0, 3, false), Some((Slot::A, 0))),
            ("neither", SlotFlags::CLEARED, flags(2, 0, false), None),
        ];
        for (name, a, b, expected) in rows {
            let found = select(PerSlot { a, b });
            let short = found.map(|s| (s.slot, s.flags.of(s.slot).tries));
            assert_eq!(short, expected, "{name}");
        }
    }

    #[test]
    fn a_confirmed_slot_never_spends_tries() {
        for priority in 1..=15 {
            for tries in 0..=15 {
                let before = PerSlot { a: flags(priority, tries, true), b: SlotFlags::CLEARED };
                assert_eq!(select(before).map(|s| s.flags), Some(before));
            }
        }
    }

    #[test]
    fn tries_run_out_after_exactly_that_many_boots() {
        let old = flags(2, 0, true);
        for tries in 1..=15 {
            let start = PerSlot { a: old, b: SlotFlags::CLEARED };
            let mut now = FlagEdit::Activate { slot: Slot::B, tries }.apply(start);
            for _ in 0..tries {
                let choice = select(now).unwrap();
                assert_eq!(choice.slot, Slot::B);
                now = choice.flags;
            }
            assert_eq!(select(now).unwrap().slot, Slot::A, "one further boot reaches the old slot");
        }
    }

    #[test]
    fn edits_leave_the_other_slot_bootable() {
        for other in [flags(1, 0, true), flags(15, 0, true), flags(2, 1, false)] {
            for slot in Slot::BOTH {
                let mut before = PerSlot { a: SlotFlags::CLEARED, b: SlotFlags::CLEARED };
                *before.of_mut(slot.other()) = other;
                for edit in [
                    FlagEdit::Clear(slot),
                    FlagEdit::Activate { slot, tries: 3 },
                    FlagEdit::Confirm(slot),
                    FlagEdit::Prefer(slot),
                ] {
                    assert!(edit.apply(before).of(slot.other()).bootable(), "{edit:?}");
                }
            }
        }
    }
}
