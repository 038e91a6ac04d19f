//! In which forms an image can be fetched, and which frames of them to fetch.

use formats::chunks::delta::DeltaList;
use formats::chunks::{ChunkListError, Content, Encoding, Frame};
use formats::digest::Sha256;
use formats::oci::Descriptor;
use storage::block::BlockDevice;
use update_core::fetch::{Choice, Piece, choose};
use update_core::indexes::Indexes;

use super::{Image, StageError};
use crate::list::List;

/// A delta from an image that this node has.
#[derive(Clone, Copy)]
pub struct Delta<'a> {
    /// Its signed list.
    pub list: &'a DeltaList,
    /// Its blob.
    pub blob: &'a Descriptor,
    /// What it is from.
    pub base: &'a List,
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
    /// What changed since an image this node has, and one bit per chunk that it holds.
    Delta(Delta<'a>, Vec<u64>),
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
    /// Neighbouring chunks.
    Chunks {
        first: u32,
        count: u32,
        /// A zstd frame begins with it.
        begins: bool,
        /// The zstd frame ends with it.
        ends: bool,
    },
    /// The frame of that index.
    Delta(usize),
}

/// All forms of an image. Their frames are read from the lists whenever they are needed.
pub(super) struct Offers<'a> {
    image: &'a Image<'a>,
    pub(super) all: Vec<Offer<'a>>,
}

impl<'a> Offers<'a> {
    /// Refuses blobs that are not those of the list. A delta that does not fit is left out, with a
    /// note.
    pub(super) fn new(image: &'a Image<'a>, note: &dyn Fn(&str)) -> Result<Self, StageError> {
        let list = image.list;
        let mut all = Vec::new();
        for (number, encoding) in list.encodings().iter().enumerate() {
            let blob = image.blob_of(number, encoding)?;
            all.push(Offer { blob, form: Form::Encoding(encoding) });
        }
        for delta in image.deltas {
            let same = delta.blob.size == delta.list.blob_size()
                && delta.blob.digest.as_sha256() == Some(delta.list.blob());
            if !same || delta.list.check_stored(delta.base, list).is_err() {
                note(&format!(
                    "a delta of {} does not match its image and is not used",
                    image.component
                ));
                continue;
            }
            let held = held(delta.list, list.chunk_count());
            all.push(Offer { blob: delta.blob, form: Form::Delta(*delta, held) });
        }
        Ok(Offers { image, all })
    }

    /// The cheapest pieces that hold all missing chunks, of the usable offers; `None` when there
    /// are none.
    pub(super) fn choose(
        &self,
        missing: impl Fn(u32) -> bool,
        usable: impl Fn(usize) -> bool,
    ) -> Result<Option<Choice>, StageError> {
        let list = self.image.list;
        let coverings = self.all.iter().map(|offer| offer.form.pieces(list)).collect();
        let found = choose(list.chunk_count(), coverings, missing, |number, chunk| {
            usable(number) && self.all.get(number).is_some_and(|offer| offer.form.holds(chunk))
        });
        self.image.listed(found)
    }

    /// The parts of an offer that make up the chosen pieces, in the order of its blob.
    pub(super) fn parts<'b>(
        &'b self,
        number: usize,
        pieces: &'b Indexes,
    ) -> Box<dyn Iterator<Item = Result<Part, StageError>> + 'b> {
        match self.all.get(number).map(|offer| &offer.form) {
            None => Box::new(std::iter::empty()),
            Some(Form::Delta(delta, _)) => {
                let part = |index: usize| {
                    let frame = delta.list.frame(index)?;
                    let holds = Holds::Delta(index);
                    Some(Part { offset: frame.offset, len: frame.len, sha256: frame.sha256, holds })
                };
                let picked = (0u32..).zip(0..delta.list.frame_count());
                let picked = picked.filter(|(index, _)| pieces.has(*index));
                Box::new(picked.filter_map(move |(_, index)| part(index)).map(Ok))
            }
            Some(Form::Encoding(encoding)) => {
                let parts = parts_of(self.image.list, encoding, pieces);
                Box::new(parts.map(|part| self.image.listed(part)))
            }
        }
    }
}

/// One bit for each of so many chunks: whether the delta holds it.
fn held(delta: &DeltaList, chunks: u32) -> Vec<u64> {
    let mut held = vec![0u64; (chunks as usize).div_ceil(64)];
    for chunk in delta.frames().flat_map(|frame| frame.content).flat_map(|run| run.chunks()) {
        if let Some(word) = held.get_mut(chunk as usize / 64) {
            *word |= 1 << (chunk % 64);
        }
    }
    held
}

