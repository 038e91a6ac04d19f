//! Proof that bytes are what was signed.
//!
//! Bytes do not pass through the update machine. The driver reads them, in any order and on any
//! number of threads, and hands each piece to [`check`]. A piece that fits gives a token that
//! nothing else can make; all tokens of an image give a [`ReadImage`]; the images of all components
//! give a [`StagedSlot`], without which no slot can be made next.

use formats::boot_record::{ReleaseId, Slot, SlotComponent, SlotContent};
use formats::chunks::{Chunk, Content, ListBytes, StoredList};
use formats::digest::Sha256;
use formats::release::ComponentName;

use crate::indexes::Indexes;

/// One chunk was read from the device and is what the signed list says.
#[derive(Debug, PartialEq, Eq)]
pub struct CheckedChunk {
    index: u32,
    list: Sha256,
}

/// A chunk that was read back is not what was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadBackError {
    /// Its bytes differ.
    #[error("chunk {index} at byte {offset} differs from the signed one")]
    Differs {
        /// Its place in the list.
        index: u32,
        /// Its offset in the image.
        offset: u64,
    },
    /// Not all chunks were read.
    #[error("{missing} of {all} chunks were not read back")]
    Incomplete {
        /// How many.
        missing: u32,
        /// Of how many.
        all: u32,
    },
    /// The images are not those of the release.
    #[error("the images read back are not the components to be staged")]
    Components,
}

