//! Our entries in the folder `loader/entries` of an EFI system partition.
//!
//! FAT renames nothing atomically. So nothing that counts is ever renamed or rewritten:
//!
//! ```text
//!  activate   entries of the slot removed ─► new name with counters, whole ─► sync
//!  confirm    new name without counters, whole ─► sync ─► old name removed ─► sync
//!  prefer     new name of the next generation, whole ─► sync ─► old name removed ─► sync
//!  clear      entries of the slot removed ─► sync
//! ```
//!
//! The entry of the other slot is not touched by any of them. A new name's content is written under
//! a name that no boot loader looks at, flushed, and only then given its own: an entry that is seen
//! is whole. Between two lines a slot may have two entries; `formats::bls::entry_of` says which
//! speaks for it, and both boot the same slot.

use formats::bls::{Counters, SlotEntry, entry_of};
use formats::boot_record::Slot;

use crate::error::StoreError;
use crate::files::Files;

/// 64 KiB: an entry is a few lines.
pub const ENTRY_LIMIT: u64 = 1 << 16;

/// The entries of a folder.
#[derive(Debug)]
pub struct Entries<F> {
    files: F,
}

impl<F: Files> Entries<F> {
    /// The entries in this folder.
    pub fn new(files: F) -> Self {
        Entries { files }
    }

    /// Ours, in no order.
    pub fn load(&self) -> Result<Vec<SlotEntry>, StoreError> {
        let names = self.files.list()?;
        Ok(names.iter().filter_map(|name| SlotEntry::parse(name)).collect())
    }

    /// The slot is no longer bootable. A crash leaves some of its entries or none.
    pub fn clear(&self, slot: Slot) -> Result<(), StoreError> {
        self.remove(|entry| entry.slot == slot)
    }

    /// The slot becomes next, with that many tries and this content. A crash leaves it cleared or
    /// activated.
    pub fn activate(&self, slot: Slot, tries: u8, content: &[u8]) -> Result<(), StoreError> {
        // First: an old entry of the slot would boot it when the tries of the new one are used up.
        self.clear(slot)?;
        let counters = Some(Counters { left: u32::from(tries), done: 0 });
        let generation = self.next_generation()?;
        self.write(SlotEntry { generation, slot, counters }, content)
    }

    /// The slot spends no more tries. A crash leaves it as it was or confirmed; whoever had no
    /// entry gets one with this content.
    pub fn confirm(&self, slot: Slot, content: &[u8]) -> Result<(), StoreError> {
        let generation = match entry_of(&self.load()?, slot) {
            Some(entry) => entry.generation,
            // A system that runs without an entry is adopted: after the other slot, not before it.
            None => self
                .load()?
                .iter()
                .map(|other| other.generation.saturating_sub(1))
                .min()
                .unwrap_or(1),
        };
        let confirmed = SlotEntry { generation, slot, counters: None };
        self.replace(confirmed, content)
    }

    /// The slot becomes next as it is. A crash leaves it as it was or next. Without an entry
    /// nothing happens.
    pub fn prefer(&self, slot: Slot, content: &[u8]) -> Result<(), StoreError> {
        let entries = self.load()?;
        let Some(own) = entry_of(&entries, slot) else { return Ok(()) };
        if entries.iter().all(|other| other.slot == slot || other.generation < own.generation) {
            return Ok(());
        }
        self.replace(SlotEntry { generation: self.next_generation()?, ..own }, content)
    }

    /// What systemd-boot does before it boots an entry with counters: renames it.
    pub fn spend(&self, slot: Slot) -> Result<(), StoreError> {
        let Some(own) = entry_of(&self.load()?, slot) else { return Ok(()) };
        let after = own.booted_once();
        match self.files.read(&own.to_string(), ENTRY_LIMIT)? {
            Some(content) if after != own => self.replace(after, &content),
            _ => Ok(()),
        }
    }

    /// The new entry, then away with the others of its slot.
    fn replace(&self, new: SlotEntry, content: &[u8]) -> Result<(), StoreError> {
        self.write(new, content)?;
        self.remove(|entry| entry.slot == new.slot && *entry != new)
    }

    fn write(&self, entry: SlotEntry, content: &[u8]) -> Result<(), StoreError> {
        let name = entry.to_string();
        if self.files.read(&name, ENTRY_LIMIT)?.as_deref() == Some(content) {
            return Ok(());
        }
        self.files.write_atomic(&name, content)
    }

