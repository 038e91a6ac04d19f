//! Fetching what neither the slot nor a seed has.
//!
//! ```text
//!           ┌─ fetcher ──┐  ≤ 2 MiB  ┌─ unpacker ──┐  ≤ 2 MiB  ┌─ finishers ─┐
//!  sources ►│ parts in   │─ parts ──►│ sha256 of   │─ chunks ─►│ sha256,     │─► slot
//!           │ blob order │           │ part ─► zstd│           │ write       │   ledger
//!           └────────────┘           └─────────────┘           └─────────────┘
//! ```
//!
//! Where every frame is one small chunk, several unpackers finish their chunks themselves.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Range};
use std::sync::Mutex;
use std::thread;

use formats::chunks::{Chunk, Content, Entries};
use formats::digest::Sha256;
use formats::reason::Reason;
use storage::block::Placed;
use update_core::image::chunk_matches;
use update_core::indexes::Indexes;

use super::frame::FrameError;
use super::ledger::{Ledger, Origin};
use super::offer::{Form, Holds, Offer, Offers, Part};
use super::queue::{Queue, Reservation};
use super::span::lock;
use super::unpack::{Worker, finish};
use super::{Image, StageError};
use crate::http::coalesce;
use crate::list::ListFile;
use crate::progress::Progress;
use crate::source::Source;

/// 2 MiB of compressed parts between the network and the slot: a dozen of the large frames'.
const IN_FLIGHT: usize = 2 << 20;
/// 4 MiB of chunks between an unpacker and those who write: four of what is written at once.
const CHUNKS_IN_FLIGHT: usize = 4 << 20;
/// 9 MiB: a frame of 8 MiB that zstd cannot compress; it is held whole to be verified first.
const PART_BYTES_MAX: u32 = 9 << 20;
/// Parts asked for in one go: 80 MiB of 20 KiB frames, 300 KiB of memory.
const BATCH: usize = 4096;
/// How often each source is tried: once more than a hiccup of every source needs.
const ROUNDS: usize = 3;

/// Fetches and writes all data chunks that the ledger does not have.
///
/// Sources are asked in their order. One that fails or gives wrong bytes is left for the next,
/// which is asked for what is still missing. A delta that a source does not have, or whose base is
/// not what it should be, and a form of the image of which a source gives wrong bytes, are replaced
/// by the other forms. In the end the first error counts.
pub(super) fn fetch(
    image: &Image<'_>,
    sources: &[&dyn Source],
    threads: NonZeroUsize,
    ledger: &Ledger,
    progress: &dyn Progress,
) -> Result<(), StageError> {
    let offers = Offers::new(image, &|text| progress.note(text))?;
    let mut alone = true;
    for offer in &offers.all {
        alone &= !image.listed(offer.windowed(image.list))?;
    }
    let (queue, chunks) = (Queue::new(IN_FLIGHT), Queue::new(CHUNKS_IN_FLIGHT));
    let line = Pipeline {
        image,
        offers: &offers,
        ledger,
        progress,
        queue: &queue,
        chunks: &chunks,
        alone,
        refused: Mutex::new(None),
        useless: Mutex::default(),
    };
    let missing = |chunk| !ledger.holds(chunk);
    let first = offers.choose(missing, |_| true)?;
    match first {
        Some(choice) if choice.bytes == 0 => return Ok(()),
        Some(choice) => line.check_lengths(&choice.pieces)?,
        None => return Err(line.no_source()),
    }
    thread::scope(|scope| {
        let unpackers = if line.alone { threads.get() } else { 1 };
        let unpack = started(scope, unpackers, || line.unpack());
        let finishers = if line.alone { 0 } else { threads.get() };
        let finish = started(scope, finishers, || line.finish());
        let result = unpack.and(finish).and_then(|()| line.fetch(sources));
        queue.close();
        chunks.close();
        result
    })
}

