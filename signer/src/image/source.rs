//! The image as the operator names it: a regular file or a block device.

use std::fs::{File, Metadata};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use formats::verity::{BLOCK, Builder, Verity, tree_len};

use super::ImageError;
use super::kind;
use super::probe::{HEAD, Probe, TAIL};

/// An open image of known length. Opened once: what is measured is what is read.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    /// Length when it was opened, at least 1.
    len: u64,
    /// When it was last written to; none of a block device, whose node does not say.
    modified: Option<SystemTime>,
    /// Bytes read so far, without the tree.
    read: u64,
    /// Whether a byte was read that is not zero.
    content: bool,
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
    /// Opens a regular file or a block device for reading; refuses one without bytes, which no node
    /// would write.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let open = |source| ImageError::Open { path: path.to_owned(), source };
        // Without O_NONBLOCK, opening a pipe would wait for a writer.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        let mut file: File = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(|error| open(error.into()))?
            .into();
        let metadata = file.metadata().map_err(open)?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(ImageError::Kind { path: path.to_owned() });
        }
        // The length of a block device is only known by seeking to its end.
        let len = file.seek(SeekFrom::End(0)).map_err(open)?;
        file.rewind().map_err(open)?;
        if len == 0 {
            return Err(ImageError::Empty { path: path.to_owned() });
        }
        let (path, modified) = (path.to_owned(), modified(&metadata));
        Ok(Source { path, file, len, modified, read: 0, content: false, tree: None })
    }

    /// Refuses what its first and last bytes show to be no raw image. Reads some 128 KiB, whatever
    /// its length.
    pub fn check_kind(&self) -> Result<(), ImageError> {
        let failed = |offset| move |source| ImageError::Read { offset, source };
        let head = read_at(&self.file, 0, HEAD).map_err(failed(0))?;
        let end = self.len.saturating_sub(TAIL as u64);
        let tail = read_at(&self.file, end, TAIL).map_err(failed(end))?;
        let probe = Probe { len: self.len, head: &head, tail: &tail };
        match kind::recognise(&probe) {
            None => Ok(()),
            Some(kind) => Err(ImageError::Refused {
                path: self.path.clone(),
                what: kind.name,
                mend: kind.mend(&self.path.display().to_string(), &probe),
            }),
        }
    }

    /// Refuses an image that is not the one that was opened any more. To be asked when everything was
    /// read and nothing is visible yet.
    pub fn check_read(&self) -> Result<(), ImageError> {
        if self.read != self.len {
            return Err(ImageError::Changed { expected: self.len, found: self.read });
        }
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|source| ImageError::Read { offset: self.read, source })?;
        if modified(&metadata) != self.modified {
            return Err(ImageError::Rewritten { path: self.path.clone() });
        }
        Ok(())
    }

    /// Whether everything was read, and nothing of it was but zeros.
    pub fn only_zeros(&self) -> bool {
        self.read == self.len && !self.content
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

    /// Never: an image without bytes is not opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// When a regular file was last written to.
fn modified(metadata: &Metadata) -> Option<SystemTime> {
    metadata.is_file().then(|| metadata.modified().ok()).flatten()
}

/// Up to `len` bytes from there on; fewer at the end.
fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        self.read = self.read.saturating_add(count as u64);
        // Asked no more after the first byte that is not zero.
        self.content = self.content || bytes.iter().any(|byte| *byte != 0);
        let Some(tree) = &mut self.tree else { return Ok(count) };
        if count > 0 {
            tree.take(bytes);
            return Ok(count);
        }
        tree.finish();
        tree.tail.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(file: &Path, meanwhile: impl FnOnce(), tree: bool) -> Result<(), ImageError> {
        let mut source = Source::open(file).unwrap();
        if tree {
            source = source.with_tree(b"salt");
        }
        meanwhile();
        std::io::copy(&mut source, &mut io::sink()).unwrap();
        source.check_read()
    }

    #[test]
    fn an_image_that_changes_while_it_is_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("os.img");
        for tree in [false, true] {
            let fresh = || std::fs::write(&path, [7; 5000]).unwrap();
            let resized = |len| {
                let path = path.clone();
                move || File::options().write(true).open(path).unwrap().set_len(len).unwrap()
            };
            fresh();
            read_of(&path, || {}, tree).unwrap();
            // Still two blocks: with its tree it is as long as before.
            for len in [4500, 6000] {
                fresh();
                let error = read_of(&path, resized(len), tree).unwrap_err();
                assert!(
                    matches!(error, ImageError::Changed { expected: 5000, found } if found == len),
                    "{error:?}"
                );
            }
            fresh();
            let later = SystemTime::now() + std::time::Duration::from_secs(7);
            let touched = || {
                let file = File::options().write(true).open(&path).unwrap();
                file.write_all_at(&[8], 100).unwrap();
                file.set_modified(later).unwrap();
            };
            let error = read_of(&path, touched, tree).unwrap_err();
            assert!(matches!(error, ImageError::Rewritten { .. }), "{error:?}");
        }
    }

    /// A tree of zeros is not zeros; it does not count.
    #[test]
    fn nothing_but_zeros_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("os.img");
        let only_zeros = |tree| {
            let mut source = Source::open(&path).unwrap();
            if tree {
                source = source.with_tree(b"salt");
            }
            assert!(!source.only_zeros(), "nothing is known of what was not read");
            std::io::copy(&mut source, &mut io::sink()).unwrap();
            source.only_zeros()
        };
        for tree in [false, true] {
            std::fs::write(&path, vec![0; 70_000]).unwrap();
            assert!(only_zeros(tree));
            File::options().write(true).open(&path).unwrap().write_all_at(&[1], 69_999).unwrap();
            assert!(!only_zeros(tree));
        }
    }

    /// 8 TiB: some 128 KiB of it are looked at, and it is read from its beginning afterwards.
    #[test]
    fn the_kind_of_a_large_image_is_known_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 40).unwrap();
        file.as_file().write_all_at(b"first", 0).unwrap();
        let mut source = Source::open(file.path()).unwrap();
        source.check_kind().unwrap();
        let mut first = [0; 5];
        source.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"first");
    }

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
