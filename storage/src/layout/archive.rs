//! A layout in one tar file, read in place: nothing is ever extracted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::digest::Digest;
use formats::oci::{Index, NamedManifest};
use formats::ustar::{BLOCK, Header, Kind, UstarError, padding};

use super::blob::{Blob, read_failed};
use super::{INDEX_LIMIT, Layout, LayoutError, check_layout_file, sniff};
use crate::dir::DirFile;
use crate::error::FileError;
use crate::open::open_regular;

/// 65,536 entries: a repository of ten years of daily refreshes; bounds time and memory.
pub const ENTRY_LIMIT: usize = 1 << 16;

/// 1 MiB: more than any tar's blocking factor; bounds what a sparse file makes us read.
const END_LIMIT: u64 = 1 << 20;

/// An OCI image layout in a tar file (`oci-archive:`).
///
/// Opening walks the headers and notes where each blob lies. The form is strict, see
/// [`formats::ustar`]: in addition there are no two entries of one name, all padding is zero, two
/// blocks of zeros end the archive, and only zeros follow. Entries that no layout has are passed
/// over and never read.
#[derive(Debug)]
pub struct Archive {
    file: Arc<File>,
    path: Arc<PathBuf>,
    index: Extent,
    /// Sorted by digest, none twice.
    blobs: Vec<(Digest, Extent)>,
}

/// Where content lies in the file, in bytes.
#[derive(Debug, Clone, Copy)]
struct Extent {
    offset: u64,
    len: u64,
}

impl Archive {
    /// Opens and indexes a tar. The file is opened once, must be a regular file and not a symbolic
    /// link, and is held open.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let file = open_regular(path).map_err(|error| match error {
            FileError::NotRegular(path) => LayoutError::NotFile(path.display().to_string()),
            // `/dev/stdin` is a link to whatever it is.
            FileError::Symlink(path) if path.starts_with("/dev") || path.starts_with("/proc") => {
                LayoutError::NotFile(path.display().to_string())
            }
            error => LayoutError::opening(error),
        })?;
        Self::from_file(file, path)
    }

    /// Indexes a tar that is open already; `path` is for messages.
    pub fn from_file(file: File, path: &Path) -> Result<Self, LayoutError> {
        let walked = Walk::new(&file, path)?.run()?;
        let extent = |name: &str, why| {
            let missing = || LayoutError::NotLayout(path.display().to_string(), why);
            walked.other.get(name).copied().ok_or_else(missing)
        };
        let version = extent("oci-layout", "there is no oci-layout")?;
        check_layout_file(path, &read_small(&file, path, version, 4096)?)?;
        let index = extent("index.json", "there is no index.json")?;
        let blobs = walked.blobs;
        let archive =
            Archive { file: Arc::new(file), path: Arc::new(path.to_owned()), index, blobs };
        // Whether it is one; who looks into it later reads it again.
        archive.named()?;
        Ok(archive)
    }

    /// Read anew each time: it may have 8 MiB.
    fn index_bytes(&self) -> Result<Vec<u8>, LayoutError> {
        read_small(&self.file, &self.path, self.index, INDEX_LIMIT)
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Layout for Archive {
    fn index(&self) -> Result<Arc<Index>, LayoutError> {
        Ok(Arc::new(Index::parse_layout(&self.index_bytes()?)?))
    }

    fn named(&self) -> Result<Vec<NamedManifest>, LayoutError> {
        Ok(NamedManifest::parse_layout(&self.index_bytes()?)?)
    }

    fn open_blob(&self, digest: &Digest) -> Result<Option<Blob>, LayoutError> {
        let Ok(at) = self.blobs.binary_search_by(|(other, _)| other.cmp(digest)) else {
            return Ok(None);
        };
        let blob = |(_, extent): &(Digest, Extent)| {
            let file: Arc<dyn DirFile> = Arc::<File>::clone(&self.file);
            Blob::new(digest.clone(), file, Arc::clone(&self.path), extent.offset, extent.len)
        };
        Ok(self.blobs.get(at).map(blob))
    }
}

/// One pass over the headers.
struct Walk<'a> {
    file: &'a File,
    path: &'a Path,
    /// Length of the file in bytes.
    len: u64,
    /// Where the next header begins.
    at: u64,
    entries: usize,
    /// In the order of the file; sorted at the end.
    blobs: Vec<(Digest, Extent)>,
    /// Directories and every file that is no blob.
    other: BTreeMap<String, Extent>,
}

impl<'a> Walk<'a> {
    fn new(file: &'a File, path: &'a Path) -> Result<Self, LayoutError> {
        let len = file.metadata().map_err(|error| read_failed(path, error))?.len();
        let (blobs, other) = (Vec::new(), BTreeMap::new());
        Ok(Walk { file, path, len, at: 0, entries: 0, blobs, other })
    }

