//! Reading a device in the order of its chunks, on several threads.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use formats::chunks::{Chunk, Content, DATA_CHUNK_LIMIT};
use storage::block::{BlockDevice, DeviceError};

/// 1 MiB, the longest data chunk: what a thread reads at once, so that few and long requests reach
/// the medium. Four of them fit the second-level caches of small cores.
pub(super) const SPAN: u64 = DATA_CHUNK_LIMIT as u64;

/// Neighbouring chunks that are read at once: at most [`SPAN`] bytes, or one longer zero chunk.
#[derive(Debug)]
pub(super) struct Span {
    offset: u64,
    len: u64,
    chunks: Vec<Chunk>,
}

/// What a span's bytes are handed on as.
pub(super) enum Part<'a> {
    /// A whole chunk.
    Whole(&'a Chunk, &'a [u8]),
    /// The next piece of a long zero chunk, and whether it is the last.
    Piece(&'a Chunk, &'a [u8], bool),
}

impl Span {
    /// Reads the span from the medium, through `buffer`, and hands on its parts in order.
    pub(super) fn read<E: From<DeviceError>>(
        &self,
        device: &dyn BlockDevice,
        buffer: &mut Vec<u8>,
        mut take: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let [chunk] = self.chunks.as_slice()
            && self.len > SPAN
        {
            let mut at = 0;
            while at < self.len {
                let len = usize::try_from(SPAN.min(self.len - at)).unwrap_or(usize::MAX);
                let piece = device.read_medium(buffer, self.offset + at, len)?;
                at += piece.len() as u64;
                take(Part::Piece(chunk, piece, at == self.len))?;
            }
            return Ok(());
        }
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        let mut rest = device.read_medium(buffer, self.offset, len)?;
        for chunk in &self.chunks {
            let (bytes, after) = rest.split_at_checked(chunk.len as usize).unwrap_or_default();
            take(Part::Whole(chunk, bytes))?;
            rest = after;
        }
        Ok(())
    }

    /// Where it begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

/// The first `len` bytes of a buffer that grows to the largest it was used for.
pub(super) fn filled(buffer: &mut Vec<u8>, len: u64) -> &mut [u8] {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

/// Puts neighbouring chunks together.
pub(super) fn spans<E>(
    chunks: impl Iterator<Item = Result<Chunk, E>>,
) -> impl Iterator<Item = Result<Span, E>> {
    let mut chunks = chunks.peekable();
    std::iter::from_fn(move || {
        let first = match chunks.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let mut span = Span { offset: first.offset, len: first.len.into(), chunks: vec![first] };
        let belongs = |next: &Chunk, len: u64| {
            next.offset == first.offset + len && len + u64::from(next.len) <= SPAN
        };
        while let Some(Ok(next)) =
            chunks.next_if(|next| next.as_ref().is_ok_and(|next| belongs(next, span.len)))
        {
            span.len += u64::from(next.len);
            span.chunks.push(next);
        }
        debug_assert!(span.len <= SPAN || span.chunks[0].content == Content::Zero);
        Some(Ok(span))
    })
}

/// One thread per processor, at most four: hashing then is faster than any slot.
pub(super) fn default_threads() -> NonZeroUsize {
    // Asked once: the answer costs several reads of files.
    static THREADS: OnceLock<NonZeroUsize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        let most = NonZeroUsize::new(4).expect("four is not zero");
        thread::available_parallelism().map_or(NonZeroUsize::MIN, |found| found.min(most))
    })
}

/// Works through items in their order on several threads, each with its own buffer. The first error
/// ends it.
pub(super) fn in_parallel<T: Send, E: Send>(
    threads: NonZeroUsize,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(&mut Vec<u8>, T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let items = Mutex::new(items.fuse());
    let failure = Mutex::new(None);
    let run = || {
        let mut buffer = Vec::new();
        loop {
            let Some(item) = lock(&items).next() else { return };
            if lock(&failure).is_some() {
                return;
            }
            if let Err(error) = work(&mut buffer, item) {
                lock(&failure).get_or_insert(error);
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            // With fewer of them it takes longer; this thread works in any case.
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use storage::sim::Disk;

    use super::*;

    /// Chunks of zeros of these lengths, one after the other.
    pub(in super::super) fn zeros(lens: &[u32]) -> Vec<Chunk> {
        let mut offset = 0;
        let one = |(index, len): (u32, &u32)| {
            let chunk = Chunk { index, offset, len: *len, content: Content::Zero };
            offset += u64::from(*len);
            chunk
        };
        (0..).zip(lens).map(one).collect()
    }

    #[test]
    fn spans_hold_whole_neighbouring_chunks() {
        let mib = 1 << 20;
        let lens = [mib, 300_000, 700_000, 48_576, 1, 16 * mib, 5, mib];
        let chunks = zeros(&lens);
        let offset: u64 = lens.iter().map(|len| u64::from(*len)).sum();
        let indexes = |chunks: &[Chunk]| -> Vec<Vec<u32>> {
            let spans = spans::<()>(chunks.iter().copied().map(Ok)).map(Result::unwrap);
            spans.map(|span| span.chunks.iter().map(|chunk| chunk.index).collect()).collect()
        };
        assert_eq!(indexes(&chunks), [vec![0], vec![1, 2, 3], vec![4], vec![5], vec![6], vec![7]]);
        let gap = [chunks[1], chunks[3], chunks[4]];
        assert_eq!(indexes(&gap), [vec![1], vec![3, 4]], "only neighbours");

        let device = Disk::new(usize::try_from(offset).unwrap(), 512);
        let mut read = Vec::new();
        for span in spans::<()>(chunks.iter().copied().map(Ok)).map(Result::unwrap) {
            let mut buffer = Vec::new();
            span.read::<DeviceError>(&device, &mut buffer, |part| {
                match part {
                    Part::Whole(chunk, bytes) => {
                        assert_eq!(bytes.len(), chunk.len as usize);
                        read.push(chunk.index);
                    }
                    Part::Piece(chunk, bytes, last) => {
                        assert_eq!((chunk.index, bytes.len()), (5, mib as usize));
                        if last {
                            read.push(chunk.index);
                        }
                    }
                }
                Ok(())
            })
            .unwrap();
            assert!(buffer.len() <= mib as usize, "a disk in memory has no blocks");
        }
        assert_eq!(read, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_error_ends_all_threads() {
        let threads = NonZeroUsize::new(3).unwrap();
        let seen = AtomicU32::new(0);
        let done: Result<(), ()> = in_parallel(threads, 0..1000, |_, _: u32| {
            seen.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        assert_eq!((done, seen.load(Ordering::SeqCst)), (Ok(()), 1000));
        let endless = in_parallel(threads, 0.., |_, item: u64| match item {
            100 => Err(item),
            _ => Ok(()),
        });
        assert_eq!(endless, Err(100));
    }
}
