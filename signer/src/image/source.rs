//! The image as the operator names it: a regular file or a block device.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use formats::verity::{BLOCK, Builder, Verity, tree_len};

use super::ImageError;

/// An open image of known length. Opened once: what is measured is what is read.
#[derive(Debug)]
pub struct Source {
    file: File,
    len: u64,
    tree: Option<Tree>,
}

/// A dm-verity tree that is made while the image is read, and read behind it.
#[derive(Debug)]
struct Tree {
    /// While there is data to come.
    builder: Option<Builder>,
    /// Less than a block: what was read and not hashed yet.
    block: Vec<u8>,
    /// Zeros up to a block, superblock and tree.
    tail: Cursor<Vec<u8>>,
    verity: Option<Verity>,
}

impl Tree {
    fn take(&mut self, mut bytes: &[u8]) {
        let Some(builder) = &mut self.builder else { return };
        while !bytes.is_empty() {
            let room = BLOCK - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend(now);
            if self.block.len() == BLOCK {
                builder.push(&self.block);
                self.block.clear();
            }
            bytes = later;
        }
    }

    /// The data has ended.
    fn finish(&mut self) {
        let Some(mut builder) = self.builder.take() else { return };
        let mut tail = Vec::new();
        if !self.block.is_empty() {
            builder.push(&self.block);
            tail.resize(BLOCK - self.block.len(), 0);
        }
        let (verity, tree) = builder.finish();
        tail.extend(tree);
        self.verity = Some(verity);
        self.tail = Cursor::new(tail);
    }
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
        Ok(Source { file, len, tree: None })
    }

    /// The image with a dm-verity tree behind it (`formats::verity`).
    #[must_use]
    pub fn with_tree(self, salt: &[u8]) -> Self {
        let tree = Tree {
            builder: Some(Builder::new(salt)),
            block: Vec::new(),
            tail: Cursor::default(),
            verity: None,
        };
        Source { tree: Some(tree), ..self }
    }

    /// What is to be signed of the tree, once everything was read.
    pub fn verity(&self) -> Option<&Verity> {
        self.tree.as_ref()?.verity.as_ref()
    }

    /// Length in bytes when it was opened, with its tree.
    pub fn len(&self) -> u64 {
        let blocks = self.len.div_ceil(BLOCK as u64);
        match self.tree {
            Some(_) => (blocks * BLOCK as u64).saturating_add(tree_len(blocks)),
            None => self.len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let Some(tree) = &mut self.tree else { return Ok(count) };
        if count > 0 {
            tree.take(buffer.get(..count).unwrap_or_default());
            return Ok(count);
        }
        tree.finish();
        tree.tail.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_follows_the_image_filled_up_to_a_block() {
        for len in [1, 4095, 4096, 4097, 700_000] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let data = vec![7; len];
            std::fs::write(file.path(), &data).unwrap();
            let mut source = Source::open(file.path()).unwrap().with_tree(b"salt");
            let mut read = Vec::new();
            source.read_to_end(&mut read).unwrap();
            assert_eq!(read.len() as u64, source.len(), "{len}");
            let verity = source.verity().unwrap();
            verity.check(source.len()).unwrap();
            assert!(read.starts_with(&data));
            let at = usize::try_from(verity.hash_offset).unwrap();
            assert!(read[len..at].iter().all(|byte| *byte == 0));
            assert!(read[at..].starts_with(b"verity\0\0"));
        }
    }
}
