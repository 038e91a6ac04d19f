//! One look at the disk: which slot is tried, what a refusal costs it, and when the floor yields.
//!
//! | a slot was refused | its flags | and then |
//! |---|---|---|
//! | for what it is | gone at once, unless no other is left ([`is_given_up`](super::is_given_up)) | the next slot |
//! | for the disk | kept | the next slot |
//! | for the floor | kept until another slot is ready to start, then gone | the next slot |
//! | for the floor, and no slot is left | kept | the slots below the floor again, the first one first, without a floor ([`Gap::AboveAll`]) |
//!
//! So a floor never takes the flags of both slots, and never keeps a node from booting.

use formats::boot_record::{PerSlot, Slot};
use formats::reason::Reason;

use super::{Attempt, ChooserFloor, Gap, is_given_up, next};
use crate::boot::{BootFlags, FlagEdit};

/// What becomes of the tries of one boot.
#[derive(Debug, Clone)]
pub struct Round {
    floor: ChooserFloor,
    tried: PerSlot<bool>,
    refused: Vec<(Slot, Reason)>,
    /// Refused for the floor alone, in the order in which they were tried.
    below: Vec<Attempt>,
}

/// What a refusal leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The slot keeps its flags.
    Keeps,
    /// This is to be written now.
    Edit(FlagEdit),
}

impl Round {
    /// Nothing was tried yet.
    pub fn begin(floor: ChooserFloor) -> Self {
        let tried = PerSlot { a: false, b: false };
        Round { floor, tried, refused: Vec::new(), below: Vec::new() }
    }

    /// The floor that the next slot is held to.
    pub fn floor(&self) -> ChooserFloor {
        self.floor
    }

    /// The slots that were refused, with the reason, in order.
    pub fn refused(&self) -> &[(Slot, Reason)] {
        &self.refused
    }

    /// The slot to try next. `None`: none is left.
    pub fn next(&mut self, flags: BootFlags) -> Option<Attempt> {
        if let Some(attempt) = next(flags, self.tried) {
            return Some(attempt);
        }
        if self.below.is_empty() {
            return None;
        }
        let attempt = self.below.remove(0);
        self.floor = ChooserFloor::Open(Gap::AboveAll);
        self.refused.retain(|(slot, _)| *slot != attempt.slot);
        // Its try was spent when it was refused.
        Some(Attempt { flags, ..attempt })
    }

    /// The attempt failed.
    pub fn refuse(&mut self, flags: BootFlags, attempt: Attempt, why: Reason) -> Refused {
        let slot = attempt.slot;
        self.refused.push((slot, why));
        let before = self.tried;
        *self.tried.of_mut(slot) = true;
        if matches!(self.floor, ChooserFloor::At(_)) && why == Reason::SecverFloor {
            self.below.push(attempt);
            return Refused::Keeps;
        }
        match is_given_up(flags, before, slot, why) {
            true => Refused::Edit(FlagEdit::Refuse(slot)),
            false => Refused::Keeps,
        }
    }