/// Whether `bytes` are this chunk.
pub fn chunk_matches(chunk: &Chunk, bytes: &[u8]) -> bool {
    bytes.len() as u64 == u64::from(chunk.len)
        && match chunk.content {
            Content::Zero => is_zero(bytes),
            Content::Data(hash) => Sha256::of(bytes) == hash,
        }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Words first: the compiler makes wide compares of it.
    let (head, words, tail) = (bytes.len() % 16, bytes.chunks_exact(16), bytes);
    words.clone().all(|word| word == [0u8; 16])
        && tail.get(tail.len() - head..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

/// Checks a chunk that was read back.
pub fn check(list: Sha256, chunk: &Chunk, bytes: &[u8]) -> Result<CheckedChunk, ReadBackError> {
    if chunk_matches(chunk, bytes) {
        Ok(CheckedChunk { index: chunk.index, list })
    } else {
        Err(ReadBackError::Differs { index: chunk.index, offset: chunk.offset })
    }
}

/// Checks one zero chunk that is read in pieces, in order: it may be longer than any buffer.
#[derive(Debug)]
pub struct ZeroCheck {
    list: Sha256,
    index: u32,
    offset: u64,
    left: u64,
}

impl ZeroCheck {
    /// Nothing of the chunk was read yet; `None` when it is a data chunk.
    pub fn new(list: Sha256, chunk: &Chunk) -> Option<Self> {
        let Chunk { index, offset, len, content } = *chunk;
        (content == Content::Zero).then_some(ZeroCheck { list, index, offset, left: len.into() })
    }

    /// Takes the next bytes.
    pub fn piece(&mut self, bytes: &[u8]) -> Result<(), ReadBackError> {
        match self.left.checked_sub(bytes.len() as u64) {
            Some(left) if is_zero(bytes) => {
                self.left = left;
                Ok(())
            }
            _ => Err(self.differs()),
        }
    }

    /// The proof, once every byte of the chunk was taken.
    pub fn finish(self) -> Result<CheckedChunk, ReadBackError> {
        if self.left == 0 {
            Ok(CheckedChunk { index: self.index, list: self.list })
        } else {
            Err(self.differs())
        }
    }

    fn differs(&self) -> ReadBackError {
        ReadBackError::Differs { index: self.index, offset: self.offset }
    }
}

/// Counts the chunks of one image that were read back.
#[derive(Debug)]
pub struct Tally {
    list: Sha256,
    seen: Indexes,
    all: u32,
    missing: u32,
}

/// Every chunk of one image was read back and is what was signed.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadImage {
    list: Sha256,
}

impl Tally {
    /// Nothing was read yet. The list is that of its digest: it was compared when it was opened, and so
    /// is every block of it that a chunk is read from.
    pub fn new(list: &StoredList<impl ListBytes>) -> Self {
        let all = list.chunk_count();
        Tally { list: list.digest(), seen: Indexes::with_room(all), all, missing: all }
    }

    /// The digest of the list; [`check`] needs it.
    pub fn list(&self) -> Sha256 {
        self.list
    }

    /// Whether a chunk was read.
    pub fn has(&self, index: u32) -> bool {
        self.seen.has(index)
    }

    /// Takes one proof. One of another list counts for nothing.
    pub fn take(&mut self, chunk: CheckedChunk) {
        if chunk.list == self.list && chunk.index < self.all && self.seen.add(chunk.index) {
            self.missing -= 1;
        }
    }

    /// The proof for the whole image.
    pub fn finish(self) -> Result<ReadImage, ReadBackError> {
        if self.missing == 0 {
            Ok(ReadImage { list: self.list })
        } else {
            Err(ReadBackError::Incomplete { missing: self.missing, all: self.all })
        }
    }
}

/// The slot holds exactly this release: all components were flushed, read back and matched.
/// Made only by [`StagedSlot::new`], used up by the update machine.
#[derive(Debug, PartialEq, Eq)]
pub struct StagedSlot {
    slot: Slot,
    content: SlotContent,
}

impl StagedSlot {
    /// Puts the proofs of all components together; one proof per component, in order.
    pub fn new(
        slot: Slot,
        release: ReleaseId,
        components: Vec<SlotComponent>,
        images: Vec<ReadImage>,
    ) -> Result<Self, ReadBackError> {
        let same = components.len() == images.len()
            && !components.is_empty()
            && components
                .iter()
                .zip(&images)
                .all(|(component, image)| component.chunks.as_sha256() == Some(image.list));
        if same {
            let content = SlotContent { release, components, confirmed: false, order: vec![] };
            Ok(StagedSlot { slot, content })
        } else {
            Err(ReadBackError::Components)
        }
    }

    /// Which slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The same, with the order in which its release switches components.
    #[must_use]
    pub fn ordered(mut self, order: Vec<ComponentName>) -> Self {
        self.content.order = order;
        self
    }

    /// What it holds.
    pub fn into_content(self) -> SlotContent {
        self.content
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use formats::chunks::{Builder, FrameEntry, seekable_table_len};
    use formats::digest::Digest;
    use formats::version::Version;

    pub(crate) fn list(parts: &[&[u8]]) -> StoredList<Vec<u8>> {
        let mut builder = Builder::default();
        let mut frames = Vec::new();
        for part in parts {
            let content =
                if is_zero(part) { Content::Zero } else { Content::Data(Sha256::of(part)) };
            builder.chunk(part.len() as u32, content);
            frames.push(FrameEntry { len: 1, chunks: 1, sha256: Sha256::of(part) });
        }
        let count = frames.len() as u32;
        let size = u64::from(count) + seekable_table_len(count);
        builder.encoding(Sha256::of(b"blob"), size, &frames);
        builder.finish().unwrap().into()
    }

    pub(crate) fn staged(slot: Slot, release: ReleaseId) -> StagedSlot {
        let list = list(&[b"one"]);
        let mut tally = Tally::new(&list);
        let chunk = list.chunks().next().unwrap().unwrap();
        tally.take(check(tally.list(), &chunk, b"one").unwrap());
        let component = SlotComponent {
            name: "os".parse().unwrap(),
            manifest: Digest::sha256_of(b"m"),
            chunks: tally.list().into(),
            raw_size: 3,
        };
        StagedSlot::new(slot, release, vec![component], vec![tally.finish().unwrap()]).unwrap()
    }

    #[test]
    fn only_all_signed_chunks_make_an_image() {
        let list = list(&[b"one", &[0; 100], b"two"]);
        let chunks: Vec<_> = list.chunks().map(Result::unwrap).collect();
        let mut tally = Tally::new(&list);
        tally.take(check(tally.list(), &chunks[0], b"one").unwrap());
        tally.take(check(tally.list(), &chunks[0], b"one").unwrap());
        tally.take(check(tally.list(), &chunks[2], b"two").unwrap());
        // A proof of another list counts for nothing.
        tally.take(check(Sha256::of(b"other"), &chunks[1], &[0; 100]).unwrap());
        let has: Vec<bool> = [0, 1, 2, 3, 64].map(|index| tally.has(index)).into();
        assert_eq!(has, [true, false, true, false, false]);
        assert_eq!(tally.finish(), Err(ReadBackError::Incomplete { missing: 1, all: 3 }));
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let bytes: Vec<u8> = (0..100).collect();
        let zeros = vec![0u8; 100];
        let list = list(&[&bytes, &zeros]);
        for (chunk, good) in list.chunks().map(Result::unwrap).zip([bytes, zeros]) {
            assert!(chunk_matches(&chunk, &good));
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!chunk_matches(&chunk, &bad), "bit {bit}");
            }
            assert!(!chunk_matches(&chunk, &good[1..]), "short");
        }
    }

    #[test]
    fn zeros_in_pieces_prove_a_chunk_only_when_all_are_there() {
        let list = list(&[b"data", &[0; 100]]);
        let chunks: Vec<_> = list.chunks().map(Result::unwrap).collect();
        let digest = Tally::new(&list).list();
        assert!(ZeroCheck::new(digest, &chunks[0]).is_none(), "data");
        let differs = Err(ReadBackError::Differs { index: 1, offset: 4 });
        let pieces = |pieces: &[&[u8]]| {
            let mut check = ZeroCheck::new(digest, &chunks[1]).unwrap();
            pieces.iter().try_for_each(|piece| check.piece(piece))?;
            check.finish()
        };
        let proof = CheckedChunk { index: 1, list: digest };
        assert_eq!(pieces(&[&[0; 60], &[], &[0; 40]]), Ok(proof));
        assert_eq!(pieces(&[]), differs, "nothing");
        assert_eq!(pieces(&[&[0; 60], &[0; 39]]), differs, "too few");
        assert_eq!(pieces(&[&[0; 60], &[0; 41]]), differs, "too many");
        let mut bit = [0; 40];
        bit[39] = 0x80;
        assert_eq!(pieces(&[&[0; 60], &bit]), differs, "a bit");
    }

    #[test]
    fn components_and_proofs_must_fit() {
        let version: Version = "1".parse().unwrap();
        let release =
            ReleaseId { index: Sha256::of(b"i"), version: version.into(), security_version: 0 };
        assert_eq!(
            StagedSlot::new(Slot::B, release.clone(), vec![], vec![]),
            Err(ReadBackError::Components)
        );
        assert_eq!(staged(Slot::B, release).slot(), Slot::B);
    }
}
