//! What QEMU's `blklogwrites` leaves: every write and flush of a disk, in the order of their requests.
//!
//! The form is that of Linux' `dm-log-writes`, version 1; all integers little-endian.
//!
//! | sector | offset | bytes | meaning |
//! |---|---|---|---|
//! | 0 | 0 | 8 | `0x6a736677736872` |
//! | | 8 | 8 | version, 1 |
//! | | 16 | 8 | entries |
//! | | 24 | 4 | bytes of a sector |
//! | 1 … | 0 | 8 | first sector that is written |
//! | | 8 | 8 | sectors |
//! | | 16 | 8 | 1 flush, 2 forced unit access, 4 discard, 8 mark |
//! | | 24 | 8 | bytes behind the header in its sector: of marks only |
//! | next | | | the sectors' bytes, but for discards |
//!
//! A write that was still going on when a flush was asked for stands before the flush, and counts as
//! covered by it. Nobody may rely on that, and who waits for writes before flushing does not.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::small::SECTOR;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Everything that was written before is durable.
    pub(super) flush: bool,
    /// This is durable at once.
    pub(super) forced: bool,
    /// First sector.
    pub(super) first: u64,
    /// What was written from there; a discard reads as zeros here.
    pub(super) bytes: Vec<u8>,
}

impl Entry {
    pub(super) fn sectors(&self) -> u64 {
        self.bytes.len() as u64 / SECTOR
    }
}

/// Reads a log.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>> {
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    parse(BufReader::with_capacity(1 << 20, file)).with_context(|| path.display().to_string())
}

fn parse(mut log: impl Read + Seek) -> Result<Vec<Entry>> {
    let mut sector = [0; SECTOR as usize];
    log.read_exact(&mut sector)?;
    let number = |sector: &[u8], at: usize| -> u64 {
        let bytes = sector.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_le_bytes(bytes.unwrap_or_default())
    };
    ensure!(number(&sector, 0) == MAGIC && number(&sector, 8) == 1, "no log of writes, version 1");
    let size = number(&sector, 24) & 0xffff_ffff;
    ensure!(size == SECTOR, "its sectors have {size} bytes");
    let mut entries = Vec::new();
    let mut at = SECTOR;
    for number_of in 0..number(&sector, 16) {
        log.seek(SeekFrom::Start(at))?;
        log.read_exact(&mut sector).with_context(|| format!("entry {number_of}"))?;
        at += SECTOR;
        let (first, sectors) = (number(&sector, 0), number(&sector, 8));
        let flags = number(&sector, 16);
        ensure!(sectors < 1 << 20, "entry {number_of} has {sectors} sectors");
        let mut bytes = vec![0; (sectors * SECTOR) as usize];
        if flags & DISCARD == 0 {
            log.read_exact(&mut bytes).with_context(|| format!("bytes of entry {number_of}"))?;
            at += sectors * SECTOR;
        }
        let (flush, forced) = (flags & FLUSH != 0, flags & FUA != 0);
        entries.push(Entry { flush, forced, first, bytes });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_and_a_torn_one_is_not() {
        let mut log = Vec::new();
        let mut sector = |words: &[u64]| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.resize(SECTOR as usize, 0);
            log.extend(bytes);
        };
        sector(&[MAGIC, 1, 3, SECTOR]);
        sector(&[7, 2, 0, 0]);
        sector(&[1]);
        sector(&[2]);
        sector(&[0, 0, FLUSH, 0]);
        sector(&[9, 1, FUA, 0]);
        sector(&[3]);
        let entries = parse(std::io::Cursor::new(&log)).unwrap();
        let seen: Vec<_> =
            entries.iter().map(|e| (e.first, e.sectors(), e.flush, e.forced)).collect();
        assert_eq!(seen, [(7, 2, false, false), (0, 0, true, false), (9, 1, false, true)]);
        assert_eq!((entries[0].bytes[0], entries[0].bytes[512], entries[2].bytes[0]), (1, 2, 3));
        log.truncate(log.len() - 1);
        parse(std::io::Cursor::new(&log)).unwrap_err();
    }
}