/// Starts as many workers as the system allows, and at least one where any are wanted.
fn started<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    wanted: usize,
    work: impl Fn() + Copy + Send + 'scope,
) -> Result<(), StageError> {
    for running in 0..wanted {
        if let Err(error) = thread::Builder::new().spawn_scoped(scope, work) {
            return if running == 0 { Err(StageError::Thread(error)) } else { Ok(()) };
        }
    }
    Ok(())
}

/// What fetcher and workers share.
pub(super) struct Pipeline<'a> {
    pub(super) image: &'a Image<'a>,
    pub(super) offers: &'a Offers<'a>,
    pub(super) ledger: &'a Ledger,
    pub(super) progress: &'a dyn Progress,
    queue: &'a Queue<Job>,
    pub(super) chunks: &'a Queue<Ready>,
    /// Every frame is one chunk: whoever unpacks it also writes it.
    pub(super) alone: bool,
    /// Offset in the blob of a part that the present source gave wrong.
    refused: Mutex<Option<u64>>,
    /// Offers that turned out to be of no use on this node.
    useless: Mutex<BTreeSet<usize>>,
}

/// A part as a source gave it.
pub(super) struct Job {
    pub(super) part: Part,
    /// The offer it is of, an index.
    pub(super) offer: usize,
    pub(super) bytes: Vec<u8>,
}

/// Neighbouring chunks that were decompressed: written at once when all of them are the signed ones.
pub(super) struct Ready {
    pub(super) chunks: Vec<Chunk>,
    pub(super) offer: usize,
    pub(super) bytes: Placed,
}

impl Pipeline<'_> {
    fn no_source(&self) -> StageError {
        StageError::NoSource { component: self.image.component.clone() }
    }

    fn check_lengths(&self, pieces: &[Indexes]) -> Result<(), StageError> {
        for (number, pieces) in pieces.iter().enumerate() {
            for part in self.offers.parts(number, pieces) {
                let part = part?;
                if part.len > PART_BYTES_MAX {
                    return Err(self.bad_frame(&part)(FrameError::TooLong(part.len)));
                }
            }
        }
        Ok(())
    }

    pub(super) fn bad_frame(&self, part: &Part) -> impl Fn(FrameError) -> StageError + use<> {
        let (component, offset) = (self.image.component.clone(), part.offset);
        move |source| StageError::Frame { component: component.clone(), offset, source }
    }

    /// The offer is not to be used again.
    pub(super) fn give_up(&self, offer: usize, why: &str) {
        if lock(&self.useless).insert(offer) {
            let name = self.offers.all.get(offer).map_or("image", Offer::name);
            let component = self.image.component;
            self.progress.note(&format!("{component}: the {name} cannot be used: {why}"));
        }
    }
}

// ---- the fetcher -------------------------------------------------------------------------------

