//! Where an image is cut into chunks. Pure: bytes in, pieces out.
//!
//! ```text
//! image   │ data ............ │ zeros (≥ 64 KiB, from a 4 KiB boundary) │ data ... │
//! pieces  │ d │  d  │ d │ d   │  zeros ≤ 16 MiB   │  zeros             │  d  │ d  │
//! ```
//!
//! Zero runs are split off first, so that a hole never moves the cuts of the data around it and
//! is neither fetched nor written byte by byte. What lies between is cut by content (FastCDC 2020,
//! 8/64/256 KiB), so that an insertion changes only the chunks it touches.
//!
//! A file system lays files out in whole blocks, so the last block of most ends in zeros. That, too,
//! ends an extent of data: a file that changed then shares no chunk with a neighbour that did not,
//! and one that moved is found again. Between two Debian systems a tenth to a quarter less is fetched
//! for it.

use fastcdc::v2020::{Normalization, cut, select_masks};

/// Zeros are looked for in whole blocks of this size, the page and block size of file systems.
pub const BLOCK: usize = 4096;
/// 64 KiB: a shorter run costs less inside a data chunk than as a chunk of its own.
pub const ZERO_RUN_MIN: u64 = 64 << 10;
/// 16 MiB: bounds what a reader must hold to check one zero chunk's frame.
pub const ZERO_CHUNK_MAX: u64 = 16 << 20;
/// 16 KiB: an extent ends with a file only from there on, so that small files share a chunk.
pub const EXTENT_MIN: u64 = 16 << 10;
/// So many zeros at the end of a block tell that a file ends in it. Fewer stand in data by chance.
pub const FILE_END: usize = 32;
/// Smallest data chunk, except the last of its extent.
pub const DATA_MIN: usize = 8 << 10;
/// Size at which FastCDC starts to look for a cut more eagerly.
pub const DATA_AVERAGE: usize = 64 << 10;
/// Largest data chunk.
pub const DATA_MAX: usize = 256 << 10;

/// A piece of the image: one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes, 1 to [`DATA_MAX`].
    Data(Vec<u8>),
    /// That many zeros, 1 to [`ZERO_CHUNK_MAX`].
    Zeros(u64),
}

impl Piece {
    /// Length in the image, bytes.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::Zeros(len) => *len,
        }
    }

    /// Never: a piece has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Cuts a stream. The pieces depend on the bytes alone, not on how they were handed in.
#[derive(Debug)]
pub struct Cutter {
    /// Bytes of a block that is not complete yet.
    partial: Vec<u8>,
    /// Data of the extent at hand that has no cut yet, from `start` on.
    data: Vec<u8>,
    start: usize,
    /// Bytes of the extent at hand, cut or not.
    extent: u64,
    /// Zeros after `data`: a run of their own, or data, depending on how many follow.
    zeros: u64,
    mask_s: u64,
    mask_l: u64,
}

impl Default for Cutter {
    fn default() -> Self {
        let (mask_s, mask_l) = select_masks(DATA_AVERAGE, Normalization::Level1);
        Cutter {
            partial: Vec::new(),
            data: Vec::new(),
            start: 0,
            extent: 0,
            zeros: 0,
            mask_s,
            mask_l,
        }
    }
}

