//! Every state in which a cut may leave a recorded disk.
//!
//! ```text
//!  base ── write ── write ── FLUSH ── write ── write ── write ── FLUSH ── …
//!                                                  ▲ a point
//!          └───── durable ─────────┘ └── pending: each kept, lost, torn ──┘
//! ```
//!
//! | at each point | states |
//! |---|---|
//! | up to [`EXHAUSTIVE`] pending writes | every subset of them that holds the last one |
//! | more | all, the last one alone, all but one, and [`SUBSETS`] drawn |
//! | the last one torn, all or none of the others | its first sector, first half, all but its last sector; of a table or an environment every number of sectors |
//! | sectors | [`DRAWS`], with one of these [`TABLE_DRAWS`]: any order of the writes, any sectors of each |

use std::collections::HashSet;

use racklet_testkit::random::Random;
use sha2::{Digest as _, Sha256};

use super::log::Entry;
use crate::small::{PARTITIONS, SECTOR, ranges};

/// Up to that many pending writes, every subset is a state.
const EXHAUSTIVE: usize = 6;
/// Subsets drawn where there are more.
const SUBSETS: usize = 12;
/// Randoms of sectors at each point.
const DRAWS: usize = 4;
/// The same where a table or an environment is pending: small, and everything else depends on it.
const TABLE_DRAWS: usize = 24;

/// Parts of a disk that are judged each by itself: both tables, then the partitions.
pub(super) const PARTS: usize = PARTITIONS.len() + 1;
/// The tables' place in [`State::parts`]; partition n is at n.
pub(super) const TABLES: usize = 0;
/// U-Boot's environment.
pub(super) const ENV: usize = 3;

/// What is kept of one pending write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Keep {
    All,
    None,
    /// The first so many sectors.
    First(u64),
    /// Drawn: that many of 16 sectors, by numbers of its own.
    Some(usize, Random),
}

/// One state of the disk.
pub(super) struct State<'a> {
    /// Its number among the distinct ones.
    pub(super) number: usize,
    /// Requests that were made before the power failed.
    pub(super) point: usize,
    /// What was kept of those that were not flushed, in words.
    pub(super) kept: String,
    /// A digest of each part, by [`TABLES`] and partition number.
    pub(super) parts: [u128; PARTS],
    durable: &'a [u8],
    entries: &'a [Entry],
    pick: &'a [u32],
    touched: &'a [u32],
}

impl State<'_> {
    /// The bytes of a part of the disk.
    pub(super) fn bytes(&self, range: std::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = self.durable[range.start as usize..range.end as usize].to_vec();
        for sector in self.touched {
            let (at, entry) = (u64::from(*sector) * SECTOR, self.pick[*sector as usize]);
            if entry > 0 && range.contains(&at) {
                let entry = &self.entries[entry as usize - 1];
                let from = (at - entry.first * SECTOR) as usize;
                let to = (at - range.start) as usize;
                bytes[to..to + SECTOR as usize]
                    .copy_from_slice(&entry.bytes[from..from + SECTOR as usize]);
            }
        }
        bytes
    }

    /// Bytes of the disk.
    pub(super) fn len(&self) -> u64 {
        self.durable.len() as u64
    }
}

/// Walks a recording.
pub(super) struct Walk<'a> {
    entries: &'a [Entry],
    durable: Vec<u8>,
    part: Vec<u8>,
    /// Digest of each durable sector.
    sector: Vec<u128>,
    parts: [u128; PARTS],
    /// Which entry each durable sector is of, counted from 1.
    newest: Vec<u32>,
    pending: Vec<usize>,
    draw: Random,
    first: usize,
    seen: HashSet<[u128; PARTS]>,
    pick: Vec<u32>,
    touched: Vec<u32>,
    /// Digests of what each entry wrote.
    written: Vec<Vec<u128>>,
    /// States made, distinct or not.
    pub(super) made: usize,
}

fn digest(sector: u64, bytes: &[u8]) -> u128 {
    let mut hasher = Sha256::new();
    hasher.update(sector.to_le_bytes());
    hasher.update(bytes);
    u128::from_le_bytes(hasher.finalize()[..16].try_into().unwrap_or_default())
}

