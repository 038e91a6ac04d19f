//! An image in a repository built by hand, and what a staging run did with it.

// Each test binary uses its own part of this; `unwrap` is allowed by itself only in `#[test]`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use formats::chunks::delta::{self, DeltaFrameEntry, DeltaList, runs};
use formats::chunks::{Builder, Chunk, ChunkList, Content, FrameEntry, seekable_table};
use formats::digest::{Digest, Sha256};
use formats::oci::{Descriptor, media_type};
use formats::reference::Namespace;
use formats::release::ComponentName;
use storage::block::BlockDevice;
use storage::layout::LayoutDir;
use storage::sim::{Disk, Operation};
use tempfile::TempDir;
use update_agent::list::List;
use update_agent::progress::Progress;
use update_agent::source::{FetchError, LayoutSource, Sink, Source, TufState};
use update_agent::stage::{
    Image, JournalPoint, Pace, Resume, Seed, StageError, Written, read_back, write_image_at,
};
use update_core::image::{ReadImage, Tally, is_zero};
use zstd::stream::raw::{CParameter, Encoder, Operation as _, OutBuffer};

/// Bytes that do not compress and differ by seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(len)
    .collect()
}

/// The chunks most tests use: data, zero runs short and long, all of odd lengths.
pub fn sample() -> Vec<Vec<u8>> {
    vec![
        noise(5000, 1),
        vec![7; 40_000],
        vec![0; 70_001],
        noise(1, 2),
        noise(100_000, 3),
        vec![0; 65_536],
        vec![0; (3 << 20) + 5],
        noise(30_000, 4),
        noise(12_345, 5),
        vec![0; 9],
        noise(1 << 20, 6),
    ]
}

/// What an encoder makes of more bytes: all of it, and the frame's end if they are the last.
fn packed(encoder: &mut Encoder<'_>, raw: &[u8], last: bool) -> Vec<u8> {
    let mut out = vec![0; zstd::zstd_safe::compress_bound(raw.len()) + 1024];
    let (mut read, mut written) = (0, 0);
    while read < raw.len() {
        let done = encoder.run_on_buffers(&raw[read..], &mut out[written..]).unwrap();
        read += done.bytes_read;
        written += done.bytes_written;
    }
    let mut room = OutBuffer::around(&mut out[written..]);
    let left = if last { encoder.finish(&mut room, true) } else { encoder.flush(&mut room) };
    assert_eq!(left.unwrap(), 0);
    written += room.pos();
    out.truncate(written);
    out
}

/// A blob of frames in parts.
fn solid(chunks: &[Vec<u8>], per_part: usize, parts: usize) -> (Vec<u8>, Vec<(FrameEntry, bool)>) {
    let (mut blob, mut entries, mut table) = (Vec::new(), Vec::new(), Vec::new());
    for group in chunks.chunks(per_part * parts) {
        let mut encoder = Encoder::new(3).unwrap();
        let start = blob.len();
        let count = group.len().div_ceil(per_part);
        for (number, part) in group.chunks(per_part).enumerate() {
            let bytes = packed(&mut encoder, &part.concat(), number + 1 == count);
            let (len, sha256) = (bytes.len() as u32, Sha256::of(&bytes));
            entries.push((FrameEntry { len, chunks: part.len() as u32, sha256 }, number > 0));
            blob.extend(bytes);
        }
        table.push(((blob.len() - start) as u32, group.concat().len() as u32));
    }
    blob.extend(seekable_table(&table));
    (blob, entries)
}

pub struct Repository {
    /// Removed when the last repository in it is gone.
    all: Arc<TempDir>,
    dir: PathBuf,
    pub component: ComponentName,
    /// The image.
    pub raw: Vec<u8>,
    pub list: ChunkList,
    /// The same as the agent has it.
    pub own: List,
    /// The first encoding's blob.
    pub blob: Descriptor,
    /// One for each encoding.
    pub blobs: Vec<Descriptor>,
}

