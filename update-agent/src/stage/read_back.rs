//! Reading a slot back: the only way to the proof that it holds what was signed.
//!
//! ```text
//!  write   ██▓██▓██▓██▓█  ▓: flush
//!  read       ▶▶ ▶▶ ▶▶ ▶  what the last flush made durable, while the rest is written
//!                       ▶▶▶▶  what is left, on all threads, and of the rest some of each MiB again
//! ```
//! A chunk is read when no page of it will be written any more, see [`Settled`].

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use formats::chunks::{Chunk, ChunkListError, Content};
use formats::release::ComponentName;
use storage::block::{BlockDevice, DeviceError};
use update_core::image::{ReadBackError, ReadImage, Tally, ZeroCheck, check, is_zero};
use update_core::indexes::Indexes;

use super::ledger::Ledger;
use super::span::{Part, Span, default_threads, in_parallel, lock, spans};
use super::{Image, StageError};
use crate::list::List;
use crate::progress::Progress;

/// Reads from the device what of an image was not read back before, and compares every chunk with the
/// signed list.
///
/// The device must have been flushed before. Its cached bytes are dropped first, so that what is
/// read is what the medium has. Bytes behind the image are neither read nor compared (case 130).
pub fn read_back(
    component: &ComponentName,
    target: &dyn BlockDevice,
    list: &List,
    before: Tally,
    progress: &dyn Progress,
) -> Result<ReadImage, StageError> {
    target.forget_cached(0, list.raw_size());
    let reader = Reader { component, target, tally: Mutex::new(before) };
    let unread = |chunk: &Chunk| !lock(&reader.tally).has(chunk.index);
    let (mut left, mut again) = (0, Indexes::with_room(list.chunk_count()));
    for chunk in list.chunks() {
        let chunk = chunk.map_err(|error| reader.told(error.into()))?;
        if unread(&chunk) {
            left += u64::from(chunk.len);
        } else if marks(&chunk).next().is_some() {
            again.add(chunk.index);
        }
    }
    progress.begin(&format!("read back {component}"), left);
    let chunks = list.chunks().filter(|chunk| chunk.as_ref().map_or(true, unread));
    let threads = default_threads();
    let read = in_parallel(threads, spans(chunks), |buffer, span| {
        let span = span?;
        reader.read(buffer, &span)?;
        progress.advance(span.len());
        Ok(())
    });
    let again = |chunk: &Chunk| again.has(chunk.index);
    let chunks = list.chunks().filter(|chunk| chunk.as_ref().map_or(true, again));
    let read = read.and_then(|()| {
        in_parallel(threads, chunks, |buffer, chunk| reader.look_again(buffer, &chunk?))
    });
    progress.end();
    match read {
        Ok(()) => reader.finish(),
        Err(failure) => Err(reader.told(failure)),
    }
}

/// 1 MiB: of what was read while more was written, the chunk that holds the first byte of each is read once more
/// at the end. A medium with less room than it says overwrites its beginning with what is written last.
const STRIDE: u64 = 1 << 20;

/// 4 KiB of zeros in each MiB.
const ZEROS_AGAIN: u64 = 4096;

/// The first bytes of every MiB that lie in a chunk.
fn marks(chunk: &Chunk) -> impl Iterator<Item = u64> {
    let end = chunk.offset + u64::from(chunk.len);
    let mut at = chunk.offset.next_multiple_of(STRIDE);
    std::iter::from_fn(move || {
        let mark = (at < end).then_some(at);
        at += STRIDE;
        mark
    })
}

/// Reads back what is durable while the rest is written, until `durable` ends. An error ends the writing, too.
pub(super) fn read_behind(image: &Image<'_>, durable: &Durable, ledger: &Ledger) -> Tally {
    let tally = Mutex::new(Tally::new(image.list));
    let reader = Reader { component: image.component, target: image.target, tally };
    let held = |chunk: &Chunk| durable.now().has(chunk.index);
    let unread = |chunk: &Chunk| !lock(&reader.tally).has(chunk.index);
    let mut buffer = Vec::new();
    // Each pass reads the list once: some passes, however long the list is.
    let step = (image.list.chunk_count() / PASSES).max(1);
    let mut wanted = 1;
    'passes: while durable.reach(wanted) {
        wanted = durable.now().count().saturating_add(step);
        let settled = Settled::new(image.list.chunks(), held);
        let chunks = settled.filter(|chunk| chunk.as_ref().map_or(true, unread));
        for span in spans(chunks) {
            if durable.is_over() {
                break;
            }
            let done = span.map_err(Failure::from).and_then(|span| {
                // Memory may have what the medium has not.
                image.target.forget_cached(span.offset(), span.len());
                reader.read(&mut buffer, &span)
            });
            if let Err(failure) = done {
                ledger.fail(reader.told(failure));
                break 'passes;
            }
        }
    }
    reader.tally()
}