impl Pipeline<'_> {
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
        Err(first_error.unwrap_or_else(|| self.no_source()))
    }

    /// Asks one source for everything that is missing, and waits until it is written.
    fn ask_to_the_end(&self, source: &dyn Source) -> Result<(), StageError> {
        // Offers of which this source gave nothing or nonsense.
        let mut failed = BTreeSet::new();
        let mut first_error = None;
        loop {
            let usable = |offer| !failed.contains(&offer) && !lock(&self.useless).contains(&offer);
            let missing = |chunk| !self.ledger.holds(chunk);
            let Some(choice) = self.offers.choose(missing, usable)? else {
                return Err(first_error.unwrap_or_else(|| self.no_source()));
            };
            if choice.bytes == 0 || self.ledger.stopped() {
                return Ok(());
            }
            // Deltas first, then large frames: what fails of them, small ones replace.
            for (number, pieces) in choice.pieces.iter().enumerate().rev() {
                let Some(offer) = self.offers.all.get(number).filter(|_| !pieces.is_empty()) else {
                    continue;
                };
                let asked = self.ask_for(source, number, pieces);
                if self.ledger.stopped() {
                    return Ok(());
                }
                let Err(error) = asked else { continue };
                let delta = matches!(offer.form, Form::Delta(..));
                if !delta && !of_the_offer(&error) {
                    return Err(error);
                }
                if delta {
                    let (name, reason) = (source.describe(), error.reason());
                    self.progress.note(&format!("{name} gives no delta: {reason}"));
                }
                failed.insert(number);
                first_error.get_or_insert(error);
                break;
            }
        }
    }

    /// Asks for parts of one blob, and waits until their chunks are written.
    fn ask_for(
        &self,
        source: &dyn Source,
        offer: usize,
        pieces: &Indexes,
    ) -> Result<(), StageError> {
        let component = self.image.component.clone();
        let asked = self.ask(source, offer, pieces);
        self.queue.drain();
        self.chunks.drain();
        if let Some(offset) = lock(&self.refused).take() {
            return Err(StageError::FrameHash { component, offset, from: source.describe() });
        }
        match asked? {
            Some(offset) if !self.ledger.stopped() => {
                Err(StageError::LeftOut { component, from: source.describe(), offset })
            }
            _ => Ok(()),
        }
    }

    /// `Some` is the offset of the first part that did not come.
    fn ask(
        &self,
        source: &dyn Source,
        offer: usize,
        pieces: &Indexes,
    ) -> Result<Option<u64>, StageError> {
        let Some(blob) = self.offers.all.get(offer).map(|offer| offer.blob) else {
            return Ok(None);
        };
        let mut parts = self.offers.parts(offer, pieces);
        loop {
            let batch = parts.by_ref().take(BATCH).collect::<Result<Vec<Part>, _>>()?;
            if batch.is_empty() {
                return Ok(None);
            }
            let mut assembly = Assembly { line: self, offer, parts: &batch, begun: None };
            let ranges: Vec<Range<u64>> =
                batch.iter().map(|part| part.offset..part.offset + u64::from(part.len)).collect();
            source
                .ranges(self.image.product, blob, &coalesce(&ranges, 0), &mut |at, piece| {
                    assembly.take(at, piece)
                })
                .map_err(|error| StageError::Fetch {
                    component: self.image.component.clone(),
                    from: source.describe(),
                    source: Box::new(error),
                })?;
            if let Some(part) = assembly.parts.first() {
                return Ok(Some(part.offset));
            }
            if self.over() {
                return Ok(None);
            }
        }
    }

    /// Whether more bytes of the present source are of no use.
    fn over(&self) -> bool {
        self.ledger.stopped() || lock(&self.refused).is_some()
    }
}

/// Whether an error is one of a blob rather than of its source, so that another blob may do.
fn of_the_offer(error: &StageError) -> bool {
    match error {
        StageError::FrameHash { .. } | StageError::LeftOut { .. } => true,
        StageError::Fetch { source, .. } => {
            matches!(source.reason(), Reason::HttpStatus | Reason::BundleFormat)
        }
        _ => false,
    }
}

/// Puts pieces together to parts.
struct Assembly<'a> {
    line: &'a Pipeline<'a>,
    offer: usize,
    /// The parts that are not complete yet.
    parts: &'a [Part],
    /// What there is of the first of them.
    begun: Option<(Reservation<'a, Job>, Vec<u8>)>,
}

