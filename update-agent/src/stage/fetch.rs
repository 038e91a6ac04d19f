//! Fetching what neither the slot nor a seed has.
//!
//! ```text
//!           ┌─ fetcher ──┐  ≤ 8 MiB   ┌─ worker ─────────────────────────────────┐
//!  sources ►│ frames in  │── frames ─►│ sha256 of the frame ─► zstd ─► per chunk: │─► slot
//!           │ blob order │            │   sha256 of the chunk ─► write            │   ledger
//!           └────────────┘            └───────────────────────────────────────────┘
//! ```

use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};
use std::sync::Mutex;
use std::thread;

use formats::chunks::{Chunk, Content, Encoding, Frame};
use formats::digest::Sha256;
use update_core::image::chunk_matches;

use super::frame::{FrameError, Unpacker, Unpacking, WINDOW_MAX};
use super::ledger::{Ledger, Origin};
use super::queue::{Queue, Room};
use super::span::{SPAN, filled, lock};
use super::{Image, StageError};
use crate::http::coalesce;
use crate::progress::Progress;
use crate::source::Source;

/// 8 MiB of compressed frames between the network and the slot: a second of a fast line.
const IN_FLIGHT: usize = 8 << 20;
/// 9 MiB: a frame of 8 MiB that zstd cannot compress; it is held whole to be verified first.
const FRAME_BYTES_MAX: u32 = 9 << 20;
/// 12 MiB: for the windows and chunk buffers of all workers.
const WORK_MEMORY: u64 = 12 << 20;
/// Frames asked for in one go: 80 MiB of 20 KiB frames, 230 KiB of memory.
const BATCH: usize = 4096;
/// How often each source is tried: once more than a hiccup of every source needs.
const ROUNDS: usize = 3;

/// Fetches and writes all data chunks that the ledger does not have.
///
/// Sources are asked in their order. One that fails or gives wrong bytes is left for the next,
/// which is asked for the frames that are still missing. In the end the first error counts.
pub(super) fn fetch(
    image: &Image<'_>,
    encoding: &Encoding,
    sources: &[&dyn Source],
    threads: NonZeroUsize,
    ledger: &Ledger,
    progress: &dyn Progress,
) -> Result<(), StageError> {
    let queue = Queue::new(IN_FLIGHT);
    let line = Line { image, encoding, ledger, progress, queue: &queue, refused: Mutex::new(None) };
    let mut nothing = true;
    for Part { frame, .. } in line.missing() {
        nothing = false;
        if frame.len > FRAME_BYTES_MAX {
            return Err(line.bad_frame(&frame)(FrameError::TooLong(frame.len)));
        }
    }
    if nothing {
        return Ok(());
    }
    thread::scope(|scope| {
        for _ in 0..line.worker_count(threads) {
            scope.spawn(|| line.work_off());
        }
        let result = line.fetch(sources);
        queue.close();
        result
    })
}

/// What fetcher and workers share.
struct Line<'a> {
    image: &'a Image<'a>,
    encoding: &'a Encoding,
    ledger: &'a Ledger,
    progress: &'a dyn Progress,
    queue: &'a Queue<Job>,
    /// Offset in the blob of a frame that the present source gave wrong.
    refused: Mutex<Option<u64>>,
}

/// A frame, and where its first chunk begins in the image.
#[derive(Clone, Copy)]
struct Part {
    frame: Frame,
    offset: u64,
}

/// A frame as a source gave it.
struct Job {
    part: Part,
    bytes: Vec<u8>,
}

fn chunks_of(frame: &Frame) -> Range<u32> {
    frame.first_chunk..frame.first_chunk.saturating_add(frame.chunks)
}