/// How often an image's list is read at most to find what was flushed.
const PASSES: u32 = 8;

/// Of chunks in their order, those that are held and of which no page is still to be written: a page that a
/// chunk shares with one that is missing is written once more.
struct Settled<I, F> {
    chunks: I,
    held: F,
    /// What is not missing begins here.
    from: u64,
    /// Held, and what comes after in their last page is not known.
    waiting: VecDeque<Chunk>,
    ready: VecDeque<Chunk>,
}

impl<I, F> Settled<I, F> {
    /// 64 KiB, the largest page.
    const PAGE: u64 = 64 << 10;

    fn new(chunks: I, held: F) -> Self {
        let (waiting, ready) = Default::default();
        Settled { chunks, held, from: 0, waiting, ready }
    }
}

impl<E, I: Iterator<Item = Result<Chunk, E>>, F: Fn(&Chunk) -> bool> Iterator for Settled<I, F> {
    type Item = Result<Chunk, E>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            let next = match self.chunks.next() {
                Some(Ok(next)) => next,
                Some(Err(error)) => return Some(Err(error)),
                // Nothing comes after the last one.
                None => return self.waiting.pop_front().map(Ok),
            };
            let end = next.offset + u64::from(next.len);
            if !(self.held)(&next) {
                self.waiting.clear();
                self.from = end.next_multiple_of(Self::PAGE);
                continue;
            }
            if next.offset >= self.from {
                self.waiting.push_back(next);
            }
            let settled = |chunk: &&mut Chunk| {
                (chunk.offset + u64::from(chunk.len)).next_multiple_of(Self::PAGE) <= end
            };
            while let Some(chunk) = self.waiting.pop_front_if(|chunk| settled(&chunk)) {
                self.ready.push_back(chunk);
            }
        }
    }
}

/// Which chunks are flushed: grows with each flush.
#[derive(Default)]
pub(super) struct Durable {
    state: Mutex<(Arc<Indexes>, bool)>,
    changed: Condvar,
}

impl Durable {
    /// A flush made these durable.
    pub(super) fn are(&self, held: Indexes) {
        lock(&self.state).0 = Arc::new(held);
        self.changed.notify_all();
    }

    /// Nothing more is read back beside the writing.
    pub(super) fn end(&self) {
        lock(&self.state).1 = true;
        self.changed.notify_all();
    }

    fn now(&self) -> Arc<Indexes> {
        Arc::clone(&lock(&self.state).0)
    }

    fn is_over(&self) -> bool {
        lock(&self.state).1
    }

    /// Waits until there are so many; `false` at the end.
    fn reach(&self, count: u32) -> bool {
        let mut state = lock(&self.state);
        while !state.1 && state.0.count() < count {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.1
    }
}

/// One image that is read back.
struct Reader<'a> {
    component: &'a ComponentName,
    target: &'a dyn BlockDevice,
    tally: Mutex<Tally>,
}

