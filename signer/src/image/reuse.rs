//! Frames that a published image has already: they are copied, not compressed again.
//!
//! The bytes of a frame follow from its chunks and from the encoder alone. Frames of an image that another
//! encoder made ([`Options::describe`](super::Options::describe) names its version) are not taken, so
//! those that are taken are what compressing would give again: the same bytes, whatever a repository holds.

use std::fmt;
use std::io;
use std::ops::Range;

use formats::chunks::{ChunkList, Content, DATA_CHUNK_LIMIT};
use formats::digest::{Algorithm, Hasher, Sha256};

use super::frame::{Frame, sha256};

/// 2 MiB: more than a frame of the longest chunk ever has, or a part. Bounds what a list makes us hold.
const PART_MAX: u32 = 2 * DATA_CHUNK_LIMIT;

/// A blob that is read at any place.
pub trait ReadAt: Send + Sync {
    /// Fills all of `buffer` with the bytes from `offset` on, or fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// The frames of an image that was made by the same encoder.
pub struct Known {
    /// By their content, sorted, each once.
    frames: Vec<(Sha256, Range<u32>)>,
    parts: Vec<Part>,
    blobs: Vec<Box<dyn ReadAt>>,
}

struct Part {
    blob: u8,
    /// Chunks in it.
    chunks: u32,
    offset: u64,
    len: u32,
    sha256: Sha256,
}

/// What a frame holds, as a name: a hash over the lengths and digests of its chunks.
pub(super) struct Name(Hasher);

impl Default for Name {
    fn default() -> Self {
        Name(Algorithm::Sha256.hasher())
    }
}

impl Name {
    pub(super) fn chunk(&mut self, len: u64, content: &Content) {
        self.0.update(&len.to_le_bytes());
        match content {
            Content::Zero => self.0.update(&[0; 32]),
            Content::Data(hash) => self.0.update(&hash.0),
        }
    }

    pub(super) fn finish(self) -> Sha256 {
        sha256(self.0)
    }

    fn of(len: u64, content: &Content) -> Sha256 {
        let mut name = Name::default();
        name.chunk(len, content);
        name.finish()
    }
}

impl Known {
    /// The frames of a list, and the blobs of its encodings. Nothing about a blob is trusted: what is
    /// read of it must have the digest that the list says.
    pub fn new(list: &ChunkList, blobs: Vec<Box<dyn ReadAt>>) -> Self {
        let mut known = Known { frames: Vec::new(), parts: Vec::new(), blobs };
        for (number, encoding) in (0u8..).zip(list.encodings()).take(known.blobs.len()) {
            let mut parts = list.frames(encoding).peekable();
            let mut chunks = list.chunks();
            while let Some(first) = parts.next() {
                let start = known.parts.len();
                let (mut name, mut longest) = (Name::default(), 0);
                let mut next = Some(first);
                while let Some(frame) = next {
                    for chunk in chunks.by_ref().take(frame.chunks as usize) {
                        name.chunk(chunk.len.into(), &chunk.content);
                    }
                    let (chunks, offset, len) = (frame.chunks, frame.offset, frame.len);
                    longest = longest.max(len);
                    let (blob, sha256) = (number, frame.sha256);
                    known.parts.push(Part { blob, chunks, offset, len, sha256 });
                    next = parts.next_if(|next| next.continues);
                }
                let range = u32::try_from(start).ok().zip(u32::try_from(known.parts.len()).ok());
                match range {
                    Some((start, end)) if longest <= PART_MAX => {
                        known.frames.push((name.finish(), start..end));
                    }
                    _ => known.parts.truncate(start),
                }
            }
        }
        known.frames.sort_unstable_by_key(|(name, parts)| (*name, parts.start));
        known.frames.dedup_by_key(|(name, _)| *name);
        known
    }

    /// The frame of one chunk.
    pub(super) fn chunk(&self, len: u64, content: &Content) -> Option<Frame> {
        self.frame(&Name::of(len, content), &[1])?.pop()
    }

