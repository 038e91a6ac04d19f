//! A plain file that stands for a flash and follows its rules, for tests, emulators and images.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{Flash, Geometry, Kind, failed};
use crate::block::{Access, BlockDevice, DeviceError, FileDevice};

/// A plain file with the geometry it is given.
///
/// Programming clears bits and never sets any, as on the real thing, so that a writer that forgets
/// to erase does not read back what it wrote.
pub struct FileFlash {
    file: Box<dyn BlockDevice>,
    geometry: Geometry,
    /// Blocks that count as bad.
    bad: BTreeSet<u64>,
}

impl FileFlash {
    /// Opens a file. Its length is rounded down to whole blocks.
    pub fn open(
        path: &Path,
        access: Access,
        kind: Kind,
        erase: u32,
        page: u32,
    ) -> Result<Self, DeviceError> {
        let file = FileDevice::open(path, access)?;
        if file.is_node() {
            return Err(DeviceError::NotDevice(path.to_owned()));
        }
        Self::over(Box::new(file), kind, erase, page)
    }

    /// A file that is open already: of a simulated machine, say.
    pub fn over(
        file: Box<dyn BlockDevice>,
        kind: Kind,
        erase: u32,
        page: u32,
    ) -> Result<Self, DeviceError> {
        let len = file.len() / u64::from(erase.max(1)) * u64::from(erase);
        let geometry = Geometry { kind, len, erase, page }.check(&file.describe())?;
        Ok(FileFlash { file, geometry, bad: BTreeSet::new() })
    }

    /// The same with blocks that are bad from the factory.
    #[must_use]
    pub fn with_bad(mut self, blocks: impl IntoIterator<Item = u64>) -> Self {
        self.bad.extend(blocks);
        self
    }
}

impl Flash for FileFlash {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn is_bad(&self, block: u64) -> Result<bool, DeviceError> {
        Ok(self.bad.contains(&block))
    }

    fn mark_bad(&self, block: u64) -> Result<(), DeviceError> {
        let at = block * u64::from(self.geometry.erase);
        let why = io::Error::other("a file cannot remember bad blocks");
        Err(failed("mark", &self.describe(), at, why))
    }

    fn erase(&self, block: u64) -> Result<(), DeviceError> {
        let ones = vec![0xff; self.geometry.erase as usize];
        self.file.write_at(&ones, block * u64::from(self.geometry.erase))?;
        self.file.sync()
    }

    fn program(&self, bytes: &[u8], offset: u64) -> Result<(), DeviceError> {
        let mut cells = vec![0; bytes.len()];
        self.file.read_at(&mut cells, offset)?;
        for (cell, byte) in cells.iter_mut().zip(bytes) {
            *cell &= byte;
        }
        self.file.write_at(&cells, offset)?;
        self.file.sync()
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), DeviceError> {
        self.file.read_at(buf, offset)
    }

    fn describe(&self) -> String {
        self.file.describe()
    }
}