impl Line<'_> {
    /// All frames in the order of the blob.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let mut next = 0;
        self.image.list.frames(self.encoding).map(move |frame| {
            let offset = next;
            next += self.raw_len(&frame);
            Part { frame, offset }
        })
    }

    /// The frames that hold a chunk the slot does not, as of when each is reached.
    fn missing(&self) -> impl Iterator<Item = Part> {
        self.parts().filter(|part| !self.ledger.holds_all(chunks_of(&part.frame)))
    }

    fn raw_len(&self, frame: &Frame) -> u64 {
        let entries = chunks_of(frame).filter_map(|index| self.image.list.entry(index));
        entries.map(|(len, _)| u64::from(len)).sum()
    }

    /// As many workers as asked for, unless frames of several chunks, for which zstd keeps a
    /// window, would take too much memory together.
    fn worker_count(&self, threads: NonZeroUsize) -> usize {
        let several = self.image.list.frames(self.encoding).filter(|frame| frame.chunks > 1);
        let window = several.map(|frame| self.raw_len(&frame)).max().unwrap_or(0).min(WINDOW_MAX);
        let most = usize::try_from(WORK_MEMORY / (window + SPAN)).unwrap_or(1);
        threads.get().min(most).max(1)
    }

    fn bad_frame(&self, frame: &Frame) -> impl Fn(FrameError) -> StageError + use<> {
        let (component, offset) = (self.image.component.clone(), frame.offset);
        move |source| StageError::Frame { component: component.clone(), offset, source }
    }
}

// ---- the fetcher -------------------------------------------------------------------------------

impl Line<'_> {
    fn fetch(&self, sources: &[&dyn Source]) -> Result<(), StageError> {
        let mut sources: Vec<&dyn Source> = sources.to_vec();
        let mut first_error = None;
        for _ in 0..ROUNDS {
            let mut useful = Vec::new();
            for source in sources {
                let before = self.ledger.held();
                let error = match self.ask_to_the_end(source) {
                    _ if self.ledger.stopped() => return Ok(()),
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                };
                let (name, reason) = (source.describe(), error.reason());
                self.progress.note(&format!("{name} is left for the next source: {reason}"));
                first_error.get_or_insert(error);
                // One that gave nothing new is not asked again.
                if self.ledger.held() > before {
                    useful.push(source);
                }
            }
            sources = useful;
        }
        let component = self.image.component.clone();
        Err(first_error.unwrap_or(StageError::NoSource { component }))
    }

    /// Asks one source for everything that is missing, and waits until it is written.
    fn ask_to_the_end(&self, source: &dyn Source) -> Result<(), StageError> {
        let component = self.image.component.clone();
        let asked = self.ask(source);
        self.queue.drain();
        if let Some(offset) = lock(&self.refused).take() {
            return Err(StageError::FrameHash { component, offset, from: source.describe() });
        }
        asked?;
        match self.missing().next() {
            None => Ok(()),
            Some(Part { frame, .. }) => {
                let (from, offset) = (source.describe(), frame.offset);
                Err(StageError::LeftOut { component, from, offset })
            }
        }
    }

    fn ask(&self, source: &dyn Source) -> Result<(), StageError> {
        let mut missing = self.missing();
        loop {
            let batch: Vec<Part> = missing.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let mut assembly = Assembly { line: self, parts: &batch, begun: None };
            let ranges: Vec<Range<u64>> = batch
                .iter()
                .map(|Part { frame, .. }| frame.offset..frame.offset + u64::from(frame.len))
                .collect();
            let (product, blob) = (self.image.product, self.image.blob);
            source
                .ranges(product, blob, &coalesce(&ranges, 0), &mut |at, piece| {
                    assembly.take(at, piece)
                })
                .map_err(|error| StageError::Fetch {
                    component: self.image.component.clone(),
                    from: source.describe(),
                    source: Box::new(error),
                })?;
            if !assembly.parts.is_empty() || self.over() {
                return Ok(());
            }
        }
    }

    /// Whether more bytes of the present source are of no use.
    fn over(&self) -> bool {
        self.ledger.stopped() || lock(&self.refused).is_some()
    }
}