    /// The frame of that name in parts of so many chunks; `None` when there is none, or when it cannot be
    /// read as it was listed.
    pub(super) fn frame(&self, name: &Sha256, chunks: &[u32]) -> Option<Vec<Frame>> {
        let at = self.frames.binary_search_by(|(known, _)| known.cmp(name)).ok()?;
        let (_, range) = self.frames.get(at)?;
        let parts = self.parts.get(range.start as usize..range.end as usize)?;
        if !parts.iter().map(|part| &part.chunks).eq(chunks) {
            return None;
        }
        parts.iter().map(|part| self.read(part)).collect()
    }

    fn read(&self, part: &Part) -> Option<Frame> {
        let mut bytes = vec![0; usize::try_from(part.len).ok()?];
        self.blobs.get(usize::from(part.blob))?.read_at(&mut bytes, part.offset).ok()?;
        let frame = Frame::new(bytes);
        (frame.sha256 == part.sha256).then_some(frame)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames", self.frames.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{BuiltImage, Options, Sinks, build};
    use super::*;

    type Spoil<'a> = &'a dyn Fn(&mut Vec<u8>);

    /// A blob in memory, and how many bytes were read of it.
    struct Counted(Vec<u8>, Arc<AtomicUsize>);

    impl ReadAt for Counted {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..));
            let bytes = from.and_then(|from| from.get(..buffer.len()));
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            self.1.fetch_add(buffer.len(), Ordering::SeqCst);
            Ok(())
        }
    }

    fn built(image: &[u8], known: Option<&Known>) -> (BuiltImage, Vec<Vec<u8>>) {
        let (mut fine, mut solid) = (Vec::new(), Vec::new());
        let (mut source, len) = (image, image.len() as u64);
        let sinks = Sinks { fine: &mut fine, solid: &mut solid };
        let built = build(&mut source, len, sinks, &Options::default(), known, &|_| {}).unwrap();
        let digests = (Sha256::of(&fine), Some(Sha256::of(&solid)));
        (built.finish(digests.0, digests.1).unwrap(), vec![fine, solid])
    }

    /// Text of drawn words, which compresses a little and in which every chunk is another.
    fn text(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut words = Vec::with_capacity(len + 8);
        while words.len() < len {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            words.extend_from_slice(format!("{:x} ", (state >> 33) % 10_000).as_bytes());
        }
        words.truncate(len);
        words
    }

    fn known(image: &[u8], spoil: impl Fn(&mut Vec<u8>)) -> (Known, Arc<AtomicUsize>) {
        let (built, mut blobs) = built(image, None);
        assert_eq!(built.chunks.encodings().len(), 2);
        blobs.iter_mut().for_each(spoil);
        let read = Arc::new(AtomicUsize::new(0));
        let counted = |blob| Box::new(Counted(blob, Arc::clone(&read))) as Box<dyn ReadAt>;
        let blobs = blobs.into_iter().map(counted).collect();
        (Known::new(&built.chunks, blobs), read)
    }

    #[test]
    fn copied_frames_are_what_compressing_gives() {
        let before = text(40 << 20);
        let mut after = before.clone();
        after[20 << 20..][..5000].fill(b'!');
        let afresh = built(&after, None);
        let all: usize = afresh.1.iter().map(Vec::len).sum();
        let (known_frames, read) = known(&before, |_| {});
        assert!(built(&after, Some(&known_frames)) == afresh);
        // Small frames of all but the chunks at the change, and large ones of two stretches in three.
        let read = read.load(Ordering::SeqCst);
        assert!(read > all * 3 / 4 && read < all, "{read} of {all}");
        // What is damaged, shorter or of something else is compressed again.
        let spoilt: [Spoil<'_>; 3] = [
            &|blob| blob.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1),
            &|blob| blob.truncate(blob.len() / 2),
            &|blob| blob.clear(),
        ];
        for spoil in spoilt {
            assert!(built(&after, Some(&known(&before, spoil).0)) == afresh);
        }
        let (other, read) = known(&text(3 << 20)[1..], |_| {});
        assert!(built(&vec![7; 5 << 20], Some(&other)) == built(&vec![7; 5 << 20], None));
        assert_eq!(read.load(Ordering::SeqCst), 0);
    }
}
