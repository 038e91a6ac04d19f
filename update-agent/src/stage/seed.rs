//! Chunks that another device of this node already holds.

use formats::chunks::{Chunk, ChunkListError, Content, ListBytes, StoredList};
use formats::digest::Sha256;
use storage::block::BlockDevice;
use update_core::image::chunk_matches;

use super::span::SPAN;

/// A device of which it is known where its chunks are, for instance the booted slot.
///
/// Nothing about it is trusted: a chunk counts only if it has the wanted digest when it is read.
#[derive(Clone, Copy)]
pub struct Seed<'a> {
    /// Where they are.
    pub places: &'a Places,
    /// What was written.
    pub device: &'a dyn BlockDevice,
}

/// 4 MiB: at 64 KiB a chunk, 16 GiB of data. What a larger seed has beyond is fetched.
const PLACES_MAX: usize = 1 << 18;

/// Where the chunks of a device are: 16 bytes each, sorted by the beginning of their digest. A fifth of
/// the list that it was written from, which need not be kept for it.
pub struct Places(Vec<Place>);

/// Eight bytes of the digest. Two chunks that share them cost a fetch, as a seed that lies does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    prefix: u64,
    offset: u64,
}

impl Places {
    /// Those of a device that was written from this list; of equal chunks the first.
    pub fn of(list: &StoredList<impl ListBytes>) -> Result<Self, ChunkListError> {
        let mut places = Vec::with_capacity(PLACES_MAX.min(list.chunk_count() as usize));
        for chunk in list.chunks() {
            let Chunk { offset, content, .. } = chunk?;
            if let Content::Data(hash) = content {
                places.push(Place { prefix: prefix(&hash), offset });
            }
            if places.len() == PLACES_MAX {
                break;
            }
        }
        places.sort_unstable();
        places.dedup_by_key(|place| place.prefix);
        places.shrink_to_fit();
        Ok(Places(places))
    }

    /// Whether a chunk of that digest should be there.
    pub fn has(&self, hash: &Sha256) -> bool {
        self.offset(hash).is_some()
    }

    fn offset(&self, hash: &Sha256) -> Option<u64> {
        let wanted = prefix(hash);
        let at = self.0.binary_search_by_key(&wanted, |place| place.prefix).ok()?;
        self.0.get(at).map(|place| place.offset)
    }
}

/// The chunks of all seeds; the first one that has a chunk is the one it is taken from.
pub(super) struct SeedIndex<'a>(pub(super) &'a [Seed<'a>]);

impl<'a> SeedIndex<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|seed| seed.places.0.is_empty())
    }

    /// Where a chunk of that digest should be.
    pub(super) fn find(&self, hash: &Sha256) -> Option<Found<'a>> {
        let mut seeds = self.0.iter().enumerate();
        seeds.find_map(|(number, seed)| {
            let offset = seed.places.offset(hash)?;
            Some(Found { number, device: seed.device, offset })
        })
    }

    /// Of these chunks, those that a seed has, in runs.
    pub(super) fn runs<E>(
        &self,
        chunks: impl Iterator<Item = Result<Chunk, E>>,
    ) -> impl Iterator<Item = Result<Run<'a>, E>> {
        let found = |chunk: Chunk| match chunk.content {
            Content::Data(hash) => Some((chunk, self.find(&hash)?)),
            Content::Zero => None,
        };
        runs(chunks.filter_map(move |chunk| chunk.map(found).transpose()))
    }
}

/// Puts chunks together that are neighbours in the image and in a seed, at most [`SPAN`] bytes.
fn runs<'a, E>(
    found: impl Iterator<Item = Result<(Chunk, Found<'a>), E>>,
) -> impl Iterator<Item = Result<Run<'a>, E>> {
    let mut found = found.peekable();
    std::iter::from_fn(move || {
        let (first, at) = match found.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let (device, from, len) = (at.device, at.offset, first.len.into());
        let mut run = Run { device, from, len, chunks: vec![first] };
        let belongs = |next: &Chunk, there: &Found<'_>, len: u64| {
            there.number == at.number
                && there.offset == at.offset + len
                && next.offset == first.offset + len
                && len + u64::from(next.len) <= SPAN
        };
        while let Some(Ok((next, _))) = found
            .next_if(|next| next.as_ref().is_ok_and(|(next, there)| belongs(next, there, run.len)))
        {
            run.len += u64::from(next.len);
            run.chunks.push(next);
        }
        Some(Ok(run))
    })
}

/// Where a chunk should be.
pub(super) struct Found<'a> {
    /// The seed's place among the seeds.
    number: usize,
    device: &'a dyn BlockDevice,
    offset: u64,
}

/// Neighbouring chunks of an image that are neighbours in a seed.
pub(super) struct Run<'a> {
    device: &'a dyn BlockDevice,
    /// Where the first one is in the seed.
    from: u64,
    len: u64,
    chunks: Vec<Chunk>,
}

