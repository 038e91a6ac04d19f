//! What the chooser boots, and on whose word.
//!
//! ```text
//!  root.json in the chooser's initramfs
//!     └─ signs ─► roots ─► timestamp ─► snapshot ─► targets (─► delegated)      the proof, kept in
//!                                                      └─ <product>/<version>   the slot by the agent
//!                                                           └─ verity root hash
//!                                                                └─ every block of the slot ─► kernel,
//!                                                                   initrd and command line in it
//! ```
//!
//! The proof is the metadata with which the agent accepted the release, walked again from the root
//! that the chooser carries, in the module `walk`. Expiry is judged by the time at which the agent
//! did: a chooser has no clock it could trust, and a node that was off for a year must boot. What was current then stays
//! bootable until its slot is written again; a rollback is refused by the floor: the agent's, and where
//! a TPM keeps it the chooser's, too ([`ChooserFloor`]).

use std::time::Duration;

use formats::boot_record::{PerSlot, Slot};
use formats::reason::Reason;
use formats::release::{ComponentName, Summary, target_name};
use formats::tuf::TufError;
use formats::verity::Verity;
use formats::version::Version;

use crate::boot::{BootFlags, FlagEdit, select};
use crate::trust::{TrustError, run};

mod proof;
mod round;
mod told;
mod walk;

pub use proof::{Proof, Trailer, place};
pub use round::{Refused, Round};
pub use told::{BelowFloor, ChooserFloor, Gap, Root, RootError, init_of_command_line};

/// Why a slot's proof does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// There is none, or it is damaged.
    #[error("the slot's proof {0}")]
    Form(&'static str),
    /// Its metadata does not lead from the chooser's root to the release.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The proof has another root of the version that the chooser carries.
    #[error("the slot's proof has a root version {version} that is not the chooser's")]
    OtherRoot {
        /// Their version.
        version: u64,
    },
    /// The next root after those of the proof is the chooser's, and their keys did not sign it.
    #[error("the roots of the slot's proof end at {last} and do not lead to the chooser's")]
    Unconnected {
        /// The newest of the proof.
        last: u64,
        /// Why.
        source: TufError,
    },
    /// The signed target is no release of this component and hardware.
    #[error("the signed target {target} {why}")]
    Target {
        /// Its name.
        target: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ProofError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            ProofError::Form(_) => Reason::MetaFormat,
            ProofError::Trust(error) => error.reason(),
            ProofError::OtherRoot { .. } => Reason::MetaType,
            ProofError::Unconnected { source, .. } => source.reason(),
            ProofError::Target { .. } => Reason::HwMismatch,
        }
    }

    /// What the reader can do about it, where it is about the chooser's root.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ProofError::Form(_) | ProofError::Target { .. } => None,
            ProofError::Trust(_)
            | ProofError::OtherRoot { .. }
            | ProofError::Unconnected { .. } => Some(
                "chooser.root is to be the root.json that is in the firmware; if it is, the \
                     firmware needs a newer one, or one of this repository: see \"Which root the \
                     chooser has\" in docs/vm.md",
            ),
        }
    }
}

/// A release that a slot may be booted as: made by [`approve`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    version: Version,
    security_version: u64,
    verity: Verity,
}

impl Approved {
    /// Its version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Its security version.
    pub fn security_version(&self) -> u64 {
        self.security_version
    }

    /// The signed tree of the boot component.
    pub fn verity(&self) -> &Verity {
        &self.verity
    }
}

/// What this machine is, for [`approve`].
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// The product whose releases it runs.
    pub product: &'a str,
    /// Its hardware ids.
    pub hardware: &'a [String],
    /// The component it boots.
    pub component: &'a ComponentName,
}

/// Walks a proof from the root the chooser carries to the tree it may boot.
///
/// Errors are what the chooser refuses the slot for; the agent asks before it writes the slot.
pub fn approve(
    proof: &Proof,
    chooser_root: &[u8],
    machine: Machine<'_>,
) -> Result<Approved, ProofError> {
    let mut set = walk::walk(proof, chooser_root)?;
    let name = target_name(machine.product, &proof.version);
    let mut search = set.find_target(&name)?;
    let signed = run(&mut search, |wanted| walk::reply(proof, wanted), |_| {})?;
    let wrong = |why: &str| ProofError::Target { target: name.clone(), why: why.to_owned() };
    let custom = signed.file().custom.as_ref().ok_or_else(|| wrong("is no release"))?;
    let summary = Summary::parse_custom(&custom.to_bytes())
        .map_err(|error| wrong(&format!("is no release: {error}")))?;
    if summary.version != proof.version {
        return Err(wrong("says that it is another version"));
    }
    let fits = |ids: &[String]| ids.iter().any(|id| machine.hardware.contains(id));
    let own = summary
        .components
        .iter()
        .find(|one| one.name == *machine.component && fits(&one.compatible));
    let own = own.ok_or_else(|| wrong("has no such component for this hardware"))?;
    let verity = own
        .verity
        .clone()
        .ok_or_else(|| wrong("was published without --verity, so its blocks cannot be verified"))?;
    Ok(Approved { version: summary.version, security_version: summary.security_version, verity })
}

/// One slot to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub slot: Slot,
    /// The flags to be made durable before anything of the slot is read: its try is spent.
    pub flags: BootFlags,
    /// Whether every block is read before the boot, not only those of kernel and initrd: a trial
    /// shall not find its damage when it is confirmed.
    pub whole: bool,
}

