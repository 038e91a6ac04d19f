//! The pipeline: reader, workers, in-order writer.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use formats::chunks::{Builder, ChunkList, Content, FrameEntry, seekable_table};
use formats::digest::{Algorithm, Digest, Hasher, Sha256};

use super::ImageError;
use super::cut::{Cutter, DATA_AVERAGE, DATA_MAX, DATA_MIN, Piece, ZERO_CHUNK_MAX};

/// 1 MiB: large enough that the system reads ahead, small beside the queues.
const READ_SIZE: usize = 1 << 20;
/// Pieces in flight for each worker: enough that a slow one does not stop the others.
const QUEUE_PER_THREAD: usize = 8;

/// How an image is built.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// zstd level, 1 to 19: the window of higher levels is above the 8 MiB that nodes accept.
    pub level: i32,
    /// Compressing threads. Changes the speed, never the bytes.
    pub threads: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Options { level: 3, threads }
    }
}

impl Options {
    /// The `chunking` of an image's config.
    pub fn describe(&self) -> String {
        format!("fastcdc2020 {DATA_MIN}/{DATA_AVERAGE}/{DATA_MAX} zstd {}", self.level)
    }
}

/// An image whose blob was written, until the digest of the blob is known.
///
/// Whoever stores the blob hashes it anyway; hashing it here too would cost time and prove nothing.
#[derive(Debug)]
pub struct Written {
    raw_size: u64,
    raw_sha256: Sha256,
    blob_size: u64,
    list: Builder,
    frames: Vec<FrameEntry>,
}

impl Written {
    /// Length of the blob in bytes.
    pub fn blob_size(&self) -> u64 {
        self.blob_size
    }

    /// The image with its chunk list.
    pub fn finish(mut self, blob_sha256: Sha256) -> Result<BuiltImage, ImageError> {
        self.list.encoding(blob_sha256, self.blob_size, &self.frames);
        Ok(BuiltImage {
            raw_size: self.raw_size,
            raw_sha256: self.raw_sha256,
            blob_sha256,
            blob_size: self.blob_size,
            chunks: self.list.finish()?,
        })
    }
}

/// What is known of an image after its blob was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// Length of the image in bytes.
    pub raw_size: u64,
    /// SHA-256 of the image.
    pub raw_sha256: Sha256,
    /// SHA-256 of the blob.
    pub blob_sha256: Sha256,
    /// Length of the blob in bytes.
    pub blob_size: u64,
    /// The chunk list, as it will be signed.
    pub chunks: ChunkList,
}

/// A compressed piece.
struct Packed {
    piece: Piece,
    content: Content,
    frame: Vec<u8>,
    frame_sha256: Sha256,
}

/// A piece for a worker, and where its result is awaited.
struct Job {
    number: usize,
    piece: Piece,
    result: SyncSender<Result<Packed, ImageError>>,
}

/// The result of a piece, once a worker has it.
type Promise = Receiver<Result<Packed, ImageError>>;

/// Reads `source` to its end, which must be at `len`, and writes its blob to `sink`.
///
/// `progress` is told the number of raw bytes of each finished chunk. After an error the sink
/// holds the beginning of a blob and must be thrown away.
pub fn build(
    source: &mut (dyn Read + Send),
    len: u64,
    sink: &mut dyn Write,
    options: &Options,
    progress: &dyn Fn(u64),
) -> Result<Written, ImageError> {
    let depth = options.threads.get() * QUEUE_PER_THREAD;
    thread::scope(|scope| {
        let (jobs, work) = sync_channel::<Job>(depth);
        let (promises, results) = sync_channel::<Promise>(depth);
        let work = std::sync::Arc::new(Mutex::new(work));
        for _ in 0..options.threads.get() {
            let work = std::sync::Arc::clone(&work);
            scope.spawn(move || work_off(&work, options.level));
        }
        // Only the workers hold it now: when they are gone, the reader notices.
        drop(work);
        let reader = scope.spawn(move || read(source, len, &jobs, &promises));
        let written = write(results, sink, progress);
        // The reader has ended or ends now: `write` dropped its end of the queue.
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A failed read shows as an early end to the writer, so its error comes first.
        read.and(written)
    })
}

/// Cuts and queues. `Ok` when a queue is closed: whoever closed it has the error.
fn read(
    source: &mut dyn Read,
    len: u64,
    jobs: &SyncSender<Job>,
    promises: &SyncSender<Promise>,
) -> Result<(), ImageError> {
    struct Closed;
    let mut number = 0;
    let mut emit = |piece: Piece| {
        let (result, promise) = sync_channel(1);
        let job = Job { number, piece, result };
        number += 1;
        promises.send(promise).map_err(|_| Closed)?;
        jobs.send(job).map_err(|_| Closed)
    };
    let mut cutter = Cutter::default();
    let mut buffer = vec![0; READ_SIZE];
    let mut offset = 0u64;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(ImageError::Read { offset, source }),
        };
        offset += count as u64;
        if cutter.push(buffer.get(..count).unwrap_or_default(), &mut emit).is_err() {
            return Ok(());
        }
    }
    if offset != len {
        return Err(ImageError::Changed { expected: len, found: offset });
    }
    // A closed queue: the writer has the error.
    let _ = cutter.finish(&mut emit);
    Ok(())
}