impl Reader<'_> {
    /// Reads neighbouring chunks and takes their proofs.
    fn read(&self, buffer: &mut Vec<u8>, span: &Span) -> Result<(), Failure> {
        let list = lock(&self.tally).list();
        let mut zeros = None;
        span.read(self.target, buffer, |part| {
            let checked = match part {
                Part::Whole(chunk, bytes) => Some(check(list, chunk, bytes)?),
                Part::Piece(chunk, bytes, last) => {
                    // Without a check there is no proof, and then the tally is incomplete.
                    zeros = zeros.take().or_else(|| ZeroCheck::new(list, chunk));
                    if let Some(check) = &mut zeros {
                        check.piece(bytes)?;
                    }
                    let whole = if last { zeros.take() } else { None };
                    whole.map(ZeroCheck::finish).transpose()?
                }
            };
            if let Some(checked) = checked {
                lock(&self.tally).take(checked);
            }
            Ok(())
        })
    }

    /// Reads a chunk that was read before; of zeros, which may be long, only some in each MiB.
    fn look_again(&self, buffer: &mut Vec<u8>, chunk: &Chunk) -> Result<(), Failure> {
        let Chunk { index, offset, len, content } = *chunk;
        if content != Content::Zero {
            let bytes = self.target.read_medium(buffer, offset, len as usize)?;
            check(lock(&self.tally).list(), chunk, bytes)?;
            return Ok(());
        }
        for mark in marks(chunk) {
            let len = (offset + u64::from(len) - mark).min(ZEROS_AGAIN);
            let bytes = self.target.read_medium(buffer, mark, len as usize)?;
            if !is_zero(bytes) {
                return Err(ReadBackError::Differs { index, offset }.into());
            }
        }
        Ok(())
    }

    /// The proof for the whole image.
    fn finish(self) -> Result<ReadImage, StageError> {
        let Reader { component, target, .. } = self;
        let differs = |source| StageError::ReadBack {
            component: component.clone(),
            device: target.describe(),
            source,
        };
        self.tally().finish().map_err(differs)
    }

    fn tally(self) -> Tally {
        self.tally.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, failure: Failure) -> StageError {
        let component = self.component.clone();
        match failure {
            Failure::List(source) => StageError::List { component, source },
            Failure::Device(source) => StageError::Device { component, source },
            Failure::Differs(source) => {
                StageError::ReadBack { component, device: self.target.describe(), source }
            }
        }
    }
}

enum Failure {
    List(ChunkListError),
    Device(DeviceError),
    Differs(ReadBackError),
}

impl From<ChunkListError> for Failure {
    fn from(error: ChunkListError) -> Self {
        Failure::List(error)
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        Failure::Device(error)
    }
}

