#![cfg(test)]

use std::sync::Mutex;

use super::super::{Builder, Content, FrameEntry, seekable_table_len};
use super::*;

/// Chunks of 1 to 40 bytes and some zeros, enough for several blocks; one frame for each, and one in
/// parts of ten chunks.
fn sample(count: u32) -> ChunkList {
    let mut builder = Builder::default();
    let mut frames = Vec::new();
    for index in 0..count {
        let content = match index % 7 {
            3 => Content::Zero,
            _ => Content::Data(Sha256::of(&index.to_le_bytes())),
        };
        builder.chunk(1 + index % 40, content);
        frames.push(FrameEntry { len: 5, chunks: 1, sha256: Sha256::of(&[index as u8]) });
    }
    let size = 5 * u64::from(count) + seekable_table_len(count);
    builder.encoding(Sha256::of(b"small"), size, &frames);
    let entry = |chunks| FrameEntry { len: 9, chunks, sha256: Sha256::of(b"part") };
    let last = count / 10 - 1;
    let part = |part| (entry(if part == last { 10 + count % 10 } else { 10 }), part > 0);
    let parts: Vec<_> = (0..=last).map(part).collect();
    let size = 9 * parts.len() as u64 + seekable_table_len(1);
    builder.encoding_in_parts(Sha256::of(b"parts"), size, parts.into_iter());
    builder.finish().unwrap()
}

/// Bytes that somebody can change.
struct Changing(Mutex<Vec<u8>>);

impl ListBytes for Changing {
    fn len(&self) -> u64 {
        ListBytes::len(&*self.0.lock().unwrap())
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), String> {
        self.0.lock().unwrap().read(buf, offset)
    }
}

#[test]
fn what_is_read_in_blocks_is_the_list() {
    for count in [20, 1023, 1024, 1025, 5001] {
        let list = sample(count);
        let bytes = list.as_bytes().to_vec();
        let stored = StoredList::open(bytes.clone(), Sha256::of(&bytes)).unwrap();
        assert_eq!(stored.digest(), Sha256::of(&bytes));
        assert_eq!((stored.raw_size(), stored.chunk_count()), (list.raw_size(), count));
        assert_eq!(stored.encodings(), list.encodings());
        assert_eq!(stored.image_id(), Ok(list.image_id()));
        let chunks: Result<Vec<Chunk>, _> = stored.chunks().collect();
        assert_eq!(chunks.unwrap(), list.chunks().collect::<Vec<_>>());
        for encoding in list.encodings() {
            let frames: Result<Vec<Frame>, _> = stored.frames(encoding).collect();
            assert_eq!(frames.unwrap(), list.frames(encoding).collect::<Vec<_>>());
        }
        let all: Vec<Chunk> = list.chunks().collect();
        let mut entries = stored.entries();
        // Ascending with gaps, then anywhere (a step that shares no factor with the counts).
        for index in (0..count).step_by(9).chain((0..count).map(|n| n * 1019 % count)) {
            assert_eq!(entries.chunk(index).unwrap(), Some(all[index as usize]), "{index}");
        }
        assert_eq!(entries.chunk(count), Ok(None));
        assert_eq!(StoredList::<Vec<u8>>::from(list).digest(), stored.digest());
    }
}

#[test]
fn a_list_that_changes_while_it_is_used_is_noticed_wherever_it_does() {
    let list = sample(2000);
    let good = list.as_bytes().to_vec();
    let signed = Sha256::of(&good);
    let everything = |stored: &StoredList<Changing>| -> Result<(), ChunkListError> {
        stored.image_id()?;
        stored.chunks().try_for_each(|chunk| chunk.map(drop))?;
        for encoding in stored.encodings() {
            stored.frames(encoding).try_for_each(|frame| frame.map(drop))?;
        }
        Ok(())
    };
    let stored = StoredList::open(Changing(Mutex::new(good.clone())), signed).unwrap();
    assert_eq!(everything(&stored), Ok(()));
    let mut unseen = Vec::new();
    for at in (0..good.len()).step_by(331) {
        let block = at / LIST_BLOCK * LIST_BLOCK;
        stored.bytes().0.lock().unwrap()[at] ^= 1;
        if everything(&stored) != Err(ChunkListError::Changed(block as u64)) {
            unseen.push(at);
        }
        stored.bytes().0.lock().unwrap()[at] ^= 1;
    }
    assert_eq!(unseen, Vec::<usize>::new());
    // Cut off, it cannot be read; put back, it can.
    stored.bytes().0.lock().unwrap().truncate(good.len() - 1);
    assert!(everything(&stored).is_err());
    *stored.bytes().0.lock().unwrap() = good;
    assert_eq!(everything(&stored), Ok(()));
}

#[test]
fn another_list_than_the_signed_one_is_refused_before_it_is_parsed() {
    let bytes = sample(20).as_bytes().to_vec();
    let refused = StoredList::open(bytes.clone(), Sha256::of(b"another")).map(drop);
    assert_eq!(refused, Err(ChunkListError::Digest));
    assert_eq!(StoredList::open(vec![7; 99], Sha256([0; 32])).map(drop), refused);
    let signed_nonsense = StoredList::open(vec![7; 99], Sha256::of(&[7; 99])).map(drop);
    assert_eq!(signed_nonsense, Err(ChunkListError::Magic));
    for len in 0..bytes.len() {
        let short = bytes[..len].to_vec();
        let signed = Sha256::of(&short);
        assert!(StoredList::open(short, signed).is_err(), "{len} bytes");
    }
}

#[test]
fn only_a_list_that_was_made_here_needs_no_encoding() {
    let bytes = sample(20).as_bytes()[..24 + 20 * CHUNK].to_vec();
    let mut none = bytes.clone();
    none[20..24].copy_from_slice(&[0; 4]);
    assert_eq!(StoredList::own(none.clone()).unwrap().chunk_count(), 20);
    let signed = Sha256::of(&none);
    assert_eq!(StoredList::open(none, signed).map(drop), Err(ChunkListError::Encodings(0)));
}
