//! In which forms an image can be fetched, and which frames of them to fetch.

use formats::chunks::delta::{DeltaFrame, DeltaList};
use formats::chunks::{ChunkList, Content, Encoding};
use formats::digest::Sha256;
use formats::oci::Descriptor;
use storage::block::BlockDevice;
use update_core::fetch::{Choice, Covering, Piece, choose};

use super::{Image, StageError};

/// A delta from an image that this node has.
#[derive(Clone, Copy)]
pub struct Delta<'a> {
    /// Its signed list.
    pub list: &'a DeltaList,
    /// Its blob.
    pub blob: &'a Descriptor,
    /// What it is from.
    pub base: &'a ChunkList,
    /// Where that is. Nothing about it is trusted: its chunks are compared with `base`.
    pub device: &'a dyn BlockDevice,
}

/// One form in which chunks of an image can be fetched.
pub(super) struct Offer<'a> {
    pub(super) blob: &'a Descriptor,
    pub(super) form: Form<'a>,
}

pub(super) enum Form<'a> {
    /// All of the image, in frames or parts of them.
    Encoding(&'a Encoding),
    /// What changed since an image this node has.
    Delta(Box<Base<'a>>),
}

/// A delta with what is looked up in it again and again.
pub(super) struct Base<'a> {
    pub(super) delta: Delta<'a>,
    pub(super) frames: Vec<DeltaFrame>,
    /// Offset of each chunk in the base.
    pub(super) offsets: Vec<u64>,
}

/// A piece of a blob to fetch, which is verified as one.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Offset in the blob.
    pub(super) offset: u64,
    /// Compressed length.
    pub(super) len: u32,
    pub(super) sha256: Sha256,
    pub(super) holds: Holds,
}

/// What a part holds.
#[derive(Clone, Copy)]
pub(super) enum Holds {
    /// Neighbouring chunks, of which the first begins at `at` in the image.
    Chunks {
        first: u32,
        count: u32,
        at: u64,
        /// A zstd frame begins with it.
        begins: bool,
        /// The zstd frame ends with it.
        ends: bool,
    },
    /// The frame of that index.
    Delta(usize),
}

/// All forms of an image, and the chunks of each.
pub(super) struct Offers<'a> {
    pub(super) all: Vec<Offer<'a>>,
    coverings: Vec<Covering>,
    chunks: u32,
    /// For each delta offer, one bit per chunk it holds; empty for encodings, which hold all.
    held: Vec<Vec<u64>>,
    /// Offset of each chunk in the image, when there is a delta.
    pub(super) offsets: Vec<u64>,
}

impl<'a> Offers<'a> {
    /// Refuses blobs that are not those of the list. A delta that does not fit is left out, with a
    /// note.
    pub(super) fn new(image: &'a Image<'a>, note: &dyn Fn(&str)) -> Result<Self, StageError> {
        let list = image.list;
        let mut offers = Offers {
            all: Vec::new(),
            coverings: Vec::new(),
            chunks: list.chunk_count(),
            held: Vec::new(),
            offsets: Vec::new(),
        };
        for (number, encoding) in list.encodings().iter().enumerate() {
            let blob = image.blob_of(number, encoding)?;
            let mut pieces: Vec<Piece> = Vec::with_capacity(encoding.frames as usize);
            for frame in list.frames(encoding) {
                let end = frame.chunks().end;
                let piece = match pieces.last() {
                    Some(before) if frame.continues => Piece {
                        first: before.first,
                        end,
                        len: before.len.saturating_add(frame.len),
                    },
                    _ => Piece { first: frame.first_chunk, end, len: frame.len },
                };
                pieces.push(piece);
            }
            offers.add(Offer { blob, form: Form::Encoding(encoding) }, pieces, Vec::new());
        }
        for delta in image.deltas {
            let same = delta.blob.size == delta.list.blob_size()
                && delta.blob.digest.as_sha256() == Some(delta.list.blob());
            if !same || delta.list.check_against(delta.base, list).is_err() {
                note(&format!(
                    "a delta of {} does not match its image and is not used",
                    image.component
                ));
                continue;
            }
            if offers.offsets.is_empty() {
                offers.offsets = list.chunks().map(|chunk| chunk.offset).collect();
            }
            offers.add_delta(*delta);
        }
        Ok(offers)
    }

    fn add_delta(&mut self, delta: Delta<'a>) {
        let frames: Vec<DeltaFrame> = delta.list.frames().collect();
        let mut held = vec![0u64; (self.chunks as usize).div_ceil(64)];
        let mut pieces = Vec::with_capacity(frames.len());
        for frame in &frames {
            for chunk in frame.content.iter().flat_map(|run| run.chunks()) {
                if let Some(word) = held.get_mut(chunk as usize / 64) {
                    *word |= 1 << (chunk % 64);
                }
            }
            let ends = frame.content.first().zip(frame.content.last());
            if let Some((first, last)) = ends {
                pieces.push(Piece { first: first.first, end: last.chunks().end, len: frame.len });
            }
        }
        let offsets = delta.base.chunks().map(|chunk| chunk.offset).collect();
        let form = Form::Delta(Box::new(Base { delta, frames, offsets }));
        self.add(Offer { blob: delta.blob, form }, pieces, held);
    }