impl<'a> Walk<'a> {
    /// Numbers the states from `first`.
    pub(super) fn new(base: Vec<u8>, entries: &'a [Entry], seed: u64, first: usize) -> Self {
        let sectors = base.len() / SECTOR as usize;
        let mut part = vec![TABLES as u8; sectors];
        for (number, (label, _)) in (1..).zip(PARTITIONS) {
            let range = ranges()[label].clone();
            let range = (range.start / SECTOR) as usize..(range.end / SECTOR) as usize;
            part[range].fill(number);
        }
        let sector: Vec<u128> = (0..)
            .zip(base.chunks(SECTOR as usize))
            .map(|(number, bytes)| digest(number, bytes))
            .collect();
        let mut parts = [0; PARTS];
        for (part, digest) in part.iter().zip(&sector) {
            parts[usize::from(*part)] ^= digest;
        }
        let of = |entry: &Entry| {
            let sectors = (entry.first..).zip(entry.bytes.chunks(SECTOR as usize));
            sectors.map(|(number, bytes)| digest(number, bytes)).collect()
        };
        Walk {
            entries,
            durable: base,
            part,
            sector,
            parts,
            newest: vec![0; sectors],
            pending: Vec::new(),
            draw: Random::seeded(seed),
            first,
            seen: HashSet::new(),
            pick: vec![0; sectors],
            touched: Vec::new(),
            written: entries.iter().map(of).collect(),
            made: 0,
        }
    }