type Pieces<'a> = Box<dyn Iterator<Item = Result<Piece, ChunkListError>> + 'a>;

impl Form<'_> {
    /// Its frames, or the beginnings of them up to the end of each part.
    fn pieces<'b>(&'b self, list: &'b List) -> Pieces<'b> {
        match self {
            Form::Encoding(encoding) => {
                let mut before: Option<Piece> = None;
                Box::new(list.frames(encoding).map(move |frame| {
                    let frame = frame?;
                    let (first, len) = match before {
                        Some(before) if frame.continues => {
                            (before.first, before.len.saturating_add(frame.len))
                        }
                        _ => (frame.first_chunk, frame.len),
                    };
                    let piece = Piece { first, end: frame.chunks().end, len };
                    before = Some(piece);
                    Ok(piece)
                }))
            }
            Form::Delta(delta, _) => Box::new(delta.list.frames().filter_map(|frame| {
                let (first, last) = frame.content.first().zip(frame.content.last())?;
                Some(Ok(Piece { first: first.first, end: last.chunks().end, len: frame.len }))
            })),
        }
    }

    /// Whether it holds a chunk that one of its frames spans.
    fn holds(&self, chunk: u32) -> bool {
        match self {
            Form::Encoding(_) => true,
            Form::Delta(_, held) => {
                held.get(chunk as usize / 64).is_some_and(|word| word >> (chunk % 64) & 1 == 1)
            }
        }
    }
}

/// The parts of an encoding that make up the chosen pieces. A piece is its part and all before of the
/// same frame.
fn parts_of<'a>(
    list: &'a List,
    encoding: &'a Encoding,
    pieces: &'a Indexes,
) -> impl Iterator<Item = Result<Part, ChunkListError>> + 'a {
    let mut frames = list.frames(encoding).peekable();
    let mut index = 0u32;
    let part = |frame: Frame, ends: bool| {
        let (first, count) = (frame.first_chunk, frame.chunks);
        let holds = Holds::Chunks { first, count, begins: !frame.continues, ends };
        Ok(Part { offset: frame.offset, len: frame.len, sha256: frame.sha256, holds })
    };
    std::iter::from_fn(move || {
        // One frame: all of its parts.
        let mut frame = vec![match frames.next()? {
            Ok(first) => first,
            Err(error) => return Some(vec![Err(error)]),
        }];
        while let Some(Ok(next)) =
            frames.next_if(|next| next.as_ref().is_ok_and(|next| next.continues))
        {
            frame.push(next);
        }
        let all = frame.len();
        let wanted = (0u32..).zip(1..=all).filter(|(at, _)| pieces.has(index + at));
        let count = wanted.map(|(_, count)| count).last().unwrap_or(0);
        index += u32::try_from(all).unwrap_or(u32::MAX);
        let parts = (1..).zip(frame).take(count);
        Some(parts.map(|(number, frame)| part(frame, number == all)).collect())
    })
    .flat_map(Vec::into_iter)
}

impl Offer<'_> {
    /// Whether its frames hold several chunks, for which zstd keeps a window.
    pub(super) fn windowed(&self, list: &List) -> Result<bool, ChunkListError> {
        match &self.form {
            Form::Delta(..) => Ok(true),
            Form::Encoding(encoding) => {
                for frame in list.frames(encoding) {
                    let frame = frame?;
                    if frame.chunks > 1 || frame.continues {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// What to call it.
    pub(super) fn name(&self) -> &'static str {
        match self.form {
            Form::Delta(..) => "delta",
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
    let mut missing = vec![0u64; (image.list.chunk_count() as usize).div_ceil(64)];
    for chunk in image.list.chunks() {
        let chunk = image.listed(chunk)?;
        match chunk.content {
            Content::Zero => planned.zeros += u64::from(chunk.len),
            Content::Data(hash) if has(&hash) => planned.reuse += u64::from(chunk.len),
            Content::Data(_) => {
                if let Some(word) = missing.get_mut(chunk.index as usize / 64) {
                    *word |= 1 << (chunk.index % 64);
                }
            }
        }
    }
    let is_missing = |chunk: u32| {
        missing.get(chunk as usize / 64).is_some_and(|word| word >> (chunk % 64) & 1 == 1)
    };
    let choice = offers.choose(is_missing, |_| true)?.unwrap_or_default();
    planned.fetch = choice.bytes;
    for (number, pieces) in choice.pieces.iter().enumerate() {
        for part in offers.parts(number, pieces) {
            let part = part?;
            if matches!(part.holds, Holds::Delta(_)) {
                planned.delta += u64::from(part.len);
            }
        }
    }
    Ok(planned)
}
