//! What a boot shows, in the record of its node.
//!
//! A boot loader that reads the flags tells the kernel what they say. A node on which one did so once
//! is counted at every boot since; a boot that says nothing was started by another boot loader, and an
//! update that it would have to revert must not begin.
//!
//! | this boot | the record says `chooser` | the record afterwards |
//! |---|---|---|
//! | [`Told`](BootLoader::Told) | yes or no | `chooser`; that a try was not spent is forgotten |
//! | [`Silent`](BootLoader::Silent) | yes | `counting` is false: updates are refused |
//! | [`Silent`](BootLoader::Silent) | no | unchanged: the next trial shows whether tries are spent |
//! | [`CannotTell`](BootLoader::CannotTell) | yes or no | unchanged, likewise |
//! | [`Asked`](BootLoader::Asked) | yes or no | unchanged; no boot says anything of it |
//!
//! A boot loader that has to be asked for each trial boots the confirmed slot whenever nobody asks, and reverts in
//! that way alone. There a boot past the slot that is next is no sign of a fault, and every trial was counted: by
//! the agent that asked for it, or by the operator who did.
//!
//! The slot on trial that was refused gets the reason as that of its failure, unless a failed health
//! check gave one: the slot itself never ran to say it.

use formats::boot_record::{BootRecord, Phase};

use super::evidence::{BootLoader, Evidence};
use super::node::Node;
use super::slot_check::accept;

/// The node with a record that says what this boot shows.
pub(super) fn observe(mut node: Node) -> Node {
    let Node { record, evidence, boot_id, .. } = &mut node;
    match evidence.loader {
        BootLoader::Told => {
            record.chooser = true;
            record.counting = record.counting.filter(|counted| *counted);
        }
        BootLoader::Silent if record.chooser => record.counting = Some(false),
        BootLoader::Silent | BootLoader::CannotTell | BootLoader::Asked => {}
    }
    if let Some(update) = &mut record.update
        && let Some(code) = evidence.refused.of(update.slot)
        && let Phase::Trial { boot_id: activated, failed: failed @ None, .. } = &mut update.phase
        // A trial that this boot began has yet to be booted.
        && activated != boot_id
    {
        *failed = Some(format!("the chooser refused slot {}: {code}", update.slot));
    }
    node
}

/// The record of a node that an operator adopts: this is how it boots, and what it holds, from now on.
pub(super) fn adopt(mut record: BootRecord, evidence: &Evidence) -> BootRecord {
    if evidence.loader != BootLoader::Told {
        (record.chooser, record.counting) = (false, None);
    }
    accept(&mut record, |slot| evidence.foreign.of(slot).is_some());
    record
}

#[cfg(test)]
mod tests {
    use formats::boot_record::{PerSlot, ReleaseId, Slot, Update};
    use formats::digest::Sha256;
    use formats::version::Version;

    use super::*;
    use BootLoader::{Asked, CannotTell, Silent, Told};

    fn node(record: BootRecord, evidence: Evidence) -> Node {
        let (flags, boot_id) = (PerSlot::default(), "2".to_owned());
        Node { record, flags, booted: Slot::A, boot_id, floor: 0, evidence }
    }

    /// Every row of the table of the module, and adopting after it.
    #[test]
    fn what_a_boot_loader_shows() {
        // (chooser, counting) of the record before, observed, and adopted then.
        type Seen = (bool, Option<bool>);
        let rows: [(BootLoader, Seen, Seen, Seen); 20] = [
            (Told, (false, None), (true, None), (true, None)),
            (Told, (false, Some(true)), (true, Some(true)), (true, Some(true))),
            (Told, (false, Some(false)), (true, None), (true, None)),
            (Told, (true, None), (true, None), (true, None)),
            (Told, (true, Some(true)), (true, Some(true)), (true, Some(true))),
            (Told, (true, Some(false)), (true, None), (true, None)),
            (Silent, (false, None), (false, None), (false, None)),
            (Silent, (false, Some(true)), (false, Some(true)), (false, None)),
            (Silent, (false, Some(false)), (false, Some(false)), (false, None)),
            (Silent, (true, None), (true, Some(false)), (false, None)),
            (Silent, (true, Some(true)), (true, Some(false)), (false, None)),
            (Silent, (true, Some(false)), (true, Some(false)), (false, None)),
            (CannotTell, (false, None), (false, None), (false, None)),
            (CannotTell, (false, Some(true)), (false, Some(true)), (false, None)),
            (CannotTell, (false, Some(false)), (false, Some(false)), (false, None)),
            (CannotTell, (true, None), (true, None), (false, None)),
            (CannotTell, (true, Some(true)), (true, Some(true)), (false, None)),
            (CannotTell, (true, Some(false)), (true, Some(false)), (false, None)),
            (Asked, (false, None), (false, None), (false, None)),
            (Asked, (false, Some(true)), (false, Some(true)), (false, None)),
        ];
        for (loader, (chooser, counting), observed, adopted) in rows {
            let before = BootRecord { chooser, counting, ..BootRecord::default() };
            let evidence = Evidence { loader, ..Evidence::default() };
            let after = observe(node(before.clone(), evidence.clone())).record;
            assert_eq!((after.chooser, after.counting), observed, "{loader:?} {before:?}");
            let after = adopt(after, &evidence);
            assert_eq!((after.chooser, after.counting), adopted, "adopted, {loader:?} {before:?}");
        }
    }

    #[test]
    fn a_refusal_is_the_reason_of_a_trial_that_has_none() {
        let version: Version = "2".parse().unwrap();
        let index = Sha256::of(b"2");
        let release = ReleaseId { index, version: version.into(), security_version: 1 };
        let trial = |boot_id: &str, failed: Option<&str>| Phase::Trial {
            boot_id: boot_id.to_owned(),
            since: 0,
            tries: 3,
            failed: failed.map(str::to_owned),
        };
        let told = "the chooser refused slot b: slot_io";
        let rows = [
            ("the slot on trial", Slot::B, trial("1", None), trial("1", Some(told))),
            ("it said itself why", Slot::B, trial("1", Some("web")), trial("1", Some("web"))),
            ("the other slot", Slot::A, trial("1", None), trial("1", None)),
            ("a trial that is yet to boot", Slot::B, trial("2", None), trial("2", None)),
            ("no trial", Slot::B, Phase::Staged, Phase::Staged),
        ];
        for (name, slot, before, after) in rows {
            let mut evidence = Evidence::default();
            *evidence.refused.of_mut(slot) = Some("slot_io".to_owned());
            let update = Update::new(Slot::B, release.clone(), before);
            let record = BootRecord { update: Some(update), ..BootRecord::default() };
            let phase = observe(node(record, evidence)).record.update.map(|update| update.phase);
            assert_eq!(phase, Some(after), "{name}");
        }
    }
}
