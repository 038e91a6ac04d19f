//! Boot Loader Specification (UAPI.1): names with boot counters, and which entry boots.
//!
//! ```text
//! racklet-12-b+2-1.conf      id racklet-12-b, 2 tries left, 1 done
//! racklet-11-a.conf          no counter: known to be good
//! racklet-12-b+0-3.conf      its tries are used up: sorts last
//! ```
//!
//! Our entries are type 1 and named `racklet-<generation>-<slot>`. A slot becomes next by a name with
//! the next generation; nothing is rewritten. The slots by their names:
//!
//! | entry of the slot | the slot is |
//! |---|---|
//! | none | cleared |
//! | `+3`, `+2-1` | on trial; systemd-boot renames it before it boots |
//! | `+0-3` | out of tries |
//! | without a counter | confirmed; a boot changes nothing |
//!
//! The order of entries is systemd-boot's (`boot_entry_compare`): what is out of tries last; with a
//! sort key before without; sort key, machine id, newest version; newest id.
//!
//! Departs from [`crate::gpt_attrs`]: systemd-boot boots an entry that is out of tries when there is
//! no other.

use std::cmp::Ordering;
use std::fmt;

use crate::boot_flags::{BootFlags, SlotFlags};
use crate::boot_record::{PerSlot, Slot};
use crate::version;

/// Boots that are left and done, by the name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counters {
    /// Boots left.
    pub left: u32,
    /// Boots that were tried.
    pub done: u32,
}

/// The name of an entry file, in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryName<'a> {
    /// What names the entry, without counters and suffix.
    pub id: &'a str,
    /// Its counters, if it has some.
    pub counters: Option<Counters>,
    /// `.conf` (type 1) or `.efi` (type 2, a unified kernel image).
    pub suffix: &'a str,
}

impl<'a> EntryName<'a> {
    /// The parts of a file name; `None` when it is no entry that systemd-boot would look at.
    pub fn parse(name: &'a str) -> Option<Self> {
        let suffix_at = name.len().checked_sub(".conf".len()).filter(|at| {
            name.get(*at..).is_some_and(|suffix| suffix.eq_ignore_ascii_case(".conf"))
        });
        let suffix_at = suffix_at.or_else(|| {
            name.len().checked_sub(".efi".len()).filter(|at| {
                name.get(*at..).is_some_and(|suffix| suffix.eq_ignore_ascii_case(".efi"))
            })
        })?;
        let (stem, suffix) = name.split_at_checked(suffix_at)?;
        if stem.is_empty() || stem.starts_with('.') || stem.starts_with("auto-") {
            return None;
        }
        let counted = stem.rsplit_once('+').and_then(|(id, text)| Some((id, counters(text)?)));
        Some(match counted {
            Some((id, counters)) => EntryName { id, counters: Some(counters), suffix },
            None => EntryName { id: stem, counters: None, suffix },
        })
    }
}

fn counters(text: &str) -> Option<Counters> {
    let (left, done) = text.split_once('-').unwrap_or((text, "0"));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok())).flatten()
    };
    Some(Counters { left: number(left)?, done: number(done)? })
}

/// What of an entry's content its place in the menu depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryFields {
    /// `sort-key`
    pub sort_key: Option<String>,
    /// `machine-id`
    pub machine_id: Option<String>,
    /// `version`
    pub version: Option<String>,
    /// Whether it says what to boot: `linux` or `efi`.
    pub boots: bool,
}

impl EntryFields {
    /// Reads the fields of a type 1 entry; what is unknown is left alone.
    pub fn parse(text: &str) -> Self {
        let mut fields = EntryFields::default();
        for line in text.lines() {
            let line = line.trim();
            let Some((key, value)) = line.split_once([' ', '\t']) else { continue };
            let value = value.trim();
            match key {
                "sort-key" => fields.sort_key = Some(value.to_owned()),
                "machine-id" => fields.machine_id = Some(value.to_owned()),
                "version" => fields.version = Some(value.to_owned()),
                "linux" | "efi" => fields.boots = true,
                _ => {}
            }
        }
        fields
    }
}

/// What a type 1 entry boots: the form in which a slot tells the chooser of its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// Absolute path of the kernel.
    pub linux: String,
    /// Absolute paths of initrds, in order.
    pub initrd: Vec<String>,
    /// The kernel's command line.
    pub options: String,
}

/// An entry names no kernel, or something that is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EntryError(String);

impl BootFiles {
    /// Reads an entry. Several `initrd` and `options` lines add up; unknown keys are left alone.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        let (mut linux, mut initrd, mut options) = (None, Vec::new(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.split_once([' ', '\t']) else { continue };
            let value = value.trim();
            let path = || match value.starts_with('/') && !value.contains("/../") {
                true => Ok(value.to_owned()),
                false => Err(EntryError(format!("{key} {value:?} is no absolute path"))),
            };
            match key {
                "linux" => linux = Some(path()?),
                "initrd" => initrd.push(path()?),
                "options" => options.push(value),
                _ => {}
            }
        }
        let linux = linux.ok_or_else(|| EntryError("it names no `linux`".to_owned()))?;
        Ok(BootFiles { linux, initrd, options: options.join(" ") })
    }
}