/// Takes jobs until there are no more.
fn work_off(work: &Mutex<Receiver<Job>>, level: i32) {
    let mut packer = Packer { level, compressor: None, full_zeros: None };
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { number, piece, result }) = next else { return };
        let packed =
            packer.pack(piece).map_err(|source| ImageError::Compress { chunk: number, source });
        // Nobody waits any more after an error elsewhere.
        let _ = result.send(packed);
    }
}

struct Packer {
    level: i32,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    /// The frame of a zero chunk of full size: most zero chunks are.
    full_zeros: Option<Vec<u8>>,
}

impl Packer {
    fn pack(&mut self, piece: Piece) -> io::Result<Packed> {
        let (content, frame) = match &piece {
            Piece::Data(bytes) => (Content::Data(Sha256::of(bytes)), self.compress(bytes)?),
            Piece::Zeros(ZERO_CHUNK_MAX) => (Content::Zero, self.full_zeros()?),
            Piece::Zeros(len) => (Content::Zero, self.compress(&zeros(*len))?),
        };
        let frame_sha256 = Sha256::of(&frame);
        Ok(Packed { piece, content, frame, frame_sha256 })
    }

    fn full_zeros(&mut self) -> io::Result<Vec<u8>> {
        if self.full_zeros.is_none() {
            self.full_zeros = Some(self.compress(&zeros(ZERO_CHUNK_MAX))?);
        }
        Ok(self.full_zeros.clone().unwrap_or_default())
    }

    /// One frame with its content size in the header and no checksum: the chunk list has better.
    fn compress(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(zstd::bulk::Compressor::new(self.level)?),
        };
        compressor.compress(bytes)
    }
}

fn zeros(len: u64) -> Vec<u8> {
    vec![0; usize::try_from(len).expect("a zero chunk has at most 16 MiB")]
}

