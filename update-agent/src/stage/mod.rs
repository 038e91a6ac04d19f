//! Staging: writing an image to the inactive slot, and reading it back.
//!
//! ```text
//!             look again ──┐                         (an interrupted run, an earlier image)
//!  chunk list ─► zero runs ┤
//!                seeds ────┼─► verified chunks ─► slot ─► flush ─► read back ─► ReadImage
//!                sources ──┘        journal ◄──── flush, every 64 MiB ─► read back
//! ```
//!
//! Every chunk is verified against the signed list before it is written, wherever it comes from;
//! nothing else is ever written (S6). There is no temporary copy, and memory does not depend on the
//! length of the image, except for some bits per chunk, and an index of the seeds that is bounded: the
//! chunk list is read from its file, block by block, each compared with its digest.
//!
//! The caller has cleared the slot's bootable mark before, and makes it bootable only with the
//! proof that `read_back` gives. So a crash anywhere in between leaves a slot that does not boot
//! and that the next run completes: it looks at what is there, and takes nobody's word for it.

pub(crate) mod error;
mod fetch;
mod frame;
mod ledger;
mod offer;
mod queue;
mod read_back;
mod seed;
mod span;
mod unpack;
pub(crate) mod written;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use formats::chunks::{Chunk, ChunkListError, Content, Encoding};
use formats::oci::Descriptor;
use formats::release::ComponentName;
use storage::block::{BlockDevice, DeviceError, Placed};
use update_core::image::{Tally, chunk_matches, is_zero};
pub use update_core::resume::Resume;

pub use self::error::StageError;
pub use self::frame::{FrameError, Unpacker, Unpacking};
pub use self::offer::{Delta, Planned, plan};
pub use self::read_back::read_back;
pub use self::seed::{Places, Seed};
pub use self::written::Written;

use self::ledger::{Due, Ledger, Origin};
use self::read_back::Durable;
use self::seed::SeedIndex;
use self::span::{Part, default_threads, in_parallel, spans};
use crate::list::List;
use crate::progress::Progress;
use crate::source::Source;

/// One component of a release, and where it goes.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// Its name, for messages.
    pub component: &'a ComponentName,
    /// The product: names the repository of the blob.
    pub product: &'a str,
    /// Its signed chunk list.
    pub list: &'a List,
    /// The blob of each of the list's encodings, in their order.
    pub blobs: &'a [Descriptor],
    /// Deltas from images that this node has.
    pub deltas: &'a [Delta<'a>],
    /// The slot's partition: at least as long as the image.
    pub target: &'a dyn BlockDevice,
}

/// How far an image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalPoint {
    /// All chunks below this one are written and flushed.
    pub next_chunk: u32,
    /// Bytes fetched in this run.
    pub fetched: u64,
}

/// How fast and how carefully.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Threads that hash, decompress and write; one more fetches.
    pub threads: NonZeroUsize,
    /// Bytes written between two flushes, each followed by a journal point.
    pub sync_every: u64,
}

impl Default for Pace {
    /// One thread per processor, at most four; 64 MiB: seconds of work on the slowest medium, and
    /// no more dirty memory than that.
    fn default() -> Self {
        Pace { threads: default_threads(), sync_every: 64 << 20 }
    }
}

