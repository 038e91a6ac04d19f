//! The slots as three variables of a boot loader's environment, for U-Boot and GRUB.
//!
//! They are the variables of RAUC and of U-Boot's own `bootmeth_rauc`, which reads them in decimal:
//!
//! | variable | holds | absent |
//! |---|---|---|
//! | `BOOT_ORDER` | the slots that may be booted, the preferred one first: `B A` | none may |
//! | `BOOT_A_LEFT`, `BOOT_B_LEFT` | boots that the slot has left | 0 |
//!
//! | slot | in `BOOT_ORDER` | `BOOT_x_LEFT` | at a boot |
//! |---|---|---|---|
//! | cleared | no | `0` | not considered |
//! | on trial | yes | `1` to `9` | booted, one less is saved first |
//! | tries used up | yes | `0` | not booted |
//! | confirmed | yes | above 9; written as `9999999` | booted, nothing is saved |
//!
//! RAUC's variables know no confirmed slot: there, each boot takes a try that the running system
//! gives back, and three quick power cycles change slots. A number above 9 is our confirmed slot.
//! Our boot scripts leave it alone; `bootmeth_rauc` counts it down, and would need ten million
//! boots. The one number can be read in decimal and in hexadecimal, and fits 31 bits in both.
//!
//! The three variables carry an order, not numbers: [`ranked`] is what is left of the priorities.

use crate::boot_flags::{BootFlags, SlotFlags};
use crate::boot_record::{PerSlot, Slot};

/// The variable with the order of the slots.
pub const ORDER: &str = "BOOT_ORDER";
/// What `BOOT_x_LEFT` of a confirmed slot is.
pub const CONFIRMED: &str = "9999999";
/// The most tries that are counted: one decimal digit, for scripts without arithmetic.
pub const TRIES_LIMIT: u8 = 9;

/// The variable with the tries of a slot.
pub fn left(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "BOOT_A_LEFT",
        Slot::B => "BOOT_B_LEFT",
    }
}

/// How `BOOT_ORDER` spells a slot.
pub fn name(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "A",
        Slot::B => "B",
    }
}

/// The slots by the variables; `of` gives a variable's value.
///
/// Reads as a boot loader does: what is no number is 0, and other words in `BOOT_ORDER` are
/// somebody else's.
pub fn slots<'a>(of: impl Fn(&str) -> Option<&'a str>) -> BootFlags {
    let words: Vec<&str> = of(ORDER).unwrap_or("").split_ascii_whitespace().collect();
    let place = |slot| words.iter().position(|word| *word == name(slot));
    let attrs = |slot| {
        let number = of(left(slot)).map_or(0, number);
        let successful = number > u32::from(TRIES_LIMIT);
        let tries = if successful { 0 } else { u8::try_from(number).unwrap_or(0) };
        let priority = match (place(slot), place(slot.other())) {
            (None, _) => 0,
            (Some(own), Some(other)) if own > other => 1,
            (Some(_), _) => 2,
        };
        // A slot that is in no order has nothing to count: one spelling for what is cleared.
        if priority == 0 { SlotFlags::CLEARED } else { SlotFlags { priority, tries, successful } }
    };
    PerSlot { a: attrs(Slot::A), b: attrs(Slot::B) }
}

/// The three variables of these slots, to be set together. Words of others in the `order` there
/// was stay, after ours.
pub fn variables(order: Option<&str>, slots: BootFlags) -> [(&'static str, String); 3] {
    let wanted = ranked(slots);
    let mut ours: Vec<Slot> =
        Slot::BOTH.into_iter().filter(|slot| wanted.of(*slot).priority > 0).collect();
    ours.sort_by_key(|slot| u8::MAX - wanted.of(*slot).priority);
    let others = order.unwrap_or("").split_ascii_whitespace();
    let others = others.filter(|word| Slot::BOTH.into_iter().all(|slot| name(slot) != *word));
    let mut words: Vec<&str> = ours.into_iter().map(name).collect();
    words.extend(others);
    let count = |slot| {
        let own = wanted.of(slot);
        if own.successful { CONFIRMED.to_owned() } else { own.tries.to_string() }
    };
    [(ORDER, words.join(" ")), (left(Slot::A), count(Slot::A)), (left(Slot::B), count(Slot::B))]
}

/// The same choice in the priorities that an order can express: 2 for the preferred slot, 1 for
/// the other one, 0 for a slot that is in no order. Tries above [`TRIES_LIMIT`] count as that.
pub fn ranked(slots: BootFlags) -> BootFlags {
    let rank = |slot: Slot| {
        let (own, other) = (*slots.of(slot), *slots.of(slot.other()));
        let second =
            other.priority > own.priority || other.priority == own.priority && slot == Slot::B;
        match own.priority {
            0 => SlotFlags::CLEARED,
            _ => SlotFlags {
                priority: if second { 1 } else { 2 },
                tries: if own.successful { 0 } else { own.tries.min(TRIES_LIMIT) },
                successful: own.successful,
            },
        }
    };
    PerSlot { a: rank(Slot::A), b: rank(Slot::B) }
}

/// A decimal number, as far as a boot loader would believe it.
fn number(text: &str) -> u32 {
    if text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().unwrap_or(0)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn read(vars: &[(&str, &str)]) -> BootFlags {
        let vars: BTreeMap<&str, &str> = vars.iter().copied().collect();
        slots(|name| vars.get(name).copied())
    }

    #[test]
    fn the_table_of_the_module() {
        let on = |priority, tries, successful| SlotFlags { priority, tries, successful };
        let rows: [(&str, &str, &str, &str, SlotFlags, SlotFlags); 9] = [
            ("confirmed, cleared", "A", "9999999", "0", on(2, 0, true), SlotFlags::CLEARED),
            ("B on trial", "B A", "9999999", "3", on(1, 0, true), on(2, 3, false)),
            ("B used up", "B A", "9999999", "0", on(1, 0, true), on(2, 0, false)),
            ("bootmeth_rauc was here", "A B", "9999998", "0", on(2, 0, true), on(1, 0, false)),
            ("RAUC's defaults", "A B", "3", "3", on(2, 3, false), on(1, 3, false)),
            ("a third word", "x B A", "9", "10", on(1, 9, false), on(2, 0, true)),
            ("not in the order", "", "3", "9999999", SlotFlags::CLEARED, SlotFlags::CLEARED),
            ("no numbers", "A B", "-1", "3x", on(2, 0, false), on(1, 0, false)),
            ("A twice", "A B A", "1", "1", on(2, 1, false), on(1, 1, false)),
        ];
        for (name, order, a, b, slot_a, slot_b) in rows {
            let found = read(&[(ORDER, order), ("BOOT_A_LEFT", a), ("BOOT_B_LEFT", b)]);
            assert_eq!(found, PerSlot { a: slot_a, b: slot_b }, "{name}");
        }
        assert_eq!(read(&[]), PerSlot::default(), "an empty environment");
    }

    fn any_slot() -> impl Strategy<Value = SlotFlags> {
        (0..16u8, 0..16u8, any::<bool>()).prop_map(|(priority, tries, successful)| SlotFlags {
            priority,
            tries,
            successful,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(a in any_slot(), b in any_slot()) {
            let wanted = PerSlot { a, b };
            let vars = variables(Some("A rescue"), wanted);
            prop_assert!(vars[0].1.ends_with("rescue"));
            let found = slots(|name| vars.iter().find(|var| var.0 == name).map(|var| &*var.1));
            prop_assert_eq!(found, ranked(wanted));
            prop_assert_eq!(ranked(found), found, "ranking again changes nothing");
        }
    }
}
