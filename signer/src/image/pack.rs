//! What a worker does: hash and compress one piece, or one group of pieces.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};

use formats::chunks::Content;
use formats::digest::Sha256;
use zstd::bulk::Compressor;
use zstd::stream::raw::{CParameter, Encoder, Operation as _, OutBuffer};

use super::ImageError;
use super::cut::{Piece, ZERO_CHUNK_MAX};
use super::frame::Frame;
use super::reuse::Known;

/// 8 MiB: the largest window that nodes accept (RFC 9659).
const WINDOW_LOG: u32 = 23;
/// Levels above that of small frames. On a Debian system of 1 GiB, with long-distance matching, which finds
/// what the tables of this level have forgotten: 1.01 of one `zstd -3 --long=27` stream instead of 1.04
/// by 3 levels less and 0.99 by 2 more, for 6 s of processor time instead of 4 and 11.
const LARGE_ABOVE: i32 = 2;
/// The highest level whose tables fit beside the others.
const LEVEL_MAX: i32 = 19;

/// The level of large frames beside that of small ones.
pub(super) fn large_level(level: i32) -> i32 {
    (level + LARGE_ABOVE).min(LEVEL_MAX)
}

/// A compressed piece.
pub(super) struct Packed {
    pub(super) piece: Piece,
    pub(super) content: Content,
    pub(super) frame: Frame,
}

/// The result of a job, once a worker has it.
pub(super) type Promise<T> = Receiver<Result<T, ImageError>>;

/// Work, and where its result is awaited.
pub(super) enum Job {
    /// A piece by itself, numbered for messages.
    Piece(usize, Piece, SyncSender<Result<Packed, ImageError>>),
    /// Many pieces, the number of the first, and the name of what they hold.
    Group(usize, Sha256, Grouped, SyncSender<Result<Vec<Frame>, ImageError>>),
}

/// The content of a large frame.
#[derive(Default)]
pub(super) struct Grouped {
    pub(super) bytes: Vec<u8>,
    /// Where its parts end; the last where the bytes do.
    pub(super) ends: Vec<usize>,
    /// Chunks of each part; while it is gathered, the last one grows.
    pub(super) chunks: Vec<u32>,
}

/// Takes jobs until there are no more.
pub(super) fn work_off(work: &Mutex<Receiver<Job>>, level: i32, known: Option<&Known>) {
    let mut packer = Packer { level, known, small: None, large: None, full_zeros: None };
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // Nobody waits any more after an error elsewhere, so the result may be lost.
        match job {
            Job::Piece(chunk, piece, result) => {
                let failed = |source| ImageError::Compress { chunk, source };
                let _ = result.send(packer.piece(piece).map_err(failed));
            }
            Job::Group(chunk, name, group, result) => {
                let failed = |source| ImageError::Compress { chunk, source };
                let _ = result.send(packer.group(&name, &group).map_err(failed));
            }
        }
    }
}

struct Packer<'a> {
    level: i32,
    /// Frames that are there already.
    known: Option<&'a Known>,
    small: Option<Compressor<'static>>,
    large: Option<Encoder<'static>>,
    /// The frame of a zero chunk of full size: most zero chunks are.
    full_zeros: Option<Frame>,
}

impl Packer<'_> {
    fn piece(&mut self, piece: Piece) -> io::Result<Packed> {
        let (content, frame) = match &piece {
            Piece::Data(bytes) => {
                let content = Content::Data(Sha256::of(bytes));
                let known = self.known.and_then(|known| known.chunk(piece.len(), &content));
                match known {
                    Some(frame) => (content, frame),
                    None => (content, self.small(bytes)?),
                }
            }
            Piece::Zeros(ZERO_CHUNK_MAX) => (Content::Zero, self.full_zeros()?),
            Piece::Zeros(len) => (Content::Zero, self.small(&zeros(*len))?),
        };
        Ok(Packed { piece, content, frame })
    }

    fn full_zeros(&mut self) -> io::Result<Frame> {
        if let Some(frame) = &self.full_zeros {
            return Ok(frame.clone());
        }
        let frame = self.small(&zeros(ZERO_CHUNK_MAX))?;
        Ok(self.full_zeros.insert(frame).clone())
    }

    /// One frame with its content size in the header and no checksum: the chunk list has better.
    fn small(&mut self, bytes: &[u8]) -> io::Result<Frame> {
        let compressor = match &mut self.small {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(self.level)?),
        };
        Ok(Frame::new(compressor.compress(bytes)?))
    }

    /// One frame of many chunks, with all of the window that nodes have, and matches found in all
    /// of it. It is cut where the parts end: each can be decompressed once it has arrived.
    fn group(&mut self, name: &Sha256, group: &Grouped) -> io::Result<Vec<Frame>> {
        if let Some(parts) = self.known.and_then(|known| known.frame(name, &group.chunks)) {
            return Ok(parts);
        }
        let encoder = match &mut self.large {
            Some(encoder) => encoder,
            none => {
                let mut encoder = Encoder::new(large_level(self.level))?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
                encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
                none.insert(encoder)
            }
        };
        encoder.reinit()?;
        encoder.set_pledged_src_size(Some(group.bytes.len() as u64))?;
        let mut parts = Vec::new();
        let mut start = 0;
        for end in &group.ends {
            let bytes = group.bytes.get(start..*end).unwrap_or_default();
            let last = *end == group.bytes.len();
            parts.push(Frame::new(part(encoder, bytes, last)?));
            start = *end;
        }
        Ok(parts)
    }
}

/// What the encoder makes of more bytes, all of it.
fn part(encoder: &mut Encoder<'_>, mut bytes: &[u8], last: bool) -> io::Result<Vec<u8>> {
    // Beyond what zstd adds to what does not compress, there is always room.
    let mut out = vec![0; zstd::zstd_safe::compress_bound(bytes.len()) + 1024];
    let mut at = 0;
    while !bytes.is_empty() {
        let done = encoder.run_on_buffers(bytes, out.get_mut(at..).unwrap_or_default())?;
        bytes = bytes.get(done.bytes_read..).unwrap_or_default();
        at += done.bytes_written;
    }
    loop {
        let mut room = OutBuffer::around(out.get_mut(at..).unwrap_or_default());
        let left =
            if last { encoder.finish(&mut room, true)? } else { encoder.flush(&mut room)? };
        at += room.pos();
        if left == 0 {
            out.truncate(at);
            out.shrink_to_fit();
            return Ok(out);
        }
        out.resize(out.len() + left, 0);
    }
}

fn zeros(len: u64) -> Vec<u8> {
    vec![0; usize::try_from(len).expect("a zero chunk has at most 16 MiB")]
}