impl Run<'_> {
    /// Reads them through `buffer`, and hands on those that are what the image's list says, as many
    /// neighbours at once as there are; how many are not.
    pub(super) fn read<E>(
        &self,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(&[Chunk], &[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        let Ok(mut rest) = self.device.read_medium(buffer, self.from, len) else {
            return self.read_each(buffer, take);
        };
        let (mut chunks, mut wrong) = (self.chunks.as_slice(), 0);
        while !chunks.is_empty() {
            let (mut good, mut len) = (0, 0);
            for chunk in chunks {
                let end = len + chunk.len as usize;
                if !rest.get(len..end).is_some_and(|bytes| chunk_matches(chunk, bytes)) {
                    break;
                }
                (good, len) = (good + 1, end);
            }
            let (same, after) = chunks.split_at_checked(good).unwrap_or_default();
            let (bytes, left) = rest.split_at_checked(len).unwrap_or_default();
            if !same.is_empty() {
                take(same, bytes)?;
            }
            // The one that ended it, if any, is not what it should be.
            (chunks, rest) = match after.split_first() {
                Some((bad, after)) => {
                    wrong += 1;
                    (after, left.get(bad.len as usize..).unwrap_or_default())
                }
                None => (after, left),
            };
        }
        Ok(wrong)
    }

    /// Something in the run cannot be read: the other chunks are read alone.
    fn read_each<E>(
        &self,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(&[Chunk], &[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let (mut from, mut wrong) = (self.from, 0);
        for chunk in &self.chunks {
            match self.device.read_medium(buffer, from, chunk.len as usize) {
                Ok(bytes) if chunk_matches(chunk, bytes) => take(&[*chunk], bytes)?,
                _ => wrong += 1,
            }
            from += u64::from(chunk.len);
        }
        Ok(wrong)
    }
}

fn prefix(hash: &Sha256) -> u64 {
    let (bytes, _) = hash.0.split_first_chunk().expect("a digest has more than eight bytes");
    u64::from_be_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use storage::sim::Disk;

    use super::*;

    /// Chunks of these lengths, one after the other, with the bytes of `content` from `from` on.
    fn chunks(content: &[u8], from: usize, lens: &[u32]) -> Vec<Chunk> {
        let mut offset = 0;
        let one = |(index, len): (u32, &u32)| {
            let at = from + offset as usize;
            let hash = Sha256::of(&content[at..at + *len as usize]);
            let chunk = Chunk { index, offset, len: *len, content: Content::Data(hash) };
            offset += u64::from(*len);
            chunk
        };
        (0..).zip(lens).map(one).collect()
    }

    #[test]
    fn of_a_run_only_what_is_right_is_handed_on_and_neighbours_at_once() {
        let content: Vec<u8> = (0..250_u8).collect();
        let mut damaged = content.clone();
        damaged[130] ^= 1;
        let disk = Disk::with_content(damaged, 512);
        let all = chunks(&content, 20, &[50, 50, 50, 30]);
        let run = Run { device: &disk, from: 20, len: 180, chunks: all.clone() };
        let mut taken = Vec::new();
        let wrong = run.read::<()>(&mut Vec::new(), |chunks, bytes| {
            let from = 20 + usize::try_from(chunks[0].offset).unwrap();
            assert_eq!(bytes, &content[from..from + bytes.len()]);
            taken.push(chunks.iter().map(|chunk| chunk.index).collect::<Vec<_>>());
            Ok(())
        });
        assert_eq!((wrong, taken), (Ok(1), vec![vec![0, 1], vec![3]]));
        // The end of it cannot be read, and none of it could be used.
        let short = Disk::with_content(content[..150].to_vec(), 512);
        let past = Run { device: &short, from: 20, len: 180, chunks: all };
        let mut taken = 0;
        let wrong = past.read::<()>(&mut Vec::new(), |chunks, _| {
            taken += chunks.len();
            Ok(())
        });
        assert_eq!((wrong, taken), (Ok(2), 2));
        assert_eq!(run.read(&mut Vec::new(), |_, _| Err("full")), Err("full"));
    }

    #[test]
    fn neighbours_here_and_there_are_one_run() {
        let disk = Disk::new(512, 512);
        let kib = 1 << 10;
        let lens = [50, 50, 50, 30, 512 * kib, 512 * kib, 1];
        let chunks = chunks(&vec![7; 2 << 20], 0, &lens);
        // Where each is in which seed, in order; the first pair is side by side in both.
        let places = [(0, 0), (0, 50), (0, 200), (1, 250), (1, 280), (1, 280 + 512 * 1024), (1, 9)];
        let found = chunks.iter().zip(places).map(|(chunk, (number, offset))| {
            (*chunk, Found { number, device: &disk as &dyn BlockDevice, offset })
        });
        let indexes = |run: Run<'_>| -> Vec<u32> {
            assert_eq!(run.len, run.chunks.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>());
            run.chunks.iter().map(|chunk| chunk.index).collect()
        };
        fn all<'a>(
            found: impl Iterator<Item = (Chunk, Found<'a>)>,
        ) -> impl Iterator<Item = Run<'a>> {
            runs::<()>(found.map(Ok)).map(Result::unwrap)
        }
        let joined: Vec<Vec<u32>> = all(found.clone()).map(indexes).collect();
        assert_eq!(joined, [vec![0, 1], vec![2], vec![3, 4], vec![5], vec![6]]);
        // A chunk that the slot has already is between the two.
        let gap = found.enumerate().filter(|(at, _)| *at != 1).map(|(_, it)| it);
        assert_eq!(all(gap).map(indexes).next(), Some(vec![0]));
    }
}