    fn remove(&self, which: impl Fn(&SlotEntry) -> bool) -> Result<(), StoreError> {
        // By their own names: `+3` and `+3-0` are the same entry.
        for name in self.files.list()? {
            if SlotEntry::parse(&name).is_some_and(|entry| which(&entry)) {
                self.files.remove(&name)?;
            }
        }
        Ok(())
    }

    fn next_generation(&self) -> Result<u32, StoreError> {
        let highest = self.load()?.iter().map(|entry| entry.generation).max().unwrap_or(0);
        Ok(highest.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use formats::boot_flags::{BootFlags, SlotFlags};
    use formats::boot_record::PerSlot;

    use super::*;
    use crate::sim::{FilesFault, Interrupted, MemFiles};

    const A: SlotFlags = SlotFlags { priority: 2, tries: 0, successful: true };

    fn start(names: &[&str]) -> MemFiles {
        let files = MemFiles::new();
        for name in names {
            files.write_atomic(name, b"linux /old").unwrap();
        }
        files.after_power_loss(Interrupted::Before)
    }

    fn slots(files: &MemFiles) -> BootFlags {
        let names = files.list().unwrap();
        let entries: Vec<_> = names.iter().filter_map(|name| SlotEntry::parse(name)).collect();
        formats::bls::slots(&entries)
    }

    type Step = fn(&Entries<&MemFiles>) -> Result<(), StoreError>;

    impl Files for &MemFiles {
        fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
            (**self).read(name, max)
        }
        fn write_atomic(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
            (**self).write_atomic(name, bytes)
        }
        fn remove(&self, name: &str) -> Result<(), StoreError> {
            (**self).remove(name)
        }
        fn list(&self) -> Result<Vec<String>, StoreError> {
            (**self).list()
        }
    }

    #[test]
    fn every_power_cut_leaves_the_old_or_the_new_slots_and_slot_a_bootable() {
        let two = ["racklet-1-a.conf", "racklet-2-b.conf", "debian.conf"];
        let trial = ["racklet-1-a.conf", "racklet-2-b+2-1.conf"];
        let cut = ["racklet-1-a.conf", "racklet-2-b+2-1.conf", "racklet-2-b.conf"];
        let steps: [(&str, &[&str], Step); 8] = [
            ("clear", &two, |entries| entries.clear(Slot::B)),
            ("clear after a cut", &cut, |entries| entries.clear(Slot::B)),
            ("activate", &["racklet-1-a.conf"], |entries| {
                entries.activate(Slot::B, 3, b"linux /b")
            }),
            ("activate over", &two, |entries| entries.activate(Slot::B, 3, b"linux /b")),
            ("confirm", &trial, |entries| entries.confirm(Slot::B, b"linux /b")),
            ("confirm after a cut", &cut, |entries| entries.confirm(Slot::B, b"linux /b")),
            ("prefer", &two, |entries| entries.prefer(Slot::A, b"linux /a")),
            ("spend", &trial, |entries| entries.spend(Slot::B)),
        ];
        for (name, files, step) in steps {
            let whole = start(files);
            let old = slots(&whole);
            step(&Entries::new(&whole)).unwrap();
            let (new, count) = (slots(&whole), whole.operations());
            for cut in 0..count {
                for interrupted in [Interrupted::Before, Interrupted::After] {
                    let running = start(files).with_fault(FilesFault::CutDuring(cut));
                    step(&Entries::new(&running)).unwrap_err();
                    let found = running.after_power_loss(interrupted);
                    let between = slots(&found);
                    let at = format!("{name}, cut {cut} of {count}, {interrupted:?}: {between:?}");
                    // Activating a slot clears it first.
                    let cleared = name.starts_with("activate")
                        && between == PerSlot { a: A, b: SlotFlags::CLEARED };
                    let other = name.starts_with("clear") && between.a.bootable();
                    assert!(between == old || between == new || cleared || other, "{at}");
                    assert!(between.a.bootable(), "{at}");
                    if name != "spend" {
                        step(&Entries::new(&found)).unwrap();
                        let again = slots(&found);
                        assert_eq!(again, new, "{at}: the next run completes it");
                    }
                }
            }
        }
    }

    #[test]
    fn confirming_again_writes_nothing() {
        let files = start(&["racklet-1-a.conf"]);
        Entries::new(&files).confirm(Slot::A, b"linux /old").unwrap();
        Entries::new(&files).prefer(Slot::A, b"linux /old").unwrap();
        assert_eq!(files.operations(), 0);
    }
}
