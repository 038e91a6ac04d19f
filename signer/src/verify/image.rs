//! One image blob against its chunk list, in one pass.

use std::io::{self, Read};

use formats::chunks::{ChunkList, Encoding, Frame, seekable_table};
use formats::digest::{Algorithm, Digest, Hasher, Sha256};
use formats::oci::Descriptor;
use formats::reason::Reason;
use update_core::image::chunk_matches;
use zstd::stream::raw::{DParameter, Operation as _};

use super::VerifyError;
use crate::progress::Progress;
use crate::repository::RegistryError;

/// 8 MiB (RFC 9659): what nodes accept.
const WINDOW_LOG_MAX: u32 = 23;

/// Reads a blob to its end: every frame has its signed digest and decompresses to its chunks, the
/// seekable table is the one that follows from them, and nothing comes after it. The chunks are given to
/// `sink` in order, once they are verified.
pub(super) fn verify(
    blob: impl Read,
    descriptor: &Descriptor,
    list: &ChunkList,
    encoding: &Encoding,
    raw_sha256: Sha256,
    progress: &Progress,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), VerifyError> {
    let mut blob = Blob { blob, descriptor, hasher: descriptor.digest.algorithm().hasher() };
    let mut raw = Algorithm::Sha256.hasher();
    let mut table = Vec::new();
    let mut chunks = list.chunks();
    let mut decoder =
        Decoder::new().map_err(|error| blob.wrong(error.to_string(), Reason::Decompress))?;
    let mut frames = list.frames(encoding).enumerate().peekable();
    while let Some((number, frame)) = frames.next() {
        let packed = blob.read(u64::from(frame.len))?;
        if Sha256::of(&packed) != frame.sha256 {
            return Err(
                blob.wrong(format!("frame {number} has another digest"), Reason::HashMismatch)
            );
        }
        let held: Vec<_> = chunks.by_ref().take(frame.chunks as usize).collect();
        let length: u64 = held.iter().map(|chunk| u64::from(chunk.len)).sum();
        let last = frames.peek().is_none_or(|(_, next)| !next.continues);
        let bytes = decoder
            .part(&packed, &frame, last, length)
            .map_err(|why| blob.wrong(format!("frame {number}: {why}"), Reason::Decompress))?;
        let mut rest = bytes.as_slice();
        for chunk in held {
            let (bytes, after) = rest.split_at_checked(chunk.len as usize).unwrap_or((rest, &[]));
            if !chunk_matches(&chunk, bytes) {
                let what = format!("chunk {} differs from the signed one", chunk.index);
                return Err(blob.wrong(what, Reason::HashMismatch));
            }
            rest = after;
        }
        raw.update(&bytes);
        sink(&bytes).map_err(VerifyError::Write)?;
        // Chunk lists bound a frame's raw length to 64 MiB.
        let raw = u32::try_from(length).unwrap_or(u32::MAX);
        match table.last_mut() {
            Some((packed, whole)) if frame.continues => {
                (*packed, *whole) = (frame.len + *packed, raw + *whole);
            }
            _ => table.push((frame.len, raw)),
        }
        progress.add(u64::from(frame.len));
    }
    let expected = seekable_table(&table);
    if blob.read(expected.len() as u64)? != expected {
        return Err(blob.wrong("the seekable table differs".to_owned(), Reason::Decompress));
    }
    blob.finish()?;
    if raw.finish() == Digest::Sha256(raw_sha256) {
        return Ok(());
    }
    let what = "the image has another digest than its config says".to_owned();
    Err(VerifyError::Image { blob: descriptor.digest.clone(), what, reason: Reason::HashMismatch })
}

struct Blob<'a, R> {
    blob: R,
    descriptor: &'a Descriptor,
    hasher: Hasher,
}

impl<R: Read> Blob<'_, R> {
    fn read(&mut self, len: u64) -> Result<Vec<u8>, VerifyError> {
        let mut bytes = Vec::new();
        self.blob.by_ref().take(len).read_to_end(&mut bytes).map_err(|e| self.failed(e))?;
        if bytes.len() as u64 != len {
            return Err(self.wrong("the blob ends too soon".to_owned(), Reason::LengthMismatch));
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn finish(mut self) -> Result<(), VerifyError> {
        let mut byte = [0];
        let more = self.blob.read(&mut byte).map_err(|error| self.failed(error))?;
        if more > 0 {
            return Err(self.wrong("bytes follow its end".to_owned(), Reason::LengthMismatch));
        }
        if self.hasher.clone().finish() == self.descriptor.digest {
            Ok(())
        } else {
            Err(self.wrong("it has another digest".to_owned(), Reason::HashMismatch))
        }
    }

    fn wrong(&self, what: String, reason: Reason) -> VerifyError {
        VerifyError::Image { blob: self.descriptor.digest.clone(), what, reason }
    }

    fn failed(&self, source: io::Error) -> VerifyError {
        let digest = self.descriptor.digest.clone();
        RegistryError::Stream { digest, source }.into()
    }
}

/// Decompresses frames that come whole or in parts.
struct Decoder(zstd::stream::raw::Decoder<'static>);

impl Decoder {
    fn new() -> io::Result<Self> {
        let mut decoder = zstd::stream::raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Decoder(decoder))
    }

    /// Exactly `length` bytes of one frame, which ends with the last part and not before, with a
    /// window that nodes accept.
    fn part(
        &mut self,
        packed: &[u8],
        frame: &Frame,
        last: bool,
        length: u64,
    ) -> Result<Vec<u8>, String> {
        let one = zstd::zstd_safe::find_frame_compressed_size(packed);
        if !frame.continues && last && one.ok() != usize::try_from(frame.len).ok() {
            return Err("is not exactly one zstd frame".to_owned());
        }
        let text = |error: io::Error| error.to_string();
        if !frame.continues {
            self.0.reinit().map_err(text)?;
        }
        // One byte more than it should be: none may come.
        let mut bytes = vec![0; usize::try_from(length + 1).map_err(|e| e.to_string())?];
        let (mut left, mut at, mut ended) = (packed, 0, false);
        loop {
            let room = bytes.get_mut(at..).unwrap_or_default();
            let done = self.0.run_on_buffers(left, room).map_err(text)?;
            left = left.get(done.bytes_read..).unwrap_or_default();
            at += done.bytes_written;
            ended |= done.remaining == 0;
            if ended || at == bytes.len() || (done.bytes_read == 0 && done.bytes_written == 0) {
                break;
            }
        }
        if at as u64 != length || !left.is_empty() || ended != last {
            return Err(format!("does not decompress to its {length} bytes"));
        }
        bytes.truncate(at);
        Ok(bytes)
    }
}
