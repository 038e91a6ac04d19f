#![cfg(test)]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use formats::chunks::{Builder, Chunk, ChunkList, FrameEntry, seekable_table_len};
use formats::digest::{Digest, Sha256};
use storage::host::System;
use storage::sim::Disk;

use super::*;
use crate::progress::Silent;
use crate::source::{FetchError, Sink, TufState};
use crate::stage::{StageError, read_back};
use crate::state::State;
use update_core::image::Tally;

/// Chunks of 16 bytes: 76 bytes of list for each.
const LEN: u32 = 16;

fn image(chunks: u32) -> Vec<u8> {
    (0..chunks)
        .flat_map(|index| Sha256::of(&index.to_le_bytes()).0[..LEN as usize].to_vec())
        .collect()
}

fn list_of(image: &[u8]) -> ChunkList {
    let mut builder = Builder::default();
    let mut frames = Vec::new();
    for chunk in image.chunks(LEN as usize) {
        builder.chunk(LEN, Content::Data(Sha256::of(chunk)));
        frames.push(FrameEntry { len: 1, chunks: 1, sha256: Sha256::of(chunk) });
    }
    let count = u32::try_from(frames.len()).unwrap();
    builder.encoding(Sha256([0; 32]), u64::from(count) + seekable_table_len(count), &frames);
    builder.finish().unwrap()
}

/// Gives one blob, in pieces of 1,000 bytes.
struct Blob(Vec<u8>);

impl Source for Blob {
    fn describe(&self) -> String {
        "a test".to_owned()
    }

    fn tuf_state(&self, _known: Option<&str>) -> Result<TufState, FetchError> {
        unreachable!("nobody asks for metadata")
    }

    fn tuf_file(&self, _file: &Descriptor, _max: u64) -> Result<Vec<u8>, FetchError> {
        unreachable!("nobody asks for metadata")
    }

    fn manifest(&self, _: &str, _: &Digest, _: u64) -> Result<Vec<u8>, FetchError> {
        unreachable!("nobody asks for manifests")
    }

    fn blob(&self, _: &str, _: &Descriptor, _: u64) -> Result<Vec<u8>, FetchError> {
        Ok(self.0.clone())
    }