impl From<ReadBackError> for Failure {
    fn from(error: ReadBackError) -> Self {
        Failure::Differs(error)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use formats::chunks::{Builder, FrameEntry, seekable_table_len};
    use formats::digest::Sha256;
    use formats::oci::Descriptor;
    use storage::sim::Disk;

    use super::super::span::tests::zeros;
    use super::*;
    use crate::progress::Silent;

    /// Tells which ranges are read from the medium, and which are to be forgotten.
    struct Watched {
        disk: Disk,
        read: Mutex<Sender<Range<u64>>>,
        forgotten: Mutex<Vec<Range<u64>>>,
    }

    impl BlockDevice for Watched {
        fn len(&self) -> u64 {
            self.disk.len()
        }

        fn sector_size(&self) -> u32 {
            self.disk.sector_size()
        }

        fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
            lock(&self.read).send(offset..offset + buf.len() as u64).unwrap();
            self.disk.read_at(buf, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
            self.disk.write_at(bytes, offset)
        }

        fn zero_range(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
            self.disk.zero_range(offset, len)
        }

        fn sync(&self) -> Result<(), DeviceError> {
            self.disk.sync()
        }

        fn forget_cached(&self, offset: u64, len: u64) {
            lock(&self.forgotten).push(offset..offset + len);
        }

        fn describe(&self) -> String {
            self.disk.describe()
        }
    }

    fn held(indexes: &[u32]) -> Indexes {
        let mut held = Indexes::with_room(10);
        for index in indexes {
            held.add(*index);
        }
        held
    }

    /// Chunks of 40,000 bytes, the third one of zeros.
    fn image() -> (Vec<u8>, List) {
        let raw: Vec<u8> = (0..400_000_u32)
            .map(|at| if at / 40_000 == 2 { 0 } else { (at.wrapping_mul(at) >> 7) as u8 | 1 })
            .collect();
        let mut builder = Builder::default();
        let mut frames = Vec::new();
        for (nth, chunk) in raw.chunks(40_000).enumerate() {
            let zero = nth == 2;
            let content = if zero { Content::Zero } else { Content::Data(Sha256::of(chunk)) };
            builder.chunk(40_000, content);
            frames.push(FrameEntry { len: 1, chunks: 1, sha256: Sha256::of(chunk) });
        }
        let count = frames.len() as u32;
        let size = u64::from(count) + seekable_table_len(count);
        builder.encoding(Sha256::of(b"blob"), size, &frames);
        (raw, List::from(builder.finish().unwrap()))
    }

    #[test]
    fn behind_a_flush_only_what_is_never_written_again_is_read() {
        let (raw, list) = image();
        let name: ComponentName = "os".parse().unwrap();
        let (send, reads) = channel();
        let disk = Disk::with_content(raw.clone(), 512);
        let device = Watched { disk, read: Mutex::new(send), forgotten: Mutex::default() };
        let blob = Descriptor::of("image", b"blob");
        let image = Image {
            component: &name,
            product: "demo",
            list: &list,
            blobs: &[blob],
            deltas: &[],
            target: &device,
        };
        let (ledger, durable) = (Ledger::new(list.chunk_count(), 1 << 20), Durable::default());
        let tally = thread::scope(|scope| {
            let reading = scope.spawn(|| read_behind(&image, &durable, &ledger));
            // The others share pages with those that are missing.
            durable.are(held(&[0, 3, 4, 5, 6]));
            assert_eq!(reads.recv().unwrap(), 160_000..240_000);
            durable.are(held(&[0, 1, 2, 3, 4, 5, 6]));
            assert_eq!(reads.recv().unwrap(), 0..160_000);
            durable.end();
            reading.join().unwrap()
        });
        let has: Vec<u32> = (0..10).filter(|index| tally.has(*index)).collect();
        assert_eq!(has, [0, 1, 2, 3, 4, 5]);
        assert_eq!(*lock(&device.forgotten), [160_000..240_000, 0..160_000]);
        assert!(ledger.into_result().is_ok());
        // The rest is read afterwards, and what was read is not read again.
        let proof = read_back(&name, &device, &list, tally, &Silent).unwrap();
        drop(device);
        let mut rest: Vec<Range<u64>> = reads.iter().collect();
        rest.sort_unstable_by_key(|range| range.start);
        // Chunk 0 holds the first byte of the only MiB.
        assert_eq!(rest.remove(0), 0..40_000);
        assert_eq!((rest.first().unwrap().start, rest.last().unwrap().end), (240_000, 400_000));
        let disk = Disk::with_content(raw, 512);
        assert_eq!(proof, read_back(&name, &disk, &list, Tally::new(&list), &Silent).unwrap());
    }

    #[test]
    fn what_differs_behind_a_flush_ends_the_writing() {
        let (mut raw, list) = image();
        raw[50_000] ^= 4;
        let (name, disk) = ("os".parse().unwrap(), Disk::with_content(raw, 512));
        let image = Image {
            component: &name,
            product: "demo",
            list: &list,
            blobs: &[],
            deltas: &[],
            target: &disk,
        };
        let (ledger, durable) = (Ledger::new(list.chunk_count(), 1 << 20), Durable::default());
        durable.are(held(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
        read_behind(&image, &durable, &ledger);
        let error = ledger.into_result().unwrap_err();
        assert_eq!(error.reason(), formats::reason::Reason::Readback);
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            "chunk 1 at byte 40000 differs from the signed one"
        );
    }

    /// Every choice of ten chunks of lengths that share pages in many ways.
    #[test]
    fn no_page_of_a_settled_chunk_is_one_of_a_missing_chunk() {
        let lens = [1, 65_535, 65_536, 100, 200, 130_000, 64, 5, 70_000, 61_000];
        let chunks = zeros(&lens);
        let pages = |chunk: &Chunk| {
            let end = chunk.offset + u64::from(chunk.len);
            chunk.offset / 65_536..end.div_ceil(65_536)
        };
        for choice in 0..1_u32 << lens.len() {
            let held = |chunk: &Chunk| choice >> chunk.index & 1 == 1;
            let missing: Vec<u64> =
                chunks.iter().filter(|chunk| !held(chunk)).flat_map(pages).collect();
            let expected: Vec<Chunk> = chunks
                .iter()
                .filter(|chunk| held(chunk) && !pages(chunk).any(|page| missing.contains(&page)))
                .copied()
                .collect();
            let settled = Settled::new(chunks.iter().copied().map(Ok::<_, ()>), held);
            let settled: Vec<Chunk> = settled.map(Result::unwrap).collect();
            assert_eq!(settled, expected, "{choice:b}");
        }
    }
}