/// The slot to try next. `None`: neither is left.
///
/// `refused` are the slots that were tried in this boot already, whatever became of their flags.
pub fn next(flags: BootFlags, refused: PerSlot<bool>) -> Option<Attempt> {
    let mut seen = flags;
    for slot in Slot::BOTH.into_iter().filter(|slot| *refused.of(*slot)) {
        seen = FlagEdit::Refuse(slot).apply(seen);
    }
    let selection = select(seen)?;
    let slot = selection.slot;
    let mut after = flags;
    *after.of_mut(slot) = *selection.flags.of(slot);
    Some(Attempt { slot, flags: after, whole: !after.of(slot).successful })
}

/// Whether a slot that was refused loses its flags for good.
///
/// A disk that could not be read may be readable at the next boot. And the last slot that is left
/// keeps them: nothing would be won, and rescue media would have to write them again.
pub fn is_given_up(flags: BootFlags, refused: PerSlot<bool>, slot: Slot, why: Reason) -> bool {
    let mut with = refused;
    *with.of_mut(slot) = true;
    why != Reason::SlotIo && next(flags, with).is_some()
}

/// What follows when no slot could be booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rescue {
    /// Wait, then look at the disk again.
    Wait(Duration),
    /// Enough was waited: do what the configuration says.
    End,
}

/// First wait of [`rescue`].
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// 5 minutes: short enough for an operator who plugs a disk in again, long enough for the disk.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Round `round` (from 0) of `rounds` without a bootable slot: each waits twice as long as the one
/// before, so nothing ever loops without delay.
pub fn rescue(round: u32, rounds: u32) -> Rescue {
    if round >= rounds {
        return Rescue::End;
    }
    let factor = 1u32.checked_shl(round).unwrap_or(u32::MAX);
    Rescue::Wait(FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::SlotFlags;

    const NEITHER: PerSlot<bool> = PerSlot { a: false, b: false };

    fn flags(priority: u8, tries: u8, successful: bool) -> SlotFlags {
        SlotFlags { priority, tries, successful }
    }

    #[test]
    fn the_table_of_attempts() {
        let good = |priority| flags(priority, 0, true);
        let trial = |tries| flags(2, tries, false);
        let a = PerSlot { a: true, b: false };
        let b = PerSlot { a: false, b: true };
        // name, A, B, refused, (slot, tries left, whole)
        type Row = (&'static str, SlotFlags, SlotFlags, PerSlot<bool>, Option<(Slot, u8, bool)>);
        let rows: [Row; 8] = [
            ("confirmed", good(2), good(1), NEITHER, Some((Slot::A, 0, false))),
            ("trial", good(1), trial(3), NEITHER, Some((Slot::B, 2, true))),
            ("trial refused", good(1), trial(2), b, Some((Slot::A, 0, false))),
            ("confirmed refused", good(2), good(1), a, Some((Slot::B, 0, false))),
            ("used up", good(1), trial(0), NEITHER, Some((Slot::A, 0, false))),
            ("used up, the other refused", good(1), trial(0), a, None),
            ("both refused", good(2), good(1), PerSlot { a: true, b: true }, None),
            ("nothing", SlotFlags::CLEARED, SlotFlags::CLEARED, NEITHER, None),
        ];
        for (name, a, b, refused, expected) in rows {
            let found = next(PerSlot { a, b }, refused);
            let short = found.map(|one| (one.slot, one.flags.of(one.slot).tries, one.whole));
            assert_eq!(short, expected, "{name}");
            if let Some(found) = found {
                let other = found.slot.other();
                assert_eq!(found.flags.of(other), PerSlot { a, b }.of(other), "{name}");
            }
        }
    }

    #[test]
    fn every_boot_ends_after_two_attempts() {
        let some = [SlotFlags::CLEARED, flags(1, 0, true), flags(2, 3, false), flags(2, 0, false)];
        for a in some {
            for b in some {
                let mut flags = PerSlot { a, b };
                let mut refused = NEITHER;
                let mut attempts = 0;
                while let Some(attempt) = next(flags, refused) {
                    attempts += 1;
                    flags = attempt.flags;
                    let why = Reason::HashMismatch;
                    if is_given_up(flags, refused, attempt.slot, why) {
                        flags = FlagEdit::Refuse(attempt.slot).apply(flags);
                    }
                    *refused.of_mut(attempt.slot) = true;
                }
                assert!(attempts <= 2, "{a:?} {b:?}");
                let before = PerSlot { a, b };
                let confirmed = |flags: BootFlags| flags.a.confirmed() || flags.b.confirmed();
                assert_eq!(confirmed(before), confirmed(flags), "the last slot keeps its flags");
            }
        }
    }

    #[test]
    fn a_disk_that_cannot_be_read_costs_no_slot_its_flags() {
        let both = PerSlot { a: flags(1, 0, true), b: flags(2, 3, false) };
        assert!(is_given_up(both, NEITHER, Slot::B, Reason::HashMismatch));
        assert!(!is_given_up(both, NEITHER, Slot::B, Reason::SlotIo));
        let only = PerSlot { a: flags(1, 0, true), b: SlotFlags::CLEARED };
        assert!(!is_given_up(only, NEITHER, Slot::A, Reason::HashMismatch));
    }

    #[test]
    fn rescue_waits_longer_each_time_and_ends() {
        let seconds = |round| match rescue(round, 8) {
            Rescue::Wait(wait) => Some(wait.as_secs()),
            Rescue::End => None,
        };
        let waits: Vec<_> = (0..9).map(seconds).collect();
        let expected = [5, 10, 20, 40, 80, 160, 300, 300].map(Some);
        assert_eq!(waits, [&expected[..], &[None]].concat());
        assert_eq!(rescue(u32::MAX - 1, u32::MAX), Rescue::Wait(LONGEST_WAIT));
    }
}
