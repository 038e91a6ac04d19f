//! Reading and writing past the page cache (`O_DIRECT`): what is read comes from the medium, what is written
//! is not copied, and no page of memory is filled with what is needed once.
//!
//! ```text
//!   page │      page      │      page      │ page
//!  ──────┼──┬─────────────┼────────────────┼──┬────
//!        │  └──── bytes to be written ─────┼──┘
//!   page cache ─┘ │◄──────── direct ──────►│ └─ page cache
//! ```
//! The ends of what is written share their pages with neighbours, so they go through the page cache. Nothing
//! else of a page is ever in it while its blocks are written directly: a page that the kernel writes later
//! never brings back older bytes of a neighbour.
//!
//! Where the file system or the driver refuses it, or there are no whole blocks, nothing is done, and the
//! caller reads or writes in the ordinary way.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsRawFd as _, OwnedFd};
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
    file: OnceLock<Option<File>>,
    /// It can be opened and not used; it is not tried again.
    refused: AtomicBool,
}

/// Bytes that lie in memory as they are to lie on a device: the first is in its page where its offset is in
/// one. [`write_medium`](super::BlockDevice::write_medium) then needs no copy of them.
#[derive(Debug)]
pub struct Placed {
    memory: Vec<u8>,
    from: usize,
}

impl Placed {
    /// So many zeros for this offset.
    pub fn zeroed(offset: u64, len: usize) -> Self {
        let memory = vec![0; len + page()];
        let from = shift(&memory, offset);
        let mut placed = Placed { memory, from };
        placed.memory.truncate(from + len);
        placed
    }

    /// A copy of these bytes for this offset.
    pub fn copied(offset: u64, bytes: &[u8]) -> Self {
        let mut memory = Vec::with_capacity(bytes.len() + page());
        let from = shift(&memory, offset);
        memory.resize(from, 0);
        memory.extend_from_slice(bytes);
        Placed { memory, from }
    }
}

impl Deref for Placed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.from..]
    }
}

impl DerefMut for Placed {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..]
    }
}

/// How many bytes of the memory come before the first that lies in its page as `offset` does.
fn shift(memory: &[u8], offset: u64) -> usize {
    let page = page();
    let wanted = (offset % page as u64) as usize;
    (wanted + page - memory.as_ptr().addr() % page) % page
}

/// 4 KiB, on ARMv8 up to 64 KiB.
fn page() -> usize {
    rustix::param::page_size()
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
        let Some(reader) = self.opened(file) else { return Ok(None) };
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
            Err(error) => self.unless_refused(error).map(|()| None),
        }
    }

    /// Writes to `file` what fills whole pages, from where it is in memory, and says which of the bytes that
    /// were. None where it cannot, or where they do not lie as [`Placed`] puts them. After an error any of
    /// them may be written.
    pub(super) fn write(
        &self,
        file: &File,
        sector: u32,
        bytes: &[u8],
        offset: u64,
    ) -> io::Result<Range<usize>> {
        let block = page().max(BLOCK).max(sector as usize);
        let range = offset..offset.saturating_add(bytes.len() as u64);
        let Some(inner) = blocks_inside(&range, block as u64) else { return Ok(0..0) };
        let Some(blocks) = bytes.get(inner.clone()) else { return Ok(0..0) };
        if blocks.as_ptr().align_offset(block) != 0 {
            return Ok(0..0);
        }
        let Some(writer) = self.opened(file) else { return Ok(0..0) };
        let mut done = 0;
        while done < blocks.len() {
            match writer.write_at(&blocks[done..], offset + (inner.start + done) as u64) {
                // The rest has no address that it would be taken from.
                Ok(count) if count == 0 || count % block != 0 => {
                    done += count / block * block;
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.unless_refused(error)?;
                    break;
                }
            }
        }
        Ok(if done == 0 { 0..0 } else { inner.start..inner.start + done })
    }

    fn opened(&self, file: &File) -> Option<&File> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        self.file.get_or_init(|| reopened(file).ok().map(File::from)).as_ref()
    }

    /// A refusal is remembered; every other error is one.
    fn unless_refused(&self, error: io::Error) -> io::Result<()> {
        if !is_refusal(&error) {
            return Err(error);
        }
        self.refused.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The whole blocks inside a range, counted from its beginning; `None` when there are none.
fn blocks_inside(range: &Range<u64>, block: u64) -> Option<Range<usize>> {
    let first = range.start.checked_next_multiple_of(block)?;
    let last = range.end / block * block;
    let inside = |at: u64| usize::try_from(at - range.start).ok();
    if first < last { Some(inside(first)?..inside(last)?) } else { None }
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
fn reopened(file: &File) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mode = fs::fcntl_getfl(file)? & OFlags::RWMODE;
    let flags = mode | OFlags::DIRECT | OFlags::NONBLOCK | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty())
}

/// The system says that this cannot be done so, not that it cannot be done.
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

    #[test]
    fn blocks_inside_are_whole_and_counted_from_the_beginning() {
        for (range, wanted) in [
            (0..4095, None),
            (0..4096, Some(0..4096)),
            (1..8191, None),
            (1..8192, Some(4095..8191)),
            (4096..13_000, Some(0..8192)),
            (5000..20_000, Some(3192..11_384)),
            (u64::MAX - 9..u64::MAX, None),
        ] {
            assert_eq!(blocks_inside(&range, 4096), wanted, "{range:?}");
        }
    }

    #[test]
    fn placed_bytes_lie_in_their_page_as_on_the_device() {
        for offset in [0, 1, 4095, 4096, 70_001, u64::MAX] {
            for placed in [Placed::zeroed(offset, 5000), Placed::copied(offset, &[7; 5000])] {
                assert_eq!(placed.len(), 5000);
                assert_eq!(placed.as_ptr().addr() % page(), (offset % page() as u64) as usize);
            }
        }
        assert!(Placed::copied(3, b"racklet")[..] == *b"racklet");
    }
}
