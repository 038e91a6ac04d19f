//! What a run looks at in the slot before it fetches, and what the journal says meanwhile.
//!
//! An interrupted run and an earlier release leave chunks in the slot that need not be fetched again.
//! The journal tells where it is worth looking; every chunk found there is hashed before it counts.
//!
//! | the journal is | the slot held something | a component of it | looked at |
//! |---|---|---|---|
//! | of this release and slot | – | was begun | [`Whole`](Resume::Whole) |
//! | of this release and slot | – | was not begun | [`Nothing`](Resume::Nothing) |
//! | of another release, this slot | – | any | [`Whole`](Resume::Whole) |
//! | of the other slot, or missing | yes | any | [`Whole`](Resume::Whole) |
//! | of the other slot, or missing | no | any | [`Nothing`](Resume::Nothing) |
//!
//! The journal has no member for *begun*: a `next_chunk` above 0 says so. It is saved with 1 before the
//! first chunk is written.

use formats::boot_record::{Journal, JournalComponent, ReleaseId, Slot};
use formats::release::ComponentName;

/// What of a component's image the slot may hold already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// Nothing: everything is fetched.
    #[default]
    Nothing,
    /// Chunks of this or another image, anywhere: all of it is looked at first.
    Whole,
}

/// The journal of a slot that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotJournal {
    journal: Journal,
    /// Bytes that earlier runs fetched.
    fetched_before: u64,
}

impl SlotJournal {
    /// Before the first component is written. `found` is the journal on disk; `used` says whether the
    /// slot may hold parts of an image, by the boot record.
    pub fn new<'a>(
        found: Option<Journal>,
        slot: Slot,
        release: &ReleaseId,
        used: bool,
        components: impl Iterator<Item = &'a ComponentName>,
    ) -> Self {
        let found = found.filter(|journal| journal.slot == slot);
        let journal = match found {
            Some(journal) if journal.release == *release => journal,
            other => {
                let next_chunk = u32::from(other.is_some() || used);
                let components = components
                    .map(|name| JournalComponent { name: name.clone(), next_chunk })
                    .collect();
                Journal { release: release.clone(), slot, fetched: 0, components }
            }
        };
        let fetched_before = journal.fetched;
        SlotJournal { journal, fetched_before }
    }

    /// A component is written next: what to look at first. The journal has to be saved before its first
    /// chunk is written, so that a cut before the first flush is resumed as well.
    pub fn begin(&mut self, number: usize) -> Resume {
        let Some(own) = self.journal.components.get_mut(number) else { return Resume::Nothing };
        let resume = if own.next_chunk > 0 { Resume::Whole } else { Resume::Nothing };
        own.next_chunk = own.next_chunk.max(1);
        resume
    }

    /// A component's chunks below `next_chunk` are written and flushed; this run has fetched that many
    /// bytes, over all components.
    pub fn flushed(&mut self, number: usize, next_chunk: u32, fetched: u64) {
        self.journal.fetched = self.fetched_before.saturating_add(fetched);
        if let Some(own) = self.journal.components.get_mut(number) {
            own.next_chunk = next_chunk.max(1);
        }
    }

    /// What is saved.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}

#[cfg(test)]
mod tests {
    use formats::digest::Sha256;
    use formats::version::Version;

    use super::*;
    use Resume::{Nothing, Whole};

    fn release(version: &str) -> ReleaseId {
        let parsed: Version = version.parse().unwrap();
        ReleaseId {
            index: Sha256::of(version.as_bytes()),
            version: parsed.into(),
            security_version: 1,
        }
    }

    fn names() -> [ComponentName; 2] {
        ["bmc", "os"].map(|name| name.parse().unwrap())
    }

    fn journal(slot: Slot, version: &str, next_chunks: [u32; 2]) -> Journal {
        let components = names()
            .into_iter()
            .zip(next_chunks)
            .map(|(name, next_chunk)| JournalComponent { name, next_chunk })
            .collect();
        Journal { release: release(version), slot, fetched: 100, components }
    }

    #[test]
    fn what_is_looked_at_first() {
        let own = |next_chunks| Some(journal(Slot::B, "2", next_chunks));
        let rows = [
            ("a new slot", None, false, [Nothing, Nothing]),
            ("an earlier release", None, true, [Whole, Whole]),
            ("cut before the first chunk", own([1, 0]), false, [Whole, Nothing]),
            ("cut in the second component", own([9, 1]), false, [Whole, Whole]),
            ("the journal knows better than the record", own([1, 0]), true, [Whole, Nothing]),
            (
                "cut while another was written",
                Some(journal(Slot::B, "1", [1, 0])),
                false,
                [Whole; 2],
            ),
            ("of the other slot", Some(journal(Slot::A, "2", [9, 9])), false, [Nothing; 2]),
            ("of the other slot, used", Some(journal(Slot::A, "2", [9, 9])), true, [Whole; 2]),
        ];
        for (name, found, used, looked) in rows {
            let mut writing = SlotJournal::new(found, Slot::B, &release("2"), used, names().iter());
            let first = writing.begin(0);
            // The first run that follows a cut here looks at what this one wrote.
            let kept = Some(writing.journal().clone());
            let mut again = SlotJournal::new(kept, Slot::B, &release("2"), used, names().iter());
            assert_eq!(again.begin(0), Whole, "{name}");
            assert_eq!([first, writing.begin(1)], looked, "{name}");
            assert_eq!(writing.begin(2), Nothing, "no such component");
        }
    }

    #[test]
    fn fetched_bytes_are_counted_over_all_runs() {
        let found = Some(journal(Slot::B, "2", [3, 0]));
        let mut writing = SlotJournal::new(found, Slot::B, &release("2"), false, names().iter());
        assert_eq!(writing.journal().fetched, 100);
        writing.flushed(0, 0, 11);
        assert_eq!(writing.journal().fetched, 111);
        assert_eq!(writing.journal().components[0].next_chunk, 1, "begun, whatever is flushed");
        writing.flushed(1, 8, 30);
        assert_eq!(
            (writing.journal().fetched, writing.journal().components[1].next_chunk),
            (130, 8)
        );
        let other = Some(journal(Slot::B, "1", [3, 0]));
        let fresh = SlotJournal::new(other, Slot::B, &release("2"), false, names().iter());
        assert_eq!(fresh.journal().fetched, 0, "another release begins anew");
    }
}