/// Keeps the promises in order.
fn write(
    results: Receiver<Promise>,
    sink: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<Written, ImageError> {
    let mut raw = Algorithm::Sha256.hasher();
    let mut list = Builder::default();
    let (mut frames, mut table) = (Vec::new(), Vec::new());
    let (mut raw_size, mut blob_size) = (0u64, 0u64);
    for promise in results {
        // A worker that is gone without an answer panicked; the scope reports that.
        let Ok(packed) = promise.recv() else { continue };
        let Packed { piece, content, frame, frame_sha256 } = packed?;
        let chunk_len = u32::try_from(piece.len()).expect("a piece has at most 16 MiB");
        // zstd adds at most half a per cent to 16 MiB.
        let frame_len = u32::try_from(frame.len()).expect("a frame is about its chunk's length");
        hash_piece(&mut raw, &piece);
        sink.write_all(&frame).map_err(ImageError::Write)?;
        list.chunk(chunk_len, content);
        frames.push(FrameEntry { len: frame_len, chunks: 1, sha256: frame_sha256 });
        table.push((frame_len, chunk_len));
        raw_size += piece.len();
        blob_size += u64::from(frame_len);
        progress(piece.len());
    }
    let table = seekable_table(&table);
    blob_size += table.len() as u64;
    sink.write_all(&table).and_then(|()| sink.flush()).map_err(ImageError::Write)?;
    Ok(Written { raw_size, raw_sha256: sha256(raw), blob_size, list, frames })
}

fn hash_piece(hasher: &mut Hasher, piece: &Piece) {
    const ZEROS: &[u8] = &[0; 64 << 10];
    match piece {
        Piece::Data(bytes) => hasher.update(bytes),
        Piece::Zeros(len) => {
            let mut left = usize::try_from(*len).expect("a zero chunk has at most 16 MiB");
            while left > 0 {
                let part = left.min(ZEROS.len());
                hasher.update(ZEROS.get(..part).unwrap_or(ZEROS));
                left -= part;
            }
        }
    }
}

fn sha256(hasher: Hasher) -> Sha256 {
    match hasher.finish() {
        Digest::Sha256(hash) => hash,
        Digest::Sha512(_) => unreachable!("the hasher was made for SHA-256"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn built(image: &[u8], threads: usize) -> (BuiltImage, Vec<u8>) {
        let options =
            Options { threads: NonZeroUsize::new(threads).unwrap(), ..Options::default() };
        let mut blob = Vec::new();
        let mut source = image;
        let built = build(&mut source, image.len() as u64, &mut blob, &options, &|_| {}).unwrap();
        (built.finish(Sha256::of(&blob)).unwrap(), blob)
    }

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            out.extend_from_slice(&seed.to_le_bytes());
        }
        out.truncate(len);
        out
    }

    fn images() -> Vec<(&'static str, Vec<u8>)> {
        let text = b"all work and no play ".repeat(50_000);
        vec![
            ("empty", vec![]),
            ("one byte", vec![1]),
            ("one zero", vec![0]),
            ("all zeros", vec![0; 40 << 20]),
            ("zeros of odd length", vec![0; (16 << 20) + 77]),
            ("not a multiple of 4096", noise(1_234_567, 1)),
            ("mixed", [noise(300_000, 2), vec![0; 200_000], text, vec![0; 70_000]].concat()),
        ]
    }

    /// The real tool is the judge: it accepts the blob and gives the image back.
    fn zstd(arguments: &[&str], blob: &[u8]) -> Vec<u8> {
        let mut child = Command::new("zstd")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the tests need the zstd tool (Debian: zstd)");
        let mut stdin = child.stdin.take().unwrap();
        let blob = blob.to_vec();
        let feeder = thread::spawn(move || stdin.write_all(&blob));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn zstd_gives_the_image_back() {
        for (name, image) in images() {
            let (_, blob) = built(&image, 2);
            zstd(&["-t", "-q"], &blob);
            assert!(zstd(&["-dc", "-q"], &blob) == image, "{name}");
        }
    }

    #[test]
    fn every_number_and_hash_is_right() {
        for (name, image) in images() {
            let (built, blob) = built(&image, 2);
            assert_eq!(built.raw_size, image.len() as u64, "{name}");
            assert_eq!(built.raw_sha256, Sha256::of(&image), "{name}");
            assert_eq!(built.blob_size, blob.len() as u64, "{name}");
            assert_eq!(built.blob_sha256, Sha256::of(&blob), "{name}");
            let encoding = built.chunks.encodings()[0];
            let frames: Vec<_> = built.chunks.frames(&encoding).collect();
            assert_eq!(frames.len(), built.chunks.chunk_count() as usize, "{name}");
            for (chunk, frame) in built.chunks.chunks().zip(&frames) {
                let raw = &image[chunk.offset as usize..][..chunk.len as usize];
                match chunk.content {
                    Content::Zero => assert!(raw.iter().all(|byte| *byte == 0), "{name}"),
                    Content::Data(hash) => assert_eq!(hash, Sha256::of(raw), "{name}"),
                }
                let packed = &blob[frame.offset as usize..][..frame.len as usize];
                assert_eq!(frame.sha256, Sha256::of(packed), "{name}");
                // Content size in the header, exactly one frame.
                assert!(zstd::bulk::decompress(packed, raw.len()).unwrap() == raw, "{name}");
                let size = zstd::zstd_safe::get_frame_content_size(packed).unwrap();
                assert_eq!(size, Some(raw.len() as u64), "{name}");
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        for (name, image) in images() {
            let one = built(&image, 1);
            for threads in [2, 3, 8] {
                assert!(built(&image, threads) == one, "{name} with {threads} threads");
            }
        }
    }

    #[test]
    fn failures_end_the_pipeline() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(buffer.len()).ok_or(io::ErrorKind::Other)?;
                buffer.fill(7);
                Ok(buffer.len())
            }
        }
        let image = noise(64 << 20, 3);
        let options = Options::default();
        let full =
            build(&mut &image[..], image.len() as u64, &mut Full(1 << 20), &options, &|_| {});
        assert!(matches!(full, Err(ImageError::Write(_))), "{full:?}");
        let broken = build(&mut Broken(3 << 20), 9 << 20, &mut io::sink(), &options, &|_| {});
        assert!(matches!(broken, Err(ImageError::Read { offset: 3145728, .. })), "{broken:?}");
        let grown = build(&mut &image[..], 5, &mut io::sink(), &options, &|_| {});
        assert!(matches!(grown, Err(ImageError::Changed { expected: 5, .. })), "{grown:?}");
    }

    #[test]
    fn a_source_is_a_file_or_a_block_device() {
        use super::super::Source;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image");
        std::fs::write(&file, b"abc").unwrap();
        assert_eq!(Source::open(&file).unwrap().len(), 3);
        assert!(matches!(Source::open(dir.path()), Err(ImageError::Kind { .. })));
        let missing = Source::open(&dir.path().join("missing"));
        assert!(matches!(missing, Err(ImageError::Open { .. })));
        assert!(matches!(Source::open("/dev/null".as_ref()), Err(ImageError::Kind { .. })));
    }
}