    fn add(&mut self, offer: Offer<'a>, pieces: Vec<Piece>, held: Vec<u64>) {
        // Parsed lists are in order; one that were not would be of no use.
        if let Some(covering) = Covering::new(pieces) {
            self.all.push(offer);
            self.coverings.push(covering);
            self.held.push(held);
        }
    }

    /// The cheapest pieces that hold all missing chunks, of the usable offers; `None` when there
    /// are none.
    pub(super) fn choose(
        &self,
        missing: impl Fn(u32) -> bool,
        usable: impl Fn(usize) -> bool,
    ) -> Option<Choice> {
        choose(self.chunks, &self.coverings, missing, |number, chunk| {
            let all = |held: &Vec<u64>| held.is_empty();
            usable(number)
                && self.held.get(number).is_some_and(|held| {
                    all(held)
                        || held.get(chunk as usize / 64).is_some_and(|w| w >> (chunk % 64) & 1 == 1)
                })
        })
    }

    /// The parts of an offer that make up the chosen pieces.
    pub(super) fn parts(&self, list: &ChunkList, number: usize, pieces: &[u32]) -> Vec<Part> {
        let (Some(offer), Some(covering)) = (self.all.get(number), self.coverings.get(number))
        else {
            return Vec::new();
        };
        match &offer.form {
            Form::Delta(base) => pieces
                .iter()
                .filter_map(|index| {
                    let frame = base.frames.get(*index as usize)?;
                    let holds = Holds::Delta(*index as usize);
                    let DeltaFrame { offset, len, sha256, .. } = *frame;
                    Some(Part { offset, len, sha256, holds })
                })
                .collect(),
            Form::Encoding(encoding) => {
                // A piece is its part and all before of the same frame.
                let all = covering.pieces();
                let mut wanted = vec![false; all.len()];
                for piece in pieces {
                    let mut at = *piece as usize;
                    let first = all.get(at).map(|piece| piece.first);
                    while all.get(at).map(|piece| piece.first) == first {
                        if let Some(wanted) = wanted.get_mut(at) {
                            *wanted = true;
                        }
                        let Some(before) = at.checked_sub(1) else { break };
                        at = before;
                    }
                }
                parts_of(list, encoding, &wanted)
            }
        }
    }
}

fn parts_of(list: &ChunkList, encoding: &Encoding, wanted: &[bool]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut frames = list.frames(encoding).zip(wanted).peekable();
    let mut at = 0u64;
    while let Some((frame, wanted)) = frames.next() {
        let lens = frame.chunks().filter_map(|index| list.entry(index));
        let raw: u64 = lens.map(|(len, _)| u64::from(len)).sum();
        if *wanted {
            let ends = frames.peek().is_none_or(|(next, _)| !next.continues);
            let (first, count) = (frame.first_chunk, frame.chunks);
            let holds = Holds::Chunks { first, count, at, begins: !frame.continues, ends };
            parts.push(Part { offset: frame.offset, len: frame.len, sha256: frame.sha256, holds });
        }
        at += raw;
    }
    parts
}

impl Offer<'_> {
    /// Whether its frames hold several chunks, for which zstd keeps a window.
    pub(super) fn windowed(&self, list: &ChunkList) -> bool {
        match &self.form {
            Form::Delta(_) => true,
            Form::Encoding(encoding) => {
                list.frames(encoding).any(|frame| frame.chunks > 1 || frame.continues)
            }
        }
    }

    /// What to call it.
    pub(super) fn name(&self) -> &'static str {
        match self.form {
            Form::Delta(_) => "delta",
            Form::Encoding(_) => "image",
        }
    }
}

/// What [`plan`] found, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Planned {
    /// Compressed bytes to fetch, at most: what the slot already holds is found while writing.
    pub fetch: u64,
    /// Raw bytes this node has elsewhere.
    pub reuse: u64,
    /// Zero bytes.
    pub zeros: u64,
    /// Of the bytes to fetch, those of deltas.
    pub delta: u64,
}

/// Where the bytes of an image would come from, if what is said to be there is there.
///
/// `has` is asked for the digests of chunks.
pub fn plan(image: &Image<'_>, has: impl Fn(&Sha256) -> bool) -> Result<Planned, StageError> {
    let offers = Offers::new(image, &|_| {})?;
    let mut planned = Planned::default();
    let mut missing = vec![false; image.list.chunk_count() as usize];
    for (chunk, missing) in image.list.chunks().zip(&mut missing) {
        match chunk.content {
            Content::Zero => planned.zeros += u64::from(chunk.len),
            Content::Data(hash) if has(&hash) => planned.reuse += u64::from(chunk.len),
            Content::Data(_) => *missing = true,
        }
    }
    let is_missing = |chunk: u32| missing.get(chunk as usize).copied().unwrap_or(false);
    let choice = offers.choose(is_missing, |_| true).unwrap_or_default();
    planned.fetch = choice.bytes;
    for (number, pieces) in choice.pieces.iter().enumerate() {
        let parts = offers.parts(image.list, number, pieces);
        if parts.iter().any(|part| matches!(part.holds, Holds::Delta(_))) {
            planned.delta += parts.iter().map(|part| u64::from(part.len)).sum::<u64>();
        }
    }
    Ok(planned)
}