impl Repository {
    /// One chunk per frame.
    pub fn new(chunks: &[Vec<u8>]) -> Self {
        Self::with_frames(chunks, 1, |_, _| {})
    }

    /// So many chunks per frame; `change` may exchange a frame before it is signed.
    pub fn with_frames(
        chunks: &[Vec<u8>],
        per_frame: usize,
        change: impl FnMut(usize, &mut Vec<u8>),
    ) -> Self {
        Self::with_forms(chunks, per_frame, None, change)
    }

    /// The same, and beside it a blob of larger frames in parts: so many chunks per part, so many
    /// parts per frame.
    pub fn with_forms(
        chunks: &[Vec<u8>],
        per_frame: usize,
        parts: Option<(usize, usize)>,
        mut change: impl FnMut(usize, &mut Vec<u8>),
    ) -> Self {
        let mut builder = Builder::default();
        for chunk in chunks {
            let data = Content::Data(Sha256::of(chunk));
            let content = if is_zero(chunk) { Content::Zero } else { data };
            builder.chunk(chunk.len() as u32, content);
        }
        let (mut blob, mut frames, mut table) = (Vec::new(), Vec::new(), Vec::new());
        for (number, group) in chunks.chunks(per_frame).enumerate() {
            let mut frame = zstd::bulk::compress(&group.concat(), 1).unwrap();
            change(number, &mut frame);
            let len = frame.len() as u32;
            let sha256 = Sha256::of(&frame);
            frames.push(FrameEntry { len, chunks: group.len() as u32, sha256 });
            table.push((len, group.concat().len() as u32));
            blob.extend(frame);
        }
        blob.extend(seekable_table(&table));
        builder.encoding(Sha256::of(&blob), blob.len() as u64, &frames);
        let all = Arc::new(tempfile::tempdir().unwrap());
        let dir = all.path().join("0");
        let layout = LayoutDir::create(&dir).unwrap();
        layout.put_blob(&blob).unwrap();
        let mut blobs = vec![Descriptor::of(media_type::IMAGE_BLOB, &blob)];
        if let Some((per_part, parts)) = parts {
            let (solid, entries) = solid(chunks, per_part, parts);
            layout.put_blob(&solid).unwrap();
            blobs.push(Descriptor::of(media_type::IMAGE_BLOB, &solid));
            builder.encoding_in_parts(Sha256::of(&solid), solid.len() as u64, entries.into_iter());
        }
        let list = builder.finish().unwrap();
        Repository {
            all,
            dir,
            component: "os".parse().unwrap(),
            raw: chunks.concat(),
            own: list.clone().into(),
            list,
            blob: blobs[0].clone(),
            blobs,
        }
    }

    /// A delta from another image, in frames of so many of the chunks that one does not have, each
    /// with all of its data as prefix. The blob is put beside the image.
    pub fn delta_from(&self, base: &Repository, per_frame: usize) -> (DeltaList, Descriptor) {
        let data = |repository: &Repository| -> Vec<Chunk> {
            let chunks = repository.list.chunks();
            chunks.filter(|chunk| chunk.content != Content::Zero).collect()
        };
        let known: Vec<Content> = data(base).iter().map(|chunk| chunk.content).collect();
        let changed: Vec<Chunk> =
            data(self).into_iter().filter(|chunk| !known.contains(&chunk.content)).collect();
        let bytes = |repository: &Repository, chunks: &[Chunk]| -> Vec<u8> {
            let part = |chunk: &Chunk| {
                repository.raw[chunk.offset as usize..][..chunk.len as usize].to_vec()
            };
            chunks.iter().flat_map(part).collect()
        };
        let prefix_chunks = data(base);
        let prefix = bytes(base, &prefix_chunks);
        let (mut blob, mut frames) = (Vec::new(), Vec::new());
        for content in changed.chunks(per_frame) {
            let raw = bytes(self, content);
            let mut encoder = zstd::stream::raw::Encoder::with_ref_prefix(3, &prefix).unwrap();
            encoder.set_parameter(CParameter::EnableLongDistanceMatching(true)).unwrap();
            encoder.set_parameter(CParameter::WindowLog(22)).unwrap();
            encoder.set_pledged_src_size(Some(raw.len() as u64)).unwrap();
            let frame = packed(&mut encoder, &raw, true);
            frames.push(DeltaFrameEntry {
                len: frame.len() as u32,
                sha256: Sha256::of(&frame),
                content: runs(content.iter().map(|chunk| chunk.index)),
                prefix: runs(prefix_chunks.iter().map(|chunk| chunk.index)),
            });
            blob.extend(frame);
        }
        LayoutDir::create(&self.dir).unwrap().put_blob(&blob).unwrap();
        let list = delta::build(&base.list, &self.list, Sha256::of(&blob), &frames).unwrap();
        (list, Descriptor::of(media_type::DELTA_BLOB, &blob))
    }