/// Puts pieces together to frames.
struct Assembly<'a> {
    line: &'a Line<'a>,
    /// The frames that are not complete yet.
    parts: &'a [Part],
    /// What there is of the first of them.
    begun: Option<(Room<'a, Job>, Vec<u8>)>,
}

impl Assembly<'_> {
    /// Breaks when the source is to stop. What comes unasked for is dropped; what is left out is
    /// missed later.
    fn take(&mut self, mut at: u64, mut piece: &[u8]) -> ControlFlow<()> {
        self.line.ledger.count_fetched(piece.len() as u64);
        while !piece.is_empty() && !self.line.over() {
            let Some((part, rest)) = self.parts.split_first() else { break };
            let len = part.frame.len as usize;
            let (room, mut bytes) = match self.begun.take() {
                Some(begun) => begun,
                None => match self.line.queue.reserve(len) {
                    Some(room) => (room, Vec::with_capacity(len)),
                    None => break,
                },
            };
            if at != part.frame.offset + bytes.len() as u64 {
                break;
            }
            let (head, tail) = piece.split_at(piece.len().min(len - bytes.len()));
            bytes.extend_from_slice(head);
            at += head.len() as u64;
            piece = tail;
            if bytes.len() == len {
                room.push(Job { part: *part, bytes });
                self.parts = rest;
            } else {
                self.begun = Some((room, bytes));
            }
        }
        if piece.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

// ---- the workers -------------------------------------------------------------------------------

impl Line<'_> {
    fn work_off(&self) {
        let _guard = AbandonOnPanic(self.queue);
        let mut unpacker = None;
        let mut buffer = Vec::new();
        while let Some((job, _room)) = self.queue.pop() {
            if self.ledger.stopped() {
                continue;
            }
            if Sha256::of(&job.bytes) != job.part.frame.sha256 {
                lock(&self.refused).get_or_insert(job.part.frame.offset);
            } else if let Err(error) = self.write(&job, &mut unpacker, &mut buffer) {
                // The frame is the signed one: no other source has a better one.
                self.ledger.fail(error);
            }
        }
    }

    /// Writes the chunks of a verified frame, each verified itself.
    fn write(
        &self,
        job: &Job,
        unpacker: &mut Option<Unpacker>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StageError> {
        let bad_frame = self.bad_frame(&job.part.frame);
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            none => none.insert(Unpacker::new().map_err(&bad_frame)?),
        };
        let mut content = unpacker.begin(&job.bytes).map_err(&bad_frame)?;
        let mut next = job.part.offset;
        for index in chunks_of(&job.part.frame) {
            let Some((len, kind)) = self.image.list.entry(index) else { break };
            let chunk = Chunk { index, offset: next, len, content: kind };
            next += u64::from(len);
            if chunk.content == Content::Zero {
                skip(&mut content, len, buffer).map_err(&bad_frame)?;
                continue;
            }
            let bytes = filled(buffer, len.into());
            content.fill(bytes).map_err(&bad_frame)?;
            if self.ledger.holds(index) {
                continue;
            }
            if !chunk_matches(&chunk, bytes) {
                let component = self.image.component.clone();
                return Err(StageError::ChunkHash { component, chunk: index });
            }
            self.image.write(bytes, chunk.offset)?;
            self.ledger.mark(&chunk, Origin::Source);
            self.progress.advance(len.into());
        }
        content.finish().map_err(&bad_frame)
    }
}

/// Decompresses a zero chunk to nowhere: the slot has it already.
fn skip(content: &mut Unpacking<'_>, len: u32, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let mut left = u64::from(len);
    while left > 0 {
        let piece = left.min(SPAN);
        content.fill(filled(buffer, piece))?;
        left -= piece;
    }
    Ok(())
}

/// A worker that panics leaves frames that nobody takes: the fetcher must not wait for them.
struct AbandonOnPanic<'a>(&'a Queue<Job>);

impl Drop for AbandonOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
    }
}
