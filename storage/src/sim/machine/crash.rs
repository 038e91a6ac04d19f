//! Every state that a power cut may leave of what was recorded.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::media::{Media, Operation, SECTOR};
use crate::sim::next_random;

/// What a machine was asked, from the media it was switched on with.
#[derive(Debug, Clone)]
pub struct Recording {
    base: Media,
    operations: Arc<[Operation]>,
}

/// What became of the write during which the power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// All of it is there.
    Whole,
    /// Its first half, in whole sectors.
    Half,
    /// Its first sector.
    FirstSector,
    /// Its first half, and then one sector of garbage.
    Garbage,
}

impl Tear {
    /// All of them.
    pub const ALL: [Tear; 4] = [Tear::Whole, Tear::Half, Tear::FirstSector, Tear::Garbage];
}

/// What became of what was asked before and not flushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// These operations, by their numbers, and no other.
    Some(BTreeSet<usize>),
    /// Any of their sectors, by a seed: lost, torn and reordered.
    Sectors(u64),
}

/// One power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// The power fails after so many operations were asked for, the last of them under way.
    pub cut: usize,
    /// What of the others that were not flushed reached the medium.
    pub kept: Kept,
    /// What became of the last one, when it is a write that was not flushed and is kept.
    pub tear: Tear,
}

/// 10: up to so many operations that were not flushed, every subset is a crash.
pub(super) const EXHAUSTIVE: usize = 10;

impl Recording {
    pub(super) fn new(base: Media, operations: Vec<Operation>) -> Self {
        Recording { base, operations: operations.into() }
    }

    /// The media before.
    pub fn base(&self) -> &Media {
        &self.base
    }

    /// What was asked.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Which of the first `cut` operations were not made durable by a later one of them.
    pub fn pending(&self, cut: usize) -> Vec<usize> {
        let asked = &self.operations[..cut];
        let mut flushed = BTreeSet::new();
        let mut pending = Vec::new();
        for (nth, operation) in asked.iter().enumerate().rev() {
            match operation {
                Operation::Sync { object } => drop(flushed.insert(*object)),
                other if !flushed.contains(&other.medium()) => pending.push(nth),
                _ => {}
            }
        }
        pending.reverse();
        pending
    }

    /// Calls `take` with every crash after the operations in `cuts` and the media it leaves. Subsets
    /// of more than ten operations are sampled by `seed`: none, all, all but one, one
    /// alone, and `samples` others. Breaks when `take` says so.
    pub fn crashes(
        &self,
        cuts: std::ops::Range<usize>,
        samples: usize,
        seed: u64,
        take: &mut dyn FnMut(&Crash, Media),
    ) {
        // What is durable after the operations up to the present cut.
        let mut durable = self.base.clone();
        let mut waiting: Vec<usize> = Vec::new();
        for cut in 0..cuts.end.min(self.operations.len() + 1) {
            if let Some(last) = cut.checked_sub(1) {
                match &self.operations[last] {
                    Operation::Sync { object } => waiting.retain(|nth| {
                        let own = self.operations[*nth].medium() == *object;
                        if own {
                            durable.apply(&self.operations[*nth]);
                        }
                        !own
                    }),
                    _ => waiting.push(last),
                }
            }
            if cut >= cuts.start {
                self.crashes_at(cut, &durable, &waiting, samples, seed, take);
            }
        }
    }

    fn crashes_at(
        &self,
        cut: usize,
        durable: &Media,
        waiting: &[usize],
        samples: usize,
        seed: u64,
        take: &mut dyn FnMut(&Crash, Media),
    ) {
        let under_way = waiting.last().copied().filter(|last| last + 1 == cut);
        let earlier = &waiting[..waiting.len() - usize::from(under_way.is_some())];
        // Without the last one it is a crash of the cut before, unless that was only sampled, or the
        // run had ended and said so.
        let ended = cut == self.operations.len();
        let skip_lost = under_way.is_some() && waiting.len() <= EXHAUSTIVE && cut > 1 && !ended;
        for subset in subsets(earlier, samples, seed ^ cut as u64) {
            let mut media = durable.clone();
            subset.iter().for_each(|nth| media.apply(&self.operations[*nth]));
            let kept =
                |last: Option<usize>| Kept::Some(subset.iter().copied().chain(last).collect());
            if let Some(last) = under_way {
                for tear in tears(&self.operations[last]) {
                    let mut media = media.clone();
                    self.apply_torn(last, *tear, &mut media);
                    take(&Crash { cut, kept: kept(Some(last)), tear: *tear }, media);
                }
            }
            if !skip_lost {
                take(&Crash { cut, kept: kept(None), tear: Tear::Whole }, media);
            }
        }
        if waiting.len() > 1 {
            for nth in 0..samples.min(4) {
                let mut random = seed ^ (cut as u64) << 20 ^ (nth as u64) << 50;
                let seed = next_random(&mut random);
                let crash = Crash { cut, kept: Kept::Sectors(seed), tear: Tear::Whole };
                let mut media = durable.clone();
                self.apply_sectors(waiting, seed, &mut media);
                take(&crash, media);
            }
        }
    }