    /// Good until the last repository of the family is dropped.
    pub fn source(&self) -> LayoutSource {
        LayoutSource::open(&self.dir, Namespace::default()).unwrap()
    }

    fn blob_path(&self) -> PathBuf {
        self.dir.join("blobs/sha256").join(self.blob.digest.hex())
    }

    /// The same repository elsewhere, with the bytes of its blob changed.
    pub fn altered(&self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut blob = fs::read(self.blob_path()).unwrap();
        change(&mut blob);
        let count = fs::read_dir(self.all.path()).unwrap().count();
        let altered = Repository {
            all: Arc::clone(&self.all),
            dir: self.all.path().join(count.to_string()),
            component: self.component.clone(),
            raw: self.raw.clone(),
            list: self.list.clone(),
            own: self.list.clone().into(),
            blob: self.blob.clone(),
            blobs: self.blobs.clone(),
        };
        // An honest blob makes the folders.
        LayoutDir::create(&altered.dir).unwrap().put_blob(b"").unwrap();
        fs::write(altered.blob_path(), blob).unwrap();
        altered
    }

    /// The same repository elsewhere, with the bytes of one of its blobs changed.
    pub fn altered_blob(&self, blob: &Descriptor, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let altered = self.altered(|_| {});
        let from = self.dir.join("blobs/sha256");
        let to = altered.dir.join("blobs/sha256");
        for file in fs::read_dir(&from).unwrap() {
            let name = file.unwrap().file_name();
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
        let path = to.join(blob.digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
        altered
    }

    /// The same without one of its blobs.
    pub fn without_blob(&self, blob: &Descriptor) -> Self {
        let altered = self.altered_blob(blob, |_| {});
        fs::remove_file(altered.dir.join("blobs/sha256").join(blob.digest.hex())).unwrap();
        altered
    }

    /// The same with one bit of frame `number` flipped.
    pub fn with_bad_frame(&self, number: usize) -> Self {
        let range = self.frame(number);
        self.altered(|blob| blob[(range.start + range.end) as usize / 2] ^= 4)
    }

    /// Where frame `number` is in the blob.
    pub fn frame(&self, number: usize) -> Range<u64> {
        let frame = self.list.frames(&self.list.encodings()[0]).nth(number).unwrap();
        frame.offset..frame.offset + u64::from(frame.len)
    }

    pub fn chunk(&self, number: usize) -> Chunk {
        self.list.chunks().nth(number).unwrap()
    }

    /// Bytes of the frames that hold a data chunk for which `missing` is true.
    pub fn frame_bytes(&self, missing: impl Fn(&Chunk) -> bool) -> u64 {
        let chunks: Vec<Chunk> = self.list.chunks().collect();
        let frames = self.list.frames(&self.list.encodings()[0]);
        frames
            .filter(|frame| {
                let first = frame.first_chunk as usize;
                chunks[first..first + frame.chunks as usize]
                    .iter()
                    .any(|chunk| chunk.content != Content::Zero && missing(chunk))
            })
            .map(|frame| u64::from(frame.len))
            .sum()
    }

    /// A disk full of old bytes, a little longer than the image.
    pub fn disk(&self) -> Disk {
        Disk::with_content(vec![0xA5; self.raw.len() + 1000], 512)
    }

    pub fn image<'a>(&'a self, target: &'a dyn BlockDevice) -> Image<'a> {
        Image {
            component: &self.component,
            product: "demo",
            list: &self.own,
            blobs: &self.blobs,
            deltas: &[],
            target,
        }
    }

    /// Writes with frequent flushes.
    pub fn write(
        &self,
        target: &dyn BlockDevice,
        sources: &[&dyn Source],
    ) -> Result<Written, StageError> {
        self.write_with(target, sources, &[], Resume::default(), &mut |_| Ok(()))
    }

    pub fn write_with(
        &self,
        target: &dyn BlockDevice,
        sources: &[&dyn Source],
        seeds: &[Seed<'_>],
        resume: Resume,
        journal: &mut dyn FnMut(JournalPoint) -> Result<(), StageError>,
    ) -> Result<Written, StageError> {
        let image = self.image(target);
        write_image_at(&pace(), &image, sources, seeds, resume, &Notes::default(), journal)
            .map(|(written, _)| written)
    }

    /// All of it, whatever was read while it was written.
    pub fn read_back(&self, target: &dyn BlockDevice) -> Result<ReadImage, StageError> {
        read_back(&self.component, target, &self.own, Tally::new(&self.own), &Notes::default())
    }

    /// As an update does: what was read while it was written is not read again. Gives how many bytes were left.
    pub fn write_and_read_back(
        &self,
        target: &dyn BlockDevice,
        sources: &[&dyn Source],
    ) -> Result<(ReadImage, u64), StageError> {
        let (image, notes) = (self.image(target), Notes::default());
        let nothing = Resume::default();
        let (_, tally) =
            write_image_at(&pace(), &image, sources, &[], nothing, &notes, &mut |_| Ok(()))?;
        target.sync().unwrap();
        let proof = read_back(&self.component, target, &self.own, tally, &notes)?;
        let (name, left, done) = notes.work.into_inner().unwrap().pop().unwrap();
        assert_eq!((name.as_str(), left), ("read back os", done));
        Ok((proof, left))
    }

    /// Every byte that was written belongs to the signed list, whole chunks only, and
    /// nothing outside of the image changed.
    pub fn assert_only_signed_chunks(&self, disk: &Disk) {
        self.assert_only_signed_writes(disk);
        let (old, new) = (self.disk().content(), disk.content());
        assert!(new[self.raw.len()..] == old[self.raw.len()..], "behind the image");
    }

    /// Every write is one or several whole signed chunks where the list has them.
    pub fn assert_only_signed_writes(&self, disk: &Disk) {
        let mut zeros: Vec<Range<u64>> = Vec::new();
        for operation in disk.operations() {
            match operation {
                Operation::Write { offset, len } => {
                    let after = self.list.chunks().skip_while(|chunk| chunk.offset != offset);
                    let mut end = offset;
                    for chunk in after.take_while(|chunk| chunk.offset < offset + len) {
                        assert!(matches!(chunk.content, Content::Data(_)), "zeros were written");
                        end = chunk.offset + u64::from(chunk.len);
                    }
                    assert_eq!(end, offset + len, "whole chunks from {offset} on");
                }
                Operation::Zero { offset, len } => zeros.push(offset..offset + len),
                Operation::Sync => {}
            }
        }
        for range in zeros {
            let inside = self.list.chunks().filter(|chunk| range.contains(&chunk.offset));
            let inside: Vec<Chunk> = inside.collect();
            assert!(inside.iter().all(|chunk| chunk.content == Content::Zero), "{range:?}");
            let sum: u64 = inside.iter().map(|chunk| u64::from(chunk.len)).sum();
            assert_eq!(inside.first().map(|chunk| chunk.offset), Some(range.start));
            assert_eq!(sum, range.end - range.start, "whole zero chunks");
        }
    }
}

pub fn pace() -> Pace {
    Pace { threads: NonZeroUsize::new(3).unwrap(), sync_every: 16 << 10 }
}

/// What a journal says that cannot be written.
pub fn journal_lost() -> StageError {
    let (action, path) = ("write", "journal".into());
    let source = std::io::Error::other("the disk is gone");
    let refused = storage::FileError::Io { action, path, source };
    StageError::Journal(storage::StoreError::Write(refused))
}

pub fn code<T>(result: Result<T, StageError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.reason().code(),
    }
}

/// Progress that is remembered.
#[derive(Default)]
pub struct Notes {
    pub notes: Mutex<Vec<String>>,
    /// What, total, done.
    pub work: Mutex<Vec<(String, u64, u64)>>,
}

impl Progress for Notes {
    fn begin(&self, what: &str, total: u64) {
        self.work.lock().unwrap().push((what.to_owned(), total, 0));
    }

    fn advance(&self, bytes: u64) {
        self.work.lock().unwrap().last_mut().unwrap().2 += bytes;
    }

    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }

    fn end(&self) {}
}

/// A source that remembers what it was asked for, and does with it what a test wants.
pub struct Scripted<S> {
    pub inner: S,
    pub asked: Mutex<Vec<Vec<Range<u64>>>>,
    /// Given the number of the call: what to do.
    pub script: fn(usize) -> Act,
}

/// What a scripted source does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Honest,
    /// Gives the first so many ranges only, and calls it done.
    LeaveOut(usize),
    /// Fails after so many bytes.
    FailAfter(u64),
    /// Says that the bytes are from one byte further on.
    Shift,
    /// Gives everything, and then more.
    Excess,
}