    fn run(mut self) -> Result<Self, LayoutError> {
        if self.len == 0 {
            return Err(LayoutError::Empty(self.path.display().to_string()));
        }
        while let Some(header) = self.header()? {
            self.entries += 1;
            if self.entries > ENTRY_LIMIT {
                return Err(LayoutError::TooManyEntries);
            }
            self.entry(header)?;
        }
        self.end()?;
        self.sort_blobs()?;
        Ok(self)
    }

    fn header(&mut self) -> Result<Option<Header>, LayoutError> {
        let block = self.block()?;
        let offset = self.at;
        let header = Header::parse(&block);
        let no_tar = matches!(header, Err(UstarError::Magic) | Ok(None)) && offset == 0;
        if no_tar && let Some(error) = sniff::refuse(self.path, &block) {
            return Err(error);
        }
        let header = header.map_err(|source| LayoutError::Tar { offset, source })?;
        self.at += BLOCK as u64;
        Ok(header)
    }

    fn entry(&mut self, header: Header) -> Result<(), LayoutError> {
        let extent = Extent { offset: self.at, len: header.size };
        // Both far below 2^63: the file's length and 8 GiB.
        let content_end = self.at + header.size;
        let padding = padding(header.size);
        if content_end + padding > self.len {
            return Err(self.shape("an entry reaches past the end of the file"));
        }
        let mut filler = [0; BLOCK];
        let filler = &mut filler[..usize::try_from(padding).unwrap_or(BLOCK)];
        self.read(filler, content_end)?;
        if filler.iter().any(|byte| *byte != 0) {
            return Err(self.shape("padding is not zero"));
        }
        self.at = content_end + padding;

        let digest = (header.kind == Kind::File).then(|| digest_of_path(&header.name)).flatten();
        if let Some(digest) = digest {
            self.blobs.push((digest, extent));
            return Ok(());
        }
        if self.other.len() >= OTHER_LIMIT {
            return Err(LayoutError::TooManyEntries);
        }
        match self.other.insert(header.name.clone(), extent) {
            Some(_) => Err(LayoutError::Duplicate(header.name)),
            None => Ok(()),
        }
    }

    /// Sorts the blobs; refuses one that is there twice.
    fn sort_blobs(&mut self) -> Result<(), LayoutError> {
        self.blobs.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let twin = self.blobs.windows(2).find_map(|pair| match pair {
            [(a, _), (b, _)] if a == b => Some(a),
            _ => None,
        });
        match twin {
            Some(digest) => {
                Err(LayoutError::Duplicate(super::dir::blob_path(digest).display().to_string()))
            }
            None => Ok(()),
        }
    }

    /// The second block of zeros, and nothing but zeros after it.
    fn end(&mut self) -> Result<(), LayoutError> {
        if self.len - self.at > END_LIMIT {
            return Err(self.shape("far more follows than the end of a tar"));
        }
        if self.block()?.iter().any(|byte| *byte != 0) {
            return Err(self.shape("the end marker is one block only"));
        }
        let mut rest = vec![0; usize::try_from(self.len - self.at).unwrap_or(0)];
        self.read(&mut rest, self.at)?;
        match rest.iter().position(|byte| *byte != 0) {
            Some(at) => {
                self.at += at as u64;
                Err(self.shape("something follows the end marker"))
            }
            None if rest.len() % BLOCK != 0 => Err(self.shape("the last block is cut off")),
            None => Ok(()),
        }
    }

    fn block(&self) -> Result<[u8; BLOCK], LayoutError> {
        let mut block = [0; BLOCK];
        if self.len - self.at < BLOCK as u64 {
            return Err(self.shape("the file ends without an end marker"));
        }
        self.read(&mut block, self.at)?;
        Ok(block)
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<(), LayoutError> {
        read_exact(self.file, self.path, buf, offset)
    }

    fn shape(&self, what: &'static str) -> LayoutError {
        LayoutError::Shape { offset: self.at, what }
    }
}

/// 1,024 entries beside the blobs; a layout has four, tools add a few.
const OTHER_LIMIT: usize = 1024;

/// `blobs/<algorithm>/<hex>`.
fn digest_of_path(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn read_small(file: &File, path: &Path, at: Extent, limit: u64) -> Result<Vec<u8>, LayoutError> {
    let len = usize::try_from(at.len).ok().filter(|_| at.len <= limit);
    let mut bytes = vec![0; len.ok_or(LayoutError::IndexTooLarge(at.len))?];
    read_exact(file, path, &mut bytes, at.offset)?;
    Ok(bytes)
}

fn read_exact(file: &File, path: &Path, buf: &mut [u8], offset: u64) -> Result<(), LayoutError> {
    file.read_exact_at(buf, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => LayoutError::Shortened(path.display().to_string()),
        _ => LayoutError::Read(FileError::io("read", path, error)),
    })
}