/// Which of two entries systemd-boot lists first: `Less` is first, and the first one boots.
pub fn menu_order(one: (&str, &EntryFields), two: (&str, &EntryFields)) -> Ordering {
    let parse =
        |name| EntryName::parse(name).unwrap_or(EntryName { id: name, counters: None, suffix: "" });
    let (a, b) = (parse(one.0), parse(two.0));
    let (x, y) = (one.1, two.1);
    let out = |name: &EntryName<'_>| name.counters.is_some_and(|counters| counters.left == 0);
    let newest = |a: &str, b: &str| version::compare(b.as_bytes(), a.as_bytes());
    let by_key = || match (&x.sort_key, &y.sort_key) {
        (Some(key), Some(other)) => {
            key.cmp(other).then_with(|| x.machine_id.cmp(&y.machine_id)).then_with(|| {
                let text = |version: &Option<String>| version.clone().unwrap_or_default();
                newest(&text(&x.version), &text(&y.version))
            })
        }
        _ => Ordering::Equal,
    };
    let lower = |id: &str| id.to_ascii_lowercase();
    out(&a)
        .cmp(&out(&b))
        .then_with(|| x.sort_key.is_none().cmp(&y.sort_key.is_none()))
        .then_with(by_key)
        .then_with(|| newest(&lower(a.id), &lower(b.id)))
        .then_with(|| match (a.counters, b.counters) {
            (Some(a), Some(b)) => b.left.cmp(&a.left).then(a.done.cmp(&b.done)),
            _ => Ordering::Equal,
        })
}

/// One of our entries, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotEntry {
    /// The higher one is preferred.
    pub generation: u32,
    /// Which slot it boots.
    pub slot: Slot,
    /// `None`: confirmed.
    pub counters: Option<Counters>,
}

impl SlotEntry {
    /// The entry of one of our names, exactly as [`fmt::Display`] spells it.
    pub fn parse(name: &str) -> Option<Self> {
        let parts = EntryName::parse(name).filter(|parts| parts.suffix == ".conf")?;
        let (generation, slot) = parts.id.strip_prefix("racklet-")?.split_once('-')?;
        let slot = Slot::BOTH.into_iter().find(|known| known.name() == slot)?;
        let entry =
            SlotEntry { generation: generation.parse().ok()?, slot, counters: parts.counters };
        // `+3` and `+3-0` are two names of one entry; both are systemd-boot's.
        let id = SlotEntry { counters: None, ..entry }.to_string();
        (id.strip_suffix(".conf") == Some(parts.id)).then_some(entry)
    }

    /// The entry after a boot, as systemd-boot renames it.
    #[must_use]
    pub fn booted_once(self) -> Self {
        let counters = self.counters.map(|counters| match counters.left {
            0 => counters,
            left => Counters { left: left - 1, done: counters.done.saturating_add(1) },
        });
        SlotEntry { counters, ..self }
    }
}

impl fmt::Display for SlotEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "racklet-{}-{}", self.generation, self.slot)?;
        match self.counters {
            Some(Counters { left, done: 0 }) => write!(f, "+{left}.conf"),
            Some(Counters { left, done }) => write!(f, "+{left}-{done}.conf"),
            None => f.write_str(".conf"),
        }
    }
}

/// The entry that speaks for a slot: of the highest generation, and the confirmed one of two.
///
/// There are two only after a cut between writing a new name and removing the old one.
pub fn entry_of(entries: &[SlotEntry], slot: Slot) -> Option<SlotEntry> {
    let own = entries.iter().filter(|entry| entry.slot == slot);
    own.max_by_key(|entry| (entry.generation, entry.counters.is_none(), entry.counters)).copied()
}

/// The slots by our entries.
pub fn slots(entries: &[SlotEntry]) -> BootFlags {
    let found = PerSlot { a: entry_of(entries, Slot::A), b: entry_of(entries, Slot::B) };
    let attrs = |slot: Slot| match (found.of(slot), found.of(slot.other())) {
        (None, _) => SlotFlags::CLEARED,
        (Some(own), other) => {
            // Of equal generations, which only people make, the later letter is the newer id.
            let second = other
                .is_some_and(|other| (other.generation, other.slot) > (own.generation, own.slot));
            SlotFlags {
                priority: if second { 1 } else { 2 },
                tries: own.counters.map_or(0, |c| u8::try_from(c.left.min(15)).unwrap_or(15)),
                successful: own.counters.is_none(),
            }
        }
    };
    PerSlot { a: attrs(Slot::A), b: attrs(Slot::B) }
}

#[cfg(test)]
mod tests;
