//! Deltas from an exact base (`formats::chunks::delta`).
//!
//! ```text
//!  base blob ──► chunks ──► samples ─┐                      samples: hashes of 32 bytes, one of
//!                  │                 ▼                      some hundred positions, chosen by
//!  changed chunks ─┼─► 4 MiB ─► the chunks of the base      content
//!                  │            with most samples in common
//!                  ▼                 │
//!             up to 6 MiB ◄──────────┘──► zstd with that as prefix ──► frame
//! ```
//!
//! So similar content is found wherever it lies, and a node needs memory for 10 MiB. Measured
//! against `zstd -3 --patch-from` of whole images, which needs all of the base in memory: 0.6 to
//! 0.8 of its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use formats::chunks::delta::{CONTENT_LIMIT, DeltaFrameEntry, PREFIX_LIMIT, runs};
use formats::chunks::{Chunk, ChunkList, Content, Encoding};
use formats::digest::Sha256;
use update_core::image::chunk_matches;
use zstd::stream::raw::{CParameter, Encoder, Operation as _, OutBuffer};

use super::{ImageError, Options};

/// 4 MiB: no more than the content of a frame.
const WINDOW_LOG: u32 = 22;
/// 2^21 entries: all of prefix and content stay known.
const TABLE_LOG: u32 = 21;
/// One of 128 positions is a sample, in images of up to 1 GiB; of larger ones fewer.
const SAMPLE_BITS: u32 = 7;

/// An image whose chunks can be looked up: what deltas are from.
pub struct Base {
    list: ChunkList,
    /// Its data chunks, one after the other.
    raw: File,
    /// Where each chunk is in it.
    places: Vec<u64>,
    samples: Samples,
}

impl Base {
    /// Reads the first encoding's blob, which has a frame for each chunk, and keeps its data in an
    /// unnamed temporary file.
    pub fn read(
        mut blob: impl Read,
        list: ChunkList,
        progress: &dyn Fn(u64),
    ) -> Result<Self, ImageError> {
        let raw = tempfile::tempfile().map_err(ImageError::temporary)?;
        let mut samples = Samples::new(list.raw_size());
        let mut places = Vec::new();
        let mut at = 0u64;
        let encoding: Encoding = *list.encodings().first().ok_or(ImageError::Base)?;
        let mut chunks = list.chunks();
        for frame in list.frames(&encoding) {
            let mut packed = vec![0; frame.len as usize];
            blob.read_exact(&mut packed).map_err(|source| ImageError::ReadBase { source })?;
            if frame.chunks != 1 || Sha256::of(&packed) != frame.sha256 {
                return Err(ImageError::Base);
            }
            let chunk = chunks.next().ok_or(ImageError::Base)?;
            places.push(at);
            if chunk.content != Content::Zero {
                let bytes = zstd::bulk::decompress(&packed, chunk.len as usize)
                    .map_err(|source| ImageError::ReadBase { source })?;
                if !chunk_matches(&chunk, &bytes) {
                    return Err(ImageError::Base);
                }
                samples.add(chunk.index, &bytes);
                raw.write_all_at(&bytes, at).map_err(ImageError::temporary)?;
                at += u64::from(chunk.len);
            }
            progress(u64::from(frame.len));
        }
        drop(chunks);
        samples.sort();
        Ok(Base { list, raw, places, samples })
    }

    /// Its chunk list.
    pub fn list(&self) -> &ChunkList {
        &self.list
    }

    fn chunk(&self, index: u32) -> Result<Vec<u8>, ImageError> {
        let entry = self.list.entry(index).zip(self.places.get(index as usize));
        let ((len, _), at) = entry.ok_or(ImageError::Base)?;
        let mut bytes = vec![0; len as usize];
        self.raw.read_exact_at(&mut bytes, *at).map_err(ImageError::temporary)?;
        Ok(bytes)
    }

