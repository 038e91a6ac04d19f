//! The pipeline: reader, workers, in-order writer.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use formats::chunks::{Builder, ChunkList, Content, FrameEntry, seekable_table};
use formats::digest::{Algorithm, Hasher, Sha256};

use super::ImageError;
use super::cut::{Cutter, DATA_AVERAGE, DATA_MAX, DATA_MIN, Piece};
use super::frame::{Frame, sha256};
use super::pack::{Grouped, Job, Packed, Promise, large_level, work_off};
use super::reuse::{Known, Name};

/// 1 MiB: large enough that the system reads ahead, small beside the queues.
const READ_SIZE: usize = 1 << 20;
/// Pieces in flight for each worker: enough that a slow one does not stop the others.
const QUEUE_PER_THREAD: usize = 8;
/// 16 MiB: a large frame holds the chunks that begin in one such stretch of the image. By stretches of 8 MiB
/// a full install is 2 % larger; by those of 32 it is 1 % smaller, but who is cut off inside a frame fetches
/// 0.8 MiB twice on average, instead of 0.3.
const STRETCH: u64 = 16 << 20;
/// 512 KiB: content of a part of it, which a node holds whole to verify it first, and loses when it is killed.
const PART_MIN: usize = 512 << 10;
/// 1 MiB: zeros from there on are a frame of their own, which no node fetches.
const ZEROS_APART: u64 = 1 << 20;

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
    /// The `chunking` of an image's config: all that the bytes of frames follow from, but the content.
    /// Frames are copied from images that say the same. So it changes with anything that changes them.
    pub fn describe(&self) -> String {
        let (large, stretch) = (large_level(self.level), STRETCH >> 20);
        let cut = format!("{DATA_MIN}/{DATA_AVERAGE}/{DATA_MAX}, ends of files");
        let zstd = zstd::zstd_safe::version_string();
        let small = self.level;
        format!("fastcdc2020 {cut}, zstd {zstd}, alone {small}, by {stretch} MiB {large} long")
    }
}

/// Where the two blobs of an image go.
pub struct Sinks<'a> {
    /// One frame for each chunk: for nodes that have most of them.
    pub fine: &'a mut dyn Write,
    /// Frames of many chunks: for nodes that have none.
    pub solid: &'a mut dyn Write,
}

/// An image whose blobs were written, until their digests are known.
///
/// Whoever stores a blob hashes it anyway; hashing it here too would cost time and prove nothing.
#[derive(Debug)]
pub struct Written {
    raw_size: u64,
    raw_sha256: Sha256,
    list: Builder,
    fine: Layer,
    solid: Layer,
}

impl Written {
    /// Length of the fine blob in bytes.
    pub fn fine_size(&self) -> u64 {
        self.fine.size
    }

    /// Length of the solid blob in bytes; `None` when it is no smaller than the fine one, and so of
    /// no use: what was written of it must be deleted.
    pub fn solid_size(&self) -> Option<u64> {
        (self.solid.size < self.fine.size).then_some(self.solid.size)
    }

    /// The image with its chunk list, of the blobs that were kept.
    pub fn finish(mut self, fine: Sha256, solid: Option<Sha256>) -> Result<BuiltImage, ImageError> {
        let parts = |layer: &Layer| layer.parts.clone().into_iter();
        self.list.encoding_in_parts(fine, self.fine.size, parts(&self.fine));
        if let Some(solid) = solid {
            self.list.encoding_in_parts(solid, self.solid.size, parts(&self.solid));
        }
        let (raw_size, raw_sha256) = (self.raw_size, self.raw_sha256);
        Ok(BuiltImage { raw_size, raw_sha256, chunks: self.list.finish()? })
    }
}

/// What is known of an image after its blobs were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// Length of the image in bytes.
    pub raw_size: u64,
    /// SHA-256 of the image.
    pub raw_sha256: Sha256,
    /// The chunk list, as it will be signed.
    pub chunks: ChunkList,
}