    fn ranges(
        &self,
        _product: &str,
        _blob: &Descriptor,
        ranges: &[Range<u64>],
        sink: &mut Sink<'_>,
    ) -> Result<(), FetchError> {
        assert_eq!(ranges, std::slice::from_ref(&(0..self.0.len() as u64)));
        for (number, piece) in self.0.chunks(1000).enumerate() {
            if sink(1000 * number as u64, piece).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn bytes_fetched(&self) -> u64 {
        0
    }
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn chunks(list: &List) -> Vec<Chunk> {
    list.chunks().map(Result::unwrap).collect()
}

#[test]
fn a_long_list_is_in_a_file_and_a_short_one_is_held() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("state");
    let state = State::open(&path, Arc::new(System)).unwrap();
    let held = state.hold().unwrap();
    for (count, in_a_file) in [(1, false), (3400, false), (3500, true), (9000, true)] {
        let known = list_of(&image(count));
        let blob = Descriptor::of("list", known.as_bytes());
        let source = Blob(known.as_bytes().to_vec());
        let temporary = || names(&path).iter().filter(|name| name.starts_with(".tmp-")).count();

        // Dropped, it leaves nothing.
        drop(state.fetch_chunk_list("demo", &source, &blob).unwrap());
        assert_eq!(temporary(), 0, "{count} chunks");
        let list = state.fetch_chunk_list("demo", &source, &blob).unwrap();
        assert_eq!(matches!(list.bytes(), ListFile::Temporary(..)), in_a_file, "{count} chunks");
        assert_eq!(temporary(), usize::from(in_a_file), "{count} chunks");
        assert_eq!(chunks(&list), known.chunks().collect::<Vec<_>>());
        assert!(state.chunk_list(&blob.digest).is_none(), "nothing was kept");

        // Kept twice, as by a run that is interrupted, it is the same file and can still be read.
        state.keep_chunk_list(&held, &list).unwrap();
        state.keep_chunk_list(&held, &list).unwrap();
        assert_eq!(chunks(&list), known.chunks().collect::<Vec<_>>());
        let kept = state.chunk_list(&blob.digest).unwrap();
        assert_eq!(matches!(kept.bytes(), ListFile::Kept(..)), in_a_file, "{count} chunks");
        drop(list);
        state.keep_chunk_list(&held, &kept).unwrap();
        assert_eq!(chunks(&kept), known.chunks().collect::<Vec<_>>());
        assert_eq!(names(&path.join("chunks")), [blob.digest.hex()]);
        state.forget_chunk_lists(&held, &[]).unwrap();
        assert!(state.chunk_list(&blob.digest).is_none());
    }
}

#[test]
fn another_list_than_the_signed_one_is_refused_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("state");
    let state = State::open(&path, Arc::new(System)).unwrap();
    for count in [1, 9000] {
        let mut bytes = list_of(&image(count)).as_bytes().to_vec();
        let blob = Descriptor::of("list", &bytes);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let error = state.fetch_chunk_list("demo", &Blob(bytes), &blob).unwrap_err();
        assert_eq!(error.reason(), Reason::HashMismatch, "{}", error.chain());
        assert_eq!(names(&path), Vec::<String>::new());
    }
}

/// The slot holds the image and the list is the signed one, until somebody writes to its file: no proof
/// comes of it, though each changed entry describes what the slot holds.
#[test]
fn a_list_that_is_changed_in_its_file_proves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("state");
    let state = State::open(&path, Arc::new(System)).unwrap();
    let held = state.hold().unwrap();
    let (good, other) = (image(9000), image(9001)[LEN as usize..].to_vec());
    let (known, wrong) = (list_of(&good), list_of(&other));
    let blob = Descriptor::of("list", known.as_bytes());
    let name: formats::release::ComponentName = "os".parse().unwrap();
    let fetched = state.fetch_chunk_list("demo", &Blob(known.as_bytes().to_vec()), &blob).unwrap();
    state.keep_chunk_list(&held, &fetched).unwrap();
    let kept = state.chunk_list(&blob.digest).unwrap();
    let slot = |content: &[u8]| Disk::with_content(content.to_vec(), 512);
    for list in [&fetched, &kept] {
        assert!(read_back(&name, &slot(&good), list, Tally::new(list), &Silent).is_ok());
        let error = read_back(&name, &slot(&other), list, Tally::new(list), &Silent).unwrap_err();
        assert_eq!(error.reason(), Reason::Readback);
    }
    let file = path.join("chunks").join(blob.digest.hex());
    let changed = fs::OpenOptions::new().write(true).open(&file).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&changed, wrong.as_bytes(), 0).unwrap();
    for list in [&fetched, &kept] {
        let error = read_back(&name, &slot(&other), list, Tally::new(list), &Silent).unwrap_err();
        assert!(matches!(error, StageError::List { .. }), "{error}");
        assert_eq!(error.reason(), Reason::StoreCorrupt);
    }
    assert!(state.chunk_list(&blob.digest).is_none(), "it is not taken for that list again");
}

#[test]
fn what_is_found_on_a_device_is_a_list_of_the_same_image() {
    let temp = tempfile::tempdir().unwrap();
    let room = PrivateDir::create(&temp.path().join("state")).unwrap();
    for count in [0, 1, 7000, 9000] {
        let image = image(count);
        let mut found = Found::new(&room).unwrap();
        for chunk in image.chunks(LEN as usize) {
            found.take(LEN, Content::Data(Sha256::of(chunk))).unwrap();
        }
        let file = found.finish().unwrap();
        assert_eq!(matches!(file, ListFile::Temporary(..)), count > 7280, "{count} chunks");
        let list = List::own(file).unwrap();
        assert_eq!(u64::from(list.chunk_count()) * u64::from(LEN), list.raw_size());
        if count > 0 {
            assert_eq!(list.image_id().unwrap(), list_of(&image).image_id());
        }
    }
}