    /// What is written when an attempt is ready to start: the slots below the floor are given up, now that
    /// there is one above it.
    pub fn ready(&self) -> Vec<FlagEdit> {
        match self.floor {
            ChooserFloor::At(_) => {
                self.below.iter().map(|attempt| FlagEdit::Refuse(attempt.slot)).collect()
            }
            ChooserFloor::Unset | ChooserFloor::Open(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::SlotFlags;

    /// What lies in a slot.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Content {
        Good(u64),
        Altered,
        Unreadable,
    }
    use Content::{Altered, Good, Unreadable};

    fn flags(priority: u8, tries: u8, successful: bool) -> SlotFlags {
        SlotFlags { priority, tries, successful }
    }

    /// What starts and the floor it is told, the flags afterwards, what was refused.
    type Booted = (Option<(Slot, ChooserFloor)>, BootFlags, Vec<(Slot, Reason)>);

    /// The driver of a boot, with what it finds: the slot that starts, the floor it is told, the flags
    /// afterwards.
    fn boot(floor: ChooserFloor, mut flags: BootFlags, content: PerSlot<Content>) -> Booted {
        let mut round = Round::begin(floor);
        for _ in 0..5 {
            let Some(attempt) = round.next(flags) else {
                return (None, flags, round.refused().to_vec());
            };
            flags = attempt.flags;
            let why = match (*content.of(attempt.slot), round.floor()) {
                (Altered, _) => Reason::HashMismatch,
                (Unreadable, _) => Reason::SlotIo,
                (Good(own), ChooserFloor::At(floor)) if own < floor => Reason::SecverFloor,
                (Good(_), floor) => {
                    let after =
                        round.ready().into_iter().fold(flags, |flags, edit| edit.apply(flags));
                    return (Some((attempt.slot, floor)), after, round.refused().to_vec());
                }
            };
            if let Refused::Edit(edit) = round.refuse(flags, attempt, why) {
                flags = edit.apply(flags);
            }
        }
        panic!("a boot without an end");
    }

    #[test]
    fn the_table_of_the_module() {
        let (confirmed, fallback) = (flags(2, 0, true), flags(1, 0, true));
        let trial = flags(2, 1, false);
        let at = ChooserFloor::At(5);
        let none = ChooserFloor::Open(Gap::AboveAll);
        let (a, b) = (Some((Slot::A, at)), Some((Slot::B, at)));
        let (a_without, b_without) = (Some((Slot::A, none)), Some((Slot::B, none)));
        // name, flags and content of A, of B, what starts, whether A and B can still be booted
        type Row = (
            &'static str,
            (SlotFlags, Content),
            (SlotFlags, Content),
            Option<(Slot, ChooserFloor)>,
            [bool; 2],
        );
        let rows: [Row; 11] = [
            ("both above", (confirmed, Good(5)), (fallback, Good(6)), a, [true, true]),
            ("an old disk", (confirmed, Good(4)), (fallback, Good(5)), b, [false, true]),
            ("above both", (confirmed, Good(3)), (fallback, Good(4)), a_without, [true, true]),
            (
                "above the only one",
                (confirmed, Good(3)),
                (SlotFlags::CLEARED, Good(9)),
                a_without,
                [true, false],
            ),
            (
                "above both, one altered",
                (confirmed, Altered),
                (fallback, Good(4)),
                b_without,
                [false, true],
            ),
            (
                "the one above it altered",
                (confirmed, Good(4)),
                (fallback, Altered),
                a_without,
                [true, true],
            ),
            (
                "the one above it unreadable",
                (confirmed, Good(4)),
                (fallback, Unreadable),
                a_without,
                [true, true],
            ),
            (
                "the last try, above both",
                (fallback, Good(3)),
                (trial, Good(4)),
                b_without,
                [true, false],
            ),
            (
                "a trial above, the fallback below",
                (fallback, Good(3)),
                (trial, Good(5)),
                b,
                [true, false],
            ),
            (
                "the trial altered, the fallback below",
                (fallback, Good(3)),
                (trial, Altered),
                a_without,
                [true, false],
            ),
            ("both altered", (confirmed, Altered), (fallback, Altered), None, [false, true]),
        ];
        for (name, (a, in_a), (b, in_b), started, bootable) in rows {
            let (found, after, _) = boot(at, PerSlot { a, b }, PerSlot { a: in_a, b: in_b });
            assert_eq!(found, started, "{name}");
            assert_eq!([after.a.bootable(), after.b.bootable()], bootable, "{name}: {after:?}");
        }
    }

    /// Whatever the TPM says: what boots without a floor boots with one, and the floor costs at most one
    /// slot its flags, and only for another one that starts.
    #[test]
    fn no_floor_keeps_a_node_from_booting() {
        let some = [
            SlotFlags::CLEARED,
            flags(1, 0, true),
            flags(2, 0, true),
            flags(2, 1, false),
            flags(2, 3, false),
        ];
        let contents = [Good(1), Good(4), Good(5), Altered, Unreadable];
        let mut cases = 0;
        for (a, b) in some.iter().flat_map(|a| some.iter().map(move |b| (*a, *b))) {
            for (in_a, in_b) in contents.iter().flat_map(|a| contents.iter().map(move |b| (*a, *b)))
            {
                let (flags, content) = (PerSlot { a, b }, PerSlot { a: in_a, b: in_b });
                let (without, ..) = boot(ChooserFloor::Unset, flags, content);
                for floor in [0, 1, 4, 5, 1_000_000] {
                    let (with, after, refused) = boot(ChooserFloor::At(floor), flags, content);
                    assert_eq!(with.is_some(), without.is_some(), "{flags:?} {content:?} {floor}");
                    let lost = |slot: Slot| {
                        flags.of(slot).confirmed()
                            && !after.of(slot).bootable()
                            && refused.contains(&(slot, Reason::SecverFloor))
                    };
                    for slot in Slot::BOTH.into_iter().filter(|slot| lost(*slot)) {
                        let (started, _) = with.expect("something started");
                        assert_eq!(started, slot.other());
                    }
                    cases += 1;
                }
            }
        }
        assert_eq!(cases, 25 * 25 * 5);
    }
}