    /// The media that one crash leaves.
    pub fn after(&self, crash: &Crash) -> Media {
        let waiting = self.pending(crash.cut);
        let mut media = self.base.clone();
        for nth in (0..crash.cut).filter(|nth| !waiting.contains(nth)) {
            media.apply(&self.operations[nth]);
        }
        match &crash.kept {
            Kept::Sectors(seed) => self.apply_sectors(&waiting, *seed, &mut media),
            Kept::Some(kept) => {
                for nth in kept {
                    if nth + 1 == crash.cut {
                        self.apply_torn(*nth, crash.tear, &mut media);
                    } else {
                        media.apply(&self.operations[*nth]);
                    }
                }
            }
        }
        media
    }

    fn apply_torn(&self, nth: usize, tear: Tear, media: &mut Media) {
        let operation = &self.operations[nth];
        let Operation::Write { object, offset, bytes } = operation else {
            return media.apply(operation);
        };
        let sectors = bytes.len().div_ceil(SECTOR);
        let half = sectors / 2 * SECTOR;
        let mut put = |from: usize, bytes: &[u8]| {
            if !bytes.is_empty() {
                let offset = offset + from as u64;
                media.apply(&Operation::Write { object: *object, offset, bytes: bytes.into() });
            }
        };
        match tear {
            Tear::Whole => put(0, bytes),
            Tear::Half => put(0, &bytes[..half]),
            Tear::FirstSector => put(0, &bytes[..SECTOR.min(bytes.len())]),
            Tear::Garbage => {
                put(0, &bytes[..half]);
                let end = bytes.len().min(half + SECTOR);
                let mut random = nth as u64;
                let garbage: Vec<u8> =
                    (half..end).map(|_| next_random(&mut random).to_le_bytes()[0]).collect();
                put(half, &garbage);
            }
        }
    }

    fn apply_sectors(&self, waiting: &[usize], seed: u64, media: &mut Media) {
        let mut random = seed;
        for nth in waiting {
            let Operation::Write { object, offset, bytes } = &self.operations[*nth] else {
                if next_random(&mut random) & 1 == 1 {
                    media.apply(&self.operations[*nth]);
                }
                continue;
            };
            let mut at = 0;
            while at < bytes.len() {
                let place = usize::try_from(*offset).expect("in memory") + at;
                let piece = (SECTOR - place % SECTOR).min(bytes.len() - at);
                if next_random(&mut random) & 1 == 1 {
                    let (object, offset) = (*object, place as u64);
                    let bytes = bytes[at..at + piece].into();
                    media.apply(&Operation::Write { object, offset, bytes });
                }
                at += piece;
            }
        }
    }

    /// One operation in words.
    pub fn words(&self, nth: usize) -> String {
        let name = |id: &usize| {
            let mut media = self.base.clone();
            self.operations[..=nth].iter().for_each(|operation| media.apply(operation));
            media.name_of(*id)
        };
        match &self.operations[nth] {
            Operation::Write { object, offset, bytes } => {
                format!("write {} bytes at {offset} of {}", bytes.len(), name(object))
            }
            Operation::Sync { object } => format!("flush {}", name(object)),
            Operation::Enter { folder, name: new, .. } => {
                format!("new name {new} in {}", name(folder))
            }
            Operation::Rename { folder, from, into, to, .. } if folder == into => {
                format!("rename {from} to {to} in {}", name(folder))
            }
            Operation::Rename { folder, from, into, to, .. } => {
                format!("move {from} from {} to {to} in {}", name(folder), name(into))
            }
            Operation::Touch { object } => format!("make {} young", name(object)),
            Operation::Unlink { folder, name: old } => {
                format!("remove {old} from {}", name(folder))
            }
        }
    }
}

/// In which ways a write can be under way.
fn tears(operation: &Operation) -> &'static [Tear] {
    match operation {
        Operation::Write { bytes, .. } if bytes.len() > 2 * SECTOR => &Tear::ALL,
        Operation::Write { bytes, .. } if bytes.len() > SECTOR => {
            &[Tear::Whole, Tear::FirstSector, Tear::Garbage]
        }
        Operation::Write { .. } => &[Tear::Whole, Tear::Garbage],
        _ => &[Tear::Whole],
    }
}

fn subsets(of: &[usize], samples: usize, seed: u64) -> Vec<Vec<usize>> {
    let choose = |bits: u64| -> Vec<usize> {
        let nth = of.iter().enumerate();
        nth.filter(|(nth, _)| bits >> (nth % 64) & 1 == 1).map(|(_, op)| *op).collect()
    };
    if of.len() < EXHAUSTIVE {
        return (0..1_u64 << of.len()).map(choose).collect();
    }
    let mut all: BTreeSet<Vec<usize>> = [Vec::new(), of.to_vec()].into();
    for left in of {
        all.insert(of.iter().copied().filter(|op| op != left).collect());
        all.insert(vec![*left]);
    }
    let mut random = seed;
    for _ in 0..samples {
        let bits: Vec<u64> = of.chunks(64).map(|_| next_random(&mut random)).collect();
        let keep = |nth: usize| bits[nth / 64] >> (nth % 64) & 1 == 1;
        let some = of.iter().enumerate().filter(|(nth, _)| keep(*nth)).map(|(_, op)| *op);
        all.insert(some.collect());
    }
    all.into_iter().collect()
}