/// Writes an image to a slot and flushes it.
///
/// A chunk is taken from the slot itself where `resume` lets it look, else from a seed, else from
/// the sources, in their order. `journal` is called on the calling thread after each flush, and at
/// the end with the number of all chunks; when it fails, so does the whole.
///
/// After an error, and after a crash, the slot holds any of the image's chunks beside old content.
/// A failed flush is final for the opened device: open it again to try again.
///
/// Gives also what was read back by then: behind each flush, while the rest was written.
pub fn write_image_at(
    pace: &Pace,
    image: &Image<'_>,
    sources: &[&dyn Source],
    seeds: &[Seed<'_>],
    resume: Resume,
    progress: &dyn Progress,
    journal: &mut dyn FnMut(JournalPoint) -> Result<(), StageError>,
) -> Result<(Written, Tally), StageError> {
    image.check_size()?;
    image.check_blobs()?;
    let ledger = Ledger::new(image.list.chunk_count(), pace.sync_every);
    let staging = Staging { image, pace, ledger: &ledger, progress };
    staging.look(resume);
    let missing = image.list.raw_size() - ledger.so_far().reused_target;
    progress.begin(&format!("write {}", image.component), missing);
    let tally = staging.keep_journal(journal, || {
        staging.zero()?;
        staging.copy(seeds)?;
        fetch::fetch(image, sources, pace.threads, &ledger, progress)
    });
    progress.end();
    let written = ledger.into_result()?;
    image.sync()?;
    journal(JournalPoint { next_chunk: image.list.chunk_count(), fetched: written.fetched })?;
    Ok((written, tally))
}

impl Image<'_> {
    fn check_size(&self) -> Result<(), StageError> {
        let (needed, len) = (self.list.raw_size(), self.target.len());
        if needed == 0 {
            return Err(StageError::Empty { component: self.component.clone() });
        }
        if needed <= len {
            return Ok(());
        }
        let (component, device) = (self.component.clone(), self.target.describe());
        Err(StageError::SlotSize { component, device, needed, len })
    }

    /// The blob of an encoding, which must be the one its list describes.
    fn blob_of(&self, number: usize, encoding: &Encoding) -> Result<&Descriptor, StageError> {
        let blob = self.blobs.get(number).filter(|blob| {
            encoding.blob_size == blob.size && blob.digest.as_sha256() == Some(encoding.blob)
        });
        blob.ok_or_else(|| StageError::Encoding {
            component: self.component.clone(),
            encoding: number,
        })
    }

    fn check_blobs(&self) -> Result<(), StageError> {
        let mut encodings = self.list.encodings().iter().enumerate();
        encodings.try_for_each(|(number, encoding)| self.blob_of(number, encoding).map(drop))
    }

    fn listed<T>(&self, found: Result<T, ChunkListError>) -> Result<T, StageError> {
        found.map_err(|source| StageError::List { component: self.component.clone(), source })
    }

    /// Without a copy where they are [`Placed`].
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), StageError> {
        self.on_device(self.target.write_medium(bytes, offset))
    }

    fn sync(&self) -> Result<(), StageError> {
        self.on_device(self.target.sync())
    }

    fn on_device(&self, result: Result<(), DeviceError>) -> Result<(), StageError> {
        result.map_err(|source| StageError::Device { component: self.component.clone(), source })
    }
}

/// However the work ends, nobody waits for it any longer.
struct Finish<'a>(&'a Ledger);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// A journal that panics leaves nobody to flush: the work must not wait for that.
struct StopOnPanic<'a>(&'a Ledger);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

/// However the flushing ends, nobody waits for more of it.
struct End<'a>(&'a Durable);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// One image on its way.
#[derive(Clone, Copy)]
struct Staging<'a> {
    image: &'a Image<'a>,
    pace: &'a Pace,
    ledger: &'a Ledger,
    progress: &'a dyn Progress,
}