    /// The chunks most like a content, ascending: at most [`PREFIX_LIMIT`] bytes.
    fn like(&self, content: &[u8]) -> Vec<u32> {
        let mut votes: BTreeMap<u32, u32> = BTreeMap::new();
        self.samples.of(content, |hash| {
            if let Some(chunk) = self.samples.find(hash) {
                *votes.entry(chunk).or_default() += 1;
            }
        });
        // The most samples in common for their length come first.
        let mut found: Vec<(u64, u32, u32)> = votes
            .into_iter()
            .filter_map(|(chunk, votes)| {
                let (len, _) = self.list.entry(chunk)?;
                Some((u64::from(votes) * 1_000_000 / u64::from(len.max(1)), chunk, len))
            })
            .collect();
        found.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let (mut chosen, mut used) = (Vec::new(), 0u64);
        for (_, chunk, len) in found {
            if used + u64::from(len) <= PREFIX_LIMIT {
                used += u64::from(len);
                chosen.push(chunk);
            }
        }
        chosen.sort_unstable();
        chosen
    }
}

/// Samples of an image: which chunk has 32 bytes of a certain hash.
struct Samples {
    bits: u32,
    gear: Box<[u64; 256]>,
    /// Hash and chunk, by hash; of one hash the first chunk.
    entries: Vec<(u32, u32)>,
}

impl Samples {
    fn new(size: u64) -> Self {
        let doublings = (size >> 30).checked_ilog2().unwrap_or(0);
        let mut gear = Box::new([0; 256]);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for value in gear.iter_mut() {
            // SplitMix64: any fixed numbers do.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *value = z ^ (z >> 31);
        }
        Samples { bits: SAMPLE_BITS + doublings, gear, entries: Vec::new() }
    }

    /// The hashes of the sampled positions: those whose upper bits are zero.
    fn of(&self, bytes: &[u8], mut take: impl FnMut(u32)) {
        let mut hash = 0u64;
        for (at, byte) in bytes.iter().enumerate() {
            // The upper half forgets a byte after 32 more.
            hash =
                (hash << 1).wrapping_add(self.gear.get(usize::from(*byte)).copied().unwrap_or(0));
            if hash >> (64 - self.bits) == 0 && at >= 32 {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the bits below the sampled ones"
                )]
                take((hash >> (32 - self.bits)) as u32);
            }
        }
    }

    fn add(&mut self, chunk: u32, bytes: &[u8]) {
        let mut found = Vec::new();
        self.of(bytes, |hash| found.push((hash, chunk)));
        self.entries.extend(found);
    }

    fn sort(&mut self) {
        self.entries.sort_unstable();
        self.entries.dedup_by_key(|entry| entry.0);
        self.entries.shrink_to_fit();
    }

    fn find(&self, hash: u32) -> Option<u32> {
        let at = self.entries.binary_search_by_key(&hash, |entry| entry.0).ok()?;
        self.entries.get(at).map(|entry| entry.1)
    }
}

/// What a node that has the base lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Bytes of the image.
    pub raw: u64,
    /// Bytes of the frames of these chunks in the first encoding.
    pub packed: u64,
}

/// How much of an image its base does not have.
pub fn changed(base: &Base, list: &ChunkList) -> Changed {
    let lacking: BTreeSet<u32> =
        groups(base, list, u64::MAX).into_iter().flatten().map(|chunk| chunk.index).collect();
    let mut changed = Changed::default();
    if let Some(encoding) = list.encodings().first() {
        for frame in list.frames(encoding).filter(|frame| lacking.contains(&frame.first_chunk)) {
            changed.packed += u64::from(frame.len);
            changed.raw += list.entry(frame.first_chunk).map_or(0, |(len, _)| u64::from(len));
        }
    }
    changed
}

