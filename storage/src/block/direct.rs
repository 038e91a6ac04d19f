//! Reading past the page cache (`O_DIRECT`): the bytes come from the medium, and no page of memory is filled
//! with what is read once.
//!
//! Where the file system or the driver refuses it, or a range has no whole blocks around it, nothing is read,
//! and the caller reads in the ordinary way.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// 4 KiB: what file systems and media take for address, offset and length; larger sectors count where there are any.
const BLOCK: usize = 4096;

/// The same file, opened once more.
#[derive(Debug, Default)]
pub(super) struct Direct {
    /// `None` where it cannot be opened so.
    reader: OnceLock<Option<File>>,
    /// It can be opened and not read; it is not tried again.
    refused: AtomicBool,
}

impl Direct {
    /// Reads a range of `file`, of which `end` is the length, and says where in `buffer` it is now. The buffer
    /// grows by two blocks more than the range at most, and by one for its place in memory.
    pub(super) fn read(
        &self,
        file: &File,
        sector: u32,
        end: u64,
        buffer: &mut Vec<u8>,
        range: Range<u64>,
    ) -> io::Result<Option<Range<usize>>> {
        if self.refused.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(reader) = self.reader.get_or_init(|| reopened(file).ok()) else { return Ok(None) };
        let block = BLOCK.max(sector as usize);
        let Some(blocks) = blocks_around(&range, block as u64, end) else { return Ok(None) };
        let Ok(len) = usize::try_from(blocks.end - blocks.start) else { return Ok(None) };
        if buffer.len() < len + block {
            buffer.resize(len + block, 0);
        }
        let shift = buffer.as_ptr().align_offset(block);
        let Some(place) = buffer.get_mut(shift..shift.saturating_add(len)) else { return Ok(None) };
        match read_blocks(reader, place, blocks.start, block) {
            Ok(true) => {
                // Inside the blocks, whose length fits.
                let from = shift + (range.start - blocks.start) as usize;
                Ok(Some(from..from + (range.end - range.start) as usize))
            }
            Ok(false) => Ok(None),
            Err(error) if is_refusal(&error) => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whole blocks that hold a range; `None` for an empty range, and where they would end past the end.
fn blocks_around(range: &Range<u64>, block: u64, end: u64) -> Option<Range<u64>> {
    let last = range.end.checked_next_multiple_of(block)?;
    let first = range.start / block * block;
    (range.start < range.end && last <= end).then_some(first..last)
}

/// Fills all of `place`; `false` where the file ends before, or answers with parts of blocks.
fn read_blocks(reader: &File, place: &mut [u8], offset: u64, block: usize) -> io::Result<bool> {
    let mut done = 0;
    while done < place.len() {
        match reader.read_at(&mut place[done..], offset + done as u64) {
            Ok(count) if count == 0 || count % block != 0 => return Ok(false),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// By its descriptor, so that it is the same file whatever its path leads to by now.
fn reopened(file: &File) -> Result<File, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map(File::from)
}

/// The system says that this cannot be read so, not that it cannot be read.
fn is_refusal(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_the_range_and_end_with_the_device() {
        for (range, end, wanted) in [
            (0..1, 8192, Some(0..4096)),
            (0..4096, 8192, Some(0..4096)),
            (4095..4097, 8192, Some(0..8192)),
            (5000..8192, 8192, Some(4096..8192)),
            (5000..8192, 8191, None),
            (7..7, 8192, None),
            (0..u64::MAX, u64::MAX, None),
        ] {
            assert_eq!(blocks_around(&range, 4096, end), wanted, "{range:?} of {end}");
        }
    }
}
