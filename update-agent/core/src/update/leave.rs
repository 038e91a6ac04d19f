//! Whether a machine restarts because its agent failed: only out of a trial that nobody has confirmed.
//!
//! An agent may fail because it cannot read what it needs: its configuration, its disk, its record. What
//! still can be read decides, the better word first:
//!
//! | known | the word of |
//! |---|---|
//! | record and flags | [`stand`] |
//! | the flags alone | those of the slot that runs: confirmed or not |
//! | the record alone | its phase, for the slot that the kernel was told |
//! | neither | the boot loader: it said that this boot is a trial |

use formats::boot_record::{BootRecord, Phase, Slot};

use super::{Node, Standing, stand};
use crate::boot::BootFlags;

/// What is known of a boot whose agent has failed.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// Everything.
    Node(&'a Node),
    /// The flags, and the slot that runs.
    Flags(BootFlags, Slot),
    /// The record, and the slot that the kernel was told; `None` where it was not.
    Record(&'a BootRecord, Option<Slot>),
    /// Whether the boot loader said that this boot is a trial.
    BootLoader(bool),
}

/// Why the machine restarts, or why it does not. Both end sentences.
pub type Leave = Result<&'static str, &'static str>;

/// `Ok` asks for the restart. A confirmed system never restarts, whatever is wrong with its agent, unless
/// neither record nor flags can be read in the very boot that was the trial.
pub fn leave_failed_trial(known: Known<'_>) -> Leave {
    match known {
        Known::Node(node) => match stand(node) {
            Standing::OnTrial { .. } => Ok("this boot is a trial that nobody has confirmed"),
            Standing::Leaving => Ok("this slot was given up"),
            Standing::RevertUnfinished if gives_up(node) => Ok("this slot is being given up"),
            _ => Err("this boot is no trial"),
        },
        Known::Flags(flags, booted) => {
            match (flags.of(booted).confirmed(), flags.of(booted.other()).confirmed()) {
                (true, _) => Err("the slot that runs is confirmed"),
                (false, true) => Ok("the slot that runs is not confirmed, and the other one is"),
                (false, false) => Err("there is no confirmed slot to go back to"),
            }
        }
        Known::Record(record, slot) => match &record.update {
            Some(update) if slot.is_some_and(|slot| slot != update.slot) => {
                Err("the slot on trial is not the one that runs")
            }
            Some(update) if matches!(update.phase, Phase::Trial { .. }) && slot.is_some() => {
                Ok("its record says that this slot is on trial")
            }
            _ => Err("no trial is recorded for this boot"),
        },
        Known::BootLoader(true) => Ok("the boot loader said that this boot is a trial"),
        Known::BootLoader(false) => Err("nothing says that this boot is a trial"),
    }
}

fn gives_up(node: &Node) -> bool {
    node.record.update.as_ref().is_some_and(|update| update.slot == node.booted)
}

#[cfg(test)]
mod tests {
    use formats::boot_record::{PerSlot, ReleaseId, Update};
    use formats::digest::Sha256;
    use formats::reason::Reason;
    use formats::version::Version;

    use super::*;
    use crate::boot::SlotFlags;
    use crate::update::Evidence;

    const GOOD: SlotFlags = SlotFlags { priority: 1, tries: 0, successful: true };
    const TRIAL: SlotFlags = SlotFlags { priority: 2, tries: 1, successful: false };
    const CONFIRMED: SlotFlags = SlotFlags { priority: 2, tries: 0, successful: true };
    const CLEARED: SlotFlags = SlotFlags { priority: 0, tries: 0, successful: false };

    fn record(phase: Option<Phase>) -> BootRecord {
        let version: Version = "1.1.0".parse().unwrap();
        let index = Sha256::of(b"index");
        let release = ReleaseId { index, version: version.into(), security_version: 1 };
        let update = phase.map(|phase| Update::new(Slot::B, release, phase));
        BootRecord { update, ..BootRecord::default() }
    }

    fn trial() -> Phase {
        Phase::Trial { boot_id: "before".to_owned(), since: 1, tries: 3, failed: None }
    }

    fn reverting() -> Phase {
        Phase::Reverting { reason: Reason::Unhealthy.into(), detail: String::new() }
    }

    #[test]
    fn only_a_trial_that_nobody_confirmed_is_left() {
        let rows = [
            ("on trial", Some(trial()), Slot::B, TRIAL, true),
            ("confirmed, the record cut off", Some(trial()), Slot::B, CONFIRMED, false),
            ("confirmed", None, Slot::B, CONFIRMED, false),
            ("back in the old slot", Some(trial()), Slot::A, CLEARED, false),
            ("next, not booted yet", Some(trial()), Slot::A, TRIAL, false),
            ("being written", Some(Phase::Staging), Slot::A, CLEARED, false),
            ("given up while it runs", Some(reverting()), Slot::B, TRIAL, true),
            ("given up from the other slot", Some(reverting()), Slot::A, TRIAL, false),
            ("left but not restarted", None, Slot::B, CLEARED, true),
            ("nothing under way", None, Slot::A, CLEARED, false),
        ];
        for (name, phase, booted, b, leaves) in rows {
            let node = Node {
                record: record(phase),
                flags: PerSlot { a: GOOD, b },
                booted,
                boot_id: "now".to_owned(),
                floor: 0,
                evidence: Evidence::default(),
            };
            assert_eq!(leave_failed_trial(Known::Node(&node)).is_ok(), leaves, "{name}");
        }
    }

    #[test]
    fn without_a_record_the_flags_decide() {
        let rows = [
            ("on trial", Slot::B, GOOD, TRIAL, true),
            ("confirmed in the boot that was the trial", Slot::B, GOOD, CONFIRMED, false),
            ("the other slot is next", Slot::A, GOOD, TRIAL, false),
            ("left but not restarted", Slot::B, GOOD, CLEARED, true),
            ("nothing to go back to", Slot::B, CLEARED, TRIAL, false),
        ];
        for (name, booted, a, b, leaves) in rows {
            let known = Known::Flags(PerSlot { a, b }, booted);
            assert_eq!(leave_failed_trial(known).is_ok(), leaves, "{name}");
        }
    }

    #[test]
    fn without_flags_the_record_decides_and_without_both_the_boot_loader() {
        let rows = [
            ("on trial", Some(trial()), Some(Slot::B), true),
            ("the other slot runs", Some(trial()), Some(Slot::A), false),
            ("nobody knows what runs", Some(trial()), None, false),
            ("confirmed", None, Some(Slot::B), false),
            ("being written", Some(Phase::Staging), Some(Slot::B), false),
        ];
        for (name, phase, slot, leaves) in rows {
            let record = record(phase);
            assert_eq!(leave_failed_trial(Known::Record(&record, slot)).is_ok(), leaves, "{name}");
        }
        assert!(leave_failed_trial(Known::BootLoader(true)).is_ok());
        assert!(leave_failed_trial(Known::BootLoader(false)).is_err());
    }
}
