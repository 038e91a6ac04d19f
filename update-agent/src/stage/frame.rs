//! One zstd frame, whole or part by part, decompressed chunk by chunk into buffers of the caller
//! (RFC 8878 §3.1.1).
//!
//! A frame is taken only in one form: a zstd frame (neither skippable nor legacy), no dictionary,
//! a window of at most 8 MiB, exactly as much content as was signed, and nothing after it. Lengths
//! it claims are never allocated by.

use std::io;

use formats::reason::Reason;
use zstd::stream::raw::{DParameter, Decoder, Operation as _};

const WINDOW_LOG_MAX: u32 = 23;
/// 8 MiB: what every decoder takes, and the most that is asked of any (RFC 9659 §3).
pub(super) const WINDOW_MAX: u64 = 1 << WINDOW_LOG_MAX;
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Why bytes are not the frame that was signed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Skippable, legacy, or no frame at all.
    #[error("it is not a zstd frame")]
    Magic,
    /// It needs a dictionary.
    #[error("it needs a dictionary")]
    Dictionary,
    /// It needs more memory than we give.
    #[error("its window has {0} bytes, more than 8 MiB")]
    Window(u64),
    /// Compressed, it is longer than we hold at a time.
    #[error("it has {0} bytes, more than 9 MiB")]
    TooLong(u32),
    /// zstd could not decompress it.
    #[error("decompress")]
    Damaged(#[source] io::Error),
    /// It ends before its content does.
    #[error("it is cut off")]
    CutOff,
    /// More follows: another frame, or anything else.
    #[error("{0} bytes follow the frame")]
    Trailing(usize),
    /// Its content is shorter than signed.
    #[error("its content is shorter than signed")]
    Short,
    /// Its content is longer than signed.
    #[error("its content is longer than signed")]
    Long,
}

impl FrameError {
    /// The stable reason.
    pub fn reason(&self) -> Reason {
        match self {
            FrameError::Short | FrameError::Long => Reason::LengthMismatch,
            // zstd has its own allocator, and a name for that alone.
            FrameError::Damaged(error) if error.to_string().contains("not enough memory") => {
                Reason::ResourceLimit
            }
            _ => Reason::Decompress,
        }
    }
}

/// A decompressor, used for one frame after the other.
pub struct Unpacker<'p> {
    zstd: Decoder<'p>,
    /// The last frame's end was seen.
    ended: bool,
    /// Nothing was decompressed yet: a prefix lasts for one frame, and a reset would lose it.
    fresh: bool,
}

/// A frame that is being decompressed.
pub struct Unpacking<'a, 'p> {
    zstd: &'a mut Decoder<'p>,
    /// What zstd has not taken yet.
    left: &'a [u8],
    /// zstd has seen the end of the frame and handed out all of it.
    ended: &'a mut bool,
}

impl<'p> Unpacker<'p> {
    /// For frames without a prefix.
    ///
    /// # Errors
    ///
    /// zstd cannot make a decompressor (memory).
    pub fn new() -> Result<Self, FrameError> {
        Self::limited(Decoder::new())
    }

    /// For one frame that was compressed with a prefix.
    ///
    /// # Errors
    ///
    /// As of [`Unpacker::new`].
    pub fn with_prefix(prefix: &'p [u8]) -> Result<Self, FrameError> {
        Self::limited(Decoder::with_ref_prefix(prefix))
    }

    fn limited(zstd: io::Result<Decoder<'p>>) -> Result<Self, FrameError> {
        let mut zstd = zstd.map_err(FrameError::Damaged)?;
        zstd.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(FrameError::Damaged)?;
        Ok(Unpacker { zstd, ended: true, fresh: true })
    }

    /// Begins a frame, of which `bytes` is all there is, or the first part.
    ///
    /// # Errors
    ///
    /// Its header is not one we take.
    pub fn begin<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Unpacking<'a, 'p>, FrameError> {
        check_header(bytes)?;
        if !std::mem::take(&mut self.fresh) {
            self.zstd.reinit().map_err(FrameError::Damaged)?;
        }
        self.ended = false;
        Ok(Unpacking { zstd: &mut self.zstd, left: bytes, ended: &mut self.ended })
    }