impl Assembly<'_> {
    /// Breaks when the source is to stop. What comes unasked for is dropped; what is left out is
    /// missed later.
    fn take(&mut self, mut at: u64, mut piece: &[u8]) -> ControlFlow<()> {
        let offer = self.line.offers.all.get(self.offer);
        let of_delta = offer.is_some_and(|offer| matches!(offer.form, Form::Delta(..)));
        self.line.ledger.count_fetched(piece.len() as u64, of_delta);
        while !piece.is_empty() && !self.line.over() {
            let Some((part, rest)) = self.parts.split_first() else { break };
            let len = part.len as usize;
            let (room, mut bytes) = match self.begun.take() {
                Some(begun) => begun,
                None => match self.line.queue.reserve(len) {
                    Some(room) => (room, Vec::with_capacity(len)),
                    None => break,
                },
            };
            if at != part.offset + bytes.len() as u64 {
                break;
            }
            let (head, tail) = piece.split_at(piece.len().min(len - bytes.len()));
            bytes.extend_from_slice(head);
            at += head.len() as u64;
            piece = tail;
            if bytes.len() == len {
                room.push(Job { part: *part, offer: self.offer, bytes });
                self.parts = rest;
            } else {
                self.begun = Some((room, bytes));
            }
        }
        if piece.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

// ---- the workers -------------------------------------------------------------------------------

impl Pipeline<'_> {
    fn unpack(&self) {
        let _guard = AbandonOnPanic(self.queue);
        let mut worker = Worker::new(self.image.list);
        while let Some((job, _room)) = self.queue.pop() {
            if self.ledger.stopped() {
                continue;
            }
            if Sha256::of(&job.bytes) != job.part.sha256 {
                lock(&self.refused).get_or_insert(job.part.offset);
                worker.lost();
            } else if let Err(error) = worker.take(self, &job) {
                // The part is the signed one: no other source has a better one.
                self.ledger.fail(error);
            }
        }
    }

    fn finish(&self) {
        let _guard = AbandonOnPanic(self.chunks);
        while let Some((ready, _room)) = self.chunks.pop() {
            if !self.ledger.stopped()
                && let Err(error) = finish(self, &ready)
            {
                self.ledger.fail(error);
            }
        }
    }
}

impl Pipeline<'_> {
    /// Writes the chunks that are the signed ones, up to the first that is not, which it gives.
    pub(super) fn write(&self, ready: &Ready) -> Result<Option<u32>, StageError> {
        let (mut good, mut len, mut rest) = (0, 0, &*ready.bytes);
        for chunk in &ready.chunks {
            let (bytes, after) = rest.split_at_checked(chunk.len as usize).unwrap_or_default();
            if !chunk_matches(chunk, bytes) {
                break;
            }
            (good, len, rest) = (good + 1, len + bytes.len(), after);
        }
        let (signed, others) = ready.chunks.split_at_checked(good).unwrap_or_default();
        if let Some(first) = signed.first() {
            let bytes = ready.bytes.get(..len).unwrap_or_default();
            self.image.write(bytes, first.offset)?;
        }
        for chunk in signed {
            // Two sources may have sent it.
            if self.ledger.mark(chunk, Origin::Source) {
                self.progress.advance(chunk.len.into());
            }
        }
        Ok(others.first().map(|chunk| chunk.index))
    }

    /// The chunks a part holds, in order.
    pub(super) fn chunks_of(
        &self,
        entries: &mut Entries<'_, ListFile>,
        part: &Part,
        offer: usize,
    ) -> Result<Vec<Chunk>, StageError> {
        let mut found = Vec::new();
        let mut take = |indexes: Range<u32>| {
            for index in indexes {
                found.extend(self.image.listed(entries.chunk(index))?);
            }
            Ok(())
        };
        match part.holds {
            Holds::Chunks { first, count, .. } => take(first..first.saturating_add(count))?,
            Holds::Delta(frame) => {
                let form = self.offers.all.get(offer).map(|offer| &offer.form);
                let Some(Form::Delta(delta, _)) = form else { return Ok(found) };
                let frame = delta.list.frame(frame);
                for run in frame.iter().flat_map(|frame| &frame.content) {
                    take(run.chunks())?;
                }
            }
        }
        Ok(found)
    }
}

/// Whether the chunk is to be decompressed to nowhere: the slot has it already.
pub(super) fn is_spare(line: &Pipeline<'_>, chunk: &Chunk) -> bool {
    chunk.content == Content::Zero || line.ledger.holds(chunk.index)
}

/// A worker that panics leaves jobs that nobody takes: the others must not wait for them.
struct AbandonOnPanic<'a, T>(&'a Queue<T>);

impl<T> Drop for AbandonOnPanic<'_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
    }
}
