//! Boards with one bank for a component: what has to be there before the bank is erased.
//!
//! Such a component has a *copy* in each slot, and one bank that it starts from. A release is staged as
//! a copy; activating the set writes the copy over the bank, and giving the set up writes back the copy
//! of the slot that runs: the *recovery image*. So nothing is erased before that is whole.
//!
//! | what is known of the copy | copy | bank | |
//! |---|---|---|---|
//! | a release, read back when it was staged | whole | – | ready; a bank that differs is put right |
//! | a release | damaged | holds it | renewed from the bank |
//! | a release | damaged | differs | refused: nothing could be put back |
//! | taken from the bank, which nobody else wrote since | whole | – | ready |
//! | taken from the bank, never written by the agent since | – | differs | taken again: somebody wrote the bank |
//! | taken from the bank, written since | damaged | differs | refused |
//! | nothing | – | – | taken from the bank |

/// What is known of the copy of the slot that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing: no agent wrote it.
    Nothing,
    /// It was taken from the bank; whether the agent has erased the bank since.
    Taken {
        /// Whether it has.
        erased_since: bool,
    },
    /// It is a release that was staged.
    Release,
}

/// What to do before an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The copy is the recovery image.
    Ready,
    /// The content of the bank has to become the copy first, and to be read back.
    TakeFromBank,
    /// Neither the copy nor the bank is whole: nothing may be erased.
    Nothing,
}

/// Decides by what was hashed a moment ago.
pub fn recovery(known: Known, copy_whole: bool, bank_holds_it: bool) -> Recovery {
    match (known, copy_whole, bank_holds_it) {
        (Known::Nothing, _, _) => Recovery::TakeFromBank,
        (Known::Taken { erased_since: false }, _, false) => Recovery::TakeFromBank,
        (Known::Taken { .. } | Known::Release, true, _) => Recovery::Ready,
        (Known::Taken { .. } | Known::Release, false, true) => Recovery::TakeFromBank,
        (Known::Taken { .. } | Known::Release, false, false) => Recovery::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_module() {
        use Recovery::{Nothing, Ready, TakeFromBank};
        let fresh = Known::Taken { erased_since: false };
        let used = Known::Taken { erased_since: true };
        let rows = [
            (Known::Release, true, true, Ready),
            (Known::Release, true, false, Ready),
            (Known::Release, false, true, TakeFromBank),
            (Known::Release, false, false, Nothing),
            (fresh, true, true, Ready),
            (fresh, true, false, TakeFromBank),
            (fresh, false, false, TakeFromBank),
            (fresh, false, true, TakeFromBank),
            (used, true, true, Ready),
            (used, true, false, Ready),
            (used, false, true, TakeFromBank),
            (used, false, false, Nothing),
            (Known::Nothing, true, true, TakeFromBank),
            (Known::Nothing, false, false, TakeFromBank),
        ];
        for (known, copy, bank, expected) in rows {
            assert_eq!(recovery(known, copy, bank), expected, "{known:?} {copy} {bank}");
        }
    }

    /// What the bank may hold alone is never given up: it is erased only when the copy is whole.
    #[test]
    fn nothing_is_ready_without_a_whole_copy() {
        for known in [Known::Nothing, Known::Release, Known::Taken { erased_since: true }] {
            for bank in [false, true] {
                assert_ne!(recovery(known, false, bank), Recovery::Ready);
            }
        }
    }
}