impl<S> Scripted<S> {
    pub fn new(inner: S, script: fn(usize) -> Act) -> Self {
        Scripted { inner, asked: Mutex::default(), script }
    }

    /// Bytes asked for in call `number`.
    pub fn asked_bytes(&self, number: usize) -> u64 {
        self.asked.lock().unwrap()[number].iter().map(|range| range.end - range.start).sum()
    }

    pub fn calls(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl<S: Source> Source for Scripted<S> {
    fn describe(&self) -> String {
        "scripted".to_owned()
    }

    fn tuf_state(&self, known: Option<&str>) -> Result<TufState, FetchError> {
        self.inner.tuf_state(known)
    }

    fn tuf_file(&self, file: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        self.inner.tuf_file(file, max)
    }

    fn manifest(&self, product: &str, digest: &Digest, max: u64) -> Result<Vec<u8>, FetchError> {
        self.inner.manifest(product, digest, max)
    }

    fn blob(&self, product: &str, blob: &Descriptor, max: u64) -> Result<Vec<u8>, FetchError> {
        self.inner.blob(product, blob, max)
    }

    fn ranges(
        &self,
        product: &str,
        blob: &Descriptor,
        ranges: &[Range<u64>],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        let call = self.calls();
        self.asked.lock().unwrap().push(ranges.to_vec());
        match (self.script)(call) {
            Act::Honest => self.inner.ranges(product, blob, ranges, sink),
            Act::LeaveOut(count) => {
                self.inner.ranges(product, blob, &ranges[..count.min(ranges.len())], sink)
            }
            Act::FailAfter(bytes) => {
                let mut left = bytes;
                self.inner.ranges(product, blob, ranges, &mut |at, piece| {
                    let given = left.min(piece.len() as u64);
                    left -= given;
                    let flow = sink(at, &piece[..given as usize]);
                    if left == 0 { std::ops::ControlFlow::Break(()) } else { flow }
                })?;
                Err(FetchError::NoSuchPlace("unplugged".into()))
            }
            Act::Shift => {
                self.inner.ranges(product, blob, ranges, &mut |at, piece| sink(at + 1, piece))
            }
            Act::Excess => {
                self.inner.ranges(product, blob, ranges, sink)?;
                let _ = sink(blob.size, b"more");
                let _ = sink(0, b"again");
                Ok(())
            }
        }
    }

    fn bytes_fetched(&self) -> u64 {
        0
    }
}