    /// Goes on with the next part of the frame that was begun.
    pub fn go_on<'a>(&'a mut self, bytes: &'a [u8]) -> Unpacking<'a, 'p> {
        Unpacking { zstd: &mut self.zstd, left: bytes, ended: &mut self.ended }
    }
}

impl Unpacking<'_, '_> {
    /// Fills `out` with the next bytes of the content.
    ///
    /// # Errors
    ///
    /// The frame is damaged, cut off, or its content is shorter.
    pub fn fill(&mut self, mut out: &mut [u8]) -> Result<(), FrameError> {
        while !out.is_empty() {
            let written = self.step(out)?;
            out = out.get_mut(written..).unwrap_or_default();
            if *self.ended && !out.is_empty() {
                return Err(match self.left.len() {
                    0 => FrameError::Short,
                    more => FrameError::Trailing(more),
                });
            }
        }
        Ok(())
    }

    /// The content must end here, and the frame with it.
    ///
    /// # Errors
    ///
    /// It goes on, or bytes follow it.
    pub fn finish(mut self) -> Result<(), FrameError> {
        while !*self.ended {
            // Room for one byte: zstd must have none to put there.
            if self.step(&mut [0])? > 0 {
                return Err(FrameError::Long);
            }
        }
        match self.left.len() {
            0 => Ok(()),
            more => Err(FrameError::Trailing(more)),
        }
    }

    /// The part must end here, and the frame must not.
    pub(super) fn pause(mut self) -> Result<(), FrameError> {
        // Content may also wait inside zstd, of a part it has taken whole.
        while !*self.ended {
            match self.step(&mut [0]) {
                Ok(0) => {}
                Ok(_) => return Err(FrameError::Long),
                Err(FrameError::CutOff) => break,
                Err(error) => return Err(error),
            }
        }
        match (*self.ended, self.left.len()) {
            (false, _) => Ok(()),
            (true, 0) => Err(FrameError::Short),
            (true, more) => Err(FrameError::Trailing(more)),
        }
    }

    /// Bytes written to `out`, unless nothing moves any more.
    fn step(&mut self, out: &mut [u8]) -> Result<usize, FrameError> {
        if *self.ended {
            return Ok(0);
        }
        let status = self.zstd.run_on_buffers(self.left, out).map_err(FrameError::Damaged)?;
        self.left = self.left.get(status.bytes_read..).unwrap_or_default();
        *self.ended = status.remaining == 0;
        if !*self.ended && status.bytes_read == 0 && status.bytes_written == 0 {
            return Err(FrameError::CutOff);
        }
        Ok(status.bytes_written)
    }
}

