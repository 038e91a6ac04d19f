//! What a boot shows beside its flags: which boot loader started it, and which slots that refused.

use formats::boot_record::{PerSlot, Slot};

use super::slot_check::Foreign;

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

#[cfg(test)]
mod tests {
    use super::*;
    use BootLoader::{CannotTell, Silent, Told};

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
}
