//! What a boot shows beside its flags: which boot loader started it, and which slots that refused.
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

use formats::boot_record::{BootRecord, PerSlot, Phase, Slot};

use super::slot_check::{Foreign, accept};
use super::standing::Node;

/// The boot loader of this boot, as far as it made itself known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum BootLoader {
    /// It reads the flags: it told the kernel what they say.
    Told,
    /// It said nothing, although the boot loader of this node would have.
    Silent,
    /// Nothing can be concluded: the boot loader of this node has no way to tell the kernel.
    #[default]
    CannotTell,
    /// It starts the slot on trial only in a boot that was asked to, and the confirmed slot in every other one.
    Asked,
}

/// What a boot shows beside its flags. By default: nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Evidence {
    /// The boot loader that started this boot.
    pub loader: BootLoader,
    /// Why the boot loader refused a slot in this boot: a reason code, at most 40 characters.
    pub refused: PerSlot<Option<String>>,
    /// Which slots another program has written since this agent did.
    pub foreign: PerSlot<Option<Foreign>>,
}

impl Evidence {
    /// Reads the kernel's command line. `tells` says whether the boot loader of this node can add words
    /// to it.
    ///
    /// `racklet.slot=…` alone, which may stand in a fixed command line, is no evidence.
    pub fn of_command_line(text: &str, tells: bool) -> Self {
        let loader = match text.split_whitespace().any(|word| word.starts_with("racklet.boot=")) {
            true => BootLoader::Told,
            false if tells => BootLoader::Silent,
            false => BootLoader::CannotTell,
        };
        let refused = |slot: Slot| {
            let prefix = format!("racklet.refused={slot}:");
            let code = text.split_whitespace().find_map(|word| word.strip_prefix(&prefix))?;
            Some(code.chars().take(40).collect())
        };
        let refused = PerSlot { a: refused(Slot::A), b: refused(Slot::B) };
        Evidence { loader, refused, foreign: PerSlot::default() }
    }
}

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
    use formats::boot_record::{ReleaseId, Update};
    use formats::digest::Sha256;
    use formats::version::Version;

    use super::*;
    use BootLoader::{Asked, CannotTell, Silent, Told};

    fn node(record: BootRecord, evidence: Evidence) -> Node {
        let (flags, boot_id) = (PerSlot::default(), "2".to_owned());
        Node { record, flags, booted: Slot::A, boot_id, floor: 0, evidence }
    }

    #[test]
    fn what_a_command_line_shows() {
        let rows = [
            ("ro racklet.slot=a racklet.boot=confirmed racklet.tries=0", true, Told, None),
            ("racklet.boot=trial", false, Told, None),
            ("ro racklet.slot=a", true, Silent, None),
            ("ro racklet.slot=a", false, CannotTell, None),
            ("", true, Silent, None),
            ("racklet.boot=confirmed racklet.refused=b:slot_io", true, Told, Some("slot_io")),
            ("racklet.refused=b:", true, Silent, Some("")),
            ("xracklet.boot=confirmed xracklet.refused=b:slot_io", true, Silent, None),
        ];
        for (text, tells, loader, refused) in rows {
            let found = Evidence::of_command_line(text, tells);
            let expected = PerSlot { a: None, b: refused.map(str::to_owned) };
            assert_eq!((found.loader, found.refused), (loader, expected), "{text}");
        }
        let long = format!("racklet.refused=a:{}", "é".repeat(100));
        let found = Evidence::of_command_line(&long, true).refused.a;
        assert_eq!(found.map(|code| code.chars().count()), Some(40));
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