/// Writes the frames of a delta from `base` to the image that `list` describes, whose bytes are in
/// `image`. What of it lies behind the end of `image` is left out, and so fetched as it is.
///
/// `progress` is told the raw bytes of each frame. Threads change nothing in the bytes.
pub fn build(
    base: &Base,
    list: &ChunkList,
    image: &File,
    sink: &mut dyn Write,
    options: &Options,
    progress: &dyn Fn(u64),
) -> Result<Vec<DeltaFrameEntry>, ImageError> {
    let len = image.metadata().map_err(|source| ImageError::Read { offset: 0, source })?.len();
    let groups = groups(base, list, len);
    let mut frames = Vec::new();
    // A few frames for each thread at a time, so that few are held.
    for batch in groups.chunks(options.threads.get() * 4) {
        let next = AtomicUsize::new(0);
        let done: Mutex<BTreeMap<usize, Result<Made, ImageError>>> = Mutex::default();
        thread::scope(|scope| {
            let work = || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(group) = batch.get(number) else { return };
                    let made = make(base, image, group, options.level);
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(number, made);
                }
            };
            for _ in 1..options.threads.get().min(batch.len()) {
                // With fewer of them it takes longer; this thread works in any case.
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (made, group) in done.into_values().zip(batch) {
            let Made { bytes, prefix } = made?;
            sink.write_all(&bytes).map_err(ImageError::Write)?;
            frames.push(DeltaFrameEntry {
                len: u32::try_from(bytes.len()).expect("a frame is about its content's length"),
                sha256: Sha256::of(&bytes),
                content: runs(group.iter().map(|chunk| chunk.index)),
                prefix: runs(prefix),
            });
            progress(group.iter().map(|chunk| u64::from(chunk.len)).sum());
        }
    }
    sink.flush().map_err(ImageError::Write)?;
    Ok(frames)
}

/// The chunks the base does not have, as many together as a frame holds.
fn groups(base: &Base, list: &ChunkList, len: u64) -> Vec<Vec<Chunk>> {
    let known: BTreeSet<Sha256> = base
        .list
        .chunks()
        .filter_map(|chunk| match chunk.content {
            Content::Data(hash) => Some(hash),
            Content::Zero => None,
        })
        .collect();
    let (mut groups, mut size) = (Vec::<Vec<Chunk>>::new(), u64::MAX);
    for chunk in list.chunks() {
        let Content::Data(hash) = chunk.content else { continue };
        if chunk.offset + u64::from(chunk.len) > len || known.contains(&hash) {
            continue;
        }
        if size.saturating_add(chunk.len.into()) > CONTENT_LIMIT {
            groups.push(Vec::new());
            size = 0;
        }
        size += u64::from(chunk.len);
        if let Some(group) = groups.last_mut() {
            group.push(chunk);
        }
    }
    groups
}

struct Made {
    bytes: Vec<u8>,
    prefix: Vec<u32>,
}

fn make(base: &Base, image: &File, group: &[Chunk], level: i32) -> Result<Made, ImageError> {
    let mut content = Vec::new();
    for chunk in group {
        let mut bytes = vec![0; chunk.len as usize];
        image
            .read_exact_at(&mut bytes, chunk.offset)
            .map_err(|source| ImageError::Read { offset: chunk.offset, source })?;
        if !chunk_matches(chunk, &bytes) {
            return Err(ImageError::Altered { offset: chunk.offset });
        }
        content.extend(bytes);
    }
    let prefix = base.like(&content);
    let mut context = Vec::new();
    for chunk in &prefix {
        context.extend(base.chunk(*chunk)?);
    }
    let first = group.first().map_or(0, |chunk| chunk.index as usize);
    let bytes = compress(&context, &content, level)
        .map_err(|source| ImageError::Compress { chunk: first, source })?;
    Ok(Made { bytes, prefix })
}

fn compress(prefix: &[u8], content: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::with_ref_prefix(level, prefix)?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.set_parameter(CParameter::LdmMinMatch(32))?;
    encoder.set_parameter(CParameter::LdmHashRateLog(4))?;
    encoder.set_parameter(CParameter::LdmHashLog(TABLE_LOG - 1))?;
    if level <= 3 {
        encoder.set_parameter(CParameter::HashLog(TABLE_LOG))?;
        encoder.set_parameter(CParameter::ChainLog(TABLE_LOG))?;
    }
    encoder.set_pledged_src_size(Some(content.len() as u64))?;
    let mut out = vec![0; zstd::zstd_safe::compress_bound(content.len()) + 1024];
    let (mut left, mut at) = (content, 0);
    while !left.is_empty() {
        let done = encoder.run_on_buffers(left, out.get_mut(at..).unwrap_or_default())?;
        left = left.get(done.bytes_read..).unwrap_or_default();
        at += done.bytes_written;
    }
    loop {
        let mut room = OutBuffer::around(out.get_mut(at..).unwrap_or_default());
        let more = encoder.finish(&mut room, true)?;
        at += room.pos();
        if more == 0 {
            out.truncate(at);
            return Ok(out);
        }
        out.resize(out.len() + more, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Sinks, build as build_image};
    use formats::chunks::delta;
    use std::num::NonZeroUsize;

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            out.extend_from_slice(&(seed >> 8).to_le_bytes()[..7]);
        }
        out.truncate(len);
        out
    }

    fn built(image: &[u8]) -> (ChunkList, Vec<u8>) {
        let (mut fine, mut solid) = (Vec::new(), Vec::new());
        let sinks = Sinks { fine: &mut fine, solid: &mut solid };
        let mut source = image;
        let written =
            build_image(&mut source, image.len() as u64, sinks, &Options::default(), None, &|_| {});
        (written.unwrap().finish(Sha256::of(&fine), None).unwrap().chunks, fine)
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn every_frame_gives_its_chunks_back_and_threads_change_nothing() {
        let old = [noise(9 << 20, 1), vec![0; 200_000], noise(2 << 20, 2)].concat();
        let mut new = old.clone();
        for at in (0..new.len()).step_by(100_000) {
            new[at] ^= 0x55;
        }
        // Moved far away, and something new.
        new.extend_from_slice(&noise(9 << 20, 1)[3 << 20..][..1 << 20]);
        new.extend_from_slice(&noise(50_000, 3));
        let (base_list, base_blob) = built(&old);
        let (list, _) = built(&new);
        let base = Base::read(base_blob.as_slice(), base_list.clone(), &|_| {}).unwrap();
        let mut results = Vec::new();
        for threads in [1, 3] {
            let threads = NonZeroUsize::new(threads).unwrap();
            let options = Options { threads, ..Options::default() };
            let mut blob = Vec::new();
            let frames = build(&base, &list, &file(&new), &mut blob, &options, &|_| {}).unwrap();
            results.push((frames, blob));
        }
        assert!(results[0] == results[1]);
        let (frames, blob) = results.swap_remove(0);
        assert!(blob.len() < 90_000, "{} bytes of delta", blob.len());
        let delta = delta::build(&base_list, &list, Sha256::of(&blob), &frames).unwrap();
        let chunks: Vec<Chunk> = list.chunks().collect();
        let old_chunks: Vec<Chunk> = base_list.chunks().collect();
        for frame in delta.frames() {
            let part = |image: &[u8], chunks: &[Chunk], runs: &[delta::Run]| -> Vec<u8> {
                let chunk = |index: u32| {
                    let chunk = &chunks[index as usize];
                    image[chunk.offset as usize..][..chunk.len as usize].to_vec()
                };
                runs.iter().flat_map(|run| run.chunks()).flat_map(chunk).collect()
            };
            let prefix = part(&old, &old_chunks, &frame.prefix);
            let content = part(&new, &chunks, &frame.content);
            let packed = &blob[frame.offset as usize..][..frame.len as usize];
            let mut decoder =
                zstd::stream::read::Decoder::with_ref_prefix(packed, &prefix).unwrap();
            // What nodes give.
            decoder.window_log_max(23).unwrap();
            let mut raw = Vec::new();
            decoder.read_to_end(&mut raw).unwrap();
            assert!(raw == content, "frame at {}", frame.offset);
        }
        let held: usize =
            delta.frames().flat_map(|f| f.content).map(|run| run.count as usize).sum();
        assert!(held > 100 && held < chunks.len());
    }

    #[test]
    fn an_image_that_changes_meanwhile_is_noticed() {
        let (old, mut new) = (noise(100_000, 1), noise(300_000, 2));
        let (base_list, blob) = built(&old);
        let (list, _) = built(&new);
        let base = Base::read(blob.as_slice(), base_list, &|_| {}).unwrap();
        new[150_000] ^= 1;
        let options = Options::default();
        let made = build(&base, &list, &file(&new), &mut io::sink(), &options, &|_| {});
        assert!(matches!(made, Err(ImageError::Altered { .. })), "{made:?}");
    }

    #[test]
    fn a_base_that_is_not_what_its_list_says_is_refused() {
        let (list, mut blob) = built(&noise(300_000, 1));
        let read = |blob: &[u8]| Base::read(blob, list.clone(), &|_| {}).map(drop);
        assert!(read(&blob).is_ok());
        assert!(matches!(read(&blob[..1000]), Err(ImageError::ReadBase { .. })));
        blob[5000] ^= 1;
        assert!(matches!(read(&blob), Err(ImageError::Base)));
    }
}