    /// Calls `judge` for each distinct state, until it says that it is enough.
    pub(super) fn states(
        &mut self,
        judge: &mut dyn FnMut(&State<'_>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        for point in 0..=self.entries.len() {
            if point > 0 {
                self.take(point - 1);
            }
            for keeps in self.variants() {
                if !self.state(point, &keeps, judge)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The request is made; nothing more of it is durable than it has to be.
    fn take(&mut self, number: usize) {
        let entry = &self.entries[number];
        if entry.flush {
            for earlier in std::mem::take(&mut self.pending) {
                self.settle(earlier);
            }
        }
        if entry.bytes.is_empty() {
            return;
        }
        if entry.forced {
            self.settle(number);
        } else {
            self.pending.push(number);
        }
    }

    fn settle(&mut self, number: usize) {
        let entry = &self.entries[number];
        let new = entry.bytes.chunks(SECTOR as usize).zip(&self.written[number]);
        for (sector, (bytes, digest)) in (entry.first as usize..).zip(new) {
            if self.newest[sector] > number as u32 {
                // A forced write came after it.
                continue;
            }
            self.newest[sector] = number as u32 + 1;
            self.durable[sector * SECTOR as usize..][..SECTOR as usize].copy_from_slice(bytes);
            self.parts[usize::from(self.part[sector])] ^= self.sector[sector] ^ digest;
            self.sector[sector] = *digest;
        }
    }

    /// What may have become of the pending writes at this point.
    fn variants(&mut self) -> Vec<Vec<(usize, Keep)>> {
        let count = self.pending.len();
        let of = |keep: &dyn Fn(usize) -> Keep| -> Vec<(usize, Keep)> {
            self.pending.iter().enumerate().map(|(nth, entry)| (*entry, keep(nth))).collect()
        };
        let Some(last) = self.pending.last() else { return vec![Vec::new()] };
        let is_table = |entry: &usize| {
            let part = self.part.get(self.entries[*entry].first as usize);
            part.is_some_and(|part| [TABLES, ENV].contains(&usize::from(*part)))
        };
        let table = is_table(last);
        let draws = if self.pending.iter().any(is_table) { TABLE_DRAWS } else { DRAWS };
        let last = self.entries[*last].sectors();
        let kept = |yes: bool| if yes { Keep::All } else { Keep::None };
        let mut all = vec![of(&|_| Keep::None)];
        if count <= EXHAUSTIVE {
            // The subsets without the last one are those of the point before.
            for bits in 0..1usize << (count - 1) {
                all.push(of(&|nth| kept(nth == count - 1 || bits & 1 << nth != 0)));
            }
        } else {
            all.push(of(&|_| Keep::All));
            all.push(of(&|nth| kept(nth == count - 1)));
            for lost in [0, count / 2, count - 2] {
                all.push(of(&|nth| kept(nth != lost)));
            }
            for _ in 0..SUBSETS {
                let bits: Vec<bool> = (0..count).map(|_| self.draw.below(2) == 0).collect();
                all.push(of(&|nth| kept(nth == count - 1 || bits[nth])));
            }
        }
        for first in (1..last).filter(|first| table || [1, last / 2, last - 1].contains(first)) {
            for others in [true, false] {
                let torn = |nth| if nth == count - 1 { Keep::First(first) } else { kept(others) };
                all.push(of(&torn));
            }
        }
        for _ in 0..draws {
            let mut drawn = Vec::new();
            let mut left = self.pending.clone();
            let share = [2, 8, 14][self.draw.below(3)];
            while !left.is_empty() {
                let entry = left.swap_remove(self.draw.below(left.len()));
                drawn.push((
                    entry,
                    Keep::Some(share, Random::seeded(self.draw.below(1 << 40) as u64)),
                ));
            }
            all.push(drawn);
        }
        all
    }

    fn state(
        &mut self,
        point: usize,
        keeps: &[(usize, Keep)],
        judge: &mut dyn FnMut(&State<'_>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        self.made += 1;
        for sector in self.touched.drain(..) {
            self.pick[sector as usize] = 0;
        }
        for (number, keep) in keeps {
            let entry = &self.entries[*number];
            let (mut keep, mut nth) = (keep.clone(), 0);
            for sector in entry.first..entry.first + entry.sectors() {
                let kept = match &mut keep {
                    Keep::All => true,
                    Keep::None => break,
                    Keep::First(count) => nth < *count,
                    Keep::Some(share, draw) => draw.below(16) < *share,
                };
                nth += 1;
                if kept && self.newest[sector as usize] <= *number as u32 {
                    if self.pick[sector as usize] == 0 {
                        self.touched.push(sector as u32);
                    }
                    self.pick[sector as usize] = *number as u32 + 1;
                }
            }
        }
        let mut parts = self.parts;
        for sector in &self.touched {
            let sector = *sector as usize;
            let number = self.pick[sector] as usize - 1;
            let new = self.written[number][sector - self.entries[number].first as usize];
            parts[usize::from(self.part[sector])] ^= self.sector[sector] ^ new;
        }
        if !self.seen.insert(parts) {
            return Ok(true);
        }
        let state = State {
            number: self.first + self.seen.len() - 1,
            point,
            kept: story(keeps),
            parts,
            durable: &self.durable,
            entries: self.entries,
            pick: &self.pick,
            touched: &self.touched,
        };
        judge(&state)
    }

    /// Distinct states so far.
    pub(super) fn distinct(&self) -> usize {
        self.seen.len()
    }
}

fn story(keeps: &[(usize, Keep)]) -> String {
    let of = |(number, keep): &(usize, Keep)| match keep {
        Keep::All => format!("{number} kept"),
        Keep::None => format!("{number} lost"),
        Keep::First(sectors) => format!("{number} torn after {sectors} sectors"),
        Keep::Some(share, _) => format!("{number} {share} sectors of 16"),
    };
    match keeps {
        [] => "everything was flushed".to_owned(),
        _ => keeps.iter().map(of).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(first: u64, sectors: usize, fill: u8) -> Entry {
        let bytes = vec![fill; sectors * SECTOR as usize];
        Entry { flush: false, forced: false, first, bytes }
    }

    fn flush() -> Entry {
        Entry { flush: true, forced: false, first: 0, bytes: Vec::new() }
    }

    fn base() -> Vec<u8> {
        let len = PARTITIONS.iter().map(|(_, mib)| mib).sum::<u64>() + 2;
        vec![0; (len << 20) as usize]
    }

    /// First bytes of sectors 0 to 3 in each state.
    fn seen(entries: &[Entry]) -> HashSet<[u8; 4]> {
        let mut found = HashSet::new();
        let mut walk = Walk::new(base(), entries, 1, 0);
        let mut judge = |state: &State<'_>| {
            let bytes = state.bytes(0..4 * SECTOR);
            found.insert([0, 1, 2, 3].map(|sector| bytes[sector * SECTOR as usize]));
            Ok(true)
        };
        walk.states(&mut judge).unwrap();
        assert_eq!(walk.distinct(), found.len(), "equal digests are equal states, and only they");
        found
    }

    #[test]
    fn what_was_flushed_stays_and_what_was_not_may_go_in_any_order() {
        let states =
            seen(&[write(0, 1, 1), write(1, 1, 2), flush(), write(0, 1, 3), write(2, 2, 4)]);
        let expected = [
            [0, 0, 0, 0],
            [1, 0, 0, 0],
            [0, 2, 0, 0],
            [1, 2, 0, 0],
            [3, 2, 0, 0],
            [1, 2, 4, 4],
            [3, 2, 4, 4],
            [1, 2, 4, 0],
            [3, 2, 4, 0],
        ];
        assert!(expected.iter().all(|state| states.contains(state)), "{states:?}");
        assert!(states.iter().all(|state| state[0] != 3 || state[1] == 2), "{states:?}");
        assert!(states.iter().all(|state| state[2] == 0 || state[0] > 0), "{states:?}");
    }

    #[test]
    fn of_two_writes_to_one_sector_either_may_be_the_one_that_is_left() {
        let states = seen(&[write(0, 1, 1), write(0, 1, 2)]);
        let all = [[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]];
        assert_eq!(states, HashSet::from(all));
        // Forced, it is durable without a flush, and what was written before it is not.
        let forced = Entry { forced: true, ..write(1, 1, 9) };
        let states = seen(&[write(0, 1, 1), forced]);
        assert!(states.contains(&[0, 9, 0, 0]) && states.contains(&[1, 9, 0, 0]), "{states:?}");
        assert!(states.contains(&[1, 0, 0, 0]), "before it was made: {states:?}");
    }
}
