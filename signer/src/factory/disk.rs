//! Writing the disk: a sparse file that is zero where nothing was written.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use formats::digest::{Algorithm, Digest};
use formats::gpt::{Geometry, Table, TableCopy, protective_mbr};

use super::error::FactoryError;
use super::layout::Layout;
use crate::progress::Progress;

/// Bytes per sector, as the partition table counts them.
const SECTOR: u32 = 512;
/// 1 MiB: what is read and written at once.
const PIECE: usize = 1 << 20;
/// Zeros of that length are left out: a block of most file systems.
const BLOCK: usize = 4096;

/// A disk that is being written.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
}

impl Disk {
    /// An empty disk with its partition tables.
    pub(super) fn create(file: File, layout: &Layout, path: &Path) -> Result<Self, FactoryError> {
        let failed = FactoryError::file("write", path);
        file.set_len(layout.len).map_err(&failed)?;
        let geometry = Geometry::new(layout.len, SECTOR)?;
        let table = Table::create(geometry, layout.guid, &layout.table())?;
        let disk = Disk { file };
        disk.write(0, &protective_mbr(geometry)).map_err(&failed)?;
        for copy in [TableCopy::Backup, TableCopy::Primary] {
            let image = table.image(copy);
            disk.write(image.array_offset, &image.array).map_err(&failed)?;
            disk.write(image.header_offset, &image.header).map_err(&failed)?;
        }
        Ok(disk)
    }

    /// Writes bytes where they are not zero; everything is zero before.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_sparse(&self.file, offset, bytes)
    }

    /// Writes a whole file.
    pub(super) fn write_file(&self, offset: u64, from: &Path) -> Result<(), FactoryError> {
        let failed = FactoryError::file("read", from);
        let mut source = File::open(from).map_err(&failed)?;
        let (mut buffer, mut at) = (vec![0; PIECE], offset);
        loop {
            let count = source.read(&mut buffer).map_err(&failed)?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            self.write(at, bytes).map_err(FactoryError::file("write", from))?;
            at += count as u64;
        }
    }

    /// Makes it durable and gives its digest.
    pub(super) fn finish(&self, len: u64, progress: &Progress) -> io::Result<Digest> {
        self.file.sync_all()?;
        let mut hasher = Algorithm::Sha256.hasher();
        let (mut buffer, mut at) = (vec![0; PIECE], 0);
        while at < len {
            let count = usize::try_from(len - at).unwrap_or(PIECE).min(PIECE);
            let bytes = buffer.get_mut(..count).unwrap_or_default();
            self.file.read_exact_at(bytes, at)?;
            hasher.update(bytes);
            at += count as u64;
            progress.add(count as u64);
        }
        Ok(hasher.finish())
    }
}

/// Writes the blocks that have something else than zeros.
pub(super) fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut at = offset;
    for block in bytes.chunks(BLOCK) {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, at)?;
        }
        at += block.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_left_out_and_everything_else_is_written() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let mut bytes = vec![0; 3 * BLOCK];
        (bytes[0], bytes[2 * BLOCK + 5]) = (1, 2);
        write_sparse(&file, 7, &bytes).unwrap();
        let mut found = vec![0; bytes.len()];
        file.read_exact_at(&mut found, 7).unwrap();
        assert_eq!(found, bytes);
    }
}
