//! From verified compressed bytes to chunks: frames whole or in parts, and those of deltas.

use formats::chunks::{Chunk, Entries};
use storage::block::Placed;
use update_core::image::chunk_matches;

use super::StageError;
use super::fetch::{Job, Pipeline, Ready, is_spare};
use super::frame::{FrameError, Unpacker, Unpacking};
use super::offer::{Delta, Form, Holds};
use super::span::{SPAN, filled};
use crate::list::{List, ListFile};

/// 1 MiB: chunks that are written at once. A medium takes few long writes more quickly, and where they
/// meet in the middle of a page that it holds, it has to be read first.
const BATCH_MAX: u64 = 1 << 20;

/// What one unpacking thread keeps between parts.
pub(super) struct Worker<'a> {
    entries: Entries<'a, ListFile>,
    unpacker: Option<Unpacker<'static>>,
    /// Offset in the blob at which the frame goes on that was begun.
    next: Option<(usize, u64)>,
    buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(list: &'a List) -> Self {
        Worker { entries: list.entries(), unpacker: None, next: None, buffer: Vec::new() }
    }

    /// A part is missing: the frame it is of cannot go on.
    pub(super) fn lost(&mut self) {
        self.next = None;
    }

    /// Unpacks a part whose bytes are the signed ones.
    pub(super) fn take(&mut self, line: &Pipeline<'_>, job: &Job) -> Result<(), StageError> {
        match job.part.holds {
            Holds::Chunks { begins, ends, .. } => self.chunks(line, job, begins, ends),
            Holds::Delta(frame) => {
                let form = line.offers.all.get(job.offer).map(|offer| &offer.form);
                if let Some(Form::Delta(delta, _)) = form
                    && let Err(why) = self.delta(line, job, delta, frame)?
                {
                    line.give_up(job.offer, &why);
                }
                Ok(())
            }
        }
    }

    fn chunks(
        &mut self,
        line: &Pipeline<'_>,
        job: &Job,
        begins: bool,
        ends: bool,
    ) -> Result<(), StageError> {
        let bad_frame = line.bad_frame(&job.part);
        let chunks = line.chunks_of(&mut self.entries, &job.part, job.offer)?;
        let expected = self.next.take() == Some((job.offer, job.part.offset));
        let unpacker = match &mut self.unpacker {
            Some(unpacker) => unpacker,
            none => none.insert(Unpacker::new().map_err(&bad_frame)?),
        };
        let content = match begins {
            true => unpacker.begin(&job.bytes).map_err(&bad_frame)?,
            false if expected => unpacker.go_on(&job.bytes),
            // Something before it is missing, and so will this be.
            false => return Ok(()),
        };
        unpack(line, job, content, (chunks, ends), &mut self.buffer)?.map_err(&bad_frame)?;
        if !ends {
            self.next = Some((job.offer, job.part.offset + u64::from(job.part.len)));
        }
        Ok(())
    }

    /// `Ok(Err)` says why the delta is of no use.
    fn delta(
        &mut self,
        line: &Pipeline<'_>,
        job: &Job,
        delta: &Delta<'_>,
        frame: usize,
    ) -> Result<Result<(), String>, StageError> {
        let prefix = match prefix(delta, frame) {
            Ok(prefix) => prefix,
            Err(why) => return Ok(Err(why)),
        };
        let chunks = line.chunks_of(&mut self.entries, &job.part, job.offer)?;
        // The window of the last large frame is not needed beside the prefix.
        self.unpacker = None;
        let unpacked = Unpacker::with_prefix(&prefix).and_then(|mut unpacker| {
            let content = unpacker.begin(&job.bytes)?;
            Ok(unpack(line, job, content, (chunks, true), &mut self.buffer))
        });
        match unpacked.and_then(|result| result.map_or_else(|error| Ok(Err(error)), |r| r.map(Ok)))
        {
            Ok(done) => done.map(Ok),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

/// The chunks of the base that a frame refers to, each compared with its digest.
fn prefix(delta: &Delta<'_>, frame: usize) -> Result<Vec<u8>, String> {
    let frame = delta.list.frame(frame).ok_or("it has no such frame")?;
    let mut prefix = Vec::new();
    let mut entries = delta.base.entries();
    for index in frame.prefix.iter().flat_map(|run| run.chunks()) {
        let found = entries.chunk(index).map_err(|error| error.to_string())?;
        let chunk = found.ok_or("its base has no such chunk")?;
        let start = prefix.len();
        prefix.resize(start + chunk.len as usize, 0);
        let bytes = prefix.get_mut(start..).unwrap_or_default();
        delta.device.read_at(bytes, chunk.offset).map_err(|error| error.to_string())?;
        if !chunk_matches(&chunk, bytes) {
            return Err("its base is not what it should be".to_owned());
        }
    }
    Ok(prefix)
}

/// Decompresses the chunks of a part and hands them on. The inner error is one of the frame.
fn unpack(
    line: &Pipeline<'_>,
    job: &Job,
    mut content: Unpacking<'_, '_>,
    (chunks, ends): (Vec<Chunk>, bool),
    scratch: &mut Vec<u8>,
) -> Result<Result<(), FrameError>, StageError> {
    let chunks: Vec<Wanted> =
        chunks.into_iter().map(|chunk| Wanted { wanted: !is_spare(line, &chunk), chunk }).collect();
    let neighbours = |before: &Wanted, next: &Wanted| {
        let end = before.chunk.offset + u64::from(before.chunk.len);
        before.wanted && next.wanted && next.chunk.offset == end
    };
    for batch in chunks.chunk_by(neighbours).flat_map(batches) {
        let len = batch.iter().map(|own| u64::from(own.chunk.len)).sum::<u64>();
        if batch.first().is_some_and(|own| !own.wanted) {
            let mut left = len;
            while left > 0 {
                let piece = left.min(SPAN);
                if let Err(error) = content.fill(filled(scratch, piece)) {
                    return Ok(Err(error));
                }
                left -= piece;
            }
            continue;
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let room = match line.alone {
            true => None,
            false => line.chunks.reserve(len),
        };
        // Not used again: buffers kept would each grow to the longest.
        let mut bytes = Placed::zeroed(batch.first().map_or(0, |own| own.chunk.offset), len);
        if let Err(error) = content.fill(&mut bytes) {
            return Ok(Err(error));
        }
        let chunks = batch.iter().map(|own| own.chunk).collect();
        let ready = Ready { chunks, offer: job.offer, bytes };
        match room {
            Some(room) => room.push(ready),
            None => finish(line, &ready)?,
        }
    }
    Ok(if ends { content.finish() } else { content.pause() })
}

/// A chunk of a frame, and whether the slot lacks it.
struct Wanted {
    chunk: Chunk,
    wanted: bool,
}

/// Neighbouring chunks in pieces that are written at once.
fn batches(mut chunks: &[Wanted]) -> impl Iterator<Item = &[Wanted]> {
    std::iter::from_fn(move || {
        if chunks.is_empty() {
            return None;
        }
        let mut len = 0;
        let more = |own: &&Wanted| {
            len += u64::from(own.chunk.len);
            len <= BATCH_MAX
        };
        let count = chunks.iter().take_while(more).count().max(1);
        let (batch, rest) = chunks.split_at_checked(count)?;
        chunks = rest;
        Some(batch)
    })
}

/// Verifies chunks and writes them.
pub(super) fn finish(line: &Pipeline<'_>, ready: &Ready) -> Result<(), StageError> {
    let Some(chunk) = line.write(ready)? else { return Ok(()) };
    let offer = line.offers.all.get(ready.offer);
    if offer.is_some_and(|offer| matches!(offer.form, Form::Delta(..))) {
        line.give_up(ready.offer, "it makes other bytes than the signed ones");
        return Ok(());
    }
    let component = line.image.component.clone();
    Err(StageError::ChunkHash { component, chunk })
}