impl Cutter {
    /// Takes the next bytes of the image and hands out every piece that is now certain.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        emit: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.partial.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.partial.len()));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < BLOCK {
                return Ok(());
            }
            let block = std::mem::take(&mut self.partial);
            self.block(&block, emit)?;
        }
        let mut blocks = bytes.chunks_exact(BLOCK);
        for block in &mut blocks {
            self.block(block, emit)?;
        }
        self.partial.extend_from_slice(blocks.remainder());
        Ok(())
    }

    /// Hands out the rest.
    pub fn finish<E>(mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        let last = std::mem::take(&mut self.partial);
        if !last.is_empty() {
            self.block(&last, emit)?;
        }
        if self.zeros >= ZERO_RUN_MIN {
            self.end_extent(emit)
        } else {
            self.absorb_zeros();
            self.cut_all(emit)
        }
    }

    fn block<E>(
        &mut self,
        block: &[u8],
        emit: &mut impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        if ZEROS.starts_with(block) {
            self.zeros += block.len() as u64;
            return Ok(());
        }
        if self.zeros >= ZERO_RUN_MIN {
            self.end_extent(emit)?;
        }
        self.absorb_zeros();
        self.data.extend_from_slice(block);
        self.extent += block.len() as u64;
        if self.extent >= EXTENT_MIN && block.ends_with(&[0; FILE_END]) {
            return self.cut_all(emit);
        }
        // A cut looks at DATA_MAX bytes and no further: with those at hand it is final.
        while self.data.len() - self.start >= DATA_MAX {
            self.cut_one(emit)?;
        }
        Ok(())
    }

    fn absorb_zeros(&mut self) {
        let zeros = usize::try_from(self.zeros).expect("shorter than ZERO_RUN_MIN");
        self.data.resize(self.data.len() + zeros, 0);
        self.extent += self.zeros;
        self.zeros = 0;
    }

    fn end_extent<E>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        self.cut_all(emit)?;
        while self.zeros > 0 {
            let len = self.zeros.min(ZERO_CHUNK_MAX);
            self.zeros -= len;
            emit(Piece::Zeros(len))?;
        }
        Ok(())
    }

    fn cut_all<E>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        while self.start < self.data.len() {
            self.cut_one(emit)?;
        }
        self.data.clear();
        self.start = 0;
        self.extent = 0;
        Ok(())
    }

    fn cut_one<E>(&mut self, emit: &mut impl FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        let rest = self.data.get(self.start..).unwrap_or_default();
        let (mask_s, mask_l) = (self.mask_s, self.mask_l);
        let (_, len) =
            cut(rest, DATA_MIN, DATA_AVERAGE, DATA_MAX, mask_s, mask_l, mask_s << 1, mask_l << 1);
        let piece = rest.get(..len).unwrap_or(rest).to_vec();
        self.start += piece.len();
        if self.start >= 4 * DATA_MAX {
            self.data.drain(..self.start);
            self.start = 0;
        }
        emit(Piece::Data(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(image: &[u8], step: usize) -> Vec<Piece> {
        let mut out = Vec::new();
        let mut emit = |piece| -> Result<(), std::convert::Infallible> {
            out.push(piece);
            Ok(())
        };
        let mut cutter = Cutter::default();
        for part in image.chunks(step) {
            cutter.push(part, &mut emit).unwrap();
        }
        cutter.finish(&mut emit).unwrap();
        out
    }

    fn join(pieces: &[Piece]) -> Vec<u8> {
        let mut image = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Data(bytes) => image.extend_from_slice(bytes),
                Piece::Zeros(len) => image.resize(image.len() + *len as usize, 0),
            }
        }
        image
    }

    /// xorshift64*: bytes that look random and are the same on every machine.
    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            seed ^= seed >> 12;
            seed ^= seed << 25;
            seed ^= seed >> 27;
            out.extend_from_slice(&seed.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        out.truncate(len);
        out
    }

    #[test]
    fn pieces_are_the_image_and_keep_their_sizes() {
        let k = 1024;
        type Row = (&'static str, Vec<u8>, Option<Vec<u64>>);
        let cases: Vec<Row> = vec![
            ("empty", vec![], Some(vec![])),
            ("one byte", vec![7], Some(vec![1])),
            ("one zero", vec![0], Some(vec![1])),
            ("short zeros stay data", vec![0; 64 * k - 1], None),
            ("a run", vec![0; 64 * k], Some(vec![64 << 10])),
            ("an odd run at the end", vec![0; 64 * k + 1], Some(vec![(64 << 10) + 1])),
            ("more than one zero chunk", vec![0; (16 << 20) + 5], Some(vec![16 << 20, 5])),
            ("noise of odd length", noise(3_000_001, 1), None),
            (
                "data, short zeros, data",
                [noise(5000, 2), vec![0; 60 * k], noise(5000, 3)].concat(),
                None,
            ),
            ("data, run, data", [noise(8192, 4), vec![0; 128 * k], noise(100, 5)].concat(), {
                Some(vec![8192, 128 << 10, 100])
            }),
        ];
        for (name, image, lengths) in cases {
            let cut = pieces(&image, 1 << 20);
            assert!(join(&cut) == image, "{name}");
            for piece in &cut {
                let limit = match piece {
                    Piece::Data(_) => DATA_MAX as u64,
                    Piece::Zeros(_) => ZERO_CHUNK_MAX,
                };
                assert!(!piece.is_empty() && piece.len() <= limit, "{name}: {}", piece.len());
            }
            if let Some(lengths) = lengths {
                assert_eq!(cut.iter().map(Piece::len).collect::<Vec<_>>(), lengths, "{name}");
            }
        }
    }

    #[test]
    fn the_size_of_reads_changes_nothing() {
        let image =
            [noise(700_001, 6), vec![0; 300_000], noise(1_000_003, 7), vec![0; 70_000]].concat();
        let whole = pieces(&image, image.len());
        for step in [1000, 4096, 4097, 65_536, 1 << 20] {
            assert!(pieces(&image, step) == whole, "reads of {step} bytes");
        }
    }

    #[test]
    fn an_insertion_is_local() {
        let base = noise(8 << 20, 8);
        let changed = [&base[..1 << 20], b"inserted", &base[1 << 20..]].concat();
        let (a, b) = (pieces(&base, 1 << 20), pieces(&changed, 1 << 20));
        let new = b.iter().filter(|piece| !a.contains(piece)).count();
        assert!(a.len() > 50 && new <= 4, "{new} of {} chunks changed", a.len());
    }

    /// A file as a file system lays it out: whole blocks, the last one filled up with zeros.
    fn file(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = noise(len, seed);
        bytes.resize(len.next_multiple_of(BLOCK), 0);
        bytes
    }

    #[test]
    fn files_share_no_chunk_with_their_neighbours() {
        let parts = |sizes: &[(usize, u64)]| -> Vec<u8> {
            sizes.iter().flat_map(|(len, seed)| file(*len, *seed)).collect()
        };
        let before = parts(&[(40_000, 11), (70_000, 12), (50_000, 13), (300_000, 14)]);
        // One changed in place, one moved behind it.
        let after = parts(&[(40_000, 11), (50_000, 13), (70_000, 15), (300_000, 14)]);
        let (a, b) = (pieces(&before, 1 << 20), pieces(&after, 1 << 20));
        let new: u64 = b.iter().filter(|piece| !a.contains(piece)).map(Piece::len).sum();
        assert_eq!(new, 73_728, "the changed file, in whole blocks, and nothing else");

        let small = parts(&[(3000, 21), (3000, 22), (3000, 23), (3000, 24), (3000, 25)]);
        let lengths: Vec<u64> = pieces(&small, 1 << 20).iter().map(Piece::len).collect();
        assert_eq!(lengths, [16 << 10, 4 << 10], "small files share a chunk");
    }

    #[test]
    fn data_behind_a_hole_is_cut_as_if_it_stood_alone() {
        let tail = noise(2 << 20, 9);
        let alone = pieces(&tail, 1 << 20);
        let behind = pieces(&[noise(4096 * 3, 10), vec![0; 1 << 20], tail].concat(), 1 << 20);
        assert_eq!(behind[behind.len() - alone.len()..], alone);
    }
}