/// Reads `source` to its end, which must be at `len`, and writes its blobs to the sinks.
///
/// `progress` is told the number of raw bytes of each finished chunk. After an error the sinks
/// hold the beginnings of blobs and must be deleted.
pub fn build(
    source: &mut (dyn Read + Send),
    len: u64,
    sinks: Sinks<'_>,
    options: &Options,
    known: Option<&Known>,
    progress: &dyn Fn(u64),
) -> Result<Written, ImageError> {
    let depth = options.threads.get() * QUEUE_PER_THREAD;
    thread::scope(|scope| {
        let (jobs, work) = sync_channel::<Job>(depth);
        let (promises, results) = sync_channel::<Promise<Packed>>(depth);
        let work = Arc::new(Mutex::new(work));
        for running in 0..options.threads.get() {
            let work = Arc::clone(&work);
            let worker = move || work_off(&work, options.level, known);
            match thread::Builder::new().spawn_scoped(scope, worker) {
                Err(error) if running == 0 => return Err(ImageError::Threads(error)),
                // With fewer of them it takes longer.
                Err(_) => break,
                Ok(_) => {}
            }
        }
        // Only the workers hold it now: when they are gone, the reader notices.
        drop(work);
        let groups = jobs.clone();
        let reader = thread::Builder::new()
            .spawn_scoped(scope, move || read(source, len, &jobs, &promises))
            .map_err(ImageError::Threads)?;
        let writer = Writer {
            raw: Algorithm::Sha256.hasher(),
            raw_size: 0,
            list: Builder::default(),
            fine: Blob { sink: sinks.fine, layer: Layer::default() },
            solid: Solid {
                blob: Blob { sink: sinks.solid, layer: Layer::default() },
                offset: 0,
                group: Group::default(),
                pending: VecDeque::new(),
                pending_max: options.threads.get() + 1,
                jobs: groups,
            },
        };
        let written = writer.write(results, progress);
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
    promises: &SyncSender<Promise<Packed>>,
) -> Result<(), ImageError> {
    struct Closed;
    let mut number = 0;
    let mut emit = |piece: Piece| {
        let (result, promise) = sync_channel(1);
        let job = Job::Piece(number, piece, result);
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
        // Whoever appends to it faster than it is read would never let it end.
        if offset > len {
            return Err(ImageError::Changed { expected: len, found: offset });
        }
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

/// Keeps the promises in order.
struct Writer<'a> {
    raw: Hasher,
    raw_size: u64,
    list: Builder,
    fine: Blob<'a>,
    solid: Solid<'a>,
}

impl Writer<'_> {
    fn write(
        mut self,
        results: Receiver<Promise<Packed>>,
        progress: &dyn Fn(u64),
    ) -> Result<Written, ImageError> {
        for (number, promise) in results.into_iter().enumerate() {
            // A worker that is gone without an answer panicked; the scope reports that.
            let Ok(packed) = promise.recv() else { continue };
            let Packed { piece, content, frame } = packed?;
            let len = piece.len();
            hash_piece(&mut self.raw, &piece);
            self.list.chunk(u32::try_from(len).expect("a piece has at most 16 MiB"), content);
            self.raw_size += len;
            self.fine.put(&frame, 1, false)?;
            self.fine.end_frame(len);
            self.solid.take(number, piece, &content, frame)?;
            progress(len);
        }
        Ok(Written {
            raw_size: self.raw_size,
            raw_sha256: sha256(self.raw),
            list: self.list,
            fine: self.fine.end()?,
            solid: self.solid.end()?,
        })
    }
}

/// The frames of a blob.
#[derive(Debug, Default)]
struct Layer {
    size: u64,
    /// Its frames or their parts, and whether each goes on with the one before.
    parts: Vec<(FrameEntry, bool)>,
    /// Compressed and raw length of each whole frame.
    table: Vec<(u32, u32)>,
    /// Compressed length of the frame whose parts are being written.
    begun: u64,
}

struct Blob<'a> {
    sink: &'a mut dyn Write,
    layer: Layer,
}

impl Blob<'_> {
    /// Writes a frame or a part of one.
    fn put(&mut self, frame: &Frame, chunks: u32, continues: bool) -> Result<(), ImageError> {
        self.sink.write_all(&frame.bytes).map_err(ImageError::Write)?;
        // zstd adds at most half a per cent to a part.
        let len = u32::try_from(frame.bytes.len()).expect("a frame is about its content's length");
        let layer = &mut self.layer;
        layer.parts.push((FrameEntry { len, chunks, sha256: frame.sha256 }, continues));
        layer.size += u64::from(len);
        layer.begun += u64::from(len);
        Ok(())
    }

    /// The frame is whole, of so many raw bytes.
    fn end_frame(&mut self, raw: u64) {
        let len = u32::try_from(std::mem::take(&mut self.layer.begun));
        let raw = u32::try_from(raw).expect("a frame has at most 17 MiB of content");
        self.layer.table.push((len.expect("a frame is about its content's length"), raw));
    }

    fn end(mut self) -> Result<Layer, ImageError> {
        let table = seekable_table(&self.layer.table);
        self.layer.size += table.len() as u64;
        let written = self.sink.write_all(&table).and_then(|()| self.sink.flush());
        written.map_err(ImageError::Write)?;
        Ok(self.layer)
    }
}

