//! Chunks that another device of this node already holds.

use formats::chunks::{ChunkList, Content};
use formats::digest::Sha256;
use storage::block::BlockDevice;

/// A device that was once written from a chunk list, for instance the booted slot.
///
/// Nothing about it is trusted: a chunk counts only if it has the wanted digest when it is read.
#[derive(Clone, Copy)]
pub struct Seed<'a> {
    /// What it was written from.
    pub list: &'a ChunkList,
    /// What was written.
    pub device: &'a dyn BlockDevice,
}

/// 4 MiB of index: at 64 KiB a chunk, 16 GiB of data. What a larger seed has beyond is fetched.
const ENTRIES_MAX: usize = 1 << 18;

/// Where the chunks of all seeds are: 16 bytes each, sorted by the beginning of their digest.
pub(super) struct SeedIndex<'a> {
    seeds: &'a [Seed<'a>],
    entries: Vec<Entry>,
}

/// Eight bytes of the digest. Two chunks that share them cost a fetch, as a seed that lies does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    prefix: u64,
    /// The seed's index in the upper 8 bits, the offset in the lower 56.
    place: u64,
}

const OFFSET_BITS: u32 = 56;

impl<'a> SeedIndex<'a> {
    /// Indexes the seeds; the first one that has a chunk is the one it is taken from.
    pub(super) fn new(seeds: &'a [Seed<'a>]) -> Self {
        let mut entries = Vec::new();
        for (number, seed) in (0_u64..256).zip(seeds) {
            for chunk in seed.list.chunks() {
                if entries.len() == ENTRIES_MAX {
                    break;
                }
                if let Content::Data(hash) = chunk.content
                    && chunk.offset >> OFFSET_BITS == 0
                {
                    let place = number << OFFSET_BITS | chunk.offset;
                    entries.push(Entry { prefix: prefix(&hash), place });
                }
            }
        }
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.prefix);
        entries.shrink_to_fit();
        SeedIndex { seeds, entries }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The device and the offset where a chunk of that digest should be.
    pub(super) fn find(&self, hash: &Sha256) -> Option<(&'a dyn BlockDevice, u64)> {
        let wanted = prefix(hash);
        let at = self.entries.binary_search_by_key(&wanted, |entry| entry.prefix).ok()?;
        let place = self.entries.get(at)?.place;
        let seed = self.seeds.get(usize::try_from(place >> OFFSET_BITS).ok()?)?;
        Some((seed.device, place & ((1 << OFFSET_BITS) - 1)))
    }
}

fn prefix(hash: &Sha256) -> u64 {
    let (bytes, _) = hash.0.split_first_chunk().expect("a digest has more than eight bytes");
    u64::from_be_bytes(*bytes)
}
