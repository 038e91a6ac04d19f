//! The image as the operator names it: a regular file or a block device.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::ImageError;

/// An open image of known length. Opened once: what is measured is what is read.
#[derive(Debug)]
pub struct Source {
    file: File,
    len: u64,
}

impl Source {
    /// Opens a regular file or a block device for reading.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let open = |source| ImageError::Open { path: path.to_owned(), source };
        // Without O_NONBLOCK, opening a pipe would wait for a writer.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let mut file: File = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(|error| open(error.into()))?
            .into();
        let kind = file.metadata().map_err(open)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(ImageError::Kind { path: path.to_owned() });
        }
        // The length of a block device is only known by seeking to its end.
        let len = file.seek(SeekFrom::End(0)).map_err(open)?;
        file.rewind().map_err(open)?;
        Ok(Source { file, len })
    }

    /// Length in bytes when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}