/// The blob of large frames: groups that are being compressed, and the one that still grows.
struct Solid<'a> {
    blob: Blob<'a>,
    /// Offset of the next piece in the image.
    offset: u64,
    group: Group,
    pending: VecDeque<Pending>,
    /// Each holds up to 16 MiB until a worker is done with it.
    pending_max: usize,
    jobs: SyncSender<Job>,
}

#[derive(Default)]
struct Group {
    /// Number of its first piece.
    first: usize,
    content: Grouped,
    name: Name,
    /// The stretch of the image that it is of.
    stretch: u64,
    /// The frame of its first chunk: all there is to a group of one.
    alone: Option<Frame>,
}

struct Pending {
    frame: Awaited,
    /// Chunks of each part.
    chunks: Vec<u32>,
    raw: u64,
}

enum Awaited {
    Ready(Frame),
    Promised(Promise<Vec<Frame>>),
}

impl Solid<'_> {
    fn take(
        &mut self,
        number: usize,
        piece: Piece,
        content: &Content,
        frame: Frame,
    ) -> Result<(), ImageError> {
        let raw = piece.len();
        let stretch = self.offset / STRETCH;
        self.offset += raw;
        if matches!(piece, Piece::Zeros(len) if len >= ZEROS_APART) {
            self.close()?;
            return self.queue(Pending { frame: Awaited::Ready(frame), chunks: vec![1], raw });
        }
        if self.group.stretch != stretch {
            self.close()?;
        }
        let group = &mut self.group;
        let Grouped { bytes, ends, chunks } = &mut group.content;
        group.name.chunk(raw, content);
        if chunks.is_empty() {
            (group.first, group.stretch) = (number, stretch);
            group.alone = Some(frame);
        } else {
            group.alone = None;
        }
        let begun = bytes.len() - ends.last().copied().unwrap_or(0);
        match chunks.last_mut() {
            Some(last) if begun < PART_MIN => *last += 1,
            // The first part of all, or the one before is long enough.
            last => {
                if last.is_some() {
                    ends.push(bytes.len());
                }
                chunks.push(1);
            }
        }
        match piece {
            Piece::Data(data) => bytes.extend_from_slice(&data),
            Piece::Zeros(len) => {
                let len = usize::try_from(len).expect("below ZEROS_APART");
                bytes.resize(bytes.len() + len, 0);
            }
        }
        Ok(())
    }

    /// Hands the group to a worker.
    fn close(&mut self) -> Result<(), ImageError> {
        let Group { first, mut content, name, alone, .. } = std::mem::take(&mut self.group);
        let (raw, chunks) = (content.bytes.len() as u64, content.chunks.clone());
        let frame = match alone {
            _ if chunks.is_empty() => return Ok(()),
            Some(frame) => Awaited::Ready(frame),
            None => {
                content.ends.push(content.bytes.len());
                let (result, promise) = sync_channel(1);
                // Workers live as long as this sender; one that panicked shows at the promise.
                let _ = self.jobs.send(Job::Group(first, name.finish(), content, result));
                Awaited::Promised(promise)
            }
        };
        self.queue(Pending { frame, chunks, raw })
    }

    fn queue(&mut self, pending: Pending) -> Result<(), ImageError> {
        self.pending.push_back(pending);
        while self.pending.len() > self.pending_max {
            self.settle()?;
        }
        Ok(())
    }

    /// Writes the oldest group.
    fn settle(&mut self) -> Result<(), ImageError> {
        let Some(Pending { frame, chunks, raw }) = self.pending.pop_front() else { return Ok(()) };
        let parts = match frame {
            Awaited::Ready(frame) => vec![frame],
            Awaited::Promised(promise) => match promise.recv() {
                Ok(parts) => parts?,
                Err(_) => return Ok(()),
            },
        };
        for (number, (part, chunks)) in parts.iter().zip(chunks).enumerate() {
            self.blob.put(part, chunks, number > 0)?;
        }
        self.blob.end_frame(raw);
        Ok(())
    }

    fn end(mut self) -> Result<Layer, ImageError> {
        self.close()?;
        while !self.pending.is_empty() {
            self.settle()?;
        }
        self.blob.end()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn built(image: &[u8], threads: usize) -> (BuiltImage, Vec<Vec<u8>>) {
        let options =
            Options { threads: NonZeroUsize::new(threads).unwrap(), ..Options::default() };
        let (mut fine, mut solid) = (Vec::new(), Vec::new());
        let mut source = image;
        let sinks = Sinks { fine: &mut fine, solid: &mut solid };
        let built = build(&mut source, image.len() as u64, sinks, &options, None, &|_| {}).unwrap();
        assert_eq!(built.fine_size(), fine.len() as u64);
        let kept = built.solid_size();
        let built = built.finish(Sha256::of(&fine), kept.map(|_| Sha256::of(&solid))).unwrap();
        let solid = kept.map(|size| {
            assert_eq!(size, solid.len() as u64);
            solid
        });
        (built, std::iter::once(fine).chain(solid).collect())
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
            for (layer, blob) in built(&image, 2).1.iter().enumerate() {
                zstd(&["-t", "-q"], blob);
                assert!(zstd(&["-dc", "-q"], blob) == image, "{name}, layer {layer}");
            }
        }
    }

    #[test]
    fn every_number_and_hash_is_right() {
        for (name, image) in images() {
            let (built, blobs) = built(&image, 2);
            assert_eq!(built.raw_size, image.len() as u64, "{name}");
            assert_eq!(built.raw_sha256, Sha256::of(&image), "{name}");
            for chunk in built.chunks.chunks() {
                let raw = &image[chunk.offset as usize..][..chunk.len as usize];
                match chunk.content {
                    Content::Zero => assert!(raw.iter().all(|byte| *byte == 0), "{name}"),
                    Content::Data(hash) => assert_eq!(hash, Sha256::of(raw), "{name}"),
                }
            }
            let lengths: Vec<usize> =
                built.chunks.chunks().map(|chunk| chunk.len as usize).collect();
            assert_eq!(built.chunks.encodings().len(), blobs.len(), "{name}");
            for (encoding, blob) in built.chunks.encodings().iter().zip(&blobs) {
                assert_eq!(encoding.blob, Sha256::of(blob), "{name}");
                let mut rest = image.as_slice();
                let parts: Vec<_> = built.chunks.frames(encoding).collect();
                for part in &parts {
                    let packed = &blob[part.offset as usize..][..part.len as usize];
                    assert_eq!(part.sha256, Sha256::of(packed), "{name}");
                }
                for frame in parts.chunk_by(|_, next| next.continues) {
                    let chunks =
                        frame[0].first_chunk as usize..frame.last().unwrap().chunks().end as usize;
                    let len = lengths[chunks].iter().sum();
                    let (raw, after) = rest.split_at(len);
                    rest = after;
                    let packed = frame.iter().map(|part| part.len as usize).sum();
                    let packed = &blob[frame[0].offset as usize..][..packed];
                    // Content size in the header, exactly one frame.
                    assert!(zstd::bulk::decompress(packed, len).unwrap() == raw, "{name}");
                    let size = zstd::zstd_safe::get_frame_content_size(packed).unwrap();
                    assert_eq!(size, Some(len as u64), "{name}");
                }
                assert!(rest.is_empty(), "{name}");
            }
        }
    }

    /// What a part holds comes out as soon as it has arrived.
    #[test]
    fn large_frames_come_in_parts_that_need_nothing_after_them() {
        use zstd::stream::raw::{Decoder, Operation as _};
        let image = [noise(300_000, 8).repeat(70), vec![0; 3 << 20], noise(2 << 20, 9)].concat();
        let (built, blobs) = built(&image, 2);
        assert!(blobs[1].len() < blobs[0].len() / 3);
        let list = built.chunks;
        let parts: Vec<_> = list.frames(&list.encodings()[1]).collect();
        let frames = parts.iter().filter(|part| !part.continues).count();
        assert!((3..6).contains(&frames) && parts.len() > 20, "{frames} of {} parts", parts.len());
        let chunks: Vec<_> = list.chunks().collect();
        let zeros = chunks.iter().find(|chunk| chunk.content == Content::Zero).unwrap();
        let of_zeros = parts.iter().find(|part| part.first_chunk == zeros.index).unwrap();
        assert!(of_zeros.chunks == 1 && !of_zeros.continues, "long zeros are a frame of their own");
        let mut decoder = Decoder::new().unwrap();
        for part in &parts {
            if !part.continues {
                decoder.reinit().unwrap();
            }
            let held = &chunks[part.chunks().start as usize..part.chunks().end as usize];
            let len: usize = held.iter().map(|chunk| chunk.len as usize).sum();
            let mut packed = &blobs[1][part.offset as usize..][..part.len as usize];
            let (mut raw, mut at) = (vec![0; len], 0);
            while at < len {
                let done = decoder.run_on_buffers(packed, &mut raw[at..]).unwrap();
                assert!(done.bytes_read + done.bytes_written > 0, "part at {}", part.offset);
                packed = &packed[done.bytes_read..];
                at += done.bytes_written;
            }
            assert!(raw == image[held[0].offset as usize..][..len], "part at {}", part.offset);
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
        fn run(
            source: &mut (dyn Read + Send),
            len: u64,
            fine: &mut dyn Write,
            solid: &mut dyn Write,
        ) -> Result<Written, ImageError> {
            build(source, len, Sinks { fine, solid }, &Options::default(), None, &|_| {})
        }
        let image = noise(64 << 20, 3);
        let len = image.len() as u64;
        let full = run(&mut &image[..], len, &mut Full(1 << 20), &mut io::sink());
        assert!(matches!(full, Err(ImageError::Write(_))), "{full:?}");
        let full = run(&mut &image[..], len, &mut io::sink(), &mut Full(1 << 20));
        assert!(matches!(full, Err(ImageError::Write(_))), "{full:?}");
        let broken = run(&mut Broken(3 << 20), 9 << 20, &mut io::sink(), &mut io::sink());
        assert!(matches!(broken, Err(ImageError::Read { offset: 3145728, .. })), "{broken:?}");
        let grown = run(&mut &image[..], 5, &mut io::sink(), &mut io::sink());
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
