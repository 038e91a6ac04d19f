//! Lists of chunks, deltas, and compressed frames.

use formats::chunks::{ChunkList, delta::DeltaList};
use update_agent::stage::Unpacker;

/// The chunk list of an image: every range it names lies within the image.
pub fn chunk_list(data: &[u8]) -> bool {
    let Ok(list) = ChunkList::parse(data.to_vec()) else { return false };
    assert_eq!(list.as_bytes(), data);
    let mut at = 0;
    for chunk in list.chunks() {
        assert_eq!(chunk.offset, at);
        at += u64::from(chunk.len);
    }
    assert_eq!(at, list.raw_size());
    for encoding in list.encodings() {
        let _ = list.frames(encoding).count();
    }
    true
}

/// A delta between two images, checked against a chunk list that stands for both.
pub fn delta_list(data: &[u8]) -> bool {
    let Ok(delta) = DeltaList::parse(data.to_vec()) else { return false };
    assert_eq!(delta.as_bytes(), data);
    let _ = delta.frames().count();
    if let Ok(list) = ChunkList::parse(crate::seeds::chunk_list()) {
        let _ = delta.check_against(&list, &list);
    }
    true
}

/// A compressed frame in two parts, with a prefix or without: the first byte says where it is cut and whether there
/// is a prefix, the second how long its content is to be.
pub fn frame(data: &[u8]) -> bool {
    let [how, len, frame @ ..] = data else { return false };
    let prefix = crate::seeds::PREFIX;
    let unpacker = if how & 1 == 1 { Unpacker::with_prefix(prefix) } else { Unpacker::new() };
    let mut unpacker = unpacker.expect("a decompressor");
    let mut content = vec![0; usize::from(*len)];
    let whole = unpacker.begin(frame).and_then(|mut unpacking| {
        unpacking.fill(&mut content)?;
        unpacking.finish()
    });
    let at = frame.len() * usize::from(how >> 1) / 128;
    let (first, second) = frame.split_at(at);
    let mut parts = vec![0; content.len()];
    if let (Ok(()), Ok(mut other)) = (&whole, Unpacker::new()) {
        let _ = other.begin(first).map(|mut unpacking| unpacking.fill(&mut parts));
        let _ = other.go_on(second).fill(&mut parts);
    }
    whole.is_ok()
}