/// Refuses what zstd would take, or refuses only on some of its paths: with room for all of the
/// content it never looks at the window.
///
/// | bytes | meaning |
/// |---|---|
/// | 4 | magic, little-endian `FD2FB528` |
/// | 1 | descriptor: bit 5 single segment (no window byte), bits 0–1 length of a dictionary id |
/// | 0, 1 | window: `2^(10 + bits 3–7)`, and so many eighths of that more as bits 0–2 say |
fn check_header(frame: &[u8]) -> Result<(), FrameError> {
    let (magic, rest) = frame.split_first_chunk::<4>().ok_or(FrameError::Magic)?;
    if *magic != MAGIC {
        return Err(FrameError::Magic);
    }
    let (descriptor, rest) = rest.split_first().ok_or(FrameError::CutOff)?;
    if descriptor & 3 != 0 {
        return Err(FrameError::Dictionary);
    }
    // The window of a single segment is its content. A content above the buffer makes zstd
    // stream, and then it does look.
    if descriptor & 0x20 == 0 {
        let window = rest.first().ok_or(FrameError::CutOff)?;
        let base = 1_u64 << (10 + (window >> 3));
        let size = base + base / 8 * u64::from(window & 7);
        if size > WINDOW_MAX {
            return Err(FrameError::Window(size));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(frame: &[u8], chunks: &[usize]) -> Result<Vec<u8>, FrameError> {
        let mut unpacker = Unpacker::new()?;
        let mut unpacking = unpacker.begin(frame)?;
        let mut content = Vec::new();
        for len in chunks {
            let mut out = vec![0; *len];
            unpacking.fill(&mut out)?;
            content.extend(out);
        }
        unpacking.finish()?;
        Ok(content)
    }

    fn pack(content: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(content, 3).unwrap()
    }

    /// Blocks of one raw byte each after any header.
    fn raw_block(byte: u8, last: bool) -> [u8; 4] {
        [8 | u8::from(last), 0, 0, byte]
    }

    #[test]
    fn chunks_come_out_of_one_frame_in_order() {
        let content: Vec<u8> = (0..700_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for checksum in [false, true] {
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(checksum).unwrap();
            io::Write::write_all(&mut encoder, &content).unwrap();
            let frame = encoder.finish().unwrap();
            for chunks in [vec![700_000], vec![1, 699_998, 1], vec![100_000; 7]] {
                assert!(unpack(&frame, &chunks).unwrap() == content, "{chunks:?}");
            }
        }
        assert!(unpack(&pack(&content), &[700_000]).unwrap() == content);
    }

    #[test]
    fn a_frame_comes_in_parts() {
        let content: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        let mut ends = Vec::new();
        for part in content.chunks(100_000) {
            io::Write::write_all(&mut encoder, part).unwrap();
            io::Write::flush(&mut encoder).unwrap();
            ends.push(encoder.get_ref().len());
        }
        let frame = encoder.finish().unwrap();
        *ends.last_mut().unwrap() = frame.len();
        let mut unpacker = Unpacker::new().unwrap();
        for _ in 0..2 {
            let (mut start, mut out) = (0, vec![0; 100_000]);
            for (number, end) in ends.iter().enumerate() {
                let part = &frame[start..*end];
                let mut unpacking = match number {
                    0 => unpacker.begin(part).unwrap(),
                    _ => unpacker.go_on(part),
                };
                unpacking.fill(&mut out).unwrap();
                assert!(out == content[number * 100_000..][..100_000]);
                match number {
                    2 => unpacking.finish().unwrap(),
                    _ => unpacking.pause().unwrap(),
                }
                start = *end;
            }
        }
        // A part that is cut off, one that holds more, and one after which the frame is over.
        let mut out = vec![0; 100_000];
        let cut = unpacker.begin(&frame[..ends[0] - 1]).unwrap().fill(&mut out);
        assert!(matches!(cut, Err(FrameError::CutOff)), "{cut:?}");
        let mut long = unpacker.begin(&frame[..ends[1]]).unwrap();
        long.fill(&mut out).unwrap();
        assert!(matches!(long.pause(), Err(FrameError::Long)));
        let whole = pack(&[7; 100_000]);
        let mut over = unpacker.begin(&whole).unwrap();
        over.fill(&mut out).unwrap();
        assert!(matches!(over.pause(), Err(FrameError::Short)));
    }

    #[test]
    fn a_prefix_is_needed_for_what_was_compressed_with_it() {
        let prefix: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
        let mut encoder = zstd::stream::raw::Encoder::with_ref_prefix(3, &prefix).unwrap();
        let mut frame = vec![0; 300_000];
        let done = encoder.run_on_buffers(&prefix, &mut frame).unwrap();
        assert_eq!(done.bytes_read, prefix.len());
        let mut at = done.bytes_written;
        let mut rest = zstd::stream::raw::OutBuffer::around(&mut frame[at..]);
        assert_eq!(encoder.finish(&mut rest, true).unwrap(), 0);
        at += rest.pos();
        frame.truncate(at);
        assert!(frame.len() < 1000, "{}", frame.len());
        let mut out = vec![0; prefix.len()];
        let mut unpacker = Unpacker::with_prefix(&prefix).unwrap();
        let mut unpacking = unpacker.begin(&frame).unwrap();
        unpacking.fill(&mut out).unwrap();
        unpacking.finish().unwrap();
        assert!(out == prefix);
        let mut without = Unpacker::new().unwrap();
        assert!(without.begin(&frame).unwrap().fill(&mut out).is_err() || out != prefix);
    }

    #[test]
    fn an_unpacker_recovers_from_a_bad_frame() {
        let good = pack(b"racklet");
        let mut unpacker = Unpacker::new().unwrap();
        let mut out = [0; 7];
        assert!(unpacker.begin(&good[..8]).unwrap().fill(&mut out).is_err());
        unpacker.begin(&good).unwrap().fill(&mut out).unwrap();
        assert_eq!(&out, b"racklet");
    }

    #[test]
    fn cases_118_to_123_frames_of_any_other_form_are_refused() {
        let content = [7_u8; 5000];
        let good = pack(&content);
        let magic = MAGIC;
        let with = |parts: &[&[u8]]| parts.concat();
        let skippable = [0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 9];
        let mut checksummed = zstd::Encoder::new(Vec::new(), 3).unwrap();
        checksummed.include_checksum(true).unwrap();
        io::Write::write_all(&mut checksummed, &content).unwrap();
        let mut flipped = checksummed.finish().unwrap();
        *flipped.last_mut().unwrap() ^= 1;
        let window = |byte: u8| with(&[&magic, &[0, byte], &raw_block(7, true)]);
        let claims =
            |claim: u64| with(&[&magic, &[0xC0, 0x50], &claim.to_le_bytes(), &raw_block(7, true)]);
        let claims_single =
            |claim: u64| with(&[&magic, &[0xE0], &claim.to_le_bytes(), &raw_block(7, true)]);
        let dictionary = with(&[&magic, &[0x01, 0x50, 5], &raw_block(7, true)]);
        // (name, frame, signed length, code)
        let rows: &[(&str, Vec<u8>, usize, &str)] = &[
            ("empty", vec![], 1, "decompress"),
            ("118 cut off", good[..good.len() - 1].to_vec(), 5000, "decompress"),
            ("118 only the head", good[..5].to_vec(), 5000, "decompress"),
            ("118 checksum flipped", flipped, 5000, "decompress"),
            ("119 longer than signed", good.clone(), 4999, "length_mismatch"),
            ("119 shorter than signed", good.clone(), 5001, "length_mismatch"),
            ("120 window of 9 MiB", window(13 << 3 | 1), 1, "decompress"),
            ("120 window of 128 MiB", window(17 << 3), 1, "decompress"),
            ("120 window of 2 GiB", window(21 << 3), 1, "decompress"),
            ("120 largest window", window(0xFF), 1, "decompress"),
            ("121 claims 2^62", claims(1 << 62), 1, "decompress"),
            ("121 claims 2^62, one segment", claims_single(1 << 62), 1, "decompress"),
            ("121 claims one more", claims(2), 1, "decompress"),
            ("121 claims nothing", claims(0), 1, "decompress"),
            ("122 two frames", with(&[&good, &good]), 5000, "decompress"),
            ("122 content in two frames", with(&[&good, &good]), 10_000, "decompress"),
            ("122 an empty frame after", with(&[&good, &pack(b"")]), 5000, "decompress"),
            ("122 skippable before", with(&[&skippable, &good]), 5000, "decompress"),
            ("122 skippable after", with(&[&good, &skippable]), 5000, "decompress"),
            ("122 a byte after", with(&[&good, &[0]]), 5000, "decompress"),
            ("123 dictionary id", dictionary, 1, "decompress"),
            ("123 legacy 0.7", vec![0x27, 0xB5, 0x2F, 0xFD, 0, 0, 0, 0], 1, "decompress"),
            ("lz4", vec![0x04, 0x22, 0x4D, 0x18, 0, 0, 0, 0], 1, "decompress"),
        ];
        assert_eq!(unpack(&window(13 << 3), &[1]).unwrap(), [7], "8 MiB is taken");
        assert_eq!(unpack(&claims(1), &[1]).unwrap(), [7], "a true claim is taken");
        for (name, frame, len, code) in rows {
            let error = unpack(frame, &[*len]).map(|_| ()).expect_err(name);
            assert_eq!(error.reason().code(), *code, "{name}: {error:?}");
            if *len > 1 {
                let error = unpack(frame, &[1, len - 1]).map(|_| ()).expect_err(name);
                assert_eq!(error.reason().code(), *code, "{name} in two chunks: {error:?}");
            }
        }
    }
}