impl Staging<'_> {
    /// Finds out which chunks the slot already holds. What cannot be read is not there.
    fn look(&self, resume: Resume) {
        if resume == Resume::Nothing {
            return;
        }
        let len = self.image.list.raw_size();
        // From the medium: after a failed flush, memory may have what the medium has not (case 133).
        self.image.target.forget_cached(0, len);
        self.progress.begin(&format!("scan {}", self.image.component), len);
        let _ = in_parallel(self.pace.threads, spans(self.image.list.chunks()), |buffer, span| {
            // Without its list nothing of an image is there; whoever goes on with it will say so.
            let Ok(span) = span else { return Err(()) };
            let mut all_zero = true;
            let looked: Result<(), DeviceError> = span.read(self.image.target, buffer, |part| {
                match part {
                    Part::Whole(chunk, bytes) if chunk_matches(chunk, bytes) => {
                        self.ledger.mark(chunk, Origin::Target);
                    }
                    Part::Whole(..) => {}
                    Part::Piece(chunk, bytes, last) => {
                        all_zero = all_zero && is_zero(bytes);
                        if last && all_zero {
                            self.ledger.mark(chunk, Origin::Target);
                        }
                    }
                }
                Ok(())
            });
            if let Err(error) = looked {
                tracing::debug!(%error, "not reused");
            }
            self.progress.advance(span.len());
            Ok::<(), ()>(())
        });
        self.progress.end();
    }

    /// Runs `work` on another thread, and meanwhile, on this one, flushes the device and journals
    /// whenever enough was written; on a third, what was flushed is read back. Errors end up in the ledger.
    fn keep_journal(
        &self,
        journal: &mut dyn FnMut(JournalPoint) -> Result<(), StageError>,
        work: impl FnOnce() -> Result<(), StageError> + Send,
    ) -> Tally {
        let ledger = self.ledger;
        let durable = Durable::default();
        thread::scope(|scope| {
            let read_behind = || read_back::read_behind(self.image, &durable, ledger);
            // Without it all of the image is read back afterwards.
            let reading = match self.image.target.reads_beside_writes() {
                true => thread::Builder::new().spawn_scoped(scope, read_behind).ok(),
                false => None,
            };
            let _end = End(&durable);
            let working = thread::Builder::new().spawn_scoped(scope, move || {
                let _finish = Finish(ledger);
                if let Err(error) = work() {
                    ledger.fail(error);
                }
            });
            if let Err(error) = working {
                let _finish = Finish(ledger);
                ledger.fail(StageError::Thread(error));
            }
            let _stop = StopOnPanic(ledger);
            while let Some(Due { next, held }) = ledger.wait_until_due() {
                let point = || JournalPoint { next_chunk: next, fetched: ledger.fetched() };
                let flushed = self.image.sync().and_then(|()| journal(point()));
                if let Err(error) = flushed {
                    ledger.fail(error);
                    break;
                }
                durable.are(held);
            }
            durable.end();
            let read = reading.and_then(|reading| reading.join().ok());
            read.unwrap_or_else(|| Tally::new(self.image.list))
        })
    }

    /// Makes zero chunks zero, whatever was there, and neighbours at once.
    fn zero(&self) -> Result<(), StageError> {
        /// 64 MiB: long enough for a few calls, short enough to stop and to show progress.
        const RUN_MAX: u64 = 64 << 20;
        let mut chunks = self.missing(|chunk| chunk.content == Content::Zero).peekable();
        while let Some(first) = chunks.next() {
            let first = self.image.listed(first)?;
            let mut run = vec![first];
            let mut len = u64::from(first.len);
            let belongs = |next: &Chunk, len: u64| {
                next.offset == first.offset + len && len + u64::from(next.len) <= RUN_MAX
            };
            while let Some(Ok(next)) =
                chunks.next_if(|next| next.as_ref().is_ok_and(|next| belongs(next, len)))
            {
                len += u64::from(next.len);
                run.push(next);
            }
            if self.ledger.stopped() {
                return Ok(());
            }
            self.image.on_device(self.image.target.zero_range(first.offset, len))?;
            for chunk in &run {
                self.ledger.mark(chunk, Origin::Zeroed);
            }
            self.progress.advance(len);
        }
        Ok(())
    }

    /// Copies what the seeds have. One that cannot be read or is not what its list says costs a
    /// fetch.
    fn copy(&self, seeds: &[Seed<'_>]) -> Result<(), StageError> {
        let index = SeedIndex(seeds);
        if index.is_empty() {
            return Ok(());
        }
        let wrong = AtomicU64::new(0);
        let chunks = self.missing(|chunk| chunk.content != Content::Zero);
        in_parallel(self.pace.threads, index.runs(chunks), |buffer, run| {
            let run = self.image.listed(run)?;
            if self.ledger.stopped() {
                return Ok(());
            }
            let differ = run.read(buffer, |chunks, bytes| {
                let Some(first) = chunks.first() else { return Ok(()) };
                self.image.write(&Placed::copied(first.offset, bytes), first.offset)?;
                for chunk in chunks {
                    if self.ledger.mark(chunk, Origin::Seed) {
                        self.progress.advance(chunk.len.into());
                    }
                }
                Ok(())
            })?;
            wrong.fetch_add(differ, Ordering::Relaxed);
            Ok(())
        })?;
        match wrong.into_inner() {
            0 => {}
            wrong => self.progress.note(&format!(
                "{}: {wrong} chunks of other slots or seeds are not what their lists say; they are fetched",
                self.image.component
            )),
        }
        Ok(())
    }

    /// The chunks of a kind that the slot does not hold, as of when each is reached.
    fn missing(
        &self,
        kind: impl Fn(&Chunk) -> bool + Send,
    ) -> impl Iterator<Item = Result<Chunk, ChunkListError>> + Send {
        let (list, ledger) = (self.image.list, self.ledger);
        let wanted = move |chunk: &Chunk| kind(chunk) && !ledger.holds(chunk.index);
        list.chunks().filter(move |chunk| chunk.as_ref().map_or(true, &wanted))
    }
}
